"""DeepInversion against paper and code: batch-norm statistics in the images, its settings, what it needs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from method_fixtures import digits, lenet, run, same_weights
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import Unsupported
from bench.harness.teachers.cache import get_teacher
from bench.harness.trial_context import TrialContext
from bench.spec.method_registry import find_methods
from bench.spec.requirements import why_unsupported
from bench.spec.task import get_task
from bench.spec.teacher_key import teacher_key
from bench.utils.rng import Streams
from methods.deepdream import deepdream
from methods.deepinversion import Options, deepinversion

CPU = torch.device("cpu")
SMALL = {"batch": 6, "iterations": 3, "images": 12, "batch_student": 16, "share": 0.6, "jitter": 1}


def experienced(seed: int = 1) -> nn.Module:
    """A network whose running statistics are not those that it was made with."""
    network = lenet(seed, "lenet5bn")
    stream = torch.Generator().manual_seed(7)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5, generator=stream)
            layer.running_var.uniform_(0.5, 2.0, generator=stream)
    return network


def inverted(options: dict[str, object], steps: int = 10) -> TrialContext:
    return run(
        deepinversion.declared, {**SMALL, **options}, steps=steps, teacher=experienced(),
        student=lenet(2, "lenet5bn-half"),
    )  # fmt: skip


def made(context: TrialContext) -> Tensor:
    return torch.cat(context.kept["pool"].state_dict()["parts"])


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(("squared", "first"), [(False, 1.0), (False, 10.0), (True, 1.0)])
def test_images_follow_the_papers_loop(squared: bool, first: float) -> None:
    """Three updates, with the statistics taken from the layers' inputs and written out."""
    options = {"batch_norm_weight": 0.5, "first_layer": first, "squared": squared, "images": 6, "lr_images": 0.05}
    context = inverted(options, steps=6)
    teacher = experienced().eval().requires_grad_(False)
    inputs: list[Tensor] = []
    layers = [layer for layer in teacher.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    streams = Streams(0, CPU)
    x = torch.randn(6, 1, 32, 32, generator=streams["noise"]).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(3):
        shift = [int(torch.randint(3, (), generator=streams["jitter"])) - 1 for _ in range(2)]
        v = torch.roll(x, shift, (2, 3))
        inputs.clear()
        logits = teacher(v)
        distance = torch.zeros(())
        for index, (layer, seen) in enumerate(zip(layers, inputs, strict=True)):
            flat = seen.transpose(0, 1).flatten(1)
            mean = flat.mean(1)
            var = ((flat - mean[:, None]) ** 2).mean(1)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            parts = [((mean - layer.running_mean) ** 2).sum(), ((var - layer.running_var) ** 2).sum()]
            term = sum(part if squared else part.sqrt() for part in parts)
            distance = distance + (first if index == 0 else 1.0) * term
        tv = sum(
            ((a - b) ** 2).sum().sqrt()
            for a, b in [
                (v[..., 1:], v[..., :-1]),
                (v[..., 1:, :], v[..., :-1, :]),
                (v[..., 1:, 1:], v[..., :-1, :-1]),
                (v[..., 1:, :-1], v[..., :-1, 1:]),
            ]
        )
        loss = F.cross_entropy(logits, torch.arange(6)) + 2.5e-5 * tv + 3e-8 * (v**2).sum().sqrt() + 0.5 * distance
        (x.grad,) = torch.autograd.grad(loss, x)
        optimizer.step()
    torch.testing.assert_close(made(context), x.detach(), rtol=0, atol=1e-8)


@pytest.mark.usefixtures("_double")
def test_almost_without_statistics_it_is_deepdream() -> None:
    ours = inverted({"batch_norm_weight": 1e-30})
    theirs = run(
        deepdream.declared, SMALL, steps=10, teacher=experienced(), student=lenet(2, "lenet5bn-half")
    )  # fmt: skip
    torch.testing.assert_close(made(ours), made(theirs), rtol=0, atol=1e-9)
    assert same_weights(ours.student, theirs.student, 1e-9)


def test_the_images_get_the_teachers_statistics() -> None:
    """On the digits' teacher with batch norm: the layers' means are nearer to the stored ones."""
    task = get_task("digits/lenet5bn-half")
    network = get_teacher(task, teacher_key(task), digits()).network
    distances = []
    for weight in (1e-9, 10.0):
        options = {**SMALL, "batch": 32, "images": 32, "iterations": 30, "share": 0.95, "batch_norm_weight": weight}
        teacher, student = copy.deepcopy(network), lenet(2, "lenet5bn-half")
        context = run(deepinversion.declared, options, steps=32, teacher=teacher, student=student, image=task.image)
        total = 0.0
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                with torch.no_grad(), first_input(layer) as inputs:
                    network.eval()(made(context))
                total += torch.dist(inputs[0].mean((0, 2, 3)), layer.running_mean).item()  # type: ignore[arg-type]
        distances.append(total)
    assert distances[1] < 0.5 * distances[0]


@contextmanager
def first_input(layer: nn.Module) -> Iterator[list[Tensor]]:
    """What a layer gets when the network is asked."""
    inputs: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    yield inputs
    handle.remove()


def test_the_teacher_answers_once_an_update_and_the_student_waits() -> None:
    context = inverted({})
    assert context.meter.teacher_images == 2 * 3 * 6 + 4 * 16
    assert context.meter.teacher_backward == 2 * 3 * 6
    assert context.meter.student_backward == 4 * 16
    assert context.meter.optimizer_steps == 10
    assert set(context.logs) == {"one_hot", "prior", "statistics", "distillation"}


def test_teacher_without_batch_norm_is_left_out_by_plan() -> None:
    card = find_methods()["deepinversion"]
    assert "needs batch-norm statistics" in why_unsupported(card, get_task("digits/lenet5-half"))
    assert not why_unsupported(card, get_task("digits/lenet5bn-half"))
    with pytest.raises(Unsupported):
        run(deepinversion.declared, SMALL, steps=2)


def test_defaults_are_the_papers_for_cifar10() -> None:
    expected = {
        "batch": 256, "iterations": 2000, "lr_images": 0.05, "beta1": 0.9, "beta2": 0.999, "jitter": 2, "flip": False,
        "tv": 2.5e-5, "tv_form": "l2", "l2": 3e-8, "l2_form": "batch", "batch_norm_weight": 10.0, "first_layer": 1.0,
        "squared": False, "clip": False, "images": 1000 * 256, "labels": "balanced", "temperature": 3.0,
        "schedule_images": "constant", "optimizer": "sgd", "lr_student": 0.1, "momentum": 0.9, "schedule": "cosine",
    }  # fmt: skip
    assert {name: getattr(Options(), name) for name in expected} == expected


def test_digits_are_not_mirrored() -> None:
    assert {name: values["augmentation"] for name, values in deepinversion.declared.presets.items()} == {
        "digits": "crop", "mnist": "crop", "svhn": "crop",
    }  # fmt: skip
