"""The processes of a test run share a cache, and it is never the user's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from run_cache import cache_of_run

from bench.utils.paths import cache_folder

BASE = Path("tmp", "pytest-of-me", "pytest-7")


def test_all_workers_of_a_run_have_one_cache_and_another_run_has_its_own() -> None:
    workers = {cache_of_run(BASE / f"popen-{name}", {"PYTEST_XDIST_WORKER": name}) for name in ("gw0", "gw1")}
    assert workers == {BASE / "cache"}
    assert cache_of_run(BASE.with_name("pytest-8") / "popen-gw0", {"PYTEST_XDIST_WORKER": "gw0"}) not in workers


def test_a_run_without_workers_caches_in_its_own_folder() -> None:
    assert cache_of_run(BASE, {}) == BASE / "cache"


@pytest.mark.parametrize("worker", [{}, {"PYTEST_XDIST_WORKER": "gw0"}])
def test_a_chosen_folder_is_kept_between_runs(worker: dict[str, str]) -> None:
    assert cache_of_run(BASE, {"DFKD_TEST_CACHE": "/kept", **worker}) == Path("/kept")


def test_this_run_uses_it(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert cache_folder() == cache == cache_of_run(tmp_path_factory.getbasetemp(), os.environ)
