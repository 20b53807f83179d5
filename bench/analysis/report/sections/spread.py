"""What stands in brackets after a mean over seeds, and the line that explains it under a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.analysis.stats import Interval


def share_words(found: Interval, values: Sequence[float]) -> str:
    """A mean share and what there is to say of its spread, in percent.

    Args:
        found: the mean and its interval.
        values: of which it is the mean, one per seed.
    """
    mean = f"{100 * found.value:.1f}"
    if len(values) == 1:
        return f"{mean} (one seed)"
    if len(values) == 2:
        return f"{mean} ({100 * values[0]:.1f}, {100 * values[1]:.1f})"
    if found.low is None or found.high is None:
        return f"{mean} ({len(values)} equal)"
    return f"{mean} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def spread_note(counts: Iterable[int]) -> str:
    """What stands in the brackets of a table whose rows have so many seeds; empty where all have one at most."""
    present = set(counts)
    said = ["two numbers with a comma are the scores of two seeds"] if 2 in present else []
    if any(count > 2 for count in present):
        said.append("two with 'to' between them are the 95 % interval of the mean over seeds, on these test images")
    return f"In brackets: {'; '.join(said)}." if said else ""
