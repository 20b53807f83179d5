"""Where a number comes from: commit, versions, hardware. No user or host name. Does not import torch itself."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from bench._version import __version__
from bench.utils.git import git
from bench.utils.paths import ROOT

_PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "safetensors", "pandas", "scipy", "pillow")


def provenance(*, threads: int, deterministic: bool, device: str = "cpu") -> dict[str, Any]:
    """The provenance part of a record."""
    commit, dirty = _commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "suite": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device_name(device),
        "versions": dict(versions()),
        "threads": threads,
        "deterministic": deterministic,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@cache
def versions() -> dict[str, str]:
    """Versions of the libraries that can change a number."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def _commit() -> tuple[str | None, bool]:
    """The suite's own commit, and whether its files differ from it; (None, False) outside a checkout."""
    if not (ROOT / ".git").exists():
        return None, False
    try:
        commit = git(ROOT, "rev-parse", "HEAD")
        untracked = ("--untracked-files=no", "--ignore-submodules=none")
        return commit, bool(git(ROOT, "status", "--porcelain=v1", *untracked))
    except (OSError, subprocess.SubprocessError):
        return None, False


@cache
def device_name(device: str) -> str:
    """The processor's or the GPU's model."""
    if device != "cpu" and "torch" in sys.modules:
        import torch

        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
