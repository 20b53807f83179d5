"""Loss modules of torchdistill as functions of tensors, for ``Session.distill`` and ``Session.student_step``.

A mid-level loss of torchdistill reads named places of two networks: ``student_io_dict["layer3"]["output"]`` is what the
student's module ``layer3`` gave. The functions here give such a loss the places that the harness has, and say which
those are where it reads others.

Nothing of torchdistill is imported: what counts is how a module is called, which is the same from its version 1.1 on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from bench.errors import MethodError

_PROTOCOL = ["student_io_dict", "teacher_io_dict"]


def torchdistill_criterion(loss: nn.Module) -> Callable[..., Tensor]:
    """A loss of torchdistill on logits: ``criterion`` of ``Session.distill``, or a part of a loss of one's own.

    The loss finds the logits of both networks at the place "." with "output". Source: torchdistill's
    ``losses/mid_level.py`` (https://github.com/yoshitomo-matsubara/torchdistill).

    Args:
        loss: a mid-level loss of torchdistill, or anything that is called in the same way. One with weights or buffers
            of its own is kept first (``s.keep``).

    Returns:
        ``f(teacher_logits, student_logits)``, or with labels for a loss that wants them
        ``f(teacher_logits, student_logits, targets)``, which the loss of a ``Session.student_step`` calls with the
        batch's rows.

    Raises:
        MethodError: the module is called in another way; or, when it is used, it reads a place that is not given.
    """
    _check(loss)

    def criterion(teacher: Tensor, student: Tensor, targets: Tensor | None = None) -> Tensor:
        value: Tensor = loss(
            _places(loss, "student", {".": student}), _places(loss, "teacher", {".": teacher}), targets
        )
        return value

    return criterion


def torchdistill_group_loss(loss: nn.Module) -> Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]:
    """A loss of torchdistill on inner maps, a part of the loss of a ``Session.student_step``.

    The loss finds the groups of both networks at the places "0", "1", ... with "output", in their order: the teacher's
    are those of ``s.teacher(images, groups=True)``, given as rows, the student's those of ``batch.groups``.

    Args:
        loss: as for ``torchdistill_criterion``.

    Returns:
        ``f(teacher_groups, student_groups)``.

    Raises:
        MethodError: as for ``torchdistill_criterion``.
    """
    _check(loss)

    def group_loss(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
        value: Tensor = loss(
            _places(loss, "student", _numbered(student)), _places(loss, "teacher", _numbered(teacher)), None
        )
        return value

    return group_loss


class _Given(dict[str, Any]):
    """What a loss can read of a network; for anything else it is told what there is."""

    def __init__(self, entries: dict[str, Any], reads: str, given: str) -> None:
        super().__init__(entries)
        self._reads, self._given = reads, given

    def __missing__(self, key: Any) -> Any:
        raise MethodError(f"{self._reads} {key!r}; {self._given}")


def _places(loss: nn.Module, network: str, outputs: dict[str, Tensor]) -> _Given:
    """The places of one network, each with its output, as torchdistill hands them to a loss."""
    reads = f"{_name(loss)} reads the {network}'s"
    given = f"there are the outputs of {', '.join(map(repr, outputs))}"
    return _Given(
        {place: _Given({"output": output}, f"{reads} {place!r} at its", given) for place, output in outputs.items()},
        reads,
        given,
    )


def _numbered(groups: Sequence[Tensor]) -> dict[str, Tensor]:
    return {str(number): group for number, group in enumerate(groups)}


def _name(loss: nn.Module) -> str:
    return type(loss).__name__


def _check(loss: nn.Module) -> None:
    """
    Raises:
        MethodError: the loss is no module that is called as torchdistill calls its mid-level losses.
    """
    if not isinstance(loss, nn.Module):
        raise MethodError(f"a loss of torchdistill is a module, not {loss!r}: make one, as in KDLoss(...)")
    arguments = list(inspect.signature(loss.forward).parameters)
    if arguments[:2] != _PROTOCOL:
        raise MethodError(
            f"{_name(loss)} is no mid-level loss of torchdistill: its forward() takes {', '.join(arguments[:2])}, not "
            f"{', '.join(_PROTOCOL)}. A loss of PyTorch needs no bridge: criterion=lambda teacher, student: ..."
        )
