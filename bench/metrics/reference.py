"""The real images seen through an extractor: features and what is derived from them, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.data import Dataset
from bench.errors import Unavailable
from bench.metrics.embedding import Extractor, embed
from bench.metrics.frechet import Moments, moments
from bench.metrics.kernel import kernel_mean
from bench.metrics.neighbours import radii
from bench.utils.paths import cache_folder

VERSION = 1  # of what the statistics mean; a higher one recomputes them


class Reference:
    """Statistics of real images (uint8, N of them) through one extractor.

    They are cached in a folder named after the data, the extractor and a hash of everything that they depend on: the
    images, the extractor's weights and code, and the preprocessing.
    """

    def __init__(self, images: Tensor, dataset: Dataset, extractor: Extractor) -> None:
        depends = [VERSION, dataset.fingerprint, *images.shape, extractor.identity, extractor.preprocessing]
        key = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]
        name = re.sub("[^A-Za-z0-9_.-]+", "-", f"{dataset.name}-{extractor.name}")
        self.folder = cache_folder() / "references" / f"{name}-{key}"
        self.count = len(images)
        self._images = images
        self._extractor = extractor
        self._read: dict[str, dict[str, Tensor]] = {}

    @property
    def features(self) -> Tensor:
        """float32 (N, D)."""
        return self._statistic("features", lambda: {"features": embed(self._extractor, self._images)[0]})["features"]

    @property
    def moments(self) -> Moments:
        def compute() -> dict[str, Tensor]:
            found = moments(self.features)
            return {"mean": found.mean, "factor": found.factor, "count": torch.tensor(found.count)}

        found = self._statistic("moments", compute)
        return Moments(found["mean"], found["factor"], int(found["count"]))

    @property
    def kernel_mean(self) -> float:
        def compute() -> dict[str, Tensor]:
            return {"mean": torch.tensor(kernel_mean(self.features), dtype=torch.float64)}

        return self._statistic("kernel", compute)["mean"].item()

    def radii(self, k: int) -> Tensor:
        """float64 (N,): the distance of each to its k-th nearest other."""
        return self._statistic(f"radii{k}", lambda: {"radii": radii(self.features, k)})["radii"]

    def _statistic(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """From memory, from the cache, or computed now; other processes wait meanwhile."""
        if name not in self._read:
            file = self.folder / f"{name}.safetensors"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if not file.is_file():
                    ready = compute()  # may need another statistic, and with it the lock
                    with FileLock(str(self.folder / ".lock")):
                        if not file.is_file():
                            _save(file, ready)
                self._read[name] = _load(file)
            except OSError as error:
                raise Unavailable(f"cannot store reference statistics in {self.folder}: {error.strerror}") from None
        return self._read[name]


def _save(file: Path, tensors: dict[str, Tensor]) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, part, {"sha256": _digest(tensors)})
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _load(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, "pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - not a mapping
            digest = (content.metadata() or {}).get("sha256", "missing")
    except SafetensorError as error:
        raise Unavailable(_altered(file, f"is damaged ({error})")) from None
    if _digest(tensors) != digest:
        raise Unavailable(_altered(file, f"was altered: its content is not the one with sha256 {digest[:12]}"))
    return tensors


def _altered(file: Path, what: str) -> str:
    return f"the cached reference {file} {what}; delete {file.parent} to compute it again"


def _digest(tensors: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        total.update(tensors[name].contiguous().numpy().data)
    return total.hexdigest()
