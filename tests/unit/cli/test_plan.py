"""``dfkd plan``: trials, time, and how many seeds tell a difference."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from record_builder import make_record

from bench.analysis.stats import seeds_to_detect
from bench.cli import answer
from bench.records import open_results, write_trial
from bench.spec.expand import expand
from bench.spec.study import load_study

STUDY = """
name: three
tasks: [digits/lenet5-half]
methods: [noise, kd, dafl]
seeds: [0, 1]
budget: {steps: 4}
points: 2
selection: [last, ema]
"""
NOISE, KD = (0.50, 0.54, 0.48, 0.52), (0.95, 0.96, 0.94, 0.96)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def pilots(folder: Path, scores: Mapping[str, Sequence[float]], **changes: Any) -> None:
    """Records of the study's trials with other code, and a seed for each score."""
    open_results(folder, create=True)
    for method, trial in {trial.method: trial for trial in expand(load_study(Path("study.yaml")))}.items():
        identity = {name: value for name, value in trial.identity().items() if name not in ("method", "seed")}
        identity |= {"method_sha": "0" * 12} | changes
        for seed, score in enumerate(scores.get(method, ())):
            write_trial(folder, make_record(method, seed, final=score, **identity), [], {})


def planned(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[dict[str, Any], dict[tuple[Any, ...], Any]]:
    assert answer(["plan", "study.yaml", "--json", *options]) == 0
    first, *rows = json.loads(capsys.readouterr().out)
    return first, {(row["method"], row["other"]): row for row in rows}


def test_trials_and_their_time_without_any_pilot(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["plan", "study.yaml"]) == 0
    text = capsys.readouterr().out
    assert "three: 6 trials, 0 finished, 6 to run" in text
    assert "time, one after another: not known; 6 trials without a pilot" in text
    assert not Path("runs").exists()


def test_seeds_come_from_the_spread_of_pilots_with_any_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pilots(tmp_path / "runs" / "three", {"noise": NOISE, "kd": KD})
    first, needs = planned(capsys, "--detect", "1.0")
    assert first["without_pilots"] == 2
    assert first["seconds"] > 0
    differences = [a - b for a, b in zip(NOISE, KD, strict=True)]
    pair = needs["noise", "kd"]
    assert pair["spread"] == pytest.approx(statistics.stdev(differences))
    assert pair["alpha"] == pytest.approx(0.05 / 3)
    assert pair["seeds"] == seeds_to_detect(statistics.stdev(differences), 0.01, paired=True, alpha=0.05 / 3)
    assert pair["safe"] > pair["seeds"]
    alone = needs["kd", None]
    assert alone["seeds"] == seeds_to_detect(statistics.stdev(KD), 0.01, paired=False)
    _, wider = planned(capsys, "--detect", "2.5")
    assert wider["noise", "kd"]["seeds"] < pair["seeds"]


def test_too_few_pilots_are_said_and_nothing_is_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pilots(tmp_path / "runs" / "three", {"noise": NOISE, "kd": KD[:2]})
    _, needs = planned(capsys, "--detect", "1")
    assert needs["noise", "kd"]["seeds"] is None
    assert needs["noise", None]["seeds"] > 10
    assert answer(["plan", "study.yaml", "--detect", "1"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "too few pilots: noise has 4 seeds, kd has 2 seeds, 2 in common; 3 are needed" in text
    assert "too few pilots: dafl has 0 seeds; 3 are needed" in text
    assert "Run the study with at least 3 seeds, or name records of it with --results." in text


def test_records_of_another_budget_are_no_pilots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pilots(tmp_path / "other", {"noise": NOISE}, budget={"steps": 5})
    first, needs = planned(capsys, "--detect", "1", "--results", "other")
    assert first["without_pilots"] == 6
    assert needs["noise", None]["pilots"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--detect", "0"], "--detect must be above 0 and at most 100 percentage points, not 0"),
        (["--detect", "nan"], "--detect must be above 0"),
        (["--power", "1"], "--power must be between 0 and 1, not 1"),
        (["--results", "nowhere"], "nowhere does not exist"),
    ],
)
def test_mistakes_are_told(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["plan", "study.yaml", *options]) == 2
    assert said in capsys.readouterr().err
