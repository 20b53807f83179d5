"""CuDFKD against its code: the curriculum, the rising adversarial weight, the whole loop, settings."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, first_quick, kin, lenet, run, same_weights
from reference_parts import HeardMaps, agreed_divergence, start_normal
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench import cmi_generator
from bench.harness.trial_context import TrialContext
from bench.spec.method_registry import find_methods
from bench.spec.presets import preset
from bench.spec.task import get_task
from bench.utils.rng import Streams, seed_everything
from methods.common.curriculum import curriculum_weights, masked_divergence, risen
from methods.cudfkd import Options, cudfkd

SMALL: dict[str, Any] = {
    "batch": 24, "latent": 6, "width": 4, "student_steps": 2, "lr_student": 0.01, "lambda_start": 0.05,
    "lambda_end": 0.2,
}  # fmt: skip


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    networks = {"teacher": lenet(1, "lenet5bn"), "student": kin(), **around}
    return run(cudfkd.declared, {**SMALL, **options}, steps=steps, **networks)


# ---- the curriculum --------------------------------------------------------------------------------------------------


def test_a_loss_counts_fully_where_it_is_small_and_half_as_much_at_lambda() -> None:
    losses = torch.tensor([0.0, 2.0, 1000.0], dtype=torch.float64)
    weights = curriculum_weights(losses, 2.0, "log")
    full = 1 + math.exp(-2)
    assert weights.tolist() == pytest.approx([1.0, full / 2, 0.0])
    assert curriculum_weights(losses, 2.5, "hard").tolist() == [1, 1, 0]
    assert curriculum_weights(losses, 2.5, "soft").tolist() == pytest.approx([1, 0.2, 0])
    assert torch.isfinite(curriculum_weights(torch.tensor([1e30]), 2.0, "log")).all()


@pytest.mark.parametrize("kind", ["log", "hard", "soft"])
def test_a_weight_grows_with_lambda_and_carries_no_gradient(kind: str) -> None:
    losses = torch.tensor([0.5, 1.5, 4.0], requires_grad=True)
    low, high = (curriculum_weights(losses, bound, kind) for bound in (1.0, 5.0))
    assert (high >= low).all()
    assert (high > low).any()
    assert not high.requires_grad


def test_log_is_the_minimiser_of_the_codes_regularised_loss() -> None:
    """min over v of v l + mu log mu + v log v - lambda v, mu = 1 + exp(-lambda) - v, as its further term says."""
    bound = 1.3
    for loss in (0.2, 1.3, 3.0):
        v = curriculum_weights(torch.tensor(loss, dtype=torch.float64), bound, "log").item()
        values = []
        for x in (v - 1e-4, v, v + 1e-4):
            mu = 1 + math.exp(-bound) - x
            values.append(x * loss + mu * math.log(mu) + x * math.log(x) - bound * x)
        assert values[1] == min(values)


def test_the_adversarial_weight_rises_in_the_middle() -> None:
    assert [risen(p, 0.25, 0.75) for p in (0.0, 0.24, 0.25, 0.5, 0.75, 1.0)] == [0, 0, 0, 0.5, 1, 1]
    assert [risen(p, 0.5, 0.5) for p in (0.4, 0.5)] == [0, 1]


@pytest.mark.usefixtures("_double")
def test_disagreement_counts_where_both_predict_one_class() -> None:
    stream = torch.Generator().manual_seed(0)
    t, s = (4 * torch.randn(40, 5, generator=stream) for _ in range(2))
    p, q = (t / 3).softmax(1), (s / 3).softmax(1)
    expected = sum(
        9 * sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p[i], q[i], strict=True))
        for i in range(40)
        if t[i].argmax() == s[i].argmax()
    )
    assert expected > 0
    assert masked_divergence(t, s, 3.0).item() == pytest.approx(expected / 40)


# ---- the loop --------------------------------------------------------------------------------------------------------


def reference(rounds: int, o: Options) -> dict[str, Any]:
    """The released code's loop, its weights along the steps."""
    teacher, student = lenet(1, "lenet5bn").eval().requires_grad_(False), kin().train()
    heard = HeardMaps(teacher)
    with torch.random.fork_rng():
        seed_everything(0)
        generator = cmi_generator(o.latent, IMAGE, o.width, large=True).train()
    streams = Streams(0, torch.device("cpu"))
    start_normal(generator, streams["weights"])
    opt_g = Adam(generator.parameters(), o.lr_generator, betas=(0.9, 0.99))
    opt_s = SGD(student.parameters(), o.lr_student, momentum=0.9, weight_decay=1e-4)
    length = rounds * (1 + o.student_steps)
    for step in range(length):
        progress = step / length
        z = torch.randn(o.batch, o.latent, generator=streams["noise"])
        if step % (1 + o.student_steps) == 0:
            x = generator(z)
            heard.clear()
            t = teacher(x)
            p = (t / o.temperature_balance).softmax(1).mean(0)
            loss = o.one_hot * F.cross_entropy(t, t.argmax(1)) + o.balance * (p * p.log()).sum()
            loss = loss + o.batch_norm_weight * heard.distance()
            a = (
                min(max((progress - o.adversarial_from) / (o.adversarial_to - o.adversarial_from), 0), 1)
                * o.adversarial
            )
            if a > 0:
                student.eval()
                s = student(x)
                student.train()
                assert (t.argmax(1) == s.argmax(1)).any()
                loss = loss - a * 9 * agreed_divergence(t, s, 3)
            opt_g.zero_grad()
            loss.backward()
            opt_g.step()
            continue
        generator.eval()
        with torch.no_grad():
            x = generator(z)
        generator.train()
        opt_s.param_groups[0]["lr"] = o.lr_student * (1 + math.cos(math.pi * progress)) / 2
        losses = (teacher(x) - student(x)).abs().mean(1)
        losses = losses if o.each == "image" else losses.mean()
        bound = o.lambda_start + (o.lambda_end - o.lambda_start) * progress
        if o.curriculum == "log":
            v = (1 + math.exp(-bound)) / (1 + (losses.detach() - bound).exp())
        elif o.curriculum == "hard":
            v = (losses.detach() < bound).double()
        else:
            v = torch.ones(()).double()
        opt_s.zero_grad()
        (v * losses).mean().backward()
        opt_s.step()
    return {"generator": generator, "student": student}


