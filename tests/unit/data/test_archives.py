"""Sets that are published as one archive or as plain files: fetched whole and official, and nothing else with them."""

from __future__ import annotations

import tarfile
from dataclasses import replace

import cifar_files
import pytest
from cifar_files import ARCHIVE, BATCH_1, BATCH_2, FOLDER, LABELS, META, TEST, entries, python2, tar
from idx_files import md5, write

from bench import data
from bench.cli import answer
from bench.data.source import Archive, SourceFile, Tree
from bench.errors import MissingData, UserError

FILES = cifar_files.tiny_files()
PACKED = tar([(f"{FOLDER}/readme.html", b"<html>"), *FILES.items()])


@pytest.fixture(autouse=True)
def _no_other_folders(monkeypatch, tmp_path):
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def publish(monkeypatch, tmp_path):
    """Register the set as published in an archive of these bytes, below the given folders; the site's own first."""

    def register(packed: bytes = PACKED, *addresses: str) -> None:
        site = write(tmp_path / "site", {ARCHIVE: packed})
        urls = tuple(f"{base}/{ARCHIVE}" for base in addresses or (site.as_uri(),))
        archive = Archive(ARCHIVE, len(packed), md5(packed), urls)
        monkeypatch.setitem(data.SOURCES, "tiny", replace(cifar_files.source_of(FILES), archive=archive))

    register()
    return register


@pytest.fixture
def target(tmp_path):
    return tmp_path / "target"


def names_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}


def failure(target):
    with pytest.raises(UserError) as error:
        data.fetch("tiny", target)
    return str(error.value)


# ---- one archive ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("publish")
def test_fetched_files_are_official_and_nothing_else_is_unpacked(target):
    seen = []
    assert data.fetch("tiny", target, lambda *step: seen.append(step)) == target
    assert names_in(target) == set(FILES)
    assert data.load("tiny", size=32, folder=target).altered == ()
    assert seen[-1] == (ARCHIVE, len(PACKED), len(PACKED))


@pytest.mark.usefixtures("publish")
def test_only_what_is_not_there_or_damaged_is_put_in_place(target):
    write(target, {BATCH_1: FILES[BATCH_1], BATCH_2: FILES[BATCH_2][:50], TEST: b"?"})
    before = (target / BATCH_1).stat().st_mtime_ns
    data.fetch("tiny", target)
    assert {status.state for status in data.status("tiny", target)} == {"ok"}
    assert (target / BATCH_1).stat().st_mtime_ns == before
    data.fetch("tiny", target, lambda *step: pytest.fail(f"{step} fetched again"))


@pytest.mark.usefixtures("publish")
def test_an_altered_file_is_left_to_its_owner(target):
    write(target, {BATCH_1: python2({**entries(BATCH_1), "labels": [0, 0, 0, 0]})})
    assert "data_batch_1: altered: " in failure(target)
    assert "Move it elsewhere, then fetch again" in failure(target)
    assert names_in(target) == {BATCH_1}


def test_an_archive_that_was_placed_by_hand_is_taken_and_kept(target, tmp_path, publish, monkeypatch):
    publish(PACKED, (tmp_path / "gone").as_uri())
    write(target, {ARCHIVE: PACKED})
    assert data.fetch("tiny", target) == target
    assert names_in(target) == {*FILES, ARCHIVE}
    monkeypatch.setenv("DFKD_DATA", str(write(tmp_path / "env", {ARCHIVE: PACKED})))
    assert data.fetch("tiny") == tmp_path / "env"


def test_a_placed_archive_that_is_not_official_is_told_if_the_download_fails(target, tmp_path, publish):
    write(target, {ARCHIVE: PACKED[:-1]})
    data.fetch("tiny", target)
    assert (target / ARCHIVE).read_bytes() == PACKED[:-1]
    publish(PACKED, (tmp_path / "gone").as_uri())
    (target / META).unlink()
    start = f"tiny could not be fetched: {target / ARCHIVE}: the archive's md5 is {md5(PACKED[:-1])}, official "
    assert failure(target).startswith(start)


