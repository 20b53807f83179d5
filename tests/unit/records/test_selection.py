"""Selection rules against hand-made curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.records.selection import DATA_FREE, RULES, choose
from bench.spec.study import Rule


def curve(*scores: float | None) -> list[dict[str, float | None]]:
    return [{"score": score, "score_ema": None if score is None else score / 2} for score in scores]


def test_last_and_ema_take_the_end_of_the_curve() -> None:
    points = curve(0.1, 0.9, 0.5)
    assert choose("last", points) == (2, 0.5)
    assert choose("ema", points) == (2, 0.25)


def test_oracle_takes_the_best_test_score_and_the_later_of_equals() -> None:
    assert choose("oracle", curve(0.1, 0.9, 0.5)) == (1, 0.9)
    assert choose("oracle", curve(0.9, 0.2, 0.9, 0.3)) == (2, 0.9)


def test_teacher_agreement_looks_at_held_out_images_only() -> None:
    points = curve(0.9, 0.2, 0.3, 0.1)
    assert choose("teacher_agreement", points, [0.1, 0.7, 0.7, 0.5]) == (2, 0.3)
    assert choose("teacher_agreement", points, [0.8, 0.7, 0.7, 0.5]) == (0, 0.9)


@pytest.mark.parametrize("held_out", [None, [], [math.nan, math.nan]])
def test_teacher_agreement_without_held_out_images_chooses_nothing(held_out: Sequence[float] | None) -> None:
    point, score = choose("teacher_agreement", curve(0.3, 0.4), held_out)
    assert (point, math.isnan(score)) == (1, True)


@pytest.mark.parametrize("bad", [None, math.nan])
def test_a_point_without_a_score_is_never_the_best(bad: float | None) -> None:
    assert choose("oracle", curve(bad, 0.9, bad, 0.5, bad)) == (1, 0.9)
    assert choose("teacher_agreement", curve(0.1, 0.2, 0.3), [math.nan, 0.5, 0.4]) == (1, 0.2)
    for rule in ("last", "ema", "oracle"):
        assert math.isnan(choose(rule, curve(bad))[1])
    assert math.isnan(choose("last", curve(0.5, bad))[1])


def test_one_point_is_every_rules_choice() -> None:
    for rule in RULES:
        assert choose(rule, curve(0.4), [0.9])[0] == 0


@given(scores=st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9]), min_size=1), data=st.data())
def test_the_choice_is_the_latest_of_the_highest(scores: list[float], data: st.DataObject) -> None:
    point, score = choose("oracle", curve(*scores))
    assert score == max(scores)
    assert max(scores[point + 1 :], default=0.0) < score
    held_out = data.draw(st.permutations(scores))
    point, score = choose("teacher_agreement", curve(*scores), held_out)
    assert held_out[point] == max(held_out)
    assert score == scores[point]


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match="no such selection rule: best"):
        choose("best", curve(0.1))
    with pytest.raises(ValueError, match="2 values to choose by, but 1 points"):
        choose("teacher_agreement", curve(0.1), [0.1, 0.2])


def test_only_the_oracle_peeks_and_a_study_knows_all_rules() -> None:
    assert set(RULES) - set(DATA_FREE) == {"oracle"}
    assert set(RULES) == set(Rule.__args__)  # type: ignore[attr-defined]
