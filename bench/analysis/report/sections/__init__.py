"""What a report says: which records share a ranking, tables, comparisons, sentences.

Nothing here knows about HTML or files.
"""
