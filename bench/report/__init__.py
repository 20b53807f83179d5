"""Reports are a pure function of records: the same records give the same bytes."""

from __future__ import annotations

from pathlib import Path

from bench.errors import UserError
from bench.own_tasks import published_of_kept
from bench.records import load_records, open_results
from bench.records.folder import writing
from bench.report import trial_panel
from bench.report.anytime import AnytimeOf, anytime_of
from bench.report.exports import as_json, as_tex
from bench.report.figures import Layout, colours_of, draw_curves, draw_sheets, first_sheets, style, to_bytes
from bench.report.groups import CurvesOf, Group, curves_of, group_records
from bench.report.image_table import image_csv
from bench.report.links import INDEX, method_page, task_page, trial_page
from bench.report.method_panel import installed_methods, method_pages
from bench.report.overall import Block, blocks_of
from bench.report.overall_figure import draw_profiles, draw_ranks
from bench.report.overall_panel import figure_path, in_markdown, overall_csv
from bench.report.page import Curves, DrawnSweep, Overall, index_page, method_html, page, trial_html
from bench.report.pool_figure import draw_kept
from bench.report.scatter import draw_scatter
from bench.report.sensitivity_section import Section, sections_of
from bench.report.sweeps import Sweep, sweeps_of
from bench.report.sweeps_figure import draw_sweep
from bench.report.tables import comma_separated, markdown

__all__ = ["render"]

PAGE: tuple[Layout, Layout] = ("wide", "narrow")


def render(results: Path, out: Path, trial_pages: int | None = None) -> list[Path]:
    """Write the leaderboard, its figures and the page for all records of a results folder.

    Args:
        results: a results folder.
        out: where ``leaderboard.md``, ``.csv``, ``.json`` and ``.tex``, ``image_metrics.csv`` (where there are any),
            ``overall.csv`` (where methods share several tasks), ``index.html``, ``tasks/``, ``methods/``, ``trials/``
            and ``figures/`` go; made if missing.
        trial_pages: how many trials get a page at most; None: all.

    Returns:
        The files that were written.

    Raises:
        UserError: there are no records, one is damaged, or ``out`` cannot be written.
    """
    groups = group_records(load_records(open_results(results)), published_of_kept(results))
    if not groups:
        raise UserError(f"{results} holds no records yet; `dfkd run STUDY.yaml --results {results}` makes them")
    colours = colours_of(row.method for group in groups for row in group.rows)
    contents: dict[str, bytes] = {}
    listed: dict[str, list[tuple[str, str]]] = {}
    curves: dict[str, Curves] = {}
    scatters: dict[str, Curves] = {}
    swept: dict[str, list[DrawnSweep]] = {}
    kept: dict[str, Curves] = {}
    sensitive: dict[str, list[Section]] = {}
    overall: list[Overall] = []
    measured: dict[str, AnytimeOf] = {}
    with style():
        for group in groups:
            read = curves_of(group, results)
            measured[group.name] = anytime_of(group, read)
            contents |= _figures(group, results, read, colours, listed, curves)
            contents |= _scatter(group, colours, scatters)
            contents |= _kept(group, read, colours, kept, listed)
            sensitive[group.name], files = sections_of(group, colours)
            contents |= files
            for sweep in sweeps_of(group, read):
                contents |= _sweep(sweep, group, colours, swept.setdefault(group.name, []))
        for block in blocks_of(groups):
            contents |= _overall(block, colours, overall)
    paths = {name: _scatter_name(name, "png") for name in scatters}
    named = {name: [(each.sweep, each.path) for each in drawn] for name, drawn in swept.items()}
    lines = {name: [line for section in of for line in section.markdown] for name, of in sensitive.items()}
    together = [in_markdown(each.block) for each in overall]
    contents["leaderboard.md"] = markdown(groups, listed, paths, named, measured, lines, together).encode()
    contents["leaderboard.csv"] = comma_separated(groups, measured).encode()
    if overall:
        contents["overall.csv"] = overall_csv([each.block for each in overall]).encode()
    if images := image_csv(groups):
        contents["image_metrics.csv"] = images.encode()
    contents["leaderboard.json"] = as_json(groups, measured).encode()
    contents["leaderboard.tex"] = as_tex(groups).encode()
    paged = trial_panel.chosen(groups, trial_pages)
    contents[INDEX] = index_page(groups, overall, paged).encode()
    for task in dict.fromkeys(group.key.task for group in groups):
        of_task = [group for group in groups if group.key.task == task]
        shown = page(of_task, results, curves, scatters, swept, kept, measured, sensitive, paged)
        contents[task_page(task)] = shown.encode()
    for method, panel in method_pages(groups, paged).items():
        contents[method_page(method)] = method_html(panel).encode()
    for name, facts in trial_panel.trial_pages(paged, results, installed_methods()):
        contents[trial_page(name)] = trial_html(facts).encode()
    with writing(out):
        for name, content in contents.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)
    return [out / name for name in contents]


