"""What a trial may spend (Budget) and what it really spent (Meter).

The harness counts; a method never reports its own cost. The first limit that is used up ends the trial.
"""

from __future__ import annotations

import dataclasses
import reprlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import UserError, nearest
from bench.spec.options import WHOLE

UNITS = {
    "seconds": "wall-clock seconds inside the method; the clock stops during evaluation and checkpointing",
    "steps": "passes through the method's own loops",
    "teacher_images": "images passed forward through the teacher",
    "student_images": "images passed forward through the student",
    "gmacs": "10^9 multiply-adds of teacher, student and registered networks, forward and backward",
}


_WORDS = {
    "seconds": "{:g} seconds",
    "steps": "{:,} steps",
    "teacher_images": "{:,} teacher images",
    "student_images": "{:,} student images",
    "gmacs": "{:g} GMACs",
}


def in_words(limits: Mapping[Any, float]) -> str:
    """A budget for a reader.

    >>> in_words({"teacher_images": 40000})
    '40,000 teacher images'
    """
    return ", ".join(form.format(limits[unit]) for unit, form in _WORDS.items() if unit in limits)


@dataclass(frozen=True)
class Budget:
    """Limits of one trial; ``None`` is no limit. At least one is set."""

    seconds: float | None = None
    steps: int | None = None
    teacher_images: int | None = None
    student_images: int | None = None
    gmacs: float | None = None

    @classmethod
    def parse(cls, limits: Mapping[str, Any]) -> Budget:
        """Build from a study's mapping.

        Raises:
            UserError: an unknown unit, no limit at all, or a limit that is not a positive number.
        """
        for unit, limit in limits.items():
            if unit not in UNITS:
                raise UserError(f"unknown budget {unit!r}{nearest(str(unit), UNITS)}")
            number = isinstance(limit, int | float) and not isinstance(limit, bool)
            if not number or not 0 < limit <= sys.float_info.max:  # NaN and infinity are not
                raise UserError(f"budget {unit!r} must be a positive number, not {reprlib.repr(limit)}")
            if unit in ("steps", "teacher_images", "student_images") and limit != int(limit):
                raise UserError(f"budget {unit!r} must be a whole number, not {limit!r}")
            if unit in ("steps", "teacher_images", "student_images") and limit >= WHOLE:
                raise UserError(f"budget {unit!r} must be below {WHOLE:g}, not {limit:g}")
        if not limits:
            raise UserError(f"a budget needs at least one limit: {', '.join(UNITS)}")
        numbers: dict[str, Any] = {
            unit: float(limit) if unit in ("seconds", "gmacs") else int(limit) for unit, limit in limits.items()
        }
        return cls(**numbers)

    def limits(self) -> dict[str, float]:
        """The limits that are set."""
        return {unit: getattr(self, unit) for unit in UNITS if getattr(self, unit) is not None}

    def progress(self, meter: Meter) -> tuple[float, str]:
        """The share of the budget that is spent (1 or more: used up), and the unit that is closest to its end."""
        best, which = 0.0, ""
        for unit, limit in self._set:
            used = getattr(meter, unit) / limit
            if used >= best:
                best, which = used, unit
        return best, which

    def for_blind_method(self) -> Budget:
        """The budget of a method that never asks the teacher.

        A limit in teacher images would never end it, so the same number limits its student images: what is held equal
        is the number of images.
        """
        if self.teacher_images is None:
            return self
        images = min(self.teacher_images, self.student_images or self.teacher_images)
        return dataclasses.replace(self, student_images=images)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_set", tuple(self.limits().items()))  # looked at in every step

    _set: tuple[tuple[str, float], ...] = dataclasses.field(init=False, repr=False, compare=False, default=())


@dataclass
class TeacherUse:
    """What a trial has asked of one teacher, its trainable copies included; a part of the meter."""

    images: int = 0
    backward: int = 0
    macs: int = 0

    def add(self, images: int = 0, backward: int = 0, macs: int = 0) -> None:
        self.images += images
        self.backward += backward
        self.macs += macs

    def as_record(self) -> dict[str, float]:
        """The fields of a record's ``ensemble.teachers``."""
        return {"images": self.images, "backward": self.backward, "gmacs": self.macs / 1e9}


def restore_uses(uses: Iterable[TeacherUse], saved: Iterable[Mapping[str, int]]) -> None:
    """Put the counts of all teachers back, as ``vars`` gave them, in place."""
    for use, values in zip(uses, saved, strict=False):  # a checkpoint from before they were counted has none
        for name, value in values.items():
            setattr(use, name, int(value))


@dataclass
class Meter:
    """What a trial has spent so far. Images are counted one by one, forward and backward apart."""

    seconds: float = 0.0
    steps: int = 0
    optimizer_steps: int = 0
    teacher_images: int = 0
    teacher_backward: int = 0
    student_images: int = 0
    student_backward: int = 0
    synthesised_images: int = 0
    real_images: int = 0
    macs: int = 0
    evaluation_seconds: float = 0.0
    peak_memory_mib: float = 0.0

    @property
    def gmacs(self) -> float:
        return self.macs / 1e9

    def as_record(self) -> dict[str, float]:
        """The fields of a record's ``meter``."""
        values = dataclasses.asdict(self)
        del values["macs"]
        return values | {"gmacs": self.gmacs}
