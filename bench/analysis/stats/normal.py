"""Where a score stands between the floor and the ceiling of its task."""

from __future__ import annotations

CLEARLY = 0.01  # scores are shares: a kd less than one point above noise is lost in the spread of the seeds


def normalised(score: float, noise: float, kd: float) -> float | None:
    """Where a score stands between ``noise`` (0) and ``kd`` (1); outside both it is below 0 or above 1.

    None where kd is not clearly above noise: by less than ``CLEARLY``, one percentage point, the quotient would
    say more about the seeds than about the method.

    >>> normalised(0.75, noise=0.5, kd=1.0)
    0.5
    """
    gap = kd - noise
    if not gap >= CLEARLY:
        return None
    return (score - noise) / gap
