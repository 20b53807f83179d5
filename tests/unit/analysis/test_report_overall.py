"""What the report says of all tasks together: who is compared, on which tasks, and with which numbers."""

from __future__ import annotations

import csv
import html
import io
from pathlib import Path

import pytest
from record_builder import add, make_record

from bench.analysis.report import render
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.overall import TaskSet, task_sets
from bench.analysis.report.sections.overall_text import overall_csv, overall_notes, overall_table, ranks_caption
from bench.analysis.stats import interquartile_mean, rank_methods
from bench.records import Record, open_results

A, B, C = "digits/lenet5-half", "mnist/lenet5-half", "cifar10/wrn16-1"
BASE = {"noise": 0.2, "kd": 1.0}


def records(task: str, finals: dict[str, float], seeds: int = 3, **changes: object) -> list[Record]:
    return [
        make_record(method, seed, task=task, final=final - 0.01 * seed, **changes)
        for method, final in {**BASE, **finals}.items()
        for seed in range(seeds)
    ]


def only(found: list[TaskSet]) -> TaskSet:
    (block,) = found
    return block


def test_methods_on_two_tasks_are_compared_by_iqm_and_rank() -> None:
    block = only(
        task_sets(
            group_records(
                [
                    *records(A, {"dafl": 0.9, "zskd": 0.6, "rdskd": 0.8}),
                    *records(B, {"dafl": 0.7, "zskd": 0.8, "rdskd": 0.5}),
                ]
            )
        )
    )
    assert set(block.rows) == {"dafl", "zskd", "rdskd", "noise"}
    assert block.left_out == {}
    # floor 0.19 and ceiling 0.99: the means over the seeds 0, 1, 2
    runs = {
        "digits/lenet5-half": [(0.9 - 0.01 * s - 0.19) / 0.8 for s in range(3)],
        "mnist/lenet5-half": [(0.7 - 0.01 * s - 0.19) / 0.8 for s in range(3)],
    }
    assert block.normalised["dafl"] == {task: pytest.approx(scores) for task, scores in runs.items()}
    assert block.means["dafl"][:3] == pytest.approx(interquartile_mean(runs)[:3])
    assert list(block.means) == ["dafl", "zskd", "rdskd", "noise"]
    assert block.ranking.ranks == {"dafl": 1.5, "zskd": 2.0, "rdskd": 2.5, "noise": 4.0}
    scores = {
        m: {g.key.task: r.score[0] for g, r in zip(block.groups, rows, strict=True) if r.score}
        for m, rows in block.rows.items()
    }
    assert block.ranking == rank_methods(scores)
    assert block.beaten["zskd"].value == 0.5  # better in all pairs on one task, in none on the other
    assert block.beaten["noise"].value == 1.0
    assert block.profiles["noise"].share[-1] == 0.0


def test_one_task_or_one_method_is_no_comparison() -> None:
    assert task_sets(group_records(records(A, {"dafl": 0.9}))) == []
    lone = [make_record("dafl", task=task, final=0.9) for task in (A, B)]
    assert task_sets(group_records([*lone, *(make_record("kd", task=task) for task in (A, B))])) == []


def test_methods_that_lack_a_task_are_left_out_with_the_reason() -> None:
    heap = [*records(A, {"dafl": 0.9, "zskd": 0.6, "rdskd": 0.5}), *records(B, {"dafl": 0.7, "zskd": 0.8})]
    heap += [make_record("cmi", status="unsupported", reason="no batch norm", task=A)]
    heap += records(B, {"cmi": 0.9})[-3:]
    heap += [make_record("dfad", 0, task=A), make_record("dfad", 1, task=A, status="crashed")]
    heap += records(B, {"dfad": 0.9})[-3:]
    heap += [make_record("adi", 0, task=A, options={"batch": size}) for size in (1, 2)] + records(B, {"adi": 0.9})[-3:]
    block = only(task_sets(group_records(heap)))
    assert set(block.rows) == {"dafl", "zskd", "noise"}
    assert block.left_out == {
        "adi": f"several settings on {A}",
        "cmi": f"unsupported on {A}",
        "dfad": f"a failed seed on {A}",
        "rdskd": f"not run on {B}",
    }
    (said,) = [note for note in overall_notes(block) if note.startswith("Left out")]
    assert f"cmi (unsupported on {A})" in said


def test_all_tasks_and_the_most_cells_are_two_comparisons() -> None:
    many = {f"m{place}": 0.5 + 0.01 * place for place in range(6)}
    heap = [*records(A, many), *records(B, many), *records(C, {"m0": 0.6})]
    everywhere, widest = task_sets(group_records(heap))
    assert (len(everywhere.groups), set(everywhere.rows)) == (3, {"m0", "noise"})
    assert (len(widest.groups), len(widest.rows)) == (2, 7)
    assert everywhere.name != widest.name


def test_of_a_task_with_two_budgets_the_fuller_one_counts() -> None:
    heap = [*records(A, {"dafl": 0.9, "zskd": 0.6}), *records(B, {"dafl": 0.7, "zskd": 0.5})]
    heap += records(A, {"dafl": 0.1}, budget={"teacher_images": 80000})
    block = only(task_sets(group_records(heap)))
    assert [group.key.task for group in block.groups] == [A, B]
    assert set(block.rows) == {"dafl", "zskd", "noise"}
    assert block.means["dafl"].value > 0.5


def test_every_need_of_real_data_is_compared_by_itself() -> None:
    heap = [*records(A, {"dafl": 0.9}), *records(B, {"dafl": 0.7})]
    for task in (A, B):
        heap += [make_record(m, s, task=task, data="pool", final=0.5) for m in ("kd3", "dfnd") for s in range(3)]
        heap += [make_record(m, s, task=task, data="train", final=0.9) for m in ("rco", "wsl") for s in range(3)]
    found = {block.need: set(block.rows) for block in task_sets(group_records(heap))}
    assert found == {"none": {"dafl", "noise"}, "pool": {"kd3", "dfnd"}, "train": {"rco", "wsl"}}


def test_one_seed_has_no_interval() -> None:
    block = only(task_sets(group_records([*records(A, {"dafl": 0.9}, 1), *records(B, {"dafl": 0.7}, 1)])))
    line = overall_table(block)[1]
    assert line[0] == "dafl"
    assert line[2] == "—"
    assert "Friedman's test needs three methods or more." in overall_notes(block)
    assert overall_csv([block]).splitlines()[1].endswith(",,,,,")


def test_report_has_the_comparison_its_figures_and_its_numbers(tmp_path: Path) -> None:
    results = open_results(tmp_path / "runs", create=True)
    for each in [*records(A, {"dafl": 0.9, "zskd": 0.6}), *records(B, {"dafl": 0.7, "zskd": 0.8})]:
        add(results, each)
    render(results, tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    assert "All tasks together" in page
    block = only(
        task_sets(group_records([*records(A, {"dafl": 0.9, "zskd": 0.6}), *records(B, {"dafl": 0.7, "zskd": 0.8})]))
    )
    assert ranks_caption(block) in html.unescape(page)
    assert "All tasks together" in (tmp_path / "out/leaderboard.md").read_text()
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out/overall.csv").read_text())))
    assert [line["method"] for line in lines] == list(block.means)
    assert float(lines[0]["interquartile_mean"]) == pytest.approx(block.means[lines[0]["method"]].value)
    for kind in ("profile", "ranks"):
        assert (tmp_path / f"out/figures/{block.name}-{kind}.svg").read_bytes().startswith(b"<?xml")
        assert (tmp_path / f"out/figures/{block.name}-{kind}.png").read_bytes().startswith(b"\x89PNG")
