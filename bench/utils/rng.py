"""Named random streams: each use of chance has its own, so that adding one never changes another's draws."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one purpose; the same arguments always give the same number."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed the global random states of torch, NumPy and Python."""
    torch.manual_seed(derive(seed, "torch"))
    np.random.seed(derive(seed, "numpy") % 2**32)
    random.seed(derive(seed, "python"))


_HOST = " (host)"


class Streams:
    """Generators by name, each seeded from the trial's seed and its name."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._device = device
        self._streams: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> torch.Generator:
        if name not in self._streams:
            self._streams[name] = torch.Generator(self._device).manual_seed(derive(self._seed, "stream", name))
        return self._streams[name]

    def on_host(self, name: str) -> torch.Generator:
        """A stream on the CPU: numbers that Python needs can be drawn from it without waiting for a GPU.

        On the CPU it is the stream of that name itself.
        """
        if self._device.type == "cpu":
            return self[name]
        key = name + _HOST
        if key not in self._streams:
            self._streams[key] = torch.Generator().manual_seed(derive(self._seed, "stream", name))
        return self._streams[key]

    def state(self) -> dict[str, Any]:
        """The states of all streams and of the global generators, for a checkpoint."""
        numpy_state = np.random.get_state(legacy=False)
        return {
            "streams": {name: stream.get_state() for name, stream in self._streams.items()},
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if self._device.type == "cuda" else [],
            "python": random.getstate(),
            "numpy": {
                "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
                "pos": int(numpy_state["state"]["pos"]),
                "has_gauss": int(numpy_state["has_gauss"]),
                "gauss": float(numpy_state["gauss"]),
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """In place: a method may hold a stream that it was given before."""
        for name, stream in self._streams.items():
            if name not in state["streams"]:  # not yet used when the checkpoint was written
                stream.manual_seed(derive(self._seed, "stream", name.removesuffix(_HOST)))
        for name, value in state["streams"].items():
            stream = self.on_host(name.removesuffix(_HOST)) if name.endswith(_HOST) else self[name]
            stream.set_state(value)
        torch.set_rng_state(state["torch"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])
        random.setstate(state["python"])
        numpy_state = state["numpy"]
        key = numpy_state["key"].numpy().astype(np.uint32)
        np.random.set_state(("MT19937", key, numpy_state["pos"], numpy_state["has_gauss"], numpy_state["gauss"]))
