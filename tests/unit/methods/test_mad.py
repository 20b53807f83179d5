"""MAD: the loop written out a second time in plain PyTorch, the generator's average, what a round asks, inferences."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, Listening, first_quick, lenet, run, same_weights
from reference_parts import HeardMaps
from torch import Tensor
from torch.optim import SGD, Adam

from bench import image_generator
from bench.harness.trial_context import TrialContext
from bench.spec.method_registry import find_methods
from bench.utils.rng import Streams, seed_everything
from methods.mad import Options, mad

SMALL: dict[str, Any] = {"batch": 8, "latent": 6, "width": 4, "student_steps": 2, "lr_student": 0.01}
ROUND = 3  # steps


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    networks = {"teacher": lenet(1, "lenet5bn"), "student": lenet(2, "lenet5bn-half"), **around}
    return run(mad.declared, {**SMALL, **options}, steps=steps, **networks)


def apart(kind: str, t: Tensor, s: Tensor) -> Tensor:
    if kind == "kl":
        return (t.softmax(1) * (t.log_softmax(1) - s.log_softmax(1))).sum() / len(t)
    return (t - s).abs().mean() if kind == "mae" else (t - s).square().mean()


def reference(rounds: int, o: Options) -> dict[str, Any]:
    teacher, student = lenet(1, "lenet5bn").eval().requires_grad_(False), lenet(2, "lenet5bn-half").train()
    heard = HeardMaps(teacher)
    with torch.random.fork_rng():
        seed_everything(0)
        generator = image_generator(o.latent, IMAGE, o.width).train()
    former = copy.deepcopy(generator)
    streams = Streams(0, torch.device("cpu"))
    opt_g = Adam(generator.parameters(), o.lr_generator)
    opt_s = SGD(student.parameters(), o.lr_student, momentum=0.9, weight_decay=5e-4)
    length = rounds * (o.student_steps + 1)
    for number in range(rounds):
        for step in range(o.student_steps):
            fall = (1 + math.cos(math.pi * (number * (o.student_steps + 1) + step) / length)) / 2
            opt_s.param_groups[0]["lr"] = o.lr_student * fall
            with torch.no_grad():
                x = generator(torch.randn(o.batch, o.latent, generator=streams["noise"]))
                x_m = former(torch.randn(o.batch, o.latent, generator=streams["former"]))
            answer = student(torch.cat([x, x_m]))
            loss = o.current * apart(o.discrepancy, teacher(x), answer[: o.batch])
            loss = loss + o.past * apart(o.discrepancy, teacher(x_m), answer[o.batch :])
            opt_s.zero_grad()
            loss.backward()
            opt_s.step()
        fall = (1 + math.cos(math.pi * ((number + 1) * (o.student_steps + 1) - 1) / length)) / 2
        opt_g.param_groups[0]["lr"] = o.lr_generator * (fall if o.schedule_generator else 1.0)
        x = generator(torch.randn(o.batch, o.latent, generator=streams["noise"]))
        heard.clear()
        difference = apart(o.discrepancy, teacher(x), student(x))
        loss = -(difference + 1).log() if o.adaptive else -difference
        loss = loss + o.batch_norm_weight * heard.distance()
        opt_g.zero_grad()
        loss.backward()
        opt_g.step()
        with torch.no_grad():
            for own, other in zip(former.parameters(), generator.parameters(), strict=True):
                own.copy_(o.momentum_generator * own + (1 - o.momentum_generator) * other)
    return {"generator": generator, "average": former, "student": student}


VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "a short memory, weights": {"momentum_generator": 0.2, "current": 0.5, "past": 2.0},
    "kl, no statistics": {"discrepancy": "kl", "batch_norm_weight": 0.0},
    "mse, adaptive": {"discrepancy": "mse", "adaptive": True, "schedule_generator": False},
}


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("variant", first_quick(VARIANTS))
def test_four_rounds_equal_the_described_loop(variant: str) -> None:
    options = VARIANTS[variant]
    expected = reference(4, Options(**{**SMALL, **options}))
    context = play(options, 4 * ROUND)
    for name in ("generator", "average"):
        assert same_weights(context.kept[name], expected[name], 1e-7), name  # with running statistics
    assert same_weights(context.student, expected["student"], 1e-7)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    "options", first_quick([{"momentum_generator": 0.5}, {"past": 0.0}, {"current": 0.0}]), ids=str
)
def test_another_setting_would_be_noticed(options: dict[str, Any]) -> None:
    expected = reference(3, Options(**SMALL))["student"]
    assert not same_weights(play(options, 3 * ROUND).student, expected, 1e-5)


def test_the_average_moves_less_than_the_generator_and_without_momentum_as_much() -> None:
    start = play({"lr_generator": 1e-15}, ROUND).kept["generator"]
    context = play({"lr_generator": 0.01}, 5 * ROUND)
    moved = {
        name: sum(float((a - b).detach().norm()) for a, b in zip(start.parameters(), network.parameters(), strict=True))
        for name, network in context.kept.items()
        if name in ("generator", "average")
    }
    assert 0 < moved["average"] < 0.5 * moved["generator"]
    at_once = play({"lr_generator": 0.01, "momentum_generator": 0.0}, 5 * ROUND).kept
    for own, other in zip(at_once["average"].parameters(), at_once["generator"].parameters(), strict=True):
        assert torch.equal(own, other)


def test_what_a_round_asks() -> None:
    teacher = Listening(lenet(1, "lenet5bn"))
    meter = play({"batch_norm_weight": 0.0}, ROUND, teacher=teacher).meter
    assert [len(each) for each in teacher.heard] == [16, 16, 8]
    assert (meter.teacher_images, meter.student_images, meter.synthesised_images) == (40, 40, 40)
    assert (meter.teacher_backward, meter.optimizer_steps) == (8, 3)


def test_it_is_labelled_as_re_derived_and_runs_without_batch_norm() -> None:
    card = find_methods()["mad"]
    assert card.title == "MAD (re-derived)"
    assert card.needs_batch_norm({})
    assert not card.needs_batch_norm({"batch_norm_weight": 0.0})
    networks = {"teacher": lenet(1), "student": lenet(2, "lenet5-half")}
    assert not same_weights(play({"batch_norm_weight": 0.0}, ROUND, **networks).student, lenet(2, "lenet5-half"))


def test_what_is_known_of_the_paper_is_the_default() -> None:
    o = Options()
    assert (o.momentum_generator, o.current > 0, o.past > 0) == (0.95, True, True)
    assert (o.student_steps, o.batch, o.latent, o.discrepancy) == (5, 256, 256, "mae")  # DFAD's
