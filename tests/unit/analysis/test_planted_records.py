"""Planted commits of records: shifts of several sizes, a fix, more noise, a speed, a drift, a shock to all, lost seeds.

The seeds differ as those of ``results/tracked`` do, and all bits are new at every commit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from commit_history import commit_file, filed, new_repository, write_records
from record_builder import make_record
from simulate_history import common_shocks
from simulate_power import LEVELS, SPREADS, called, sequential

from bench.analysis.regression.cells import align, cells_of, labels_of
from bench.analysis.regression.compare import Comparison, compare
from bench.analysis.regression.filing import label, open_earlier, open_filed
from bench.analysis.regression.history import History, history, timeline
from bench.analysis.regression.page import history_feed, tables
from bench.analysis.regression.stated import as_stated, statements_of, with_statements
from bench.cli import answer
from bench.records import Record
from bench.utils.git import Commit

SEEDS = 5
PLANTED: list[tuple[str, dict[str, float], dict[str, float]]] = [
    *((f"Refactor {number}", {}, {}) for number in range(5)),  # subject, shift of the levels, factor of the spreads
    ("Lose ten points of dafl", {"dafl": -0.10}, {}),
    ("Fix dafl", {"dafl": 0.10}, {}),
    ("Lose a tenth of a point of kd", {"kd": -0.001}, {}),
    ("More noise in dafl", {}, {"dafl": 6.0}),
]


def draw(
    random: np.random.Generator, levels: Mapping[str, float], factors: Mapping[str, float]
) -> dict[str, list[float]]:
    return {
        method: list(level + random.normal(0, SPREADS[method] * factors.get(method, 1.0), SEEDS))
        for method, level in levels.items()
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Commit]]:
    root = new_repository(tmp_path_factory.mktemp("planted"))
    random, levels, commits = np.random.default_rng(4), dict(LEVELS), {}
    for subject, shifts, factors in PLANTED:
        levels = {method: level + shifts.get(method, 0.0) for method, level in levels.items()}
        head = commit_file(root, "subject.txt", subject, subject)
        label(write_records(root / "results" / "tracked" / head.sha, draw(random, levels, factors)), head)
        commits[subject] = head
    return root, commits


def said(planted: tuple[Path, dict[str, Commit]], subject: str) -> Comparison:
    root, commits = planted
    head = open_filed(commits[subject].sha, root)
    return compare(open_filed(f"{commits[subject].sha}~1", root), head, earlier=open_earlier(head, root))


def test_a_loss_and_its_fix_are_called_and_no_other_score(planted: tuple[Path, dict[str, Commit]]) -> None:
    for subject, verdict, outcome in (
        ("Lose ten points of dafl", "worse", "regression"),
        ("Fix dafl", "better", "undecided"),  # dfad and noise differ by too much from seed to seed
    ):
        found = said(planted, subject)
        assert [(each.method, each.verdict) for each in found.with_verdict("worse", "better", family="score")] == [
            ("dafl", verdict)
        ]
        assert found.outcome == outcome


@pytest.mark.parametrize("subject", ["Refactor 4", "Lose a tenth of a point of kd", "More noise in dafl"])
def test_what_is_no_loss_is_not_called_one(planted: tuple[Path, dict[str, Commit]], subject: str) -> None:
    found = said(planted, subject)
    assert not found.with_verdict("worse", "better", family="score")
    assert found.outcome == "undecided"
    kd = next(number for number in found.numbers if (number.method, number.metric) == ("kd", "accuracy"))
    assert kd.verdict in ("same", "not worse", "undecided")
    noise = next(number for number in found.numbers if (number.method, number.metric) == ("noise", "accuracy"))
    assert noise.visible is not None
    assert noise.needed is not None
    assert noise.visible > 0.15
    assert noise.needed > 500
    told = [note for note in found.notes if "from seed to seed" in note]
    assert [("accuracy of dafl" in note, "differs more" in note) for note in told] == [(True, True)] * (
        subject == "More noise in dafl"
    )


def test_the_history_has_the_loss_and_the_fix_with_their_sizes(planted: tuple[Path, dict[str, Commit]]) -> None:
    root, commits = planted
    found = history(*timeline(root, root / "results" / "tracked"), only=["accuracy"])
    assert {each.method: len(each.steps) for each in found.series} == {"kd": 0, "dafl": 2, "dfad": 0, "noise": 0}
    (dafl,) = [each for each in found.series if each.method == "dafl"]
    lost, fixed = dafl.steps
    assert (lost.last, lost.commit) == (commits["Refactor 4"], commits["Lose ten points of dafl"])
    assert (lost.commits, lost.verdict, fixed.verdict) == ((5, 1), "worse", "better")
    assert lost.low < -0.10 < lost.high < 0 < fixed.low < 0.10 < fixed.high
    assert not found.events
    assert not found.questions


# ---- several commits without git -----------------------------------------------------------------------------------


def series_of(tmp_path: Path, sides: Sequence[Mapping[str, Sequence[float]]], **changes: object) -> History:
    commits = [
        Commit(f"{place:040x}", f"2026-01-{place + 1:02}T00:00:00+00:00", f"C{place}") for place in range(len(sides))
    ]
    found = []
    for place, (commit, scores) in enumerate(zip(commits, sides, strict=True)):
        side = filed(tmp_path / f"{place}", scores)
        found.append(type(side)(side.name, side.folder, commit, side.records, side.bits, side.runs))
    return history(commits, found, only=["accuracy"], **changes)  # type: ignore[arg-type]


def test_seeds_that_are_missing_at_one_commit_weaken_that_commit_alone(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    offsets = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    levels = [0.7] * 6 + [0.6] * 6
    sides = [{"dafl": list(level + offsets + random.normal(0, 0.004, 5))} for level in levels]
    whole = series_of(tmp_path / "whole", sides).series[0]
    sides[2] = {"dafl": sides[2]["dafl"][:1]}  # only the lowest seed: 20 points below the others' mean
    sides[8] = {"dafl": sides[8]["dafl"][:2]}
    found = series_of(tmp_path / "lost", sides).series[0]
    assert [step.index for step in whole.steps] == [step.index for step in found.steps] == [6]
    assert found.levels[2] == pytest.approx(0.7, abs=0.02)  # corrected for the seeds that are there
    assert found.steps[0].after - found.steps[0].before == pytest.approx(-0.1, abs=0.01)


def test_a_shock_to_all_series_is_one_event(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    sides = []
    for place in range(12):
        shock = -0.03 * (place >= 7)
        sides.append({name: list(0.8 + shock + random.normal(0, 0.003, 5)) for name in ("a", "b", "c", "d")})
    found = series_of(tmp_path, sides)
    (event,) = found.events
    assert (event.commit.subject, event.methods, event.verdict) == ("C7", ("a", "b", "c", "d"), "worse")
    assert not any(each.own_steps for each in found.series)
    titles = {title: rows for title, _, rows in tables(found)}
    assert len(titles["Steps of all series together"]) == 1
    assert titles["Steps"] == []


def test_commits_that_all_scatter_together_are_no_steps() -> None:
    false, rounds = common_shocks(40), 40
    assert false <= 0.1 * rounds  # 91 % when the noise was that of the seeds alone


def test_a_drift_is_named_as_one(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    sides = [{"dafl": list(0.9 - 0.006 * place + random.normal(0, 0.003, 5))} for place in range(16)]
    (series,) = series_of(tmp_path, sides).series
    assert series.steps == ()
    assert series.drift is not None
    assert series.drift.verdict == "worse"
    assert series.drift.low < -0.006 * 15 < series.drift.high < 0


def test_the_feed_names_each_thing_once_and_stays_the_same(
    planted: tuple[Path, dict[str, Commit]], tmp_path: Path
) -> None:
    root, _ = planted
    page = tmp_path / "history.html"
    command = ["history", "--repo", str(root), "--metric", "accuracy", "--out", str(page)]
    assert answer(command) == 0
    text = page.with_suffix(".atom").read_bytes()
    feed = ElementTree.fromstring(text)
    atom = "{http://www.w3.org/2005/Atom}"
    titles = [entry.findtext(f"{atom}title") or "" for entry in feed.iter(f"{atom}entry")]
    assert [title.partition(",")[0] for title in titles] == [
        "dafl on digits/lenet5-half: accuracy better",
        "dafl on digits/lenet5-half: accuracy worse",
    ]
    assert len({entry.findtext(f"{atom}id") for entry in feed.iter(f"{atom}entry")}) == 2
    assert 'href="history.atom"' in page.read_text(encoding="utf-8")
    assert answer(command) == 0
    assert page.with_suffix(".atom").read_bytes() == text
    assert history_feed(History([], [], []), "<&") == history_feed(History([], [], []), "<&")


# ---- what the study states -----------------------------------------------------------------------------------------


def stating(record: Record, *entries: list[str], settings: str = "paper") -> Record:
    facts = {"settings": settings, "options": list(entries)}
    return record.model_copy(update={"provenance": {**record.provenance, "stated": facts}})


def test_cells_are_paired_by_what_is_stated_and_else_by_all_options() -> None:
    def side(lr: float, *stated: list[str], batch: int = 8) -> dict[str, object]:
        options = {"batch": batch, "lr": lr}
        records = [make_record("own", seed, options=options) for seed in range(3)]
        return cells_of([stating(each, *stated) if stated else each for each in records])  # type: ignore[return-value]

    def paired(*sides: dict[str, object]) -> list[int]:
        aligned = align(sides)  # type: ignore[arg-type]
        return [len(set.intersection(*(set(each) for each in aligned))), len(set().union(*aligned))]

    assert paired(side(0.1, ["batch"]), side(0.2, ["batch"])) == [1, 1]  # another default
    assert paired(side(0.1, ["lr"]), side(0.2, ["lr"])) == [0, 2]  # another study
    assert paired(side(0.1), side(0.1, ["batch"])) == [1, 1]  # older records do not say
    assert paired(side(0.1), side(0.2, ["batch"])) == [0, 2]
    assert paired(side(0.1), side(0.1, ["batch"]), side(0.2, ["batch"])) == [1, 1]
    assert paired(side(0.1, []), side(0.1, ["batch"])) == [1, 1]  # the study spells a default out
    both = {**side(0.1, []), **side(0.2, ["batch"])}
    assert paired(side(0.1, []), side(0.1, ["batch"]), both) == [1, 2]  # no cell gets lost
    assert len(side(0.1, [], ["batch"])) == 2  # a trial of two entries is in two cells
    labels = labels_of(side(0.1, [], ["batch"]))  # type: ignore[arg-type]
    assert set(labels.values()) == {"own", "own (batch=8)"}


def test_old_records_get_what_was_stated_from_the_study_beside_them(tmp_path: Path) -> None:
    record = make_record("dafl", options={"batch": 64, "temperature": 4.0, "milestones": [0.4, 0.8]})

    def derived(methods: object, name: str = "demo") -> object:
        study = json.dumps({"name": name, "settings": "small", "methods": methods})
        return statements_of(with_statements([record], study, tmp_path)[0])

    assert derived(["kd", "dafl"]) == ("small", ((),))
    assert derived([{"dafl": {"batch": [32, 64], "temperature": 4}}]) == ("small", (("batch", "temperature"),))
    assert derived([{"dafl": {"milestones": [0.4, 0.8]}}, "dafl"]) == ("small", (("milestones",), ()))
    assert derived([{"dafl": {"batch": {"low": 1, "high": 99}}}]) == ("small", (("batch",),))
    assert derived([{"my/own.py": {"batch": 64}}]) == ("small", (("batch",),))
    assert derived([{"dafl": {"batch": 32}}]) is None
    assert derived(["dafl"], name="another") is None
    for text in ("{", "[]", "methods: 3", None):
        assert with_statements([record], text, tmp_path) == [record]


def test_a_trial_is_bisected_with_each_commits_own_defaults() -> None:
    record = make_record("dafl", options={"batch": 64, "temperature": 4.0})
    assert as_stated(record)["methods"] == [{"dafl": {"batch": 64, "temperature": 4.0}}]
    study = as_stated(stating(record, ["batch"], settings="small"))
    assert (study["methods"], study["settings"]) == ([{"dafl": {"batch": 64}}], "small")


# ---- power ---------------------------------------------------------------------------------------------------------


def test_a_loss_of_half_the_former_size_is_called_in_four_of_five_cases() -> None:
    """The measured losses, from more rounds, are in docs/continuous-integration.md."""
    assert called({"dafl": 0.05}, 100, earlier=12)["dafl"] >= 0.7
    assert called({"kd": 0.0145}, 100)["kd"] >= 0.65
    assert called({}, 200)["any"] <= 0.04


def test_several_looks_find_smaller_losses_and_make_no_more_false_alarms() -> None:
    shares, seeds = sequential({"dafl": 0.05}, 60)
    assert shares["dafl"] >= 0.7
    assert seeds["dafl"] < 20  # it stops early
    assert sequential({}, 100)[0]["any"] <= 0.04


def test_speed_alone_can_regress(tmp_path: Path) -> None:
    for name, slow in (("a", 1.0), ("b", 2.0)):
        write_records(tmp_path / name, {"dafl": [0.9, 0.91, 0.92]})
        for run, jitter in enumerate((1.0, 1.02, 0.98)):
            times = {"test_calibration": 0.01, "test_step": 0.2 * slow * jitter}
            marks = [{"fullname": f"t.py::{key}", "stats": {"min": value}} for key, value in times.items()]
            file = tmp_path / name / "speed" / f"{run}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps({"benchmarks": marks, "commit_info": {"id": "none"}}))
    found = compare(open_filed(str(tmp_path / "a")), open_filed(str(tmp_path / "b")))
    assert [number.verdict for number in found.numbers if number.family == "speed"] == ["worse"]
    assert found.outcome == "regression"
