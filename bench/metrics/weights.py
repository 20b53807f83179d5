"""Weights files of the networks that image metrics look through: what they are, where they lie, whether they are whole.

They are other people's, large, and never brought but by :func:`fetch_weights`. A file counts by its sha256 alone; one
of the right name with other contents is reported as altered and never used. Imports no torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.errors import MissingWeights, UserError, nearest
from bench.utils.http import FAILURES, Progress, RefusedError, transfer
from bench.utils.paths import cache_folder

TORCHVISION = "https://download.pytorch.org/models"
TORCHVISION_LICENCE = "torchvision's (BSD-3-Clause); trained on ImageNet, which has terms of its own"


@dataclass(frozen=True)
class WeightsFile:
    """The published facts of one file."""

    name: str  # what `dfkd weights fetch` calls it
    file: str
    urls: tuple[str, ...]  # in the order in which they are tried
    size: int  # bytes
    digest: str  # sha256; by torch.hub's convention the file's own name carries its first 8 digits
    licence: str
    used_by: str  # the extractors and networks that need it
    other_names: tuple[str, ...] = ()  # under which other libraries cache the very same bytes

    @property
    def names(self) -> tuple[str, ...]:
        """All names under which the file may lie."""
        return (self.file, *self.other_names)


@dataclass(frozen=True)
class WeightsStatus:
    """What was found of one file; ``message`` is one sentence without a full stop that names it."""

    file: WeightsFile
    state: Literal["ok", "missing", "altered"]
    path: Path | None
    message: str


_ALL = (
    WeightsFile(
        "inception",
        "weights-inception-2015-12-05-6726825d.pth",
        (
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        ),
        95_628_359,
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "Apache-2.0 (TensorFlow's Inception of 2015-12-05, converted by pytorch-fid)",
        "extractor inception",
        ("pt_inception-2015-12-05-6726825d.pth",),
    ),
    WeightsFile(
        "alex",
        "alexnet-owt-7be5be79.pth",
        (f"{TORCHVISION}/alexnet-owt-7be5be79.pth",),
        244_408_911,
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        TORCHVISION_LICENCE,
        "lpips through alex",
    ),
    WeightsFile(
        "vgg16",
        "vgg16-397923af.pth",
        (f"{TORCHVISION}/vgg16-397923af.pth",),
        553_433_881,
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        TORCHVISION_LICENCE,
        "extractor vgg16, lpips through vgg16",
    ),
    WeightsFile(
        "squeeze",
        "squeezenet1_1-b8a52dc0.pth",
        (f"{TORCHVISION}/squeezenet1_1-b8a52dc0.pth",),
        4_958_839,
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        TORCHVISION_LICENCE,
        "lpips through squeeze",
    ),
)
FILES: Mapping[str, WeightsFile] = {each.name: each for each in _ALL}
_verified: dict[tuple[Path, int, int], str] = {}  # sha256 by path, size and time of change


def weights_folders(chosen: Path | None = None) -> list[Path]:
    """Where weights are looked for, in this order, as absolute paths; they need not exist, and may be single files.

    ``chosen`` (the command line's ``--weights``), the environment's ``DFKD_WEIGHTS``, ``weights`` in the cache, and
    where torch.hub, and with it torchvision, torch-fidelity, pytorch-fid and lpips, keep what they downloaded.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    hub = os.environ.get("TORCH_HOME") or str(Path(cache) / "torch")
    named = (chosen, os.environ.get("DFKD_WEIGHTS"), own_folder(), Path(hub) / "hub" / "checkpoints")
    return list(dict.fromkeys(Path(each).expanduser().absolute() for each in named if each))


def own_folder() -> Path:
    """Where files are fetched to, unless another folder is named."""
    return (cache_folder() / "weights").absolute()


def find_weights(name: str, chosen: Path | None = None) -> Path:
    """The path of a file of :data:`FILES`, verified by its sha256.

    Raises:
        MissingWeights: it is nowhere, or only with other contents.
        UserError: there is no such name.
    """
    file = known(name)
    status = _inspect(file, chosen)
    if status.state == "ok" and status.path is not None:
        return status.path
    raise MissingWeights(f"{status.message}; run `dfkd weights fetch {name}`, or place the file in {own_folder()}")


def weights_status(chosen: Path | None = None) -> list[WeightsStatus]:
    """The state of every file of :data:`FILES`; those that are there are read whole, to verify them."""
    return [_inspect(file, chosen) for file in FILES.values()]


def fetch_weights(name: str, folder: Path | None = None, progress: Progress | None = None) -> Path:
    """Download a file to ``folder``, or else to the cache, unless it is there already; returns its path.

    Without a folder, a file that is found anywhere is not downloaded again. It appears whole and verified or not at
    all. ``progress(file name, bytes so far, bytes in all)`` is called after each block.

    Raises:
        UserError: there is no such name, no address answers with the official file, it cannot be written, or a file
            with other contents is in its place.
    """
    file = known(name)
    target = (folder.expanduser().absolute() if folder is not None else own_folder()) / file.file
    if folder is None and (status := _inspect(file, None)).state == "ok" and status.path is not None:
        return status.path
    if target.exists():
        if _digest(target) == file.digest:
            return target
        raise UserError(f"{_altered(file, target)}. Move it elsewhere, then fetch again")
    problems = []
    for url in file.urls:
        try:
            _bring(file, url, target, progress)
            return target
        except FAILURES as error:
            problems.append(f"{url}: {error}")
    raise UserError(
        f"{file.file} could not be fetched: {'; '.join(problems)}.\nTo place it by hand, download\n"
        f"  {file.urls[0]}\n    to {target}"
    )


def known(name: str) -> WeightsFile:
    """The facts of a file; UserError for a name that is not in :data:`FILES`."""
    if name not in FILES:
        raise UserError(f"unknown weights file {name!r}{nearest(name, FILES)}")
    return FILES[name]


def sha256_of(path: Path) -> str:
    """sha256 of a file, 64 hex digits; read once as long as size and time of change stay the same."""
    stat = path.stat()
    key = (path.resolve(), stat.st_size, stat.st_mtime_ns)
    if key not in _verified:
        with path.open("rb") as content:
            _verified[key] = hashlib.file_digest(content, "sha256").hexdigest()
    return _verified[key]


def in_mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _inspect(file: WeightsFile, chosen: Path | None) -> WeightsStatus:
    altered: Path | None = None
    for path in _candidates(file, chosen):
        if _digest(path) == file.digest:
            return WeightsStatus(file, "ok", path, f"{path} is the official file")
        if path.name in file.names:
            altered = altered or path
    if altered is not None:
        return WeightsStatus(file, "altered", altered, f"{_altered(file, altered)}, and is not used")
    places = ", ".join(str(each) for each in weights_folders(chosen))
    what = f"the weights file {file.file} ({in_mib(file.size)}) is missing; searched in {places}"
    return WeightsStatus(file, "missing", None, what)


def _candidates(file: WeightsFile, chosen: Path | None) -> Iterator[Path]:
    """Files that may be it: of a folder those with its names, and every single file that was named as such."""
    for place in weights_folders(chosen):
        paths = [place] if place.is_file() else [place / name for name in file.names]
        yield from (path for path in paths if path.is_file())


def _digest(path: Path) -> str:
    """The file's sha256, or why there is none."""
    try:
        return sha256_of(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _altered(file: WeightsFile, path: Path) -> str:
    found = _digest(path)
    if found.startswith("cannot"):
        return f"{path} {found}"
    return f"{path} is altered: its sha256 begins with {found[:8]}, the official one with {file.digest[:8]}"


def _bring(file: WeightsFile, url: str, target: Path, progress: Progress | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        transfer(url, part, file.size, file.file, progress)
        with part.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != file.digest:
            raise RefusedError(f"the file's sha256 begins with {found[:8]}, the official one with {file.digest[:8]}")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
