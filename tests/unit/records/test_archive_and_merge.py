"""Archives hold what they say, word for word; merging drops duplicates, refuses contradictions, overwrites nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from record_builder import add, alter, make_demo, make_record, make_sheet

from bench.analysis.report import render
from bench.cli import answer
from bench.errors import UserError
from bench.records import load_curves, load_frame, load_records, open_results, read_sheets, read_students
from bench.records.archive import archive_left_out, archive_texts, write_archive
from bench.records.merge import Merged, merge
from bench.records.pack import connect
from bench.records.sheets import SHEETS, small_sheet
from bench.spec.custom_tasks import published_of_kept, save_tasks


@pytest.fixture
def results(tmp_path: Path) -> Path:
    results = make_demo(tmp_path / "results")
    add(results, make_record("dafl", 9, "diverged"))
    (results / "study.yaml").write_text("name: demo\n")
    save_tasks(results, [{"name": "own/task", "published": {}}])
    return results


@pytest.fixture
def archive(results: Path, tmp_path: Path) -> Path:
    write_archive(results, tmp_path / "demo.parquet", "all")
    return tmp_path / "demo.parquet"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_archive_reads_like_its_folder(results: Path, archive: Path) -> None:
    assert load_records(archive) == load_records(results)
    assert load_frame(archive).equals(load_frame(results))
    assert load_curves(archive).equals(load_curves(results))
    assert published_of_kept(archive) == published_of_kept(results)
    ids = [record.id for record in load_records(results)]
    assert read_sheets(archive, ids) == read_sheets(results, ids)
    assert len(read_sheets(results, ids)) == 10  # the failure has none


def test_the_trials_of_a_task_lie_together_whoever_wrote_the_archive(results: Path, tmp_path: Path) -> None:
    for number in range(4):
        add(results, make_record("kd", number, task="mnist/lenet5-half"))
    write_archive(results, tmp_path / "one.parquet")
    merge([results], tmp_path / "two.parquet")
    for file in (tmp_path / "one.parquet", tmp_path / "two.parquet"):
        with connect() as con:
            rows = con.execute(f"SELECT task, id FROM read_parquet('{file}')").fetchall()
        assert rows == sorted(rows)
        assert [record.id for record in load_records(file)] == sorted(name for _, name in rows)


def test_some_trials_of_several_tasks_are_read_in_the_order_of_their_ids(results: Path, tmp_path: Path) -> None:
    records = [make_record("kd", seed, task=task) for seed in (0, 1) for task in ("it's/mine", "mnist/lenet5-half")]
    for record in records:
        add(results, record)
    write_archive(results, tmp_path / "one.parquet")
    ids = sorted(record.id for record in records)
    assert [record.id for record in load_records(tmp_path / "one.parquet", [*ids, "0" * 16])] == ids
    assert load_records(tmp_path / "one.parquet", ["0" * 16]) == []


@pytest.mark.slow  # tests/unit/cli/test_archive_for_folder.py has a quick one
def test_a_report_of_an_archive_is_that_of_its_folder(results: Path, archive: Path, tmp_path: Path) -> None:
    render(results, tmp_path / "one")
    render(archive, tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_an_archive_unpacks_into_the_same_files(results: Path, archive: Path, tmp_path: Path) -> None:
    assert merge([archive], tmp_path / "again") == Merged(11, 0, 0, 0)
    assert files(tmp_path / "again") == files(results)


def test_show_says_what_the_archive_does_not_hold(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = make_record("dafl", 0)
    (results / "trials" / record.id / "student.safetensors").write_bytes(b"x" * 100)
    assert answer(["archive", str(results), str(tmp_path / "a.parquet")]) == 0
    assert answer(["show", record.id[:8], "--results", str(tmp_path / "a.parquet")]) == 0
    shown = capsys.readouterr().out
    assert "not in the archive" in shown
    assert "student.safetensors  100 B" in shown
    assert answer(["show", record.id, "--results", str(tmp_path / "a.parquet"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == record.id


def test_what_must_write_refuses_an_archive(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = make_record("dafl", 0)
    with pytest.raises(UserError, match=r"only read; .*`dfkd merge"):
        open_results(archive, create=True)
    assert answer(["score", record.id, "--results", str(archive), "--metrics", "confidence"]) == 2
    assert "archives do not hold the images" in capsys.readouterr().err


def test_what_is_no_archive_is_refused(tmp_path: Path, results: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        open_results(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("not Parquet")
    with pytest.raises(UserError, match="is not an archive"):
        open_results(tmp_path / "text.parquet")
    with pytest.raises(UserError, match=r"must end in \.parquet"):
        write_archive(results, tmp_path / "demo.zip")


def test_nothing_is_overwritten(results: Path, archive: Path, tmp_path: Path) -> None:
    before = archive.read_bytes()
    for write in (lambda: write_archive(results, archive), lambda: merge([results], archive)):
        with pytest.raises(UserError, match="already exists"):
            write()
    with pytest.raises(UserError, match="already exists"):
        merge([archive], results)
    assert archive.read_bytes() == before
    assert not list(tmp_path.glob(".*tmp"))


@pytest.mark.parametrize("out", ["merged", "merged.parquet"])
def test_folders_of_two_machines_are_joined(results: Path, archive: Path, tmp_path: Path, out: str) -> None:
    other = open_results(tmp_path / "other", create=True)
    add(other, make_record("dafl", 5))  # only here
    add(other, make_record("dafl", 0), tmp_path)  # in all three
    add(other, make_record("kd", 0), tmp_path)
    assert merge([archive, other, results], tmp_path / out) == Merged(12, 13, 0, 0)
    found = {record.id: record for record in load_records(tmp_path / out)}
    assert found == {record.id: record for record in [*load_records(results), *load_records(other)]}


def test_the_copy_with_the_most_files_is_taken(results: Path, archive: Path, tmp_path: Path) -> None:
    trial = make_record("dafl", 0).id
    (results / "trials" / trial / "student.safetensors").write_bytes(b"weights")
    merge([archive, results], tmp_path / "merged")
    assert (tmp_path / "merged" / "trials" / trial / "student.safetensors").read_bytes() == b"weights"


def test_a_failure_gives_way_to_the_trial_that_ended_well(results: Path, tmp_path: Path) -> None:
    other = open_results(tmp_path / "other", create=True)
    well = make_record("dafl", 9)
    add(other, well)
    for place, sources in enumerate(([results, other], [other, results])):
        assert merge(sources, tmp_path / f"m{place}").replaced == 1
        assert well in load_records(tmp_path / f"m{place}")


def test_more_image_metrics_are_no_contradiction(results: Path, archive: Path, tmp_path: Path) -> None:
    record = make_record("dafl", 0)
    metrics = record.model_dump(mode="json")["image_metrics"]
    more = metrics | {"confidence": metrics["class_balance"]}
    alter(results / "trials" / record.id, image_metrics=more)
    assert merge([archive, results], tmp_path / "merged").extended == 1
    assert set(load_records(tmp_path / "merged", [record.id])[0].image_metrics) == set(more)
    alter(results / "trials" / record.id, image_metrics={"class_balance": metrics["class_balance"] | {"value": 0.5}})
    with pytest.raises(UserError, match=r"image_metrics\.class_balance\.value = 0\.98"):
        merge([archive, results], tmp_path / "other")


def test_a_contradiction_is_shown_with_both_and_nothing_is_written(
    results: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = make_record("dafl", 0)
    alter(results / "trials" / record.id, agreement=0.123)
    before = set(tmp_path.iterdir())
    assert answer(["merge", str(results), str(archive), "--out", str(tmp_path / "merged")]) == 2
    said = capsys.readouterr().err
    assert f"{record.id}: dafl on digits/lenet5-half, seed 0" in said
    assert f"{results}: agreement = 0.123" in said
    assert f"{archive}: agreement = {record.agreement}" in said
    assert set(tmp_path.iterdir()) == before


def test_another_curve_is_a_contradiction(results: Path, archive: Path, tmp_path: Path) -> None:
    path = results / "trials" / make_record("dafl", 0).id / "curve.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    alter(path.parent)
    with pytest.raises(UserError, match="another curve"):
        merge([archive, results], tmp_path / "merged")


def test_own_tasks_are_joined_and_must_agree(results: Path, tmp_path: Path) -> None:
    other = open_results(tmp_path / "other", create=True)
    save_tasks(other, [{"name": "own/second"}])
    merge([results, other], tmp_path / "merged")
    assert set(published_of_kept(tmp_path / "merged")) == {"own/task", "own/second"}
    assert not (tmp_path / "merged" / "study.yaml").exists()  # only one source has it
    save_tasks(other, [{"name": "own/task", "published": {}, "data": "mnist"}])
    with pytest.raises(UserError, match="define the task 'own/task' differently"):
        merge([results, other], tmp_path / "again")


# ---- which contact sheets are kept ---------------------------------------------------------------------------------


def test_the_same_records_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    for mode in SHEETS:
        one, two, three = (tmp_path / f"{mode}-{number}.parquet" for number in range(3))
        write_archive(results, one, mode)  # type: ignore[arg-type]
        write_archive(results, two, mode)  # type: ignore[arg-type]
        merge([results], three, mode)  # type: ignore[arg-type]
        assert one.read_bytes() == two.read_bytes() == three.read_bytes()


def test_a_record_is_kept_word_for_word_however_it_is_written(results: Path, tmp_path: Path) -> None:
    record = results / "trials" / make_record("kd", 0).id / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()), indent=7) + "\n\n")
    write_archive(results, tmp_path / "a.parquet")
    for name, text in archive_texts(tmp_path / "a.parquet"):
        assert text.encode() == (results / "trials" / name / "record.json").read_bytes()


def test_of_each_task_and_method_one_small_sheet_is_kept(tmp_path: Path) -> None:
    results = open_results(tmp_path / "results", create=True)
    best = [make_record("dafl", seed, options={"lr": 0.1}, final=0.9) for seed in (1, 2)]
    others = [make_record("dafl", seed, options={"lr": 0.2}, final=0.8 + 0.15 * (seed == 0)) for seed in (0, 1)]
    for record in (*best, *others, make_record("dafl", 0, task="mnist/lenet5-half"), make_record("kd", 3)):
        add(results, record, tmp_path)
    (results / "trials" / best[0].id / "images.png").unlink()
    file = tmp_path / "a.parquet"
    write_archive(results, file)
    sheets = read_sheets(file, [record.id for record in load_records(file)])
    # The cell with the best mean, not the best trial; its first seed has no sheet.
    kept = {best[1].id, make_record("dafl", 0, task="mnist/lenet5-half").id, make_record("kd", 3).id}
    assert set(sheets) == kept
    for sheet in sheets.values():
        with Image.open(io.BytesIO(sheet)) as image:
            assert (image.format, image.size) == ("WEBP", (5 * 33 + 1, 5 * 33 + 1))
    assert ("images.png", (results / "trials" / best[1].id / "images.png").stat().st_size) in archive_left_out(
        file, best[1].id
    )
    merge([file], tmp_path / "unpacked")
    assert read_sheets(tmp_path / "unpacked", kept) == sheets
    write_archive(tmp_path / "unpacked", tmp_path / "again.parquet")
    assert read_sheets(tmp_path / "again.parquet", kept) == sheets  # small already
    write_archive(file, tmp_path / "none.parquet", "none")
    assert read_sheets(tmp_path / "none.parquet", kept) == {}


@pytest.mark.slow
def test_a_report_of_small_sheets_has_the_same_numbers_and_curves(results: Path, tmp_path: Path) -> None:
    write_archive(results, tmp_path / "a.parquet")
    render(results, tmp_path / "one")
    render(tmp_path / "a.parquet", tmp_path / "two")
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    differing = {name for name in one | two if one.get(name) != two.get(name)}
    pages = ("tasks/", "trials/", "images/", ".report-files")  # an image file is named by its content
    pictures = {name for name in one | two if name.startswith(pages) or name.endswith("-images.png")}
    assert differing
    assert differing <= pictures
    assert {Path(name).suffix for name in two if name.startswith("images/")} == {".webp"}
    assert b'src="../images/' in two["tasks/digits-lenet5-half.html"]


@pytest.mark.parametrize(
    ("side", "grid", "shown"), [(32, 10, 5), (28, 3, 3), (64, 8, 3), (224, 4, 1), (300, 2, 1), (2, 1, 1)]
)
def test_a_small_sheet_is_cut_between_images(tmp_path: Path, side: int, grid: int, shown: int) -> None:
    sheet = make_sheet(tmp_path / "sheet.png", side=side, grid=grid).read_bytes()
    small = small_sheet(sheet)
    with Image.open(io.BytesIO(small)) as image:
        assert image.size == (shown * (side + 1) + 1,) * 2
    assert small_sheet(sheet) == small == small_sheet(small)


def test_a_sheet_without_white_lines_is_kept_whole_and_a_white_one_too(tmp_path: Path) -> None:
    for shade in (0, 255):
        Image.new("L", (90, 40), shade).save(tmp_path / "sheet.png")
        with Image.open(io.BytesIO(small_sheet((tmp_path / "sheet.png").read_bytes()))) as image:
            assert image.size == (90, 40)


def test_the_students_hash_is_kept(results: Path, tmp_path: Path) -> None:
    trial = make_record("dafl", 0).id
    (results / "trials" / trial / "student.safetensors").write_bytes(b"weights")
    write_archive(results, tmp_path / "a.parquet")
    assert read_students(tmp_path / "a.parquet") == read_students(results)
    assert set(read_students(results)) == {trial}
    merge([tmp_path / "a.parquet"], tmp_path / "unpacked")
    assert read_students(tmp_path / "unpacked") == read_students(results)


def test_an_archive_of_an_earlier_version_is_read(results: Path, archive: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.parquet"
    with connect() as con:
        facts = json.dumps({"schema": 1, "files": {}})
        rows = f"SELECT * EXCLUDE (student) FROM read_parquet('{archive}')"
        con.execute(f"COPY ({rows}) TO '{old}' (FORMAT parquet, KV_METADATA {{dfkd: '{facts}'}})")
    assert load_records(old) == load_records(results)
    assert read_students(old) == {}
    assert merge([old], tmp_path / "new.parquet").trials == 11


def test_an_unknown_word_for_sheets_is_told(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["archive", str(results), str(tmp_path / "b.parquet"), "--sheets", "bes"]) == 2
    assert "unknown --sheets 'bes'; did you mean 'best'" in capsys.readouterr().err
