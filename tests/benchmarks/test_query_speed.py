"""How long queries, archives and reports of a hundred thousand records take. Measured, never asserted.

``make bench`` shows the numbers; making the folder takes minutes and 1.6 GB. docs/performance.md has the numbers.
"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.report import render
from bench.cli.show import TRIAL_PAGES
from bench.records.archive import write_archive
from bench.records.query import query
from bench.utils.hardware import usable_cores

COUNT, FEW = 100_000, 600
MAKE = Path(__file__).with_name("many_records.py")
SQL = {
    "trials": "select method, count(*) as n, avg(score) as mean from trials where status = 'ok' group by all",
    "curves": "select progress, avg(score) as mean from curves group by all",
    "metrics": "select name, avg(value) as mean from metrics group by all",
    "meters": "select method, sum(seconds) as seconds from meters group by all",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A hundred thousand trials, or some hundreds where benchmarks are off and only the code is to be tried."""
    measured = request.config.getoption("benchmark_enable") or not request.config.getoption("benchmark_disable")
    patch = pytest.MonkeyPatch()
    patch.setenv("DFKD_CACHE", str(tmp_path_factory.mktemp("cache")))
    write_many = runpy.run_path(str(MAKE))["write_many"]
    yield write_many(tmp_path_factory.mktemp("many") / "results", COUNT if measured else FEW)
    patch.undo()


@pytest.fixture(scope="module")
def archive(folder: Path) -> Path:
    write_archive(folder, folder.parent / "many.parquet")
    return folder.parent / "many.parquet"


@pytest.mark.parametrize("view", SQL)
def test_querying_an_archive(benchmark: Any, archive: Path, view: str) -> None:
    assert benchmark(query, [archive], SQL[view]).rows


@pytest.mark.parametrize("view", SQL)
def test_querying_record_files_again(benchmark: Any, folder: Path, view: str) -> None:
    first = query([folder], SQL[view]).rows  # packs them; sums are rounded in the order of the threads
    assert len(benchmark(query, [folder], SQL[view]).rows) == len(first)


def test_report_of_an_archive(benchmark: Any, request: pytest.FixtureRequest, tmp_path: Path, archive: Path) -> None:
    if not request.config.getoption("benchmark_enable"):
        pytest.skip("its figures take long; tests/unit/records/test_archive_and_merge.py tries the code")
    assert benchmark.pedantic(render, (archive, tmp_path / "report", TRIAL_PAGES, usable_cores()), rounds=1)
