"""`dfkd query`: the views over folders and archives, what it refuses, and the stored table of a large folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from record_builder import add, alter, make_curve, make_demo, make_record

from bench.cli import answer
from bench.errors import UserError
from bench.records import as_json, load_curves, load_frame, open_results, pack, short_text
from bench.records.archive import write_archive
from bench.records.columns import VIEWS
from bench.records.query import query


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return make_demo(tmp_path / "results")


def test_trials_are_those_of_the_frame(results: Path) -> None:
    add(results, make_record("dafl", 9, "diverged"))
    frame = load_frame(results).sort_values("id")
    found = query([results], "select * from trials order by id")
    assert found.columns == VIEWS["trials"]
    for row, expected in zip(found.objects(), frame.to_dict("records"), strict=True):
        for name in {"id", "status", "task", "method", "seed", "budget", "teacher_sha", "title"}:
            assert row[name] == expected[name]
        if row["status"] == "ok":
            for rule in ("score", "last", "ema", "oracle", "agreement"):
                assert row[rule] == expected[rule]
        else:
            assert row["score"] is None
        assert short_text(json.loads(row["options"])) == expected["options"]


def test_the_rule_of_an_identity_is_a_column_of_old_records_too(results: Path) -> None:
    add(results, make_record("dafl", 9, identity_rule=2))
    found = query([results], "select seed, identity_rule from trials where method = 'dafl' order by seed")
    assert found.rows == [(0, 1), (1, 1), (9, 2)]
    frame = load_frame(results)
    assert sorted(frame[frame.method == "dafl"].identity_rule) == [1, 1, 2]


def test_an_archive_from_before_the_rule_had_versions_is_read(results: Path, tmp_path: Path) -> None:
    import duckdb

    new, old = tmp_path / "new.parquet", tmp_path / "old.parquet"
    write_archive(results, new)
    con = duckdb.connect()
    kept = ", ".join(
        f"'{key.decode()}': '{value.decode()}'"
        for key, value in con.execute(f"SELECT key, value FROM parquet_kv_metadata('{new}')").fetchall()
    )
    con.execute(
        f"COPY (SELECT * EXCLUDE (identity_rule) FROM read_parquet('{new}')) TO '{old}' "
        f"(FORMAT parquet, KV_METADATA {{{kept}}})"
    )
    ask = "select distinct identity_rule from trials"
    assert query([old], ask).rows == query([new, old], ask).rows == [(1,)]


def test_curves_metrics_and_meters_hold_every_number(results: Path) -> None:
    curves = load_curves(results)
    found = query([results], "select id, point, score, teacher_images, logs['loss'] from curves order by id, point")
    assert [row[2:] for row in found.rows] == list(
        curves[["score", "teacher_images", "logs.loss"]].itertuples(index=False, name=None)
    )
    record = make_record("dafl", 1)
    meter = query([results], f"select * from meters where id = '{record.id}'").objects()[0]
    assert {name: meter[name] for name in record.meter.model_dump()} == record.meter.model_dump()
    metric = query([results], f"select * from metrics where id = '{record.id}'").objects()
    assert [(row["kind"], row["name"], row["value"], row["images"]) for row in metric] == [
        ("image", "class_balance", 0.98, 2048)
    ]


def test_every_view_has_the_columns_that_are_documented(results: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "records.md").read_text(encoding="utf-8")
    for view, columns in VIEWS.items():
        assert query([results], f"select * from {view} limit 1").columns == columns
        line = next(line for line in text.splitlines() if line.startswith(f"| `{view}` |"))
        assert not [name for name in columns if f"`{name}`" not in line]


def test_documented_queries_have_answers(results: Path) -> None:
    lines = (Path(__file__).parents[3] / "docs" / "records.md").read_text(encoding="utf-8").splitlines()
    asked = [line.split('"')[1] for line in lines if line.startswith("$ dfkd query")]
    assert len(asked) == 4
    assert all(query([results], sql).rows for sql in asked)


def test_a_trial_in_two_sources_counts_once_and_a_different_one_twice(results: Path, tmp_path: Path) -> None:
    write_archive(results, tmp_path / "a.parquet")
    assert query([results, tmp_path / "a.parquet"], "select count(*) from trials").rows == [(10,)]
    other = open_results(tmp_path / "other", create=True)
    folder = add(other, make_record("dafl", 0))
    alter(folder, scores=make_record("dafl", 0).scores | {"last": 0.5})
    found = query(
        [results, other], "select results, score from trials where method = 'dafl' and seed = 0 order by 1"
    ).rows
    assert sorted(where for where, _ in found) == sorted([str(results), str(other)])
    assert 0.5 in [score for _, score in found]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select scor from trials", "did you mean 'score'"),
        ("select t.methd from trials t", "did you mean 'method'"),
        ("select teacher_images from trials", "teacher_images is a column of curves and meters"),
        ("select * from trial", "did you mean 'trials'"),
        ("selec 1", 'syntax error at or near "selec"'),
        ("", "one SELECT"),
        ("select 1; select 2", "one SELECT"),
        ("copy trials to 'stolen.csv'", "one SELECT"),
        ("explain analyze copy trials to 'stolen.csv'", "one SELECT"),
        ("set enable_external_access = true", "one SELECT"),
        ("attach 'other.db'", "one SELECT"),
        ("drop view trials", "one SELECT"),
        ("select * from read_csv('secret.csv')", "reads only the views"),
        ("select * from read_text('*')", "reads only the views"),
    ],
)
def test_what_is_no_query_of_the_views_is_refused(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.csv").write_text("a\n1\n")
    with pytest.raises(UserError, match=message):
        query([results], sql)
    assert not Path("stolen.csv").exists()


def test_an_empty_folder_has_empty_views(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    for view in VIEWS:
        assert query([results], f"select * from {view}").rows == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "record.json").write_text("{"), r"record\.json is not JSON"),
        (lambda folder: (folder / "record.json").unlink(), r"not a complete trial: it has no record\.json"),
        (lambda folder: (folder / "curve.jsonl").unlink(), r"not a complete trial: it has no curve\.jsonl"),
        (lambda folder: folder.rename(folder.with_name("mine")), r"mine: a trial's folder is named after its id"),
        (lambda folder: folder.rename(folder.with_name("0" * 16)), r"0{16} holds the trial \w+, and a trial's folder"),
        (lambda folder: (folder / "curve.jsonl").write_text('{"progress": \n'), r"curve\.jsonl, line 1 is not JSON"),
    ],
)
def test_a_damaged_file_is_named(results: Path, damage: object, message: str) -> None:
    damage(next((results / "trials").iterdir()))  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        query([results], "select count(*) from trials")


def test_a_record_that_lacks_a_number_is_no_row_of_nulls(results: Path) -> None:
    path = next((results / "trials").iterdir()) / "record.json"
    value = json.loads(path.read_text())
    value["meter"]["steps"] = "many"
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"record\.json: meter\.steps"):
        query([results], "select count(*) from trials")


def test_the_stored_table_of_a_large_folder_follows_its_files(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pack, "FEW", 5)
    read: list[int] = []
    pack_files = pack.pack_files
    monkeypatch.setattr(
        pack, "pack_files", lambda con, root, ids, to: (read.append(len(ids)), pack_files(con, root, ids, to))
    )
    count = "select count(*), sum(score) from trials"
    first = query([results], count).rows
    assert query([results], count).rows == first
    assert read == [10]  # the second query read no record file
    record = make_record("dafl", 7)
    folder = add(results, record)
    assert query([results], count).rows[0][0] == 11
    curve = make_curve(record)[:3]
    (folder / "curve.jsonl").write_text("".join(json.dumps(point) + "\n" for point in curve))
    (folder / "record.json").write_text(as_json(record) + "\n")
    assert query([results], f"select count(*) from curves where id = '{record.id}'").rows == [(3,)]
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert query([results], count).rows == first
    assert read == [10, 1, 1, 0]
    assert query([results], "select count(*) from curves").rows == [(210,)]


def test_formats_of_the_command_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "select method, count(*) as n, avg(score) as mean from trials where method in ('kd', 'dafl') group by 1"
    sql += " order by 1"
    assert answer(["query", sql, "--results", str(results), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["method"], row["n"]) for row in rows] == [("dafl", 2), ("kd", 2)]
    assert answer(["query", sql, "--results", str(results), "--csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "method,n,mean"
    assert float(lines[1].split(",")[2]) == rows[0]["mean"]
    assert answer(["query", sql, "--results", str(results)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["dafl", "2", f"{rows[0]['mean']:.6g}"]
    assert answer(["query", "select id, id from trials limit 1", "--results", str(results), "--csv"]) == 0
    assert capsys.readouterr().out.startswith("id,id_2\n")


def test_a_wrong_query_is_a_users_mistake(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["query", "select scor from trials", "--results", str(results)]) == 2
    assert "did you mean 'score'" in capsys.readouterr().err
    assert answer(["query", "select cast('nan' as double) as x", "--results", str(results), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"x": None}]
