"""Options: what a value may be, and what a user is told when it is not."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UserError
from bench.spec.options import OptionSpec, check_spec, check_value, check_values, option, specs_of, supported, type_name


def spec(kind: Any, default: Any = None, **facts: Any) -> OptionSpec:
    return OptionSpec(name="x", type=kind, default=default, **facts)


@dataclass(frozen=True)
class Options:
    batch: int = option(8, "images per step", unit="images", low=1)
    lr: float = option(0.1, "learning rate", above=0, high=1)
    kind: Literal["sgd", "adam"] = option("sgd", "optimiser")
    betas: tuple[float, ...] = option((0.5, 1.0), "scales", above=0)
    beta: float | None = option(None, "one scale", when={"kind": "adam"})
    plain: bool = False


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, 3, 3),
        (int, 1e3, 1000),
        (float, 2, 2.0),
        (float, -0.0, 0.0),
        (bool, True, True),
        (str, "a", "a"),
        (float | None, None, None),
        (float | None, 1, 1.0),
        (bool | int, 1, 1),
        (int | bool, True, True),
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 2], 2, 2),
        (tuple[float, ...], [1, 2.5], (1.0, 2.5)),
        (tuple[float, ...], 3, (3.0,)),
        (tuple[int | None, ...], [1, None], (1, None)),
        (tuple[str, ...] | None, "a", ("a",)),
    ],
)
def test_value_comes_back_in_the_options_own_type(kind: Any, value: Any, expected: Any) -> None:
    got = check_value(spec(kind), value)
    assert got == expected
    assert type(got) is type(expected)
    assert repr(got) == repr(expected)  # 0.0 and -0.0, 1 and 1.0 and True are distinguished


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, 1.5, "must be int, not 1.5"),
        (int, True, "must be int, not True"),
        (int, "3", "must be int, not '3'"),
        (int, None, "must be int, not None"),
        (float, False, "must be float, not False"),
        (float, "0.1", "must be float, not '0.1'"),
        (bool, 1, "must be bool, not 1"),
        (str, 1, "must be str, not 1"),
        (Literal[1, 2], True, "must be 1 | 2, not True"),
        (Literal["sgd", "adam"], "adm", "must be sgd | adam, not 'adm'; did you mean 'adam'?"),
        (tuple[float, ...], [], "must not be an empty list"),
        (tuple[float, ...], [1, "a"], "must be list of float"),
        (tuple[float, ...], [[1]], "must be list of float"),
        (float, [1.0], "must be float, not [1.0]"),
        (float, math.nan, "must be finite, not nan"),
        (float, math.inf, "must be finite, not inf"),
        (float, 10**400, "must be finite, not 1000"),
        (int, 10**400, "must be finite, not 1000"),
        (tuple[float, ...], [1, math.inf], "must be finite"),
    ],
)
def test_other_values_are_refused_with_what_is_allowed(kind: Any, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=r"^option 'x' ") as error:
        check_value(spec(kind), value)
    assert message in str(error.value)
    assert len(str(error.value)) < 120


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "message"),
    [
        ({"above": 0}, 1e-300, 0, "must be above 0, not 0"),
        ({"low": 2}, 2, 1, "must be at least 2, not 1"),
        ({"high": 0.99}, 0.99, 1, "must be at most 0.99, not 1"),
    ],
)
def test_limits_hold_for_numbers_and_for_each_item_of_a_list(
    limits: dict[str, float], inside: float, outside: float, message: str
) -> None:
    for kind in (float, float | None, tuple[float, ...]):
        check_value(spec(kind, **limits), inside)
        with pytest.raises(UserError, match=message):
            check_value(spec(kind, **limits), outside)
    with pytest.raises(UserError, match=message):
        check_value(spec(tuple[float, ...], **limits), [inside, outside])
    check_value(spec(bool, **limits), False)  # a limit is for numbers, and a bool is none


SCALARS = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=3), st.none()
)


@given(
    kind=st.sampled_from([int, float, bool, str, float | None, int | str, tuple[float, ...], tuple[str, ...] | None]),
    value=SCALARS | st.lists(SCALARS, max_size=3),
)
def test_a_checked_value_is_checked_to_itself(kind: Any, value: Any) -> None:
    try:
        once = check_value(spec(kind), value)
    except UserError:
        return
    assert repr(check_value(spec(kind), once)) == repr(once)
    hash(once)  # values are put into sets, to find repetitions


def test_specs_are_what_the_dataclass_says() -> None:
    batch, lr, kind, betas, beta, plain = specs_of(Options)
    assert batch == OptionSpec("batch", int, 8, "images per step", "images", low=1)
    assert (lr.above, lr.high, lr.type_name) == (0, 1, "float")
    assert [each.is_sequence for each in (batch, lr, kind, betas, beta)] == [False, False, False, True, False]
    assert beta.when == {"kind": "adam"}
    assert (plain.default, plain.doc) == (False, "")
    for each in specs_of(Options):
        check_spec(each, specs_of(Options))


def test_options_must_be_a_frozen_dataclass_with_fixed_defaults() -> None:
    class NoDataclass:
        x: int = 1

    @dataclass
    class Thawed:
        x: int = 1

    @dataclass(frozen=True)
    class NoDefault:
        x: int

    @dataclass(frozen=True)
    class Made:
        x: tuple[int, ...] = dataclasses.field(default_factory=tuple)

    for options in (NoDataclass, Thawed):
        with pytest.raises(UserError, match="must be a frozen dataclass"):
            specs_of(options)
    for options in (NoDefault, Made):
        with pytest.raises(UserError, match=f"option 'x' of {options.__name__} has no fixed default"):
            specs_of(options)


def test_metadata_of_others_is_no_matter() -> None:
    @dataclass(frozen=True)
    class Annotated:
        x: int = dataclasses.field(default=1, metadata={"help": "theirs", "doc": "ours"})

    assert specs_of(Annotated) == (OptionSpec("x", int, 1, "ours"),)


@pytest.mark.parametrize("default", [[1], {"a": 1}, {1}])
def test_a_default_that_can_change_is_refused(default: Any) -> None:
    with pytest.raises(UserError, match="use a tuple"):
        option(default, "x")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (spec(list[float], 1.0), "the type 'list' is not supported"),
        (spec(tuple[float, float], (1.0, 1.0)), "is not supported"),
        (spec(tuple, ()), "is not supported"),
        (spec(tuple[tuple[int, ...], ...], ((1,),)), "is not supported"),
        (spec(float | dict, 1.0), "is not supported"),
        (spec(Any, 1.0), "is not supported"),
        (spec(float, -1.0, above=0), "must be above 0, not -1.0"),
        (spec(float, "a"), "must be float"),
        (spec(int, None), "must be int, not None"),
        (spec(int, 1, low="a"), "a limit must be a number, not 'a'"),
        (spec(int, 1, high=True), "a limit must be a number, not True"),
        (spec(int, 1, doc=3), "must be text"),
        (spec(int, 1, when="kind"), "`when`"),
        (spec(int, 1, when={"y": 1}), "has no option 'y'"),
        (spec(int, 1, when={"x": "a"}), "must be int, not 'a'"),
    ],
)
def test_a_wrong_declaration_is_refused(wrong: OptionSpec, message: str) -> None:
    with pytest.raises(UserError, match="option 'x'") as error:
        check_spec(wrong, [wrong])
    assert message in str(error.value)


def test_supported_types_are_those_that_a_study_can_write() -> None:
    assert all(
        map(supported, (int, float, bool, str, type(None), Literal["a"], tuple[int, ...], tuple[int | None, ...]))
    )
    assert not any(map(supported, (bytes, complex, list, tuple, dict[str, int], tuple[int, int], object)))


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^method 'm' has no option 'bach'; did you mean 'batch'\?$"):
        check_values(specs_of(Options), {"lr": 0.1, "bach": 1}, "method 'm'")
    assert check_values(specs_of(Options), {"batch": 4.0, "betas": [1]}, "m") == {"batch": 4, "betas": (1.0,)}
    with pytest.raises(UserError, match="has no option 3"):
        check_values(specs_of(Options), {3: 1}, "m")  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (int, "int"),
        (float | None, "float or none"),
        (typing.Optional[int], "int or none"),  # noqa: UP045 - the other way of writing it
        (Literal["a", 2], "a | 2"),
        (tuple[float | None, ...], "list of float or none"),
    ],
)
def test_types_are_written_for_users(kind: Any, name: str) -> None:
    assert type_name(kind) == name
