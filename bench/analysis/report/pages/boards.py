"""The pages of a site over all of its studies: a board for each task, and a page for each method."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from bench.analysis.report.figures import asked
from bench.analysis.report.figures.board import board_data, draw_board, methods_of, shown_units
from bench.analysis.report.figures.curves import colours_of, small_png, style, to_bytes
from bench.analysis.report.pages.html import environment
from bench.analysis.report.pages.links import INDEX, method_page, slug, task_page
from bench.analysis.report.pages.pictures import draw_picture
from bench.analysis.report.sections.groups import FLOOR
from bench.analysis.report.sections.leaderboard import DATA
from bench.analysis.report.sections.published import HEAD, WARNING
from bench.analysis.report.sections.published import TITLE as PUBLISHED
from bench.analysis.report.sections.standings import Standing

FIGURES = "figures"  # of a summary's front page
FOLDERS = ("boards", FIGURES, "methods")  # of the site itself: no study is called so
UP = "../"
CAPTION = (
    "Marks: a study's final scores under a budget, with their intervals; filled where trials were run again with the "
    "same result (dfkd verify), hollow where not. A line goes through a method's budgets; where "
    "it has one budget alone, along its score while that was spent. Dotted lines join studies with other teachers or "
    "other rules, whose scores may not be compared; the table below says which."
)


def board_page(task: str) -> str:
    """Where a task's board lies in the site."""
    return f"boards/{slug(task)}.html"


def board_files(
    found: Sequence[Standing],
    home: str,
    published: Mapping[str, Sequence[Sequence[str]]],
    quoted: Mapping[str, Sequence[tuple[str, float, float]]],
) -> dict[str, bytes]:
    """The boards, their figures and the methods' pages, by path in the site.

    Args:
        found: of all studies.
        home: what the way to the front page is called.
        published: what papers say, by task: method, percent and source.
        quoted: the same of what was measured here too, where it is known: method, teacher images and percent.
    """
    colours = colours_of(each.method for each in found)
    nav = [(home, f"{UP}{INDEX}")]
    files: dict[str, bytes] = {}
    for task in sorted({each.task for each in found}):
        own = [each for each in found if each.task == task]
        files |= _board(task, own, colours, nav, published.get(task, ()), quoted.get(task, ()))
    for method in sorted({each.method for each in found}):
        files |= _method(method, [each for each in found if each.method == method], nav)
    return files


def asked_figures(
    found: Sequence[Standing], quoted: Mapping[str, Sequence[tuple[str, float, float]]]
) -> dict[str, bytes]:
    """Score against teacher images as a small PNG, by task, of each task whose studies differ much in length."""
    figures = {}
    with style():
        for task in sorted({each.task for each in found}):
            own = [each for each in found if each.task == task]
            if asked.spans(own):
                drawn = asked.draw_asked(own, quoted.get(task, ()))
                figures[task] = small_png(to_bytes(drawn, "png"), 256)
    return figures


def _board(
    task: str,
    found: Sequence[Standing],
    colours: Mapping[str, str],
    nav: Sequence[tuple[str, str]],
    published: Sequence[Sequence[str]],
    quoted: Sequence[tuple[str, float, float]],
) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with style():
        picture = draw_picture(
            files,
            f"boards/figures/{slug(task)}",
            lambda layout, _: draw_board(found, colours, layout),
            alt=f"Score against budget on {task}, one line a method",
            caption=CAPTION,
        )
        over_images = draw_picture(
            files,
            f"boards/figures/{slug(task)}-teacher-images",
            lambda layout, _: asked.draw_asked(found, quoted, layout) if asked.spans(found) else None,
            alt=f"Score against teacher images on {task}, all studies",
            caption=asked.CAPTION,
        )
    assert picture is not None
    columns = sorted({_column(each) for each in found})
    names = methods_of(found)
    cells = {(each.method, _column(each)): each for each in found}
    best = {column: max(each.score for each in found if _column(each) == column) for column in columns}
    text = (
        environment()
        .get_template("board.html")
        .render(
            nav=nav,
            task=task,
            said=_said(found),
            verified=_verified(found),
            published=published,
            published_title=PUBLISHED,
            published_head=HEAD,
            published_warning=WARNING,
            shown=picture.shown(UP),
            over_images=over_images.shown(UP) if over_images else None,
            curves=json.dumps(board_data(found, colours), separators=(",", ":")),
            columns=[_head(column, found) for column in columns],
            lines=[
                {
                    "method": method,
                    "page": f"{UP}{method_page(method)}",
                    "need": DATA[next(each.need for each in found if each.method == method)],
                    "cells": [_cell(cells.get((method, column)), best[column]) for column in columns],
                }
                for method in names
            ],
        )
    )
    return files | {board_page(task): text.encode()}


