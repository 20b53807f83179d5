"""Freed memory that is kept is still there for the next step."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STEP = """
import sys
import psutil, torch
from bench.utils.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def resident():
    return psutil.Process().memory_info().rss
before = resident()
tensors = [torch.ones(4_000_000) for _ in range(10)]  # 16 MB each
del tensors
print(resident() - before)
"""


def kept(how: str) -> int:
    """Bytes that a process still has of 160 million that it has freed."""
    done = subprocess.run([sys.executable, "-c", STEP, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_stays_with_the_process() -> None:
    assert kept("as it is") < 50_000_000 < 150_000_000 < kept("keep")
