"""Pieces of Markdown that show a text as it is."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence


def escape(text: str) -> str:
    """Text that Markdown shows as it is: no tags, no cell ends, no line ends."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def line(texts: Sequence[str]) -> str:
    """A line of a table.

    >>> line(["a", "b"])
    '| a | b |'
    """
    return f"| {' | '.join(texts)} |"
