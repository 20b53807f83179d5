"""Figures of a report, one file for each kind, drawn with matplotlib.

Nothing here decides what is compared with what: a figure draws the rows that ``sections`` give it.
"""
