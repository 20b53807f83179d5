"""Heat maps and line plots of options, and the section of the report that has them."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from option_cells import PAIR, cell, grid_of, group_of, measured_group, only
from record_builder import add

from bench.analysis.report import render
from bench.analysis.report.figures.curves import colours_of, style
from bench.analysis.report.figures.heat_map import COLOURS, draw_heat, luminance, on_colour, squares
from bench.analysis.report.figures.option_lines import draw_lines, plots_of, readings
from bench.analysis.report.pages.drawing import Drawn
from bench.analysis.report.pages.html import task_html
from bench.analysis.report.pages.pictures import Picture
from bench.analysis.report.pages.sensitivity import SensitivitySection, sections_of
from bench.analysis.report.pages.task import section
from bench.analysis.report.sections.groups import Group
from bench.analysis.report.sections.sensitivity_cells import Grid, Sensitivity, sensitivities_of
from bench.analysis.report.sections.sensitivity_text import IMPORTANCE, TITLE, heat_caption, lines_caption
from bench.records import open_results


@pytest.fixture
def measured() -> Group:
    return measured_group()


def words_of(grid: Grid, found: Sensitivity) -> list[list[str]]:
    axes = (found.axis(PAIR[0]), found.axis(PAIR[1]))
    return [square.words for line in squares(grid, axes) for square in line]


def test_a_square_says_mean_spread_and_what_failed(measured: Group) -> None:
    (found,) = sensitivities_of(measured)
    dafl, rdskd = (words_of(grid, found) for grid in found.grids)
    assert dafl == [["94.0", "±2.8"], ["55.0", "±2.8"], ["95.0", "±2.8"], ["93.9", "±2.8"]]  # lr 0.01, then 0.1
    assert rdskd == [["84.0", "±0.0"], ["diverged", "2 of 2"], ["85.0", "±0.0"], ["83.9", "✗ 1 of 2"]]


def test_the_mean_is_taken_over_options_that_are_not_drawn() -> None:
    scores = {1.0: 0.9, 2.0: 0.8}
    records = [
        cell(score=scores[third], temperature=t, lr=lr, third=third)
        for t in (1.0, 4.0)
        for lr in (0.1, 0.01)
        for third in scores
    ]
    found = only(records)
    assert found.pairs == [PAIR, ("temperature", "third"), ("lr", "third")]
    assert words_of(found.grids[0], found)[0] == ["85.0", f"±{10 / math.sqrt(2):.1f}"]
    assert heat_caption(found, PAIR).startswith("Mean over seeds and third")


def test_a_cell_that_was_not_run_is_no_failure() -> None:
    found = only(grid_of(temperatures=(1.0, 4.0, 20.0), rates=(0.1, 0.01, 0.001))[:-1])
    assert words_of(found.grids[0], found).count(["·"]) == 1
    assert "not run" in heat_caption(found, PAIR)
    assert "✗" not in heat_caption(found, PAIR)


def patches(figure: Figure, place: int) -> list[Rectangle]:
    return [patch for patch in figure.axes[place].patches if isinstance(patch, Rectangle)]


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_methods_share_one_colour_scale(measured: Group, layout: Any) -> None:
    (found,) = sensitivities_of(measured)
    figure = draw_heat(found, PAIR, measured, layout)
    assert [axis.get_title(loc="left") for axis in figure.axes[:2]] == ["dafl", "rdskd"]
    assert len(figure.axes) == 3  # two maps and one bar
    dafl, rdskd = (patches(figure, place) for place in (0, 1))
    colours = matplotlib.colormaps[COLOURS]
    assert dafl[2].get_facecolor() == colours(1.0)  # 95.0, the highest of both
    assert dafl[1].get_facecolor() == colours(0.0)  # 55.0, the lowest
    assert rdskd[2].get_facecolor() == pytest.approx(colours(30 / 40), abs=0.01)
    assert rdskd[1].get_hatch() == "////"
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["1", "4"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["0.01", "0.1"]


def test_next_to_no_difference_does_not_look_like_one() -> None:
    records = [cell(score=score, temperature=t, lr=lr) for score, (t, lr) in zip(
        (0.9700, 0.9701, 0.9702, 0.9703), itertools.product((1.0, 4.0), (0.1, 0.01)), strict=True
    )]  # fmt: skip
    found = only(records)
    first, *_, last = patches(draw_heat(found, PAIR, group_of(records)), 0)
    assert first.get_facecolor() == pytest.approx(last.get_facecolor(), abs=0.05)


def test_numbers_can_be_read_on_every_colour() -> None:
    for place in range(256):
        colour = matplotlib.colormaps[COLOURS](place)
        ink = 0.0 if on_colour(colour) == "#000000" else 1.0
        low, high = sorted((luminance(colour), ink))
        assert (high + 0.05) / (low + 0.05) >= 4.5


# Lines


def test_the_marginal_of_a_value_is_over_all_its_cells_and_seeds() -> None:
    records = [
        cell(score=score, seed=seed, temperature=t, lr=lr)
        for (t, lr), score in zip(
            itertools.product((1.0, 4.0), (0.1, 0.01, 0.001)), (0.9, 0.8, 0.85, 0.7, 0.6, 0.65), strict=True
        )
        for seed in (0, 1)
    ]
    group = group_of(records)
    (found,) = sensitivities_of(group)
    first, second = plots_of(found, group)
    assert [plot.option.name for plot in (first, second)] == list(PAIR)
    (grid,) = found.grids
    assert [sorted(readings(grid, first, place)) for place in first.option.places] == [
        pytest.approx([80, 80, 85, 85, 90, 90]),
        pytest.approx([60, 60, 65, 65, 70, 70]),
    ]
    figure = draw_lines(found, group, colours_of(["dafl"]))
    left, right = figure.axes
    assert list(left.lines[0].get_ydata()) == pytest.approx([85, 65])
    assert list(right.lines[0].get_xdata()) == [0.001, 0.01, 0.1]
    assert (left.get_xscale(), right.get_xscale()) == ("linear", "log")
    assert left.get_ylim() == right.get_ylim()
    spread = left.collections[0].get_paths()[0].vertices[:, 1]
    half = math.sqrt(100 / 5)  # standard deviation of 80, 80, 85, 85, 90, 90
    assert (max(spread), min(spread)) == (pytest.approx(85 + half), pytest.approx(65 - half))


def test_one_option_is_drawn_with_the_image_metrics_beside_the_score() -> None:
    records = [
        cell(temperature=t, seed=seed, status="diverged" if (t, seed) == (20.0, 1) else "ok")
        for t in (1.0, 4.0, 20.0)
        for seed in (0, 1)
    ]
    group = group_of(records)
    (found,) = sensitivities_of(group)
    figure = draw_lines(found, group, colours_of(["dafl"]), "narrow")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Test accuracy, %", "class_balance ↑"]
    crosses = figure.axes[0].lines[-1]
    assert (crosses.get_marker(), list(crosses.get_xdata())) == ("x", [20.0])
    assert "✗" in lines_caption(found)


# The report

FILES = (".svg", ".pdf", ".png", "-narrow.svg")  # of every figure


def test_a_section_has_files_and_stands_on_the_page_and_in_markdown(tmp_path: Path) -> None:
    group = group_of([*grid_of(), *grid_of("rdskd", score=0.85)])
    with style():
        (said,), files = sections_of(group, colours_of(["dafl", "rdskd"]))
    name = f"figures/{group.name}"
    assert sorted(files) == sorted(
        [f"{name}-{what}{kind}" for what in ("temperature-by-lr", "along-temperature-lr") for kind in FILES]
        + [f"{name}-temperature-by-lr{kind}" for kind in ("-dark.svg", "-narrow-dark.svg")]
    )
    text = "\n".join(said.markdown)
    assert f"**{TITLE}: temperature by lr**" in text
    assert all(f"]({path})" in text for path in files if path.endswith("png"))
    html = task_html([group], [section(group, open_results(tmp_path / "results", create=True), Drawn(sections=[said]))])
    panel = html[html.index(TITLE) :]
    assert panel.count('media="(prefers-color-scheme: dark)"') == 1
    shown = re.findall(r'(?:src|srcset|href)="\.\./(figures/[^"]+)"', panel)
    assert set(shown) == set(files)
    assert "Within 1 point of best" in panel
    assert "![Test accuracy, % of dafl, rdskd on digits/lenet5-half along temperature, lr](figures/" in text


def test_importance_stands_on_the_page_where_there_is_one(tmp_path: Path) -> None:
    group = group_of(grid_of())
    (of,) = sensitivities_of(group)
    picture = Picture("figures/a", "alt", "caption")
    said = SensitivitySection(of, "title", (), picture, [["Method"]], [["Method"], ["dafl"]], ["a note"])
    html = task_html([group], [section(group, open_results(tmp_path / "results", create=True), Drawn(sections=[said]))])
    assert html.count(f"<h4>{IMPORTANCE}</h4>") == 1
    without = task_html([group], [section(group, tmp_path / "results", Drawn(sections=[replace(said, importance=[])]))])
    assert IMPORTANCE not in without


def test_a_report_in_which_every_cell_failed_can_be_written(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    for record in grid_of(status="diverged"):
        add(results, record)
    render(results, tmp_path / "out")
    assert TITLE not in (tmp_path / "out" / "leaderboard.md").read_text()
