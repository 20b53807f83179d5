"""From the differences of a number to a verdict.

- ``better`` and ``worse`` need both a corrected p-value below alpha and a mean difference that matters.
- ``same`` needs the whole interval to lie within the smallest effect that matters, ``not worse`` the end of it where a
  loss would be: that a difference was not found is not enough.
- Everything else is ``undecided``, with the loss that would have been found, and the seeds that exclude one.

The same seed has the same random streams on both sides, so a difference is tested twice and each test has a share of
alpha: over the pairs, which sees most where two sides differ little, and over the seeds of both sides, which has twice
the degrees of freedom (and those of earlier commits) where all bits are drawn again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from bench.analysis.regression.effects import Effect
from bench.analysis.stats import holm
from bench.spec.metric_names import Metric

Verdict = Literal["better", "worse", "changed", "not worse", "same", "undecided"]
Family = Literal["score", "speed", "other"]  # scores and speed decide, the rest warns; each is corrected for by itself
FAMILIES: tuple[Family, ...] = ("score", "speed", "other")
ALPHA = 0.01
LEVEL = 0.95  # of the intervals
POWER = 0.8  # with which a loss counts as one that would have been found
SEEDS = 3  # a spread of fewer is hardly one
PAIRS = 0.2  # the share of alpha that the test over pairs has; the rest is that over both sides
UNLIKE = 0.05  # p-value of Fisher's F below which two spreads are not taken together
MOST_SEEDS = 10_000


class Test(NamedTuple):
    """One of the tests of a number: its share of alpha, the standard error of the difference and that's degrees of
    freedom."""

    share: float
    error: float
    freedom: float


class EarlierSpread(NamedTuple):
    """The variance over seeds within earlier commits, and its degrees of freedom."""

    variance: float
    freedom: int


@dataclass(frozen=True)
class Number:
    """One number on both sides, and what is to be said of it.

    ``difference``, ``low`` and ``high`` are head minus base, ``smallest`` the difference that matters, all in ``unit``.
    ``identical``: the same bits, or the same numbers where bits are not known. ``options``: defaults that differ.
    ``visible``: the smallest loss that would have been found, and ``needed``: the seeds on each side with which a loss
    that matters would be excluded, both with ``POWER``.
    """

    task: str
    method: str
    metric: str
    unit: str
    higher_is_better: bool | None
    pairs: int
    base: float
    head: float
    difference: float
    low: float | None
    high: float | None
    smallest: float
    p: float | None  # in the direction of the difference; before the correction; None: no spread, or too few
    adjusted: float | None = None
    verdict: Verdict = "undecided"
    identical: Literal["", "bits", "numbers"] = ""
    why: str = ""
    family: Family = "score"
    options: str = ""
    visible: float | None = None
    needed: int | None = None
    tests: tuple[Test, ...] = ()
    spreads: tuple[float, float] | None = None  # the standard deviation over seeds, in base and in head
    unlike: float = 1.0  # the p-value of their being the same
    level: float = LEVEL  # of the interval

    @property
    def tested(self) -> bool:
        """Whether it is one of the tests that Holm's correction is for."""
        return self.p is not None and not self.identical and not self._equal

    @property
    def _equal(self) -> bool:
        """No difference on any seed: nothing is tested."""
        return self.low == self.high == 0


@dataclass(frozen=True)
class Missing:
    """What could not be compared, and why; ``decides`` if it is a score, or all numbers of a cell."""

    task: str
    method: str
    what: str
    why: str
    decides: bool = False


