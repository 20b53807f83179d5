"""Two sides of numbers: for every task, method and metric whether the second is better, worse or the same.

Only what is comparable is compared: the same task, teacher, budget, stated options, selection rules and seeds. Trials
are paired by seed. Scores and speeds decide; agreement, image metrics and counts inform, and never make a regression.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.analysis.regression.cells import (
    Cell,
    OpenQuestion,
    Renamed,
    align,
    cells_of,
    changed_options,
    conditions_of,
    differences,
    labels_of,
    numbers_of,
    questions_of,
)
from bench.analysis.regression.effects import TIME, Effect, metric_named, smallest_effect
from bench.analysis.regression.filing import Filed
from bench.analysis.regression.looks import look_alpha, look_level, looks_between
from bench.analysis.regression.speed import compare_speed
from bench.analysis.regression.verdicts import (
    ALPHA,
    EarlierSpread,
    Family,
    Missing,
    Number,
    Verdict,
    decide,
    explained,
    paired_number,
)
from bench.records import Record
from bench.records.comparable import teacher_weights
from bench.spec.metric_names import Metric
from bench.utils.text import cut

Outcome = Literal["regression", "undecided", "no regression"]


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
    """Everything that a comparison of two sides says."""

    base: Filed
    head: Filed
    numbers: tuple[Number, ...]
    failed: tuple[Turn, ...]  # ok in base, failed in head
    fixed: tuple[Turn, ...]
    missing: tuple[Missing, ...]
    questions: tuple[OpenQuestion, ...]
    notes: tuple[str, ...]
    alpha: float = ALPHA  # of the whole comparison
    looks: tuple[int, ...] = ()  # of a comparison that was planned with several: seeds on each side

    @property
    def each_alpha(self) -> float:
        """Of one look at scores and other numbers: all looks together have ``alpha``."""
        return look_alpha(self.alpha, self.looks)

    @property
    def level(self) -> float:
        """Of the intervals of scores and other numbers."""
        return look_level(self.looks)

    def with_verdict(self, *verdicts: Verdict, family: Family | None = None) -> list[Number]:
        return [
            number
            for number in self.numbers
            if number.verdict in verdicts and (family is None or number.family == family)
        ]

    @property
    def outcome(self) -> Outcome:
        """``no regression`` only where it is shown: every score was compared, each loss that matters is excluded."""
        worse = self.with_verdict("worse", family="score") + self.with_verdict("worse", family="speed")
        if self.failed or worse:
            return "regression"
        families = {number.family for number in self.numbers}
        deciding: Family = "score" if "score" in families or "speed" not in families else "speed"
        unknown = self.with_verdict("undecided", family=deciding) or any(each.decides for each in self.missing)
        return "undecided" if unknown or self.questions or deciding not in families else "no regression"


def compare(
    base: Filed,
    head: Filed,
    alpha: float = ALPHA,
    own: Mapping[str, Effect] | None = None,
    only: Sequence[str] | None = None,
    earlier: Sequence[Filed] = (),
    renamed: Renamed | None = None,
    rule: str | None = None,
    in_turn: tuple[Sequence[Number], Sequence[Missing]] | None = None,
) -> Comparison:
    """Compare two sides.

    Args:
        base, head: earlier and later.
        alpha: the chance that any score of two sides that differ in nothing is called worse; as much for better.
        own: smallest effects by metric, in place of the suite's.
        only: the numbers to compare, which decide then; by default every one with a smallest effect, and scores decide.
        earlier: further commits; how much seeds differ there is used where it is as much as on both sides.
        renamed: older names of methods and options, and their names in ``head``.
        rule: the selection rule of the scores; by default the study's first.
        in_turn: speeds of both sides that were measured in turn, in place of those that are filed.
    """
    looks = looks_between(base, head)
    level = look_level(looks)
    before, after = align([cells_of(base.records, renamed), cells_of(head.records, renamed)])
    labels = labels_of({**before, **after})
    further: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for side in earlier:
        for cell in cells_of(side.records, renamed).values():
            further[_alike(cell)].append(cell)
    numbers: list[Number] = []
    failed: list[Turn] = []
    fixed: list[Turn] = []
    missing = list(_unmatched(before, after, labels))
    seen: set[tuple[str, ...]] = set()  # a trial may be in several cells
    for key in [key for key in before if key in after]:
        a, b, label = before[key], after[key], labels[key]
        trials = tuple(record.id for side in (a, b) for record in side.records.values())
        if trials in seen:
            continue
        seen.add(trials)
        options = changed_options(a, b)
        turns = len(failed)
        for seed in sorted(a.records.keys() | b.records.keys()):
            _look_at_seed(a, b, label, seed, failed, fixed, missing)
        if _teachers(a) and _teachers(b) and _teachers(a) != _teachers(b):
            missing.append(Missing(a.task, label, "all numbers", "the teacher's weights differ", decides=True))
            continue
        pairs = {seed: (a.ok[seed], b.ok[seed]) for seed in a.ok if seed in b.ok}
        if pairs:
            same = _same_bits(base, head, pairs)
            pools = _pools(a, b, further, own or {}, rule)
            numbers += _numbers(a.task, label, pairs, same, own or {}, only, missing, rule, pools, options, level)
        elif len(failed) == turns and not _unsupported(a, b):
            missing.append(Missing(a.task, label, "all numbers", "no seed ended well on both sides", decides=True))
    timed = in_turn is None and (not only or TIME.name in only)
    speeds, lacking, notes = compare_speed(base.runs if timed else (), head.runs if timed else (), own or {})
    if in_turn is not None:
        speeds, lacking = list(in_turn[0]), list(in_turn[1])
    each = look_alpha(alpha, looks)
    decided = (*explained(decide(numbers, each), each), *explained(decide(speeds, alpha), alpha))
    everything_missing = (*missing, *lacking)
    all_notes = (*_notes(base, head), *_spreads(numbers), *notes)
    questions = tuple(questions_of(before, after))
    return Comparison(
        base, head, decided, tuple(failed), tuple(fixed), everything_missing, questions, all_notes, alpha, looks
    )


def _alike(cell: Cell) -> tuple[str, ...]:
    """What cells share whose seeds may be taken to differ alike: all options, and the teacher's weights."""
    return (cell.resolved, *sorted(_teachers(cell)))


