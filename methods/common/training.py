"""The student's optimiser as its options say, and steps in which its learning rate follows the progress."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch.nn import Parameter
from torch.optim import Optimizer

from bench import Session
from methods.common.optimizers import set_lr, student_optimizer
from methods.common.options import CosineOptions, SteppedOptions, StudentOptions


def kept_optimizer(
    s: Session, o: StudentOptions, parameters: Iterable[Parameter] | None = None, name: str = "opt_s"
) -> Optimizer:
    """The optimiser that the options describe, of the student's or of other parameters, kept under a name."""
    moved = s.student.parameters() if parameters is None else parameters
    return s.keep(name, student_optimizer(moved, o.optimizer, o.lr_student, o.momentum, o.weight_decay))


def scheduled_steps(
    s: Session, opt_s: Optimizer, o: CosineOptions | SteppedOptions, phase: str = "train"
) -> Iterator[float]:
    """The steps of a phase to the end of the budget, in each of which the student learns; yields the phase's progress.

    Before each step the student's learning rate is set to what the options say.
    """
    for progress in s.steps(phase):
        set_lr(opt_s, o.rate(progress))
        yield progress
