"""More seeds for what is undecided between two commits, look by look, up to a bound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.analysis.regression.checkouts import run_filed
from bench.analysis.regression.compare import Comparison, compare
from bench.analysis.regression.effects import Effect
from bench.analysis.regression.filing import LABEL, filed_place, label, looks_of, open_earlier, read_filed
from bench.analysis.regression.filing import tracked_commits as filed_commits
from bench.analysis.regression.looks import planned_looks
from bench.errors import UserError
from bench.records import read_beside
from bench.utils.git import Commit, line_of, resolve, worktree
from bench.utils.stopping import listening

Open = Mapping[str, Sequence[str]]  # task -> methods that need more seeds


@dataclass(frozen=True)
class StudyCells:
    """What of a study is needed here: its seeds and its cells, and how it is narrowed to some of them.

    ``narrowed`` takes a task, methods and seeds, and returns the study of those as it is written; it raises UserError
    where the task cannot be taken out.
    """

    file: Path
    seeds: tuple[int, ...]
    cells: Open
    narrowed: Callable[[str, Sequence[str], Sequence[int]], Mapping[str, Any]]


@dataclass(frozen=True)
class PlannedLooks:
    """What is compared, and when it is looked at."""

    study: StudyCells
    base: Commit
    head: Commit
    seeds: tuple[int, ...]  # as many as the last look has; the study's first
    looks: tuple[int, ...]


def plan_looks(root: Path, tracked: Path, study: StudyCells, against: str | None, most: int) -> PlannedLooks:
    """PlannedLooks the looks at HEAD against an earlier commit.

    Args:
        root: the checkout.
        tracked: where commits are filed.
        study: the study.
        against: a name of the earlier commit; by default the latest tracked one on the line that leads to HEAD.
        most: the bound of the seeds.

    Raises:
        UserError: there is no such commit, it is HEAD, the study cannot be narrowed to one of its tasks, or other looks
            at these two commits were planned before.
    """
    head = resolve(root, "HEAD")
    base = resolve(root, against) if against is not None else _latest(root, tracked, head)
    if base.sha == head.sha:
        raise UserError(f"--against {against} is the current commit {head.short}; name an earlier one")
    looks = planned_looks(len(study.seeds), most)
    for task, methods in study.cells.items():
        study.narrowed(task, methods, study.seeds)
    place = filed_place(tracked / head.sha)
    before = looks_of(read_beside(place, LABEL), place / LABEL).get(base.sha) if place else None
    if before is not None and before != looks:
        said = ", ".join(map(str, before))
        raise UserError(
            f"looks at {said} seeds were planned for {head.short} against {base.short}, and their levels chosen for "
            f"them; continue with --max-seeds {before[-1]}"
        )
    seeds, further = list(study.seeds), 0
    while len(seeds) < looks[-1]:
        seeds += [further] if further not in seeds else []
        further += 1
    return PlannedLooks(study, base, head, tuple(seeds), looks)


def until_decided(
    root: Path,
    tracked: Path,
    plan: PlannedLooks,
    own: Mapping[str, Effect] | None = None,
    extra: tuple[str, ...] = (),
    told: Callable[[int, Comparison], None] = lambda count, found: None,  # noqa: ARG005
) -> Comparison:
    """Run what is undecided with more seeds, at both commits, each in a checkout of its own.

    The plan is filed with HEAD before the first look, so that every later comparison of the two has its levels.

    Args:
        root: the checkout; it is not touched.
        tracked: where commits are filed.
        plan: from ``plan_looks``.
        own: smallest effects by metric, in place of the suite's.
        extra: further options of `dfkd run`.
        told: of every look: the number of seeds, and what is said then.

    Raises:
        UserError: the study cannot be run at one of the commits.
        Stopped: a signal came; what ran is saved, and the same call continues.
    """
    inside = plan.study.file.resolve().parent
    place = inside.relative_to(root.resolve()) if inside.is_relative_to(root.resolve()) else Path()
    cells, found = plan.study.cells, None
    with listening(), worktree(root, plan.base.sha) as before, worktree(root, plan.head.sha) as after:
        for count in plan.looks:
            seeds = plan.seeds[:count]
            for folder, here in ((before, plan.base), (after, plan.head)):
                cells = _run(folder, here, plan.study, cells, seeds, place, tracked, extra)
            label(tracked / plan.head.sha, plan.head, {plan.base.sha: plan.looks})
            found = _compared(root, tracked, plan, own)
            told(count, found)
            cells = open_cells(found, cells)
            if not cells:
                break
    assert found is not None
    return found


def open_cells(found: Comparison, cells: Open) -> Open:
    """Those whose score is undecided for want of seeds."""
    wanting = {
        (number.task, number.method.partition(" (")[0])  # as ``labels_of`` tells cells of one method apart
        for number in found.numbers
        if number.family == "score" and number.verdict == "undecided"
    }
    left = {task: [name for name in methods if (task, name) in wanting] for task, methods in cells.items()}
    return {task: methods for task, methods in left.items() if methods}


def _run(
    folder: Path,
    here: Commit,
    study: StudyCells,
    cells: Open,
    seeds: Sequence[int],
    place: Path,
    tracked: Path,
    extra: tuple[str, ...],
) -> Open:
    """Run the cells at one commit; those that it can run. A method that is not there yet leaves the others alone."""
    able: dict[str, list[str]] = defaultdict(list)
    reason = ""
    for task, methods in cells.items():
        for group in (methods, *([name] for name in methods if len(methods) > 1)):
            narrowed = study.narrowed(task, group, seeds)
            records, ran = run_filed(folder, here, narrowed, place, tracked / here.sha, extra)
            if records:
                able[task] += group
                if group is methods:
                    break
            elif ran is not None:
                reason = ran.reason
    if not able:
        raise UserError(f"{study.file} cannot be run at {here.short} ({here.subject}): {reason}")
    return dict(able)


def _compared(root: Path, tracked: Path, plan: PlannedLooks, own: Mapping[str, Effect] | None) -> Comparison:
    sides = []
    for here in (plan.base, plan.head):
        place = filed_place(tracked / here.sha)
        assert place is not None
        sides.append(read_filed(here.sha, place, here))
    base, head = sides
    return compare(base, head, own=own, earlier=open_earlier(head, root, tracked))


def _latest(root: Path, tracked: Path, head: Commit) -> Commit:
    filed = filed_commits(tracked)
    earlier = [commit for commit in line_of(root, head.sha)[:-1] if commit.sha in filed]
    if not earlier:
        raise UserError(f"no earlier commit is stored in {tracked}; name the one to compare with: --against COMMIT")
    return earlier[-1]
