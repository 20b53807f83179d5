"""Other people's code that pages carry, as its authors published it.

Nothing here is changed by hand: a newer version replaces the files, and what stands here with them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

# uPlot draws the curves that a reader looks at. MIT licence, see uPlot.LICENSE.
# From https://registry.npmjs.org/uplot/-/uplot-1.6.32.tgz, folder dist.
NAME, VERSION, LICENCE = "uPlot", "1.6.32", "MIT"
SHA256 = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}


@cache
def vendored(name: str) -> str:
    """The text of one of the files."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
