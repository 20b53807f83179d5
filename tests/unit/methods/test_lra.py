"""LRA against its code: the virtual step by hand, the whole loop with its memory, what is counted, settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, Listening, first_quick, lenet, run, same_weights
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench.harness.session import session_for
from bench.harness.trial_context import TrialContext
from bench.models import head
from bench.utils.rng import Streams, seed_everything
from methods.common.pseudo_replay import novel_generator
from methods.lra import Options, lra

SMALL: dict[str, Any] = {
    "batch": 16, "batch_memory": 5, "memory": 2, "first": 1, "every": 1, "student_steps": 2, "latent": 6, "width": 4,
    "lr_virtual": 0.3, "lr_student": 0.01,
}  # fmt: skip
ROUND = 3  # steps


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    networks = {"teacher": lenet(1, "lenet5bn"), "student": lenet(2, "lenet5bn-half"), **around}
    return run(lra.declared, {**SMALL, **options}, steps=steps, **networks)


def normed(x: Tensor, layer: nn.BatchNorm2d, scale: Tensor, shift: Tensor) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    var = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (x - mean) / (var + layer.eps).sqrt() * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def answer(network: nn.Module, weights: list[Tensor], x: Tensor) -> Tensor:
    """A LeNet in training mode with given weights, layer by layer; nothing of the network but its settings is used."""
    left = iter(weights)
    for layer in (layer for layer in network.modules() if not list(layer.children())):
        if isinstance(layer, nn.Conv2d):
            x = F.conv2d(x, next(left), next(left))
        elif isinstance(layer, nn.BatchNorm2d):
            x = normed(x, layer, next(left), next(left))
        elif isinstance(layer, nn.Linear):
            x = x.flatten(1) @ next(left).T + next(left)
        else:
            x = layer(x)
    assert next(left, None) is None
    return x


def clamped_js(t: Tensor, s: Tensor, tau: float) -> Tensor:
    p, q = (t / tau).softmax(1), (s / tau).softmax(1)
    m = (0.5 * (p + q)).clamp(0.01, 0.99)
    p, q = p.clamp(0.01, 0.99), q.clamp(0.01, 0.99)
    return (0.5 * m * (m.log() - p.log()) + 0.5 * m * (m.log() - q.log())).mean()


def plain_js(t: Tensor, s: Tensor, tau: float) -> Tensor:
    p, q = (t / tau).softmax(1), (s / tau).softmax(1)
    m = 0.5 * (p + q)
    return (0.5 * p * (p / m).log() + 0.5 * q * (q / m).log()).sum(1).mean()


def reference(rounds: int, o: Options) -> dict[str, Any]:
    """The released code's loop, its virtual step and second derivatives written out."""
    teacher, student = lenet(1, "lenet5bn").eval().requires_grad_(False), lenet(2, "lenet5bn-half").train()
    features: list[Tensor] = []
    head(teacher).register_forward_pre_hook(lambda _, args: features.append(args[0]))
    with torch.random.fork_rng():
        seed_everything(0)
        generator = novel_generator(session_for(IMAGE, 10), o.latent, o.width, o.eps, o.init).train()
    streams = Streams(0, torch.device("cpu"))
    opt_g = Adam(generator.parameters(), o.lr_generator)
    opt_s = SGD(student.parameters(), o.lr_student, momentum=0.9, weight_decay=o.weight_decay)
    memory: list[Tensor] = []
    pushes, losses = 0, []
    js = clamped_js if o.clamped else plain_js
    for number in range(rounds):
        x = generator(torch.randn(o.batch, o.latent, generator=streams["noise"]))
        features.clear()
        t = teacher(x)
        p = t.softmax(1).mean(0)
        loss = o.one_hot * F.cross_entropy(t, t.argmax(1)) + o.balance * (p * p.log10()).sum()
        loss = loss - o.activation * features[0].abs().mean()
        loss = loss + o.disagreement * (1 - js(t.detach(), student(x), o.temperature).clamp(0, 1))
        opt_g.zero_grad()
        loss.backward()
        opt_g.step()
        for step in range(o.student_steps):
            done = (number * (1 + o.student_steps) + 1 + step) / (rounds * (1 + o.student_steps))
            opt_s.param_groups[0]["lr"] = o.lr_student * (1 + math.cos(math.pi * done)) / 2
            with torch.no_grad():
                new = images = generator(torch.randn(o.batch, o.latent, generator=streams["noise"]))
            total = torch.zeros(())
            if memory:
                chosen = int(torch.randint(len(memory), (1,), generator=streams["memory"]))
                images = torch.cat([new, memory[chosen]])
                w = list(student.parameters())
                inner = (answer(student, w, new) - teacher(new)).abs().mean()
                g = torch.autograd.grad(inner, w, create_graph=True)
                g = g if o.second_order else tuple(each.detach() for each in g)
                v = [a - o.lr_virtual * b - o.lr_virtual * o.weight_decay * a for a, b in zip(w, g, strict=True)]
                total = o.retention * (answer(student, v, memory[chosen]) - teacher(memory[chosen])).abs().mean()
            total = total + (student(images) - teacher(images)).abs().mean()
            opt_s.zero_grad()
            total.backward()
            opt_s.step()
            losses.append(total.item())
        if number + 1 >= o.first and (number + 1 - o.first) % o.every == 0:
            if len(memory) < o.memory:
                memory.append(new[: o.batch_memory])
            else:
                memory[pushes % o.memory] = new[: o.batch_memory]
            pushes += 1
    return {"generator": generator, "student": student, "memory": memory, "losses": losses}


