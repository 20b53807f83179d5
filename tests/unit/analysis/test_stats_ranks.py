"""Average ranks, Friedman and Nemenyi: against Demšar's example, his table of quantiles, scipy and scikit-posthocs."""

from __future__ import annotations

import numpy as np
import pytest
from scikit_posthocs import posthoc_nemenyi_friedman
from scipy import stats as reference

from bench.analysis.stats import critical_difference, rank_methods

# Demšar (2006), JMLR 7, table 6: AUC of four variants of C4.5 on 14 data sets. He ranks two values that are printed
# as 0.975 second and third: the 0.97501.
NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
AUC = [
    (0.763, 0.768, 0.771, 0.798),
    (0.599, 0.591, 0.590, 0.569),
    (0.954, 0.971, 0.968, 0.967),
    (0.628, 0.661, 0.654, 0.657),
    (0.882, 0.888, 0.886, 0.898),
    (0.936, 0.931, 0.916, 0.931),
    (0.661, 0.668, 0.609, 0.685),
    (0.583, 0.583, 0.563, 0.625),
    (0.775, 0.838, 0.866, 0.875),
    (1.000, 1.000, 1.000, 1.000),
    (0.940, 0.962, 0.965, 0.962),
    (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.97501, 0.975),
    (0.957, 0.978, 0.946, 0.970),
]


def scores(table: object = AUC, names: tuple[str, ...] = NAMES) -> dict[str, dict[str, float]]:
    columns = np.asarray(table, dtype=float).T
    return {
        name: {f"t{place:02d}": v for place, v in enumerate(column)}
        for name, column in zip(names, columns, strict=True)
    }


def test_ranks_and_friedmans_test_are_demsars() -> None:
    """Ranks 3.143, 2.000, 2.893, 1.964 and 9.28, which he gives without the correction for ties."""
    found = rank_methods(scores())
    assert found.ranks == pytest.approx(dict(zip(NAMES, (3.143, 2.0, 2.893, 1.964), strict=True)), abs=5e-4)
    assert list(found.ranks) == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]
    ties = sum(float((n**3 - n).sum()) for n in (np.unique(row, return_counts=True)[1] for row in AUC))
    assert found.chi_square is not None
    assert found.chi_square * (1 - ties / (14 * 4 * 15)) == pytest.approx(9.28, abs=0.01)
    assert found.p == pytest.approx(float(reference.chi2.sf(found.chi_square, 3)))


def test_critical_difference_is_demsars() -> None:
    """2.569 sqrt(4 * 5 / (6 * 14)) = 1.25."""
    found = rank_methods(scores())
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    assert found.groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)  # "not powerful enough to detect any"


@pytest.mark.parametrize(
    ("alpha", "quantiles"),
    [
        (0.05, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.10, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_quantiles_are_those_of_demsars_table_5(alpha: float, quantiles: list[float]) -> None:
    found = [critical_difference(k, 6, alpha) * 6 / (k * (k + 1)) ** 0.5 for k in range(2, 11)]
    assert found == pytest.approx(quantiles, abs=1.5e-3)


def test_nemenyis_p_is_scikit_posthocs() -> None:
    table = posthoc_nemenyi_friedman(np.asarray(AUC))
    found = rank_methods(scores()).nemenyi
    assert len(found) == 6
    for (first, second), p in found.items():
        assert p == pytest.approx(table.loc[NAMES.index(first), NAMES.index(second)], abs=1e-9)


def test_methods_closer_than_the_critical_difference_share_a_group() -> None:
    """On twenty tasks with the same order the ranks are 1 to 5, and the difference 2.728 sqrt(30 / 120) = 1.364."""
    found = rank_methods(scores([(0.9, 0.8, 0.7, 0.6, 0.5)] * 20, tuple("abcde")))
    assert found.critical_difference == pytest.approx(1.364, abs=0.001)
    assert found.groups == (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"))
    assert found.chi_square == pytest.approx(20 * 4)  # N (k - 1): the largest there is
    far = rank_methods(scores([(0.9, 0.8)] * 20, ("a", "b")))
    assert far.groups == ()


def test_equal_methods_share_their_rank_and_do_not_differ() -> None:
    found = rank_methods(scores([(0.5, 0.5, 0.5)] * 4, ("c", "a", "b")))
    assert found.ranks == {"a": 2.0, "b": 2.0, "c": 2.0}
    assert (found.chi_square, found.p) == (0.0, 1.0)
    assert set(found.nemenyi.values()) == {1.0}
    assert found.groups == (("a", "b", "c"),)


def test_two_methods_have_ranks_and_no_friedman() -> None:
    found = rank_methods(scores([(0.5, 0.6), (0.7, 0.6), (0.5, 0.9)], ("a", "b")))
    assert found.ranks == pytest.approx({"b": 4 / 3, "a": 5 / 3})
    assert found.chi_square is found.p is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a": {"x": 0.1, "y": 0.2}}, "two methods and two tasks, not 1 and 2"),
        ({"a": {"x": 0.1}, "b": {"x": 0.2}}, "not 2 and 1"),
        ({"a": {"x": 0.1, "y": 0.2}, "b": {"x": 0.2}}, "b has none on y"),
        ({"a": {"x": 0.1, "y": 0.2}, "b": {"x": 0.2, "y": float("nan")}}, "finite"),
    ],
)
def test_ranks_of_an_incomplete_table_are_refused(table: dict[str, dict[str, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_methods(table)


def test_tests_that_no_ranks_could_make_reject_say_so() -> None:
    """The best of two tasks and three methods: chi-square 4 with 2 degrees of freedom, p = 0.135."""
    apart = {name: {"a": value, "b": value} for name, value in (("x", 0.9), ("y", 0.5), ("z", 0.1))}
    found = rank_methods(apart)
    assert found.p == pytest.approx(0.135, abs=0.001)
    assert (found.friedman_can_reject, found.nemenyi_can_reject) == (False, False)
    many = rank_methods(scores())
    assert (many.friedman_can_reject, many.nemenyi_can_reject) == (True, True)
