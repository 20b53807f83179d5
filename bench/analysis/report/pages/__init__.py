"""Pages of a report: the sections and figures as HTML, Markdown, CSV, JSON and LaTeX.

No number is computed here.
"""
