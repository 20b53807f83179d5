"""How long ten thousand records take to open. Measured, never asserted: `make bench` shows the numbers."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from bench.records import as_json, load_frame, load_records, open_results

COUNT = 10_000
BUILDER = Path(__file__).parents[1] / "support" / "record_builder.py"


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Ten thousand record files, or a hundred where benchmarks are off and only the code is to be tried."""
    measured = request.config.getoption("benchmark_enable") or not request.config.getoption("benchmark_disable")
    count = COUNT if measured else 100
    make_record = runpy.run_path(str(BUILDER))["make_record"]
    results = open_results(tmp_path_factory.mktemp("many") / "results", create=True)
    for number in range(count):
        record = make_record(("dafl", "zskd", "noise", "kd")[number % 4], seed=number)
        folder = results / "trials" / record.id
        folder.mkdir()
        (folder / "record.json").write_text(as_json(record))
        (folder / "curve.jsonl").touch()
    return results


def test_reading_records_into_a_frame(benchmark: Any, many: Path) -> None:
    frame = benchmark(load_frame, many)
    assert len(frame) == frame["id"].nunique() >= 100


def test_reading_and_checking_records_for_a_report(benchmark: Any, many: Path) -> None:
    assert len(benchmark(load_records, many)) >= 100
