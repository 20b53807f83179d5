"""A group's part of a report: the unit of work, of which several processes may do some each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.report.anytime import AnytimeOf
from bench.report.drawing import draw_group
from bench.report.groups import Group, read_groups
from bench.report.image_table import image_lines
from bench.report.page import section
from bench.report.tables import group_markdown
from bench.task import Published

SWEEPS = 30  # figures of what options change in a whole report: nobody looks at hundreds, and each takes a second
MANY = 5_000  # trials for which it pays to start processes
SPARING = 20_000  # trials for which pages show figures as they are in their files, and options in tables only


@dataclass(frozen=True)
class Part:
    """What a group adds to a report. It holds no records, so that it is quickly sent from process to process."""

    files: dict[str, bytes]  # the figures, by their path in the report
    measured: AnytimeOf
    images: str  # lines of the CSV of image metrics
    markdown: list[str]  # lines
    section: dict[str, object]  # of its task's page


@dataclass(frozen=True)
class _Work:
    """What is the same for all groups of a report."""

    results: Path
    colours: Mapping[str, str]
    sweeps: int
    sparing: bool
    own: Mapping[str, Published]


@contextmanager
def parts_of(
    groups: Sequence[Group],
    results: Path,
    colours: Mapping[str, str],
    paged: AbstractSet[str] = frozenset(),
    own: Mapping[str, Published] | None = None,
    processes: int = 1,
) -> Iterator[Iterable[tuple[str, Part]]]:
    """Every group's name and part, one after the other; the same bytes whatever the number of processes.

    Other processes begin at once and are at work while the caller does something else.

    Args:
        groups: of the report.
        results: where they come from.
        colours: by method.
        paged: the ids of trials that have a page.
        own: published numbers of a user's own tasks.
        processes: how many work side by side, if there are ``MANY`` trials.

    Raises:
        UserError: where a part is asked for: a curve is missing or damaged.
    """
    ids = [[record.id for row in (*group.rows, *group.left_out) for record in row.records] for group in groups]
    names = [group.name for group in groups]
    trials = sum(map(len, ids))
    sparing = trials >= SPARING
    work = _Work(results, colours, 0 if sparing else max(1, SWEEPS // len(groups)), sparing, own or {})
    if processes < 2 or len(groups) < 2 or trials < MANY:
        yield ((group.name, _part(group, paged, work)) for group in groups)
        return
    pages = [paged & set(of_group) for of_group in ids]
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    try:
        yield zip(names, pool.map(partial(_read_part, work=work), names, ids, pages), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)  # what is not begun when something went wrong


def _read_part(name: str, ids: Sequence[str], paged: Collection[str], work: _Work) -> Part:
    """In another process: records are read once more, which is quicker than to send them."""
    (group,) = (group for group in read_groups(work.results, work.own, set(ids)) if group.name == name)
    return _part(group, paged, work)


def _part(group: Group, paged: Collection[str], work: _Work) -> Part:
    drawn = draw_group(group, work.results, work.colours, work.sweeps, work.sparing)
    return Part(
        drawn.files,
        drawn.measured,
        image_lines(group),
        group_markdown(group, drawn),
        section(group, work.results, drawn, paged),
    )
