"""Methods that say they can do segmentation hold the parts of the contract in which dense answers could matter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.cards import find_methods
from bench.check import run_battery
from bench.task import Recipe, add_tasks, get_task, recipes, tasks

PARTS = ("runs", "trains the student", "access", "gradients", "reproducible", "resumes", "budget in teacher_images")


@pytest.fixture
def tiny() -> Iterator[str]:
    """A segmentation task whose teacher is trained in a moment."""
    shapes = get_task("shapes/unet-small")
    recipes()["moment"] = Recipe(optimizer="adam", lr=0.01, batch=50, epochs=1)  # type: ignore[index]
    teacher = shapes.teacher.model_copy(update={"network": "unet-small", "recipe": "moment"})
    add_tasks([shapes.model_copy(update={"name": "moment", "teacher": teacher})])
    yield "moment"
    del tasks()["moment"], recipes()["moment"]  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name, card in find_methods().items() if card.segmentation))
def test_method_holds_the_contract_with_dense_answers(tiny: str, name: str) -> None:
    findings = run_battery(find_methods()[name], task=tiny, only=PARTS)
    assert [finding.name for finding in findings] == list(PARTS)
    assert not [finding for finding in findings if not finding.ok]
