"""Text of others (commit subjects, file names, logs) as it may be shown: on one line, with no power over a terminal."""

from __future__ import annotations

import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, formats (bidirectional ones too), surrogates, line separators
_JOINERS = "\u200c\u200d"  # parts of words and of emoji; they do nothing else


def shown(text: str) -> str:
    r"""The text with every character that is not to be seen written out.

    >>> shown("red \x1b[31m and a tab\t")
    'red \\x1b[31m and a tab\\t'
    """
    if text.isprintable():
        return text
    return "".join(each if _visible(each) else _written(each) for each in text)


def cut(text: str, longest: int = 300) -> str:
    """A long text's beginning, with the length of the whole.

    >>> cut("short"), cut("x" * 1200, 5)
    ('short', 'xxxxx... (1,200 characters)')
    """
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters)"


def plain_lines(text: str) -> str:
    r"""Text of several lines for a terminal: its lines stay, everything else that is not seen is written out.

    >>> plain_lines("a\n\x1b[2Jb")
    'a\n\\x1b[2Jb'
    """
    return text if text.isprintable() else "\n".join(map(shown, text.split("\n")))


def _visible(character: str) -> bool:
    return unicodedata.category(character) not in _HIDDEN or character in _JOINERS


def _written(character: str) -> str:
    if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte in no valid encoding, kept by surrogateescape
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
