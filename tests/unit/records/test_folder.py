"""Records: the schema is guarded, trials are written whole or not at all, damage is named."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from record_builder import add, make_curve, make_demo, make_record, make_sheet

from bench.errors import UserError
from bench.records import (
    SCHEMA,
    CurvePoint,
    Record,
    as_json,
    load_curves,
    load_frame,
    load_record,
    load_records,
    locate,
    open_results,
    read_curve,
    short_text,
    trial_id,
    write_trial,
)

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return open_results(tmp_path / "results", create=True)


def test_schema_does_not_change_unnoticed() -> None:
    """If old records can no longer be read after a change, raise SCHEMA; then write the golden files again."""
    for model, name in ((Record, "record"), (CurvePoint, "curve")):
        path = GOLDEN / f"{name}.schema.json"
        assert json.loads(path.read_text()) == model.model_json_schema(), f"the schema in {path.name} changed"


def test_every_field_of_the_record_survives_the_file() -> None:
    record = make_record()
    assert Record.model_validate_json(as_json(record)) == record
    assert json.loads(as_json(record))["schema"] == SCHEMA


def test_id_depends_on_every_part_of_the_identity() -> None:
    base = make_record().trial.model_dump(mode="json")
    ids = {trial_id(base)} | {trial_id({**base, key: "other"}) for key in base}
    assert len(ids) == len(base) + 1
    assert all(len(name) == 16 and set(name) <= set("0123456789abcdef") for name in ids)


def test_id_depends_on_nothing_else_than_the_identity() -> None:
    assert make_record(status="crashed").id == make_record().id
    assert trial_id({"a": 1, "b": {"c": 2, "d": 3}}) == trial_id({"b": {"d": 3, "c": 2}, "a": 1})


def test_id_of_a_number_that_json_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        trial_id({"lr": float("nan")})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "0" * 16}, "not the hash"),
        ({"scores": {}}, "no score for the headline"),
        ({"status": "diverged"}, "has no score"),
        ({"scores": {"last": 1.2}}, "less than or equal to 1"),
        ({"scores": {"last": float("nan")}}, "finite"),
        ({"surprise": 1}, "Extra inputs"),
        ({"status": "fine"}, "Input should be 'ok'"),
    ],
)
def test_record_that_contradicts_itself_is_refused(change: dict[str, Any], message: str) -> None:
    value = make_record().model_dump(mode="json", by_alias=True) | change
    with pytest.raises(ValidationError, match=message):
        Record.model_validate(value)


def test_integers_and_floats_of_a_budget_keep_their_kind_so_that_the_id_stays() -> None:
    for budget in ({"seconds": 20}, {"seconds": 20.5}, {"teacher_images": 1000, "gmacs": 3}):
        assert load_like(make_record(budget=budget)).trial.budget == budget


def load_like(record: Record) -> Record:
    return Record.model_validate_json(as_json(record))


def test_new_results_folder_can_be_opened_again(tmp_path: Path) -> None:
    folder = open_results(tmp_path / "a" / "b", create=True)
    assert open_results(folder) == folder
    assert json.loads((folder / "results.json").read_text()) == {"schema": SCHEMA}
    assert sorted(entry.name for entry in folder.iterdir()) == ["results.json", "trials"]


def test_folder_that_is_not_there_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist; `dfkd run STUDY.yaml --results"):
        open_results(tmp_path / "none")


def test_foreign_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(UserError, match="is not a results folder"):
        open_results(tmp_path)
    with pytest.raises(UserError, match="contains other files"):
        open_results(tmp_path, create=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("create", [False, True])
def test_newer_schema_says_which_and_what_is_read(results: Path, create: bool) -> None:
    (results / "results.json").write_text('{"schema": 7}')
    with pytest.raises(UserError, match=f"has schema 7, this version of dfkd reads up to {SCHEMA}"):
        open_results(results, create=create)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "1"}', "{}"])
def test_broken_results_file_is_named(results: Path, text: str) -> None:
    (results / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"results\.json"):
        open_results(results)


def test_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/results.*choose another folder"):
        open_results(tmp_path / "file" / "results", create=True)


def test_written_trial_has_all_its_files(results: Path, tmp_path: Path) -> None:
    record = make_record()
    sheet = make_sheet(tmp_path / "sheet.png")
    folder = write_trial(results, record, make_curve(record), {"images.png": sheet})
    assert folder == results / "trials" / record.id
    assert sorted(entry.name for entry in folder.iterdir()) == ["curve.jsonl", "images.png", "record.json"]
    assert load_record(folder) == record == load_record(folder / "record.json")
    assert read_curve(folder) == make_curve(record)
    assert sheet.exists()


def test_numbers_that_are_not_finite_become_null(results: Path) -> None:
    record = make_record(status="diverged")
    point = make_curve(record)[0] | {"score": float("nan"), "logs": {"loss": float("inf")}}
    folder = write_trial(results, record, [point], {})
    assert read_curve(folder)[0]["score"] is None
    assert read_curve(folder)[0]["logs"] == {"loss": None}


def test_curve_with_an_unknown_key_is_refused_before_anything_is_written(results: Path) -> None:
    record = make_record()
    with pytest.raises(ValidationError, match="mood"):
        write_trial(results, record, [make_curve(record)[0] | {"mood": 1}], {})
    assert list((results / "trials").iterdir()) == []


def test_failure_is_replaced_by_what_follows_it(results: Path) -> None:
    write_trial(results, make_record(status="crashed"), [], {})
    write_trial(results, make_record(status="timed_out"), [], {})
    assert load_records(results)[0].status == "timed_out"
    add(results, make_record())
    assert load_records(results) == [make_record()]
    assert len(list((results / "trials").iterdir())) == 1


@pytest.mark.parametrize("status", ["crashed", "ok"])
def test_finished_trial_is_never_replaced(results: Path, status: str) -> None:
    folder = add(results, make_record())
    before = (folder / "record.json").read_bytes()
    later = make_record(status=status, final=0.5)
    assert write_trial(results, later, [], {}) == folder
    assert (folder / "record.json").read_bytes() == before


@pytest.mark.parametrize("failed_before", [True, False])
@pytest.mark.parametrize("moment", ["while copying", "before the rename"])
def test_trial_that_another_process_finishes_meanwhile_is_kept(
    results: Path, monkeypatch: pytest.MonkeyPatch, moment: str, failed_before: bool
) -> None:
    if failed_before:
        add(results, make_record(status="crashed"))
    log = results.parent / "log.txt"
    log.write_text("...")
    owner, name = (shutil, "copyfile") if moment == "while copying" else (Path, "rename")
    real = getattr(owner, name)

    def interrupted(*arguments: Path) -> Any:
        monkeypatch.setattr(owner, name, real)
        add(results, make_record())  # the other process
        return real(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    monkeypatch.setattr(
        "bench.records.folder._sweep", lambda *_: None
    )  # both are this process, which owns both folders
    monkeypatch.setattr(os, "getpid", iter([1, 2]).__next__)
    folder = write_trial(results, make_record(status="timed_out"), [], {"log.txt": log})
    assert load_record(folder) == make_record()
    assert [entry.name for entry in (results / "trials").iterdir()] == [folder.name]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_leaves_nothing_and_keeps_the_old(
    results: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failed = make_record(status="crashed")
    folder = write_trial(results, failed, [], {})

    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"the disk of .* is full; free some space and run the same command again"):
        add(results, make_record())
    monkeypatch.undo()
    assert load_record(folder) == failed
    assert [entry.name for entry in (results / "trials").iterdir()] == [failed.id]
    add(results, make_record())
    assert load_record(folder).status == "ok"


def test_failure_of_the_last_rename_keeps_the_old(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = make_record(status="crashed")
    folder = write_trial(results, failed, [], {})

    def refuse(_self: Path, _target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match="cannot write to"):
        add(results, make_record())
    monkeypatch.undo()
    assert load_record(folder) == failed
    assert [entry.name for entry in (results / "trials").iterdir()] == [failed.id]


def test_error_that_is_no_system_error_leaves_nothing_either(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        add(results, make_record())
    assert list((results / "trials").iterdir()) == []


def test_unwritable_results_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another folder"):
        write_trial(tmp_path / "file", make_record(), [], {})


def test_missing_source_is_a_mistake_of_the_caller(results: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        write_trial(results, make_record(), [], {"images.png": tmp_path / "nowhere.png"})
    with pytest.raises(ValueError, match=r"record\.json"):
        write_trial(results, make_record(), [], {"record.json": tmp_path / "x"})


def test_leftovers_of_a_killed_process_are_unread_and_swept(results: Path) -> None:
    record = make_record()
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    leftover = results / "trials" / ".new" / f"{record.id}.{int(child.stdout)}.tmp"
    leftover.mkdir(parents=True)
    (leftover / "record.json").write_text("{")
    assert load_records(results) == []
    assert load_frame(results).empty
    add(results, record)
    assert [entry.name for entry in (results / "trials").iterdir()] == [record.id]


def test_what_another_process_is_writing_stays(results: Path) -> None:
    record, other = make_record(), results / "trials" / ".new" / f"{make_record(seed=7).id}.1.tmp"
    other.mkdir(parents=True)
    add(results, record)
    assert other.is_dir()


def test_writing_a_trial_looks_at_no_other(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at all of them for each would make a study's time grow as the square of its trials."""
    add(results, make_record())
    looked: list[str] = []
    for name in ("scandir", "listdir"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path=".", real=real: looked.append(str(path)) or real(path))
    add(results, make_record(seed=1))
    assert str(results / "trials") not in looked


