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


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_stays_with_the_process() -> None:
    assert kept("as it is") < 50_000_000 < 150_000_000 < kept("keep")


TRAINING = """
import hashlib, sys
import torch
from torch.nn import functional as F
from bench.utils.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.set_num_threads(1)
torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(10)
)
network(torch.zeros(2, 3, 32, 32))
optimizer = torch.optim.Adam(network.parameters())
for _ in range(8):
    loss = F.cross_entropy(network(torch.randn(32, 3, 32, 32)), torch.randint(10, (32,)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(hashlib.sha256(b"".join(each.numpy().tobytes() for each in network.state_dict().values())).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_no_bit_of_a_training_changes() -> None:
    kept, given_back = (
        subprocess.run([sys.executable, "-c", TRAINING, how], capture_output=True, text=True, check=True).stdout
        for how in ("keep", "as it is")
    )
    assert kept == given_back
