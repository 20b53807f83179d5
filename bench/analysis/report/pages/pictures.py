"""A report's figures as files: each stands once in the folder, and pages link to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from bench.analysis.report.figures.curves import Layout, to_bytes
from bench.utils.markdown import figure

FORMATS = ("svg", "pdf", "png")  # of every figure; without a title inside: its place in a page or paper has one

# Draws a layout, in the dark or not; None where there is nothing to draw.
Draw = Callable[[Layout, bool], Figure | None]


@dataclass(frozen=True)
class Picture:
    """A figure of a report.

    ``PATH.svg``, ``PATH.pdf`` and ``PATH.png`` are for papers and wide screens, ``PATH-narrow.svg`` for phones.
    """

    path: str  # relative to the report, without ending
    alt: str
    caption: str
    narrow: bool = True  # whether there is a layout for phones
    dark: bool = False  # whether there are files for the dark; else pages invert the light ones

    @property
    def markdown(self) -> str:
        return figure(f"{self.path}.png", self.alt, self.caption)

    def shown(self, up: str = "") -> dict[str, Any]:
        """What a template needs; ``up`` leads from the page to the report's folder."""
        narrow = "-narrow" if self.narrow else ""
        return {
            "alt": self.alt,
            "caption": self.caption,
            "wide": f"{up}{self.path}.svg",
            "narrow": f"{up}{self.path}{narrow}.svg",
            "wide_dark": f"{up}{self.path}-dark.svg" if self.dark else "",
            "narrow_dark": f"{up}{self.path}{narrow}-dark.svg" if self.dark else "",
            "files": [(kind.upper(), f"{up}{self.path}.{kind}") for kind in FORMATS],
        }


def draw_picture(
    files: dict[str, bytes],
    path: str,
    draw: Draw,
    *,
    alt: str,
    caption: str = "",
    dark: bool = False,
    narrow: bool = True,
) -> Picture | None:
    """Draw a figure and add its files to ``files``; None where there is nothing to draw.

    Args:
        files: contents by path in the report.
        path: relative to the report, without ending.
        draw: draws a layout, in the dark or not.
        alt: the picture in a sentence.
        caption: what its marks and lines mean.
        dark: whether it has files for the dark.
        narrow: whether it has a layout for phones.
    """
    wide = draw("wide", False)
    if wide is None:
        return None
    files |= {f"{path}.{kind}": to_bytes(wide, kind, transparent=kind == "svg") for kind in FORMATS}
    others: list[tuple[str, Layout, bool]] = [("-narrow", "narrow", False)] if narrow else []
    if dark:
        others += [("-dark", "wide", True)]
        others += [("-narrow-dark", "narrow", True)] if narrow else []
    for ending, layout, in_the_dark in others:
        drawn = draw(layout, in_the_dark)
        assert drawn is not None
        files[f"{path}{ending}.svg"] = to_bytes(drawn, "svg", transparent=True)
    return Picture(path, alt, caption, narrow, dark)
