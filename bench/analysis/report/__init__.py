"""Reports: from a results folder to pages, tables and figures; a pure function of records.

Nothing here measures anything: the same records give the same bytes.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.analysis.report.figures.curves import small_png, style
from bench.analysis.report.figures.ranks import draw_profiles, draw_ranks
from bench.analysis.report.pages.exports import as_json, as_tex
from bench.analysis.report.pages.html import Overall, index_page, method_html
from bench.analysis.report.pages.links import INDEX, method_page, task_page, trial_page
from bench.analysis.report.pages.markdown import Together, few_figures, markdown, of_overall
from bench.analysis.report.pages.method import method_pages
from bench.analysis.report.pages.parts import Part, read_parts
from bench.analysis.report.pages.pictures import draw_picture
from bench.analysis.report.pages.single import SINGLE, one_page, trial_alone
from bench.analysis.report.pages.writing import check_place, write_files
from bench.analysis.report.sections.groups import Group
from bench.analysis.report.sections.image_metrics import image_csv
from bench.analysis.report.sections.leaderboard import comma_separated
from bench.analysis.report.sections.overall import TaskSet, task_sets
from bench.analysis.report.sections.overall_text import (
    figure_path,
    in_markdown,
    overall_csv,
    profile_caption,
    ranks_caption,
)
from bench.analysis.report.sections.pairwise import pairs_csv
from bench.analysis.report.sections.study import STUDY, StudyWords, read_study, study_name
from bench.errors import UserError
from bench.records import open_results, place_of
from bench.spec.custom_tasks import published_of_kept

__all__ = ["render", "report_files", "summary_files", "trial_alone"]


def render(
    results: Path, out: Path, trial_pages: int | None = None, processes: int = 1, single_file: bool = False
) -> list[Path]:
    """Write the leaderboard, its figures and the page for all records of a results folder.

    Args:
        results: a results folder.
        out: where ``leaderboard.md``, ``.csv``, ``.json`` and ``.tex``, ``image_metrics.csv`` (where there are any),
            ``pairs.csv`` (where rows share seeds), ``overall.csv`` (where methods share several tasks), ``index.html``,
            ``tasks/``, ``methods/``, ``trials/``, ``figures/`` and ``images/`` go; made if missing. What an earlier
            report wrote there and this one does not is removed.
        trial_pages: how many trials get a page at most; None: all.
        processes: how many draw side by side, where there is much to draw; they import the caller's main module.
        single_file: whether there is ``report.html`` too, one page with all but the trials' pages, to be mailed.

    Returns:
        The files that were written.

    Raises:
        UserError: there are no records, one is damaged, or ``out`` cannot be written or holds records.
    """
    results = place_of(results)
    check_place(out, results)
    contents, _ = report_files(results, trial_pages, processes)
    if single_file:
        contents[SINGLE] = one_page(contents).encode()
    return write_files(out, contents)


def report_files(
    results: Path, trial_pages: int | None = None, processes: int = 1
) -> tuple[dict[str, bytes], list[Group]]:
    """The contents of a report's files by their paths, and the groups that it shows; raises as ``render``."""
    study = read_study(open_results(results))
    parts, groups, overall, contents = _drawn(results, trial_pages, processes, study)
    name = study_name(study, groups)
    measured = {name: found for part in parts for name, found in part.measured.items()}
    trials = {name: html for part in parts for name, html in part.trials.items()}
    texts = {
        "leaderboard.md": markdown(groups, [part.markdown for part in parts], _together(overall)),
        "leaderboard.csv": comma_separated(groups, measured),
        "pairs.csv": pairs_csv(groups),
        "overall.csv": overall_csv([each.block for each in overall]) if overall else "",
        "image_metrics.csv": image_csv(part.images for part in parts),
        "leaderboard.json": as_json(groups, measured),
        "leaderboard.tex": as_tex(groups),
        STUDY: study.text,
    }
    texts = {path: text for path, text in texts.items() if text}
    pages = {
        INDEX: index_page(groups, overall, trials, study, list(texts)),
        **{task_page(part.groups[0].key.task): part.page for part in parts},
        **{method_page(method): method_html(panel, name) for method, panel in method_pages(groups, trials).items()},
        **{trial_page(trial): html for trial, html in trials.items()},
    }
    return contents | {path: text.encode() for path, text in (texts | pages).items()}, groups


def summary_files(results: Path, said: str, processes: int = 1) -> tuple[dict[str, bytes], list[Group]]:
    """As ``report_files``, of the summary that is kept in git: the leaderboard with one or two figures.

    ``said`` stands at its top, as Markdown.
    """
    parts, groups, overall, contents = _drawn(results, 0, processes, read_study(open_results(results)))
    lines = [part.markdown for part in parts]
    together = _together(overall)
    shown = few_figures([*of_overall(together), *(line for part in lines for line in part)])
    text = markdown(groups, lines, together, said)
    figures = {
        path: small_png(contents[whole], 64 if path.endswith("-images.png") else 256) for whole, path in shown.items()
    }
    return {"leaderboard.md": text.encode()} | figures, groups


def _drawn(
    results: Path, trial_pages: int | None, processes: int, study: StudyWords
) -> tuple[list[Part], list[Group], list[Overall], dict[str, bytes]]:
    parts, colours = read_parts(results, published_of_kept(open_results(results)), trial_pages, processes, study)
    if not parts:
        remedy = f"dfkd run STUDY.yaml --results {shlex.quote(str(results))}"
        raise UserError(f"{results} contains no records yet; create them with `{remedy}`")
    groups = [group for part in parts for group in part.groups]
    overall: list[Overall] = []
    contents = {path: content for part in parts for path, content in part.figures.items()}
    with style():
        for block in task_sets(groups):
            contents |= _overall(block, colours, overall)
    return parts, groups, overall, contents


def _together(overall: Sequence[Overall]) -> list[Together]:
    return [in_markdown(each.block) for each in overall]


def _overall(block: TaskSet, colours: Mapping[str, str], drawn: list[Overall]) -> dict[str, bytes]:
    """Draw how methods compare over all tasks; note it for the index in ``drawn``."""
    contents: dict[str, bytes] = {}
    words = profile_caption(block), ranks_caption(block)
    profiles = draw_picture(
        contents,
        figure_path(block, "profile"),
        lambda layout, _: draw_profiles(block, colours, layout),
        alt=words[0],
        caption=words[0],
    )
    ranks = draw_picture(
        contents,
        figure_path(block, "ranks"),
        lambda layout, _: draw_ranks(block, colours, layout),
        alt=words[1],
        caption=words[1],
    )
    assert profiles is not None
    assert ranks is not None
    drawn.append(Overall(block, profiles, ranks))
    return contents
