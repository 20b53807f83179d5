"""ZSKT against paper and code: the loop of the reference code, reductions, modes, clipping, attention where it fits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, Listening, lenet, run, same_weights
from scipy.special import rel_entr, softmax
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam, Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from bench import Unsupported, zskt_generator
from bench.models import stages
from bench.utils.rng import Streams, seed_everything
from methods.zskt import Options, belief_gap, zskt

SMALL = {"batch": 8, "latent": 6, "width": 4, "student_steps": 3}


@contextmanager
def optimizer_steps() -> Iterator[list[tuple[Optimizer, float]]]:
    """The optimisers in the order in which they take steps, and their rates."""
    steps: list[tuple[Optimizer, float]] = []
    hook = register_optimizer_step_post_hook(lambda each, *_: steps.append((each, each.param_groups[0]["lr"])))
    try:
        yield steps
    finally:
        hook.remove()


class Grouped(nn.Module):
    """Two stages, the second of a size of its own; ``Listening`` has none."""

    def __init__(self, size: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(size)
            self.first, self.second = nn.AvgPool2d(4), nn.AdaptiveAvgPool2d(size)
            self.head = nn.Linear(size * size, 10)
        self.stages = [self.first, self.second]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(self.first(images)).flatten(1))
        return logits


# ---- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_the_gap_is_the_mean_over_images_and_classes(tau: float) -> None:
    stream = np.random.default_rng(0)
    teacher, student = stream.normal(0, 3, (7, 5)), stream.normal(0, 3, (7, 5))
    expected = tau**2 * rel_entr(softmax(teacher / tau, 1), softmax(student / tau, 1)).sum() / (7 * 5)
    assert belief_gap(torch.tensor(teacher), torch.tensor(student), tau).item() == pytest.approx(expected, rel=1e-12)


# ---- the loop --------------------------------------------------------------------------------------------------------


def answers(network: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and attention maps: over positions, of unit length for each image."""
    maps: list[Tensor] = []
    hooks = [stage.register_forward_hook(lambda *call: maps.append(call[2])) for stage in stages(network)]
    logits = network(images)
    for hook in hooks:
        hook.remove()
    flat = [(each**2).mean(1).reshape(len(images), -1) for each in maps]
    return logits, [each / each.norm(dim=1, keepdim=True) for each in flat]


def reference(steps: int, o: Options, norm: bool) -> tuple[nn.Module, nn.Module]:
    """The loop of the reference code, which makes the images again in each of the student's steps."""
    teacher, student = lenet(1).eval(), lenet(2, "lenet5bn-half" if norm else "lenet5-half").train()
    with torch.random.fork_rng():
        seed_everything(0)
        generator = zskt_generator(o.latent, IMAGE, o.width).train()
    opt_g, opt_s = Adam(generator.parameters(), lr=o.lr_generator), Adam(student.parameters(), lr=o.lr_student)
    noise = Streams(0, torch.device("cpu"))["noise"]
    elements = o.batch * 10  # PyTorch's "mean"
    for step in range(steps):
        for opt, lr in ((opt_g, o.lr_generator), (opt_s, o.lr_student)):
            opt.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
        z = torch.randn(o.batch, o.latent, generator=noise)
        x = generator(z)
        opt_g.zero_grad()
        (-F.kl_div(F.log_softmax(student(x), 1), F.softmax(teacher(x), 1), reduction="sum") / elements).backward()
        clip_grad_norm_(generator.parameters(), o.clip)
        opt_g.step()
        for _ in range(o.student_steps):
            x = generator(z)
            with torch.no_grad():
                logits, maps = answers(teacher, x)
            own, own_maps = answers(student, x)
            loss = F.kl_div(F.log_softmax(own, 1), F.softmax(logits, 1), reduction="sum") / elements
            for mine, theirs in zip(own_maps, maps, strict=True):
                loss = loss + o.attention * ((mine - theirs) ** 2).mean()
            opt_s.zero_grad()
            loss.backward()
            clip_grad_norm_(student.parameters(), o.clip)
            opt_s.step()
    return generator, student


