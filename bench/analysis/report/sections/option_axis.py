"""An option as the axis of a figure: its values one beside the other, or intervals of them where a sample was drawn."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from bench.analysis.report.sections.sweeps import value_order, value_text

INTERVALS = 4  # of a sampled option
FEW = 8  # values that stand one beside the other in a sample as well
APART = 5.0  # times: numbers nearer together than that need no logarithmic axis


@dataclass(frozen=True)
class Place:
    """One value of an option, or those in an interval."""

    text: str
    values: frozenset[Hashable]
    at: float | None  # the number, or the middle of the interval; None for what is no number


@dataclass(frozen=True)
class OptionAxis:
    """The places of an option, in their order."""

    name: str
    places: tuple[Place, ...]
    edges: tuple[float, ...] = ()  # of the intervals, where these are the places
    logarithmic: bool = False

    @property
    def numbers(self) -> bool:
        """Whether all of its values are numbers."""
        return all(place.at is not None for place in self.places)

    def scaled(self, value: Any) -> float:
        """A value as a number on the axis's scale; what is no number is its place."""
        if not self.numbers:
            return float(next(index for index, place in enumerate(self.places) if value in place.values))
        return math.log(value) if self.logarithmic else float(value)


def axis_of(name: str, values: Iterable[Hashable], sampled: bool = False) -> OptionAxis:
    """
    Args:
        name: of the option.
        values: those that occur, in any order.
        sampled: whether they were drawn from a range; more than ``FEW`` numbers then fall into intervals.
    """
    known = sorted(set(values), key=value_order)
    numbers = [float(value) for value in known if is_number(value)]  # type: ignore[arg-type]
    if len(numbers) < len(known):
        return OptionAxis(name, tuple(Place(value_text(value), frozenset([value]), None) for value in known))
    logarithmic = is_logarithmic(numbers)
    if not sampled or len(known) <= FEW:
        places = tuple(Place(value_text(v), frozenset([v]), at) for v, at in zip(known, numbers, strict=True))
        return OptionAxis(name, places, logarithmic=logarithmic)
    edges = _edges(numbers[0], numbers[-1], logarithmic)
    inside: list[set[Hashable]] = [set() for _ in range(INTERVALS)]
    for value, number in zip(known, numbers, strict=True):
        inside[min(bisect_right(edges, number), INTERVALS) - 1].add(value)
    places = tuple(
        Place(f"{low:.3g} to {high:.3g}", frozenset(those), math.sqrt(low * high) if logarithmic else (low + high) / 2)
        for (low, high), those in zip(pairwise(edges), inside, strict=True)
    )
    return OptionAxis(name, places, tuple(edges), logarithmic)


def is_number(value: object) -> bool:
    """A truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_logarithmic(numbers: Sequence[float]) -> bool:
    """Whether numbers, sorted, are spread evenly by factors rather than by differences: their median tells.

    >>> is_logarithmic([1, 2.71, 7.37, 20]), is_logarithmic([5, 10, 15, 20, 25, 30]), is_logarithmic([0, 1, 10, 100])
    (True, False, False)
    """
    low, high = numbers[0], numbers[-1]
    if low <= 0 or high / low < APART:
        return False
    middle = median(numbers)
    return abs(math.log(middle / math.sqrt(low * high))) < abs(math.log(middle / ((low + high) / 2)))


def _edges(low: float, high: float, logarithmic: bool) -> list[float]:
    shares = [index / INTERVALS for index in range(1, INTERVALS)]
    between = [low * (high / low) ** share if logarithmic else low + share * (high - low) for share in shares]
    return [low, *between, high]