def _pools(
    a: Cell, b: Cell, earlier: Mapping[tuple[str, ...], Sequence[Cell]], own: Mapping[str, Effect], rule: str | None
) -> Mapping[str, EarlierSpread]:
    """By number, how much its seeds differ within earlier commits; the same numbers again are one draw."""
    known, further = _values([a, b], own, rule), _values([*earlier[_alike(a)], *earlier[_alike(b)]], own, rule)
    pools = {}
    for name, values in further.items():
        draws = sorted(draw for draw in values - known.get(name, set()) if len(draw) > 1)
        if freedom := sum(len(draw) - 1 for draw in draws):
            squares = sum(statistics.variance(draw) * (len(draw) - 1) for draw in draws)
            pools[name] = EarlierSpread(squares / freedom, freedom)
    return pools


def _values(cells: Iterable[Cell], own: Mapping[str, Effect], rule: str | None) -> dict[str, set[tuple[float, ...]]]:
    """The draws of each number: its values over seeds, in their order."""
    found: dict[str, set[tuple[float, ...]]] = defaultdict(set)
    for cell in cells:
        draw: dict[str, list[float]] = defaultdict(list)
        for record in cell.ok.values():
            for name, value in numbers_of(record, own, rule).items():
                draw[name].append(value)
        for name, values in draw.items():
            found[name].add(tuple(values))
    return found


