"""The report on other real images: each pool once, its distances, and the share that a selection keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from record_builder import make_curve, make_record

from bench.analysis.report import render
from bench.analysis.report.figures.curves import colours_of
from bench.analysis.report.figures.pool import draw_kept
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.groups import Group, curves_of
from bench.analysis.report.sections.pool_text import pool_table
from bench.records import PoolFacts, Record, open_results, write_trial
from bench.records.archive import write_archive


def on_pool(method: str, seed: int, pool: str, distance: float) -> Record:
    entry = {"value": distance, "status": "ok", "images": 2048, "note": ""}
    facts = PoolFacts.model_validate(
        {
            "name": pool,
            "images": 3038,
            "fingerprint": pool * 8,
            "near_duplicates": 2,
            "image_metrics": {"fd[teacher]": entry, "confidence": {**entry, "value": None, "status": "unavailable"}},
        }
    )
    final = {"dfnd": 0.9}.get(method, 0.8)
    return make_record(method, seed, data="pool", pool=pool, final=final).model_copy(update={"pool": facts})


def one_group(*records: Record) -> Group:
    (group,) = group_records(records)
    return group


RECORDS = [on_pool("dfnd", 0, "photos", 12.34), on_pool("dfnd", 1, "photos", 12.34), on_pool("kd3", 0, "web", 5.6)]


def test_every_pool_is_listed_once_with_its_methods_and_distances() -> None:
    assert pool_table(one_group(*RECORDS, make_record("noise"))) == [
        ["Pool", "Methods", "Images", "Near test images", "fd[teacher] ↓", "confidence"],
        ["photos", "dfnd", "3,038", "2", "12.3", "—"],
        ["web", "kd3", "3,038", "2", "5.60", "—"],
    ]


def test_without_pools_there_is_no_panel() -> None:
    assert pool_table(one_group(make_record("noise"))) == []


def curve(record: Record, **logs: float) -> list[dict[str, Any]]:
    def logged(progress: float) -> dict[str, float]:
        return {name: value * progress for name, value in logs.items()}

    return [{**point, "logs": logged(point["progress"])} for point in make_curve(record)]


def test_the_kept_shares_are_drawn_and_the_panel_is_in_page_and_markdown(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    for record in RECORDS:
        logs = {"kept": 0.5 + 0.25 * record.trial.seed} if record.trial.method == "dfnd" else {}
        write_trial(results, record, curve(record, **logs), {})
    group = one_group(*RECORDS)
    figure = draw_kept(group, curves_of(group, results), colours_of(["dfnd", "kd3"]))
    assert figure is not None
    first, second, mean = figure.axes[0].lines
    assert [float(line.get_ydata()[-1]) for line in (first, second, mean)] == [0.5, 0.75, 0.625]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["dfnd"]
    render(results, tmp_path / "report")
    for name in ("tasks/digits-lenet5-half.html", "leaderboard.md"):
        text = (tmp_path / "report" / name).read_text(encoding="utf-8")
        assert "The other real images" in text
        assert "web" in text
    (drawn,) = (tmp_path / "report" / "figures").glob("*-kept.png")
    write_archive(results, tmp_path / "all.parquet")
    render(tmp_path / "all.parquet", tmp_path / "again")
    assert (tmp_path / "again" / "figures" / drawn.name).read_bytes() == drawn.read_bytes()


def test_where_nobody_selects_nothing_is_drawn(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    for record in RECORDS:
        write_trial(results, record, make_curve(record), {})
    group = one_group(*RECORDS)
    assert draw_kept(group, curves_of(group, results), colours_of(["dfnd", "kd3"])) is None
