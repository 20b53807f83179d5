"""The values that a study gives an option: one, a list, or a range; a grid of them, or a sample of all at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from bench.errors import UserError, nearest
from bench.spec.method_card import MethodCard
from bench.spec.options import OptionSpec, alternatives, check_value
from bench.utils.yaml import Real, Strict, Whole, at_line, validate, where

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIGITS = 3  # significant digits of a value: readable ids, and the same ones on every machine


class Range(Strict):
    """``{from: 0.001, to: 0.1, count: 5, scale: log}`` instead of an option's value."""

    low: Real = Field(alias="from", description="the smallest value")
    high: Real = Field(alias="to", description="the largest value")
    count: Whole | None = Field(
        default=None,
        ge=2,
        le=10_000,
        description="number of values of a grid axis; a study's `sample` has its own count",
    )
    scale: Literal["linear", "log"] = Field(default="linear", description="equal steps, or equal factors")


class Sample(Strict):
    """Cells drawn from the ranges of an entry jointly, instead of their grid."""

    count: Whole = Field(ge=1, le=10_000, description="number of cells of each entry that has ranges")
    how: Literal["sobol", "random"] = Field(
        default="sobol", description="`sobol`: an evenly spread quasi-random sequence; `random`: independent draws"
    )
    seed: Whole = Field(default=0, ge=0, description="seed of the draws, independent of the trials' seeds")


Written = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [{"type": ["string", "number", "boolean", "null", "array"]}, Range.model_json_schema()],
            "description": "a value, a list of values (a grid axis), or a range",
        }
    ),
]


def axis_of(is_sequence: bool, value: Any) -> list[Any] | None:
    """The values of a grid axis, or None when the value is a single one."""
    if not isinstance(value, list | tuple):
        return None
    if is_sequence and not (value and isinstance(value[0], list | tuple)):
        return None
    return list(value)


def spell_out(
    card: MethodCard,
    options: Mapping[str, Any],
    sample: Sample | None,
    file: Path,
    data: Any,
    place: Sequence[str | int],
    searched: bool = False,
) -> list[Mapping[str, Any]]:
    """A study's entry without ranges: one entry with lists in their place, or one for each cell of a sample.

    Args:
        card: of the entry's method.
        options: as written.
        sample: of the study; an entry without a range has its grid all the same.
        file, data, place: where the entry is written, for error messages.
        searched: a search suggests the values of ranges, which need no count; an entry that has some stays out.

    Raises:
        UserError: an unknown option, a value that it does not allow, or a range that cannot be.
    """
    specs = {spec.name: spec for spec in card.specs}
    ranges: dict[str, Range] = {}
    for name, value in options.items():
        if name not in specs:
            here = where(file, data, [*place, name])
            raise UserError(f"{here}: {card.name} has no option {name!r}{nearest(name, specs)}")
        if isinstance(value, Mapping) and value:
            ranges[name] = _range(specs[name], sample, file, data, [*place, name], searched)
        else:
            at_line(file, data, [*place, name], lambda spec=specs[name], value=value: _check_listed(spec, value))  # type: ignore[misc]
    if not ranges:
        return [options]
    if searched:
        return []
    if sample is None:
        lists = {name: _grid_axis(specs[name], each) for name, each in ranges.items()}
        return [{name: lists.get(name, value) for name, value in options.items()}]
    return _drawn(specs, options, ranges, sample)


def is_whole(spec: OptionSpec) -> bool:
    """Whether the numbers that an option takes are whole ones."""
    kinds = alternatives(spec.type)
    return int in kinds and float not in kinds


def settled(spec: OptionSpec, given: Range, value: float) -> float:
    """A number of a range as a trial has it: rounded, and within the range.

    Values on a logarithmic scale have ``DIGITS`` significant digits; on a linear one the range's width has, so that
    100.25 stays what it is between 100 and 101.
    """
    if is_whole(spec):
        value = float(round(value))
    elif given.scale == "log":
        value = float(f"{value:.{DIGITS}g}")
    else:
        value = round(value, DIGITS - math.floor(math.log10(given.high - given.low))) + 0.0
    return min(max(value, given.low), given.high)


