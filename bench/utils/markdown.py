"""Pieces of Markdown that show a text as it is."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from bench.utils.text import shown


def escape(text: str) -> str:
    r"""Text that Markdown shows as it is: no tags, no links, no cell ends, no line ends, and nothing that is not seen.

    >>> escape("<b>[x](javascript:y)\n|`~~\x1b[31m")
    '&lt;b&gt;\\[x\\](javascript:y) \\|\\`\\~\\~\\\\x1b\\[31m'
    """
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", html.escape(shown(" ".join(text.split())), quote=False))


def line(texts: Sequence[str]) -> str:
    """A line of a table.

    >>> line(["a", "b"])
    '| a | b |'
    """
    return f"| {' | '.join(texts)} |"


def figure(path: str, alternative: str, caption: str = "") -> str:
    """A figure with its caption, in one piece: who leaves out the figure leaves out the caption.

    >>> figure("figures/a.png", "a curve", "One seed.")
    '![a curve](figures/a.png)\\n\\nOne seed.'
    """
    return f"![{escape(alternative)}]({path})" + (f"\n\n{escape(caption)}" if caption else "")


def titled(title: str, table: Sequence[Sequence[str]], remarks: Sequence[str] = ()) -> list[str]:
    """A table under its title, with remarks below; what is empty is left out."""
    lines = ["", f"**{title}**"] if table or remarks else []
    if table:
        lines += ["", line([escape(text) for text in table[0]]), line(["---", *("--:" for _ in table[0][1:])])]
        lines += [line([escape(text) for text in row]) for row in table[1:]]
    return lines + (["", *(f"- {escape(text)}" for text in remarks)] if remarks else [])