def same_parameters(a: nn.Module, b: nn.Module, tolerance: float) -> bool:
    return all((p - q).abs().max() <= tolerance for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("norm", [False, True], ids=["", "batch norm"])
@pytest.mark.parametrize("attention", [0.0, 250.0])
def test_three_rounds_equal_the_loop_of_the_reference_code(norm: bool, attention: float) -> None:
    options = {**SMALL, "attention": attention, "clip": 0.02}
    generator, student = reference(3, Options(**options), norm)
    context = run(zskt.declared, options, steps=3, student=lenet(2, "lenet5bn-half" if norm else "lenet5-half"))
    assert same_parameters(context.kept["generator"], generator, 1e-9)
    assert same_weights(context.student, student, 1e-9)  # running statistics too


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("other", [{"clip": 5.0}, {"attention": 100.0}], ids=["clip", "attention"])
def test_another_clip_or_attention_would_be_noticed(other: dict[str, float]) -> None:
    _, student = reference(3, Options(**{**SMALL, "clip": 0.02}), norm=False)
    assert not same_weights(run(zskt.declared, {**SMALL, "clip": 0.02, **other}, steps=3).student, student, 1e-6)


def test_a_round_is_one_generator_step_and_ten_of_the_student_on_the_same_images() -> None:
    teacher, student = Listening(lenet(1)), Listening(lenet(2, "lenet5-half"))
    with optimizer_steps() as steps:
        context = run(
            zskt.declared, {**SMALL, "student_steps": 10, "attention": 0}, steps=2, teacher=teacher, student=student
        )
    kinds = ["student" if step is context.kept["opt_s"] else "generator" for step, _ in steps]
    assert kinds == (["generator"] + ["student"] * 10) * 2
    first, second = teacher.heard[:2]
    assert torch.equal(first, student.heard[0])
    assert not torch.equal(first, second)  # the same codes, after the generator's step
    assert (first - second).abs().mean() < 0.5  # other codes are about 1 apart
    assert (first - teacher.heard[2]).abs().mean() > 2 * (first - second).abs().mean()
    assert all(torch.equal(second, heard) for heard in student.heard[1:11])
    meter = context.meter
    assert meter.teacher_images == 2 * 2 * 8
    assert meter.teacher_backward == 2 * 8
    assert meter.student_images == 2 * 11 * 8
    assert meter.synthesised_images == 2 * 2 * 8


def test_both_networks_are_in_training_mode_and_the_teacher_is_not() -> None:
    student, modes = lenet(2, "lenet5bn-half"), []
    student.register_forward_hook(
        lambda net, args, _: modes.append((net.training, args[0].requires_grad)), prepend=True
    )
    context = run(zskt.declared, {**SMALL, "student_steps": 2, "attention": 0}, steps=2, student=student)
    assert [mode for mode in modes if mode != (False, False)] == [(True, True), (True, False), (True, False)] * 2
    assert context.kept["generator"].training


def test_both_rates_fall_along_a_cosine() -> None:
    with optimizer_steps() as steps:
        context = run(zskt.declared, {**SMALL, "student_steps": 1, "lr_generator": 0.02, "lr_student": 0.04}, steps=4)
    shape = [(1 + math.cos(math.pi * share)) / 2 for share in (0, 0.25, 0.5, 0.75)]
    for name, lr in (("opt_g", 0.02), ("opt_s", 0.04)):
        assert [rate for each, rate in steps if each is context.kept[name]] == pytest.approx(
            [lr * part for part in shape]
        )


def test_the_generator_does_not_see_the_attention() -> None:
    """One step: the student has not moved yet, so only the attention could make the generators differ."""
    found = [run(zskt.declared, {**SMALL, "attention": weight}, steps=1) for weight in (0.0, 250.0)]
    assert same_weights(found[0].kept["generator"], found[1].kept["generator"])
    assert not same_weights(found[0].student, found[1].student)


def test_the_generators_learning_widens_the_gap() -> None:
    """With a student that stands still, what is left is the generator's part."""
    options = {"batch": 32, "latent": 6, "width": 4, "student_steps": 1, "lr_student": 1e-9, "lr_generator": 0.01}
    context = run(zskt.declared, options, steps=25)
    stream, gaps, teacher = torch.Generator().manual_seed(1), [], lenet(1).eval()
    for generator in (zskt_generator(6, IMAGE, 4), context.kept["generator"]):
        with torch.no_grad():
            images = generator(torch.randn(256, 6, generator=stream))
            gaps.append(belief_gap(teacher(images), context.student(images)).item())
    assert gaps[1] > 1.2 * gaps[0]


# ---- networks whose stages do not agree ------------------------------------------------------------------------------


def test_stages_of_other_sizes_are_unsupported_with_attention_and_fine_without() -> None:
    pair = {"teacher": Grouped(4), "student": Grouped(2)}
    with pytest.raises(Unsupported, match=r"groups of equal sizes.*set zskt's option attention to 0"):
        run(zskt.declared, SMALL, steps=1, **pair)
    assert run(zskt.declared, {**SMALL, "attention": 0}, steps=1, **pair).meter.steps == 1


def test_networks_without_stages_are_unsupported_with_attention_and_fine_without() -> None:
    for pair in ({"teacher": Listening(lenet(1))}, {"student": Listening(lenet(2, "lenet5-half"))}):
        with pytest.raises(Unsupported, match="names no stages"):
            run(zskt.declared, SMALL, steps=1, **pair)
        assert run(zskt.declared, {**SMALL, "attention": 0}, steps=1, **pair).meter.steps == 1


def test_defaults_are_the_papers() -> None:
    paper = {
        "batch": 128, "generator_steps": 1, "student_steps": 10, "latent": 100, "width": 128, "attention": 250.0,
        "temperature": 1.0, "clip": 5.0, "lr_generator": 1e-3, "lr_student": 2e-3, "schedule": "cosine",
    }  # fmt: skip
    assert vars(zskt.declared.make_options({})) == paper
