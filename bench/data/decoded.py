"""A cache of decoded images: thousands of PNG and JPEG files are decoded and resized once, not in every process.

It lies in the user's cache folder and may be deleted at any time. A file of it is named after everything that can
change its contents: the set, the size, and of every file its name, size, times and number on the disk. The time of the
last change of its status cannot be set by a program, so that a file replaced by one of equal size and time is noticed.
A cached file that is damaged is ignored and made again. These are real images, so that the guard fences the folder off.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.folders import decoded_folder

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2  # raised when the same files would become other tensors


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
