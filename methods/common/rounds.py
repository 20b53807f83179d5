"""What a flat loop needs to alternate: whose turn it is, networks in evaluation mode for a while, fresh optimisers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim import Optimizer


def turn(at: dict[str, Any], **lengths: int) -> tuple[str, int]:
    """Whose step this is, and the how-manieth in a row, when the parts of a round follow each other.

    ``at`` is a dictionary that was kept; it counts on, and also holds the number of the ``round``. Call it once a step.
    A part of length 0 has no turn. The lengths may change from round to round.

    >>> at = {}
    >>> [turn(at, generator=1, student=2) for _ in range(4)]
    [('generator', 0), ('student', 0), ('student', 1), ('generator', 0)]
    >>> at["round"]
    1
    """
    names = [name for name, length in lengths.items() if length > 0]
    if not names:
        raise ValueError("a round needs a part of length 1 or more")
    if not at:
        at.update(round=0, part=names[0], index=-1)
    at["index"] += 1
    if at["part"] not in names or at["index"] >= lengths[at["part"]]:
        order = list(lengths)
        later = [name for name in names if order.index(name) > order.index(at["part"])]
        at["round"] += not later
        at.update(part=(later or names)[0], index=0)
    return at["part"], at["index"]


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Evaluation mode within: running statistics are used and stay as they are. Afterwards the mode is as before.

    For the student in a generator's step (CMI, Fast-DFKD, DFQ): it is metered, and not taken for training images.
    """
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)


def restart(*optimizers: Optimizer) -> None:
    """As if made again: for an optimiser that is kept, but has a fresh start with every batch of images.

    Set its parameters in place (``codes.data.copy_(s.noise(...))``). A trial that is resumed gets the moments back.
    """
    for optimizer in optimizers:
        optimizer.state.clear()