def paired_number(
    names: tuple[str, str, str],
    metric: Metric,
    effect: Effect,
    base: Mapping[Hashable, float],
    head: Mapping[Hashable, float],
    same_bits: bool | None,
    family: Family = "score",
    pool: EarlierSpread | None = None,
    options: str = "",
    level: float = LEVEL,
) -> Number:
    """A number measured on the same seeds on both sides; undecided.

    Args:
        names: task, method, metric.
        metric: its unit and direction.
        effect: the smallest that matters.
        base, head: value by seed, the same seeds.
        same_bits: whether all students are the same on both sides; None: not known.
        family: which numbers it is corrected with.
        pool: the spread over seeds at earlier commits; it is used if that of both sides is not larger.
        options: defaults that differ, in words.
        level: of the interval.
    """
    before, after = statistics.fmean(base.values()), statistics.fmean(head.values())
    differences = [head[seed] - base[seed] for seed in base]
    mean = statistics.fmean(differences)
    equal = dict(base) == dict(head) and same_bits is not False
    enough = len(base) >= SEEDS
    few = f"{len(base)} seed{'s' if len(base) > 1 else ''} in common; the test needs {SEEDS}"
    low = high = p = spreads = None
    unlike = 1.0
    tests: tuple[Test, ...] = ()
    if enough and max(differences) - min(differences) <= 16 * math.ulp(max(1.0, *map(abs, base.values()))):
        low = high = mean if abs(mean) > 8 * math.ulp(1.0) else 0.0  # the same on every seed: nothing to test against
    elif enough:
        tests = _tests(list(base.values()), list(head.values()), differences, pool)
        half = min(_quantile(test.share * (1 - level) / 2, test.freedom) * test.error for test in tests)
        low, high = mean - half, mean + half
        p = _p_value(mean, tests, two_sided=metric.higher_is_better is None)
    if enough and not equal:
        spreads, unlike = _compare_spreads(list(base.values()), list(head.values()), pool)
    return Number(
        *names,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        pairs=len(base),
        base=before,
        head=after,
        difference=mean,
        low=low,
        high=high,
        smallest=effect.at(before),
        p=p,
        identical=("bits" if same_bits else "numbers") if equal else "",
        why="" if enough or equal else few,
        family=family,
        options=options,
        tests=tests,
        spreads=spreads,
        unlike=unlike,
        level=level,
    )


def ratio_number(
    names: tuple[str, str, str], metric: Metric, effect: Effect, base: Sequence[float], head: Sequence[float]
) -> Number:
    """A positive number measured in independent runs of both sides, by Welch's t-test of the logarithms; undecided."""
    before, after = ([math.log(value) for value in values] for values in (base, head))
    first, second = math.exp(statistics.fmean(before)), math.exp(statistics.fmean(after))
    low, high, p = None, None, None
    enough = min(len(base), len(head)) >= SEEDS
    if enough and len(set(before)) == len(set(after)) == 1:
        low = high = second - first  # no spread to test against
    elif enough:
        from scipy.stats import ttest_ind  # takes a second to import

        found = ttest_ind(after, before, equal_var=False)
        interval = found.confidence_interval(LEVEL)
        low, high, p = first * math.expm1(interval.low), first * math.expm1(interval.high), float(found.pvalue) / 2
    few = f"{len(base)} and {len(head)} steady runs; the test needs {SEEDS} of each"
    return Number(
        *names,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        pairs=min(len(base), len(head)),
        base=first,
        head=second,
        difference=second - first,
        low=low,
        high=high,
        smallest=effect.at(first),
        p=p,
        why="" if enough else few,
        family="speed",
    )


def paired_ratio_number(
    names: tuple[str, str, str], metric: Metric, effect: Effect, base: Sequence[float], head: Sequence[float]
) -> Number:
    """A positive number measured in rounds of both sides, by Student's t-test of the logarithms; undecided.

    Args:
        names, metric, effect: as for ``paired_number``.
        base, head: one value a round, in the same order.
    """
    before, after = ([math.log(value) for value in values] for values in (base, head))
    differences = [b - a for a, b in zip(before, after, strict=True)]
    first, mean = math.exp(statistics.fmean(before)), statistics.fmean(differences)
    low, high, p = None, None, None
    enough = len(base) >= SEEDS
    if enough and max(differences) == min(differences):
        low = high = first * math.expm1(mean)  # no spread to test against
    elif enough:
        error, freedom = statistics.stdev(differences) / math.sqrt(len(base)), len(base) - 1
        half = _quantile((1 - LEVEL) / 2, freedom) * error
        low, high = first * math.expm1(mean - half), first * math.expm1(mean + half)
        p = _p_value(mean, (Test(1.0, error, freedom),), two_sided=metric.higher_is_better is None)
    return Number(
        *names,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        pairs=len(base),
        base=first,
        head=first * math.exp(mean),
        difference=first * math.expm1(mean),
        low=low,
        high=high,
        smallest=effect.at(first),
        p=p,
        why="" if enough else f"{len(base)} rounds; the test needs {SEEDS}",
        family="speed",
    )


