"""What a task adds to a report: the unit of work, of which several processes may do some each."""

from __future__ import annotations

import gc
import multiprocessing
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.analysis.report.figures.curves import colours_of, first_sheets
from bench.analysis.report.pages.drawing import draw_group
from bench.analysis.report.pages.html import task_html, trial_html
from bench.analysis.report.pages.links import sheet_file
from bench.analysis.report.pages.markdown import group_markdown
from bench.analysis.report.pages.method import installed_methods
from bench.analysis.report.pages.task import section
from bench.analysis.report.pages.trial import chosen, shares, sheet_files, trial_pages
from bench.analysis.report.sections.anytime import AnytimeOf
from bench.analysis.report.sections.grouping import no_cycles, read_groups
from bench.analysis.report.sections.groups import Group, light
from bench.analysis.report.sections.image_metrics import image_lines
from bench.analysis.report.sections.study import StudyWords, study_name
from bench.records import read_outline
from bench.spec.published import Published

SWEEPS = 30  # figures of what options change in a whole report: no reader looks at hundreds, and each takes a second
MANY = 5_000  # trials for which it pays to start processes
SPARING = 20_000  # trials for which pages show figures as they are in their files, and options in tables only


@dataclass(frozen=True)
class Part:
    """What a task adds to a report."""

    groups: tuple[Group, ...]
    measured: dict[str, AnytimeOf]  # what the curves say, by the group's name
    figures: dict[str, bytes]  # by their path in the report; contact sheets too
    images: str  # lines of the CSV of image metrics
    markdown: list[str]  # lines
    page: str  # the task's, as HTML
    trials: dict[str, str]  # pages of trials, as HTML, by the trial's id


@dataclass(frozen=True)
class _Work:
    """What is the same for all tasks of a report."""

    results: Path
    own: Mapping[str, Published]
    study: StudyWords
    colours: Mapping[str, str]
    sweeps: int
    sparing: bool


def read_parts(
    results: Path,
    own: Mapping[str, Published] | None = None,
    pages: int | None = None,
    processes: int = 1,
    study: StudyWords | None = None,
) -> tuple[list[Part], dict[str, str]]:
    """Every task's part in the order of the tasks' names, and the colour of each method.

    The bytes are the same whatever the number of processes; of records that came from another one, that is left out
    which is said of one task only.

    Args:
        results: a results folder or an archive.
        own: published numbers of a user's own tasks.
        pages: how many trials get a page at most; None: all.
        processes: how many work side by side, if there are ``MANY`` trials.
        study: what the results keep of their study.

    Raises:
        UserError: a record or a curve is damaged or missing.
    """
    outline = read_outline(results)
    ids: dict[str, list[str]] = defaultdict(list)
    for trial in outline:
        ids[trial.task].append(trial.id)
    colours = colours_of(trial.method for trial in outline if trial.status != "unsupported")
    sparing = len(outline) >= SPARING
    sweeps = 0 if sparing else max(1, SWEEPS // max(1, len(ids)))
    work = _Work(results, own or {}, study or StudyWords(), colours, sweeps, sparing)
    limits = shares(pages, {task: len(of_task) for task, of_task in ids.items()})
    tasks = [(ids[task], limits[task]) for task in sorted(ids)]
    if processes < 2 or len(ids) < 2 or len(outline) < MANY:
        return [_part(*task, work=work) for task in tasks], colours
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    try:
        with no_cycles():
            return list(pool.map(partial(_sent_part, work=work), *zip(*tasks, strict=True))), colours
    finally:
        pool.shutdown(cancel_futures=True)  # what is not begun when something went wrong


def _sent_part(ids: Collection[str], pages: int, work: _Work) -> Part:
    part = _part(ids, pages, work)
    return replace(part, groups=tuple(map(light, part.groups)))


def _part(ids: Collection[str], pages: int, work: _Work) -> Part:
    try:
        return _of_groups(read_groups(work.results, work.own, ids), pages, work)
    finally:
        gc.unfreeze()


def _of_groups(groups: Sequence[Group], pages: int, work: _Work) -> Part:
    paged = chosen(groups, pages)
    sweeps = max(1, work.sweeps // len(groups)) if work.sweeps else 0
    drawn = [draw_group(group, work.results, work.colours, sweeps, work.sparing) for group in groups]
    pairs = list(zip(groups, drawn, strict=True))
    name = study_name(work.study, groups)
    sheets = {sheet_file(r.id, sheet): sheet for group in groups for _, r, sheet in first_sheets(group, work.results)}
    return Part(
        tuple(groups),
        {group.name: each.measured for group, each in pairs},
        {path: content for each in drawn for path, content in each.files.items()}
        | sheets
        | sheet_files(paged, work.results),
        "".join(image_lines(group) for group in groups),
        [line for group, each in pairs for line in group_markdown(group, each)],
        task_html(groups, [section(group, work.results, each, paged, work.study) for group, each in pairs], name),
        {trial: trial_html(facts) for trial, facts in trial_pages(paged, work.results, installed_methods(), name)},
    )
