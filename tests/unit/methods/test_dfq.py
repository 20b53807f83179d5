"""DFQ against its library: the generator's four terms, the modes of both networks, the alternation."""

from __future__ import annotations

import math

import pytest
import torch
from method_fixtures import IMAGE, Listening, lenet, run, same_weights
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench import Unsupported, cmi_generator
from bench.spec.method_registry import find_methods
from bench.utils.rng import Streams, seed_everything
from methods.dfq import Options, dfq

SMALL = {"batch": 8, "latent": 6, "width": 4, "student_steps": 2}


def teacher_bn() -> nn.Module:
    """A teacher whose stored statistics are not the framework's 0 and 1."""
    network = lenet(1, "lenet5bn")
    stream = torch.Generator().manual_seed(3)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3, generator=stream)
            layer.running_var.uniform_(0.5, 2, generator=stream)
    return network


def reference(steps: int, o: Options) -> tuple[nn.Module, nn.Module]:
    """The library's loop; one step of ours is one update of it."""
    teacher, student = teacher_bn().eval(), lenet(2, "lenet5bn-half").train()
    inputs: list[tuple[nn.BatchNorm2d, Tensor]] = []
    for layer in teacher.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_pre_hook(lambda layer, args: inputs.append((layer, args[0])))
    with torch.random.fork_rng():
        seed_everything(0)
        generator = cmi_generator(o.latent, IMAGE, o.width, large=True).train()
    opt_g = Adam(generator.parameters(), lr=o.lr_generator, betas=(0.5, 0.999))
    opt_s = SGD(student.parameters(), lr=o.lr_student, momentum=0.9, weight_decay=o.weight_decay)
    noise = Streams(0, torch.device("cpu"))["noise"]

    def divergence(logits: Tensor, answer: Tensor) -> Tensor:
        p = torch.softmax(logits, 1)
        return (p * (p.log() - torch.log_softmax(answer, 1))).sum() / len(logits)

    for step in range(steps):
        z = torch.randn(o.batch, o.latent, generator=noise)
        if step % (1 + o.student_steps) == 0:
            student.eval()
            x = generator(z)
            inputs.clear()
            logits = teacher(x)
            matching = sum(
                (value.mean((0, 2, 3)) - layer.running_mean).norm()
                + (value.var((0, 2, 3), correction=0) - layer.running_var).norm()
                for layer, value in inputs
            )
            mean = torch.softmax(logits, 1).mean(0)
            loss = o.batch_norm_weight * matching + o.one_hot * F.cross_entropy(logits, logits.max(1)[1])
            loss = loss + o.balance * (mean * mean.log()).sum() - o.adversarial * divergence(logits, student(x))
            opt_g.zero_grad()
            loss.backward()
            opt_g.step()
            student.train()
        else:
            opt_s.param_groups[0]["lr"] = o.lr_student * (1 + math.cos(math.pi * step / steps)) / 2
            generator.train(o.sampling == "train")
            with torch.no_grad():
                x = generator(z)
                logits = teacher(x)
            generator.train()
            opt_s.zero_grad()
            divergence(logits, student(x)).backward()
            opt_s.step()
    return generator, student


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("sampling", ["eval", "train"])
def test_three_rounds_equal_the_librarys_loop(sampling: str) -> None:
    options = {**SMALL, "sampling": sampling}
    generator, student = reference(9, Options(**options))
    context = run(dfq.declared, options, steps=9, teacher=teacher_bn(), student=lenet(2, "lenet5bn-half"))
    assert same_weights(context.kept["generator"], generator, 1e-9)
    assert same_weights(context.student, student, 1e-9)  # running statistics too


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    "other",
    [{"balance": 20 / math.log(10)}, {"adversarial": 0.0}, {"batch_norm_weight": 0.1}, {"one_hot": 0.0}],
    ids=str,
)
def test_another_weight_would_be_noticed(other: dict[str, float]) -> None:
    generator, _ = reference(9, Options(**SMALL))
    options = {**SMALL, **other}
    context = run(dfq.declared, options, steps=9, teacher=teacher_bn(), student=lenet(2, "lenet5bn-half"))
    assert not same_weights(context.kept["generator"], generator, 1e-6)