def test_broken_record_names_file_and_key(results: Path) -> None:
    folder = add(results, make_record())
    path = folder / "record.json"
    value = json.loads(path.read_text())
    value["meter"]["seconds"] = "long"
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"record\.json: meter\.seconds: Input should be a valid number"):
        load_record(folder)
    del value["meter"]
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"record\.json: meter: Field required"):
        load_record(folder)
    with pytest.raises(UserError, match=r"record\.json: meter: Field required"):
        load_frame(results)
    path.write_text(json.dumps(value | {"meter": 3}))
    with pytest.raises(UserError, match=r"record\.json: meter: Input should be"):
        load_frame(results)
    path.write_text("{")
    for read in (load_record, lambda _: load_frame(results)):
        with pytest.raises(UserError, match=r"record\.json is not JSON"):
            read(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"is not a complete trial: it has no record\.json; delete the folder"):
        load_record(folder)


def test_record_of_a_newer_schema_is_refused(results: Path) -> None:
    path = add(results, make_record()) / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 2}))
    for read in (lambda: load_record(path), lambda: load_frame(results)):
        with pytest.raises(UserError, match="has schema 2"):
            read()


def test_trial_is_found_by_the_start_of_its_id(results: Path, tmp_path: Path) -> None:
    folders = [add(results, make_record(seed=seed)) for seed in range(17)]
    other = open_results(tmp_path / "other", create=True)
    add(other, make_record(seed=0))
    assert locate([results, other], folders[0].name) == (results, folders[0].name)
    assert locate([tmp_path / "none", results], folders[3].name[:12]) == (results, folders[3].name)
    with pytest.raises(UserError, match="17 trials start with ''"):
        locate([results], "")
    typo = folders[0].name[:-2] + "zz"
    with pytest.raises(UserError, match=f"no trial '{typo}'; did you mean '{folders[0].name}'"):
        locate([results], typo)