def draw(sample: Sample, dimensions: int) -> NDArray[np.float64]:
    """The points of a sample, (count, dimensions) in [0, 1); those of a smaller one are the first of a larger one.

    ``sobol`` is Sobol's sequence with Joe and Kuo's direction numbers, shifted at random modulo 1 (Cranley and
    Patterson 1976, SIAM J. Numer. Anal. 13), so that another seed gives other points.
    """
    import numpy as np

    random = np.random.default_rng(sample.seed)
    if sample.how == "random":
        return random.random((sample.count, dimensions))
    from scipy.stats import qmc  # takes a second to import

    points = qmc.Sobol(dimensions, scramble=False).random_base2(math.ceil(math.log2(sample.count)))
    return np.asarray((points[: sample.count] + random.random(dimensions)) % 1.0)


def _check_listed(spec: OptionSpec, value: Any) -> None:
    axis = axis_of(spec.is_sequence, value)
    if axis is not None and not axis:
        raise UserError(f"the grid of option {spec.name!r} is empty")
    cells = [check_value(spec, item) for item in (axis if axis is not None else [value])]
    if len(set(cells)) < len(cells):
        raise UserError(f"the grid of option {spec.name!r} repeats a value")


def _range(
    spec: OptionSpec, sample: Sample | None, file: Path, data: Any, place: Sequence[str | int], searched: bool
) -> Range:
    if not {int, float} & set(alternatives(spec.type)):
        raise UserError(
            f"{where(file, data, place)}: option {spec.name!r} is {spec.type_name} and takes no range; list its values"
        )
    found = validate(Range, data, file, at=place, of=f"the range of option {spec.name!r}")
    for key, bound in (("from", found.low), ("to", found.high)):
        at_line(file, data, [*place, key], lambda bound=bound: check_value(spec, bound))  # type: ignore[misc]
    if found.low >= found.high:
        here = where(file, data, [*place, "to"])
        raise UserError(f"{here}: `to` of option {spec.name!r} must be above its `from`, {found.low:g}")
    if found.scale == "log" and found.low <= 0:
        here = where(file, data, [*place, "from"])
        raise UserError(f"{here}: a log range starts above 0, not at {found.low:g}; use `scale: linear`")
    if sample is None and found.count is None and not searched:
        here = where(file, data, place)
        raise UserError(f"{here}: the range of option {spec.name!r} needs a `count`, or the study needs a `sample`")
    if sample is not None and found.count is not None:
        here = where(file, data, [*place, "count"])
        raise UserError(
            f"{here}: the study's `sample` already sets the number of values; leave out `count`, or list the values"
        )
    if found.count is not None:
        at_line(file, data, [*place, "count"], lambda: _grid_axis(spec, found))
    return found


def _grid_axis(spec: OptionSpec, given: Range) -> list[float]:
    """The values of a grid axis, from end to end."""
    count = given.count or 0
    between = [settled(spec, given, _between(given, share / (count - 1))) for share in range(1, count - 1)]
    values = [given.low, *between, given.high]
    if (different := len(set(values))) < count:
        raise UserError(f"option {spec.name!r} has only {different} different values in this range, not {count}")
    return values


def _drawn(
    specs: Mapping[str, OptionSpec], options: Mapping[str, Any], ranges: Mapping[str, Range], sample: Sample
) -> list[Mapping[str, Any]]:
    """The cells of a sample. Methods with options of the same names have the same points."""
    lists = {
        name: axis
        for name, value in options.items()
        if name not in ranges and (axis := axis_of(specs[name].is_sequence, value)) is not None
    }
    cells: list[Mapping[str, Any]] = []
    for point in draw(sample, len(ranges) + len(lists)):
        shares = dict(zip(sorted([*ranges, *lists]), map(float, point), strict=True))
        cell = dict(options)
        for name, given in ranges.items():
            around = 0.5 if is_whole(specs[name]) else 0.0  # the ends' share of the way is as wide as any other's
            cell[name] = settled(specs[name], given, _between(given, shares[name], around))
        for name, axis in lists.items():
            cell[name] = axis[int(shares[name] * len(axis))]
        cells.append(cell)
    return cells


def _between(given: Range, share: float, around: float = 0.0) -> float:
    """The number at a share, 0 to 1, of the way through a range that is ``around`` wider at both ends."""
    low, high = given.low - around, given.high + around
    return low * math.exp(share * math.log(high / low)) if given.scale == "log" else low + share * (high - low)
