"""Methods on other images than the task's: under one small budget they teach more than random noise does.

That takes natural images of some variety (``pool``). The patches of two photographs (``photos``) that need no download
are worse than noise for the digits under this budget; on them the students are held against chance.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from bench.execution.run_trial import Setting, run_trial
from bench.records import open_results
from bench.spec.expand import expand
from bench.spec.method_registry import find_methods
from bench.spec.study import load_study
from bench.utils.user_code import BUILT_IN

pytestmark = pytest.mark.slow  # half a dozen seconds for each method

# the related pool, MNIST, has digits: that is another question
CARDS = [card for card in find_methods().values() if card.file.parent == BUILT_IN]
METHODS = sorted(card.name for card in CARDS if card.pool in ("unrelated", "wild"))
CHANCE = 0.1
# the seeds are ones on which no setting was chosen; the mean of two, since one student's score has a spread of 0.1
STUDY = """
name: learning
tasks: [digits/lenet5-half]
methods: [{methods}]
seeds: [12, 13]
budget: {{teacher_images: {budget}}}
settings: small
points: 1
pools: {{digits/lenet5-half: {{unrelated: {pool}, wild: {pool}}}}}
"""


def scores(folder: Path, methods: list[str], pool: str, budget: int) -> dict[str, float]:
    """The last students' mean test accuracy, by method."""
    text = STUDY.format(methods=", ".join(methods), pool=pool, budget=budget)
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    setting = Setting(open_results(folder / "results", create=True))
    found: dict[str, list[float]] = {}
    for trial in expand(load_study(folder / "study.yaml")):
        record = run_trial(trial, setting)
        assert record.status == "ok", record.reason
        assert budget <= record.meter.teacher_images < 1.05 * budget, "the same budget for all"
        found.setdefault(trial.method, []).append(record.scores["last"])
    return {method: fmean(values) for method, values in found.items()}


@pytest.mark.data("pool")
def test_natural_images_teach_more_than_noise(tmp_path: Path) -> None:
    found = scores(tmp_path, ["noise", *METHODS], "pool", 20_000)
    for method in METHODS:
        assert found[method] > found["noise"], method


def test_patches_of_two_photographs_teach_more_than_nothing(tmp_path: Path) -> None:
    found = scores(tmp_path, METHODS, "photos", 10_000)
    for method in METHODS:
        assert found[method] > CHANCE + 0.1, method
