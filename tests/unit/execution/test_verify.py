"""Trials run again and compared with their records: honest ones are verified, changed ones are found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from record_builder import make_curve, make_record

from bench.cli import answer
from bench.execution import verify as module
from bench.execution.verify import Facts, choose, compare
from bench.records import Record, as_json, load_record, load_records, read_beside, trial_id
from bench.records.folder import replace_record
from bench.records.schema import sealed
from bench.records.verified import verified

STUDY = """
name: small
tasks: [digits/lenet5-half]
methods: [noise: {batch: 8}]
seeds: [0, 1]
budget: {steps: 3}
points: 1
selection: [last]
"""


def facts(record: Record, student: str = "aa") -> Facts:
    return Facts(record, make_curve(record), student)


def changed(record: Record, **changes: Any) -> Record:
    return record.model_copy(update=changes)


def elsewhere(record: Record, **changes: Any) -> Record:
    return changed(record, provenance={**record.provenance, **changes})


def test_the_same_is_the_same() -> None:
    record = make_record()
    assert compare(facts(record), facts(record)).outcome == "same bits"
    slower = record.meter.model_copy(update={"seconds": 99.0, "evaluation_seconds": 9.0, "peak_memory_mib": 1.0})
    assert compare(facts(record), facts(changed(record, meter=slower))).outcome == "same bits"


CHANGES: dict[str, Callable[[Record], Record]] = {
    "score of oracle": lambda record: changed(record, scores={**record.scores, "oracle": 1.0}),
    "agreement": lambda record: changed(record, agreement=0.5),
    "teacher_images": lambda record: changed(record, meter=record.meter.model_copy(update={"teacher_images": 1})),
    "steps": lambda record: changed(record, meter=record.meter.model_copy(update={"steps": 1})),
    "images": lambda record: changed(record, images=record.images.model_copy(update={"clipped": 0.75})),
    "class_balance": lambda record: changed(
        record,
        image_metrics={"class_balance": record.image_metrics["class_balance"].model_copy(update={"value": 0.1})},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_number_is_compared(name: str) -> None:
    record = make_record()
    found = compare(facts(CHANGES[name](record)), facts(record))
    assert found.outcome == "differs"
    assert name in found.details


def test_the_images_of_a_version_that_kept_others_are_not_compared() -> None:
    record = make_record()
    older = record.images.model_copy(update={"different": None, "clipped": 0.75})
    found = compare(facts(changed(CHANGES["class_balance"](record), images=older)), facts(record))
    assert (found.outcome, found.details) == (
        "same bits",
        "but for its images: the two versions of the suite keep other images of a trial",
    )
    worse = compare(facts(changed(CHANGES["agreement"](record), images=older)), facts(record))
    assert worse.outcome == "differs"


def test_an_image_metric_that_was_measured_later_may_differ_in_its_last_digits() -> None:
    record = make_record()
    metric = record.image_metrics["class_balance"]
    assert metric.value is not None
    for factor, outcome in ((1 + 1e-7, "same bits"), (1 + 1e-3, "differs")):
        later = metric.model_copy(update={"value": metric.value * factor})
        assert compare(facts(changed(record, image_metrics={"class_balance": later})), facts(record)).outcome == outcome


def test_curves_and_students_are_compared() -> None:
    record = make_record()
    curve = make_curve(record)
    curve[-1] = {**curve[-1], "score": 0.123}
    found = compare(Facts(record, curve, "aa"), facts(record))
    assert (found.outcome, found.details) == ("differs", f"the curve, from its line {len(curve)} on")
    found = compare(facts(record, "aa"), facts(record, "bb"))
    assert (found.outcome, found.details) == ("differs", "the student's weights")
    assert compare(facts(record, ""), facts(record, "bb")).outcome == "same bits"  # an archive of an earlier version
    gone = changed(record, files={"student.safetensors": "aa"})  # its checksum is still in the record
    assert compare(facts(gone, ""), facts(record, "bb")).details == "the student's weights"
    assert compare(facts(gone, ""), facts(record, "aa")).outcome == "same bits"


def test_on_another_machine_scores_must_be_near() -> None:
    record = make_record()
    there = elsewhere(record, device="another processor")
    assert compare(facts(record), facts(there, "bb")).outcome == "within tolerance"
    far = changed(there, scores={**record.scores, "last": record.scores["last"] - 0.021})
    found = compare(facts(record), facts(far))
    assert found.outcome == "differs"
    assert "by more than 2 points: last" in found.details
    assert "another processor" in found.bits
    assert compare(facts(record), facts(far), tolerance=0.03).outcome == "within tolerance"


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (make_record(budget={"seconds": 5.0}), "a budget in seconds"),
        (make_record(deterministic=False), "deterministic: false"),
        (elsewhere(make_record(), versions={"torch": "1.0"}), "torch 1.0 -> "),
        (elsewhere(make_record(), threads=7), "threads 7 -> "),
    ],
)
def test_why_other_bits_are_no_surprise(record: Record, why: str) -> None:
    now = elsewhere(record, versions=make_record().provenance.get("versions", {}), threads=1)
    assert why in compare(facts(record), facts(now)).bits


def test_what_cannot_be_compared_is_not_verified() -> None:
    record = make_record()
    missing = make_record(status="missing_data", reason="there is no SVHN here")
    assert compare(facts(record), facts(missing)).outcome == "not compared"
    assert record.teacher is not None
    teacher = record.teacher.model_copy(update={"sha256": "cd" * 32})
    found = compare(facts(record), facts(changed(record, teacher=teacher)))
    assert found.outcome == "not compared"
    assert "dfkd teacher import" in found.details
    crashed = make_record(status="crashed", reason="ValueError: x")
    assert compare(facts(record), facts(crashed)).outcome == "differs"


def test_a_sample_is_of_the_successful_and_repeats_with_its_seed() -> None:
    records = [make_record(seed=seed) for seed in range(10)] + [make_record(seed=99, status="crashed")]
    chosen = choose(records, 3, seed=5)
    assert len({record.id for record in chosen}) == 3
    assert chosen == choose(reversed(records), 3, seed=5)
    assert any(choose(records, 3, seed) != chosen for seed in range(5))
    assert len(choose(records, None, 0)) == len(choose(records, 50, 0)) == 10
    assert choose(records, 3, 0, [records[4].id, records[10].id]) == [records[4]]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DFKD_DATA", raising=False)
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    assert answer(["run", "study.yaml", "--executor", "inline"]) == 0
    return Path("runs/small")


@pytest.mark.skipif(module.isolated("auto", "cpu").way is None, reason="methods cannot be isolated here")
def test_a_forged_score_is_found_and_shown(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = sorted((results / "trials").iterdir())
    assert answer(["verify", str(results), "--all", "--executor", "inline"]) == 0
    assert "verified 2 of 2 trials" in capsys.readouterr().out
    told = load_record(first).provenance["verified"]
    assert told["outcome"] == "same bits"
    assert (told["trials"], told["of"]) == (2, 2)
    assert "seccomp" in told["isolation"]
    assert not Path("runs/verify/small").exists()  # what ran again is not kept

    record = load_record(second)
    replace_record(second, record.model_copy(update={"scores": {"last": 0.999}}))  # with a checksum that fits
    assert answer(["verify", str(results), "--trial", second.name, "--executor", "inline", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["outcome"] == "differs"
    assert "score of last 0.999 ->" in found["details"]
    assert verified(load_record(second)) is False
    assert verified(load_record(first)) is True

    assert answer(["report", "--results", str(results), "--out", "page"]) == 0
    board = Path("page/leaderboard.md").read_text(encoding="utf-8")
    assert "2 (1 verified, 1 not the same)" in board
    assert f"not what their records say: {second.name}" in board


@pytest.mark.skipif(module.isolated("auto", "cpu").way is None, reason="methods cannot be isolated here")
@pytest.mark.parametrize("same_code", [True, False])
def test_what_was_left_by_other_code_runs_again(
    results: Path, monkeypatch: pytest.MonkeyPatch, same_code: bool
) -> None:
    """An interrupted verification goes on with the trials that it has, if this code made them."""
    ran: list[int] = []
    run_trials = module.run_trials

    def interrupted(waiting: list[Any], *others: Any) -> None:
        ran.append(len(waiting))
        run_trials(waiting, *others)
        if len(ran) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_trials", interrupted)
    chosen = load_records(results)
    values = {"total": 2, "executor": "inline"}
    with pytest.raises(KeyboardInterrupt):
        module.verify(results, chosen, Path("again"), **values)
    assert len(list(Path("again/trials").iterdir())) == 2
    if not same_code:
        monkeypatch.setattr(module, "_suite_code", lambda: "one line was changed")
    found = module.verify(results, chosen, Path("again"), **values)
    assert [each.outcome for each in found] == ["same bits"] * 2
    assert ran == [2, 0 if same_code else 2]


@pytest.mark.skipif(module.isolated("auto", "cpu").way is None, reason="methods cannot be isolated here")
def test_archives_are_verified_and_stay_archives(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["archive", str(results), "small.parquet"]) == 0
    before = {record.id: record for record in load_records(Path("small.parquet"))}
    study = read_beside(Path("small.parquet"), "study.yaml")
    assert answer(["verify", "small.parquet", "--sample", "1", "--seed", "0", "--executor", "inline"]) == 0
    assert "chosen with --seed 0" in capsys.readouterr().out
    after = {record.id: record for record in load_records(Path("small.parquet"))}
    assert after.keys() == before.keys()
    assert [verified(record) for record in after.values()].count(True) == 1
    assert read_beside(Path("small.parquet"), "study.yaml") == study
    for name, record in after.items():
        assert {**record.provenance, "verified": None} == {**before[name].provenance, "verified": None}


def test_other_code_is_not_compared(results: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (first, *_) = sorted((results / "trials").iterdir())
    record = load_record(first)
    trial = record.trial.model_copy(update={"method_sha": "0" * 16})
    other = record.model_copy(update={"trial": trial, "id": trial_id(trial.model_dump(mode="json"))})
    folder = first.rename(first.with_name(other.id))
    (folder / "record.json").write_text(as_json(sealed(other)), encoding="utf-8")
    code = answer(["verify", str(results), "--trial", other.id, "--executor", "inline"])
    out = " ".join(capsys.readouterr().out.split())
    assert code == 3
    assert "not compared" in out
    assert "other code here" in out
    assert verified(load_record(folder)) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["runs/small", "--trial", "zzz"], "--trial zzz: there is no such trial; allowed: "),
        (["runs/small", "--executor", "none"], "unknown executor"),
        (["runs/small", "--pool", "gone"], "--pool gone: there is no such folder"),
        (["runs/small/trials"], "runs/small/trials is not a results folder, but a part of one: name runs/small"),
        (["runs/smal"], "runs/smal does not exist; did you mean 'small'?"),
    ],
)
def test_mistakes_are_sentences(
    results: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert answer(["verify", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert results.is_dir()
    assert not Path("runs/verify").exists()
