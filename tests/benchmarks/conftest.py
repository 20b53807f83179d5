"""The calibration is measured at both ends of a run."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        if not item.name.startswith("test_calibration["):
            return 0
        return -1 if item.name.endswith("[first]") else 1

    if any(place(item) for item in items) and all("benchmarks" in item.path.parts for item in items):
        items.sort(key=place)  # stable: the others stay as they are


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Print what the benchmarks of the methods' steps have measured, as lines of the table in docs/performance.md."""
    session = getattr(config, "_benchmarksession", None)
    for each in session.benchmarks if session is not None else ():
        row = each.extra_info
        if "isolated" in row:
            terminalreporter.write_line(
                f"| `{row['method']}` | `{row['task']}` | {row['batch']} | {row['steps']} | {row['here']:.2f} | "
                f"{row['seconds']:.2f} | {row['processor']:.2f} |"
            )
        if "floor" in row:
            terminalreporter.write_line(
                f"| {row['method']} | {row['kinds']} | {row['task']} | {row['batch']} | {row['rounds']} | "
                f"{1000 * row['step']:.1f} | {1000 * row['floor']:.1f} | {row['ratio']:.3f} |"
            )
