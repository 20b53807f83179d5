"""The options that every method has under the same name, so that studies can vary them over all methods alike."""

from __future__ import annotations

import pytest

from bench.spec.method import Access, Data
from bench.spec.method_card import MethodCard
from bench.spec.method_registry import find_methods
from bench.utils.user_code import BUILT_IN

CARDS = {name: card for name, card in find_methods().items() if card.file.parent == BUILT_IN}


def learns_from_a_teacher(card: MethodCard) -> bool:
    return card.access > Access.NONE


def learns_images(card: MethodCard) -> bool:
    """Whoever improves images, or a generator of them, needs the teacher's gradient; noise does not."""
    return card.data is Data.NONE and card.access >= Access.GRADIENTS


@pytest.mark.parametrize("name", CARDS)
def test_rates_and_temperature_have_their_names(name: str) -> None:
    card = CARDS[name]
    options = {spec.name: spec for spec in card.specs}
    assert "lr_student" in options
    assert "temperature" in options or not learns_from_a_teacher(card)
    assert ("lr_generator" in options or "lr_images" in options) == learns_images(card)


@pytest.mark.parametrize("name", CARDS)
def test_rates_and_temperature_are_above_zero(name: str) -> None:
    card = CARDS[name]
    for spec in card.specs:
        if spec.name in ("temperature", "lr_student", "lr_generator", "lr_images"):
            assert spec.default > 0
            assert spec.above == 0


def test_all_kinds_are_among_the_built_in_methods() -> None:
    kinds = {(card.data, learns_from_a_teacher(card), learns_images(card)) for card in CARDS.values()}
    assert kinds == {
        (Data.TRAIN, False, False),  # scratch
        (Data.TRAIN, True, False),  # kd
        (Data.POOL, True, False),  # kd on other images
        (Data.NONE, True, False),  # noise
        (Data.NONE, True, True),
    }
    assert len(CARDS) >= 17
