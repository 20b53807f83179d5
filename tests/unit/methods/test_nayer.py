"""NAYER against paper and code: synthesis and rounds written out a second time, noisy layers, labels, settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, Listening, first_quick, kin, lenet, run, same_weights
from reference_parts import (
    HeardMaps,
    Statistics,
    agreed_divergence,
    averaged,
    check_it_runs_without_batch_norm,
    normalise,
    stored_images,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench import cmi_generator
from bench.harness.trial_context import TrialContext
from bench.utils.rng import Streams
from methods.common.views import crop_and_flip
from methods.nayer import NoisyGenerator, Options, nayer, start_over

TINY: dict[str, Any] = {
    "batch_synthesis": 23, "iterations": 2, "warm_up": 1, "calls_warm_up": 2, "calls": 2, "share": 0.9, "life": 1,
    "latent": 12, "noisy": 7, "width": 4, "pool": 1000, "eight_bit": False, "student_steps": 2, "batch": 16,
    "lr_student": 0.01,
}  # fmt: skip
WARM_UP, ROUND = 2 * 2, 2 * 2 + 2  # steps


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    networks = {"teacher": lenet(1, "lenet5bn"), "student": kin(), **around}
    return run(nayer.declared, {**TINY, **options}, steps=steps, **networks)


def unit_rows(drawn: Tensor) -> Tensor:
    """Gram-Schmidt, one row after the other; signs aside, this is what QR gives."""
    found: list[Tensor] = []
    for row in drawn:
        for other in found:
            row = row - (row @ other) * other
        found.append(row / row.norm())
    return torch.stack(found)


class Plain:
    """The generator as a list of tensors: batch norm of the embeddings, a matrix for each group, CMI's generator."""

    def __init__(self, vectors: Tensor, o: Options) -> None:
        self.vectors, self.scale, self.shift = vectors, torch.ones(o.latent), torch.zeros(o.latent)
        groups = math.ceil(o.batch_synthesis / 10)
        self.matrices = [torch.empty(o.noisy, o.latent) for _ in range(groups)]
        self.biases = [torch.zeros(o.noisy) for _ in range(groups)]
        self.body = cmi_generator(o.noisy, IMAGE, o.width).train()

    def all(self) -> list[Tensor]:
        return [self.scale, self.shift, *self.matrices, *self.biases, *self.body.parameters()]

    def fresh(self, stream: torch.Generator) -> None:
        self.scale.data.fill_(1.0)
        self.shift.data.zero_()
        for matrix, bias in zip(self.matrices, self.biases, strict=True):
            for each in (matrix, bias):
                each.data.uniform_(-1 / matrix.shape[1] ** 0.5, 1 / matrix.shape[1] ** 0.5, generator=stream)
        for layer in self.body:
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.data.fill_(1.0)
                layer.bias.data.zero_()
            elif isinstance(layer, nn.Linear | nn.Conv2d):
                inputs = layer.weight.numel() / len(layer.weight)
                for parameter in layer.parameters():
                    parameter.data.uniform_(-(inputs**-0.5), inputs**-0.5, generator=stream)

    def noisy(self, stream: torch.Generator) -> None:
        for matrix, bias in zip(self.matrices, self.biases, strict=True):
            matrix.data.copy_(torch.randn(matrix.shape, generator=stream))
            bias.data.zero_()

    def __call__(self, labels: Tensor) -> Tensor:
        e = self.vectors[labels]
        e = (e - e.mean(0)) / (e.var(0, unbiased=False) + 1e-5).sqrt() * self.scale + self.shift
        codes = [self.matrices[place // 10] @ row + self.biases[place // 10] for place, row in enumerate(e)]
        images: Tensor = self.body(torch.stack(codes))
        return images


def reference(warm: int, rounds: int, o: Options) -> dict[str, Any]:
    """The reference code's rounds: calls of the synthesis, and after the warm-up's the student's steps."""
    teacher, student = lenet(1, "lenet5bn").eval().requires_grad_(False), kin().train()
    heard = HeardMaps(teacher)
    streams = Streams(0, torch.device("cpu"))
    drawn = torch.randn(10, o.latent, generator=streams["embeddings"])
    if o.embedding == "orthogonal":
        rows = unit_rows(drawn)
        drawn = rows * (torch.linalg.qr(drawn.T).Q.T * rows).sum(1, keepdim=True).sign()
    generator = Plain(drawn, o)
    opt_s = SGD(student.parameters(), o.lr_student, momentum=0.9, weight_decay=1e-4)
    past: list[Statistics] = []
    pool: list[Tensor] = []
    for number in range(warm + rounds):
        for call in range(o.calls_warm_up if number < warm else o.calls):
            y = torch.tensor([*range(10), *range(10), 0, 0, 0])
            y[20:] = torch.empty(3, dtype=torch.int64).random_(10, generator=streams["labels"])
            if call == 0 and (number if number < warm else number - warm) % o.life == 0:
                generator.fresh(streams["weights"])
            generator.noisy(streams["noisy"])
            moved = [each.requires_grad_() for each in generator.all()]
            opt = Adam(moved, o.lr_generator, betas=(0.5, 0.999))
            best = math.inf
            for _ in range(o.iterations):
                x = generator(y)
                view = normalise(crop_and_flip(x * IMAGE.std[0] + IMAGE.mean[0], streams["views"]))
                heard.clear()
                logits = teacher(view)
                loss = o.one_hot * F.cross_entropy(logits, y)
                now = averaged(heard.statistics(), past, o.average)
                loss = loss + o.batch_norm_weight * heard.distance(now)
                if number >= warm:
                    student.eval()
                    answer = student(view)
                    student.train()
                    loss = loss - o.adversarial * agreed_divergence(logits, answer, 1)
                if loss.item() < best:
                    best, images = loss.item(), x.detach().clone()
                opt.zero_grad()
                loss.backward()
                opt.step()
            past = now
            pool.append(images)
        for step in range(o.student_steps if number >= warm else 0):
            length = o.calls * o.iterations + o.student_steps
            done = (number - warm) * length + o.calls * o.iterations + step
            progress = done / (rounds * length)
            opt_s.param_groups[0]["lr"] = o.lr_end + (o.lr_student - o.lr_end) * (1 + math.cos(math.pi * progress)) / 2
            stored = torch.cat(pool)
            taken = stored[torch.randint(len(stored), (o.batch,), generator=streams["pool"])]
            seen = normalise(crop_and_flip(taken * IMAGE.std[0] + IMAGE.mean[0], streams["crops"]))
            p, log_q = (teacher(seen) / 20).softmax(1), (student(seen) / 20).log_softmax(1)
            opt_s.zero_grad()
            (400 * (p * (p.log() - log_q)).sum() / o.batch).backward()
            opt_s.step()
    return {"generator": generator, "student": student, "pool": torch.cat(pool)}


VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "normal embeddings": {"embedding": "normal"},
    "plain statistics": {"average": 0.0},
    "a long life": {"life": 5},
}


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("variant", first_quick(VARIANTS))
def test_three_rounds_equal_the_papers_loop(variant: str) -> None:
    options = VARIANTS[variant]
    expected = reference(1, 2, Options(**{**TINY, **options}))
    context = play(options, WARM_UP + 2 * ROUND)
    torch.testing.assert_close(stored_images(context), expected["pool"], atol=1e-6, rtol=0)
    assert same_weights(context.student, expected["student"], 1e-6)
    plain, generator = expected["generator"], context.kept["generator"]
    for layer, matrix, bias in zip(generator.noisy, plain.matrices, plain.biases, strict=True):
        torch.testing.assert_close(layer.weight.detach(), matrix.detach(), atol=1e-6, rtol=0)
        torch.testing.assert_close(layer.bias.detach(), bias.detach(), atol=1e-6, rtol=0)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    "options",
    first_quick([{"average": 0.5}, {"adversarial": 5.0}, {"one_hot": 1.0}, {"embedding": "normal"}, {"life": 2}]),
    ids=str,
)
def test_another_loop_would_be_noticed(options: dict[str, Any]) -> None:
    expected = reference(1, 2, Options(**TINY))["pool"]
    assert not torch.allclose(stored_images(play(options, WARM_UP + 2 * ROUND)), expected, atol=1e-4)


