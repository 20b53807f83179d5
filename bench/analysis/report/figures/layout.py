"""The positions of a figure's axes: the same each time, to the last bit."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

DIGITS = 9  # of a share of the figure: far below what a file can show


class SteadyLayout(ConstrainedLayoutEngine):
    """matplotlib's constrained layout, rounded.

    Its solver goes through its variables in the order of their addresses, so the last bits of what it finds change from
    draw to draw. An SVG names its clip paths by a hash of exactly these numbers, and would not be the same twice.
    """

    def execute(self, fig: Figure) -> None:
        super().execute(fig)
        for axis in fig.axes:
            left, bottom, width, height = (round(share, DIGITS) for share in axis.get_position(original=True).bounds)
            axis.set_position((left, bottom, width, height))
            axis.set_in_layout(True)  # what is placed by hand would be left out of the next layout