Column = tuple[tuple[tuple[str, float], ...], str, str, str]


def _column(each: Standing) -> Column:
    return tuple(each.budget.items()), each.conditions, each.study, each.group


def _head(column: Column, found: Sequence[Standing]) -> dict[str, str]:
    first = next(each for each in found if _column(each) == column)
    return {
        "budget": first.budget_words,
        "study": first.study,
        "page": f"{UP}{quote(first.study)}/{task_page(first.task)}#{first.group}",
        "teacher": first.teacher or "no teacher",
    }


def _cell(each: Standing | None, best: float) -> dict[str, Any]:
    if each is None:
        return {"text": "", "label": "", "best": False, "verified": ""}
    label = each.label.removeprefix(each.method).strip()
    tried = each.verified or each.not_the_same
    return {
        "text": each.score_words,
        "label": label,
        "best": each.score == best,
        "verified": each.verified_words if tried else "",
    }


def _verified(found: Sequence[Standing]) -> str:
    """How many of the scores were run again."""
    good, bad = sum(each.is_verified for each in found), sum(each.not_the_same > 0 for each in found)
    words = f"{good or 'none'} of {len(found)} scores {'is' if good <= 1 else 'are'} verified"
    return words + (f", {bad} came out otherwise" if bad else "")


def _said(found: Sequence[Standing]) -> str:
    """Who has the best score without real data, and how much there is."""
    studies, methods = len({each.study for each in found}), len({each.method for each in found})
    budgets = list(shown_units(found))
    words = f"{methods} methods in {studies} {'study' if studies == 1 else 'studies'}, under {_list(budgets)}."
    data_free = [each for each in found if each.need == "none" and each.method != FLOOR]
    if not data_free:
        return words
    free = [each for each in data_free if each.known]
    if not free:
        return f"No method without real data has learnt more than guessing gives. {words}"
    top = min(free, key=lambda each: (-each.score, each.method))  # as rankings have it: of equal ones the first name
    return f"The best score without real data is {top.method}'s, {top.score:.1f} % under {top.budget_words}. {words}"


def _list(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _method(method: str, found: Sequence[Standing], nav: Sequence[tuple[str, str]]) -> dict[str, bytes]:
    ordered = sorted(found, key=lambda each: (each.task, tuple(each.budget.items()), each.study, each.group))
    text = (
        environment()
        .get_template("site_method.html")
        .render(
            nav=nav,
            method=method,
            titles=sorted({each.title for each in found}),
            papers=sorted({each.paper for each in found}),
            needs=sorted({DATA[each.need] for each in found}),
            lines=[
                {
                    "task": each.task,
                    "board": f"{UP}{board_page(each.task)}",
                    "budget": each.budget_words,
                    "study": each.study,
                    "page": f"{UP}{quote(each.study)}/{task_page(each.task)}#{each.group}",
                    "own": f"{UP}{quote(each.study)}/{method_page(method)}",
                    "label": each.label,
                    "others": each.others,
                    "teacher": each.teacher or "—",
                    "score": each.score_words,
                    "normalised": each.normalised,
                    "rank": each.rank or "—",
                    "verified": each.verified_words,
                }
                for each in ordered
            ],
        )
    )
    return {method_page(method): text.encode()}
