"""How many trials a GPU bears at a time: what each needs, from finished ones or an estimate, and what is free.

Imports no torch, unless an estimate is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bench.spec.method import Data
from bench.spec.method_registry import card_of
from bench.spec.task import get_task
from bench.spec.trial import Trial

if TYPE_CHECKING:
    from bench.records import Record

CONTEXT_MIB = 1024.0  # of each process: CUDA's context, the workspaces of its libraries
ROOM = 1.3  # what the allocator takes, and other seeds, beside the most that tensors had
SAFE = 3.0  # of an estimate: generators, average, images that are kept, operations that are no module
BATCH = 256  # images, where no option tells
REAL_MIB = 512.0  # real images on the GPU
_FLOAT = 4  # bytes


class MemoryNeeds:
    """MiB of a GPU that trials need, by what finished ones had at most."""

    def __init__(self) -> None:
        self._peaks: dict[tuple[str, ...], float] = {}

    def add(self, label: str, record: Record) -> None:
        """Note a finished trial; one that did not end well, or ran on a CPU, tells nothing."""
        trial, peak = record.trial, record.meter.peak_memory_mib
        if record.status == "ok" and trial.device != "cpu" and peak:
            for likeness in ((trial.task, trial.method, label), (trial.task, trial.method)):
                self._peaks[likeness] = max(peak, self._peaks.get(likeness, 0.0))

    def of(self, trial: Trial) -> float:
        """MiB: after a finished trial with the same label, or else of the same method on the same task, or else an
        estimate from its networks and batches."""
        known = (
            self._peaks.get(each) for each in ((trial.task, trial.method, trial.label), (trial.task, trial.method))
        )
        peak = next((each for each in known if each is not None), None)
        return CONTEXT_MIB + (estimated_mib(trial) if peak is None else ROOM * peak)


def estimated_mib(trial: Trial) -> float:
    """MiB of a trial's tensors, on the safe side: weights, gradients and the optimizer's moments of its networks, and
    for each image of a batch what their modules give, forward and backward; infinite where one cannot be tried."""
    task = get_task(trial.task)
    try:
        *teachers, student = (_network_size(name, trial.task) for name in task.networks)
    except Exception:  # a user's own network, whose trials say what is wrong with it
        return math.inf
    weights = 2 * sum(teacher[0] for teacher in teachers) + 4 * student[0]
    images = batch_of(trial.options) * 2 * (sum(teacher[1] for teacher in teachers) + student[1])
    real = 0.0 if card_of(trial).data is Data.NONE else REAL_MIB
    return real + SAFE * _FLOAT * (weights + images) / 2**20


def batch_of(options: Mapping[str, Any]) -> int:
    """The largest batch that a trial's options name, in images."""
    named = [value for name, value in options.items() if "batch" in name and type(value) is int]
    return max(named, default=BATCH)


@lru_cache(maxsize=64)
def _network_size(name: str, task_name: str) -> tuple[int, int]:
    """Numbers in a network's weights, and in what its modules give for one image of a task."""
    import torch

    from bench import data
    from bench.models import build

    task = get_task(task_name)
    seen: list[int] = []

    def note(module: Any, given: Any, made: Any) -> None:
        del module, given
        seen.append(_numbers(made))

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        network = build(name, task.image, len(data.find(task.data).classes)).eval()
        for module in network.modules():
            if not list(module.children()):
                module.register_forward_hook(note)
        network(torch.zeros(1, *task.image.shape))
    weights = sum(value.numel() for value in network.state_dict().values())
    return weights, sum(seen)


def _numbers(made: Any) -> int:
    import torch

    if isinstance(made, torch.Tensor):
        return made.numel()
    values = made.values() if isinstance(made, Mapping) else made if isinstance(made, list | tuple) else ()
    return sum(_numbers(each) for each in values)


class GpuPlaces:
    """Which GPU a trial gets, and whether there is room for it now.

    A GPU that has none takes any trial, and more as far as their needs fit into the memory that was free when the run
    began. A trial that ran out of memory beside others runs once more, alone on its GPU.
    """

    def __init__(self, free: Mapping[int, float], needs: MemoryNeeds) -> None:
        """``free`` is MiB by the GPU's number."""
        self._free = free
        self._needs = needs
        self._there: dict[int, dict[str, float]] = {number: {} for number in free}  # MiB by trial
        self._beside: set[str] = set()  # trials that have shared their GPU
        self._alone: set[str] = set()

    def find(self, trial: Trial) -> int | None:
        """The GPU with the fewest trials of those with room for this one; None where it has to wait."""
        fit = [number for number in self._free if self._fits(trial, number)]
        return min(fit, key=lambda number: len(self._there[number]), default=None)

    def _fits(self, trial: Trial, number: int) -> bool:
        there = self._there[number]
        if not there:
            return True
        if trial.id in self._alone or self._alone & set(there):
            return False
        return sum(there.values()) + self._needs.of(trial) <= self._free[number]

    def enter(self, trial: Trial, number: int) -> None:
        """The trial runs there from now on."""
        self._there[number][trial.id] = self._needs.of(trial)
        if len(self._there[number]) > 1:
            self._beside |= set(self._there[number])

    def leave(self, trial: Trial, record: Record) -> bool:
        """The trial has ended with a record; whether it should run again, alone."""
        for there in self._there.values():
            there.pop(trial.id, None)
        self._needs.add(trial.label, record)
        if record.status != "out_of_memory" or trial.id not in self._beside or trial.id in self._alone:
            return False
        self._alone.add(trial.id)
        return True


def places_for(trials: Sequence[Trial], gpu: int | None, needs: MemoryNeeds) -> GpuPlaces | None:
    """The GPUs for a run of trials: the one that was asked for, or all; None where they run on the CPU."""
    from bench.utils.hardware import free_gpu_mib

    if all(trial.device == "cpu" for trial in trials):
        return None
    free = free_gpu_mib()
    if not free:  # on a worker's machine without one, a trial's record says so
        return None
    return GpuPlaces({gpu: free.get(gpu, 0.0)} if gpu is not None else free, needs)
