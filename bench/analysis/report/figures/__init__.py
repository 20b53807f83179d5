"""Figures of a report, one file for each kind, drawn with matplotlib.

A figure is given rows and draws them; what is compared with what is decided in ``sections``.
"""
