"""How long a study of ten thousand trials takes to read and to expand, ids included. Measured, never asserted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.spec.expand import expand
from bench.spec.study import load_study

COUNT = 50 * 40 * 5


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """``dafl`` on a grid of 50 by 40 cells, five seeds each."""
    one_hot = [number / 100 for number in range(1, 51)]
    balance = [number / 10 for number in range(1, 41)]
    file = tmp_path / "large.yaml"
    file.write_text(
        f"name: large\ntasks: [digits/lenet5-half]\nmethods: [dafl: {{one_hot: {one_hot}, balance: {balance}}}]\n"
        "seeds: [0, 1, 2, 3, 4]\nbudget: {steps: 1000}\n"
    )
    return file


def test_expanding_a_large_study(benchmark: Any, study: Path) -> None:
    loaded = load_study(study)
    trials = benchmark(expand, loaded)
    assert len({trial.id for trial in trials}) == COUNT


def test_reading_a_large_study(benchmark: Any, study: Path) -> None:
    assert len(benchmark(load_study, study).entries) == 1
