"""A cache of decoded images: thousands of PNG and JPEG files are decoded and resized once, not in every process.

It lies in the user's cache folder and may be deleted at any time. A file of it is named after everything that can
change its contents: the set, the size, and of every file its name, size, times and number on the disk. The time of the
last change of its status cannot be set by a program, so that a file replaced by one of equal size and time is noticed.
A cached file that is damaged is ignored and made again. These are real images, so that the guard fences the folder off.

Sets that need not fit into memory are kept as plain pixels and mapped (:func:`mapped`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.folders import decoded_folder
from bench.errors import UserError
from bench.utils.locks import waiting_for
from bench.utils.stopping import Stopped, asked

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2  # raised when the same files would become other tensors
BLOCK = 256  # images that are decoded at a time where they are mapped


def cached(
    name: str, root: Path, files: Iterable[Path], size: int, make: Callable[[], Mapping[str, Tensor]]
) -> Mapping[str, Tensor]:
    """What ``make()`` gives, from the cache where it was made before from the same ``files`` below ``root``.

    Raises what ``make`` raises, and nothing of its own: without a folder that can be written, nothing is kept.
    """
    path = decoded_folder() / f"{name}-{size}-{key_of(name, root, files, size)}.safetensors"
    kept = _load(path)
    if kept is not None:
        return kept
    with _one_thread():
        made = make()
    _store(path, made)
    return made


def mapped(
    name: str, root: Path, files: Sequence[Path], size: int, one: Callable[[Path], Tensor], otherwise: str = ""
) -> tuple[Tensor, str]:
    """Images of any number, mapped from a file of the cache: uint8 (N, 3, size, size), and the sha256 of their bytes.

    The file is made once, by ``one``, which gives the image of a file, in several threads; others wait meanwhile. What
    an interrupted process has made of it is kept, and the next one goes on. A file that was made is not read again to
    see whether it is whole: its size and its time of change have to be those of before. ``otherwise`` says what else
    there is to do where the disk has too little room.

    Raises:
        UserError: the disk has too little room, or the folder cannot be written; and what ``one`` raises.
        Stopped: somebody asked, between two blocks.
    """
    import torch

    shape = (len(files), 3, size, size)
    folder = decoded_folder()
    pixels = folder / f"{name}-{size}-{_key_of_many(name, root, files, size)}.pixels"
    try:
        digest = _digest_of(pixels, math.prod(shape))
        if digest is None:
            folder.mkdir(parents=True, exist_ok=True)
            with waiting_for(folder / f".{pixels.name}.lock"), _one_thread():
                digest = _digest_of(pixels, math.prod(shape)) or _make_pixels(name, pixels, files, size, one, otherwise)
    except OSError as error:
        raise UserError(
            f"{name}: the decoded images cannot be kept in {folder}: {error.strerror or error}; set DFKD_CACHE to a "
            "folder with room for them"
        ) from None
    if not files:
        return torch.empty(shape, dtype=torch.uint8), digest
    return torch.from_file(str(pixels), shared=False, size=math.prod(shape), dtype=torch.uint8).view(shape), digest


def _make_pixels(
    name: str, pixels: Path, files: Sequence[Path], size: int, one: Callable[[Path], Tensor], otherwise: str
) -> str:
    part, each = pixels.with_name(f".{pixels.name}.part"), 3 * size * size
    done = part.stat().st_size // each if part.is_file() else 0
    needed, free = (len(files) - done) * each, shutil.disk_usage(pixels.parent).free
    if needed > free:
        raise UserError(
            f"{name}: {len(files):,} images of {size}x{size} pixels are decoded once, into {_gigabytes(needed)}, and "
            f"{pixels.parent} has {_gigabytes(free)} left; set DFKD_CACHE to a folder with more room{otherwise}"
        )
    digest = hashlib.sha256()
    try:
        with part.open("r+b" if done else "w+b") as out, ThreadPoolExecutor(_processors()) as workers:
            out.truncate(done * each)
            while block := out.read(BLOCK * each):
                digest.update(block)
            for start in range(done, len(files), BLOCK):
                if reason := asked():
                    raise Stopped(reason)
                made = list(workers.map(one, files[start : start + BLOCK]))
                block = b"".join(image.numpy().tobytes() for image in made)
                out.write(block)
                digest.update(block)
    except UserError:  # a file that is replaced is another set, which starts from the beginning
        part.unlink(missing_ok=True)
        raise
    part.replace(pixels)
    _note(pixels).write_text(f"{digest.hexdigest()} {pixels.stat().st_mtime_ns}", encoding="ascii")
    return digest.hexdigest()


def _digest_of(pixels: Path, size: int) -> str | None:
    """The sha256 of a file that was made and is as it was then; None for any other."""
    try:
        digest, _, time = _note(pixels).read_text(encoding="ascii").partition(" ")
        stat = pixels.stat()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return digest if (stat.st_size, str(stat.st_mtime_ns)) == (size, time) else None


def _note(pixels: Path) -> Path:
    return pixels.with_suffix(".sha256")


def _processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


def cached_text(name: str, root: Path, files: Iterable[Path], make: Callable[[], str]) -> str:
    """As :func:`cached`, for a short text about the ``files``; imports no torch."""
    path = decoded_folder() / f"{name}-{key_of(name, root, files, 0)}.txt"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text, _, checksum = path.read_text(encoding="utf-8").partition("\n")
        if text and checksum == f"{zlib.crc32(text.encode()):08x}":
            return text
    made = make()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(f"{made}\n{zlib.crc32(made.encode()):08x}", encoding="utf-8")
        part.replace(path)
    except OSError:  # a full or read-only disk costs the time to decode again, nothing more
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return made


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Single images are small: on a busy machine, threads that wait for each other take ten times as long."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def key_of(name: str, root: Path, files: Iterable[Path], size: int) -> str:
    facts = []
    for path in files:
        with contextlib.suppress(OSError):  # a missing file is for ``make`` to tell
            stat = path.stat()
            times = (stat.st_mtime_ns, stat.st_ctime_ns)
            facts.append((os.path.relpath(path, root), stat.st_size, *times, stat.st_dev, stat.st_ino))
    return hashlib.sha256(json.dumps([FORMAT, name, size, facts]).encode()).hexdigest()[:32]


def _key_of_many(name: str, root: Path, files: Iterable[Path], size: int) -> str:
    """As :func:`key_of` for ``files`` below ``root``, without keeping the facts of a million of them."""
    digest, above = hashlib.sha256(json.dumps([FORMAT, name, size]).encode()), len(str(root))
    for path in files:
        with contextlib.suppress(OSError):
            stat = path.stat()
            facts = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino)
            digest.update(f"{str(path)[above:]}{facts}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _load(path: Path) -> Mapping[str, Tensor] | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            checksum = (file.metadata() or {}).get("crc32")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError):
        return None
    return tensors if checksum == _checksum(tensors) else None


def _store(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), part, metadata={"crc32": _checksum(tensors)})
        part.replace(path)
    except (OSError, SafetensorError):  # a full or read-only disk costs the time to decode again, nothing more
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].contiguous().numpy().data, total)
    return f"{total:08x}"
