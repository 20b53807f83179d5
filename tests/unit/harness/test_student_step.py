"""A student's step on a loss of one's own: what the loss is given, what it may do with it, and how it is told off."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, lenet, same_weights, trial
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from bench import Session, StudentBatch, image_generator, kl_divergence
from bench.errors import AccessDenied, MethodError, Unsupported
from bench.execution.status import ending_of
from bench.spec.method import Access

EVERYTHING = {"features": True, "groups": True, "layers": True, "penultimate": True}
PARTS = ("rows", *EVERYTHING)
HELD_OUT = [*range(8, 16), *range(8, 40)]  # what 40 images are trained on in a step that holds eight out


def sgd(s: Session, rate: float = 0.1) -> SGD:
    return s.keep("opt", SGD(s.student.parameters(), rate))


def plain(batch: StudentBatch) -> Tensor:
    return kl_divergence(batch.teacher, batch.student)


# ---- what the loss is given ------------------------------------------------------------------------------------------


def test_everything_in_the_batch_is_of_the_images_that_are_trained_on() -> None:
    images = torch.randn(40, *IMAGE.shape)
    seen: list[StudentBatch] = []

    def loss(batch: StudentBatch) -> Tensor:
        seen.append(batch)
        places, maps = batch.rows
        assert places.tolist() == HELD_OUT
        torch.testing.assert_close(batch.images, images[places], rtol=0, atol=0)
        with torch.no_grad():
            out = s.teacher(batch.images, groups=True)
            logits, features = s.student_features(batch.images)
            _, last = s.student_features(batch.images, penultimate=True)
            _, ends = s.student_groups(batch.images)
        torch.testing.assert_close(batch.teacher, out.logits)
        torch.testing.assert_close(maps, out.groups[0])
        torch.testing.assert_close(batch.student, logits)
        torch.testing.assert_close(batch.features, features)
        torch.testing.assert_close(batch.penultimate, last)
        torch.testing.assert_close([group[-1] for group in batch.layers], list(ends))
        assert [tuple(each.shape[1:]) for group in batch.layers for each in group] == [
            shape for group in s.student_layer_shapes for shape in group
        ]
        assert [tuple(each.shape[:2]) for each in batch.groups] == [(40, 3), (40, 8)]
        return plain(batch)

    with trial() as (s, context):
        with torch.no_grad():
            out = s.teacher(images, groups=True)
        s.student_step(sgd(s), images, loss, logits=out.logits, rows=[torch.arange(40), out.groups[0]], **EVERYTHING)
        held = context.capture.held_out.column("images")
        assert held is not None
        torch.testing.assert_close(held, images[:8], rtol=0, atol=0)
        s.student_step(context.kept["opt"], images, lambda batch: seen.append(batch) or plain(batch))  # none held out
    assert seen[0].student.requires_grad
    assert not seen[0].images.requires_grad
    assert not seen[0].teacher.requires_grad
    torch.testing.assert_close(seen[1].images, images, rtol=0, atol=0)


def test_the_groups_are_the_outputs_of_the_students_stages() -> None:
    images = torch.randn(4, *IMAGE.shape)
    with trial() as (s, _):
        found: list[Tensor] = []
        hooks = [
            stage.register_forward_hook(lambda *call: found.append(call[2]))
            for stage in s.student.stages  # type: ignore[union-attr]
        ]
        groups: list[tuple[Tensor, ...]] = []
        s.student_step(sgd(s), images, lambda batch: groups.append(batch.groups) or plain(batch), groups=True)
        for hook in hooks:
            hook.remove()
        assert len(groups[0]) == 2
        assert all(mine is own for mine, own in zip(groups[0], found, strict=True))
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in s.student.modules())


def test_rows_are_given_back_in_the_form_in_which_they_were_given() -> None:
    images, places = torch.randn(4, *IMAGE.shape), torch.arange(4)
    found: list[Any] = []
    with trial() as (s, _):
        opt = sgd(s)
        for rows in (places, (places,), [places, places], ()):
            s.student_step(opt, images, lambda batch: found.append(batch.rows) or plain(batch), rows=rows)
    assert found[0] is places
    assert [len(each) for each in found[1:]] == [1, 2, 0]
    assert all(isinstance(each, tuple) for each in found[1:])


def test_rows_on_the_host_follow_too() -> None:
    """Their order is made on the images' device; here both are the CPU, and the order is as wanted all the same."""
    with trial() as (s, _):
        seen: list[Tensor] = []
        rows = torch.arange(80.0).view(40, 2)
        s.student_step(sgd(s), torch.randn(40, *IMAGE.shape), lambda b: seen.append(b.rows) or plain(b), rows=rows)
    torch.testing.assert_close(seen[0], rows[HELD_OUT], rtol=0, atol=0)


