"""Whether measured scores give a quoted number back: two one-sided tests (TOST) of a difference within a margin."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

from bench.analysis.stats.checks import check_finite, check_level


class Equivalence(NamedTuple):
    """The difference of a mean from a quoted number, with the interval that decides, in the unit of the values.

    ``low`` and ``high`` are None where nothing can be decided; ``why`` is a phrase for the reader that says why not.
    """

    difference: float
    low: float | None
    high: float | None
    verdict: Literal["equivalent", "different", "undecided"]
    why: str


def equivalence(
    values: Sequence[float],
    quoted: float,
    deviation: float | None = None,
    runs: int | None = None,
    within: float = 0.01,
    level: float = 0.05,
) -> Equivalence:
    """Test a mean over seeds against a number that others give, by two one-sided t-tests at ``level``.

    Both reject exactly where the 1 - 2 level interval of the difference (Welch's) lies within the margin: then the two
    are equivalent. They are different where that interval lies outside it, and undecided else.

    Args:
        values: one score per seed.
        quoted: the other number.
        deviation: its standard deviation over runs; None: it is taken as exact.
        runs: behind it; None, not known: the deviation is taken for that of the number itself, as of one run.
        within: the margin, in the unit of the values.
        level: of each test, between 0 and 0.5.

    Raises:
        ValueError: no values, a value that is not finite, a margin that is not above 0, or a level out of range.

    >>> equivalence([0.98], 0.98).why
    'one seed'
    """
    if not values:
        raise ValueError("a test needs at least one value")
    check_finite([*values, quoted, deviation or 0.0], "a test of equivalence")
    check_level(1 - 2 * level)
    if within <= 0:
        raise ValueError(f"the margin must be above 0, not {within}")
    seeds = len(values)
    difference = statistics.fmean(values) - quoted
    if seeds == 1:
        return Equivalence(difference, None, None, "undecided", "one seed")
    if min(values) == max(values):
        return Equivalence(difference, None, None, "undecided", "equal scores")
    own, other = statistics.variance(values) / seeds, (deviation or 0.0) ** 2 / (runs or 1)
    freedom = (own + other) ** 2 / (own**2 / (seeds - 1) + (other**2 / (runs - 1) if runs and runs > 1 else 0.0))
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    half = float(stdtrit(freedom, 1 - level)) * math.sqrt(own + other)
    low, high = difference - half, difference + half
    if -within <= low and high <= within:
        return Equivalence(difference, low, high, "equivalent", "")
    if low > within or high < -within:
        return Equivalence(difference, low, high, "different", "")
    return Equivalence(difference, low, high, "undecided", "too few seeds for this spread")
