"""Several looks at one comparison: seeds are added as long as a score is undecided.

Who looks several times, and stops when he likes what he sees, is wrong more often than he says. So the looks are
planned before the first of them, and each has an equal share of alpha and of what the interval leaves out: alpha
spending (Lan and DeMets, 1983, Biometrika 70) by the union bound. It holds whatever the looks have to do with each
other, for Student's t as for any test, for scores that stop at different looks, and for every other number that is
looked at with them. With K looks and m scores, a false alarm needs a p-value below alpha / (K m) at one of K m places.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.regression.filing import Filed
from bench.analysis.regression.verdicts import LEVEL, SEEDS
from bench.errors import UserError


def planned_looks(first: int, most: int) -> tuple[int, ...]:
    """The numbers of seeds at which a comparison is looked at: doubled from look to look, the last is ``most``.

    >>> planned_looks(5, 20), planned_looks(5, 12), planned_looks(1, 3)
    ((5, 10, 20), (5, 10, 12), (3,))

    Args:
        first: the seeds of the study; a test needs at least 3.
        most: the bound.

    Raises:
        UserError: the bound is below the first look.
    """
    count = max(first, SEEDS)
    if most < count:
        why = f"the study has {first}" if first >= SEEDS else f"a test needs {SEEDS}"
        raise UserError(f"--max-seeds must be at least {count} ({why}), not {most}")
    looks = [count]
    while looks[-1] < most:
        looks.append(min(2 * looks[-1], most))
    return tuple(looks)


def looks_between(base: Filed, head: Filed) -> tuple[int, ...]:
    """What was planned for two commits, whichever is the later; empty where one look is all."""
    if base.commit is None or head.commit is None:
        return ()
    return tuple(head.looks.get(base.commit.sha) or base.looks.get(head.commit.sha) or ())


def look_alpha(alpha: float, looks: Sequence[int]) -> float:
    """The share of one look."""
    return alpha / max(1, len(looks))


def look_level(looks: Sequence[int]) -> float:
    """Of the intervals of one look: all of them hold together with the chance ``LEVEL``."""
    return 1 - (1 - LEVEL) / max(1, len(looks))
