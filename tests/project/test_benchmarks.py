"""Benchmarks are collected only by ``make bench``; that they still run is tested here, without measuring anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_folder_of_tests_is_collected_without_its_benchmarks(request: pytest.FixtureRequest) -> None:
    benchmarks = ROOT / "tests" / "benchmarks"
    assert list(benchmarks.glob("test_*.py"))
    assert benchmarks.name in request.config.getini("norecursedirs")
    assert not [item for item in request.session.items if benchmarks in item.path.parents]


def test_make_bench_names_their_folder_and_make_test_does_not() -> None:
    recipes = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\n\ntest:")[2]
    test, _, bench = recipes.partition("\n\nbench:")
    assert "tests/benchmarks" not in test.partition("\n\n")[0]
    assert "pytest tests/benchmarks --benchmark-enable" in bench.partition("\n\n")[0]


@pytest.mark.slow
def test_every_benchmark_runs_once() -> None:
    done = run_pytest("tests/benchmarks")
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout


@pytest.mark.slow
def test_the_drivers_costs_can_be_measured() -> None:
    """``docs/cluster.md`` shows what this script prints; no other test runs it."""
    command = [sys.executable, "tests/benchmarks/driver_scale.py", "3", "6"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "exponent of run:" in done.stdout


@pytest.mark.slow
def test_steps_of_checkouts_can_be_measured_in_turn() -> None:
    command = [sys.executable, "tests/benchmarks/steps_in_turn.py", "--task", "digits/lenet5-half", "--method", "noise"]
    variants = ["--variant", "one=.", "--variant", "other=.,memory_format=channels_last", "--rounds", "1"]
    done = subprocess.run([*command, *variants], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "| `noise` | digits/lenet5-half |" in done.stdout
