"""Reports: what is ranked with what, what the tables say, and that the same records give the same bytes."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from html_pages import Page
from PIL import Image
from record_builder import FINAL, add, make_demo, make_record

from bench.analysis.report import render
from bench.analysis.report.figures.curves import (
    BASELINES,
    PALETTE,
    Layout,
    caption,
    colours_of,
    draw_curves,
    draw_sheets,
    first_sheets,
)
from bench.analysis.report.figures.looks import GREY, OUT
from bench.analysis.report.pages.markdown import group_markdown, markdown, methods
from bench.analysis.report.pages.writing import LISTED
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.groups import Group, curves_of, tables_of
from bench.analysis.report.sections.leaderboard import cells, comma_separated, facts, notes
from bench.analysis.stats import share_interval
from bench.errors import UserError
from bench.records import Record, load_record, open_results, trial_folders


def one_group(*records: Record) -> Group:
    groups = group_records(records)
    assert len(groups) == 1
    return groups[0]


def labels(group: Group) -> list[str]:
    return [row.label for row in group.rows]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's ten trials, a third seed of zskd that diverged, and a second teacher."""
    folder = tmp_path_factory.mktemp("demo")
    results = make_demo(folder / "results")
    add(results, make_record("zskd", 2, status="diverged"))
    add(results, make_record("dafl", teacher_sha="cd" * 32), folder)
    return results


@pytest.fixture(scope="module")
def rendered(demo: Path) -> tuple[Path, list[Path]]:
    out = demo.parent / "out"
    return out, render(demo, out)


# Grouping


@pytest.mark.parametrize(
    "change",
    [
        {"teacher_sha": "cd" * 32},
        {"task": "mnist/lenet5-half"},
        {"task_sha": "0123"},
        {"budget": {"seconds": 20}},
        {"budget": {"teacher_images": 40000, "seconds": 20}},
        {"suite": "0.2"},
        {"headline": "ema"},
        {"device": "cuda"},
        {"precision": "bfloat16"},
        {"points": 5},
    ],
)
def test_records_under_other_conditions_never_share_a_table(change: dict[str, object]) -> None:
    groups = group_records([make_record("dafl"), make_record("zskd", **change)])
    assert [len(group.rows) for group in groups] == [1, 1]
    assert len({group.name for group in groups}) == 2


def test_two_devices_of_one_kind_share_a_table() -> None:
    assert len(group_records([make_record(device="cuda:0"), make_record("zskd", device="cuda:1")])) == 1


def test_methods_on_the_training_images_are_shown_but_not_ranked() -> None:
    group = one_group(*(make_record(method) for method in FINAL))
    (table,) = tables_of(group)
    assert table.need == "none"
    assert [(rank, row.method) for rank, row in table.ranked] == [(1, "dafl"), (2, "zskd"), (3, "noise")]
    assert [row.method for row in table.reference] == ["kd", "scratch"]


def test_each_data_need_has_its_own_ranking() -> None:
    group = one_group(make_record("dafl"), make_record("dfnd", data="pool"), make_record("kd"))
    first, second = tables_of(group)
    assert ([row.method for _, row in first.ranked], [row.method for row in first.reference]) == (
        ["dafl"],
        ["kd", "dfnd"],
    )
    assert ([row.method for _, row in second.ranked], [row.method for row in second.reference]) == (
        ["dfnd"],
        ["kd", "dafl"],
    )


def test_where_nothing_else_is_there_the_training_images_are_ranked() -> None:
    (table,) = tables_of(one_group(make_record("kd"), make_record("scratch")))
    assert [(rank, row.method) for rank, row in table.ranked] == [(1, "kd"), (2, "scratch")]


def test_equal_scores_share_a_rank_and_failures_have_none() -> None:
    group = one_group(
        make_record("a", final=0.9),
        make_record("b", final=0.9),
        make_record("c", final=0.8),
        make_record("d", status="crashed"),
    )
    assert [(rank, row.method) for rank, row in tables_of(group)[0].ranked] == [
        (1, "a"),
        (1, "b"),
        (3, "c"),
        (None, "d"),
    ]


