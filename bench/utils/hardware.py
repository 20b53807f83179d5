"""What this machine has to run trials on: processors and GPUs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys

import psutil

from bench.errors import UserError

_FREE = """
import json, torch
print(json.dumps([torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())]))
"""


def usable_cores() -> int:
    """Physical cores that this process may use; hyper-threads share one, and two trials on it would disturb each other.

    Fewer than the machine has where the system gives this process only some of them.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def gpus() -> list[str]:
    """The names of the CUDA devices, by number."""
    if torch_is_for_the_cpu():
        return []
    import torch

    return [torch.cuda.get_device_name(number) for number in range(gpu_count())]


def gpu_count() -> int:
    """How many CUDA devices this process may use: those of ``CUDA_VISIBLE_DEVICES``, where it is set."""
    if torch_is_for_the_cpu():
        return 0
    import torch

    return torch.cuda.device_count()


def free_gpu_mib() -> dict[int, float]:
    """MiB that are free on each CUDA device that this process may use, by number.

    A process of its own asks, since the question takes some of the memory; where it fails, nothing is known to be free.
    """
    count = gpu_count()
    done = subprocess.run([sys.executable, "-c", _FREE], capture_output=True, text=True, check=False) if count else None
    found = json.loads(done.stdout) if done is not None and done.returncode == 0 else []
    return {number: found[number] / 2**20 if number < len(found) else 0.0 for number in range(count)}


def torch_is_for_the_cpu() -> bool:
    """Whether the installed torch can only use the processor, told by its version: importing it takes seconds."""
    return importlib.metadata.version("torch").endswith("+cpu")


def choose_device(wanted: str) -> tuple[str, int | None]:
    """The device's kind, which is part of a trial's identity, and the GPU's number, which is not.

    Args:
        wanted: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserError: there is no such device; the message names those that are there.
    """
    if wanted == "cpu":
        return "cpu", None
    match = re.fullmatch(r"auto|cuda(?::(\d+))?", wanted)
    names = gpus()
    here = ", ".join(["cpu", *(f"cuda:{number} ({name})" for number, name in enumerate(names))])
    if match is None:
        raise UserError(f"unknown device {wanted!r}; this machine has: {here}")
    if wanted == "auto":
        return ("cuda", None) if names else ("cpu", None)
    number = match.group(1)
    if int(number or 0) >= len(names):
        why = "; the installed torch is a CPU-only build" if torch_is_for_the_cpu() else ""
        raise UserError(f"there is no device {wanted!r}; this machine has: {here}{why}")
    return "cuda", None if number is None else int(number)
