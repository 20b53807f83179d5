"""Methods that say they can do segmentation hold the parts of the contract in which dense answers could matter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.data import shapes
from bench.execution import prepare
from bench.execution.contract import run_battery
from bench.spec.method_registry import find_methods
from bench.spec.task import Recipe, get_task, recipes, tasks

PARTS = ("runs", "trains the student", "access", "gradients", "resumes")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves its teacher for the others."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[str]:
    """A segmentation task on a few images, whose teacher is trained in a moment."""
    monkeypatch.setenv("DFKD_CACHE", str(cache))
    monkeypatch.setattr(shapes, "COUNTS", (60, 20))
    task = get_task("shapes/unet-small")
    teacher = task.teacher.model_copy(update={"network": "unet-small", "recipe": "moment"})
    monkeypatch.setitem(recipes(), "moment", Recipe(optimizer="adam", lr=0.01, batch=20, epochs=1))
    monkeypatch.setitem(tasks(), "moment", task.model_copy(update={"name": "moment", "teacher": teacher}))
    prepare._dataset.cache_clear()
    yield "moment"
    prepare._dataset.cache_clear()


QUICK = ("dafl",)  # the kinds of methods differ in what LeNet shows as well


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(card.name, marks=[pytest.mark.slow] * (card.name not in QUICK))
        for card in find_methods().values()
        if card.segmentation
    ],
)
def test_method_holds_the_contract_with_dense_answers(tiny: str, name: str) -> None:
    card = find_methods()[name]
    few = replace(card, quick={**card.quick, "batch": 8})  # a mask has thousands of answers: eight are many already
    # In this process, which takes half the time: a separate one gives the same bits (test_isolated_methods.py).
    findings = run_battery(few, task=tiny, only=PARTS, isolation="none")
    assert [finding.name for finding in findings] == list(PARTS)
    assert not [finding for finding in findings if not finding.ok]
