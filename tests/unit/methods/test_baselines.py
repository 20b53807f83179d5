"""The floor and the ceilings: noise, scratch and KD with data."""

from __future__ import annotations

import pytest
import torch
from method_fixtures import IMAGE, Listening, images_of, lenet, run, same_weights
from torch import nn
from torch.nn import functional as F

from bench import image_generator
from bench.data.batches import RealImages
from bench.utils.rng import Streams, seed_everything
from methods.kd import kd
from methods.noise import noise
from methods.scratch import scratch

CPU = torch.device("cpu")


def student() -> nn.Module:
    return lenet(2, "lenet5-half")


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_noise_is_standard_normal_in_normalised_space() -> None:
    teacher = Listening(lenet(1))
    run(noise.declared, {"batch": 64}, steps=3, teacher=teacher)
    images = torch.cat(teacher.heard)
    assert images.shape == (192, *IMAGE.shape)
    assert images.mean().item() == pytest.approx(0, abs=0.01)
    assert images.std().item() == pytest.approx(1, abs=0.01)
    assert not torch.equal(images[:64], images[64:128])


def test_noise_matches_the_teacher_by_divergence_with_adam() -> None:
    expected, teacher = student(), lenet(1).eval()
    optimizer = torch.optim.Adam(expected.parameters(), lr=2e-3)
    stream = Streams(0, CPU)["noise"]
    for _ in range(3):
        images = torch.randn(16, *IMAGE.shape, generator=stream)
        with torch.no_grad():
            soft = F.softmax(teacher(images), 1)
        optimizer.zero_grad()
        (soft * (soft.log() - F.log_softmax(expected(images), 1))).sum(1).mean().backward()
        optimizer.step()
    context = run(noise.declared, {"batch": 16}, steps=3, student=student())
    assert same_weights(context.student, expected, 1e-6)


def test_noise_from_a_generator_is_frozen_and_in_training_mode() -> None:
    teacher = Listening(lenet(1))
    options = {"batch": 32, "kind": "generator", "latent": 10, "width": 8}
    generator = run(noise.declared, options, steps=3, teacher=teacher).kept["generator"]
    with torch.random.fork_rng():
        seed_everything(0)
        untouched = image_generator(10, IMAGE, 8)
    pairs = zip(generator.parameters(), untouched.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert generator.training
    for images in teacher.heard:
        assert images.mean().item() == pytest.approx(0, abs=1e-4)
        assert images.var(correction=0).item() == pytest.approx(1, abs=1e-2)


def test_noise_is_trained_like_dafls_student_on_cifar() -> None:
    for data in ("cifar10", "cifar100"):
        o = noise.declared.make_options(noise.declared.presets[data])
        assert (o.batch, o.optimizer, o.lr_student, o.momentum, o.weight_decay) == (1024, "sgd", 0.1, 0.9, 5e-4)
        assert (o.schedule, o.milestones, o.latent) == ("milestones", (0.4, 0.8), 256)
    o = noise.declared.make_options({})
    assert (o.kind, o.batch, o.temperature, o.optimizer, o.lr_student) == ("pixels", 512, 1.0, "adam", 2e-3)
    assert (o.schedule, o.latent, o.width) == ("constant", 100, 128)


# ---- with data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "tau", "beta"), [({}, 1.0, 0.1), ({"temperature": 4.0, "beta": 0.5}, 4.0, 0.5)])
def test_kd_is_the_weighted_sum_on_shuffled_real_images(options: dict[str, object], tau: float, beta: float) -> None:
    split = images_of(40)
    expected, teacher, real = student(), lenet(1).eval(), RealImages(split, IMAGE, 0, CPU)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.05, momentum=0.9)
    for _ in range(4):
        images, labels = real.take(16)
        with torch.no_grad():
            soft = F.softmax(teacher(images) / tau, 1)
        answer = expected(images)
        divergence = tau**2 * (soft * (soft.log() - F.log_softmax(answer / tau, 1))).sum(1).mean()
        optimizer.zero_grad()
        (divergence + beta * F.cross_entropy(answer, labels)).backward()
        optimizer.step()
    context = run(
        kd.declared,
        {"batch": 16, "optimizer": "sgd", "lr_student": 0.05, **options},
        steps=4,
        student=student(),
        train=split,
    )
    assert same_weights(context.student, expected, 1e-6)
    assert context.meter.teacher_images == context.meter.real_images == 64


def test_scratch_is_the_cross_entropy_and_never_asks_the_teacher() -> None:
    split = images_of(40)
    expected, real = student(), RealImages(split, IMAGE, 0, CPU)
    optimizer = torch.optim.Adam(expected.parameters(), lr=1e-3)
    for _ in range(4):
        images, labels = real.take(16)
        optimizer.zero_grad()
        F.cross_entropy(expected(images), labels).backward()
        optimizer.step()
    teacher = Listening(lenet(1))
    context = run(scratch.declared, {"batch": 16}, steps=4, student=student(), teacher=teacher, train=split)
    assert same_weights(context.student, expected, 1e-6)
    assert teacher.heard == []
    assert context.meter.teacher_images == 0


@pytest.mark.parametrize(("declared", "batch"), [(kd.declared, 128), (scratch.declared, 256)])
def test_with_data_the_settings_are_those_of_the_sources(declared: object, batch: int) -> None:
    mnist = declared.make_options({})  # type: ignore[attr-defined]
    assert (mnist.batch, mnist.optimizer, mnist.lr_student, mnist.schedule) == (256, "adam", 1e-3, "constant")
    for data in ("cifar10", "cifar100"):
        o = declared.make_options(declared.presets[data])  # type: ignore[attr-defined]
        assert (o.batch, o.optimizer, o.lr_student, o.momentum, o.weight_decay) == (batch, "sgd", 0.1, 0.9, 1e-4)
        assert o.schedule == "milestones"
        assert o.milestones == (120 / 200, 150 / 200, 180 / 200)


def test_kd_weighs_the_losses_as_cmi_does() -> None:
    o = kd.declared.make_options({})
    assert (o.alpha, o.beta, o.temperature) == (1.0, 0.1, 1.0)