VARIANTS: dict[str, dict[str, Any]] = {
    "code": {},
    "first order": {"second_order": False},
    "the bank alone": {"retention": 0.0},
    "Jensen-Shannon": {"clamped": False},
    "seldom": {"first": 2, "every": 2},
}


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("variant", first_quick(VARIANTS))
def test_five_rounds_equal_the_codes_loop(variant: str) -> None:
    options = VARIANTS[variant]
    expected = reference(5, Options(**{**SMALL, **options}))
    context = play(options, 5 * ROUND)
    (held,) = [torch.cat(context.kept["memory"].state_dict()["parts"])]
    torch.testing.assert_close(held, torch.cat(expected["memory"]), atol=1e-7, rtol=0)
    assert same_weights(context.student, expected["student"], 1e-7)  # with running statistics
    assert context.take_logs()["imitation"] == pytest.approx(sum(expected["losses"]) / 10, rel=1e-6)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    "options",
    first_quick([{"second_order": False}, {"retention": 0.0}, {"lr_virtual": 0.6}, {"clamped": False}, {"every": 2}]),
    ids=str,
)
def test_another_setting_would_be_noticed(options: dict[str, Any]) -> None:
    expected = reference(4, Options(**SMALL))["student"]
    assert same_weights(play({}, 4 * ROUND).student, expected, 1e-7)
    assert not same_weights(play(options, 4 * ROUND).student, expected, 1e-6)


def test_what_a_step_asks_without_and_with_a_memory() -> None:
    plain, full = (play({}, steps).meter for steps in (ROUND, 2 * ROUND))
    assert plain.teacher_images == 3 * 16
    assert plain.student_images == 3 * 16
    assert full.teacher_images - plain.teacher_images == 16 + 2 * (16 + 5)
    assert full.student_images - plain.student_images == 16 + 2 * (16 + 5 + 16 + 5)  # twice: the virtual step's passes
    assert full.teacher_backward == 2 * 16  # the teacher is differentiated for the generator alone
    assert full.optimizer_steps == 2 * 3


def test_virtual_passes_leave_the_running_statistics_alone() -> None:
    counts = [int(next(iter(counts_of(play({"retention": kept}, 3 * ROUND).student)))) for kept in (0.0, 1.0)]
    assert counts[0] == counts[1] == 3 * 3


def counts_of(student: nn.Module) -> list[Tensor]:
    return [layer.num_batches_tracked for layer in student.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_the_memory_overwrites_its_oldest_batch_and_gives_whole_ones() -> None:
    teacher = Listening(lenet(1, "lenet5bn"))
    context = play({"memory": 2, "student_steps": 1}, 6 * 2, teacher=teacher)
    students = teacher.heard[1::2]
    assert [len(each) for each in students] == [16] + 5 * [21]
    first = [each[:5] for each in students]
    for number, each in enumerate(students[1:], 1):
        former = first[max(0, number - 2) : number]
        assert any(torch.equal(each[16:], other) for other in former)
    held = torch.cat(context.kept["memory"].state_dict()["parts"])
    assert len(held) == 10


def test_held_out_images_take_no_part_in_the_virtual_step() -> None:
    """The harness holds the first eight images out at some steps, and others stand in for them."""
    student = Listening(lenet(2, "lenet5bn-half"))
    context = play({"batch": 32, "student_steps": 1}, 2 * 2, student=student)
    held = context.capture.held_out.column("images")
    assert held is not None
    seen = [each for each in student.heard if len(each) in (32, 37)]
    doubles = [each for each in seen if torch.equal(each[:8], each[8:16])]
    assert len(doubles) == 3  # one plain step; then all images, and the virtual step's new ones
    assert len(doubles[1]) + len(doubles[2]) == 32 + 37


def test_defaults_are_the_released_configurations() -> None:
    o = Options()
    assert (o.batch, o.batch_memory, o.memory, o.first, o.every) == (512, 512 // 8, 10, 72, 5 * 72)
    assert (o.generator_steps, o.student_steps, o.latent, o.lr_generator) == (1, 10, 1000, 0.02)
    assert (o.one_hot, o.balance, o.activation, o.disagreement, o.temperature) == (1, 5, 0.1, 1, 3)
    assert (o.lr_student, o.momentum, o.weight_decay, o.schedule, o.lr_virtual) == (0.1, 0.9, 5e-4, "cosine", 0.9)
    assert o.second_order
    assert o.clamped