def _numbers(
    task: str,
    label: str,
    pairs: Mapping[int, tuple[Record, Record]],
    same_bits: bool | None,
    own: Mapping[str, Effect],
    only: Sequence[str] | None,
    missing: list[Missing],
    rule: str | None,
    pools: Mapping[str, EarlierSpread],
    options: str,
    level: float,
) -> Iterator[Number]:
    """Every number that both records of a seed have, over the seeds; what one side lacks goes to ``missing``."""
    sides = {seed: (numbers_of(a, own, rule), numbers_of(b, own, rule)) for seed, (a, b) in pairs.items()}
    score = next(iter(pairs.values()))[0].metric
    for name in dict.fromkeys([score, *(name for a, b in sides.values() for name in (*a, *b))]):
        metric, effect = metric_named(name), smallest_effect(name, own)
        assert metric is not None
        assert effect is not None
        if only and name not in only:
            continue
        family: Family = "score" if (name in only if only else name == score) else "other"
        both = {seed for seed, (a, b) in sides.items() if name in a and name in b}
        lacking = [seed for seed, (a, b) in sides.items() if (name in a) != (name in b)]
        if lacking:
            side = "base" if name not in sides[lacking[0]][0] else "head"
            why = f"{side} does not have it for {_seeds(lacking)}"
            missing.append(Missing(task, label, name, why, decides=family == "score"))
        elif not both:
            why = f"neither side has it{f' by the rule {rule}' if rule else ''}"
            missing.append(Missing(task, label, name, why, decides=family == "score"))
        for seed in sorted(both):
            a, b = (conditions_of(record, name) for record in pairs[seed])
            if a != b:
                why = f"measured on {a} in base, on {b} in head"
                missing.append(Missing(task, label, name, why, decides=family == "score"))
                both.clear()
                break
        if both:
            first: dict[Hashable, float] = {seed: sides[seed][0][name] for seed in sorted(both)}
            second: dict[Hashable, float] = {seed: sides[seed][1][name] for seed in sorted(both)}
            yield paired_number(
                (task, label, name),
                _undirected(metric),
                effect,
                first,
                second,
                same_bits,
                family,
                pools.get(name),
                options,
                level,
            )


def _undirected(metric: Metric) -> Metric:
    """More images, passes or seconds of a trial are other costs, and no loss: speed is measured by itself."""
    return replace(metric, higher_is_better=None) if metric.kind == "cost" else metric


def _unsupported(a: Cell, b: Cell) -> bool:
    return all(record.status == "unsupported" for side in (a, b) for record in side.records.values())


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
    only_before = {key: cell for key, cell in before.items() if key not in after}
    only_after = {key: cell for key, cell in after.items() if key not in before}
    for key, cell in only_before.items():
        twins = [o for o in only_after.values() if (o.task, o.method) == (cell.task, cell.method)]
        differing = f": {'; '.join(differences(cell, twin) for twin in twins)}" if twins else ""
        yield Missing(cell.task, labels[key], "all numbers", f"not in head{differing}", decides=True)
    for key, cell in only_after.items():
        yield Missing(cell.task, labels[key], "all numbers", "not in base", decides=True)


def _teachers(cell: Cell) -> set[str]:
    return {teacher_weights(record) for record in cell.ok.values() if record.teacher}


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


def _spreads(numbers: Iterable[Number]) -> Iterator[str]:
    """Scores whose seeds differ by clearly more or less than in base: another kind of change than a loss."""
    for number in numbers:
        if number.family == "score" and number.spreads is not None and number.unlike < UNLIKE_SPREADS:
            before, after = (
                f"{100 * spread:.2g}" if number.unit == "share" else f"{spread:.3g}" for spread in number.spreads
            )
            word = "more" if number.spreads[1] > number.spreads[0] else "less"
            yield (
                f"{number.metric} of {number.method} on {number.task} differs {word} from seed to seed in head: "
                f"standard deviation {before} -> {after}{' points' if number.unit == 'share' else ''} "
                f"(p = {number.unlike:.2g})."
            )


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _words(status: str) -> str:
    return status.replace("_", " ")


UNLIKE_SPREADS = 0.01  # p-value of Fisher's F, two-sided
_NOT_RUN = ("unsupported", "missing_data")
