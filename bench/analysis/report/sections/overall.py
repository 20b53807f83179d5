"""All tasks at once: which methods were run on the same tasks, and how they compare over them.

Methods are compared only where they are complete: on the same tasks, each with all of its seeds. A method that lacks a
task is left out with the reason, since a mean over other tasks is another number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.analysis.report.sections.groups import BASELINES, NEEDS, Group, Row, tables_of
from bench.analysis.stats import (
    Interval,
    Profile,
    Ranking,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    rank_methods,
)
from bench.records.comparable import AGREEMENTS

THRESHOLDS = tuple(step / 50 for step in range(51))  # of the profile: normalised scores from noise (0) to kd (1)
TITLE = "All tasks together"


@dataclass(frozen=True)
class TaskSet:
    """Methods with the same need of real data that are complete on the same tasks, of each of which one budget."""

    need: str
    groups: tuple[Group, ...]  # in the order of their tasks' names
    rows: dict[str, tuple[Row, ...]]  # of each method, in the order of the groups
    left_out: dict[str, str]  # the other methods with that need: why

    @property
    def name(self) -> str:
        """A file name: the need and the number of tasks, which tells a report's blocks apart."""
        return f"overall-{self.need}-{len(self.groups)}"

    @cached_property
    def normalised(self) -> dict[str, dict[str, list[float]]]:
        """method -> task -> the normalised score of every seed; noise and kd are taken as they are."""
        return {
            method: {
                group.key.task: [_place(group, record.scores[record.headline]) for record in row.ok]
                for group, row in zip(self.groups, rows, strict=True)
            }
            for method, rows in self.rows.items()
        }

    @cached_property
    def means(self) -> dict[str, Interval]:
        """The interquartile mean of the normalised score of every method, the best first."""
        found = {method: interquartile_mean(runs) for method, runs in self.normalised.items()}
        return dict(sorted(found.items(), key=lambda each: (-each[1].value, each[0])))

    @cached_property
    def ranking(self) -> Ranking:
        """The average ranks of the methods over the tasks, by the mean score over seeds."""
        return rank_methods(
            {
                method: {g.key.task: row.score[0] for g, row in zip(self.groups, rows, strict=True) if row.score}
                for method, rows in self.rows.items()
            }
        )

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """The performance profile of every method, the best first."""
        return {method: performance_profile(self.normalised[method], THRESHOLDS) for method in self.means}

    @cached_property
    def beaten(self) -> dict[str, Interval]:
        """How likely a run of the first method is better than one of each other, on a task drawn at random."""
        first, *others = self.means
        return {other: probability_of_improvement(self.normalised[first], self.normalised[other]) for other in others}


def task_sets(groups: Sequence[Group]) -> list[TaskSet]:
    """For every need of real data the blocks of methods and tasks that are worth a comparison: none, one or two.

    One is that of all tasks; the other, where it is not the same, has the most cells (methods times tasks) among the
    sets of tasks on which some method is complete. Of a task with several budgets that group counts in which most
    methods are complete.
    """
    return [block for need in NEEDS for block in _blocks(groups, need)]


def _blocks(groups: Sequence[Group], need: str) -> list[TaskSet]:
    chosen: dict[str, tuple[Group, dict[str, Row]]] = {}
    for group in groups:
        if group.key.metric in AGREEMENTS:  # no scores of labels: never in one ranking with those
            continue
        rows = _complete(group, need)
        if rows and len(rows) > len(chosen.get(group.key.task, (group, {}))[1]):
            chosen[group.key.task] = (group, rows)
    tasks_of = {
        method: frozenset(task for task, (_, rows) in chosen.items() if method in rows)
        for method in sorted({method for _, rows in chosen.values() for method in rows})
    }
    candidates = {frozenset(chosen), *tasks_of.values()}
    found = [(tasks, [m for m, has in tasks_of.items() if has >= tasks]) for tasks in candidates if len(tasks) > 1]
    found = [(tasks, methods) for tasks, methods in found if len(methods) > 1]
    if not found:
        return []
    widest = max(found, key=lambda each: (len(each[0]) * len(each[1]), len(each[0]), sorted(each[0])))
    everywhere = [each for each in found if each[0] == frozenset(chosen) and each is not widest]
    return [_block(groups, need, chosen, *each) for each in (*everywhere, widest)]


def _block(
    groups: Sequence[Group],
    need: str,
    chosen: Mapping[str, tuple[Group, dict[str, Row]]],
    tasks: frozenset[str],
    methods: Sequence[str],
) -> TaskSet:
    names = sorted(tasks)
    known = {row.method for g in groups for row in (*g.rows, *g.left_out) if row.data == need}
    return TaskSet(
        need,
        tuple(chosen[task][0] for task in names),
        {method: tuple(chosen[task][1][method] for task in names) for method in methods},
        {
            method: "; ".join(_lacks(chosen[task][0], method) for task in names if method not in chosen[task][1])
            for method in sorted(known - set(methods) - set(BASELINES))
        },
    )


def _complete(group: Group, need: str) -> dict[str, Row]:
    """The one row of each method that has one, if all of its seeds went well; none where scores are not normalised."""
    rows = [row for table in tables_of(group) if table.need == need for _, row in table.ranked]
    alone = [row for row in rows if sum(other.method == row.method for other in rows) == 1]
    return {
        row.method: row
        for row in alone
        if row.method not in BASELINES and len(row.ok) == len(row.records) and group.normalised(row) is not None
    }


def _lacks(group: Group, method: str) -> str:
    task = group.key.task
    if any(row.method == method for row in group.left_out):
        return f"unsupported on {task}"
    rows = [row for row in group.rows if row.method == method]
    if len(rows) > 1:
        return f"several settings on {task}"
    return f"a failed seed on {task}" if rows else f"not run on {task}"


def _place(group: Group, score: float) -> float:
    assert group.floor is not None
    assert group.ceiling is not None  # else the group is in no block
    return (score - group.floor) / (group.ceiling - group.floor)
