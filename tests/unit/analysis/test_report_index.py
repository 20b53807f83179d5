"""The index page and the leaderboard as JSON and LaTeX: what they say of whom, and safe file names."""

from __future__ import annotations

import html
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from record_builder import add, make_demo, make_record

from bench.analysis.report import render
from bench.analysis.report.pages.exports import as_json, as_tex
from bench.analysis.report.pages.index import board, leader
from bench.analysis.report.pages.links import slug
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.groups import Group
from bench.analysis.stats import ENOUGH, mean_and_half, mean_interval
from bench.records import open_results

RUNS = [("dafl", 0.9), ("zskd", 0.7), ("noise", 0.5), ("kd", 1.0)]


def groups(seeds: int = 3) -> list[Group]:
    return group_records(
        make_record(name, seed, final=final - 0.001 * (seed * place % 3))
        for place, (name, final) in enumerate(RUNS, start=1)
        for seed in range(seeds)
    )


def test_leader_is_data_free_and_compared_with_every_other() -> None:
    (found,) = groups()
    said = leader(found)
    assert said is not None
    assert said["label"] == "dafl"
    assert said["sure"] == "better than 2 of 2 others beyond chance, 3 seeds"


def test_leader_of_one_seed_is_not_called_sure() -> None:
    (found,) = groups(seeds=1)
    said = leader(found)
    assert said is not None
    assert said["sure"] == "one seed: chance cannot be assessed"


def test_leader_within_chance_names_the_others() -> None:
    records = [make_record("dafl", s, final=0.9 + 0.02 * (s % 2)) for s in range(3)]
    records += [make_record("zskd", s, final=0.9 + 0.02 * (s == 0)) for s in range(3)]
    said = leader(group_records(records)[0])
    assert said is not None
    assert said["sure"].startswith("better than 0 of 1 others beyond chance")
    assert "not distinguishable from" in said["sure"]


def test_interval_of_many_seeds_is_the_bootstraps() -> None:
    records = [make_record("dafl", seed, final=0.7 + 0.2 * (seed % 10 == 0)) for seed in range(ENOUGH)]
    (row,) = group_records(records)[0].rows
    scores = [record.scores[record.headline] for record in records]
    assert row.score == mean_and_half(scores)
    assert row.score != pytest.approx(mean_interval(scores), rel=1e-3)


def test_interval_of_the_normalised_score_is_that_of_the_score_on_its_scale() -> None:
    records = [make_record("dafl", seed, final=final) for seed, final in enumerate((0.70, 0.72))]
    records += [make_record("noise", final=0.5), make_record("kd", final=0.9)]
    (group,) = group_records(records)
    row = next(row for row in group.rows if row.method == "dafl")
    assert row.score is not None
    assert row.score[1] is not None
    assert group.normalised_half(row) == pytest.approx(row.score[1] / 0.4)
    assert group.normalised_half(next(row for row in group.rows if row.method == "kd")) is None


def test_failures_and_unsupported_are_lines_with_their_reason() -> None:
    shown = board(
        group_records(
            [
                make_record("dafl"),
                make_record("zskd", status="crashed", reason="out of luck"),
                make_record("cmi", status="unsupported", reason="no batch norm"),
            ]
        )
    )
    outcomes = {line["label"]: (line["filters"]["outcome"], line["outcome"]) for line in shown["lines"]}
    assert outcomes == {
        "dafl": ("finished", "finished"),
        "zskd": ("failed", "crashed: out of luck"),
        "cmi": ("unsupported", "unsupported: no batch norm"),
    }


def test_json_has_the_numbers_of_every_row() -> None:
    (found,) = json.loads(as_json(groups()))
    first = found["rankings"][0]["rows"][0]
    assert (first["rank"], first["method"], first["seeds"]) == (1, "dafl", 3)
    assert first["score"] == pytest.approx(0.899)
    assert {row["method"] for row in found["rows"]} == {"dafl", "zskd", "noise", "kd"}


def test_tex_is_booktabs_and_escapes_what_latex_would_read() -> None:
    text = as_tex(group_records([make_record("fast_dfkd", final=0.9), make_record("a&b%{", final=0.8)]))
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    assert r"fast\_dfkd & none & 90.0 (one seed)" in text
    assert r"a\&b\%\{" in text


@pytest.mark.parametrize("name", ["<script>", "../up", "A", "a", "a b", "x" * 300, ".."])
def test_file_names_are_safe_and_apart(name: str) -> None:
    assert set(slug(name)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    assert slug(name) not in ("", ".", "..")
    assert len(slug(name)) < 120
    assert slug("A").lower() != slug("a")  # some systems do not tell them apart


def test_every_link_of_every_page_leads_somewhere(tmp_path: Path) -> None:
    results = make_demo(tmp_path / "results")
    add(results, make_record("zskd", 2, status="diverged"))
    add(open_results(results), make_record("dafl", task="odd/<b>task"))
    written = {path.resolve() for path in render(results, tmp_path / "out")}
    found: list[tuple[Path, str]] = []

    class Links(HTMLParser):
        page = Path()

        def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend((self.page, value) for name, value in attrs if name == "href" and value)

    for page in (path for path in written if path.suffix == ".html"):
        links = Links()
        links.page = page
        links.feed(page.read_text(encoding="utf-8"))
    for page, link in found:
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target in written
        assert not anchor or f'id="{anchor}"' in html.unescape(target.read_text(encoding="utf-8"))
    assert len(found) > 8
