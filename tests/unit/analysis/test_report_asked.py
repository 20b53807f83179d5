"""Score against teacher images over all studies: which trainings are drawn, and where the figure stands."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from record_builder import add, make_record

from bench.analysis.report.figures.asked import CAPTION, asked_lines, draw_asked, spans
from bench.analysis.report.figures.curves import style, to_bytes
from bench.analysis.report.pages.standings import standings
from bench.analysis.report.sections import against
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.standings import Standing
from bench.analysis.report.site import make_site, studies_of
from bench.cli.places import results_below
from bench.records import open_results
from bench.utils.markdown import escape


def standing(method: str, images: float, study: str = "study", seeds: int = 1, score: float = 90.0) -> Standing:
    """One with a curve of three points that ends at ``images``; one that asks no teacher for 0."""
    record = make_record(method)
    (found,) = standings(study, group_records([record])[0], {}, {})
    x, y = [images / 4, images / 2, images], [score / 3, score / 2, score]
    values: dict[str, Any] = {"seeds": seeds, "asked": [x, y, y, y] if images else []}
    return Standing(**{**found.__dict__, **values})


def drawn(*found: Standing) -> list[tuple[str, float, bool]]:
    return [(line.method, line.x[-1], line.longest) for line in asked_lines(found)]


def test_the_longest_training_of_a_method_is_drawn_and_shorter_ones_a_third_apart() -> None:
    found = [standing("dafl", images, f"of {images}") for images in (20_000, 200_000, 50_000, 180_000, 6e6)]
    assert drawn(*found) == [("dafl", 6e6, True), ("dafl", 200_000, False), ("dafl", 50_000, False)]


def test_of_equally_long_trainings_the_one_with_the_most_seeds_is_drawn() -> None:
    one, three = standing("dafl", 1000, "a", seeds=1, score=50), standing("dafl", 1000, "b", seeds=3, score=80)
    (line,) = asked_lines([one, three])
    assert line.y[-1] == 80


def test_what_asks_no_teacher_has_no_line_and_one_length_no_figure() -> None:
    assert drawn(standing("scratch", 0)) == []
    assert not spans([standing("scratch", 0)])
    assert not spans([standing("dafl", 10_000), standing("kd", 90_000)])
    assert spans([standing("dafl", 10_000), standing("kd", 100_000)])


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_each_line_and_star_is_drawn_where_it_belongs(layout: Any) -> None:
    found = [standing("dafl", 1e6), standing("dafl", 1e4, "short"), standing("kd", 2e6, score=99)]
    with style():
        figure = draw_asked(found, [("dafl", 12e6, 98.2), ("dfad", 6e6, 98.3)], layout)
        (axis,) = figure.axes
        ends = {tuple(float(at[-1]) for at in line.get_data()) for line in axis.lines}
        assert ends == {(1e6, 90.0), (1e4, 90.0), (2e6, 99.0), (12e6, 98.2)}  # no star of a method without a line
        assert axis.get_xscale() == "log"
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels == ["kd", "dafl", "printed in the paper"]
        with Image.open(io.BytesIO(to_bytes(figure, "png"))) as picture:
            assert np.asarray(picture).std() > 5


def test_many_methods_leave_the_baselines_and_the_longest_in_colour() -> None:
    found = [standing(f"method{index}", 1000 * (index + 1)) for index in range(12)]
    found += [standing("noise", 100), standing("kd", 100)]
    with style():
        labels = [text.get_text() for text in draw_asked(found, []).legends[0].get_texts()]
    assert labels[:6] == [f"method{index}" for index in range(11, 5, -1)]
    assert set(labels[6:]) == {"noise", "kd", "6 other methods"}


def test_papers_are_quoted_at_the_teacher_images_of_their_runs() -> None:
    (group,) = group_records(
        [make_record("dafl", task="mnist/lenet5-half"), make_record("noise", task="mnist/lenet5-half")]
    )
    assert against.quoted_at([against.facts_of(group)] * 2, "mnist/lenet5-half") == [("dafl", 12_288_000, 98.2)]
    assert against.quoted_at([against.facts_of(group)], "digits/lenet5-half") == []


def test_a_summarys_front_page_begins_with_the_figure_and_a_site_has_it_on_the_tasks_board(tmp_path: Path) -> None:
    for name, budget in (("short", 1_000), ("long", 40_000)):
        results = open_results(tmp_path / "published" / name, create=True)
        for method in ("dafl", "kd"):
            record = make_record(method, 0, budget={"teacher_images": budget})
            meter = record.meter.model_copy(update={"teacher_images": budget})
            add(results, record.model_copy(update={"meter": meter}))
    studies = studies_of([tmp_path / "published"], results_below)
    make_site(studies, tmp_path / "reports", summary=True)
    text = (tmp_path / "reports" / "README.md").read_text()
    assert "](figures/digits-lenet5-half.png)" in text
    assert text.index("](figures/digits-lenet5-half.png)") < text.index("## Studies")
    assert escape(CAPTION) in text or CAPTION in text
    assert (tmp_path / "reports" / "figures" / "digits-lenet5-half.png").is_file()
    make_site(studies, tmp_path / "site")
    board = (tmp_path / "site" / "boards" / "digits-lenet5-half.html").read_text()
    assert "figures/digits-lenet5-half-teacher-images.svg" in board
    assert (tmp_path / "site" / "boards" / "figures" / "digits-lenet5-half-teacher-images.pdf").is_file()
    make_site([each for each in studies if each.name == "long"], tmp_path / "reports", summary=True)
    assert "figures/" not in (tmp_path / "reports" / "README.md").read_text()
    assert not (tmp_path / "reports" / "figures" / "digits-lenet5-half.png").exists()
