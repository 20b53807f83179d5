"""How long a study will take: close to what it does take, and nothing where a try says nothing."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.execution.estimate import estimate
from bench.execution.run_study import run_study
from bench.spec.expand import expand
from bench.spec.study import load_study
from bench.spec.trial import Trial

STUDY = """\
name: short
tasks: [digits/lenet5-half]
methods: [noise, scratch, deepinversion]
budget: {steps: 300}
settings: small
points: 1
isolation: none
"""


def trials(folder: Path) -> list[Trial]:
    (folder / "study.yaml").write_text(STUDY)
    return expand(load_study(folder / "study.yaml"))


@pytest.mark.slow
def test_an_estimate_is_near_to_the_processor_time_of_a_run(tmp_path: Path) -> None:
    noise = next(trial for trial in trials(tmp_path) if trial.method == "noise")
    (found,) = estimate([noise], 1.0)
    (tmp_path / "study.yaml").write_text(STUDY.replace("noise, scratch, deepinversion", "noise"))
    busy = time.process_time()
    run_study(tmp_path / "study.yaml", results=tmp_path / "results", executor="inline", device="cpu")
    busy = time.process_time() - busy
    assert found.seconds is not None
    assert 0.3 * busy < found.seconds < 3 * busy


def test_a_longer_budget_takes_longer_and_blind_methods_count_their_own_images(tmp_path: Path) -> None:
    noise, scratch, unsupported = trials(tmp_path)
    images = dataclasses.replace(scratch, budget={"teacher_images": 100_000})
    longer = dataclasses.replace(noise, budget={"steps": 300_000, "gmacs": 1e9})
    first, second, third, fourth = estimate([noise, longer, images, unsupported], 0.3)
    assert first.seconds
    assert second.seconds
    assert second.seconds > 100 * first.seconds
    assert third.seconds
    assert (fourth.seconds, "batch norm" in fourth.why) == (None, True)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_try_takes_time(seconds: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a try takes more than 0 seconds"):
        estimate(trials(tmp_path), seconds)