@cache
def usual() -> nn.Module:
    """The student of the usual settings, in double precision."""
    student: nn.Module = reference(4, Options(**SMALL))["student"]
    return student


VARIANTS: dict[str, dict[str, Any]] = {
    "code": {},
    "each image": {"each": "image"},
    "hard": {"each": "image", "curriculum": "hard"},
    "no curriculum": {"curriculum": "none"},
    "other weights": {"one_hot": 0.0, "balance": 3.0, "temperature_balance": 2.0, "batch_norm_weight": 0.0},
}


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("variant", first_quick(VARIANTS))
def test_four_rounds_equal_the_codes_loop(variant: str) -> None:
    options = VARIANTS[variant]
    expected = reference(4, Options(**{**SMALL, **options}))
    context = play(options, 12)
    assert same_weights(context.kept["generator"], expected["generator"], 1e-7)  # with running statistics
    assert same_weights(context.student, expected["student"], 1e-7)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    "options",
    first_quick([{"each": "image"}, {"lambda_end": 3.0}, {"adversarial": 0.0}, {"adversarial_to": 0.9}]),
    ids=str,
)
def test_another_setting_would_be_noticed(options: dict[str, Any]) -> None:
    assert not same_weights(play(options, 12).student, usual(), 1e-6)


def test_counts_of_steps_and_images() -> None:
    meter = play({}, 12).meter
    assert (meter.teacher_images, meter.teacher_backward) == (12 * 24, 4 * 24)
    assert meter.student_images == 8 * 24 + 2 * 24  # none in the first two generator steps: the weight is 0 as yet
    assert meter.synthesised_images == 12 * 24


def test_defaults_and_presets_are_the_released_scripts() -> None:
    card = find_methods()["cudfkd"]
    assert card.needs_batch_norm({})
    assert not card.needs_batch_norm({"batch_norm_weight": 0.0})
    o = Options()
    assert (o.batch, o.latent, o.width, o.lr_generator, o.generator_steps, o.student_steps) == (
        768,
        512,
        128,
        1e-3,
        1,
        5,
    )
    assert (o.one_hot, o.balance, o.temperature_balance, o.batch_norm_weight, o.temperature) == (1, 20, 20, 1, 3)
    assert (o.lr_student, o.momentum, o.weight_decay, o.schedule) == (0.05, 0.9, 1e-4, "cosine")
    assert (o.curriculum, o.each) == ("log", "batch")
    # epochs 63 to 186 of 250 add 0.5 each; 400 steps an epoch add 1e-4 each
    assert (o.adversarial, o.adversarial_from, o.adversarial_to) == (0.5 * len(range(63, 187)), 0.25, 0.75)
    assert (o.lambda_start, o.lambda_end) == (2.0, pytest.approx(2 + 250 * 400 * 1e-4))
    other = preset(card, get_task("cifar100/resnet18"), "paper")
    assert other == {
        "lr_student": 0.1, "temperature_balance": 5.0, "adversarial": pytest.approx(0.1 * len(range(61, 225))),
        "adversarial_from": 0.2, "lambda_start": 1.0, "lambda_end": pytest.approx(1 + 300 * 400 * 5e-5),
    }  # fmt: skip