def decide(numbers: Sequence[Number], alpha: float) -> list[Number]:
    """The same numbers with corrected p-values and verdicts, each family by itself.

    Worse and better are two families of tests: alpha is the chance of any number that is called worse of two sides
    that differ in nothing, and as much that of any called better.
    """
    found = list(numbers)
    for family in FAMILIES:
        places = [place for place, number in enumerate(numbers) if number.family == family and number.tested]
        for sign in (1, -1):
            corrected = holm([_towards(numbers[place], sign) for place in places])
            for place, p in zip(places, corrected, strict=True):
                if numbers[place].difference * sign > 0:
                    found[place] = replace(found[place], adjusted=p)
        for place in places:
            if found[place].adjusted is None:
                found[place] = replace(found[place], adjusted=1.0)
        for place, number in enumerate(numbers):
            if number.family == family:
                found[place] = replace(found[place], **_verdict(found[place], alpha))
    return found


def explained(numbers: Sequence[Number], alpha: float) -> list[Number]:
    """Decided numbers; the undecided ones with ``visible`` and ``needed``."""
    tested = {family: sum(each.tested for each in numbers if each.family == family) for family in FAMILIES}
    return [
        replace(number, visible=visible_loss(number, alpha / tested[number.family]), needed=seeds_needed(number))
        if number.verdict == "undecided" and number.tests
        else number
        for number in numbers
    ]


def visible_loss(number: Number, alpha: float) -> float:
    """The smallest loss that would have been called with ``POWER``, in the number's unit, more than 0.

    Args:
        number: with tests.
        alpha: of this number, after the correction.
    """
    found = []
    for test in number.tests:
        border = _quantile(alpha * test.share, test.freedom)
        by_size = number.smallest / test.error + _quantile(1 - POWER, 1e9)  # the difference must matter, too
        found.append(test.error * max(_shift(border, test.freedom), by_size))
    return min(found)


def seeds_needed(number: Number) -> int:
    """How many seeds on each side would exclude a loss that matters where there is none, with ``POWER``; at most
    ``MOST_SEEDS``."""
    outside = (1 - number.level) / 2  # the interval, on each side
    best = min(number.tests, key=lambda test: test.error * _quantile(test.share * outside, test.freedom))
    spread = best.error * math.sqrt(number.pairs)  # of one seed's difference
    if number.smallest <= 0:
        return MOST_SEEDS
    normal = _quantile(best.share * outside, 1e9) + _quantile(1 - POWER, 1e9)  # Student's t needs a few more
    seeds = max(number.pairs + 1, math.floor(min((normal * spread / number.smallest) ** 2, MOST_SEEDS)))
    while seeds < MOST_SEEDS:
        freedom = best.freedom * (seeds - 1) / (number.pairs - 1)
        reach = _quantile(best.share * outside, freedom) + _quantile(1 - POWER, freedom)
        if reach * spread / math.sqrt(seeds) <= number.smallest:
            return seeds
        seeds += 1
    return MOST_SEEDS