def test_frame_has_a_row_per_record_and_no_score_for_failures(tmp_path: Path) -> None:
    results = make_demo(tmp_path / "results")
    add(results, make_record("zskd", seed=5, status="leaked", reason="opened train.npz"))
    frame = load_frame(results).set_index(["method", "seed"])
    assert len(frame) == 11
    good, bad = frame.loc[("dafl", 0)], frame.loc[("zskd", 5)]
    record = make_record("dafl", 0)
    assert good["id"] == record.id
    assert good["score"] == good["last"] == record.scores["last"]
    assert good["oracle"] == record.scores["oracle"]
    assert good["budget"] == "teacher_images=40000"
    assert good["options"] == "batch=128, temperature=4.0"
    assert (good["seconds"], good["teacher_images"], good["teacher_sha"]) == (16.3, 40000, "ab" * 32)
    assert good["image_metrics.class_balance"] == 0.98
    assert good["finished"] == "2026-11-21T10:00:00+00:00"
    assert (bad["status"], bad["reason"]) == ("leaked", "opened train.npz")
    assert frame.loc[[("zskd", 5)], ["score", "last", "oracle", "agreement"]].isna().all(axis=None)
    assert list(load_frame(results)["id"]) == sorted(frame["id"])


def test_frames_of_an_empty_folder_are_empty(results: Path) -> None:
    assert load_frame(results).empty
    assert load_curves(results).empty
    assert "score" in load_frame(results).columns
    assert "score" in load_curves(results).columns


def test_curves_are_one_long_table(tmp_path: Path) -> None:
    results = make_demo(tmp_path / "results")
    record = make_record("kd", 1)
    curves = load_curves(results)
    assert len(curves) == 10 * 21
    one = load_curves(results, [record.id])
    assert set(one["id"]) == {record.id}
    assert list(one["score"]) == [point["score"] for point in make_curve(record)]
    assert list(one["logs.loss"]) == [point["logs"]["loss"] for point in make_curve(record)]


def test_broken_curve_names_file_and_line(results: Path) -> None:
    folder = add(results, make_record())
    path = folder / "curve.jsonl"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match=r"curve\.jsonl, line 21 is not JSON"):
        load_curves(results)
    with pytest.raises(UserError, match=r"there is no .*0000$"):
        load_curves(results, ["0" * 16])
    path.unlink()
    with pytest.raises(UserError, match=r"is not a complete trial: it has no curve\.jsonl; delete the folder"):
        load_records(results)


def test_short_text_does_not_depend_on_the_order() -> None:
    assert short_text({"b": 1, "a": 0.5}) == short_text({"a": 0.5, "b": 1}) == "a=0.5, b=1"


def test_importing_records_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'torchvision', 'pandas', 'matplotlib', 'scipy', 'numpy'}"
    code = f"import sys, bench.records, bench.analysis.stats; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_reports_loads_no_torch() -> None:
    code = "import sys, bench.analysis.report; assert not {'torch', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
