"""Paired tests and Holm's correction: against Fisher's analysis of Darwin's plants, closed forms and statsmodels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference
from statsmodels.stats.multitest import multipletests

from bench.analysis.stats import Paired, compare_all, holm, mean_interval, paired_test
from bench.analysis.stats.pairs import Test

# Fisher (1935), The Design of Experiments, chapter 3: crossed less self-fertilised plants, eighths of an inch.
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
scores = st.floats(min_value=0, max_value=1)


def paired(differences: Sequence[float], test: Test = "t") -> Paired:
    seeds = range(len(differences))
    return paired_test(dict(zip(seeds, differences, strict=True)), dict.fromkeys(seeds, 0.0), test)


def test_paired_t_of_darwins_plants_is_fishers() -> None:
    """A mean of 20.93, t = 2.148 with 14 degrees of freedom, just significant at 5 %."""
    found = paired(DARWIN)
    assert found.difference == pytest.approx(20.93, abs=0.005)
    assert found.effect is not None
    assert found.effect * math.sqrt(15) == pytest.approx(2.148, abs=0.0005)
    assert found.p == pytest.approx(0.0497, abs=0.00005)
    assert (found.low, found.high) == pytest.approx((0.03119, 41.8355), abs=1e-4)


def test_sign_flips_of_darwins_plants_are_fishers_count() -> None:
    """In 863 of the 32,768 combinations of signs the sum is as large as 314 or larger; twice that for both sides."""
    assert paired(DARWIN, "permutation").p == pytest.approx(2 * 863 / 2**15, abs=1e-12)


@pytest.mark.parametrize("test", ["wilcoxon", "permutation"])
@pytest.mark.parametrize("count", [3, 5, 8])
def test_the_smallest_p_of_a_rank_test_is_a_power_of_two(test: Test, count: int) -> None:
    assert paired([0.01 * (place + 1) for place in range(count)], test).p == pytest.approx(2 / 2**count)


@given(st.lists(st.tuples(scores, scores), min_size=3, max_size=12))
def test_paired_t_is_scipys(pairs: list[tuple[float, float]]) -> None:
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    if np.std(a - b) < 1e-6:
        return
    found = paired_test(dict(enumerate(a)), dict(enumerate(b)))
    assert found.p == pytest.approx(float(reference.ttest_rel(a, b).pvalue), rel=1e-6, abs=1e-12)
    mean, half = mean_interval(list(a - b))
    assert half is not None
    assert (found.difference, found.high) == pytest.approx((mean, mean + half), abs=1e-12)


@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=8))
def test_turning_a_pair_round_turns_only_the_sign(pairs: list[tuple[float, float]]) -> None:
    a, b = (dict(enumerate(side)) for side in zip(*pairs, strict=True))
    there, back = paired_test(a, b), paired_test(b, a)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.p is None) == (back.p is None)
    if there.p is not None:
        assert there.p == pytest.approx(back.p)


def test_only_common_seeds_are_compared() -> None:
    found = paired_test({0: 0.9, 1: 0.8, 7: 0.1}, {0: 0.7, 1: 0.7, 2: 1.0})
    assert (found.pairs, found.difference) == (2, pytest.approx(0.15))
    with pytest.raises(ValueError, match="needs a common seed"):
        paired_test({0: 0.9}, {1: 0.9})


def test_what_cannot_be_tested_says_why() -> None:
    one = paired([0.1])
    assert (one.low, one.p, one.effect, one.how) == (None, None, None, "one common seed: no interval and no test")
    same = paired_test({0: 0.1, 1: 0.3, 2: 0.7}, {0: 0.1, 1: 0.3, 2: 0.7})
    assert (same.p, same.effect, same.how) == (1.0, None, "no difference on any seed")
    shifted = paired_test({0: 0.1, 1: 0.3, 2: 0.7}, {0: 0.0, 1: 0.2, 2: 0.6})  # equal but for rounding
    assert (shifted.p, shifted.effect) == (None, None)
    assert "same difference" in shifted.how


def test_holms_correction_by_hand() -> None:
    """Four tests: the smallest p times 4, the next times 3, and none smaller than the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.2])


@pytest.mark.parametrize("count", [1, 6, 40])
def test_holms_correction_is_statsmodels(count: int) -> None:
    p_values = list(np.random.default_rng(count).random(count).round(2) ** 3)  # some equal
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_all_pairs_are_corrected_together() -> None:
    random = np.random.default_rng(0)
    table = {name: dict(enumerate(random.normal(mean, 0.01, 5))) for name, mean in [("a", 0.9), ("b", 0.8), ("c", 0.8)]}
    found = compare_all(table)
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    p_values = [each.p for each in found.values() if each.p is not None]
    assert [each.adjusted for each in found.values()] == pytest.approx(holm(p_values))
    assert min(each.adjusted for each in found.values() if each.adjusted) == pytest.approx(3 * min(p_values))
    assert found["b", "c"].adjusted == found["b", "c"].p  # the largest is left as it is


def test_comparing_with_one_corrects_for_fewer() -> None:
    table: dict[str, dict[object, float]] = {
        "new": {0: 0.91, 1: 0.93, 2: 0.92},
        "old": {0: 0.80, 1: 0.84, 2: 0.81},
        "other": {0: 0.85, 1: 0.86, 2: 0.91},
        "elsewhere": {9: 0.5},
        "once": {0: 0.5},
    }
    found = compare_all(table, against="old")
    assert list(found) == [("new", "old"), ("other", "old"), ("once", "old")]  # no seed in common: not compared
    tested = [each for each in found.values() if each.p is not None]
    assert [each.adjusted for each in tested] == pytest.approx(holm([each.p for each in tested if each.p is not None]))
    assert found["once", "old"].adjusted is None
    with pytest.raises(ValueError, match="'young' is not one of new, old"):
        compare_all(table, against="young")
    with pytest.raises(ValueError, match="unknown paired test 'z'"):
        compare_all(table, test="z")  # type: ignore[arg-type]
