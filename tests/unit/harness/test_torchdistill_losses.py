"""Losses that are called as torchdistill calls its own: what they are given, and what they are told where they read
more. The package itself is not needed here; ``tests/differential/test_against_torchdistill.py`` has its own losses."""

from __future__ import annotations

import pytest
import torch
from method_fixtures import IMAGE, trial
from torch import Tensor, nn
from torch.optim import SGD

from bench import StudentBatch, torchdistill_criterion, torchdistill_group_loss
from bench.errors import MethodError


class Between(nn.Module):
    """A distance of two named places."""

    def __init__(self, student: str = ".", teacher: str = ".", end: str = "output") -> None:
        super().__init__()
        self.student, self.teacher, self.end = student, teacher, end
        self.targets: list[Tensor | None] = []

    def forward(self, student_io_dict, teacher_io_dict, targets=None):  # type: ignore[no-untyped-def]
        self.targets.append(targets)
        return (student_io_dict[self.student][self.end] - teacher_io_dict[self.teacher][self.end]).abs().mean()


def test_a_loss_gets_both_networks_logits_and_trains_the_student() -> None:
    images = torch.randn(8, *IMAGE.shape)
    with trial() as (s, _):
        opt = s.keep("opt", SGD(s.student.parameters(), 0.1))
        with torch.no_grad():
            teacher, before = s.teacher(images).logits, s.student(images)
        found = s.distill(opt, images, logits=teacher, criterion=torchdistill_criterion(Between()), alpha=2.0)
        torch.testing.assert_close(found, 2 * (before - teacher).abs().mean())
        with torch.no_grad():
            assert (s.student(images) - teacher).abs().mean() < found / 2


def test_a_loss_that_wants_labels_gets_those_of_the_images_that_are_trained_on() -> None:
    loss = Between()
    criterion = torchdistill_criterion(loss)

    def own(batch: StudentBatch) -> Tensor:
        return criterion(batch.teacher, batch.student, batch.rows)

    with trial() as (s, _):
        opt = s.keep("opt", SGD(s.student.parameters(), 0.1))
        s.student_step(opt, torch.randn(64, *IMAGE.shape), own, rows=torch.arange(64))
        s.distill(opt, torch.randn(4, *IMAGE.shape), criterion=criterion)
    assert loss.targets[0] is not None
    assert loss.targets[0].tolist() == [*range(8, 16), *range(8, 64)]  # the harness holds eight out
    assert loss.targets[1] is None


def test_a_loss_on_groups_reads_them_by_their_number() -> None:
    images = torch.randn(8, *IMAGE.shape)

    class Norms(Between):
        def forward(self, student_io_dict, teacher_io_dict, targets=None):  # type: ignore[no-untyped-def]
            assert targets is None
            assert list(student_io_dict) == list(teacher_io_dict) == ["0", "1"]
            return student_io_dict["1"]["output"].norm() + 2 * teacher_io_dict["0"]["output"].norm()

    with trial() as (s, _):
        opt = s.keep("opt", SGD(s.student.parameters(), 0.1))
        with torch.no_grad():
            teacher = s.teacher(images, groups=True)
        group_loss = torchdistill_group_loss(Norms())
        own: list[Tensor] = []

        def loss(batch: StudentBatch) -> Tensor:
            own.extend(each.detach() for each in batch.groups)
            return group_loss(batch.rows, batch.groups)

        found = s.student_step(opt, images, loss, logits=teacher.logits, rows=teacher.groups, groups=True)
        torch.testing.assert_close(found, own[1].norm() + 2 * teacher.groups[0].norm())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Between("layer3"), "Between reads the student's 'layer3'; there are the outputs of '.'"),
        (Between(teacher="0"), "Between reads the teacher's '0'; there are the outputs of '.'"),
        (Between(end="input"), "Between reads the student's '.' at its 'input'; there are the outputs of '.'"),
    ],
)
def test_a_loss_that_reads_another_place_is_told_which_there_are(loss: nn.Module, message: str) -> None:
    criterion = torchdistill_criterion(loss)
    with pytest.raises(MethodError) as caught:
        criterion(torch.zeros(2, 10), torch.zeros(2, 10))
    assert str(caught.value) == message


def test_a_loss_on_groups_is_told_how_many_there_are() -> None:
    group_loss = torchdistill_group_loss(Between("0", "2"))
    maps = [torch.zeros(2, 3, 4, 4)] * 2
    with pytest.raises(MethodError, match=r"Between reads the teacher's '2'; there are the outputs of '0', '1'"):
        group_loss(maps, maps)


@pytest.mark.parametrize("make", [torchdistill_criterion, torchdistill_group_loss])
def test_what_is_called_in_another_way_is_refused_before_it_is_used(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MethodError, match=r"KLDivLoss is no mid-level loss of torchdistill: its forward\(\) takes"):
        make(nn.KLDivLoss())
    with pytest.raises(MethodError, match=r"is a module, not <class .*Between'>: make one"):
        make(Between)
