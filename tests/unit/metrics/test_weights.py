"""Weights files of image metrics: found by their sha256 in every place, fetched whole or not at all."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.cli import answer
from bench.errors import MissingWeights, UserError
from bench.metrics import weights
from bench.metrics.weights import FILES, WeightsFile, fetch_weights, find_weights, weights_folders, weights_status

CONTENTS = b"the weights of a tiny network"
DIGEST = hashlib.sha256(CONTENTS).hexdigest()
TINY = WeightsFile(
    "tiny",
    f"tiny-{DIGEST[:8]}.pth",
    (f"https://nowhere.invalid/tiny-{DIGEST[:8]}.pth",),
    len(CONTENTS),
    DIGEST,
    "none",
    "nothing",
    (f"other-{DIGEST[:8]}.pth",),
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _only_tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The one known file is a tiny one, and it is nowhere yet."""
    monkeypatch.setattr(weights, "FILES", {"tiny": TINY})
    monkeypatch.delenv("DFKD_WEIGHTS", raising=False)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The folder that the address gives files from."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / TINY.file).write_bytes(CONTENTS)
    return folder


@pytest.fixture
def server(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Publishes the tiny file: by default where it is, or at other places of the server."""
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def publish(*paths: str) -> None:
            urls = tuple(f"http://127.0.0.1:{server.server_port}/{path}" for path in paths)
            monkeypatch.setattr(weights, "FILES", {"tiny": dataclasses.replace(TINY, urls=urls)})

        publish(TINY.file)
        yield publish
        server.shutdown()
        thread.join()


def place(folder: Path, name: str = TINY.file, contents: bytes = CONTENTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(contents)
    return path


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


# ---- what is known -------------------------------------------------------------------------------------------------


def test_the_published_files_carry_their_digests_in_their_names() -> None:
    assert set(FILES) == {"inception", "alex", "vgg16", "squeeze"}
    for name, file in FILES.items():
        assert file.name == name
        assert re.fullmatch("[0-9a-f]{64}", file.digest)
        assert all(f"-{file.digest[:8]}." in each for each in file.names)
        assert file.urls[0].startswith("https://")
        assert file.urls[0].endswith(f"/{file.file}")


def test_the_digests_are_those_of_torchvision() -> None:
    from bench.utils.torchvision_compat import torchvision

    models = torchvision().models
    ours = {"alex": models.AlexNet_Weights, "vgg16": models.VGG16_Weights, "squeeze": models.SqueezeNet1_1_Weights}
    assert {name: (FILES[name].urls[0]) for name in ours} == {
        name: enum.IMAGENET1K_V1.url for name, enum in ours.items()
    }
    for name, enum in ours.items():  # torchvision rounds to kilobytes of 1024
        assert FILES[name].size == pytest.approx(enum.IMAGENET1K_V1.meta["_file_size"] * 2**20, rel=1e-3)


# ---- finding -------------------------------------------------------------------------------------------------------


def test_the_places_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_WEIGHTS", str(tmp_path / "env"))
    named = [tmp_path / "named", tmp_path / "env", tmp_path / "cache/weights", tmp_path / "torch/hub/checkpoints"]
    assert weights_folders(tmp_path / "named") == named
    assert weights_folders() == named[1:]
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weights_folders()[-1] == tmp_path / "xdg/torch/hub/checkpoints"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert weights_folders()[-1] == tmp_path / "home/.cache/torch/hub/checkpoints"


def test_torch_hub_is_looked_for_where_torch_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
        assert weights_folders()[-1] == Path(torch.hub.get_dir()) / "checkpoints"
        monkeypatch.delenv("TORCH_HOME", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / variable))
    assert weights_folders()[-1] == Path(torch.hub.get_dir()) / "checkpoints"


@pytest.mark.parametrize("where", ["named", "env", "cache/weights", "torch/hub/checkpoints"])
@pytest.mark.parametrize("name", TINY.names)
def test_it_is_found_in_each_place_under_each_name(
    where: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFKD_WEIGHTS", str(tmp_path / "env"))
    path = place(tmp_path / where, name)
    assert find_weights("tiny", tmp_path / "named") == path


def test_the_first_place_wins_and_an_altered_file_is_passed_over(tmp_path: Path) -> None:
    place(tmp_path / "named", contents=b"something else")
    second = place(tmp_path / "cache/weights")
    assert find_weights("tiny", tmp_path / "named") == second
    first = place(tmp_path / "named", TINY.names[1])
    assert find_weights("tiny", tmp_path / "named") == first


def test_a_single_file_counts_by_its_contents_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place(tmp_path, "my download (1).pth")
    assert find_weights("tiny", path) == path
    monkeypatch.setenv("DFKD_WEIGHTS", str(path))
    assert find_weights("tiny") == path
    other = place(tmp_path, "another.pth", b"of another network")
    assert find_weights("tiny", other) == path


def test_a_missing_file_is_told_with_its_size_the_places_and_both_remedies(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights) as raised:
        find_weights("tiny", tmp_path / "named")
    assert str(raised.value) == (
        f"the weights file {TINY.file} (0.0 MiB) is missing; "
        f"searched in {tmp_path}/named, {tmp_path}/cache/weights, {tmp_path}/torch/hub/checkpoints; "
        f"run `dfkd weights fetch tiny`, or place the file in {tmp_path}/cache/weights"
    )
    assert isinstance(raised.value, UserError)


def test_an_altered_file_is_never_used(tmp_path: Path) -> None:
    path = place(tmp_path / "cache/weights", contents=CONTENTS + b"!")
    digest = hashlib.sha256(CONTENTS + b"!").hexdigest()
    words = f"{path} is altered: its sha256 begins with {digest[:8]}, the official one with {DIGEST[:8]}"
    with pytest.raises(MissingWeights, match=re.escape(words)):
        find_weights("tiny")
    (status,) = weights_status()
    assert (status.state, status.path) == ("altered", path)
    assert status.message.startswith(words)


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = place(tmp_path / "cache/weights")
    assert find_weights("tiny") == path
    path.write_bytes(CONTENTS[::-1])  # of the same size
    with pytest.raises(MissingWeights, match="is altered"):
        find_weights("tiny")


def test_a_file_that_cannot_be_read_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place(tmp_path / "cache/weights")

    def refuse(_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(weights, "sha256_of", refuse)
    with pytest.raises(MissingWeights, match=re.escape(f"{path} cannot be read: Permission denied, and is not used")):
        find_weights("tiny")


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place(tmp_path / "cache/weights")
    find_weights("tiny")
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert find_weights("tiny") == path


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown weights file 'tinny'; did you mean 'tiny'\?"):
        find_weights("tinny")


# ---- fetching ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("server")
def test_fetched_files_are_whole_and_alone(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    path = fetch_weights("tiny", None, lambda *step: seen.append(step))
    assert path == tmp_path / "cache/weights" / TINY.file
    assert path.read_bytes() == CONTENTS
    assert files_in(tmp_path / "cache") == [TINY.file]
    assert seen[-1] == (TINY.file, len(CONTENTS), len(CONTENTS))
    assert find_weights("tiny") == path


@pytest.mark.usefixtures("server")
def test_a_folder_can_be_named(tmp_path: Path) -> None:
    assert fetch_weights("tiny", tmp_path / "named") == tmp_path / "named" / TINY.file
    assert not (tmp_path / "cache").exists()


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    path = place(tmp_path / "torch/hub/checkpoints", TINY.names[1])
    assert fetch_weights("tiny") == path  # its address leads nowhere
    named = place(tmp_path / "named")
    assert fetch_weights("tiny", tmp_path / "named") == named


def test_the_next_address_is_asked(server: Callable[..., None], tmp_path: Path) -> None:
    server("gone.pth", TINY.file)
    assert fetch_weights("tiny").read_bytes() == CONTENTS


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (CONTENTS[:-1], f"ended after {len(CONTENTS) - 1} of {len(CONTENTS)} bytes"),
        (CONTENTS + b"!", f"more than the official {len(CONTENTS)} bytes"),
        (CONTENTS[::-1], f"begins with {hashlib.sha256(CONTENTS[::-1]).hexdigest()[:8]}, the official one with"),
        (None, "404"),
    ],
)
@pytest.mark.usefixtures("server")
def test_what_is_not_the_official_file_is_refused_and_nothing_is_left(
    contents: bytes | None, reason: str, site: Path, tmp_path: Path
) -> None:
    (site / TINY.file).unlink()
    if contents is not None:
        (site / TINY.file).write_bytes(contents)
    with pytest.raises(UserError, match=f"{TINY.file} could not be fetched: .*{reason}") as raised:
        fetch_weights("tiny")
    assert str(raised.value).endswith(f"to {tmp_path}/cache/weights/{TINY.file}")
    assert files_in(tmp_path / "cache") == []


@pytest.mark.usefixtures("server")
def test_an_interrupted_fetch_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_weights("tiny", None, interrupt)
    assert files_in(tmp_path / "cache") == []


@pytest.mark.usefixtures("server")
def test_an_altered_file_is_left_to_its_owner(tmp_path: Path) -> None:
    path = place(tmp_path / "cache/weights", contents=b"my own work")
    with pytest.raises(UserError, match="Move it elsewhere, then fetch again"):
        fetch_weights("tiny")
    assert path.read_bytes() == b"my own work"


@pytest.mark.usefixtures("server")
def test_a_place_that_cannot_be_a_folder_is_a_user_error(tmp_path: Path) -> None:
    file = place(tmp_path, "a file")
    with pytest.raises(UserError, match=r"File exists|Not a directory"):
        fetch_weights("tiny", file)


# ---- the command line ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("server")
def test_status_fetch_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["weights", "status"]) == 0
    text = capsys.readouterr().out
    assert f"tiny: {TINY.file}, {len(CONTENTS)} B: missing" in text
    assert "run `dfkd weights fetch tiny`" in text
    assert answer(["weights", "verify"]) == 0  # nothing that is there is wrong
    assert answer(["weights", "verify", "tiny"]) == 1
    assert answer(["weights", "fetch", "tiny"]) == 0
    path = tmp_path / "cache/weights" / TINY.file
    assert capsys.readouterr().out.splitlines()[-2:] == [f"{TINY.file}: {len(CONTENTS)} B", f"tiny: {path}"]
    assert answer(["weights", "verify", "tiny"]) == 0
    capsys.readouterr()
    assert answer(["weights", "status"]) == 0
    assert f"tiny: {TINY.file}, {len(CONTENTS)} B: ok\n  path         {path}\n" in capsys.readouterr().out


def test_status_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = place(tmp_path / "named")
    assert answer(["weights", "status", "--json", "--weights", str(tmp_path / "named")]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["state"], row["path"], row["sha256"]) == ("tiny", "ok", str(path), DIGEST)
    assert row["searched"][0] == str(tmp_path / "named")


def test_verify_finds_an_altered_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place(tmp_path / "named", contents=b"other")
    assert answer(["weights", "verify", "--weights", str(tmp_path / "named")]) == 1
    assert "tiny: altered" in capsys.readouterr().out


def test_a_wrong_name_fetches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("fetch", "verify"):
        assert answer(["weights", verb, "tiny", "tinny"]) == 2
        assert capsys.readouterr().err == "dfkd: unknown weights file 'tinny'; did you mean 'tiny'?\n"
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_the_doctor_tells_of_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fact() -> dict[str, object]:
        assert answer(["doctor", "--json"]) == 0
        return next(each for each in json.loads(capsys.readouterr().out) if each["group"] == "weights")

    assert fact()["fix"] == "dfkd weights fetch tiny   (for nothing)"
    path = place(tmp_path / "cache/weights")
    assert fact()["value"] == f"complete, {path}"
