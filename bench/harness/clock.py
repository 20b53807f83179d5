"""The clock of a trial's budget: it stands still while the harness does its own work."""

from __future__ import annotations

import time

import torch

from bench.errors import MethodError
from bench.spec.budget import Meter

_perf_counter = time.perf_counter  # taken at import: a method that replaces time's functions does not fool the clock


class Clock:
    """Adds the time during which it runs to a meter's seconds.

    On a GPU a budget in seconds (``exact``) waits for the device at every look; otherwise only where the clock stops.
    """

    def __init__(self, meter: Meter, device: torch.device, exact: bool) -> None:
        self.running = False
        self._meter = meter
        self._device = device
        self._exact = exact
        self._since = 0.0

    def start(self) -> None:
        self.running = True
        self._since = _perf_counter()

    def stop(self) -> bool:
        """Stand still: for evaluation, checkpoints, and at the end. Returns whether it ran."""
        ran = self.running
        if ran:
            self._settle(wait=True)
        self.running = False
        return ran

    def read(self) -> float:
        """Bring the meter's seconds up to date, and return them."""
        if self.running:
            self._settle(wait=self._exact)
        return self._meter.seconds

    def restart(self) -> None:
        """Forget the time since the last look: the meter was set from a checkpoint."""
        self._since = _perf_counter()

    def _settle(self, wait: bool) -> None:
        if wait and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = _perf_counter()
        self._meter.seconds += now - self._since
        self._since = now


IDLE_STEPS = 10_000  # steps that do nothing at all, after which a trial would never end


STUCK_STEPS = 1_000_000  # steps that work, but spend nothing of what the budget limits


class IdleCheck:
    """Notices a loop that would never end."""

    def __init__(self) -> None:
        self._spent, self._work = -1.0, (-1, -1, -1)
        self._idle = self._stuck = 0

    def look(self, phase: str, spent: float, meter: Meter) -> None:
        work = (meter.macs, meter.optimizer_steps, meter.synthesised_images)
        self._stuck = self._stuck + 1 if spent == self._spent else 0
        self._idle = self._idle + 1 if self._stuck and work == self._work else 0
        self._spent, self._work = spent, work
        if self._idle > IDLE_STEPS or self._stuck > STUCK_STEPS:
            steps = max(self._idle, self._stuck) - 1
            raise MethodError(f"{steps:,} steps of {phase!r} spent nothing of the budget")