def test_counts_of_steps_and_images() -> None:
    context = play({}, WARM_UP + 2 * ROUND)
    meter = context.meter
    updates = WARM_UP + 2 * 2 * 2
    assert meter.teacher_images == updates * 23 + 4 * 16
    assert meter.teacher_backward == updates * 23
    assert meter.student_images == 2 * 4 * 23 + 4 * 16  # in the synthesis only after the warm-up
    assert meter.optimizer_steps == updates + 4
    assert len(context.kept["pool"]) == (2 + 2 * 2) * 23
    assert meter.synthesised_images == updates * 23


def test_classes_come_in_their_order_and_the_rest_by_chance() -> None:
    labels = play({"batch_synthesis": 47}, 1).kept["labels"]
    assert labels[:40].tolist() == 4 * list(range(10))
    found = [play({"batch_synthesis": 47}, 1, seed=seed).kept["labels"][40:].tolist() for seed in range(3)]
    assert len({tuple(each) for each in found}) == 3
    few = play({"batch_synthesis": 7}, 1).kept["labels"]
    assert len(few) == 7
    assert set(few.tolist()) <= set(range(10))


def test_a_noisy_layer_serves_one_image_of_each_class_and_another_layer_the_next() -> None:
    generator = NoisyGenerator(torch.eye(4), 3, 10, nn.Identity()).eval()
    generator.draw_noisy_layers(torch.Generator().manual_seed(0))
    assert [tuple(layer.weight.shape) for layer in generator.noisy] == [(3, 4)] * 3
    codes = generator(torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1]))
    assert not torch.allclose(codes[0], codes[4])
    assert not torch.allclose(codes[0], codes[8])
    seen = generator.norm(torch.eye(4))
    for place, label in enumerate([0, 1, 2, 3, 0, 1, 2, 3, 0, 1]):
        torch.testing.assert_close(codes[place], generator.noisy[place // 4](seen[label]))


def test_noisy_layers_are_drawn_again_and_the_rest_lives_on() -> None:
    before, after = (play({"life": 50, "lr_generator": 1e-12}, steps).kept["generator"] for steps in (1, 3))
    assert same_weights(before.body[0], after.body[0], 1e-9)
    assert not same_weights(before.noisy, after.noisy, 0.5)
    weights = torch.cat([layer.weight.flatten() for layer in after.noisy])
    assert weights.std().item() == pytest.approx(1, rel=0.2)
    assert max(layer.bias.abs().max().item() for layer in after.noisy) < 1e-9


def test_a_fresh_generator_is_one_as_torch_makes_it() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made, again = (NoisyGenerator(torch.randn(10, 64), 32, 20, cmi_generator(32, IMAGE, 16)) for _ in range(2))
    for parameter in again.parameters():
        parameter.data.fill_(7.0)
    start_over(again, torch.Generator().manual_seed(3))
    for (name, own), other in zip(again.named_parameters(), made.parameters(), strict=True):
        assert own.abs().max() < 1.01, name
        if other.numel() >= 16:
            assert own.mean().item() == pytest.approx(other.mean().item(), abs=0.06), name
            assert own.std().item() == pytest.approx(other.std().item(), rel=0.25, abs=1e-3), name
            assert own.abs().max().item() == pytest.approx(other.abs().max().item(), rel=0.15), name


def test_embeddings_are_unit_vectors_at_right_angles_and_stay() -> None:
    first, later = (play({}, steps).kept["generator"].embeddings for steps in (1, 12))
    torch.testing.assert_close(first @ first.T, torch.eye(10), atol=1e-5, rtol=0)
    assert torch.equal(first, later)
    short = play({"latent": 6}, 1).kept["generator"].embeddings  # more classes than numbers
    assert short.shape == (10, 6)
    torch.testing.assert_close(short.T @ short, torch.eye(6), atol=1e-5, rtol=0)


def test_the_student_evaluates_in_synthesis_and_is_left_alone_in_the_warm_up() -> None:
    student = lenet(2, "lenet5bn-half")
    modes: list[tuple[bool, bool]] = []
    student.register_forward_hook(
        lambda network, args, out: modes.append((network.training, args[0].requires_grad)), prepend=True
    )
    play({}, WARM_UP + ROUND, student=student)
    assert [mode for mode in modes if mode != (False, False)] == [(False, True)] * 4 + [(True, False)] * 2


def test_the_warm_up_takes_at_most_its_share_and_a_call_is_finished() -> None:
    student = Listening(lenet(2, "lenet5bn-half"))
    context = play({"warm_up": 100, "share": 0.25, "adversarial": 0.0}, 20, student=student)
    assert context.kept["warm"]["calls"] == 3  # five steps, the last of them the third call's first
    assert len(student.heard) == 2 * 2  # in 14 steps after it: two rounds, and one call of the third
    assert len(context.kept["pool"]) == (3 + 2 * 2 + 1) * 23


def test_without_batch_norm_it_runs_on_the_other_terms() -> None:
    check_it_runs_without_batch_norm(nayer.declared, TINY, WARM_UP + ROUND)


def test_defaults_and_presets_are_the_released_scripts() -> None:
    o = Options()
    assert (o.batch_synthesis, o.iterations, o.lr_generator, o.latent, o.noisy) == (400, 40, 4e-3, 512, 1000)
    assert (o.adversarial, o.batch_norm_weight, o.one_hot, o.average) == (1.33, 10, 0.5, 0.9)
    assert (o.warm_up, o.calls_warm_up, o.calls, o.life) == (20, 10, 2, 10)
    assert o.pool == (20 * 10 + 300 * 2) * 400
    assert (o.student_steps, o.batch, o.temperature, o.optimizer) == (400, 512, 20, "sgd")
    assert (o.lr_student, o.lr_end, o.momentum, o.weight_decay, o.schedule) == (0.2, 2e-4, 0.9, 1e-4, "cosine")
    assert dict(nayer.declared.presets) == {"cifar10": {"iterations": 30}}
