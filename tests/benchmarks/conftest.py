"""The calibration is measured at both ends of a run."""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        if not item.name.startswith("test_calibration["):
            return 0
        return -1 if item.name.endswith("[first]") else 1

    if any(place(item) for item in items) and all("benchmarks" in item.path.parts for item in items):
        items.sort(key=place)  # stable: the others stay as they are
