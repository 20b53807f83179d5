"""How many seeds tell a difference of a given size, from a spread that pilots have shown."""

from __future__ import annotations

import math

MOST = 10_000  # seeds: beyond, the answer is that seeds do not tell it
FEWEST = 3  # pilots: a spread of fewer is hardly one


def seeds_to_detect(
    spread: float, difference: float, *, paired: bool, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """How many seeds on each side give Student's t-test, two-sided, the wanted power.

    Args:
        spread: the standard deviation over seeds: of the differences where seeds are pairs, else of each side's scores.
        difference: the one to be told, in the unit of ``spread``.
        paired: whether each seed's difference is tested, or two independent sides.
        power: the chance that the difference is told.
        alpha: the chance that one is told where there is none.

    Returns:
        At least 2; None where it takes more than ``MOST``.

    Raises:
        ValueError: a negative spread, a difference that is not above 0, or power or alpha outside (0, 1).

    >>> seeds_to_detect(1.0, 1.0, paired=True), seeds_to_detect(1.0, 1.0, paired=False)
    (10, 17)
    """
    if not (spread >= 0 and math.isfinite(spread) and difference > 0 and 0 < power < 1 and 0 < alpha < 1):
        raise ValueError("spread at least 0, difference above 0, power and alpha between 0 and 1")
    low, high = 1, 2
    while not _power(high, spread, difference, paired, alpha) >= power:
        low, high = high, 2 * high
        if low >= MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, spread, difference, paired, alpha) >= power else (middle, high)
    return high if high <= MOST else None


def spread_limit(spread: float, freedom: int, confidence: float = 0.8) -> float:
    """What the true spread is below with that confidence, where a few seeds have shown ``spread``: a plan with it has
    its power in at least that share of cases (Browne, 1995, Statist. Med. 14).

    Raises:
        ValueError: ``freedom`` below 1.
    """
    if freedom < 1:
        raise ValueError("a spread needs at least one degree of freedom")
    from scipy.special import chdtri

    return spread * math.sqrt(freedom / float(chdtri(freedom, confidence)))


def _power(seeds: int, spread: float, difference: float, paired: bool, alpha: float) -> float:
    from scipy.special import nctdtr, stdtrit

    if spread == 0:
        return 1.0
    freedom = seeds - 1 if paired else 2 * (seeds - 1)
    shift = difference / spread * math.sqrt(seeds if paired else seeds / 2)
    border = -float(stdtrit(freedom, alpha / 2))
    if shift > 30:  # scipy's noncentral t loses its digits there
        return 1.0 if border < shift / 2 else 0.0
    return 1.0 - float(nctdtr(freedom, shift, border))