def test_two_option_sets_are_two_rows_that_name_only_what_differs() -> None:
    group = one_group(
        *(
            make_record("zskd", seed, options={"batch": 128, "beta": beta}, final=beta)
            for beta in (0.1, 0.5)
            for seed in (0, 1)
        ),
        make_record("dafl", options={"batch": 64, "beta": 3}),
    )
    assert labels(group) == ["dafl", "zskd (beta=0.5)", "zskd (beta=0.1)"]
    assert [len(row.records) for row in group.rows] == [1, 2, 2]


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"method_sha": "fedcba9876"}, "code=fedcba9"),
        ({"identity_rule": 2}, "identity rule=2"),
        ({"threads": 4}, "threads=4"),
        ({"memory_format": "channels_last"}, "memory format=channels_last"),
    ],
)
def test_rows_that_differ_in_more_than_the_seed_are_never_averaged(change: dict[str, object], shown: str) -> None:
    group = one_group(make_record(seed=0), make_record(seed=0, **change))
    assert len(group.rows) == 2
    assert f"dafl ({shown})" in labels(group)


def test_rows_of_two_memory_formats_are_ranked_together_and_all_of_them_named() -> None:
    group = one_group(make_record("dafl"), make_record("zskd", memory_format="channels_last"))
    assert sorted(labels(group)) == ["dafl (memory format=contiguous)", "zskd (memory format=channels_last)"]
    said = " ".join(notes(group))
    assert "Memory formats differ" in said
    assert "memory format: channels_last, contiguous." in said
    assert "emory format" not in " ".join(notes(one_group(make_record("dafl"), make_record("zskd"))))


def test_failure_without_a_teacher_stands_with_its_recipe() -> None:
    known = make_record("dafl")
    lost = make_record("zskd", status="missing_data", reason="no digits", teacher_sha=None, teacher=known.trial.teacher)
    group = one_group(known, lost)
    assert [record.id for _, record in group.failures] == [lost.id]
    alone = one_group(lost)
    assert facts(alone)[0] == "Teacher: never loaded"


# Cells


def row_cells(group: Group, method: str) -> dict[str, str]:
    row = next(row for row in group.rows if row.method == method)
    return cells(group, 1, row, reference=False)


def test_cells_of_two_seeds() -> None:
    group = one_group(
        *(make_record("dafl", seed, final=final) for seed, final in enumerate((0.90, 0.92))),
        make_record("noise", final=0.5),
        make_record("kd", final=1.0),
    )
    assert row_cells(group, "dafl") == {
        "rank": "1",
        "method": "dafl",
        "data": "none",
        "score": "91.0 (90.0, 92.0)",
        "oracle": "91.8",
        "gap": "+0.8",
        "normalised": "0.82",
        "agreement": "90.0",
        "teacher_images": "40,000",
        "student_images": "40,000",
        "real_images": "0",
        "seconds": "16.8",
        "gmacs": "61.2",
        "memory": "412",
        "seeds": "2",
    }
    assert any("Two seeds" in note for note in notes(group))


def test_one_seed_has_no_interval_and_it_is_said() -> None:
    group = one_group(make_record("dafl", final=0.9))
    assert row_cells(group, "dafl")["score"] == "90.0 (one seed)"
    assert "One seed: there is no interval, and chance cannot be assessed." in notes(group)
    assert caption(group).startswith("One seed: no band.")


def test_failed_seed_is_counted_as_a_seed_and_not_as_a_score() -> None:
    group = one_group(make_record(seed=0, final=0.9), make_record(seed=1, status="timed_out", reason="over an hour"))
    text = markdown([group], [group_markdown(group)])
    assert row_cells(group, "dafl")["seeds"] == "1/2"
    assert row_cells(group, "dafl")["score"] == "90.0 (one seed)"
    record = group.failures[0][1]
    assert f"| {record.id} | dafl | 1 | timed_out | over an hour | trials/{record.id}/log.txt |" in text


def test_method_that_always_failed_is_shown_without_numbers() -> None:
    group = one_group(make_record("dafl"), make_record("zskd", status="leaked", reason="opened train.npz"))
    assert row_cells(group, "zskd")["seeds"] == "0/1"
    assert set(list(row_cells(group, "zskd").values())[3:-1]) == {"—"}


@pytest.mark.parametrize(
    ("baselines", "reason"),
    [
        ([], "noise and kd did not finish"),
        ([make_record("noise")], "kd did not finish"),
        ([make_record("noise"), make_record("kd", status="crashed")], "kd did not finish"),
        ([make_record("noise", final=0.8), make_record("kd", final=0.805)], "kd is less than 1 percentage point above"),
    ],
)
def test_normalised_score_that_cannot_be_given_says_why(baselines: list[Record], reason: str) -> None:
    group = one_group(make_record("dafl"), *baselines)
    assert row_cells(group, "dafl")["normalised"] == "—"
    assert any(reason in note for note in notes(group))


