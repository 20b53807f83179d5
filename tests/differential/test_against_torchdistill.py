"""torchdistill's own losses as losses of ``s.distill``: with the values and gradients that they have by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, trial
from torch import Tensor, nn
from torch.optim import SGD

from bench import Session, StudentBatch, kl_divergence, torchdistill_criterion, torchdistill_group_loss
from bench.errors import MethodError

mid_level = pytest.importorskip(
    "torchdistill.losses.mid_level", reason="the extra `torchdistill` is not installed: pip install '.[torchdistill]'"
)

LOGITS = (".", "output", ".", "output")
ON_LOGITS: dict[str, Callable[[], nn.Module]] = {
    "KDLoss": lambda: mid_level.KDLoss(*LOGITS, temperature=4.0, alpha=0.3),
    "LogitStdKDLoss": lambda: mid_level.LogitStdKDLoss(*LOGITS, temperature=2.0, alpha=0.1),
    "DISTLoss": lambda: mid_level.DISTLoss(*LOGITS, tau=4.0),
    "PKTLoss": lambda: mid_level.PKTLoss(*LOGITS),
    "SPKDLoss": lambda: mid_level.SPKDLoss(".", ".", "batchmean"),
    "RKDLoss": lambda: mid_level.RKDLoss(".", ".", dist_factor=1.0, angle_factor=2.0, reduction="mean"),
    "SimpleLossWrapper": lambda: mid_level.SimpleLossWrapper(
        nn.MSELoss(),
        input={"is_from_teacher": False, "module_path": ".", "io": "output"},
        target={"is_from_teacher": True, "module_path": ".", "io": "output"},
    ),
}


def pair(**end: int) -> dict[str, dict[str, str]]:
    return {side: {"path": str(place), "io": "output"} for side, place in end.items()}


ON_GROUPS: dict[str, Callable[[], nn.Module]] = {
    "ATLoss": lambda: mid_level.ATLoss({f"at{n}": {**pair(student=n, teacher=n), "weight": 10.0} for n in (0, 1)}),
    "SPKDLoss": lambda: mid_level.SPKDLoss("1", "1", "batchmean"),
}
OF_ONE_WIDTH: dict[str, Callable[[], nn.Module]] = {
    "ChSimLoss": lambda: mid_level.ChSimLoss({"pair": pair(student=0, teacher=1)}),
    "FSPLoss": lambda: mid_level.FSPLoss(
        {
            "fsp": {
                f"{side}_{end}": {"path": path, "io": "output"}
                for side in ("teacher", "student")
                for end, path in (("first", "0"), ("second", "1"))
            }
        }
    ),
}


def logits(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    teacher, student = (3 * torch.randn(12, 10, generator=stream, dtype=torch.float64) for _ in range(2))
    return teacher, student.requires_grad_(), torch.randint(10, (12,), generator=stream)


def slope(loss: Callable[[Tensor, Tensor, Tensor], Tensor], seed: int = 0) -> tuple[Tensor, Tensor]:
    teacher, student, labels = logits(seed)
    value = loss(teacher, student, labels)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


@pytest.mark.parametrize("make", ON_LOGITS.values(), ids=ON_LOGITS)
def test_a_loss_on_logits_has_its_own_value_and_gradient(make: Callable[[], nn.Module]) -> None:
    def by_itself(teacher: Tensor, student: Tensor, labels: Tensor) -> Any:
        return make()({".": {"output": student}}, {".": {"output": teacher}}, labels)

    theirs, ours = slope(by_itself), slope(torchdistill_criterion(make()))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert ours[1].abs().max() > 1e-6


def test_their_distillation_is_the_one_of_this_suite() -> None:
    def suite(teacher: Tensor, student: Tensor, labels: Tensor) -> Tensor:
        return 0.7 * kl_divergence(teacher, student, 4.0) + 0.3 * nn.functional.cross_entropy(student, labels)

    torch.testing.assert_close(slope(torchdistill_criterion(ON_LOGITS["KDLoss"]())), slope(suite))


def test_without_labels_their_distillation_has_no_factor_of_the_squared_temperature() -> None:
    criterion = torchdistill_criterion(ON_LOGITS["KDLoss"]())
    theirs = slope(lambda teacher, student, _: criterion(teacher, student))
    torch.testing.assert_close(theirs, slope(lambda teacher, student, _: kl_divergence(teacher, student, 4.0) / 16))


def test_a_student_step_with_it_is_the_step_with_the_suites_loss() -> None:
    images = torch.randn(32, *IMAGE.shape)
    labels = torch.arange(32) % 10

    def weights_after(step: Callable[[Session, SGD], Tensor]) -> list[Tensor]:
        with trial() as (s, _):
            step(s, s.keep("opt", SGD(s.student.parameters(), 0.1)))
            return [weight.detach() for weight in s.student.parameters()]

    criterion = torchdistill_criterion(ON_LOGITS["KDLoss"]())

    def bridged(batch: StudentBatch) -> Tensor:
        return criterion(batch.teacher, batch.student, batch.rows)

    theirs = weights_after(lambda s, opt: s.student_step(opt, images, bridged, rows=labels))
    ours = weights_after(lambda s, opt: s.distill(opt, images, temperature=4.0, alpha=0.7, labels=labels, beta=0.3))
    torch.testing.assert_close(theirs, ours)


@pytest.mark.parametrize("make", ON_GROUPS.values(), ids=ON_GROUPS)
def test_a_loss_on_groups_has_its_own_value(make: Callable[[], nn.Module]) -> None:
    images = torch.randn(12, *IMAGE.shape)
    with trial() as (s, _):
        opt = s.keep("opt", SGD(s.student.parameters(), 0.1))
        with torch.no_grad():
            out = s.teacher(images, groups=True)
        seen: list[Any] = []

        def by_itself(teacher: Any, student: Any) -> Any:
            sides = ({str(n): {"output": group} for n, group in enumerate(side)} for side in (student, teacher))
            seen.append(make()(*sides))
            return seen[0]

        bridged = torchdistill_group_loss(make())
        found = [
            s.student_step(
                opt,
                images,
                lambda batch, loss=loss: loss(batch.rows, batch.groups),  # type: ignore[misc]
                logits=out.logits,
                rows=out.groups,
                groups=True,
                clip=1e-30,
            )
            for loss in (by_itself, bridged)
        ]
    assert seen[0] > 1e-6
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@pytest.mark.parametrize("make", OF_ONE_WIDTH.values(), ids=OF_ONE_WIDTH)
def test_a_loss_on_groups_of_one_width_has_its_own_value(make: Callable[[], nn.Module]) -> None:
    teacher, student = ([torch.randn(4, 3, 8, 8) for _ in range(2)] for _ in range(2))
    sides = ({str(n): {"output": group} for n, group in enumerate(side)} for side in (student, teacher))
    theirs = make()(*sides)
    assert theirs > 1e-6
    torch.testing.assert_close(torchdistill_group_loss(make())(teacher, student), theirs, rtol=0, atol=0)


def test_a_loss_of_modules_that_the_networks_do_not_have_is_told_so() -> None:
    criterion = torchdistill_criterion(mid_level.FTLoss())
    with pytest.raises(MethodError, match=r"FTLoss reads the teacher's 'paraphraser'; there are the outputs of '\.'"):
        criterion(torch.zeros(2, 10), torch.zeros(2, 10))


def test_a_weighted_sum_of_losses_is_no_mid_level_loss() -> None:
    high_level = pytest.importorskip("torchdistill.losses.high_level")
    with pytest.raises(MethodError, match=r"WeightedSumLoss is no mid-level loss .* takes io_dict, model_loss_dict"):
        torchdistill_criterion(high_level.WeightedSumLoss())
