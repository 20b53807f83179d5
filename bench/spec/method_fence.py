"""Where a method's code runs: real data, what was learned from it, and stored teachers are out of its reach."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from bench.data import protected_paths
from bench.utils import data_guard
from bench.utils.paths import cache_folder, teacher_folder


def method_fence(
    data_folder: Path | None = None, results: Path | None = None, images: Path | None = None
) -> AbstractContextManager[None]:
    """The fence around everything that a method does, from the import of its file on.

    Args:
        data_folder: where data sets are looked for first.
        results: a results folder: a method with data leaves real images there.
        images: the folder of the task's own images.

    Raises:
        DataLeak, AccessDenied: at the attempt, and at the end of the block.
    """
    return data_guard.fenced(*fenced_folders(data_folder, results, images))


def fenced_folders(
    data_folder: Path | None = None, results: Path | None = None, images: Path | None = None
) -> tuple[list[Path], list[Path]]:
    """Where real data lie, and where teachers do, as absolute paths; the arguments are :func:`method_fence`'s."""
    data = [*protected_paths(data_folder), cache_folder() / "references", *filter(None, (results, images))]
    return [each.absolute() for each in data], [teacher_folder().absolute()]