def test_heading_states_what_all_rows_share() -> None:
    text = "\n".join(group_markdown(one_group(make_record(budget={"seconds": 20, "teacher_images": 40000}))))
    for part in ("digits/lenet5-half", "lenet5 (accuracy 97.2 %, sha256 abababababab)", "20 seconds, 40,000 teacher"):
        assert part in text
    for part in ("Selection rule: last", "Suite 0.1", "cpu, float32", "commit 0123456789, dfkd 0.1.0, torch 2.13.0"):
        assert part in text


def test_markdown_of_a_hostile_title_and_reason_stays_text() -> None:
    record = make_record(status="crashed", title="<script>alert(1)</script>", reason="a | b\n`c` [d](e) *f*")
    group = one_group(record)
    text = markdown([group], [group_markdown(group)])
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert r"| a \| b \`c\` \[d\](e) \*f\* |" in text


def test_csv_has_plain_numbers() -> None:
    group = one_group(make_record("dafl", 0, final=0.9), make_record("dafl", 1, final=0.92), make_record("kd"))
    rows = list(csv.DictReader(io.StringIO(comma_separated([group]))))
    assert [(row["ranking"], row["rank"], row["label"]) for row in rows] == [("none", "1", "dafl"), ("none", "", "kd")]
    assert float(rows[0]["score"]) == pytest.approx(0.91)
    ends = float(rows[0]["score_low"]), float(rows[0]["score_high"])
    assert ends == pytest.approx(share_interval([0.9, 0.92])[1:3], rel=1e-5)
    assert rows[1]["score_low"] == rows[1]["normalised"] == ""
    assert rows[0]["teacher_sha"] == "ab" * 32
    assert (rows[0]["seeds_ok"], rows[0]["seeds"]) == ("2", "2")


def test_methods_are_named_with_their_paper() -> None:
    assert methods(group_records([make_record(title="DAFL")])) == [
        "dafl: DAFL. Somebody et al., A Paper, ICCV 2019. Real data: none; teacher access: features."
    ]


# Figures


def test_colours_are_stable_and_apart() -> None:
    few = colours_of(["dafl", "kd"])
    many = colours_of(["kd", "dafl", "zskd", "cmi", "noise", "scratch"])
    assert many["dafl"] == few["dafl"]
    assert few["kd"] == BASELINES["kd"]
    assert len(set(many.values())) == 6
    crowd = colours_of(f"method{number}" for number in range(2 * len(PALETTE)))
    assert set(PALETTE) <= set(crowd.values())


