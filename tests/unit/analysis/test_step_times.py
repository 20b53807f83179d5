"""Rounds of steps: filed with a commit, read again, compared; and what is not such a file."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from commit_history import write_records
from simulate_speed import called

from bench.analysis.regression import step_times
from bench.analysis.regression.checkouts import Ran
from bench.analysis.regression.compare import compare
from bench.analysis.regression.filing import label, read_filed
from bench.analysis.regression.speed import read_run
from bench.analysis.regression.step_times import file_rounds, time_steps, untimed
from bench.cli import answer
from bench.errors import UserError
from bench.execution.step_speed import WARM, StepClock
from bench.utils.git import Commit

HEAD, LATER = (Commit(f"{digit}" * 40, "2026-01-01", "Words") for digit in (1, 2))
NAMES = ("digits/lenet5-half: kd", "digits/lenet5-half: dafl")


def rounds(factor: float, number: int, count: int = 8, machine: float = 1.0) -> list[dict[str, Any]]:
    random = np.random.default_rng(number)
    return [
        {
            name: {
                "seconds": machine * 0.01 * (factor if name == NAMES[1] else 1) * noise,
                "calibration": machine * 0.001,
            }
            for name, noise in zip(NAMES, np.exp(random.normal(0, 0.02, 2)).tolist(), strict=True)
        }
        for _ in range(count)
    ]


def filed(tmp_path: Path, commit: Commit, times: list[dict[str, Any]]) -> Path:
    folder = write_records(tmp_path / commit.sha, {"kd": [0.9, 0.91, 0.92]}, {"kd": "same"})
    label(folder, commit)
    file_rounds(folder, times, commit, dirty=False)
    return folder


@pytest.mark.parametrize("archived", [False, True])
def test_a_step_that_takes_longer_is_a_regression_on_any_machine(tmp_path: Path, archived: bool) -> None:
    places = [
        filed(tmp_path, commit, rounds(factor, number, machine=machine))
        for number, (commit, factor, machine) in enumerate(((HEAD, 1.0, 1.0), (LATER, 1.3, 2.5)))
    ]
    if archived:
        for place in places:
            assert answer(["archive", str(place), f"{place}.parquet"]) == 0
        places = [place.with_name(f"{place.name}.parquet") for place in places]
    found = compare(*(read_filed(place.name, place) for place in places))
    assert found.outcome == "regression"
    verdicts = {number.method: number.verdict for number in found.numbers if number.family == "speed"}
    assert verdicts == {NAMES[0]: "same", NAMES[1]: "worse"}


def test_history_follows_the_steps(tmp_path: Path) -> None:
    from bench.analysis.regression.history import history

    sides = [
        read_filed(c.sha, filed(tmp_path, c, rounds(f, n)), c) for n, (c, f) in enumerate(((HEAD, 1.0), (LATER, 1.5)))
    ]
    series = {each.method: each for each in history([HEAD, LATER], sides).series if each.metric == "time"}
    assert set(series) == set(NAMES)
    assert series[NAMES[1]].means[1] > 1.3 * series[NAMES[1]].means[0]


def test_a_method_that_fails_is_left_out_and_told(tmp_path: Path) -> None:
    times = [{**each, NAMES[0]: {"reason": "no luck"}} for each in rounds(1.0, 0, 3)]
    place = filed(tmp_path, HEAD, times)
    assert untimed(times) == {NAMES[0]: "no luck"}
    assert [set(run.ratios) for run in read_filed("a", place).runs] == [{NAMES[1]}] * 3


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ({"kd": {"seconds": 0.1}}, "is not a round of `dfkd track --speed`"),
        ({"kd": {"seconds": 0.0, "calibration": 1.0}}, "must be above 0"),
        ({"kd": 3}, "is not a round of `dfkd track --speed`"),
        (None, "is not a round of `dfkd track --speed`"),
    ],
)
def test_a_damaged_round_is_told(tmp_path: Path, steps: Any, said: str) -> None:
    text = json.dumps({"format": "dfkd steps 1", "commit": HEAD.sha, "dirty": False, "steps": steps})
    with pytest.raises(UserError, match=said):
        read_run(tmp_path / "a.json", text)


@pytest.mark.parametrize(
    ("code", "output", "errors", "said"),
    [
        (1, "", "Traceback\nImportError: no such thing\n", "cannot be timed in .*: ImportError: no such thing"),
        (0, '{"kd": {"reason": "no luck"}}\n', "", "no method of .* could be timed: no luck"),
        (0, "", "", "no method of"),
    ],
)
def test_a_checkout_that_cannot_be_timed_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, output: str, errors: str, said: str
) -> None:
    monkeypatch.setattr(step_times, "run_python", lambda *_: Ran([], code, output, errors))
    with pytest.raises(UserError, match=said):
        time_steps(tmp_path, tmp_path / "study.yaml", 1)


def test_calibrations_are_in_no_steps_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness's own work after a step is a part of the next; a calibration is not."""
    from bench.execution import step_speed

    now = [0.0]
    monkeypatch.setattr(step_speed.time, "process_time", lambda: now[0])

    def loop() -> float:
        now[0] += 100.0
        return 100.0

    def harness() -> None:
        now[0] += 1.0

    monkeypatch.setattr(step_speed, "calibration", loop)
    context = SimpleNamespace(hooks=SimpleNamespace(after_step=harness))
    clock = StepClock()
    clock.watch(context)
    for _ in range(WARM + 5):
        now[0] += 10.0
        context.hooks.after_step()
    assert clock.times == [11.0] * 5
    assert clock.calibrations == [100.0] * 5


def test_small_slowdowns_are_called_and_chance_is_not() -> None:
    """The measured shares, from more cases, are in docs/continuous-integration.md."""
    assert called(2.0, 40)[0] >= 0.95
    found, false = called(1.2, 60)
    assert found >= 0.8
    assert false <= 0.05


def test_rounds_without_speed_are_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["track", "regression", "--rounds", "5"]) == 2
    assert "--rounds is for --speed" in capsys.readouterr().err