@pytest.mark.parametrize("part", PARTS)
def test_what_was_not_asked_for_says_how_to_ask(part: str) -> None:
    with trial() as (s, _):
        others = {name: value for name, value in EVERYTHING.items() if name != part}
        how = "rows=tensor" if part == "rows" else f"{part}=True"
        with pytest.raises(AttributeError, match=rf"ask for it: s\.student_step\(\.\.\., {how}\)"):
            s.student_step(sgd(s), s.noise(4, *IMAGE.shape), lambda batch: getattr(batch, part), **others)


def test_a_batch_cannot_be_changed() -> None:
    batch = StudentBatch(*torch.zeros(3, 2, 2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.teacher = torch.ones(2)  # type: ignore[misc]


# ---- the step --------------------------------------------------------------------------------------------------------


def test_the_same_loss_takes_the_same_step_in_both_forms() -> None:
    labels = torch.arange(40) % 10

    def of_all(batch: StudentBatch) -> Tensor:
        return 0.7 * kl_divergence(batch.teacher, batch.student, 3.0) + 0.2 * F.cross_entropy(batch.student, batch.rows)

    def after(step: Callable[[Session, SGD, Tensor], Tensor]) -> tuple[nn.Module, Tensor, dict[str, Any]]:
        with trial() as (s, context):
            opt = sgd(s)
            losses = [step(s, opt, s.noise(40, *IMAGE.shape)) for _ in range(3)]
            return context.student, torch.stack(losses), context.meter.as_record()

    mine = after(lambda s, opt, images: s.student_step(opt, images, of_all, rows=labels))
    ours = after(lambda s, opt, images: s.distill(opt, images, temperature=3.0, alpha=0.7, labels=labels, beta=0.2))
    assert same_weights(mine[0], ours[0])
    assert torch.equal(mine[1], ours[1])
    assert not mine[1].requires_grad
    counts = [{name: value for name, value in meter.items() if name != "seconds"} for meter in (mine[2], ours[2])]
    assert counts[0] == counts[1]


def test_the_teacher_is_asked_where_its_logits_are_not_known() -> None:
    images = torch.randn(6, *IMAGE.shape)
    with trial() as (s, context):
        opt = sgd(s)
        with torch.no_grad():
            logits = s.teacher(images).logits
        seen: list[Tensor] = []
        s.student_step(opt, images, lambda batch: seen.append(batch.teacher) or plain(batch), logits=logits)
        assert context.meter.teacher_images == 6
        s.student_step(opt, images, lambda batch: seen.append(batch.teacher) or plain(batch))
        assert context.meter.teacher_images == 12  # also for a loss that does not look at the answer
        s.student_step(opt, images, lambda batch: batch.student.square().mean())
        assert context.meter.teacher_images == 18
    torch.testing.assert_close(seen[0], seen[1])


@pytest.mark.parametrize("access", [Access.NONE, Access.LABELS])
@pytest.mark.parametrize("known", [False, True])
def test_a_step_needs_the_access_of_the_logits(access: Access, known: bool) -> None:
    with trial(access=access) as (s, context):
        logits = torch.zeros(4, 10) if known else None
        with pytest.raises(AccessDenied, match=f"but declares Access.{access.name}"):
            s.student_step(sgd(s), s.noise(4, *IMAGE.shape), lambda batch: batch.student.mean(), logits=logits)
        assert context.meter.optimizer_steps == 0


def test_rows_keep_their_gradient() -> None:
    """Such as the teacher's features after a layer that learns along."""
    with trial() as (s, _):
        adapter = s.keep("adapter", nn.Linear(84, 10))
        opt = s.keep("opt", SGD([*s.student.parameters(), *adapter.parameters()], 0.1))
        before = adapter.weight.detach().clone()
        images = s.noise(40, *IMAGE.shape)
        out = s.teacher(images, penultimate=True)
        s.student_step(opt, images, lambda batch: F.mse_loss(batch.student, batch.rows), rows=adapter(out.penultimate))
        assert not torch.equal(adapter.weight, before)


@pytest.mark.parametrize("known", [False, True])
def test_images_and_logits_carry_no_gradient_into_the_step(known: bool) -> None:
    """A generator that made the images does not learn from the student's step, whatever the optimiser has."""
    seen: list[bool] = []

    def loss(batch: StudentBatch) -> Tensor:
        seen.extend((batch.images.requires_grad, batch.teacher.requires_grad, batch.student.requires_grad))
        return plain(batch)

    with trial() as (s, context):
        generator = s.keep("generator", image_generator(8, s.task.image, width=4))
        opt = s.keep("opt", SGD([*s.student.parameters(), *generator.parameters()], 0.1))
        before = {name: value.detach().clone() for name, value in generator.named_parameters()}
        images = generator(s.noise(40, 8))
        s.student_step(opt, images, loss, logits=s.teacher(images).logits if known else None)
        assert all(torch.equal(value, before[name]) for name, value in generator.named_parameters())
        assert context.capture.training.rows  # images that carry a gradient are not those that a student is trained on
        assert context.meter.teacher_backward == 0
    assert seen == [False, False, True]


def test_a_steps_gradient_can_be_clipped() -> None:
    with trial() as (s, _):
        before = [value.detach().clone() for value in s.student.parameters()]
        s.student_step(sgd(s, 1.0), s.noise(8, *IMAGE.shape), lambda b: 100 * b.student.square().sum(), clip=1e-3)
        moved = torch.cat([(a - b).flatten() for a, b in zip(before, s.student.parameters(), strict=True)])
        torch.testing.assert_close(moved.norm(), torch.tensor(1e-3), rtol=1e-2, atol=0)


BEGINS: dict[str, Callable[[StudentBatch], list[Tensor]]] = {
    "the answer": lambda batch: [batch.student],
    "the features": lambda batch: [batch.features],
    "the penultimate features": lambda batch: [batch.penultimate],
    "the first group": lambda batch: [batch.groups[0]],
    "the last group": lambda batch: [batch.groups[-1]],
    "the last map": lambda batch: [batch.layers[-1][-1]],
    "maps, features and answer": lambda b: [b.layers[0][0], *b.groups, b.features, b.penultimate, b.student],
}


@pytest.mark.parametrize("begins", BEGINS)
@pytest.mark.parametrize("asked", ["as needed", "everything"])
def test_a_step_counts_one_backward_pass_wherever_its_loss_begins(begins: str, asked: str) -> None:
    def steps(loss: Callable[[StudentBatch], list[Tensor]], wanted: dict[str, bool]) -> tuple[int, int, int]:
        with trial() as (s, context):
            opt = sgd(s)
            for _ in range(2):
                s.student_step(
                    opt,
                    s.noise(6, *IMAGE.shape),
                    lambda batch: torch.stack([each.square().mean() for each in loss(batch)]).sum(),
                    **wanted,  # type: ignore[arg-type]
                )
            return context.meter.student_images, context.meter.student_backward, context.meter.macs

    needed = {
        "the answer": (),
        "the features": ("features",),
        "the penultimate features": ("penultimate",),
        "the first group": ("groups",),
        "the last group": ("groups",),
        "the last map": ("layers",),
        "maps, features and answer": tuple(EVERYTHING),
    }[begins]
    wanted = EVERYTHING if asked == "everything" else dict.fromkeys(needed, True)
    assert steps(BEGINS[begins], wanted) == steps(BEGINS["the answer"], {})
    assert steps(BEGINS[begins], wanted)[:2] == (12, 12)


def test_a_backward_pass_of_the_loss_itself_is_counted_beside_that_of_the_step() -> None:
    def seen(batch: StudentBatch) -> Tensor:
        ends = [group[-1] for group in batch.layers]
        found = torch.autograd.grad(batch.student.sum(), ends, retain_graph=True)
        return torch.stack([(each * end).mean() for each, end in zip(found, ends, strict=True)]).sum()

    with trial() as (s, context):
        s.student_step(sgd(s), s.noise(6, *IMAGE.shape), seen, layers=True, penultimate=True)
        assert (context.meter.student_images, context.meter.student_backward) == (6, 12)


def test_the_loss_may_ask_the_student_again() -> None:
    """Mixing: the student's answer to a mixture is to be the mixture of the teacher's answers."""

    def mixed(batch: StudentBatch) -> Tensor:
        partners = torch.arange(len(batch.images)).roll(1)
        own = s.student(torch.lerp(batch.images, batch.images[partners], 0.3))
        return plain(batch) + F.mse_loss(own, torch.lerp(batch.teacher, batch.teacher[partners], 0.3))

    with trial() as (s, context):
        loss = s.student_step(sgd(s), s.noise(8, *IMAGE.shape), mixed)
        assert float(loss) > 0
        meter = context.meter
        assert (meter.student_images, meter.student_backward, meter.teacher_images) == (16, 16, 8)


def test_a_student_without_such_parts_leaves_the_trial_out_by_plan() -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))
    with trial(student=student) as (s, _):
        opt, images = sgd(s), s.noise(4, *IMAGE.shape)
        for part in ("groups", "layers"):
            with pytest.raises(Unsupported, match="Sequential names no"):
                s.student_step(opt, images, plain, **{part: True})  # type: ignore[arg-type]
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())


