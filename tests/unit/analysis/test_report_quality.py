"""Does image quality matter? What the panel says about constructed records whose answer is known."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from record_builder import add, make_record
from scipy.stats import spearmanr

from bench.analysis.report import render
from bench.analysis.report.figures.curves import colours_of
from bench.analysis.report.figures.looks import GREY, OUT
from bench.analysis.report.figures.scatter import draw_scatter
from bench.analysis.report.pages.drawing import Drawn
from bench.analysis.report.pages.html import task_html
from bench.analysis.report.pages.markdown import group_markdown, markdown
from bench.analysis.report.pages.task import section
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.groups import Group
from bench.analysis.report.sections.quality import Correlation, best_is_best, qualities
from bench.analysis.report.sections.quality_text import HEAD, TITLE, quality_caption, quality_table, sentences
from bench.records import Record, open_results

SCORES = {"dafl": 0.90, "zskd": 0.95, "noise": 0.70, "kd": 0.98}


def trial(method: str, seed: int = 0, final: float | None = None, /, **metrics: float | dict[str, Any]) -> Record:
    """A trial with these image metrics; ``__`` in a name stands for brackets, and a number for a value that is ok."""
    record = make_record(method, seed, final=SCORES[method] + 0.001 * seed if final is None else final)
    found = {}
    for name, given in metrics.items():
        family, _, extractor = name.partition("__")
        entry = given if isinstance(given, dict) else {"value": given}
        found[f"{family}[{extractor}]" if extractor else family] = {"status": "ok", "images": 2048, **entry}
    return Record.model_validate({**record.model_dump(by_alias=True), "image_metrics": found})


def one_group(*records: Record) -> Group:
    (found,) = group_records(records)
    return found


def study(fd: dict[str, float], seeds: int = 3, **more: Any) -> Group:
    """Every method with its fd[teacher], that rises a little from seed to seed as the score does."""
    return one_group(
        *(
            trial(name, seed, fd__teacher={"value": fd[name] + seed / 100, **more})
            for name in fd
            for seed in range(seeds)
        )
    )


GOES = {"dafl": 40.0, "zskd": 20.0, "noise": 900.0, "kd": 1.0}  # the lower, the better the student
GOES_NOT = {"dafl": 12.3, "zskd": 20.0, "noise": 900.0, "kd": 1.0}


# Correlations


def test_rho_is_over_all_trials_and_over_data_free_ones() -> None:
    group = study(GOES)
    (quality,) = qualities(group)
    assert (quality.all_trials.trials, quality.data_free.trials) == (12, 9)
    for found, needs in ((quality.all_trials, {"none", "train"}), (quality.data_free, {"none"})):
        points = [point for point in quality.points if point.row.data in needs]
        rho = spearmanr([point.value for point in points], [point.score for point in points]).statistic
        assert found.rho == pytest.approx(rho)
        assert found.low is not None
        assert found.high is not None
        assert found.low < rho < found.high < 0
    assert quality.all_trials.better_with_better(False) == "yes"
    assert quality.all_trials.better_with_better(True) == "no"


def test_scores_are_the_headlines() -> None:
    group = one_group(*(trial(name, fd__teacher=value) for name, value in GOES.items()))
    (quality,) = qualities(group)
    assert {point.row.method: point.score for point in quality.points} == SCORES


def test_failed_trials_and_values_that_are_not_there_are_not_counted() -> None:
    records = [trial(name, seed, fd__teacher=value) for name, value in GOES.items() for seed in (0, 1)]
    lost = trial("dafl", 2, fd__teacher={"value": None, "status": "unavailable"})
    odd = trial("dafl", 3, fd__teacher=float("inf"))
    (quality,) = qualities(one_group(*records, lost, odd, make_record("dafl", 4, status="diverged")))
    assert quality.all_trials.trials == 8


def test_unreliable_values_are_counted_and_flagged() -> None:
    group = study(GOES, status="unreliable")
    (quality,) = qualities(group)
    assert (quality.all_trials.trials, quality.unreliable) == (12, 12)
    assert quality_table(group)[1][1] == "12 (12 unreliable)"
    assert "(zskd, 20.0!)" in " ".join(sentences(group))


def test_numbers_from_two_extractors_are_never_in_one_correlation() -> None:
    group = one_group(
        *(
            trial(name, seed, fd__teacher={"value": value + seed, "extractor": sha})
            for name, value in GOES.items()
            for seed, sha in enumerate(["1a2b3c4d", "1a2b3c4d", "99887766"])
        )
    )
    assert [(each.column.title, each.all_trials.trials) for each in qualities(group)] == [
        ("fd[teacher] @1a2b3c4d", 8),
        ("fd[teacher] @99887766", 4),
    ]
    assert [row[0] for row in quality_table(group)[1:]] == ["fd[teacher] @1a2b3c4d ↓", "fd[teacher] @99887766 ↓"]


@pytest.mark.parametrize(
    ("found", "higher", "answer"),
    [
        (Correlation(12, 0.8, 0.4, 0.9), True, "yes"),
        (Correlation(12, 0.8, 0.4, 0.9), False, "no"),
        (Correlation(12, -0.8, -0.9, -0.4), False, "yes"),
        (Correlation(12, 0.3, -0.4, 0.8), True, "unclear"),
        (Correlation(12, 0.8, 0.4, 0.9), None, None),
        (Correlation(12, None, None, None), True, None),
        (Correlation(4, 1.0, None, None), True, "unclear"),
        (Correlation(5, -1.0, None, None), True, "no"),
    ],
)
def test_whether_better_goes_with_better(found: Correlation, higher: bool | None, answer: str | None) -> None:
    assert found.better_with_better(higher) == answer


@pytest.mark.parametrize("values", [{"dafl": 1.0, "zskd": 2.0, "noise": 3.0}, dict.fromkeys(SCORES, 5.0)])
def test_fewer_than_four_different_values_are_too_little(values: dict[str, float], tmp_path: Path) -> None:
    group = one_group(*(trial(name, seed, fd__teacher=value) for name, value in values.items() for seed in (0, 1)))
    (quality,) = qualities(group)
    assert quality.all_trials == Correlation(2 * len(values), None, None, None)
    assert quality_table(group) == []
    assert draw_scatter(group, colours_of(values)) is None
    for text in (markdown([group], [group_markdown(group)]), task_html([group], [section(group, tmp_path, Drawn())])):
        assert "Too few measurements for a correlation" in text
        assert "weak evidence" not in text


def test_equal_scores_are_too_little_as_well() -> None:
    group = one_group(*(trial(name, 0, 0.9, fd__teacher=value) for name, value in GOES.items()))
    assert qualities(group)[0].all_trials.rho is None
    assert any("Too few measurements" in text for text in sentences(group))


# RDSKD's observation


def test_best_value_and_best_student_are_one() -> None:
    group = study(GOES)
    (best,) = best_is_best(group)
    assert (best.winner.method, best.student.method, best.same, best.points) == ("zskd", "zskd", True, 0)
    assert best.value == pytest.approx(20.01)
    assert sentences(group)[:2] == [
        "In 1 of 1 metric the data-free method with the best value has the best student.",
        "The best fd[teacher] (zskd, 20.0) is the best student (95.1 %).",
    ]
    assert quality_table(group)[1][-2:] == ["zskd, 20.0", "yes"]


def test_best_value_does_not_give_the_best_student() -> None:
    group = study(GOES_NOT)
    (best,) = best_is_best(group)
    assert (best.winner.method, best.student.method, best.same) == ("dafl", "zskd", False)
    assert best.points == pytest.approx(5)
    assert sentences(group)[:2] == [
        "In 0 of 1 metric the data-free method with the best value has the best student.",
        "The best fd[teacher] (dafl, 12.3) is not the best student (zskd, 95.1 %): 5.0 points.",
    ]
    assert quality_table(group)[1][-2:] == ["dafl, 12.3", "no: zskd"]


def test_a_difference_that_may_be_chance_is_called_so() -> None:
    scores = {"dafl": (0.90, 0.92, 0.91), "zskd": (0.91, 0.93, 0.92)}
    fd = {"dafl": 1.0, "zskd": 2.0}
    group = one_group(
        *(trial(name, seed, score, fd__teacher=fd[name]) for name in fd for seed, score in enumerate(scores[name]))
    )
    (best,) = best_is_best(group)
    assert best.within_intervals
    assert any(text.endswith("1.0 points, within the intervals over seeds.") for text in sentences(group))


def test_direction_decides_what_is_best() -> None:
    higher = one_group(*(trial(name, is__teacher=value, confidence=value) for name, value in GOES.items()))
    assert [(best.column.name, best.winner.method) for best in best_is_best(higher)] == [("is[teacher]", "noise")]


def test_methods_on_real_data_do_not_take_part() -> None:
    (best,) = best_is_best(one_group(*(trial(name, fd__teacher=value) for name, value in GOES.items())))
    assert "kd" not in (best.winner.method, best.student.method)


def test_students_whose_images_were_not_measured_do_not_take_part() -> None:
    group = one_group(
        trial("dafl", fd__teacher=1.0),
        trial("noise", fd__teacher=2.0),
        trial("zskd", fd__teacher={"value": None, "status": "unavailable"}),
    )
    (best,) = best_is_best(group)
    assert (best.winner.method, best.same) == ("dafl", True)


def test_one_method_is_not_compared_with_itself() -> None:
    assert best_is_best(one_group(trial("dafl", fd__teacher=1.0), trial("kd", fd__teacher=2.0))) == []


@pytest.mark.parametrize(
    ("fd", "scores"),
    [((5.0, 5.0), (0.8, 0.9)), ((5.0, 6.0), (0.9, 0.9)), ((6.0, 5.0), (0.9, 0.9)), ((5.0, 5.0), (0.9, 0.9))],
)
def test_a_tie_never_makes_the_observation(fd: tuple[float, float], scores: tuple[float, float]) -> None:
    names = ("dafl", "zskd")
    trials = zip(names, scores, fd, strict=True)
    (best,) = best_is_best(one_group(*(trial(name, 0, score, fd__teacher=value) for name, score, value in trials)))
    assert best.same


def test_summary_counts_the_metrics() -> None:
    group = one_group(
        *(
            trial(name, fd__teacher=GOES[name], kid__teacher=GOES_NOT[name], is__teacher=-GOES[name], confidence=0.1)
            for name in SCORES
        )
    )
    assert "In 2 of 3 metrics the data-free method with the best value has the best student." in sentences(group)


# The panel


@pytest.mark.parametrize("form", ["markdown", "page"])
def test_panel_states_table_sentences_and_how_weak_the_evidence_is(form: str, tmp_path: Path) -> None:
    group = study(GOES_NOT)
    text = (
        markdown([group], [group_markdown(group)])
        if form == "markdown"
        else task_html([group], [section(group, tmp_path, Drawn())])
    )
    text = text.replace("\\", "")
    for part in [
        TITLE,
        *HEAD,
        *sentences(group),
        "no: zskd",
        "weak evidence",
        "not independent",
        "12 trials of 4 methods",
    ]:
        assert part in text


def test_no_panel_without_image_metrics(tmp_path: Path) -> None:
    none = one_group(trial("dafl"), trial("zskd"))
    absent = one_group(trial("dafl", fd__teacher={"value": None, "status": "unavailable"}), trial("zskd"))
    for group in (none, absent):
        assert quality_table(group) == sentences(group) == []
        assert TITLE not in markdown([group], [group_markdown(group)])
        assert TITLE not in task_html([group], [section(group, tmp_path, Drawn())])


def test_caption_names_only_what_is_drawn() -> None:
    both, neither = study(GOES, status="unreliable"), study({name: GOES[name] for name in ("dafl", "zskd", "noise")})
    assert "Squares" in quality_caption(both)
    assert "Hollow" in quality_caption(both)
    assert "Squares" not in quality_caption(neither)
    assert "Hollow" not in quality_caption(neither)


# The figure


def drawn(group: Group, layout: Any = "wide") -> Figure:
    figure = draw_scatter(group, colours_of(SCORES), layout)
    assert figure is not None
    return figure


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_every_trial_is_a_mark_in_its_methods_colour(layout: Any) -> None:
    group, colours = study(GOES), colours_of(SCORES)
    (axis,) = drawn(group, layout).axes
    found = {(x, y): line for line in axis.lines for x, y in zip(*line.get_data(), strict=True)}
    assert len(found) == 12
    for point in qualities(group)[0].points:
        line = found[point.value, 100 * point.score]
        assert to_rgba(line.get_markeredgecolor()) == to_rgba(colours[point.row.method])
        assert line.get_marker() == ("s" if point.row.data == "train" else "o")
    assert axis.get_title(loc="left") == "fd[teacher] ↓"


def crowd(count: int = 25) -> Group:
    """So many data-free methods that the colours do not suffice, nor the room beside the plots."""
    return one_group(
        *(trial(f"method{number:02d}", 0, 0.5 + 0.01 * number, fd__teacher=100.0 - number) for number in range(count))
    )


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_methods_of_one_colour_differ_in_their_mark(layout: Any) -> None:
    group = crowd()
    figure = draw_scatter(group, colours_of(row.method for row in group.rows), layout)
    assert figure is not None
    (legend,) = figure.legends
    looks = {(handle.get_markeredgecolor(), handle.get_marker()) for handle in legend.get_lines()}
    assert len(looks) == len(legend.get_lines()) == OUT + 1
    assert [text.get_text() for text in legend.get_texts()][-1] == "17 other methods"
    grey = [line for line in figure.axes[0].lines if line.get_markeredgecolor() == GREY]
    assert len(grey) == 17


def test_unreliable_marks_are_hollow() -> None:
    group = one_group(
        *(trial(name, 0, fd__teacher=value) for name, value in GOES.items()),
        trial("dafl", 1, fd__teacher={"value": 77.0, "status": "unreliable"}),
    )
    (axis,) = drawn(group).axes
    hollow = {x for line in axis.lines if line.get_markerfacecolor() == "none" for x in line.get_xdata()}
    assert hollow == {77.0}


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [(1.0, 101.0, "log"), (1.0, 99.0, "linear"), (-1.0, 900.0, "linear"), (0.0, 900.0, "linear")],
)
def test_values_over_more_than_two_decades_stand_on_a_logarithmic_axis(low: float, high: float, scale: str) -> None:
    (axis,) = drawn(study({"dafl": 50.0, "zskd": 60.0, "noise": high, "kd": low}, seeds=1)).axes
    assert axis.get_xscale() == scale


def test_metrics_of_which_too_little_is_known_are_not_drawn() -> None:
    group = one_group(*(trial(name, fd__teacher=value, class_balance=1.0) for name, value in GOES.items()))
    assert [axis.get_title(loc="left") for axis in drawn(group).axes] == ["fd[teacher] ↓"]


def test_every_metric_has_its_plot() -> None:
    names = [f"fd__lenet5-{number}" for number in range(6)]
    group = one_group(*(trial(name, **dict.fromkeys(names, value)) for name, value in GOES.items()))
    assert len(drawn(group, "wide").axes) == len(drawn(group, "narrow").axes) == 6


# The whole report


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = open_results(tmp_path_factory.mktemp("quality") / "results", create=True)
    for name, value in GOES_NOT.items():
        for seed in range(3):
            add(folder, trial(name, seed, fd__teacher=value * (1 + seed / 9), kid__teacher=math.log(value + seed)))
    return folder


@pytest.mark.slow
def test_report_has_figure_and_csv_and_the_same_bytes_each_time(results: Path, tmp_path: Path) -> None:
    first, second = (render(results, tmp_path / name) for name in ("first", "second"))
    names = [path.name for path in first]
    assert "image_metrics.csv" in names
    assert [Path(name).suffix for name in names if "-quality" in name] == [".svg", ".pdf", ".png", ".svg"]
    digests = [[hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] for paths in (first, second)]
    assert digests[0] == digests[1]


def test_report_shows_the_figure_that_it_wrote(results: Path, tmp_path: Path) -> None:
    render(results, tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    (shown,) = re.findall(r"!\[[^\]]*\]\((figures/[^)]*-quality\.png)\)", text)
    assert (tmp_path / shown).is_file()
    assert text.index(TITLE) < text.index(shown)
    html = (tmp_path / "tasks" / "digits-lenet5-half.html").read_text()
    for ending in (".svg", "-narrow.svg", ".pdf"):
        assert f'"../{shown.removesuffix(".png")}{ending}"' in html
