"""How long a trial will take, as far as anything tells: finished trials like it, or else its budget."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

from bench.records import Record
from bench.spec.method import Access
from bench.spec.method_registry import card_of
from bench.spec.task import get_task
from bench.spec.trial import Trial

Likeness = tuple[str, ...]
# Methods that go back through the teacher train a generator with it: in the published studies of the digits, the zoo
# and CIFAR-10 they take 2 to 4 times as long under the same budget of images.
SLOWER = 3.0
_BACKWARD = (Access.GRADIENTS, Access.FEATURES, Access.BATCH_NORM)


class Durations:
    """Wall-clock seconds of finished trials, by how much a trial is like them."""

    def __init__(self) -> None:
        self._seconds: dict[Likeness, list[float]] = defaultdict(list)

    def add(self, label: str, record: Record) -> None:
        """Note a finished trial; those that did not end well tell nothing."""
        if record.status == "ok":
            trial = record.trial
            seconds = record.meter.seconds + record.meter.evaluation_seconds
            for likeness in _likenesses(trial.task, trial.method, label):
                self._seconds[likeness].append(seconds)

    def expected(self, task: str, method: str, label: str) -> float | None:
        """Seconds of a trial with this label, or else of this method on this task, of this method, or of any trial;
        None where none has finished."""
        known = (self._seconds.get(likeness) for likeness in _likenesses(task, method, label))
        return next((statistics.fmean(found) for found in known if found), None)

    def __bool__(self) -> bool:
        return bool(self._seconds)


def _likenesses(task: str, method: str, label: str) -> Iterable[Likeness]:
    yield "label", task, method, label
    yield "method on task", task, method
    yield "method", method
    yield ("any",)


def long_first(trials: Sequence[Trial], known: Durations) -> list[Trial]:
    """The trials in an order in which none that is long begins last; of equals, the study's."""
    return sorted(trials, key=lambda trial: -_weight(trial, known))


def _weight(trial: Trial, known: Durations) -> float:
    """Seconds where finished trials or the budget tell; else in units that compare trials of one study."""
    found = known.expected(trial.task, trial.method, trial.label)
    if found is not None:
        return found
    if "seconds" in trial.budget:
        return trial.budget["seconds"]
    pixels = get_task(trial.task).image.size ** 2
    unit, limit = next(iter(trial.budget.items()))
    return limit if unit == "gmacs" else limit * pixels * (SLOWER if card_of(trial).access in _BACKWARD else 1.0)


def time_limit(trials: Sequence[Trial], at_once: int) -> float:
    """Seconds that a task may take, with room for loading and evaluation; 0 where no budget tells."""
    each = [trial.budget.get("seconds") or trial.timeout or 0.0 for trial in trials]
    return 600.0 + 1.5 * max(sum(each) / at_once, *each) if all(each) else 0.0
