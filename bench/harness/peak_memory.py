"""Peak memory of this process, or of its GPU, since a moment of our choosing."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import psutil
import torch


def reset_peak_memory(device: torch.device) -> None:
    """Forget earlier peaks (on Linux; elsewhere the process's peak since its start is what can be had)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_mib(device: torch.device) -> float:
    """MiB: allocated on the GPU, or resident in this process with everything that Python and torch need."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if psutil.MACOS else 1024)
