"""A trial's pool of other real images: in memory, and how far it lies from the task's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data import Pool, load_pool
from bench.data.images import evenly
from bench.data.pool import content_name
from bench.errors import UserError
from bench.spec.metric_names import needs_student
from bench.spec.task import TaskSpec

SAMPLE = 2048  # images of a pool on which its image metrics are measured
ALIKE = 10 / 255  # root mean square difference of pixels up to which two images are nearly the same
COARSE = 8  # side of the block means that are compared first
BLOCK = 2**24  # distances held at a time


def pool_of(name: str, path: Path | None, task: TaskSpec, folder: Path | None, allow_altered: bool) -> Pool:
    """The pool at the task's size and channels; the last one stays in memory for the next trial of this process.

    Args:
        name: as the trial's identity has it.
        path: where it lies, unless it is a data set.
        task: its images' geometry.
        folder: where to look for data sets first.
        allow_altered: use files of a data set that are not the official ones.

    Raises:
        MissingData, UserError: as :func:`bench.data.load_pool`; or the files at ``path`` are no longer those that
            ``name`` stands for.
    """
    if path is not None and (found := content_name(path)) != name:
        raise UserError(f"{path}: the images changed since the study was planned ({name}, now {found}); run it again")
    return _loaded(str(path or name), task.image.size, task.image.channels, folder, allow_altered)


@lru_cache(maxsize=1)
def _loaded(what: str, size: int, channels: int, folder: Path | None, allow_altered: bool) -> Pool:
    return load_pool(what, size=size, channels=channels, folder=folder, allow_altered=allow_altered)


def pool_facts(name: str, pool: Pool, test: Tensor, score: Callable[[Tensor], Mapping[str, Any]]) -> dict[str, Any]:
    """The ``pool`` of a record.

    Args:
        name: as the trial's identity has it.
        pool: the images.
        test: the task's test images, uint8 (N, C, H, W), cut to the pool's size.
        score: image metrics of uint8 images, as a record holds them.
    """
    return {
        "name": name,
        "images": len(pool.images),
        "fingerprint": pool.fingerprint,
        "altered": list(pool.altered),
        "skipped": dict(pool.skipped),
        "near_duplicates": near_duplicates(pool.images, test),
        "image_metrics": score(evenly(pool.images, SAMPLE)),
    }


def near_duplicates(pool: Tensor, test: Tensor) -> int:
    """How many images of a pool are nearly the same as one of the test images; both uint8 (N, C, size, size).

    Nearly the same: the root mean square of the pixels' differences is at most 10 of 255. Means over blocks differ by
    no more than the pixels do (Jensen's inequality), so that only pairs whose 8 x 8 block means are as close are looked
    at in full, and none is missed. Mirror images, crops and changes of brightness are not found.
    """
    if not len(pool) or not len(test):
        return 0
    coarse_test = _coarse(test)
    found = 0
    for block in pool.split(max(1, BLOCK // len(test))):
        close = torch.cdist(_coarse(block), coarse_test).square() <= coarse_test.shape[1] * ALIKE**2
        alike = torch.zeros(len(block), dtype=torch.bool)
        for pairs in close.nonzero().split(4096):
            ours, theirs = block[pairs[:, 0]].float(), test[pairs[:, 1]].float()
            distance = ((ours - theirs) / 255).square().flatten(1).mean(1)
            alike[pairs[distance <= ALIKE**2, 0]] = True
        found += int(alike.sum())
    return found


def _coarse(images: Tensor) -> Tensor:
    """Block means, float32 (N, C * 8 * 8) in [0, 1]; whole images where they are not cut into 8 x 8 equal blocks."""
    by = 1 if images.shape[-1] % COARSE else images.shape[-1] // COARSE
    parts = [F.avg_pool2d(part.float() / 255, by) if by > 1 else part.float() / 255 for part in images.split(1024)]
    return torch.cat(parts).flatten(1)


def measured_names(metrics: Sequence[str]) -> tuple[str, ...]:
    """The image metrics that are measured of a pool: all but those that need the memory of a trial's steps, or its
    student."""
    return tuple(name for name in metrics if not name.startswith("rdskd_") and not needs_student(name))
