"""The quick part of the suite checks a method of each kind, the whole suite checks all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from method_kinds import kind, one_of_each_kind, others_slow

from bench.spec.method_registry import find_methods

CARDS = list(find_methods().values())


def names(parameters: list[object], *, quick: bool) -> set[object]:
    """The methods among parameters: those without a mark, or all."""
    slow = {each.values[0] for each in parameters if not isinstance(each, str)}  # type: ignore[attr-defined]
    plain = {each for each in parameters if isinstance(each, str)}
    return plain if quick else plain | slow


@pytest.mark.parametrize("cards", [CARDS, [card for card in CARDS if card.segmentation]], ids=["all", "segmentation"])
def test_every_method_is_checked_and_one_of_each_kind_quickly(cards: list) -> None:
    parameters = others_slow(cards)
    assert names(parameters, quick=False) == {card.name for card in cards}
    quick = names(parameters, quick=True)
    assert sorted(kind(card) for card in cards if card.name in quick) == sorted({kind(card) for card in cards})


def test_the_kinds_are_told_apart_by_what_their_cards_say() -> None:
    kinds = {kind(card) for card in CARDS}
    for condition in ("batch norm", "made images", "no teacher", "anchors", "layers"):
        assert any(condition in each for each in kinds)
    assert {each[0] for each in kinds} == {"none", "pool", "train"}


def test_a_method_of_a_new_kind_is_checked_quickly() -> None:
    card = replace(find_methods()["zskt"], name="of_a_new_kind", anchors=3, layers=True)
    assert one_of_each_kind([*CARDS, card])[kind(card)] == "of_a_new_kind"
    assert "of_a_new_kind" in others_slow([*CARDS, card])
