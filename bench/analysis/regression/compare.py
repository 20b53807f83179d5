"""Two sides of numbers: for every task, method and metric whether the second is better, worse or the same.

Only what is comparable is compared: the same task, teacher, budget, options, selection rules and seeds. Trials are
paired by seed; the test is Student's t over the differences, corrected by Holm for all tests of the comparison.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.regression.cells import Cell, cells_of, conditions_of, differences, labels_of, numbers_of
from bench.analysis.regression.effects import TIME, Effect, metric_named, smallest_effect
from bench.analysis.regression.filing import Filed
from bench.analysis.regression.speed import compare_speed
from bench.analysis.regression.verdicts import ALPHA, Missing, Number, Verdict, decide, paired_number
from bench.records import Record
from bench.utils.text import cut


@dataclass(frozen=True)
class Turn:
    """A trial that ended well on one side only: ``reason`` is that of the side where it did not."""

    task: str
    method: str
    seed: int
    before: str
    after: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """All that is to be said of two sides."""

    base: Filed
    head: Filed
    numbers: tuple[Number, ...]
    failed: tuple[Turn, ...]  # ok in base, failed in head
    fixed: tuple[Turn, ...]
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]
    alpha: float = ALPHA

    def with_verdict(self, *verdicts: Verdict) -> list[Number]:
        return [number for number in self.numbers if number.verdict in verdicts]

    @property
    def regressed(self) -> bool:
        return bool(self.failed or self.with_verdict("worse"))

    @property
    def incomplete(self) -> bool:
        """Whether something was not compared, or could not be decided."""
        return bool(self.missing or self.with_verdict("not enough data"))


def compare(
    base: Filed,
    head: Filed,
    alpha: float = ALPHA,
    own: Mapping[str, Effect] | None = None,
    only: Sequence[str] | None = None,
) -> Comparison:
    """Compare two sides.

    Args:
        base, head: earlier and later.
        alpha: the chance that any number of two sides that differ in nothing is called better, worse or changed.
        own: smallest effects by metric, in place of the suite's.
        only: the numbers to compare; by default all that have a smallest effect.
    """
    before, after = cells_of(base.records), cells_of(head.records)
    labels = labels_of([*after.values(), *before.values()])
    numbers: list[Number] = []
    failed: list[Turn] = []
    fixed: list[Turn] = []
    missing = list(_unmatched(before, after, labels))
    for key in [key for key in before if key in after]:
        a, b, label = before[key], after[key], labels[key]
        for seed in sorted(a.records.keys() | b.records.keys()):
            _look_at_seed(a, b, label, seed, failed, fixed, missing)
        if _teachers(a) and _teachers(b) and _teachers(a) != _teachers(b):
            missing.append(Missing(a.task, label, "all numbers", "the teacher's weights differ"))
            continue
        pairs = {seed: (a.ok[seed], b.ok[seed]) for seed in a.ok if seed in b.ok}
        if pairs:
            same = _same_bits(base, head, pairs)
            numbers += _numbers(a.task, label, pairs, same, own or {}, only, missing)
    timed = not only or TIME.name in only
    speeds, lacking, notes = compare_speed(base.runs if timed else (), head.runs if timed else (), own or {})
    decided = tuple(decide([*numbers, *speeds], alpha))
    everything_missing = (*missing, *lacking)
    all_notes = (*_notes(base, head), *notes)
    return Comparison(base, head, decided, tuple(failed), tuple(fixed), everything_missing, all_notes, alpha)


def _numbers(
    task: str,
    label: str,
    pairs: Mapping[int, tuple[Record, Record]],
    same_bits: bool | None,
    own: Mapping[str, Effect],
    only: Sequence[str] | None,
    missing: list[Missing],
) -> Iterator[Number]:
    """Every number that both records of a seed have, over the seeds; what one side lacks goes to ``missing``."""
    sides = {seed: (numbers_of(a, own), numbers_of(b, own)) for seed, (a, b) in pairs.items()}
    for name in dict.fromkeys(name for a, b in sides.values() for name in (*a, *b)):
        metric, effect = metric_named(name), smallest_effect(name, own)
        assert metric is not None
        assert effect is not None
        if only and name not in only:
            continue
        both = {seed for seed, (a, b) in sides.items() if name in a and name in b}
        if lacking := [seed for seed, (a, b) in sides.items() if (name in a) != (name in b)]:
            side = "base" if name not in sides[lacking[0]][0] else "head"
            missing.append(Missing(task, label, name, f"{side} does not have it for {_seeds(lacking)}"))
        for seed in sorted(both):
            a, b = (conditions_of(record, name) for record in pairs[seed])
            if a != b:
                missing.append(Missing(task, label, name, f"measured on {a} in base, on {b} in head"))
                both.clear()
                break
        if both:
            first: dict[Hashable, float] = {seed: sides[seed][0][name] for seed in sorted(both)}
            second: dict[Hashable, float] = {seed: sides[seed][1][name] for seed in sorted(both)}
            yield paired_number((task, label, name), metric, effect, first, second, same_bits)


def _look_at_seed(
    a: Cell, b: Cell, label: str, seed: int, failed: list[Turn], fixed: list[Turn], missing: list[Missing]
) -> None:
    """Sort out a seed that has not ended well on both sides."""
    first, second = a.records.get(seed), b.records.get(seed)
    if first is None or second is None:
        missing.append(Missing(a.task, label, f"seed {seed}", f"not in {'base' if first is None else 'head'}"))
    elif first.status == second.status and first.status in ("ok", "unsupported"):
        return
    elif not_run := [(side, each) for side, each in (("base", first), ("head", second)) if each.status in _NOT_RUN]:
        side, record = not_run[-1]
        missing.append(
            Missing(a.task, label, f"seed {seed}", f"{_words(record.status)} in {side}: {cut(record.reason)}")
        )
    elif first.status == "ok":
        failed.append(Turn(a.task, label, seed, first.status, second.status, cut(second.reason)))
    elif second.status == "ok":
        fixed.append(Turn(a.task, label, seed, first.status, second.status, cut(first.reason)))
    else:
        missing.append(Missing(a.task, label, f"seed {seed}", f"failed on both sides: {_words(second.status)}"))


def _unmatched(before: Mapping[str, Cell], after: Mapping[str, Cell], labels: Mapping[str, str]) -> Iterator[Missing]:
    """Cells that only one side has; where the other has a similar one, in what they differ."""
    only_before = [cell for key, cell in before.items() if key not in after]
    only_after = [cell for key, cell in after.items() if key not in before]
    for cell in only_before:
        twins = [other for other in only_after if (other.task, other.method) == (cell.task, cell.method)]
        differing = f": {'; '.join(differences(cell, twin) for twin in twins)}" if twins else ""
        yield Missing(cell.task, labels[cell.key], "all numbers", f"not in head{differing}")
    for cell in only_after:
        yield Missing(cell.task, labels[cell.key], "all numbers", "not in base")


def _teachers(cell: Cell) -> set[str]:
    return {record.teacher.sha256 for record in cell.ok.values() if record.teacher}


def _same_bits(base: Filed, head: Filed, pairs: Mapping[int, tuple[Record, Record]]) -> bool | None:
    """Whether all students are the same on both sides; None where that is not known of one."""
    bits = [(base.bits.get(a.id), head.bits.get(b.id)) for a, b in pairs.values()]
    if any(a is not None and b is not None and a != b for a, b in bits):
        return False
    return None if any(a is None or b is None for a, b in bits) else True


def _notes(base: Filed, head: Filed) -> Iterator[str]:
    """What else differs between the sides and can change a number."""
    for name, words in (("versions", "libraries"), ("device", "processors"), ("python", "Python")):
        a, b = ({str(record.provenance.get(name)) for record in side.records} for side in (base, head))
        if a and b and a != b:
            detail = f": {' / '.join(sorted(a))} and {' / '.join(sorted(b))}" if name != "versions" else ""
            yield f"The sides were run with different {words}{detail}; the same code need not give the same bits."


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _words(status: str) -> str:
    return status.replace("_", " ")


_NOT_RUN = ("unsupported", "missing_data")
