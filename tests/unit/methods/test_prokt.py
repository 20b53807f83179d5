"""ProKT: both steps against bare loops and NumPy, the multiplier, and how the networks start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, images_of, lenet, run, same_weights, trial
from scipy.special import log_softmax, softmax
from torch import nn
from torch.nn import functional as F

from bench.data.batches import RealImages
from bench.harness.trial_context import TrialContext
from bench.spec.method import Access, Data
from methods.prokt import prokt, zero_classifier

CPU = torch.device("cpu")
PLAIN = {"batch": 16, "optimizer": "sgd", "lr_student": 0.02, "lr_teacher": 0.03, "zero_classifiers": False}


pytestmark = pytest.mark.usefixtures("_double")


def student() -> nn.Module:
    return lenet(2, "lenet5-half")


def kl(p: np.ndarray, q: np.ndarray, tau: float) -> float:
    """tau^2 KL(p || q), mean over images."""
    difference = log_softmax(p / tau, 1) - log_softmax(q / tau, 1)
    return float(tau**2 * (softmax(p / tau, 1) * difference).sum(1).mean())


def divergence(p: torch.Tensor, q: torch.Tensor, tau: float) -> torch.Tensor:
    soft = (p / tau).softmax(1)
    return tau**2 * (soft * (soft.log() - (q / tau).log_softmax(1))).sum(1).mean()


def play(options: dict[str, Any], steps: int = 3) -> TrialContext:
    """From a trained teacher, which a fixed network stands for; a fresh one would have other weights."""
    teacher = lenet(1)
    return run(
        prokt.declared,
        {**PLAIN, "start": "trained", **options},
        steps=steps,
        teacher=teacher,
        student=student(),
        train=images_of(60),
    )


@pytest.mark.parametrize("options", [{}, {"temperature": 3.0, "pull": 0.7}])
def test_steps_are_the_papers_two(options: dict[str, Any]) -> None:
    tau, pull = options.get("temperature", 1.0), options.get("pull", 0.4)
    teacher, own, real = lenet(1), student(), RealImages(images_of(60), IMAGE, 0, CPU)
    opt_t = torch.optim.SGD(teacher.parameters(), lr=0.03, momentum=0.9)
    opt_s = torch.optim.SGD(own.parameters(), lr=0.02, momentum=0.9)
    for _ in range(3):
        images, labels = real.take(16)
        images = images.double()
        fixed, logits = own(images).detach(), teacher(images)
        opt_t.zero_grad()
        ((1 - pull) * F.cross_entropy(logits, labels) + pull * divergence(fixed, logits, tau)).backward()
        opt_t.step()
        opt_s.zero_grad()
        divergence(teacher(images).detach(), own(images), tau).backward()
        opt_s.step()
    context = play(options)
    assert same_weights(context.student, own, 1e-12)
    assert same_weights(context.kept["teacher"], teacher, 1e-12)
    assert not same_weights(context.student, student(), 1e-4)
    assert (context.meter.teacher_images, context.meter.teacher_backward) == (2 * 48, 48)
    assert (context.meter.student_images, context.meter.student_backward) == (2 * 48, 48)
    assert (context.meter.optimizer_steps, context.meter.real_images) == (6, 48)


def test_the_losses_are_the_papers() -> None:
    """What a first step logs, from the networks as they were before it, and the teacher after it."""
    context = play({"temperature": 2.0}, steps=1)
    images, labels = RealImages(images_of(60), IMAGE, 0, CPU).take(16)
    with torch.no_grad():
        before, after, own = (np.asarray(n(images.double())) for n in (lenet(1), context.kept["teacher"], student()))
    logs = context.take_logs()
    assert logs["error"] == pytest.approx(-log_softmax(before, 1)[np.arange(16), labels.numpy()].mean(), rel=1e-6)
    assert logs["distance"] == pytest.approx(kl(own, before, 2.0), rel=1e-6)
    assert logs["distillation"] == pytest.approx(kl(after, own, 2.0), rel=1e-6)


def test_the_multiplier_follows_the_violation_and_is_never_negative() -> None:
    teacher, own, real = lenet(1), student(), RealImages(images_of(60), IMAGE, 0, CPU)
    list(teacher.parameters())[-2].data.mul_(20)
    context = run(
        prokt.declared,
        {**PLAIN, "start": "trained", "variant": "adaptive", "epsilon": 0.3, "beta": 0.7, "lr_beta": 5.0},
        steps=4,
        teacher=teacher,
        student=student(),
        train=images_of(60),
    )
    opt_t = torch.optim.SGD(teacher.parameters(), lr=0.03, momentum=0.9)
    opt_s = torch.optim.SGD(own.parameters(), lr=0.02, momentum=0.9)
    teacher.requires_grad_(True)
    beta, betas = 0.7, []
    for _ in range(4):
        images, labels = real.take(16)
        images = images.double()
        fixed, logits = own(images).detach(), teacher(images)
        distance = divergence(fixed, logits, 1.0)
        opt_t.zero_grad()
        (F.cross_entropy(logits, labels) + beta * (distance - 0.3)).backward()
        opt_t.step()
        beta = max(0.0, beta + 5.0 * (distance.item() - 0.3))
        betas.append(beta)
        opt_s.zero_grad()
        divergence(teacher(images).detach(), own(images), 1.0).backward()
        opt_s.step()
    assert betas[-1] > 0
    assert context.kept["beta"].item() == pytest.approx(betas[-1], rel=1e-9)
    assert same_weights(context.student, own, 1e-10)
    near = play({"variant": "adaptive", "epsilon": 1e6})
    assert near.kept["beta"].item() == 0.0
    assert play({"variant": "adaptive", "lr_beta": 1e-9}).kept["beta"].item() == pytest.approx(1.0)


def test_the_fixed_answers_are_those_of_evaluation_mode_and_leave_batch_norms_alone() -> None:
    """On networks with batch norm: against the loop of the reference code, whose `output()` evaluates."""
    teacher, own = lenet(1, "lenet5bn").requires_grad_(True), lenet(2, "lenet5bn-half")
    real = RealImages(images_of(60), IMAGE, 0, CPU)
    opt_t = torch.optim.SGD(teacher.parameters(), lr=0.03, momentum=0.9)
    opt_s = torch.optim.SGD(own.parameters(), lr=0.02, momentum=0.9)
    for _ in range(3):
        images, labels = real.take(16)
        images = images.double()
        fixed = own.eval()(images).detach()
        logits = teacher.train()(images)
        opt_t.zero_grad()
        (0.6 * F.cross_entropy(logits, labels) + 0.4 * divergence(fixed, logits, 1.0)).backward()
        opt_t.step()
        target = teacher.eval()(images).detach()
        opt_s.zero_grad()
        divergence(target, own.train()(images), 1.0).backward()
        opt_s.step()
    context = run(
        prokt.declared,
        {**PLAIN, "start": "trained"},
        steps=3,
        teacher=lenet(1, "lenet5bn"),
        student=lenet(2, "lenet5bn-half"),
        train=images_of(60),
    )
    assert same_weights(context.student, own, 1e-12)  # running statistics too
    assert same_weights(context.kept["teacher"], teacher, 1e-12)
    norms = [layer for net in (context.student, context.kept["teacher"]) for layer in net.modules() if is_norm(layer)]
    assert {int(layer.num_batches_tracked) for layer in norms} == {3}  # one batch a step, not two


def is_norm(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm2d)


def test_a_pulled_teacher_stays_nearer_to_the_student() -> None:
    distances = [
        play({"pull": pull, "lr_teacher": 0.1, "lr_student": 0.001}, steps=12).take_logs()["distance"]
        for pull in (0.0, 0.4, 0.9)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[2] < 0.5 * distances[0]


def test_both_networks_start_undecided() -> None:
    networks = [lenet(1), student()]
    images = images_of(4).images.double()
    for network in networks:
        assert network(images).abs().max() > 0
        zero_classifier(network)
        assert network(images).abs().max() == 0
    with trial(steps=1, data=Data.TRAIN, train=images_of(60), student=student(), fresh_teacher=lambda _: lenet(3)) as (
        session,
        context,
    ):
        prokt.declared.run(session, prokt.declared.make_options({**PLAIN, "zero_classifiers": True}))
    logs = context.take_logs()
    assert logs["error"] == pytest.approx(np.log(10), rel=1e-6)
    assert logs["distance"] == pytest.approx(0, abs=1e-9)


def test_a_trained_teacher_starts_as_it_is_and_the_tasks_own_stays() -> None:
    own = lenet(1)
    context = run(
        prokt.declared,
        {**PLAIN, "start": "trained", "zero_classifiers": True, "lr_teacher": 1e-9},
        steps=2,
        teacher=own,
        student=student(),
        train=images_of(60),
    )
    assert same_weights(context.kept["teacher"], lenet(1), 1e-6)
    assert same_weights(own, lenet(1))
    assert not same_weights(context.kept["teacher"], own)


def test_a_network_without_a_classifier_cannot_be_undecided() -> None:
    with pytest.raises(ValueError, match="no linear layer"):
        zero_classifier(nn.Conv2d(1, 1, 1))


def test_settings_are_the_documented_ones() -> None:
    o = prokt.declared.make_options({})
    assert (o.variant, o.pull, o.temperature, o.start, o.zero_classifiers) == ("weighted", 0.4, 1.0, "fresh", True)
    assert (o.batch, o.optimizer, o.lr_student, o.lr_teacher, o.schedule) == (256, "adam", 1e-3, 1e-3, "constant")
    assert (o.epsilon, o.beta, o.lr_beta) == (1.0, 1.0, 0.001)
    for data in ("cifar10", "cifar100"):
        o = prokt.declared.make_options(prokt.declared.presets[data])
        assert (o.batch, o.optimizer, o.lr_student, o.lr_teacher, o.weight_decay) == (64, "sgd", 0.05, 0.05, 5e-4)
        assert o.milestones == (150 / 240, 180 / 240, 210 / 240)
    assert (prokt.declared.data, prokt.declared.access) == (Data.TRAIN, Access.PARAMETERS)
