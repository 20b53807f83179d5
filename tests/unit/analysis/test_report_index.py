"""The index page and the leaderboard as JSON and LaTeX: what they say of whom, and safe file names."""

from __future__ import annotations

import csv
import html
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from record_builder import add, make_demo, make_record

from bench.analysis.report import render
from bench.analysis.report.pages.exports import as_json, as_tex, tex
from bench.analysis.report.pages.index import board, leader
from bench.analysis.report.pages.links import slug
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.groups import Group
from bench.analysis.report.sections.leaderboard import notes, score_words
from bench.analysis.report.sections.pairwise import pairs_csv
from bench.analysis.stats import ENOUGH, mean_interval, normalised_interval, share_interval
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
    assert said["sure"] == "better than 2 of 2 others beyond chance, 3 seeds: zskd, noise"


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


def test_a_leader_at_chance_is_none() -> None:
    (found,) = group_records(make_record("dafl", seed, final=0.11 + 0.001 * seed) for seed in range(3))
    said = leader(found)
    assert said is not None
    assert said["label"] == "none: dafl is best, at chance level"
    assert "guessing" in said["sure"]


def test_pairs_are_exported_with_differences_intervals_and_adjusted_p() -> None:
    lines = list(csv.DictReader(io.StringIO(pairs_csv(groups()))))
    assert [(line["first"], line["second"]) for line in lines] == [
        ("dafl", "zskd"),
        ("dafl", "noise"),
        ("zskd", "noise"),
    ]
    for line in lines:
        assert float(line["low"]) <= float(line["difference"]) <= float(line["high"])
        assert float(line["p"]) <= float(line["adjusted_p"])
    assert pairs_csv(group_records([make_record("dafl")])) == ""


def test_of_very_many_rows_each_is_compared_with_the_best() -> None:
    records = [
        make_record(f"m{place}", s, final=0.9 - 0.01 * place - 0.001 * (s * place % 3))
        for place in range(25)
        for s in range(3)
    ]
    lines = list(csv.DictReader(io.StringIO(pairs_csv(group_records(records)))))
    assert len(lines) == 24
    assert {line["first"] for line in lines} == {"m0"}
    assert all(float(line["low"]) <= float(line["difference"]) <= float(line["high"]) for line in lines if line["low"])
    assert all(float(line["difference"]) > 0 for line in lines)


def test_interval_of_many_seeds_is_the_bootstraps() -> None:
    records = [make_record("dafl", seed, final=0.7 + 0.2 * (seed % 10 == 0)) for seed in range(ENOUGH)]
    (row,) = group_records(records)[0].rows
    scores = [record.scores[record.headline] for record in records]
    assert row.score == share_interval(scores)
    assert row.score is not None
    mean, half = mean_interval(scores)
    assert half is not None
    assert row.score.high != pytest.approx(mean + half, rel=1e-3)


def test_interval_of_the_normalised_score_has_the_spread_of_noise_and_kd_in_it() -> None:
    of = {"dafl": (0.70, 0.72, 0.71), "noise": (0.50, 0.52, 0.48), "kd": (0.90, 0.90, 0.91)}
    records = [make_record(name, seed, final=final) for name, each in of.items() for seed, final in enumerate(each)]
    (group,) = group_records(records)
    row = next(row for row in group.rows if row.method == "dafl")
    assert group.normalised_interval(row) == normalised_interval(*of.values())
    kd = group.normalised_interval(next(row for row in group.rows if row.method == "kd"))
    assert kd == (1.0, None, None, "by definition")


def test_brackets_are_explained_under_every_table() -> None:
    found = groups(seeds=3)
    said = "In brackets: two with 'to' between them are the 95 % interval of the mean over seeds, on these test images."
    assert said in notes(found[0])
    assert tex(said) in as_tex(found)
    assert "both scores" in "".join(notes(groups(seeds=2)[0]))
    assert "In brackets" not in "".join(notes(groups(seeds=1)[0]))


def test_equal_seeds_are_said_to_be_equal_and_not_sure() -> None:
    (row,) = group_records(make_record("dafl", seed, final=0.9) for seed in range(3))[0].rows
    assert score_words(row) == "90.0 (3 equal)"


def test_error_of_the_test_set_stands_beside_the_intervals() -> None:
    """355 images and 90 %: 320 of 355 right, of which Wilson's interval is 86.6 to 92.8 %."""
    group = group_records(make_record("dafl", seed, final=0.9) for seed in range(3))[0]
    (said,) = [note for note in notes(group) if "test set" in note]
    assert "355 images" in said
    assert "86.6 to 92.8 %" in said


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
