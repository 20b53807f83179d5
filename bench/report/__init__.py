"""Reports are a pure function of records: the same records give the same bytes."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.errors import UserError
from bench.own_tasks import published_of_kept
from bench.records import open_results
from bench.report import trial_panel
from bench.report.exports import as_json, as_tex
from bench.report.figures import LAYOUTS, colours_of, for_page, style, to_bytes
from bench.report.groups import Group, read_groups
from bench.report.image_table import image_csv
from bench.report.links import INDEX, method_page, task_page, trial_page
from bench.report.method_panel import installed_methods, method_pages
from bench.report.overall import Block, blocks_of
from bench.report.overall_figure import draw_profiles, draw_ranks
from bench.report.overall_panel import figure_path, in_markdown, overall_csv
from bench.report.page import Overall, index_page, method_html, page, trial_html
from bench.report.parts import parts_of
from bench.report.tables import comma_separated, markdown
from bench.report.trial_panel import Place
from bench.report.writing import check_place, write_files

__all__ = ["render"]


def render(results: Path, out: Path, trial_pages: int | None = None, processes: int = 1) -> list[Path]:
    """Write the leaderboard, its figures and the page for all records of a results folder.

    Args:
        results: a results folder.
        out: where ``leaderboard.md``, ``.csv``, ``.json`` and ``.tex``, ``image_metrics.csv`` (where there are any),
            ``overall.csv`` (where methods share several tasks), ``index.html``, ``tasks/``, ``methods/``, ``trials/``
            and ``figures/`` go; made if missing. What an earlier report wrote there and this one does not is removed.
        trial_pages: how many trials get a page at most; None: all.
        processes: how many draw side by side, where there is much to draw; they import the caller's main module.

    Returns:
        The files that were written.

    Raises:
        UserError: there are no records, one is damaged, or ``out`` cannot be written or holds records.
    """
    check_place(out, results)
    try:
        contents = _contents(results, trial_pages, processes)
    finally:
        gc.unfreeze()
    return write_files(out, contents)


def _contents(results: Path, trial_pages: int | None, processes: int) -> dict[str, bytes]:
    own = published_of_kept(open_results(results))
    groups = read_groups(results, own)
    if not groups:
        raise UserError(f"{results} holds no records yet; `dfkd run STUDY.yaml --results {results}` makes them")
    colours = colours_of(row.method for group in groups for row in group.rows)
    paged = trial_panel.chosen(groups, trial_pages)
    with parts_of(groups, results, colours, paged.keys(), own, processes) as drawn:
        overall: list[Overall] = []
        figures: dict[str, bytes] = {}
        with style():
            for block in blocks_of(groups):
                figures |= _overall(block, colours, overall)
        pages = _pages(groups, overall, paged, results)
        parts = dict(drawn)
    measured = {name: part.measured for name, part in parts.items()}
    contents = {name: content for part in parts.values() for name, content in part.files.items()} | figures
    together = [in_markdown(each.block) for each in overall]
    contents["leaderboard.md"] = markdown(groups, [part.markdown for part in parts.values()], together).encode()
    contents["leaderboard.csv"] = comma_separated(groups, measured).encode()
    if overall:
        contents["overall.csv"] = overall_csv([each.block for each in overall]).encode()
    if images := image_csv(part.images for part in parts.values()):
        contents["image_metrics.csv"] = images.encode()
    contents["leaderboard.json"] = as_json(groups, measured).encode()
    contents["leaderboard.tex"] = as_tex(groups).encode()
    contents[INDEX] = pages.pop(INDEX)
    for task in dict.fromkeys(group.key.task for group in groups):
        of_task = [group for group in groups if group.key.task == task]
        contents[task_page(task)] = page(of_task, [parts[group.name].section for group in of_task]).encode()
    return contents | pages


def _pages(
    groups: Sequence[Group], overall: Sequence[Overall], paged: Mapping[str, Place], results: Path
) -> dict[str, bytes]:
    """The pages of which the groups' parts know nothing: the index, and those of methods and trials."""
    contents = {INDEX: index_page(groups, overall, paged).encode()}
    for method, panel in method_pages(groups, paged).items():
        contents[method_page(method)] = method_html(panel).encode()
    for name, facts in trial_panel.trial_pages(paged, results, installed_methods()):
        contents[trial_page(name)] = trial_html(facts).encode()
    return contents


def _overall(block: Block, colours: dict[str, str], drawn: list[Overall]) -> dict[str, bytes]:
    """Draw how methods compare over all tasks; note it for the index in ``drawn``."""
    contents: dict[str, bytes] = {}
    shown = []
    for kind, draw in (("profile", draw_profiles), ("ranks", draw_ranks)):
        alone, wide, narrow = (draw(block, colours, layout) for layout in LAYOUTS)
        contents |= {f"{figure_path(block, kind)}.{suffix}": to_bytes(alone, suffix) for suffix in ("png", "svg")}
        shown.append(for_page(wide, narrow))
    drawn.append(Overall(block, *shown))
    return contents