def _tests(
    base: Sequence[float], head: Sequence[float], differences: Sequence[float], pool: EarlierSpread | None
) -> tuple[Test, ...]:
    """Both tests: over pairs, and over the seeds of both sides, with a common spread where there seems to be one."""
    n = len(base)
    over_pairs = Test(PAIRS, statistics.stdev(differences) / math.sqrt(n), n - 1)
    first, second = statistics.variance(base), statistics.variance(head)
    own, freedom = (first + second) / 2, 2.0 * (n - 1)
    if own > 0 and 2 * _f_tail(max(first, second), n - 1, min(first, second), n - 1) < UNLIKE:  # Welch's
        freedom = (first + second) ** 2 / (first**2 + second**2) * (n - 1)
    if pool is not None and _f_tail(own, freedom, pool.variance, pool.freedom) >= UNLIKE:
        own = (own * freedom + pool.variance * pool.freedom) / (freedom + pool.freedom)
        freedom += pool.freedom
    over_sides = Test(1 - PAIRS, math.sqrt(2 * own / n), freedom)
    return tuple(test for test in (over_pairs, over_sides) if test.error > 0)


def _compare_spreads(
    base: Sequence[float], head: Sequence[float], pool: EarlierSpread | None
) -> tuple[tuple[float, float], float]:
    """The standard deviations of both sides, that of base with those of earlier commits, and the p-value of Fisher's
    F, two-sided."""
    before, after, freedom = statistics.variance(base), statistics.variance(head), float(len(base) - 1)
    if pool is not None and _f_tail(before, freedom, pool.variance, pool.freedom) >= UNLIKE:
        before = (before * freedom + pool.variance * pool.freedom) / (freedom + pool.freedom)
        freedom += pool.freedom
    own = len(head) - 1
    tails = (_f_tail(after, own, before, freedom), _f_tail(before, freedom, after, own))
    return (math.sqrt(before), math.sqrt(after)), min(1.0, 2 * min(tails))


def _p_value(mean: float, tests: Sequence[Test], two_sided: bool) -> float:
    """Of all tests together, in the direction of the difference: the smallest, each over its share."""
    from scipy.special import stdtr

    tails = [float(stdtr(test.freedom, -abs(mean) / test.error)) / test.share for test in tests]
    return min(1.0, min(tails) * (2 if two_sided else 1))


def _towards(number: Number, sign: int) -> float:
    """The p-value for a difference of that sign."""
    assert number.p is not None
    if number.higher_is_better is None or number.difference * sign > 0:
        return number.p
    return 1.0


def _verdict(number: Number, alpha: float) -> dict[str, Any]:
    if number.identical or number._equal:
        return {"verdict": "same"}
    if number.low is None or number.high is None:
        return {"verdict": "undecided"}
    edge = number.smallest * (1 - 1e-9)  # a difference of just one point is one in spite of its rounding
    certain = number.low == number.high and number.p is None  # the same difference on every seed
    if abs(number.difference) >= max(edge, 5e-324) and (
        certain or (number.adjusted is not None and number.adjusted < alpha)
    ):
        if number.higher_is_better is None:
            return {"verdict": "changed"}
        return {"verdict": "better" if (number.difference > 0) is number.higher_is_better else "worse"}
    if number.smallest > 0:
        if -number.smallest <= number.low and number.high <= number.smallest:
            return {"verdict": "same"}
        excluded = number.low >= -number.smallest if number.higher_is_better else number.high <= number.smallest
        if number.higher_is_better is not None and excluded:
            return {"verdict": "not worse"}
    return {"verdict": "undecided"}


def _quantile(tail: float, freedom: float) -> float:
    """What Student's t exceeds with the chance ``tail``."""
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return -float(stdtrit(freedom, tail))


def _f_tail(first: float, freedom: float, second: float, other_freedom: float) -> float:
    """The p-value of Fisher's F for the first of two variances being the larger one."""
    from scipy.special import fdtrc

    if second <= 0:
        return 0.0 if first > 0 else 1.0
    return float(fdtrc(freedom, other_freedom, first / second))


def _shift(border: float, freedom: float) -> float:
    """By how many standard errors a mean must differ for its t to exceed ``border`` with ``POWER``."""
    from scipy.special import nctdtrinc

    return float(nctdtrinc(freedom, 1 - POWER, border))
