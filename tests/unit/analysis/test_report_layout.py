"""Figures are the same to the last byte although the solver that places their axes is not to the last bit."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bench.analysis.report.figures.curves import style, to_bytes
from bench.analysis.report.figures.layout import SteadyLayout


def drawn(shift: float, monkeypatch: pytest.MonkeyPatch, engine: type[ConstrainedLayoutEngine]) -> bytes:
    """A figure as SVG, where the solver's widths are off by ``shift``."""
    solve = ConstrainedLayoutEngine.execute

    def shifted(self: ConstrainedLayoutEngine, fig: Figure) -> None:
        solve(self, fig)
        for axis in fig.axes:
            left, bottom, width, height = axis.get_position().bounds
            axis.set_position((left, bottom, width + shift, height))
            axis.set_in_layout(True)

    with monkeypatch.context() as patched, style():
        patched.setattr(ConstrainedLayoutEngine, "execute", shifted)
        figure = Figure(figsize=(6, 3), layout=engine(wspace=0.05))
        for axis in figure.subplots(1, 2, sharey=True):
            axis.plot([0, 40000], [0.1, 0.9])
            axis.set_xlabel("Teacher images")
        return to_bytes(figure, "svg")


def test_last_bits_of_the_solver_change_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, other = (drawn(shift, monkeypatch, ConstrainedLayoutEngine) for shift in (0.0, 3e-14))
    assert plain != other  # what the rounding is for
    steady, again = (drawn(shift, monkeypatch, SteadyLayout) for shift in (0.0, 3e-14))
    assert steady == again


def test_axes_still_make_room_for_what_comes_later() -> None:
    figure = Figure(figsize=(6, 3), layout=SteadyLayout())
    axis = figure.add_subplot()
    figure.draw_without_rendering()
    before = axis.get_position().x0
    axis.set_ylabel("Score\nin\npercent")
    figure.draw_without_rendering()
    assert axis.get_position().x0 > before + 0.05
