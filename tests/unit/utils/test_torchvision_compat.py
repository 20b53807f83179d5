"""torchvision imports on every torch build that we meet."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_torchvision_imports_in_a_fresh_process() -> None:
    code = "from bench.utils.torchvision_compat import torchvision; print(torchvision().transforms.functional.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torchvision.transforms.functional"


def test_operators_are_declared_once() -> None:
    from bench.utils.torchvision_compat import declare_operators

    declare_operators()
    declare_operators()
    import torch

    assert hasattr(torch.ops.torchvision, "nms")
    assert hasattr(torch.ops.torchvision, "qnms")


def test_other_failures_are_not_hidden() -> None:
    code = (
        "import sys, types, importlib, bench.utils.torchvision_compat as c\n"
        "real = importlib.import_module\n"
        "def fail(name): raise RuntimeError('something else')\n"
        "importlib.import_module = fail\n"
        "try:\n    c.torchvision()\nexcept RuntimeError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "something else"
