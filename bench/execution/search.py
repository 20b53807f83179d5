"""Searching the ranges of a study with optuna: every suggestion is an ordinary trial, chosen without a test image.

What is made as large as can be is the student's agreement with the teacher on held-out synthetic images, at the point
that the study's headline rule scores. Choosing options by the test score would be the oracle's way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.execution.run_study import TrialResult
from bench.spec.grid import Range, axis_of, is_whole, settled
from bench.spec.method_card import MethodCard
from bench.spec.options import value_words
from bench.spec.study import LoadedStudy

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

RULE = "teacher_agreement"  # without it no image is held out
CELLS = 32  # suggestions, unless the study's sample or the user says how many


@dataclass(frozen=True)
class Space:
    """What is searched: one method on one task, with the options as the study has them."""

    task: str
    method: str
    options: Mapping[str, Any]  # fixed ones
    ranges: Mapping[str, Range]
    lists: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Suggestion:
    """One suggestion, and what became of it."""

    options: Mapping[str, Any]  # those that were suggested
    agreement: float  # mean over seeds, 0 to 1, on held-out synthetic images; 0 where a seed failed
    outcomes: tuple[TrialResult, ...] = field(repr=False)  # a trial each seed

    @property
    def score(self) -> float | None:
        """Mean test score over seeds; the search does not look at it. None where a seed failed."""
        records = [outcome.record for outcome in self.outcomes]
        return fmean(r.scores[r.headline] for r in records) if all(r.status == "ok" for r in records) else None

    @property
    def words(self) -> str:
        return ", ".join(f"{name}={value_words(value)}" for name, value in self.options.items())


Run = Callable[[LoadedStudy], Sequence[TrialResult]]  # of a study narrowed to one cell: a trial for each seed
Curves = Callable[[Sequence[str]], Mapping[str, Sequence[Mapping[str, Any]]]]  # of trials, by their ids


def check_optuna() -> None:
    """
    Raises:
        UserError: optuna is not installed.
    """
    if find_spec("optuna") is None:
        raise UserError("a search needs optuna, which is not installed: pip install 'dfkd-bench[search]'")


def spaces_of(loaded: LoadedStudy) -> list[Space]:
    """A space for each task and each entry that has a range.

    Raises:
        UserError: no entry has a range, two search the same method, or the study holds no images out.
    """
    entries = [(name, options) for name, options in loaded.written if _ranges(options)]
    if not entries:
        raise UserError("nothing to search: no option of the study has a range, such as {from: 1, to: 20}")
    names = [name for name, _ in entries]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{twice} has ranges in two entries; a search accepts one per method")
    if RULE not in loaded.study.selection:
        raise UserError(f"a search chooses by images that are held out for the rule {RULE}; add it to `selection`")
    return [_space(task, loaded.cards[name], options) for task in loaded.tasks for name, options in entries]


def fixed(loaded: LoadedStudy) -> LoadedStudy:
    """The study without what is searched: the entries that have no range, such as the baselines."""
    named = {name for name, _ in loaded.written}
    kept = [(name, options) for name, options in loaded.written if not _ranges(options)]
    return replace(loaded, entries=(*kept, *(entry for entry in loaded.entries if entry[0] not in named)))


def search(loaded: LoadedStudy, space: Space, cells: int, seed: int, run: Run, curves: Curves) -> Iterable[Suggestion]:
    """Suggest cells one after the other, by a tree-structured Parzen estimator (Bergstra et al. 2011), and run each.

    The same seed suggests the same cells as long as trials give the same results, so a restarted search
    finds the records of its trials and continues. Nothing is pruned: every trial has the study's whole budget.

    Args:
        loaded: the study.
        space: one of its own.
        cells: how many are suggested. One may come twice; it is run once.
        seed: of the suggestions.
        run: runs what has no record yet.
        curves: reads curves.

    Raises:
        UserError: optuna is missing, or a method trains with no batch of which images could be held out.
    """
    check_optuna()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    card = loaded.cards[space.method]
    specs = {spec.name: spec for spec in card.specs}
    distributions = _distributions(space, card)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for _ in range(cells):
        trial = study.ask(distributions)
        suggested: dict[str, Any] = {
            name: settled(specs[name], given, trial.params[name]) for name, given in space.ranges.items()
        } | {name: values[trial.params[name]] for name, values in space.lists.items()}
        one = replace(loaded, tasks=(space.task,), entries=((space.method, {**space.options, **suggested}),))
        outcomes = tuple(run(one))
        cell = Suggestion(suggested, _agreement(outcomes, curves, loaded.study.selection[0]), outcomes)
        study.tell(trial, cell.agreement)
        yield cell


def best_first(cells: Iterable[Suggestion]) -> list[Suggestion]:
    """Every different cell once, by its agreement; equal ones in the order of their suggestion."""
    unique = {tuple(outcome.trial.id for outcome in cell.outcomes): cell for cell in cells}
    return sorted(unique.values(), key=lambda cell: -cell.agreement)


def _ranges(options: Mapping[str, Any]) -> dict[str, Range]:
    return {name: Range.model_validate(value) for name, value in options.items() if isinstance(value, Mapping)}


def _space(task: str, card: MethodCard, options: Mapping[str, Any]) -> Space:
    specs = {spec.name: spec for spec in card.specs}
    ranges = _ranges(options)
    lists = {
        name: axis
        for name, value in options.items()
        if name not in ranges and (axis := axis_of(specs[name].is_sequence, value)) is not None
    }
    rest = {name: value for name, value in options.items() if name not in ranges and name not in lists}
    return Space(task, card.name, rest, ranges, lists)


def _distributions(space: Space, card: MethodCard) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    specs = {spec.name: spec for spec in card.specs}
    found: dict[str, BaseDistribution] = {}
    for name, given in space.ranges.items():
        log = given.scale == "log"
        if is_whole(specs[name]):
            found[name] = IntDistribution(int(given.low), int(given.high), log=log)
        else:
            found[name] = FloatDistribution(float(given.low), float(given.high), log=log)
    for name, values in space.lists.items():
        found[name] = CategoricalDistribution(list(range(len(values))))
    return found


def _agreement(outcomes: Sequence[TrialResult], curves: Curves, headline: str) -> float:
    """The mean over seeds; a failure of one makes the cell the worst that can be."""
    if any(outcome.record.status != "ok" for outcome in outcomes):
        return 0.0
    found = curves([outcome.trial.id for outcome in outcomes])
    values = []
    for outcome in outcomes:
        along = [math.nan if (v := p["held_out_agreement"]) is None else v for p in found[outcome.trial.id]]
        known = [value for value in along if not math.isnan(value)]
        if not known:
            raise UserError(f"no images were held out in trial {outcome.trial.id} ({outcome.trial.label}): no search")
        values.append(max(known) if headline == RULE else known[-1])
    return fmean(values)
