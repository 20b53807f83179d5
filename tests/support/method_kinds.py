"""The kinds of methods, from their cards: what a test of every method runs quickly is one method of each kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from bench.spec.method import Access, Data
from bench.spec.method_card import MethodCard


def kind(card: MethodCard) -> tuple[str, ...]:
    """What the harness treats differently: real images, access to the teacher and its training, maps of layers."""
    found = {
        "batch norm": card.needs_batch_norm(card.quick),
        "made images": card.data is Data.NONE and card.access >= Access.GRADIENTS,
        "no teacher": card.access is Access.NONE,
        "anchors": card.anchors > 0,
        "layers": card.layers and card.data is not Data.NONE,  # they are tapped alike: one method of them will do
    }
    return (card.data.value, *(word for word, holds in found.items() if holds))


def one_of_each_kind(cards: Iterable[MethodCard]) -> dict[tuple[str, ...], str]:
    """For each kind, the name of its method with the fewest options: the battery tries each of them."""
    chosen: dict[tuple[str, ...], str] = {}
    for card in sorted(cards, key=lambda card: (len(card.specs), card.name)):
        chosen.setdefault(kind(card), card.name)
    return chosen


def others_slow(cards: Iterable[MethodCard]) -> list[Any]:
    """The names of all methods, as parameters of a test that is slow for all but one method of each kind."""
    cards = sorted(cards, key=lambda card: card.name)
    quick = set(one_of_each_kind(cards).values())
    return [card.name if card.name in quick else pytest.param(card.name, marks=pytest.mark.slow) for card in cards]
