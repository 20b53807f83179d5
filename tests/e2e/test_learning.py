"""Every data-free method teaches the student more than random noise does: one small budget, the small settings."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from bench.execution.run_trial import Setting, run_trial
from bench.records import open_results
from bench.spec.expand import expand
from bench.spec.method import Data
from bench.spec.method_card import MethodCard
from bench.spec.method_registry import find_methods
from bench.spec.requirements import why_unsupported
from bench.spec.study import load_study
from bench.spec.task import get_task

pytestmark = pytest.mark.slow  # half a dozen seconds for each method

PLAIN, WITH_BATCH_NORM = "digits/lenet5-half", "digits/lenet5bn-half"
# Noise reaches about 0.55, and chance. Bits are those of a processor, and so are scores: adi is at 0.35 on one of two.
MARGINS = {PLAIN: 0.1, WITH_BATCH_NORM: 0.15}
METHODS = sorted(name for name, card in find_methods().items() if card.data is Data.NONE and name != "noise")
# the seed is one on which no setting was chosen
STUDY = f"""
name: learning
tasks: [{PLAIN}, {WITH_BATCH_NORM}]
methods: [noise, {", ".join(METHODS)}]
seeds: [12]
budget: {{teacher_images: 10_000}}
settings: small
points: 1
"""


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], float]:
    """Runs a method on a task, once, and gives the last student's test accuracy."""
    folder = tmp_path_factory.mktemp("learning")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    trials = {(trial.method, trial.task): trial for trial in expand(load_study(folder / "study.yaml"))}
    setting = Setting(open_results(folder / "results", create=True))

    @functools.cache
    def run(method: str, task: str) -> float:
        record = run_trial(trials[method, task], setting)
        assert record.status == "ok", record.reason
        assert 10_000 <= record.meter.teacher_images < 10_500, "the same budget for all"
        return record.scores["last"]

    return run


def task_of(card: MethodCard) -> str:
    """The plain task, but for a method that needs batch-norm statistics as it is set there."""
    plain = get_task(PLAIN)
    options = {**card.defaults(), **plain.settings["small"][card.name]}
    return WITH_BATCH_NORM if why_unsupported(card, plain, options) else PLAIN


@pytest.mark.parametrize("method", METHODS)
def test_a_data_free_method_beats_noise(method: str, score: Callable[[str, str], float]) -> None:
    task = task_of(find_methods()[method])
    assert score(method, task) > score("noise", task) + MARGINS[task]


def test_both_tasks_have_methods() -> None:
    assert {task_of(find_methods()[method]) for method in METHODS} == {PLAIN, WITH_BATCH_NORM}
