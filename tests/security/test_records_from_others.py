"""Results from others: nothing is written outside, nothing is believed that a record does not say, no link is followed,
every change is noticed, and whatever is damaged is one sentence."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from record_builder import add, alter, make_curve, make_record, make_sheet

from bench.cli import answer
from bench.errors import UserError
from bench.records import (
    as_json,
    load_curves,
    load_frame,
    load_record,
    load_records,
    log_end,
    open_results,
    read_columns,
    read_curves,
    read_outline,
    read_sheets,
    read_students,
    trial_ids,
    write_trial,
)
from bench.records.archive import write_archive
from bench.records.folder import load_finished, read_curve
from bench.records.foreign import brief, checksum_of, parse
from bench.records.merge import merge
from bench.records.query import query

TRIAL = make_record("dafl", 0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results and the archive that each test gets a copy of."""
    top = tmp_path_factory.mktemp("made")
    results = open_results(top / "results", create=True)
    files = {"images.png": make_sheet(top / "sheet.png")}
    for name in ("student.safetensors", "images.safetensors", "log.txt"):
        (top / name).write_bytes(f"content of {name}".encode())
        files[name] = top / name
    write_trial(results, TRIAL, make_curve(TRIAL), files)
    add(results, make_record("kd", 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFKD_CACHE", str(top / "cache"))
        write_archive(results, top / "good.parquet", "all")
    return top


@pytest.fixture
def results(_made: Path, tmp_path: Path) -> Path:
    """Two trials, of which the first has all the files that a trial can have."""
    shutil.copytree(_made / "results", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def archive(_made: Path, tmp_path: Path) -> Path:
    """The same as an archive."""
    shutil.copy(_made / "good.parquet", tmp_path)
    return tmp_path / "good.parquet"


def older(trial: Path) -> None:
    """Make a record one from before there were checksums."""
    value = json.loads((trial / "record.json").read_text())
    del value["checksum"], value["files"]
    (trial / "record.json").write_text(json.dumps(value))


def forged(archive: Path, change: str, facts: dict[str, Any] | None = None) -> Path:
    """Another archive: ``change`` is what follows SELECT, of the rows of a good one."""
    file = archive.with_name("forged.parquet")
    file.unlink(missing_ok=True)
    with duckdb.connect() as con:
        known = "SELECT decode(value) FROM parquet_kv_metadata($f) WHERE decode(key) = 'dfkd'"
        (text,) = con.execute(known, {"f": str(archive)}).fetchone() or ("",)
        text = (json.dumps(facts) if facts is not None else text).replace("'", "''")
        con.execute(
            f"COPY (SELECT {change} FROM read_parquet('{archive}')) TO '{file}' "
            f"(FORMAT parquet, KV_METADATA {{dfkd: '{text}'}})"
        )
    return file


def everything(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


READERS: dict[str, Callable[[Path], object]] = {
    "records": load_records,
    "frame": load_frame,
    "curves": load_curves,
    "outline": read_outline,
    "columns": lambda results: read_columns(results, trial_ids(results), ["score"]),
    "query": lambda results: query([results], "select * from trials"),
    "archive": lambda results: write_archive(results, results.parent / "new.parquet"),
    "merge": lambda results: merge([results], results.parent / "merged"),
    "merge into an archive": lambda results: merge([results], results.parent / "merged.parquet"),
}
CHECKING = {name: read for name, read in READERS.items() if name not in ("curves", "columns")}  # what a record says
COMMANDS = {
    "query": ["query", "select * from trials", "--results", "{}"],
    "archive": ["archive", "{}", "{}.new.parquet"],
    "merge": ["merge", "{}", "--out", "{}.merged"],
    "report": ["report", "--results", "{}", "--out", "{}.report"],
    "site": ["site", "{}", "--out", "{}.site"],
    "show": ["show", TRIAL.id, "--results", "{}"],
    "compare": ["compare", "{}", "{}"],
}


def crossed(changes: Iterable[str]) -> list[Any]:
    """Parameters: the first change for all that read an archive, the others for one of them; all for all is slow."""
    first, *others = changes
    slow = [pytest.param(change, "all", marks=pytest.mark.slow) for change in others]
    return [(first, "all"), *((change, "one") for change in others), *slow]


def some(names: Iterable[str], by: str) -> list[str]:
    return list(names) if by == "all" else ["query"]


def refused(command: str, results: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says of results that it refuses: one sentence, without a traceback."""
    before = everything(results.parent)
    began = time.process_time()
    assert answer([word.format(results) for word in COMMANDS[command]]) == 2
    assert time.process_time() - began < 10  # of the processor; a report is imported first
    said = capsys.readouterr().err
    assert said.startswith("dfkd: ")
    assert len(said.splitlines()) == 1
    assert said.rstrip("\n").isprintable()
    after = {path for path in everything(results.parent) if "/cache" not in path}
    assert after <= before
    return said


# ---- ids and paths -------------------------------------------------------------------------------------------------

NAMES = ["../../x", "/tmp/x", "..", ".", "", "C:\\x", "x/y", "\u202e0123", "0" * 15, "0" * 17, "0" * 5_000, "A" * 16]


@pytest.mark.parametrize(("name", "by"), crossed([*NAMES, "0123456789abcde\n"]))
def test_an_archive_whose_ids_are_paths_writes_nothing(archive: Path, name: str, by: str, tmp_path: Path) -> None:
    said = name.replace("'", "''")
    before = everything(tmp_path)
    for change in (
        f"* REPLACE ('{said}' AS id)",
        f"* REPLACE ('{said}' AS id, json_merge_patch(record, '{json.dumps({'id': name})}')::VARCHAR AS record)",
    ):
        file = forged(archive, change)
        for reader in some(READERS, by):
            with pytest.raises(UserError):
                READERS[reader](file)
        for out in ("out", "out.parquet") if by == "all" else ("out",):
            assert answer(["merge", str(file), "--out", str(tmp_path / out)]) == 2
        file.unlink()
    assert {path for path in everything(tmp_path) if "/cache" not in path} == before


@pytest.mark.parametrize(
    "name", ["../evil", "speed/../../evil.json", "/tmp/evil", "speed/a\0.json", "study.yaml/../x", "trials/x", "speed/"]
)
def test_files_beside_the_trials_of_an_archive_stay_inside(archive: Path, name: str, tmp_path: Path) -> None:
    file = forged(archive, "*", {"schema": 1, "files": {name: "evil"}})
    before = everything(tmp_path)
    for out in ("out", "out.parquet"):
        assert answer(["merge", str(file), "--out", str(tmp_path / out)]) == 2
    assert answer(["report", "--results", str(file), "--out", str(tmp_path / "report")]) == 2
    assert everything(tmp_path) == before


@pytest.mark.parametrize("files", [[], "x", {"study.yaml": 3}, {"tasks.json": "[3]"}, {"tasks.json": "{}"}])
def test_files_of_the_wrong_kind_beside_the_trials_of_an_archive(archive: Path, files: object, tmp_path: Path) -> None:
    file = forged(archive, "*", {"schema": 1, "files": files})
    assert answer(["merge", str(file), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["x", "0" * 15, "..0123456789abcdef", "0123456789ABCDEF", "0" * 200, "a\nb", "a\x1bb"])
def test_a_folder_that_is_named_like_no_trial_is_told(
    results: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "trials" / TRIAL.id).rename(results / "trials" / name)
    if name.startswith("."):  # as a part that a killed run left behind
        assert trial_ids(results) == [make_record("kd", 0).id]
    else:
        assert "a trial's folder is named after its id" in refused("query", results, capsys)


def test_a_trial_is_asked_for_by_its_id_alone(results: Path) -> None:
    for name in ("../trials", f"../trials/{TRIAL.id}", f"{TRIAL.id}/.", f"./{TRIAL.id}"):
        for read in (read_curves, load_records, read_sheets, lambda root, ids: log_end(root, ids[0], 3)):
            with pytest.raises(UserError, match="is not the id of a trial"):
                read(results, [name])
        assert answer(["show", name, "--results", str(results)]) == 2


@pytest.mark.slow
def test_a_method_or_task_with_slashes_gives_pages_inside_the_report(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    for name in ("../../../evil", "/etc/evil", "a\\..\\b", "..", "x" * 500, "a\u202eb"):
        add(results, make_record(name, 0, task=f"{name}/lenet5"))
    before = everything(tmp_path)
    assert (
        answer(["report", "--results", str(results), "--out", str(tmp_path / "a" / "b" / "report")]) == 0
    )  # with pages of trials
    made = everything(tmp_path) - before
    inside = str(tmp_path / "a" / "b" / "report")
    assert all(path.startswith(inside) or path in (str(tmp_path / "a"), str(tmp_path / "a" / "b")) for path in made)
    assert all(len(Path(path).name) < 200 for path in made)


# ---- a record is that of its trial ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", CHECKING)
@pytest.mark.parametrize("key", ["seed", "method", "options"])
def test_a_record_of_another_trial_is_noticed_by_every_reader(results: Path, reader: str, key: str) -> None:
    trial = TRIAL.trial.model_dump(mode="json")
    trial |= {key: {"seed": 7, "method": "better", "options": {"batch": 1}}[key]}
    alter(results / "trials" / TRIAL.id, trial=trial)  # with checksums that fit
    with pytest.raises(UserError, match="the id is not the hash of the trial"):
        CHECKING[reader](results)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_a_record_of_another_trial(
    results: Path, archive: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = TRIAL.trial.model_dump(mode="json") | {"seed": 7}
    alter(results / "trials" / TRIAL.id, trial=trial)
    assert "the id is not the hash of the trial" in refused(command, results, capsys)
    patch = """json_merge_patch(record, '{"trial": {"seed": 7}, "checksum": null}')::VARCHAR"""
    assert "the id is not the hash of the trial" in refused(
        command, forged(archive, f"* REPLACE ({patch} AS record)"), capsys
    )


# ---- an archive's columns are those of its records -----------------------------------------------------------------

LIES = {
    "score": "0.999::DOUBLE",
    "status": "'ok '",
    "method": "'mine'",
    "task": "'mnist/lenet5-half'",
    "seed": "5::BIGINT",
    "data": "'none'",
    "options": "'{}'::JSON",
    "oracle": "NULL::DOUBLE",
    "teacher_sha": "'x'",
    "meter": "struct_update(meter, seconds := 0.1::DOUBLE)",
    "metrics": "metrics[1:0]",
    "suite": "'9'",
    "study": "'x'",
    "identity_rule": "9::BIGINT",
    "memory_format": "'channels_last'",
    "title": "'Best'",
    "finished": "NULL::VARCHAR",
}


@pytest.mark.parametrize(("name", "by"), crossed(LIES))
def test_a_column_that_is_not_what_the_record_says_is_refused(archive: Path, name: str, by: str) -> None:
    file = forged(archive, f"* REPLACE ({LIES[name]} AS {name})")
    for reader in some(READERS, by):
        with pytest.raises(UserError, match=f"the column '{name}' is not what the record says"):
            READERS[reader](file)


def test_the_digest_of_an_archive_hides_no_contradiction(results: Path, archive: Path, tmp_path: Path) -> None:
    """What tells copies apart is made again: two different records with one digest are still two."""
    alter(results / "trials" / TRIAL.id, scores=TRIAL.scores | {"last": 0.999})
    file = tmp_path / "other.parquet"
    write_archive(results, file)
    file = forged(file, "* REPLACE ('0' AS digest)")
    twin = file.rename(tmp_path / "twin.parquet")
    other = forged(archive, "* REPLACE ('0' AS digest)")
    with pytest.raises(UserError, match=r"1 trials differ under the same id"):
        merge([twin, other], tmp_path / "out")
    assert query([twin, other], f"select count(*) from trials where id = '{TRIAL.id}'").rows == [(2,)]
    assert query([archive, other], "select count(*) from trials").rows == [(2,)]


@pytest.mark.parametrize(
    ("change", "by"),
    crossed([
        "id, record",
        "* EXCLUDE (curve)",
        "* EXCLUDE (record)",
        "*, 1 AS more",
        "* REPLACE (seed::VARCHAR AS seed)",
        "* REPLACE ([] AS curve)",
        "* REPLACE (NULL::VARCHAR AS record)",
        "* REPLACE (list_transform(curve, lambda p: NULL) AS curve)",
        "* REPLACE ([NULL]::STRUCT(name VARCHAR, size BIGINT)[] AS left_out)",
        "* REPLACE ('{'::VARCHAR AS record)",
        "* REPLACE (repeat('[', 100000) AS record)",
        "1 AS x",
        "* REPLACE (curve[1:5] AS curve)",
        "* REPLACE ('0' AS student)",
        "* REPLACE (record || ' ' AS record), 1 AS id_2",
        "* FROM (SELECT unnest([1, 2]), * FROM (SELECT * FROM read_parquet('{archive}'))) SELECT * EXCLUDE (unnest)",
    ]),
)  # fmt: skip
def test_archives_of_other_columns_are_refused(
    archive: Path, change: str, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "unnest" in change:
        file = archive.with_name("twice.parquet")
        with duckdb.connect() as con:
            rows = f"SELECT * FROM read_parquet('{archive}')"
            con.execute(f"COPY ({rows} UNION ALL {rows}) TO '{file}' (KV_METADATA {{dfkd: '{{\"schema\": 1}}'}})")
    else:
        file = forged(archive, change)
    for command in some(COMMANDS, by):
        refused(command, file, capsys)


# ---- links ---------------------------------------------------------------------------------------------------------

FILES = ["record.json", "curve.jsonl", "student.safetensors", "images.safetensors", "images.png", "log.txt"]


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_a_trial_is_followed_by_no_reader(results: Path, name: str, tmp_path: Path) -> None:
    file = results / "trials" / TRIAL.id / name
    file.rename(tmp_path / "secret")
    file.symlink_to(tmp_path / "secret")
    for reader, read in READERS.items():
        if name == "curve.jsonl" or reader not in ("curves", "columns"):  # these read nothing else
            with pytest.raises(UserError, match="is a symbolic link"):
                read(results)
    ids = [TRIAL.id]
    for reads, read in {
        "images.png": lambda: read_sheets(results, ids),
        "student.safetensors": lambda: read_students(results),
        "log.txt": lambda: log_end(results, TRIAL.id, 5),
    }.items():
        if reads == name:
            with pytest.raises(UserError, match="is a symbolic link"):
                read()
    assert answer(["show", TRIAL.id, "--results", str(results)]) == 2
    assert answer(["report", "--results", str(results), "--out", str(tmp_path / "report")]) == 2
    assert not (tmp_path / "merged").exists()
    assert not (tmp_path / "new.parquet").exists()


@pytest.mark.parametrize("what", ["trial", "trials", "inner", "study.yaml", "speed"])
def test_a_link_to_a_folder_or_beside_the_trials_is_not_followed(results: Path, what: str, tmp_path: Path) -> None:
    trial = results / "trials" / TRIAL.id
    place = {"trial": trial, "trials": trial.parent, "inner": trial / "more" / "deep"}.get(what, results / what)
    if not place.exists():
        place.parent.mkdir(exist_ok=True)
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret" / "0.json").write_text("{}")
    else:
        place.rename(tmp_path / "secret")
    place.symlink_to(tmp_path / "secret")
    for write in (lambda: merge([results], tmp_path / "out"), lambda: write_archive(results, tmp_path / "a.parquet")):
        with pytest.raises(UserError, match="is a symbolic link"):
            write()
    assert not (tmp_path / "out").exists()


def test_a_pipe_in_a_trial_stops_nobody(results: Path, tmp_path: Path) -> None:
    for name in ("record.json", "extra"):
        other = tmp_path / name
        shutil.copytree(results, other)
        (other / "trials" / TRIAL.id / name).unlink(missing_ok=True)
        os.mkfifo(other / "trials" / TRIAL.id / name)
        with pytest.raises(UserError):
            merge([other], tmp_path / "out")


# ---- checksums -----------------------------------------------------------------------------------------------------


def flips(content: bytes, every: int) -> Iterator[bytes]:
    """The content with one bit of every so many bytes flipped."""
    for place in range(0, len(content), every):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        yield bytes(changed)


def test_a_flipped_bit_of_a_record_is_noticed(results: Path) -> None:
    file = results / "trials" / TRIAL.id / "record.json"
    whole = file.read_bytes()
    same = json.loads(whole)
    for changed in flips(whole, 1):
        file.write_bytes(changed)
        with pytest.raises(UserError):
            load_record(file)
            assert json.loads(changed) == same  # 1e-05 is 1E-05
            raise UserError


def test_a_flipped_bit_of_a_curve_is_noticed(results: Path) -> None:
    file = results / "trials" / TRIAL.id / "curve.jsonl"
    files = load_record(file.parent).files
    for changed in flips(file.read_bytes(), 3):
        file.write_bytes(changed)
        with pytest.raises(UserError):
            read_curve(file.parent, files)


def digit(text: str, key: str) -> str:
    """The text with the last digit of a key's first number changed: still JSON, and still a score."""
    start = text.index(f'"{key}": ') + len(key) + 4
    end = next(place for place in range(start, len(text)) if text[place] in ",}\n")
    return text[: end - 1] + str((int(text[end - 1]) + 1) % 10) + text[end:]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("name", "key"), [("record.json", "last"), ("curve.jsonl", "score"), ("curve.jsonl", "steps")])
def test_a_changed_digit_is_noticed_by_every_reader(results: Path, reader: str, name: str, key: str) -> None:
    if name == "curve.jsonl" and reader in ("records", "frame", "outline"):
        pytest.skip("does not read curves")
    file = results / "trials" / TRIAL.id / name
    file.write_text(digit(file.read_text(), key))
    with pytest.raises(UserError, match="has changed since it was written"):
        READERS[reader](results)


@pytest.mark.parametrize("change", ["record", "curve"])
def test_a_changed_digit_in_an_archive_is_noticed_by_every_reader(archive: Path, change: str) -> None:
    if change == "record":
        file = forged(archive, "* REPLACE (replace(record, '\"steps\": 312', '\"steps\": 313') AS record)")
    else:
        points = "list_transform(curve, lambda p, i: CASE WHEN i = 3 THEN curve[4] ELSE p END)"
        file = forged(archive, f"* REPLACE ({points} AS curve)")
    for read in READERS.values():
        with pytest.raises(UserError, match="has changed since it was written"):
            read(file)


@pytest.mark.parametrize("name", ["student.safetensors", "images.safetensors", "images.png"])
def test_a_changed_file_beside_a_record_is_noticed_when_it_is_used(results: Path, name: str, tmp_path: Path) -> None:
    file = results / "trials" / TRIAL.id / name
    file.write_bytes(file.read_bytes() + b"x")
    uses = {
        "images.png": lambda: read_sheets(results, [TRIAL.id]),
        "student.safetensors": lambda: read_students(results),
    }
    for use in (uses.get(name), lambda: merge([results], tmp_path / "out")):
        if use is not None:
            with pytest.raises(UserError, match="has changed since it was written"):
                use()
    assert not (tmp_path / "out").exists()


def test_a_record_from_before_there_were_checksums_is_read_and_stays_as_it_is(results: Path, tmp_path: Path) -> None:
    for trial in (results / "trials").iterdir():
        older(trial)
    before = (results / "trials" / TRIAL.id / "record.json").read_bytes()
    assert load_records(results)[0].checksum is None
    assert "checksum" not in as_json(load_records(results)[0])
    for read in READERS.values():
        read(results)
    merge([tmp_path / "new.parquet"], tmp_path / "again")
    assert (tmp_path / "again" / "trials" / TRIAL.id / "record.json").read_bytes() == before


def test_a_checksum_is_what_the_documentation_says(results: Path) -> None:
    trial = results / "trials" / TRIAL.id
    value = json.loads((trial / "record.json").read_text())
    assert value["checksum"] == checksum_of(value)
    assert set(value["files"]) == {"curve.jsonl", "images.png", "images.safetensors", "student.safetensors"}
    assert load_finished(trial) == TRIAL


# ---- damaged and foreign files -------------------------------------------------------------------------------------

JSON = {
    "nothing": "",
    "half": '{"schema": 1, "id": ',
    "a list": "[]",
    "nested": "[" * 100_000 + "]" * 100_000,
    "nested objects": '{"a":' * 5_000 + "1" + "}" * 5_000,
    "a NUL": '{"schema": 1, "id": "a\\u0000b"}',
    "half a pair": '{"schema": 1, "id": "\\ud800"}',
    "NaN": '{"schema": 1, "id": NaN}',
    "infinity": '{"schema": 1, "id": -Infinity}',
    "beyond a double": '{"schema": 1, "id": 1e999}',
    "beyond 64 bits": '{"schema": 1, "id": 99999999999999999999}',
    "very many digits": '{"schema": 1, "id": ' + "9" * 100_000 + "}",
    "a key twice": '{"schema": 1, "schema": 1}',
    "escapes": '{"schema": 1, "\\u001b[31mred": 1}',
    "a later schema": '{"schema": 99}',
    "no bytes of text": b"\xff\xfe\x00\x01",
}


@pytest.mark.parametrize("content", JSON.values(), ids=JSON.keys())
@pytest.mark.parametrize("name", ["record.json", "curve.jsonl", "results.json", "tasks.json"])
def test_damaged_json_is_one_sentence(
    results: Path, name: str, content: str | bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = results / "trials" / TRIAL.id
    if (name, content) in ((("tasks.json", "[]")), ("results.json", JSON["escapes"])):
        pytest.skip("is no mistake here")
    file = (inside if (inside / name).exists() else results) / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert name in refused("report" if name == "tasks.json" else "query", results, capsys)


def test_damaged_and_foreign_archives_are_one_sentence(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = archive.read_bytes()
    with duckdb.connect() as con:
        con.execute(f"COPY (SELECT 1 AS a) TO '{tmp_path / 'other.parquet'}' (FORMAT parquet)")
    contents = {
        "empty": b"",
        "text": b"id,record\n1,2\n",
        "half": whole[: len(whole) // 2],
        "without its end": whole[:-10],
        "without its start": whole[100:],
        "zeros inside": whole[:2000] + bytes(2000) + whole[4000:],
        "foreign": (tmp_path / "other.parquet").read_bytes(),
    }
    for name, content in contents.items():
        file = tmp_path / f"{name.replace(' ', '-')}.parquet"
        file.write_bytes(content)
        for command in COMMANDS:
            refused(command, file, capsys)


def test_text_of_others_is_short_and_plain_in_a_sentence() -> None:
    assert brief("a\x1b[2Jb\n") == "'a\\x1b[2Jb\\n'"
    assert brief("x" * 5000) == f"'{'x' * 60}...' (5,000 characters)"
    with pytest.raises(UserError) as caught:
        parse('{"\\u001b[31m": 1, "\\u001b[31m": 2}', "a file")
    assert "\x1b" not in str(caught.value)


# ---- names and words in reports and on the terminal ----------------------------------------------------------------

EVIL = "a|b`c`<script>x</script>[y](javascript:z)![i](http://e/i.png)~~s~~$\\frac$\n\n# head\n| u | v |\n\x1b[2J\u202e"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    results = open_results(tmp_path / "hostile", create=True)
    long = EVIL + "x" * 5_000
    for value in (1, 2):
        add(results, make_record(EVIL, 0, title=EVIL, options={EVIL: value, "lr": EVIL}))
    add(results, make_record("dafl", 0, "crashed", title=EVIL, reason=long))
    add(results, make_record("kd", 0, "unsupported", reason=long))
    for method in ("kd", "noise"):
        add(results, make_record(method, 1, title=EVIL))
    return results


def test_markdown_and_latex_show_the_words_of_others_and_obey_none(hostile: Path, tmp_path: Path) -> None:
    from markdown_it import MarkdownIt

    from bench.analysis.report.pages.exports import tex

    report = ["report", "--results", str(hostile), "--out", str(tmp_path / "report"), "--trial-pages", "0"]
    assert answer(report) == 0
    text = (tmp_path / "report" / "leaderboard.md").read_text()
    assert "\x1b" not in text
    assert "\u202e" not in text
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inner = [each for token in tokens for each in (token, *(token.children or []))]
    assert not {"html_block", "html_inline", "link_open", "s_open", "code_inline", "fence"} & {t.type for t in inner}
    assert all(str(t.attrs["src"]).startswith("figures/") for t in inner if t.type == "image")
    assert "head" not in [tokens[place + 1].content for place, t in enumerate(tokens) if t.type == "heading_open"]
    width = 0
    for token in tokens:
        width = 0 if token.type == "tr_open" else width + (token.type in ("td_open", "th_open"))
        if token.type == "thead_open":
            wanted = 0
        if token.type == "tr_close":
            wanted = wanted or width
            assert width == wanted
    assert "characters)" in text  # the reason is cut, with its length
    assert "x" * 1_000 not in text
    # and so does LaTeX
    text = (tmp_path / "report" / "leaderboard.tex").read_text()
    assert "\x1b" not in text
    assert r"\textbar{}b" in text
    assert r"\\|" not in text
    assert tex(r"\input{/etc/passwd} $x$ #1 %") == (r"\textbackslash{}input\{/etc/passwd\} \$x\$ \#1 \%")
    assert tex("[3cm]").startswith("{}")


@pytest.mark.parametrize(
    "command",
    [
        ["show", "{id}", "--results", "{}"],
        ["show", "{id}", "--results", "{}", "--json"],
        ["query", "select * from trials", "--results", "{}"],
        ["query", "select * from trials", "--results", "{}", "--json"],
        ["compare", "{}", "{other}"],
        ["compare", "{}", "{other}", "--markdown"],
        ["merge", "{}", "{changed}", "--out", "{}.merged"],
    ],
    ids=lambda command: " ".join(command[:1] + command[-1:]),
)
def test_nothing_of_others_has_power_over_the_terminal(
    hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(hostile, changed)
    worst = next(record for record in load_records(changed) if record.trial.method == EVIL)
    alter(changed / "trials" / worst.id, study=EVIL)
    other = open_results(tmp_path / "other", create=True)
    add(other, make_record("dafl", 0, "ok"))
    places = {"{}": str(hostile), "{id}": worst.id, "{other}": str(other), "{changed}": str(changed)}
    words = []
    for word in command:
        for key, value in places.items():
            word = word.replace(key, value)
        words.append(word)
    assert answer(words) in (0, 1, 2, 3)
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert all(line.isprintable() for line in text.split("\n"))
    assert said.out or said.err


def test_a_long_reason_is_cut_with_its_length(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worst = next(record for record in load_records(hostile) if record.status == "crashed")
    assert answer(["show", worst.id, "--results", str(hostile)]) == 0
    said = capsys.readouterr().out
    assert f"... ({len(worst.reason):,} characters)" in said
    assert "x" * 3_000 not in said
