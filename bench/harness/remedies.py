"""What to write instead, for errors of torch's into which a plain training script runs when it becomes a method."""

from __future__ import annotations

import re

from bench.errors import DataLeak, MethodError
from bench.utils.tracebacks import leaves_of, told

_UPDATE = "s.update and s.distill compute the gradients and make the step: leave out loss.backward()"
_MOVED = "leave out .cuda() and .to(): what the Session hands out is on s.device, and s.keep(name, thing) moves yours"
_REMEDIES = (
    ("Torch not compiled with CUDA|Found no NVIDIA driver|No CUDA GPUs|no CUDA-capable device", _MOVED),
    (
        "Expected all tensors to be on the same device|"
        "Input type .* and weight type .* should be the same|[Ee]xpected a .* device type for generator",
        "make your own tensors with device=s.device, and s.keep(name, network) before its optimiser is made",
    ),
    ("backward through the graph a second time", _UPDATE),
    (
        "does not require grad and does not have a grad_fn",
        "s.distill has made its step when it returns: its loss is for s.log, leave out loss.backward()",
    ),
    (
        "keep\\(\\) missing 1 required positional argument: 'thing'",
        "s.keep(name, thing) takes a name first, such as 'opt_s'",
    ),
    (
        "distill\\(\\) got an unexpected keyword argument '(rows|groups|group_loss|group_by|penultimate)'",
        "a loss that needs more than both networks' logits is one of s.student_step(optimizer, images, loss)",
    ),
    ("'generator' object cannot be interpreted as an integer", "the loop is: for _ in s.steps(name)"),
)
_REAL = "real images come from s.images(batch), for a method that declares Data.TRAIN or Data.POOL"


def remedy(error: BaseException) -> str:
    """What helps, ``; do this``; empty where nothing is known, or the error is the Session's and says so itself."""
    for leaf in leaves_of(error):
        if isinstance(leaf, DataLeak):
            return f"; {_REAL}"
        if isinstance(leaf, MethodError) or not isinstance(leaf, Exception):
            continue
        text = told(leaf)
        for pattern, words in _REMEDIES:
            if re.search(pattern, text):
                return f"; {words}"
    return ""
