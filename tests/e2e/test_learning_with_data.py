"""Every distillation method on the task's own training images teaches far more than random noise: one small budget.

All are given as many teacher images as the floor, `noise`, under the small settings, and the last student is scored on
the test set. The floor is far above chance already (one class in ten).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.execution.run_trial import Setting, run_trial
from bench.records import open_results
from bench.spec.expand import expand
from bench.spec.method import Access, Data
from bench.spec.method_registry import find_methods
from bench.spec.study import load_study
from bench.utils.user_code import BUILT_IN

pytestmark = pytest.mark.slow  # half a dozen seconds for each method

CARDS = [card for card in find_methods().values() if card.file.parent == BUILT_IN]
METHODS = sorted(card.name for card in CARDS if card.data is Data.TRAIN and card.access > Access.NONE)
BUDGET = 10_000
MARGIN = 0.2
# the seed is one on which no setting was chosen
STUDY = f"""
name: learning
tasks: [digits/lenet5-half]
methods: [noise, {", ".join(METHODS)}]
seeds: [12]
budget: {{teacher_images: {BUDGET}}}
settings: small
points: 1
"""


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The last student's test accuracy, by method."""
    folder: Path = tmp_path_factory.mktemp("learning")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    setting = Setting(open_results(folder / "results", create=True))
    found = {}
    for trial in expand(load_study(folder / "study.yaml")):
        record = run_trial(trial, setting)
        assert record.status == "ok", record.reason
        assert BUDGET <= record.meter.teacher_images < 1.05 * BUDGET, "the same budget for all"
        found[trial.method] = record.scores["last"]
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_method_on_real_images_beats_noise(method: str, scores: dict[str, float]) -> None:
    assert scores[method] > scores["noise"] + MARGIN
