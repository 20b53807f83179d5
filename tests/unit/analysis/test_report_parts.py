"""Large reports: drawn by several processes, with the bytes of one."""

from __future__ import annotations

import gc
import re
from collections import Counter
from pathlib import Path

import pytest
from record_builder import add, make_record

from bench.analysis.report import render
from bench.analysis.report.figures.curves import colours_of
from bench.analysis.report.pages import parts
from bench.analysis.report.pages.drawing import draw_group
from bench.analysis.report.sections.grouping import group_records
from bench.errors import UserError
from bench.records import ImageMetric, load_records, open_results

TASKS = ("digits/lenet5-half", "mnist/lenet5-half")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    made = open_results(tmp_path / "results", create=True)
    for task in TASKS:
        for record in (make_record("dafl", task=task), make_record("noise", status="diverged", task=task)):
            add(made, record)
    return made


def add_more(results: Path) -> None:
    """All that a report says something of: seeds, options, baselines, the unsupported, image metrics, budgets."""
    metric = {"value": 0.5, "status": "ok", "images": 512}
    for task in TASKS:
        for seed in range(3):
            for method in ("noise", "kd", "scratch", "zskd", "cmi"):
                record = make_record(method, seed + 1, task=task)
                add(results, record.model_copy(update={"image_metrics": {"fd[teacher]": ImageMetric(**metric)}}))
            for rate in (0.1, 0.01):
                add(results, make_record("dafl", seed + 1, task=task, options={"lr_student": rate}), results.parent)
        add(results, make_record("dfad", 1, "unsupported", task=task, reason="no batch norm"))
        add(results, make_record("dafl", 1, task=task, budget={"steps": 10}, teacher_sha="cd" * 32))


def contents(out: Path) -> dict[Path, bytes]:
    return {file.relative_to(out): file.read_bytes() for file in out.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_several_processes_write_the_same_bytes(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_more(results)
    render(results, tmp_path / "one", trial_pages=9)
    monkeypatch.setattr(parts, "MANY", 0)
    render(results, tmp_path / "two", trial_pages=9, processes=2)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    assert {Path("overall.csv"), Path("image_metrics.csv"), Path("methods/dfad.html")} <= one.keys()


def test_pages_of_trials_are_shared_out_among_tasks(results: Path, tmp_path: Path) -> None:
    for seed in range(3):
        for task in TASKS:
            add(results, make_record("noise", seed + 1, task=task))
    add(results, make_record("noise", task="cifar10/resnet18"))
    render(results, tmp_path / "report", trial_pages=8)
    pages = {path.stem for path in tmp_path.glob("report/trials/*.html")}
    counts = Counter(record.trial.task for record in load_records(results, pages))
    assert counts == {"cifar10/resnet18": 1, TASKS[0]: 3, TASKS[1]: 4}


@pytest.mark.parametrize(
    "text", ['{"schema": 1}', "[]", '{"schema": 1, "trial": {"task": 3, "method": "a"}, "status": "ok"}']
)
def test_a_damaged_record_is_named_before_anything_is_drawn(results: Path, tmp_path: Path, text: str) -> None:
    damaged = next(results.glob("trials/*/record.json"))
    damaged.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(damaged))):
        render(results, tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.slow
def test_a_damaged_curve_is_told_from_another_process(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MANY", 0)
    curve = next(results.glob("trials/*/curve.jsonl"))
    curve.write_text("no JSON")
    with pytest.raises(UserError, match=r"curve\.jsonl"):
        render(results, tmp_path / "two", processes=2)
    assert not (tmp_path / "two").exists()


def test_the_search_for_cycles_knows_all_objects_again_after_a_report(results: Path, tmp_path: Path) -> None:
    render(results, tmp_path / "report", trial_pages=0)
    assert gc.get_freeze_count() == 0
    assert gc.isenabled()


def test_a_sparing_report_has_no_figures_for_phones(results: Path) -> None:
    group = group_records(load_records(results))[0]
    full, sparing = (draw_group(group, results, colours_of(["dafl"]), sparing=each) for each in (False, True))
    assert sparing.files.items() <= full.files.items()
    assert all(name.endswith("-narrow.svg") for name in full.files.keys() - sparing.files.keys())
    assert full.curves
    assert sparing.curves
    assert full.curves.shown()["wide"] != full.curves.shown()["narrow"]
    assert sparing.curves.shown()["wide"] == sparing.curves.shown()["narrow"] == f"{sparing.curves.path}.svg"
