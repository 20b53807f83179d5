"""Fetching: verified before it is in place, nothing twice, and a way on where the network fails. No real network."""

from __future__ import annotations

import functools
import http.server
import threading

import idx_files
import pytest
from idx_files import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS, labels_file, pack, write

from bench import data
from bench.data.digits import bundled
from bench.errors import UserError

FILES = idx_files.tiny_files()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def _no_other_folders(monkeypatch, tmp_path):
    monkeypatch.delenv("DFKD_DATA", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site(tmp_path):
    """A folder with the published archives."""
    return write(tmp_path / "site", idx_files.packed_files(FILES))


@pytest.fixture
def publish(monkeypatch, site):
    """Register the set as published at the given addresses, one folder each; the site's own unless said otherwise."""

    def register(*addresses):
        bases = addresses or (site.as_uri(),)
        source = idx_files.source_of(FILES, lambda name: tuple(f"{base}/{name}.gz" for base in bases))
        monkeypatch.setitem(data.SOURCES, "tiny", source)

    register()
    return register


@pytest.fixture
def server(site):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def names_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("publish")
def test_fetched_files_are_official_unpacked_and_alone(tmp_path):
    target = tmp_path / "target"
    assert data.fetch("tiny", target) == target
    assert names_in(target) == set(FILES)
    assert {status.state for status in data.status("tiny", target)} == {"ok"}
    assert data.load("tiny", size=28, folder=target).train.labels.tolist() == [3, 1, 4, 1, 5, 9]


def test_fetch_over_http_reports_progress(tmp_path, publish, server):
    publish(server)
    seen = []
    data.fetch("tiny", tmp_path / "target", lambda *step: seen.append(step))
    size = len(pack(FILES[TRAIN_IMAGES]))
    assert seen[0] == (TRAIN_IMAGES, size, size)
    assert [name for name, _, _ in seen] == list(FILES)


@pytest.mark.usefixtures("publish")
def test_official_files_are_not_fetched_again(tmp_path, site):
    target = write(tmp_path / "target", {name: FILES[name] for name in (TRAIN_IMAGES, TRAIN_LABELS)})
    for name in (TRAIN_IMAGES, TRAIN_LABELS):
        (site / f"{name}.gz").unlink()
    seen = []
    data.fetch("tiny", target, lambda *step: seen.append(step[0]))
    assert seen == [TEST_IMAGES, TEST_LABELS]
    data.fetch("tiny", target, lambda *step: pytest.fail(f"{step} fetched again"))


@pytest.mark.usefixtures("publish")
def test_truncated_and_corrupted_files_are_replaced(tmp_path):
    target = write(tmp_path / "target", {TRAIN_IMAGES: FILES[TRAIN_IMAGES][:100], f"{TEST_LABELS}.gz": b"?"})
    data.fetch("tiny", target)
    assert {status.state for status in data.status("tiny", target)} == {"ok"}


@pytest.mark.usefixtures("publish")
def test_an_altered_file_is_left_to_its_owner(tmp_path):
    mine = labels_file(0, 0, 0, 0, 0, 0)
    target = write(tmp_path / "target", {TRAIN_LABELS: mine})
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte: altered: .*Move it elsewhere, then fetch again"):
        data.fetch("tiny", target)
    assert names_in(target) == {TRAIN_LABELS}
    assert (target / TRAIN_LABELS).read_bytes() == mine


@pytest.mark.usefixtures("publish")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda official: official[:-1] + b"?", "the archive's md5 is "),
        (lambda official: official + b"more", f"more than the official {len(pack(FILES[TRAIN_LABELS]))} bytes"),
        (lambda official: official[:9], f"ended after 9 of {len(pack(FILES[TRAIN_LABELS]))} bytes"),
    ],
)
def test_a_file_that_is_not_official_is_refused_and_nothing_is_left(tmp_path, site, answer, reason):
    wrong = site / f"{TRAIN_LABELS}.gz"
    wrong.write_bytes(answer(wrong.read_bytes()))
    target = tmp_path / "target"
    with pytest.raises(UserError) as error:
        data.fetch("tiny", target)
    assert f"{wrong.as_uri()}: {reason}" in str(error.value)
    assert names_in(target) == {TRAIN_IMAGES}


@pytest.mark.usefixtures("publish")
def test_an_interrupted_fetch_leaves_nothing_half_written(tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.fetch("tiny", tmp_path / "target", interrupt)
    assert names_in(tmp_path / "target") == set()


def test_the_next_mirror_is_asked(tmp_path, publish, server):
    publish("no address", f"{server}/not/there", server)
    data.fetch("tiny", tmp_path / "target")
    assert {status.state for status in data.status("tiny", tmp_path / "target")} == {"ok"}


def test_network_failure_says_what_to_download_and_where_to_put_it(tmp_path, publish):
    gone = (tmp_path / "gone").as_uri()
    publish(gone, "no address")
    there = {**FILES, TEST_LABELS: b"truncated, and would hide an archive beside it"[:4]}
    del there[TEST_IMAGES]
    target = write(tmp_path / "target", there)
    with pytest.raises(UserError) as error:
        data.fetch("tiny", target)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"tiny could not be fetched: {gone}/{TEST_IMAGES}.gz: ")
    assert f"no address/{TEST_IMAGES}.gz: " in lines[0]
    assert lines[1:] == [
        "To place the files by hand, download",
        f"  {gone}/{TEST_IMAGES}.gz",
        f"    to {target / TEST_IMAGES}.gz",
        f"  {gone}/{TEST_LABELS}.gz",
        f"    to {target / TEST_LABELS}.gz, and delete {target / TEST_LABELS}",
    ]


@pytest.mark.usefixtures("publish")
def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Not a directory"):
        data.fetch("tiny", tmp_path / "file")


@pytest.mark.usefixtures("publish")
def test_without_a_folder_the_files_go_where_some_are_or_else_first_in_the_search(tmp_path, monkeypatch):
    assert data.fetch("tiny") == tmp_path / "cache" / "data"
    monkeypatch.setenv("DFKD_DATA", str(tmp_path / "env"))
    assert data.fetch("tiny") == tmp_path / "cache" / "data"
    assert not (tmp_path / "env").exists()
    assert data.fetch("tiny", tmp_path / "named") == tmp_path / "named"
    assert names_in(tmp_path / "named") == set(FILES)


def test_digits_need_no_fetching():
    assert data.fetch("digits") == bundled().parent
