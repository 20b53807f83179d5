"""``dfkd data`` over a small set of our own; no network."""

from __future__ import annotations

import json
from pathlib import Path

import idx_files
import pytest
from idx_files import TEST_IMAGES, TEST_LABELS, write

from bench import data
from bench.cli import answer

FILES = idx_files.tiny_files()


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The set "tiny" is published in a folder; it is not there yet."""
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    folder = write(tmp_path / "site", idx_files.packed_files(FILES))
    monkeypatch.setitem(
        data.SOURCES, "tiny", idx_files.source_of(FILES, lambda name: (f"{folder.as_uri()}/{name}.gz",))
    )
    return folder


def test_fetch_brings_what_is_missing_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["data", "verify", "tiny"]) == 1
    assert answer(["data", "fetch", "tiny"]) == 0
    text = capsys.readouterr().out
    assert "tiny: missing" in text
    assert f"tiny: complete in {tmp_path / 'cache' / 'data'}" in text
    assert answer(["data", "verify", "tiny"]) == 0
    assert capsys.readouterr().out == "tiny: ok\n"
    assert answer(["data", "path", "tiny"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'cache' / 'data'}\n"


def test_a_wrong_name_fetches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["data", "fetch", "tiny", "tinny"]) == 2
    assert capsys.readouterr().err == "dfkd: unknown data set 'tinny'; did you mean 'tiny'?\n"
    assert not (tmp_path / "cache").exists()


def test_status_says_what_is_there_and_what_to_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "data", {**FILES, TEST_LABELS: FILES[TEST_LABELS][:-1]})
    assert answer(["data", "status", "tiny", "--data", str(folder)]) == 0
    text = capsys.readouterr().out
    assert f"  {folder}\n" in text
    assert "tiny: Tiny: 3 ok, 1 truncated" in text
    assert f"truncated  {TEST_LABELS}" in text
    assert "to fix it: `dfkd data fetch tiny`, or put them there yourself" in text


def test_status_as_json_has_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = {TEST_IMAGES: FILES[TEST_IMAGES]}
    folder = write(tmp_path / "data", there)
    assert answer(["data", "status", "tiny", "digits", "--data", str(folder), "--json"]) == 0
    tiny, digits = json.loads(capsys.readouterr().out)
    assert tiny["state"] == "3 missing, 1 ok"
    states = {file["name"]: file["state"] for file in tiny["files"]}
    assert states == {name: "ok" if name in there else "missing" for name in FILES}
    assert tiny["searched"][0] == str(folder)
    assert digits["state"] == "ok"


def test_verify_finds_damage_but_does_not_ask_for_every_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["data", "verify", "digits"]) == 0
    folder = write(tmp_path / "data", {**FILES, TEST_LABELS: idx_files.labels_file(0, 0, 0, 0)})
    assert answer(["data", "verify", "tiny", "--data", str(folder)]) == 1
    assert "altered: md5" in capsys.readouterr().out


def test_paths_are_the_searched_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFKD_DATA", str(tmp_path / "env"))
    assert answer(["data", "path", "--data", str(tmp_path / "named")]) == 0
    expected = [tmp_path / "named", tmp_path / "env", tmp_path / "cache" / "data"]
    assert capsys.readouterr().out.splitlines() == [str(folder) for folder in expected]


def test_the_path_of_a_missing_set_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["data", "path", "tiny"]) == 2
    assert capsys.readouterr().err.startswith("dfkd: tiny is missing; run `dfkd data fetch tiny`, or put")


def test_a_network_failure_is_no_traceback(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in site.rglob("*.gz"):
        file.unlink()
    assert answer(["data", "fetch", "tiny"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("dfkd: tiny could not be fetched")
    assert "Traceback" not in text