def test_eight_lines_stand_out_and_no_two_look_the_same(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    names = [f"method{number}" for number in range(2 * len(PALETTE))]
    records = [make_record(name) for name in names] + [make_record("kd", options={"lr": lr}) for lr in (0.1, 0.2)]
    for record in records:
        add(results, record)
    group = one_group(*records)
    figure = draw_curves(group, curves_of(group, results), colours_of(names))
    *handles, grey = figure.legends[0].get_lines()
    assert len(handles) == OUT
    assert len({(line.get_color(), line.get_marker()) for line in handles}) == OUT
    assert (grey.get_color(), grey.get_label()) == (GREY, f"{len(records) - OUT} other rows")
    drawn = [line for line in figure.axes[1].lines if line.get_color() == GREY]
    assert len(drawn) == len(records) - OUT


def test_rows_of_one_method_have_a_mark_each(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    records = [make_record("dafl", options={"lr": rate / 10}) for rate in range(OUT)]
    for record in records:
        add(results, record)
    group = one_group(*records)
    handles = draw_curves(group, curves_of(group, results), colours_of(["dafl"])).legends[0].get_lines()
    assert len({line.get_marker() for line in handles}) == len(handles) == OUT


@pytest.mark.parametrize(
    ("seeds", "band"), [(1, None), (2, "range of the two seeds"), (3, "95 % t-interval over seeds")]
)
def test_band_over_seeds_is_drawn_and_named(tmp_path: Path, seeds: int, band: str | None) -> None:
    results = open_results(tmp_path / "results", create=True)
    records = [make_record(seed=seed) for seed in range(seeds)]
    for record in records:
        add(results, record)
    group = one_group(*records)
    for layout in ("wide", "narrow"):
        axes = draw_curves(group, curves_of(group, results), colours_of(["dafl"]), layout).axes
        assert [len(axis.collections) for axis in axes] == 3 * [0 if band is None else 1]
    assert ("Band:" in caption(group)) == (band is not None)
    assert band is None or band in caption(group)


@pytest.mark.parametrize("largest", [40_000, 400_000, 2_000_000, 50_000_000])
@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_labels_of_an_axis_do_not_run_into_each_other(tmp_path: Path, largest: int, layout: Layout) -> None:
    results = make_demo(tmp_path / "results")
    group = one_group(*(make_record("dafl", seed) for seed in (0, 1)))
    figure = draw_curves(group, curves_of(group, results), colours_of(["dafl"]), layout)
    for axis in figure.axes:
        axis.set_xlim(0, 1.03 * largest)
    figure.draw_without_rendering()
    for axis in figure.axes:
        boxes = [label.get_window_extent() for label in axis.get_xticklabels() if label.get_text()]
        shown = [box for box in boxes if axis.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axis.bbox.x1 + 1]
        assert len(shown) > 2
        assert all(left.x1 < right.x0 for left, right in pairwise(shown))


def test_method_that_never_asks_is_drawn_against_student_images_and_seconds(tmp_path: Path) -> None:
    results = make_demo(tmp_path / "results")
    group = one_group(*(make_record(method, seed) for method in FINAL for seed in (0, 1)))
    figure = draw_curves(group, curves_of(group, results), colours_of(FINAL))
    teacher, student, seconds = figure.axes
    assert [axis.get_xlabel().split(",")[0] for axis in figure.axes] == ["Teacher images", "Student images", "Seconds"]
    assert "scratch †" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert "† never queries the teacher, so it has no curve over teacher images." in caption(group)
    brown = [[line for line in a.lines if line.get_color() == BASELINES["scratch"]] for a in figure.axes]
    assert brown[0] == []
    assert max(brown[1][0].get_xdata()) == 40000
    assert brown[2]
    assert "Dashed: the teacher, 97.2 %." in caption(group)
    assert all(any(line.get_linestyle() == "--" for line in axis.lines) for axis in (teacher, student, seconds))


def test_curve_is_the_mean_over_seeds(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    records = [make_record(seed=seed, final=final) for seed, final in enumerate((0.90, 0.92))]
    for record in records:
        add(results, record)
    group = one_group(*records)
    left = draw_curves(group, curves_of(group, results), colours_of(["dafl"])).axes[0]
    assert left.lines[0].get_ydata()[-1] == pytest.approx(91.0)


def test_contact_sheets_are_enlarged_by_a_whole_number(tmp_path: Path) -> None:
    results = make_demo(tmp_path / "results")
    sheets = first_sheets(one_group(*(make_record(method, seed) for method in FINAL for seed in (0, 1))), results)
    assert [row.method for row, _, _ in sheets] == ["kd", "scratch", "dafl", "zskd", "noise"]
    assert {record.trial.seed for _, record, _ in sheets} == {0}
    figure = draw_sheets(sheets)
    figure.set_dpi(160)
    with Image.open(io.BytesIO(sheets[0][2])) as image:
        widths = {round(axis.get_window_extent().width) / image.width for axis in figure.axes}
    assert widths == {2.0}


# The whole report


def test_report_writes_what_it_says(rendered: tuple[Path, list[Path]]) -> None:
    out, paths = rendered
    assert {path for path in out.rglob("*") if path.is_file()} == {*paths, out / LISTED}
    names = {path.name for path in paths}
    assert {"leaderboard.md", "leaderboard.csv", "leaderboard.json", "leaderboard.tex", "index.html"} <= names
    assert [sum(name.endswith(f"-curves.{kind}") for name in names) for kind in ("png", "svg", "pdf")] == [2, 2, 2]
    assert sum(name.endswith("-images.png") for name in names) == 2


def test_markdown_shows_figures_that_exist(rendered: tuple[Path, list[Path]]) -> None:
    out, _ = rendered
    shown = re.findall(r"!\[.*?\]\((.*?)\)", (out / "leaderboard.md").read_text())
    assert len(shown) == 6
    for path in shown:
        with Image.open(out / path) as image:
            assert np.asarray(image).std() > 1


def test_same_records_give_the_same_bytes(demo: Path, rendered: tuple[Path, list[Path]], tmp_path: Path) -> None:
    again = render(demo, tmp_path / "elsewhere")
    digests = [[hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] for paths in (rendered[1], again)]
    assert digests[0] == digests[1]


def test_a_later_report_removes_the_pages_of_an_earlier_one_and_nothing_else(demo: Path, tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "report"
    shutil.copytree(demo, results)
    before = {path.relative_to(out) for path in render(results, out)}
    (out / "methods" / "mine.html").write_text("mine")
    for folder in trial_folders(results):
        if load_record(folder).trial.method == "dafl":
            shutil.rmtree(folder)
    after = {path.relative_to(out) for path in render(results, out)}
    gone = before - after
    assert Path("methods/dafl.html") in gone
    assert not [path for path in gone if (out / path).exists()]
    assert (out / "methods" / "mine.html").exists()


@pytest.mark.parametrize("place", ["", "trials", "trials/new", "work", "../other"])
def test_a_report_among_records_is_refused(tmp_path: Path, place: str) -> None:
    results = open_results(tmp_path / "results", create=True)
    open_results(tmp_path / "other", create=True)
    with pytest.raises(UserError, match="contains records; a report needs a separate folder"):
        render(results, results / place)
    assert [path.name for path in results.rglob("*.html")] == []


def test_pages_ask_the_network_for_nothing(rendered: tuple[Path, list[Path]]) -> None:
    pages = [path for path in rendered[1] if path.suffix == ".html"]
    assert {path.parent.name for path in pages} == {"out", "tasks", "methods", "trials"}
    for path in pages:
        text = path.read_text()
        page = Page(text)
        for tag, attributes in page.tags:
            assert tag not in ("link", "iframe", "object")
            assert tag != "script" or "src" not in attributes
            for name in ("src", "srcset"):
                shown = attributes.get(name)
                place = (path.parent / shown).resolve() if shown else rendered[0] / "figures"
                assert place.exists()
                assert place.is_relative_to(rendered[0].resolve())
            assert ":" not in (attributes.get("href") or "")
        assert "url(" not in text
        assert "@import" not in text
        assert "prefers-color-scheme: dark" in text
        assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_page_shows_ranks_failures_and_both_teachers(rendered: tuple[Path, list[Path]]) -> None:
    text = Page((rendered[0] / "tasks" / "digits-lenet5-half.html").read_text()).text
    for part in ("sha256 abababababab", "sha256 cdcdcdcdcdcd", "2/3", "diverged", "the loss became NaN at step 12"):
        assert part in text


def test_title_with_a_script_stays_text(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    record = make_record(title="<script>alert(1)</script>", options={"<img src=x>": "<b>"})
    add(results, record)
    add(results, make_record("dafl", status="crashed", reason="<script>alert(2)</script>"))
    render(results, tmp_path / "out")
    index, task = (
        Page((tmp_path / "out" / name).read_text()) for name in ("index.html", "tasks/digits-lenet5-half.html")
    )
    for page, scripts in ((index, 2), (task, 3)):
        assert [tag for tag, _ in page.tags].count("script") == scripts
        assert "<script>alert(1)</script>" in page.text
        assert "<script>alert(2)</script>" in page.text
        assert "dafl (<img src=x>=<b>)" in page.text


def test_report_of_failures_alone_has_no_curves(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    record = make_record(status="crashed")
    add(results, record)
    names = [path.name for path in render(results, tmp_path / "out")]
    assert sorted(names) == [
        *(f"{record.id}.html", "dafl.html", "digits-lenet5-half.html", "index.html"),
        *(f"leaderboard.{kind}" for kind in ("csv", "json", "md", "tex")),
    ]


def test_report_of_nothing_names_the_command(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    with pytest.raises(UserError, match=r"contains no records yet; create them with `dfkd run STUDY.yaml --results"):
        render(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_report_folder_that_cannot_be_written_says_so(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("bench.analysis.report.report_files", None)  # it says so before it draws
    with pytest.raises(UserError, match=r"cannot write to .*out: Not a directory \(.*file\); choose another folder"):
        render(demo, tmp_path / "file" / "out")


def test_damaged_record_stops_the_report_before_it_writes(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    (add(results, make_record()) / "record.json").write_text("{}")
    with pytest.raises(UserError, match=r"record\.json: 'schema'"):
        render(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_of_very_many_rows_the_best_are_drawn_and_the_baselines(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    cells = [make_record("dafl", 0, options={"batch": size}, final=0.5 + size / 1000) for size in range(40)]
    records = [*cells, make_record("noise", 0, final=0.1)]
    for record in records:
        add(results, record)
    group = one_group(*records)
    lines = draw_curves(group, curves_of(group, results), colours_of(["dafl", "noise"])).legends[0].get_texts()
    labels = [line.get_text() for line in lines]
    assert len(labels) == OUT + 1
    assert labels[0] == "dafl (batch=39)"
    assert labels[-2:] == ["noise", "17 other rows"]
    assert "25 of 41 rows: the best, and the baselines." in caption(group)
    assert "rows:" not in caption(one_group(*cells[:24]))
