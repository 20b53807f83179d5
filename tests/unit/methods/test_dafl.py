"""DAFL against paper and code: the joint update of the reference code, the losses' directions, the papers' settings."""

from __future__ import annotations

import math

import pytest
import torch
from method_fixtures import IMAGE, Listening, digits_teacher, lenet, run, same_weights
from torch import Tensor
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from bench import image_generator
from bench.harness.trial_context import TrialContext
from bench.models import head
from bench.utils.rng import Streams, seed_everything
from methods.dafl import Options, dafl

SMALL = {"batch": 16, "latent": 10, "width": 8, "lr_generator": 0.01}


def reference(steps: int, o: Options) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The loop of the reference code: one sum of all four losses, one backward pass, one step of each optimiser."""
    teacher, student = lenet(1).eval(), lenet(2, "lenet5-half").train()
    with torch.random.fork_rng():
        seed_everything(0)
        generator = image_generator(o.latent, IMAGE, o.width, eps=o.eps).train()
    opt_g = torch.optim.Adam(generator.parameters(), lr=o.lr_generator)
    opt_s = torch.optim.Adam(student.parameters(), lr=o.lr_student)
    noise = Streams(0, torch.device("cpu"))["noise"]
    features: list[Tensor] = []
    head(teacher).register_forward_pre_hook(lambda _, args: features.append(args[0]))
    for _ in range(steps):
        opt_g.zero_grad()
        opt_s.zero_grad()
        images = generator(torch.randn(o.batch, o.latent, generator=noise))
        logits = teacher(images)
        one_hot = F.cross_entropy(logits, logits.max(1)[1])
        mean = F.softmax(logits, dim=1).mean(0)
        balance = (mean * torch.log10(mean)).sum()
        activation = -features[-1].abs().mean()
        soft = F.softmax(logits.detach(), dim=1)
        matching = (soft * (soft.log() - F.log_softmax(student(images.detach()), dim=1))).sum() / o.batch
        (o.one_hot * one_hot + o.balance * balance + o.activation * activation + matching).backward()
        opt_g.step()
        opt_s.step()
    return generator, student


@pytest.mark.usefixtures("_double")
def test_three_steps_equal_the_joint_update_of_the_reference_code() -> None:
    generator, student = reference(3, Options(**SMALL))
    context = run(dafl.declared, SMALL, steps=3)
    assert same_weights(context.kept["generator"], generator, 1e-9)
    assert same_weights(context.student, student, 1e-9)


@pytest.mark.usefixtures("_double")
def test_a_wrong_weight_would_be_noticed() -> None:
    generator, _ = reference(3, Options(**{**SMALL, "balance": 5.0 * math.log(10)}))  # the natural logarithm's weight
    assert not same_weights(run(dafl.declared, SMALL, steps=3).kept["generator"], generator, 1e-4)


def test_the_student_learns_from_the_images_the_generator_was_judged_by() -> None:
    teacher, student = Listening(lenet(1)), Listening(lenet(2, "lenet5-half"))
    context = run(dafl.declared, SMALL, steps=3, teacher=teacher, student=student)
    assert context.meter.teacher_images == 3 * 16  # asked once a step, for both losses
    assert all(torch.equal(a, b) for a, b in zip(teacher.heard, student.heard, strict=True))


def test_images_are_white_and_networks_are_in_the_papers_modes() -> None:
    teacher = Listening(lenet(1))
    context = run(dafl.declared, {**SMALL, "batch": 64}, steps=2, teacher=teacher)
    for images in teacher.heard:
        assert images.mean().item() == pytest.approx(0, abs=1e-4)
        assert images.var(correction=0).item() == pytest.approx(1, abs=1e-2)
    assert context.kept["generator"].training
    assert context.student.training
    assert not teacher.training


@pytest.fixture(scope="module")
def trained() -> TrialContext:
    options = {"batch": 64, "width": 8, "latent": 32, "lr_generator": 0.01}
    return run(dafl.declared, options, steps=80, teacher=digits_teacher())


@pytest.mark.slow
def test_the_generator_learns_confident_balanced_images(trained: TrialContext) -> None:
    teacher = digits_teacher()
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():
        generators = (trained.kept["generator"], image_generator(32, IMAGE, 8, eps=0.8))
        answer, before = (torch.softmax(teacher(g(torch.randn(256, 32, generator=stream))), 1) for g in generators)
    assert answer.max(1).values.mean() > before.max(1).values.mean()
    mean = answer.mean(0)
    assert (mean * mean.log10()).sum() < -0.9  # a healthy run gets near -1


def test_what_is_logged_are_the_four_losses_and_the_number_of_classes(trained: TrialContext) -> None:
    assert set(trained.logs) == {"one_hot", "balance", "classes", "activation", "distillation"}
    means = trained.take_logs()
    assert -1 <= means["balance"] < 0
    assert 1 <= means["classes"] <= 10
    assert means["activation"] < 0 < means["one_hot"]


@pytest.mark.parametrize(("shift", "classes"), [(0.0, 10.0), (100.0, 1.0)], ids=["even", "of one class"])
def test_the_logged_number_of_classes_is_that_of_equally_frequent_ones(shift: float, classes: float) -> None:
    """A teacher whose answer does not depend on the image: all classes alike, or one of them."""
    teacher = lenet(1)
    with torch.no_grad():
        teacher.head[-1].weight.mul_(1e-6)
        teacher.head[-1].bias.zero_()[3] += shift
    assert run(dafl.declared, SMALL, steps=1, teacher=teacher).take_logs()["classes"] == pytest.approx(classes)


def test_defaults_and_presets_are_the_papers() -> None:
    method = dafl.declared
    mnist = method.make_options({})
    shared = {
        "batch": 1024, "latent": 1000, "lr_generator": 0.02, "optimizer": "sgd", "lr_student": 0.1, "momentum": 0.9,
        "weight_decay": 5e-4, "schedule": "milestones", "milestones": (800 / 2000, 1600 / 2000),
    }  # fmt: skip
    expected = {
        "mnist": {
            "batch": 512, "latent": 100, "lr_generator": 0.2, "optimizer": "adam", "lr_student": 2e-3,
            "weight_decay": 0.0, "schedule": "constant", "one_hot": 1.0, "balance": 5.0, "activation": 0.1,
        },
        "cifar10": {**shared, "one_hot": 0.05, "balance": 5.0, "activation": 0.01},
        "cifar100": {**shared, "one_hot": 0.5, "balance": 20.0, "activation": 0.1},
    }  # fmt: skip
    assert set(method.presets) == {"cifar10", "cifar100"}
    for data, values in expected.items():
        options = method.make_options(method.presets.get(data, {}))
        assert {name: getattr(options, name) for name in values} == values
        assert (options.width, options.eps, options.temperature) == (mnist.width, mnist.eps, mnist.temperature)
    assert (mnist.width, mnist.eps, mnist.temperature) == (128, 0.8, 1.0)


def test_the_students_rate_falls_at_the_presets_shares_of_the_budget() -> None:
    student = Listening(lenet(2, "lenet5-half"))
    options = {**SMALL, "optimizer": "sgd", "lr_student": 0.1, "schedule": "milestones"}
    rates = []

    def watch(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if isinstance(optimizer, torch.optim.SGD):
            rates.append(optimizer.param_groups[0]["lr"])

    handle = register_optimizer_step_post_hook(watch)
    try:
        run(dafl.declared, options, steps=10, student=student)
    finally:
        handle.remove()
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 4 + [0.001] * 2)