@pytest.mark.usefixtures("publish")
def test_an_archive_that_lies_there_is_told_with_what_unpacks_it(target, tmp_path, capsys):
    write(target, {ARCHIVE: PACKED})
    with pytest.raises(MissingData) as error:
        data.load("tiny", size=32, folder=target)
    assert str(error.value) == (
        f"tiny: missing from {target}, {tmp_path / 'cache' / 'data'}: {', '.join(FILES)}. "
        f"Run `dfkd data fetch tiny --data {target}`, which unpacks {target / ARCHIVE}"
    )
    assert answer(["data", "status", "tiny", "--data", str(target)]) == 0
    line = f"to fix it: `dfkd data fetch tiny --data {target}`, which unpacks {target / ARCHIVE}\n"
    assert line in capsys.readouterr().out
    assert answer(["data", "fetch", "tiny", "--data", str(target)]) == 0
    assert answer(["data", "verify", "tiny", "--data", str(target)]) == 0


def test_network_failure_says_what_to_download_and_where_to_put_it(target, tmp_path, publish):
    gone = (tmp_path / "gone").as_uri()
    publish(PACKED, gone, "no address")
    lines = failure(target).splitlines()
    assert lines[0].startswith(f"tiny could not be fetched: {gone}/{ARCHIVE}: ")
    assert f"no address/{ARCHIVE}: " in lines[0]
    assert lines[1:] == [
        "To place the files by hand, download",
        f"  {gone}/{ARCHIVE}",
        f"    to {target / ARCHIVE}, and run `dfkd data fetch tiny --data {target}`, which unpacks it",
    ]


@pytest.mark.parametrize(
    ("answered", "reason"),
    [
        (PACKED[:-1] + b"?", "the archive's md5 is "),
        (PACKED + b"more", f"more than the official {len(PACKED)} bytes"),
        (PACKED[:9], f"ended after 9 of {len(PACKED)} bytes"),
    ],
)
@pytest.mark.usefixtures("publish")
def test_an_archive_that_is_not_official_is_refused_and_nothing_is_left(target, tmp_path, answered, reason):
    wrong = write(tmp_path / "site", {ARCHIVE: answered}) / ARCHIVE
    assert f"{wrong.as_uri()}: {reason}" in failure(target)
    assert names_in(target) == set()


@pytest.mark.usefixtures("publish")
def test_an_interrupted_fetch_leaves_nothing_half_written(target):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.fetch("tiny", target, interrupt)
    assert names_in(target) == set()


def link(name: str, kind: bytes, goal: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, goal
    return member


WRONG = python2({**entries(BATCH_1), "labels": [0, 0, 0, 0]})
CUT = tar(FILES.items())[:-200]


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (tar([("../x", b"x"), *FILES.items()]), "its member '../x' points outside the archive"),
        (tar([(f"{FOLDER}/../../x", b"x")]), f"its member '{FOLDER}/../../x' points outside the archive"),
        (tar([("/tmp/x", b"x"), *FILES.items()]), "its member '/tmp/x' points outside the archive"),
        (tar([], link(BATCH_1, tarfile.SYMTYPE, "../../secret")), f"its member '{BATCH_1}' is not a regular file"),
        (tar([], link(BATCH_1, tarfile.LNKTYPE, "/etc/passwd")), f"its member '{BATCH_1}' is not a regular file"),
        (tar([], link(BATCH_1, tarfile.FIFOTYPE, "")), f"its member '{BATCH_1}' is not a regular file"),
        (tar([], link(BATCH_1, tarfile.CHRTYPE, "")), f"its member '{BATCH_1}' is not a regular file"),
        (tar([], link(BATCH_1, tarfile.DIRTYPE, "")), f"its member '{BATCH_1}' is not a regular file"),
        (tar([(BATCH_1, WRONG)]), f"the md5 of data_batch_1 in it is {md5(WRONG)}, official {md5(FILES[BATCH_1])}"),
        (tar([(BATCH_1, b"x")]), f"its member '{BATCH_1}' has 1 bytes, official {len(FILES[BATCH_1])}"),
        (tar([("readme.html", b"x")]), f"it does not contain {', '.join(FILES)}"),
        (b"not an archive", "not a gzip file"),
        (CUT, "Compressed file ended before the end-of-stream marker was reached"),
    ],
)
def test_an_archive_with_anything_but_the_official_files_is_refused(target, tmp_path, publish, packed, reason):
    write(tmp_path, {"secret": FILES[BATCH_1]})
    publish(packed)  # its checksum is right, so that only what it holds can be wrong
    assert f"{ARCHIVE}: {reason}" in failure(target)
    assert names_in(target) <= set(FILES) - {META}  # those before the cut are whole
    assert {status.state for status in data.status("tiny", target)} <= {"ok", "missing"}
    assert not (tmp_path / "x").exists()