def _figures(
    group: Group,
    results: Path,
    read: CurvesOf,
    colours: dict[str, str],
    listed: dict[str, list[tuple[str, str]]],
    curves: dict[str, Curves],
) -> dict[str, bytes]:
    """Draw one group's figures; note those for Markdown in ``listed`` and those for the page in ``curves``."""
    contents: dict[str, bytes] = {}
    if any(row.ok for row in group.rows):
        alone = draw_curves(group, read, colours)
        name = f"figures/{group.name}-curves"
        contents |= {f"{name}.png": to_bytes(alone, "png"), f"{name}.svg": to_bytes(alone, "svg")}
        listed.setdefault(group.name, []).append((f"{name}.png", f"Score against the budget on {group.key.task}"))
        curves[group.name] = Curves(
            wide=to_bytes(draw_curves(group, read, colours, "wide"), "svg", transparent=True),
            narrow=to_bytes(draw_curves(group, read, colours, "narrow"), "svg", transparent=True),
        )
    if sheets := first_sheets(group, results):
        name = f"figures/{group.name}-images"
        contents[f"{name}.png"] = to_bytes(draw_sheets(sheets), "png")  # pixels gain nothing from an SVG around them
        listed.setdefault(group.name, []).append((f"{name}.png", "Images that the students were trained on"))
    return contents


def _scatter(group: Group, colours: dict[str, str], scatters: dict[str, Curves]) -> dict[str, bytes]:
    """Draw score against each image metric, where there is enough to be seen; note it for the page in ``scatters``."""
    alone, wide, narrow = (draw_scatter(group, colours, layout) for layout in ("file", "wide", "narrow"))
    if alone is None or wide is None or narrow is None:
        return {}
    scatters[group.name] = Curves(
        wide=to_bytes(wide, "svg", transparent=True), narrow=to_bytes(narrow, "svg", transparent=True)
    )
    return {_scatter_name(group.name, kind): to_bytes(alone, kind) for kind in ("png", "svg")}


def _kept(
    group: Group,
    read: CurvesOf,
    colours: dict[str, str],
    kept: dict[str, Curves],
    listed: dict[str, list[tuple[str, str]]],
) -> dict[str, bytes]:
    """Draw the shares of pools that selections keep, where there are any; note it in ``kept`` and ``listed``."""
    alone, wide, narrow = (draw_kept(group, read, colours, layout) for layout in ("file", "wide", "narrow"))
    if alone is None or wide is None or narrow is None:
        return {}
    kept[group.name] = Curves(
        wide=to_bytes(wide, "svg", transparent=True), narrow=to_bytes(narrow, "svg", transparent=True)
    )
    name = f"figures/{group.name}-kept"
    listed.setdefault(group.name, []).append((f"{name}.png", f"Share of the pool that is kept on {group.key.task}"))
    return {f"{name}.{kind}": to_bytes(alone, kind) for kind in ("png", "svg")}


def _sweep(sweep: Sweep, group: Group, colours: dict[str, str], drawn: list[DrawnSweep]) -> dict[str, bytes]:
    """Draw what one option changes; note it for the page and Markdown in ``drawn``."""
    name = f"figures/{group.name}-{sweep.method}-{sweep.option}"
    if any(each.path == f"{name}.png" for each in drawn):  # the same option, with another version of the method's code
        name += f"-{len(drawn)}"
    alone = draw_sweep(sweep, group, colours)
    wide, narrow = (to_bytes(draw_sweep(sweep, group, colours, layout), "svg", transparent=True) for layout in PAGE)
    drawn.append(DrawnSweep(sweep, f"{name}.png", Curves(wide=wide, narrow=narrow)))
    return {f"{name}.{kind}": to_bytes(alone, kind) for kind in ("png", "svg")}


def _overall(block: Block, colours: dict[str, str], drawn: list[Overall]) -> dict[str, bytes]:
    """Draw how methods compare over all tasks; note it for the index in ``drawn``."""
    contents: dict[str, bytes] = {}
    curves = []
    for kind, draw in (("profile", draw_profiles), ("ranks", draw_ranks)):
        alone = draw(block, colours)
        contents |= {f"{figure_path(block, kind)}.{suffix}": to_bytes(alone, suffix) for suffix in ("png", "svg")}
        wide, narrow = (to_bytes(draw(block, colours, layout), "svg", transparent=True) for layout in PAGE)
        curves.append(Curves(wide=wide, narrow=narrow))
    drawn.append(Overall(block, *curves))
    return contents


def _scatter_name(group: str, kind: str) -> str:
    return f"figures/{group}-quality.{kind}"
