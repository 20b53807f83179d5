"""Where the tests of one run cache: one folder for all its processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def cache_of_run(base: Path, environ: Mapping[str, str]) -> Path:
    """The cache folder of a test run, so that its processes train a teacher once and the user's cache is left alone.

    Args:
        base: pytest's temporary folder of this process. Those of pytest-xdist's workers lie in that of the run.
        environ: ``DFKD_TEST_CACHE`` names another folder, to keep teachers between runs while developing.
    """
    if chosen := environ.get("DFKD_TEST_CACHE"):
        return Path(chosen)
    return (base.parent if "PYTEST_XDIST_WORKER" in environ else base) / "cache"
