"""Large reports: drawn by several processes, with the bytes of one."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from record_builder import add, make_record

from bench.errors import UserError
from bench.records import load_records, open_results
from bench.report import parts, render
from bench.report.drawing import draw_group
from bench.report.figures import colours_of
from bench.report.groups import group_records


@pytest.fixture
def results(tmp_path: Path) -> Path:
    made = open_results(tmp_path / "results", create=True)
    for task in ("digits/lenet5-half", "mnist/lenet5-half"):
        for record in (make_record("dafl", task=task), make_record("noise", status="diverged", task=task)):
            add(made, record)
    return made


def contents(out: Path) -> dict[Path, bytes]:
    return {file.relative_to(out): file.read_bytes() for file in out.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_several_processes_write_the_same_bytes(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render(results, tmp_path / "one")
    monkeypatch.setattr(parts, "MANY", 0)
    render(results, tmp_path / "two", processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


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


def test_a_sparing_report_shows_the_figures_of_the_files(results: Path) -> None:
    group = group_records(load_records(results))[0]
    full, sparing = (draw_group(group, results, colours_of(["dafl"]), sparing=each) for each in (False, True))
    assert full.files.keys() == sparing.files.keys()
    assert all(full.files[name] == sparing.files[name] for name in full.files if name.endswith(".png"))
    assert full.curves
    assert sparing.curves
    assert full.curves.wide != full.curves.narrow
    drawn = sparing.files[f"figures/{group.name}-curves.svg"]
    assert sparing.curves.wide == sparing.curves.narrow == drawn
