"""What the options change: which rows are compared, what the table and the sentences say, what the figure shows."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from record_builder import make_curve, make_demo, make_record

from bench.analysis.report import render
from bench.analysis.report.figures.curves import colours_of
from bench.analysis.report.figures.sweeps import draw_sweep
from bench.analysis.report.pages.sweeps import swept_of
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.groups import Group, curves_of
from bench.analysis.report.sections.sweeps import BESIDE, SEVERAL, Sweep, sweeps_of
from bench.analysis.report.sections.sweeps_text import TITLE, sweep_alt, sweep_caption, sweep_notes, sweep_table
from bench.records import Record, open_results, write_trial

BASE = {"batch": 128, "beta": 1.0}


class Store:
    """A results folder in the making."""

    def __init__(self, folder: Path) -> None:
        self.results = open_results(folder / "results", create=True)
        self.records: list[Record] = []

    def add(
        self,
        method: str = "zskd",
        seed: int = 0,
        metrics: dict[str, Any] | None = None,
        logs: dict[str, list[float | None]] | None = None,
        made: int | None = None,
        **changes: Any,
    ) -> None:
        """A trial; ``logs`` gives scalars at the last evaluations, ``made`` the synthesised images."""
        record = make_record(method, seed, **changes)
        plain = record.model_dump(by_alias=True)
        entries = {
            name: {"status": "ok", "images": 2048, **(given if isinstance(given, dict) else {"value": given})}
            for name, given in (metrics or {}).items()
        }
        plain |= {"image_metrics": entries}
        if made is not None:
            plain["meter"]["synthesised_images"] = made
        record = Record.model_validate(plain)
        curve = make_curve(record) if record.status == "ok" else []
        for point in curve:
            point["logs"] = {}
        for name, values in (logs or {}).items():
            for point, value in zip(curve[-len(values) :], values, strict=True):
                point["logs"][name] = value
        write_trial(self.results, record, curve, {})
        self.records.append(record)

    @property
    def group(self) -> Group:
        (found,) = group_records(self.records)
        return found

    @property
    def sweeps(self) -> list[Sweep]:
        return sweeps_of(self.group, curves_of(self.group, self.results))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def betas(store: Store, values: list[Any], seeds: int = 2, **more: Any) -> None:
    for value in values:
        for seed in range(seeds):
            store.add(seed=seed, options={**BASE, "beta": value}, **more)


def shape(sweep: Sweep) -> tuple[str, list[tuple[str, str]]]:
    return sweep.title, [(cell.value, cell.rest) for cell in sweep.cells]


# Which rows are compared


def test_values_stand_in_the_order_of_their_size(store: Store) -> None:
    betas(store, [10.0, 0.1, 2.0])
    assert [shape(sweep) for sweep in store.sweeps] == [("zskd by beta", [("0.1", ""), ("2", ""), ("10", "")])]


@pytest.mark.parametrize(
    ("values", "order"),
    [(["mse", "mae"], ["mae", "mse"]), ([True, False], ["False", "True"]), ([None, 3], ["3", "None"])],
)
def test_values_that_are_no_numbers_stand_in_the_order_of_their_text(
    store: Store, values: list[Any], order: list[str]
) -> None:
    betas(store, values, seeds=1)
    assert store.sweeps[0].values == order


def test_a_grid_has_a_sweep_an_option_and_a_line_a_setting_of_the_others(store: Store) -> None:
    for beta in (0.1, 1.0):
        for batch in (64, 128):
            store.add(options={"batch": batch, "beta": beta})
    assert [shape(sweep) for sweep in store.sweeps] == [
        ("zskd by batch", [("64", "beta=0.1"), ("64", "beta=1.0"), ("128", "beta=0.1"), ("128", "beta=1.0")]),
        ("zskd by beta", [("0.1", "batch=64"), ("0.1", "batch=128"), ("1", "batch=64"), ("1", "batch=128")]),
    ]
    assert store.sweeps[1].rests == ["batch=64", "batch=128"]


def test_where_one_option_is_varied_at_a_time_each_has_its_line(store: Store) -> None:
    for beta, batch in ((1.0, 128), (0.1, 128), (1.0, 64)):
        store.add(options={"batch": batch, "beta": beta})
    assert [shape(sweep) for sweep in store.sweeps] == [
        ("zskd by batch", [("64", "beta=1.0"), ("128", "beta=1.0")]),
        ("zskd by beta", [("0.1", "batch=128"), ("1", "batch=128")]),
    ]


def test_rows_that_never_differ_in_one_option_alone_are_compared_as_they_are(store: Store) -> None:
    store.add(options={"beta": 0.1, "batch": 64})
    store.add(options={"beta": 1.0, "batch": 128})
    assert [shape(sweep) for sweep in store.sweeps] == [
        (f"zskd by {SEVERAL}", [("batch=64, beta=0.1", ""), ("batch=128, beta=1.0", "")])
    ]


def test_other_data_free_methods_with_one_row_stand_beside_it(store: Store) -> None:
    betas(store, [0.1, 1.0])
    for name in ("noise", "kd", "scratch", "dfad", "cmi"):
        store.add(name)
    (sweep,) = store.sweeps
    assert [(cell.value, cell.other) for cell in sweep.cells] == [
        ("0.1", False),
        ("1", False),
        ("cmi", True),
        ("dfad", True),
    ]


def test_more_than_a_few_other_methods_are_left_to_the_ranking(store: Store) -> None:
    betas(store, [0.1, 1.0])
    for number in range(BESIDE + 1):
        store.add(f"method_{number}")
    assert not any(cell.other for sweep in store.sweeps for cell in sweep.cells)


def test_two_methods_with_options_have_their_own_sweeps(store: Store) -> None:
    betas(store, [0.1, 1.0])
    for batch in (1, 2):
        store.add("dafl", options={"batch": batch})
    assert [shape(sweep) for sweep in store.sweeps] == [
        ("dafl by batch", [("1", ""), ("2", "")]),
        ("zskd by beta", [("0.1", ""), ("1", "")]),
    ]


def test_rows_of_other_code_are_not_compared(store: Store) -> None:
    store.add(options={**BASE, "beta": 0.1}, method_sha="0123456789ab")
    store.add(options={**BASE, "beta": 1.0}, method_sha="ba9876543210")
    assert store.sweeps == []
    store.add(options={**BASE, "beta": 5.0}, method_sha="ba9876543210")
    assert [shape(sweep) for sweep in store.sweeps] == [("zskd by beta", [("1", ""), ("5", "")])]


def test_a_value_whose_seeds_all_failed_is_left_out_and_named(store: Store) -> None:
    betas(store, [0.1, 1.0])
    store.add(options={**BASE, "beta": 7.0}, status="diverged")
    (sweep,) = store.sweeps
    assert sweep.values == ["0.1", "1"]
    assert sweep_notes(sweep, store.group)[-1] == "Left out because every seed failed: zskd (beta=7.0)."


def test_a_report_without_options_has_no_such_panel(tmp_path: Path) -> None:
    render(make_demo(tmp_path / "results", seeds=1), tmp_path / "out")
    for name in ("leaderboard.md", "index.html"):
        assert TITLE not in (tmp_path / "out" / name).read_text()


# What was measured


@pytest.fixture
def measured(store: Store) -> Store:
    """Two values with three seeds each, and another method with one."""
    for beta, high in ((0.1, 0.0), (1.0, 1.0)):
        for seed in range(3):
            store.add(
                seed=seed,
                final=0.9 + 0.01 * seed,
                options={**BASE, "beta": beta},
                metrics={"class_balance": 0.5 - 0.3 * high + seed / 100, "confidence": 0.8 + (seed - high) / 100},
                logs={"entropy": [4.0, None, 1.0 + high + seed / 10], "loss": [300.0, 1.0]},
                made=1000 + seed,
            )
    store.add(
        "cmi", final=0.95, metrics={"class_balance": {"value": 0.9, "status": "unreliable"}}, logs={"loss": [5.0]}
    )
    return store


def test_every_seed_has_its_reading(measured: Store) -> None:
    (sweep,) = measured.sweeps
    found = {measure.title: measure for measure in sweep.measures}
    assert list(found) == [
        "Test accuracy, %", "class_balance ↑", "confidence", "Images synthesised", "entropy", "loss",
    ]  # fmt: skip
    balance = found["class_balance ↑"].readings
    assert [[(r.seed, r.value, r.reliable) for r in cell] for cell in balance] == [
        [(seed, pytest.approx(0.5 + seed / 100), True) for seed in range(3)],
        [(seed, pytest.approx(0.2 + seed / 100), True) for seed in range(3)],
        [(0, 0.9, False)],
    ]
    assert [[r.value for r in cell] for cell in found["Test accuracy, %"].readings] == [
        pytest.approx([90, 91, 92]),
        pytest.approx([90, 91, 92]),
        pytest.approx([95]),
    ]
    assert [len(cell) for cell in found["confidence"].readings] == [3, 3, 0]


def test_a_logged_scalar_is_read_at_its_last_point_and_drawn_where_it_was(measured: Store) -> None:
    entropy = measured.sweeps[0].measures[-2]
    assert [[r.value for r in cell] for cell in entropy.readings] == [
        pytest.approx([1.0, 1.1, 1.2]),
        pytest.approx([2.0, 2.1, 2.2]),
        [],
    ]
    assert entropy.curves[0][0] == ((0.9, 4.0), (1.0, 1.0))  # at 0.95 it was not finite


def test_counts_that_never_vary_are_no_measure(store: Store) -> None:
    betas(store, [0.1, 1.0], made=500)
    assert [measure.title for measure in store.sweeps[0].measures] == ["Test accuracy, %"]


def test_the_table_has_means_and_ranges_over_seeds(measured: Store) -> None:
    head, first, _, other = sweep_table(measured.sweeps[0])
    assert head[:4] == ["beta", "Seeds", "Test accuracy, %", "class_balance ↑"]
    assert head[-2:] == ["entropy (logged)", "loss (logged)"]
    assert first[:4] == ["0.1", "3", "91.0 (90.0 to 92.0)", "0.510 (0.500 to 0.520)"]
    assert first[-2:] == ["1.10 (1.00 to 1.20)", "1.00"]
    assert other[:5] == ["cmi", "1", "95.0", "0.900!", "—"]


def test_what_the_option_moves_in_every_seed_is_said_with_the_odds_of_chance(measured: Store) -> None:
    text = " ".join(sweep_notes(measured.sweeps[0], measured.group))
    assert (
        "Every seed of beta=0.1, compared with every seed of beta=1, is below in entropy and above in class_balance ↑."
        in text
    )
    assert "by chance in 10 % of all cases" in text  # 2 of the 20 ways to choose three of six


def test_one_seed_says_nothing_about_what_is_moved(store: Store) -> None:
    betas(store, [0.1, 1.0], seeds=1, logs={"loss": [1.0]})
    (sweep,) = store.sweeps
    assert not any("Every seed" in note for note in sweep_notes(sweep, store.group))
    assert sweep_caption(sweep).startswith("One seed")


# The figure


def axes_of(figure: Figure) -> dict[str, Axes]:
    return {axis.get_title(loc="left"): axis for axis in figure.axes}


def marks(axis: Axes) -> list[tuple[float, float]]:
    """The dots of a plot."""
    dotted = (line.get_xydata() for line in axis.lines if line.get_marker() not in ("", "None"))
    return [(float(x), float(y)) for dots in dotted for x, y in dots]


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_every_seed_is_a_dot_above_its_value(measured: Store, layout: Any) -> None:
    (sweep,) = measured.sweeps
    figure = draw_sweep(sweep, colours_of(["zskd", "cmi"]), layout)
    axes = axes_of(figure)
    assert list(axes) == [measure.title for measure in sweep.measures]
    axis = axes["class_balance ↑"]
    found = {place: sorted(y for x, y in marks(axis) if round(x) == place) for place in range(3)}
    assert found[0] == pytest.approx([0.50, 0.51, 0.52])
    assert found[1] == pytest.approx([0.20, 0.21, 0.22])
    assert found[2] == [0.9]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0.1", "1", "cmi"]
    (hollow,) = (line for line in axis.lines if line.get_markerfacecolor() == "none")
    assert hollow.get_ydata()[0] == 0.9  # type: ignore[index]


def test_logged_scalars_are_lines_over_the_budget(measured: Store) -> None:
    (sweep,) = measured.sweeps
    axes = axes_of(draw_sweep(sweep, colours_of(["zskd", "cmi"])))
    thick = [line for line in axes["entropy"].lines if line.get_linewidth() > 1]
    assert [list(line.get_ydata()) for line in thick] == [pytest.approx([4, 1.1]), pytest.approx([4, 2.1])]
    assert axes["loss"].get_yscale() == "log"  # 300 to 1
    assert axes["entropy"].get_yscale() == "linear"
    assert len({line.get_color() for line in thick}) == 2


def test_next_to_no_difference_does_not_look_like_one(store: Store) -> None:
    for beta, score in ((0.1, 0.9700), (1.0, 0.9701)):
        store.add(final=score, options={**BASE, "beta": beta})
    (axis,) = draw_sweep(store.sweeps[0], colours_of(["zskd"])).axes
    low, high = axis.get_ylim()
    assert high - low == pytest.approx(0.05 * 97, rel=0.01)
    assert low < 97.0 < 97.01 < high


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_values_that_are_all_alike_can_be_drawn(store: Store, value: float) -> None:
    betas(store, [0.1, 1.0], logs={"clamped": [value, value]})
    axes = axes_of(draw_sweep(store.sweeps[0], colours_of(["zskd"])))
    low, high = axes["clamped"].get_ylim()
    assert low < value < high
    assert all(map(math.isfinite, (low, high)))


# The report


@pytest.mark.slow
def test_report_has_figure_table_and_text_and_the_same_bytes_twice(measured: Store, tmp_path: Path) -> None:
    first, second = (render(measured.results, tmp_path / name) for name in ("first", "second"))
    digests = [[hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] for paths in (first, second)]
    assert digests[0] == digests[1]
    assert [path.suffix for path in first if path.stem.endswith("-zskd-beta")] == [".svg", ".pdf", ".png"]
    (sweep,) = measured.sweeps
    text = (tmp_path / "first" / "leaderboard.md").read_text()
    assert f"**{TITLE}: zskd by beta**" in text
    (shown,) = re.findall(r"!\[[^\n]*\]\((figures/[^)]*-zskd-beta\.png)\)", text)
    assert (tmp_path / "first" / shown).is_file()
    html = (tmp_path / "first" / "tasks" / "digits-lenet5-half.html").read_text()
    panel = html[html.index(TITLE) :]
    assert f'alt="{sweep_alt(sweep, measured.group)}"' in panel
    assert "0.510" in panel
    assert f'"../{shown.removesuffix(".png")}-narrow.svg"' in panel


def test_two_versions_of_the_code_have_a_figure_each(store: Store, tmp_path: Path) -> None:
    for code in ("0123456789ab", "ba9876543210"):
        for beta in (0.1, 1.0):
            store.add(options={**BASE, "beta": beta}, method_sha=code)
    names = [path.name for path in render(store.results, tmp_path / "out") if "-zskd-beta" in path.name]
    assert len(set(names)) == 8


def test_where_figures_are_few_the_options_that_move_the_score_the_most_are_drawn(store: Store) -> None:
    for changes, score in (({}, 0.90), ({"beta": 5.0}, 0.91), ({"batch": 7}, 0.80)):
        store.add(final=score, options={**BASE, **changes})
    drawn, files = swept_of(store.group, curves_of(store.group, store.results), colours_of(["zskd"]), figures=1)
    assert [bool(each.picture) for each in sorted(drawn, key=lambda each: each.title)] == [True, False]
    kinds = ("-narrow.svg", ".pdf", ".png", ".svg")
    assert sorted(files) == [f"figures/{store.group.name}-zskd-batch{kind}" for kind in kinds]
    (without,) = (each for each in drawn if not each.picture)
    assert without.title == "zskd by beta"
    assert without.table
    assert without.notes[-1].startswith("Not drawn")
    assert not any("](figures" in line for line in without.markdown)
