"""Budget and Meter: what a trial may spend, and what it did spend."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UserError
from bench.records import MeterReading
from bench.spec.budget import UNITS, Budget, Meter

WHOLE = ("steps", "teacher_images", "student_images")
LIMITS = st.dictionaries(st.sampled_from(sorted(UNITS)), st.integers(1, 10**9), min_size=1)
COUNTS = st.integers(0, 10**10)


@st.composite
def meters(draw: st.DrawFn) -> Meter:
    return Meter(
        seconds=draw(st.floats(0, 1e9)),
        steps=draw(COUNTS),
        teacher_images=draw(COUNTS),
        student_images=draw(COUNTS),
        macs=draw(st.integers(0, 10**18)),
    )


@given(limits=LIMITS, meter=meters())
def test_progress_is_the_largest_share_and_its_unit(limits: dict[str, int], meter: Meter) -> None:
    shares = {unit: getattr(meter, unit) / limit for unit, limit in limits.items()}
    spent, unit = Budget.parse(limits).progress(meter)
    assert spent == max(shares.values()) == shares[unit]


@given(limits=LIMITS, meter=meters(), more=meters())
def test_progress_never_falls_as_the_meter_rises(limits: dict[str, int], meter: Meter, more: Meter) -> None:
    budget = Budget.parse(limits)
    later = Meter(**{f.name: getattr(meter, f.name) + getattr(more, f.name) for f in dataclasses.fields(Meter)})
    assert budget.progress(meter)[0] <= budget.progress(later)[0]


@given(limits=LIMITS)
def test_used_up_means_one_exactly(limits: dict[str, int]) -> None:
    for unit, limit in limits.items():
        meter = Meter(macs=limit * 10**9) if unit == "gmacs" else Meter(**{unit: limit})  # type: ignore[arg-type]
        assert Budget.parse(limits).progress(meter) == (1.0, unit)


@given(limits=LIMITS)
def test_limits_are_those_that_were_set_in_their_own_types(limits: dict[str, int]) -> None:
    budget = Budget.parse(limits)
    assert budget.limits() == limits
    assert Budget.parse(budget.limits()) == budget
    for unit, limit in budget.limits().items():
        assert type(limit) is (int if unit in WHOLE else float)


def test_one_budget_however_it_is_written() -> None:
    assert Budget.parse({"steps": 4e4, "seconds": 20}) == Budget.parse({"seconds": 20.0, "steps": 40_000})


@pytest.mark.parametrize("unit", sorted(UNITS))
@pytest.mark.parametrize("limit", [0, -1, -0.5, math.nan, math.inf, -math.inf, True, False, None, "20", [20], 10**400])
def test_a_limit_is_a_positive_number(unit: str, limit: Any) -> None:
    with pytest.raises(UserError, match=f"budget '{unit}' must be a positive number, not ") as error:
        Budget.parse({unit: limit})
    assert len(str(error.value)) < 120


@pytest.mark.parametrize("unit", WHOLE)
def test_things_that_are_counted_have_whole_limits(unit: str) -> None:
    with pytest.raises(UserError, match=f"budget '{unit}' must be a whole number, not 2.5"):
        Budget.parse({unit: 2.5})


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "a budget needs at least one limit: seconds, steps, teacher_images, student_images, gmacs"),
        ({"second": 1}, "unknown budget 'second'; did you mean 'seconds'?"),
        ({3: 1}, "unknown budget 3; allowed:"),
    ],
)
def test_a_budget_has_known_units(limits: Mapping[Any, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        Budget.parse(limits)
    assert message in str(error.value)


@given(limits=LIMITS)
def test_a_method_that_never_asks_the_teacher_is_held_to_as_many_images(limits: dict[str, int]) -> None:
    budget = Budget.parse(limits)
    blind = budget.for_blind_method()
    if budget.teacher_images is None:
        assert blind == budget
        return
    assert blind.student_images == min(budget.teacher_images, limits.get("student_images", budget.teacher_images))
    meter = Meter(student_images=budget.teacher_images)
    assert blind.progress(meter)[0] >= 1.0
    assert {**blind.limits(), "student_images": 0} == {**budget.limits(), "student_images": 0}


def test_every_unit_is_counted_by_the_meter() -> None:
    assert [unit for unit in UNITS if hasattr(Meter(), unit)] == list(UNITS)
    assert {field.name for field in dataclasses.fields(Budget) if field.init} == set(UNITS)


def test_a_meter_has_every_field_of_a_record() -> None:
    reading = Meter(seconds=2.5, steps=3, macs=4_500_000_000, real_images=7).as_record()
    assert reading.keys() == MeterReading.model_fields.keys()
    assert MeterReading.model_validate(reading).gmacs == 4.5