def test_links_in_an_archive_are_not_made(target, tmp_path, publish):
    publish(tar(FILES.items(), link(FOLDER, tarfile.SYMTYPE, str(tmp_path / "elsewhere"))))
    data.fetch("tiny", target)
    assert names_in(target) == set(FILES)
    assert not (target / FOLDER).is_symlink()
    assert not (tmp_path / "elsewhere").exists()


# ---- plain files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def plain(monkeypatch, tmp_path):
    """Register the set as published in plain files."""
    site = write(tmp_path / "site", FILES)
    files = tuple(
        SourceFile(
            name, len(each), md5(each), urls=(f"{(site / name).as_uri()}",), images=len(LABELS.get(name, ())) or None
        )
        for name, each in FILES.items()
    )
    monkeypatch.setitem(data.SOURCES, "tiny", replace(cifar_files.source_of(FILES), files=files, archive=None))
    return site


@pytest.mark.usefixtures("plain")
def test_plain_files_are_fetched_as_they_are(target):
    write(target, {BATCH_1: FILES[BATCH_1][:20], TEST: FILES[TEST]})
    seen = []
    assert data.fetch("tiny", target, lambda *step: seen.append(step[0])) == target
    assert seen == [BATCH_1, BATCH_2, META]
    assert names_in(target) == set(FILES)
    assert data.load("tiny", size=32, folder=target).altered == ()


def test_a_plain_file_that_is_not_official_is_refused(target, plain):
    write(plain, {TEST: FILES[TEST][:-1] + b"?"})
    write(target, {META: FILES[META][:9]})
    url = (plain / TEST).as_uri()
    assert failure(target).splitlines() == [
        f"tiny could not be fetched: {url}: the file's md5 is {md5((plain / TEST).read_bytes())}, "
        f"official {md5(FILES[TEST])}.",
        "To place the files by hand, download",
        f"  {url}",
        f"    to {target / TEST}",
        f"  {(plain / META).as_uri()}",
        f"    to {target / META}",
    ]
    assert names_in(target) == {BATCH_1, BATCH_2, META}


# ---- a tree of many files ------------------------------------------------------------------------------------------


def test_a_set_of_many_files_is_placed_by_hand(target, monkeypatch, capsys):
    tree = Tree(
        "Many", lambda root, **_: [replace(found, path=root / "list.txt")], lambda root, size: pytest.fail("read")
    )
    source = replace(cifar_files.source_of({}), tree=tree, archive=None, read=None, parse=None)
    monkeypatch.setitem(data.SOURCES, "tiny", source)
    message = "tiny has no official archive to fetch: put them there yourself"
    assert failure(target) == message
    with pytest.raises(MissingData, match=r"Many\. To fix it, put them there yourself$"):
        data.load("tiny", size=32, folder=target)
    assert answer(["data", "status", "tiny"]) == 0
    assert "  to fix it: put them there yourself\n" in capsys.readouterr().out
    found = replace(data.status("tiny", target)[0], name="Many/list.txt", state="ok")
    (target / "Many").mkdir(parents=True)
    assert data.fetch("tiny", target) == target
    found = replace(found, state="corrupted")
    assert failure(target) == message
