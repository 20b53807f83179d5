"""What every statistic asks of its input."""

from __future__ import annotations

import math
from collections.abc import Iterable


def check_finite(values: Iterable[float], what: str) -> None:
    """
    Raises:
        ValueError: a value is NaN or infinite.
    """
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"{what} needs finite values only")


def check_level(level: float) -> None:
    """
    Raises:
        ValueError: a confidence that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"the level must be between 0 and 1, not {level}")