# ---- what is no loss, or no row --------------------------------------------------------------------------------------

IMAGES = torch.randn(8, *IMAGE.shape, generator=torch.Generator().manual_seed(0))
WRONG: dict[str, tuple[Callable[[Session, SGD], Any], str]] = {
    "a tensor": (
        lambda s, opt: s.student_step(opt, IMAGES, s.student(IMAGES).mean()),  # type: ignore[arg-type]
        r"the loss of s\.student_step is a function, loss\(batch\), not Tensor",
    ),
    "a function of two": (
        lambda s, opt: s.student_step(opt, IMAGES, F.l1_loss),
        r"is called as loss\(batch\), and takes \(input, target, .*\); the logits are batch\.teacher and",
    ),
    "a module of two": (
        lambda s, opt: s.student_step(opt, IMAGES, nn.L1Loss()),
        r"is called as loss\(batch\), and takes \(input, target\)",
    ),
    "nothing returned": (
        lambda s, opt: s.student_step(opt, IMAGES, lambda batch: None),  # type: ignore[arg-type,return-value]
        r"the loss of s\.student_step gives a scalar tensor, not NoneType",
    ),
    "the batch returned": (
        lambda s, opt: s.student_step(opt, IMAGES, lambda batch: batch),  # type: ignore[arg-type,return-value]
        r"the loss of s\.student_step gives a scalar tensor, not StudentBatch",
    ),
    "one number for each image": (
        lambda s, opt: s.student_step(opt, IMAGES, lambda batch: batch.student.mean(1)),
        r"a loss is a single number, not a tensor of shape \(8,\): take its mean",
    ),
    "detached": (
        lambda s, opt: s.student_step(opt, IMAGES, lambda batch: batch.student.detach().mean()),
        "the loss depends on no trainable parameter",
    ),
    "too few rows": (
        lambda s, opt: s.student_step(opt, IMAGES, plain, rows=torch.arange(7)),
        r"rows= of s\.student_step takes one row for each image: \(7,\) does not fit images \(8, 1, 32, 32\)",
    ),
    "too many rows in one of them": (
        lambda s, opt: s.student_step(opt, IMAGES, plain, rows=(torch.arange(8), torch.zeros(9, 2))),
        r"rows= of s\.student_step takes one row for each image: \(9, 2\) does not fit",
    ),
    "rows that are one number": (
        lambda s, opt: s.student_step(opt, IMAGES, plain, rows=torch.tensor(3)),
        r"takes one row for each image: \(\) does not fit",
    ),
    "rows that are the teacher's answer": (
        lambda s, opt: s.student_step(opt, IMAGES, plain, rows=s.teacher(IMAGES)),  # type: ignore[arg-type]
        r"rows= of s\.student_step takes a tensor, not TeacherOutput; it is no tensor: use \.logits",
    ),
    "rows by name": (
        lambda s, opt: s.student_step(opt, IMAGES, plain, rows={"places": torch.arange(8)}),  # type: ignore[arg-type]
        r"rows= of s\.student_step takes a tensor, not dict",
    ),
    "rows of numbers": (
        lambda s, opt: s.student_step(opt, IMAGES, plain, rows=[*range(8)]),  # type: ignore[list-item]
        r"rows= of s\.student_step, at place 0, takes a tensor, not int",
    ),
    "logits of other images": (
        lambda s, opt: s.student_step(opt, IMAGES, plain, logits=torch.zeros(9, 10)),
        r"logits= of s\.student_step takes one row for each image: \(9, 10\) does not fit",
    ),
    "logits that are the teacher's answer": (
        lambda s, opt: s.student_step(opt, IMAGES, plain, logits=s.teacher(IMAGES)),  # type: ignore[arg-type]
        r"logits= of s\.student_step takes a tensor, not TeacherOutput",
    ),
    "images that are the teacher's answer": (
        lambda s, opt: s.student_step(opt, s.teacher(IMAGES), plain),  # type: ignore[arg-type]
        r"s\.student_step\(optimizer, images, loss\) takes a tensor, not TeacherOutput",
    ),
    "no optimiser": (
        lambda s, opt: s.student_step(IMAGES, opt, plain),  # type: ignore[arg-type]
        r"s\.student_step\(optimizer, images, loss\) takes an optimiser first, not Tensor",
    ),
    "the batch in an update": (
        lambda s, opt: s.student_step(opt, IMAGES, lambda batch: s.update(opt, batch)),  # type: ignore[arg-type,func-returns-value,return-value]
        r"takes a tensor, not StudentBatch; it is no tensor: use \.student, \.teacher, \.images, or another part",
    ),
    "the batch to the teacher": (
        lambda s, opt: s.student_step(opt, IMAGES, lambda batch: s.teacher(batch).logits.mean()),  # type: ignore[arg-type]
        r"s\.teacher\(images\) takes a tensor, not StudentBatch; it is no tensor: use \.student",
    ),
    "the batch to the student": (
        lambda s, opt: s.student_step(opt, IMAGES, lambda batch: s.student(batch).mean()),
        r"the student takes a tensor, not StudentBatch; it is no tensor: use \.student",
    ),
    "a criterion of three": (
        lambda s, opt: s.distill(opt, IMAGES, criterion=lambda teacher, student, rows: student.mean()),  # type: ignore[arg-type,misc]
        r"criterion= of s\.distill is called as f\(teacher_logits, student_logits\), and takes "
        r"\(teacher, student, rows\); a loss that needs more than these is one of s\.student_step",
    ),
    "a criterion of one": (
        lambda s, opt: s.distill(opt, IMAGES, criterion=plain),  # type: ignore[arg-type]
        r"criterion= of s\.distill is called as f\(teacher_logits, student_logits\), and takes \(batch\)",
    ),
    "a criterion that is a class": (
        lambda s, opt: s.distill(opt, IMAGES, criterion=nn.L1Loss),  # type: ignore[arg-type]
        r"criterion= of s\.distill is a function, f\(.*\), not a class: make one, L1Loss\(\)",
    ),
    "a criterion that is a name": (
        lambda s, opt: s.distill(opt, IMAGES, criterion="l1"),  # type: ignore[arg-type]
        r"criterion= of s\.distill is a function, f\(teacher_logits, student_logits\), not str",
    ),
    "a criterion for each image": (
        lambda s, opt: s.distill(opt, IMAGES, criterion=lambda teacher, student: (teacher - student).abs().mean(1)),
        r"a loss is a single number, not a tensor of shape \(8,\): take its mean",
    ),
    "labels of other images": (
        lambda s, opt: s.distill(opt, IMAGES, labels=torch.arange(9), beta=1.0),
        r"labels= of s\.distill takes one row for each image: \(9,\) does not fit",
    ),
    "distil's logits of other images": (
        lambda s, opt: s.distill(opt, IMAGES, logits=torch.zeros(1, 10)),
        r"logits= of s\.distill takes one row for each image: \(1, 10\) does not fit",
    ),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_step_is_told_what_is_allowed(wrong: str) -> None:
    body, message = WRONG[wrong]
    with trial() as (s, _):
        opt = sgd(s)
        before = [value.detach().clone() for value in s.student.parameters()]
        with pytest.raises(MethodError, match=message):
            body(s, opt)
        assert all(torch.equal(a, b) for a, b in zip(before, s.student.parameters(), strict=True))


@pytest.mark.parametrize("name", ["rows", "groups", "group_loss", "group_by", "penultimate"])
def test_what_distil_took_before_is_answered_with_the_step_that_takes_it(name: str) -> None:
    with trial() as (s, _), pytest.raises(TypeError) as caught:
        s.distill(sgd(s), IMAGES, **{name: None})  # type: ignore[arg-type]
    ended = ending_of(caught.value, Path(__file__), from_method=True)
    assert ended is not None
    assert "a loss that needs more than both networks' logits is one of s.student_step(optimizer" in ended.reason


def test_a_type_error_inside_a_loss_stays_what_it_is() -> None:
    def broken(batch: StudentBatch) -> Tensor:
        return batch.student.mean() + None  # type: ignore[operator,no-any-return]

    with trial() as (s, _):
        opt = sgd(s)
        with pytest.raises(TypeError, match="unsupported operand"):
            s.student_step(opt, IMAGES, broken)
        with pytest.raises(TypeError, match="unsupported operand"):
            s.distill(opt, IMAGES, criterion=lambda teacher, student: student.mean() + None)


@pytest.mark.parametrize(
    "criterion", [F.l1_loss, nn.L1Loss(), F.mse_loss, lambda t, s, factor=1.0: factor * (t - s).abs().mean()]
)
def test_a_criterion_of_two_tensors_is_what_everybody_knows(criterion: Callable[[Tensor, Tensor], Tensor]) -> None:
    with trial(student=lenet(2, "lenet5-half")) as (s, _):
        opt = sgd(s)
        with torch.no_grad():
            wanted = criterion(s.teacher(IMAGES).logits, s.student(IMAGES))
        torch.testing.assert_close(s.distill(opt, IMAGES, criterion=criterion), wanted)


@pytest.mark.parametrize(
    "use",
    [lambda b: F.mse_loss(b, b), lambda b: b + 1, lambda b: b[0], lambda b: [*b], lambda b: torch.cat([b])],
    ids=["function", "sum", "item", "unpacking", "list"],
)
def test_a_batch_is_no_tensor(use: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"StudentBatch is no tensor: use \.student, \.teacher, \.images, or another"):
        use(StudentBatch(*torch.zeros(3, 2, 2)))


def test_an_unknown_part_of_a_batch_is_answered_with_the_nearest() -> None:
    batch = StudentBatch(*torch.zeros(3, 2, 2))
    with pytest.raises(AttributeError, match=r"StudentBatch has no 'image'.*images"):
        _ = batch.image  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"StudentBatch has no 'softmax'; it is no tensor: use \.student"):
        _ = batch.softmax  # type: ignore[attr-defined]