def test_a_round_is_one_generator_step_and_ten_of_the_student_on_fresh_images() -> None:
    teacher, student = Listening(teacher_bn()), Listening(lenet(2, "lenet5bn-half"))
    context = run(dfq.declared, {**SMALL, "student_steps": 10}, steps=22, teacher=teacher, student=student)
    meter = context.meter
    assert meter.optimizer_steps == 22
    assert meter.teacher_images == meter.student_images == 22 * 8
    assert meter.teacher_backward == 2 * 8
    assert len(teacher.heard) == 22
    assert all(torch.equal(a, b) for a, b in zip(teacher.heard, student.heard, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(teacher.heard, teacher.heard[1:], strict=False))
    assert {"one_hot", "balance", "divergence", "statistics", "distillation"} == set(context.logs)


def test_the_student_is_in_evaluation_mode_in_the_generators_steps_only() -> None:
    student, modes = lenet(2, "lenet5bn-half"), []
    student.register_forward_hook(
        lambda net, args, _: modes.append((net.training, args[0].requires_grad)), prepend=True
    )
    context = run(dfq.declared, SMALL, steps=6, teacher=teacher_bn(), student=student)
    mine = [mode for mode in modes if mode != (False, False)]  # others are the harness's measurements
    assert mine == [(False, True), (True, False), (True, False)] * 2
    norms = [layer for layer in context.student.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [int(layer.num_batches_tracked) for layer in norms] == [4] * len(norms)  # the student's steps


@pytest.mark.parametrize(("sampling", "batches"), [("eval", 2), ("train", 6)])
def test_the_generator_takes_in_statistics_when_it_learns(sampling: str, batches: int) -> None:
    context = run(dfq.declared, {**SMALL, "sampling": sampling}, steps=6, teacher=teacher_bn())
    norm = next(layer for layer in context.kept["generator"].modules() if isinstance(layer, nn.BatchNorm2d))
    assert int(norm.num_batches_tracked) == batches
    assert norm.training


def test_images_are_pixels_normalised() -> None:
    teacher = Listening(teacher_bn())
    run(dfq.declared, SMALL, steps=6, teacher=teacher)
    pixels = torch.cat(teacher.heard) * IMAGE.std[0] + IMAGE.mean[0]
    assert 0 <= pixels.min() < pixels.max() <= 1


@pytest.mark.slow
def test_the_statistics_come_nearer_when_they_are_asked_for() -> None:
    options = {**SMALL, "batch": 32, "student_steps": 1, "lr_generator": 0.01, "adversarial": 0.0, "balance": 0.0}

    def distance(weight: float) -> float:
        context = run(dfq.declared, {**options, "batch_norm_weight": weight}, steps=40, teacher=teacher_bn())
        teacher, found = teacher_bn().eval(), []
        for layer in teacher.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.register_forward_pre_hook(
                    lambda layer, args: found.append((args[0].mean((0, 2, 3)) - layer.running_mean).norm().item())
                )
        with torch.no_grad():
            teacher(context.kept["generator"](torch.randn(64, 6, generator=torch.Generator().manual_seed(1))))
        return sum(found)

    assert distance(1.0) < 0.8 * distance(0.0)


def test_without_batch_norm_it_is_unsupported_unless_the_term_is_dropped() -> None:
    with pytest.raises(Unsupported, match="has no batch norm"):
        run(dfq.declared, SMALL, steps=3, teacher=lenet(1))
    context = run(dfq.declared, {**SMALL, "batch_norm_weight": 0}, steps=3, teacher=lenet(1))
    assert "statistics" not in context.logs
    card = find_methods()["dfq"]
    assert card.needs_batch_norm({}) is True
    assert card.needs_batch_norm({"batch_norm_weight": 0.0}) is False


def test_defaults_are_the_librarys() -> None:
    library = {
        "batch": 256, "generator_steps": 1, "student_steps": 10, "latent": 256, "width": 128, "generator": "large",
        "batch_norm_weight": 1.0, "one_hot": 1.0, "adversarial": 1.0, "balance": 20.0, "sampling": "eval",
        "temperature": 1.0, "lr_generator": 1e-3, "optimizer": "sgd", "lr_student": 0.1, "schedule": "cosine",
        "momentum": 0.9, "weight_decay": 1e-4,
    }  # fmt: skip
    assert vars(dfq.declared.make_options({})) == library


def test_from_resnet34_the_student_learns_half_as_fast() -> None:
    assert dfq.declared.presets == {f"{data}/resnet18": {"lr_student": 0.05} for data in ("cifar10", "cifar100")}
