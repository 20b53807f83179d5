"""CMI against paper and code: the synthesis call written out a second time, modes, counts, the bank, the settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, Listening, kin, lenet, run, same_weights
from reference_parts import normalise
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench import cmi_generator
from bench.harness import checkpoint
from bench.harness.trial_context import TrialContext
from bench.spec.method_registry import find_methods
from bench.utils.rng import Streams, seed_everything
from methods.cmi import Options, cmi
from methods.common.best import Best
from methods.common.contrastive import InstanceHead
from methods.common.meta import normal_weights
from methods.common.views import crop_and_flip, resized_crop_and_flip

TINY: dict[str, Any] = {
    "batch_synthesis": 8, "iterations": 3, "latent": 6, "width": 4, "bank": 12, "bank_sample": 10, "head": 5,
    "pool": 20, "student_steps": 2, "batch": 16, "lr_student": 0.01,
}  # fmt: skip
ROUND = TINY["iterations"] + TINY["student_steps"]


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    networks = {"teacher": lenet(1, "lenet5bn"), "student": lenet(2, "lenet5bn-half"), **around}
    return run(cmi.declared, {**TINY, **options}, steps=steps, **networks)


def reference(calls: int, o: Options) -> dict[str, Any]:
    """The reference code's loop with our repairs: two optimisers, all losses written out, a list as pool."""
    teacher, student = lenet(1, "lenet5bn").eval().requires_grad_(False), kin().train()
    inputs: list[Tensor] = []
    norms = [layer for layer in teacher.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))

    def ask(images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        inputs.clear()
        logits = teacher(images)
        return logits, torch.cat([each.mean((2, 3)) for each in inputs], 1), list(inputs)

    with torch.random.fork_rng():
        seed_everything(0)
        generator = cmi_generator(o.latent, IMAGE, o.width).train()
        head = InstanceHead(sum(norm.num_features for norm in norms), o.head)
    streams = Streams(0, torch.device("cpu"))
    opt_head = Adam(head.parameters(), o.lr_generator)
    opt_s = SGD(student.parameters(), o.lr_student, momentum=0.9, weight_decay=1e-4)
    pool: list[Tensor] = []
    bank: list[Tensor] = []
    chosen = []
    for call in range(calls):
        normal_weights(generator, streams["weights"])
        z = torch.randn(o.batch_synthesis, o.latent, generator=streams["noise"]).requires_grad_()
        y = torch.empty(o.batch_synthesis, dtype=torch.int64).random_(10, generator=streams["labels"])
        opt = Adam([*generator.parameters(), z], o.lr_generator, betas=(0.5, 0.999))
        best = math.inf
        for index in range(o.iterations):
            x = generator(z)
            pixels = x * IMAGE.std[0] + IMAGE.mean[0]
            view = normalise(crop_and_flip(pixels, streams["views"]))
            logits, features, maps = ask(view)
            loss = o.one_hot * F.cross_entropy(logits, y)
            for norm, each in zip(norms, maps, strict=True):
                mean = each.mean((0, 2, 3))
                var = ((each - mean.view(1, -1, 1, 1)) ** 2).mean((0, 2, 3))
                for own, stored in ((mean, norm.running_mean), (var, norm.running_var)):
                    loss = loss + o.batch_norm_weight * (own - stored).square().sum().sqrt()
            student.eval()
            answer = student(view)
            student.train()
            p = logits.softmax(1)
            same = logits.argmax(1) == answer.argmax(1)
            loss = loss - o.adversarial * ((p * (p.log() - answer.softmax(1).log())).sum(1) * same).mean()
            _, local, _ = ask(normalise(resized_crop_and_flip(pixels, streams["views"])))
            ours, theirs = local, features
            if bank:
                rows = torch.cat(bank)
                drawn = rows[torch.randperm(len(rows), generator=streams["bank"])[: o.bank_sample]]
                ours, theirs = torch.cat([local, drawn[:, 0]]), torch.cat([features, drawn[:, 1]])
            similar = (head(ours) @ head(theirs).detach().T / o.contrast_temperature).exp()
            each_row = -(similar.diag() / similar.sum(1)).log()
            count = o.batch_synthesis
            cr = each_row[:count].mean() + (each_row[count:].mean() if bank else 0)
            loss = loss + o.contrast * cr
            if loss.item() < best:
                best, images, pair, at = (
                    loss.item(),
                    x.detach().clone(),
                    torch.stack([local, features], 1).detach(),
                    index,
                )
            opt.zero_grad()
            opt_head.zero_grad()
            loss.backward()
            opt.step()
            opt_head.step()
        chosen.append(at)
        pool = ring(pool, images, o.pool, call * o.batch_synthesis)
        bank = ring(bank, pair, o.bank, call * o.batch_synthesis)
        for step in range(o.student_steps):
            done = call * (o.iterations + o.student_steps) + o.iterations + step
            opt_s.param_groups[0]["lr"] = o.lr_student * (1 + math.cos(math.pi * done / (calls * ROUND))) / 2
            rows = torch.cat(pool)
            drawn = rows[torch.randint(len(rows), (o.batch,), generator=streams["pool"])]
            images = normalise(crop_and_flip(drawn * IMAGE.std[0] + IMAGE.mean[0], streams["crops"]))
            p, log_q = (teacher(images) / 20).softmax(1), (student(images) / 20).log_softmax(1)
            opt_s.zero_grad()
            (400 * (p * (p.log() - log_q)).sum() / o.batch).backward()
            opt_s.step()
    return {"generator": generator, "head": head, "student": student, "pool": torch.cat(pool), "best": chosen}


def ring(store: list[Tensor], new: Tensor, capacity: int, added: int) -> list[Tensor]:
    """Row by row: append until full, then overwrite in turn."""
    rows = list(torch.cat(store)) if store else []
    for number, row in enumerate(new, added):
        if len(rows) < capacity:
            rows.append(row)
        else:
            rows[number % capacity] = row
    return [torch.stack(rows)]


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    "options",
    [{}, {"bank": 8}, {"bank": 16, "bank_sample": 99}, {"lr_generator": 0.3}],
    ids=["", "the bank is full after one call", "after two", "an early image is the best"],
)
def test_three_rounds_equal_the_papers_loop(options: dict[str, Any]) -> None:
    options = {**options, "eight_bit": False}
    expected = reference(3, Options(**{**TINY, **options}))
    context = play(options, 3 * ROUND, student=kin())
    torch.testing.assert_close(
        torch.cat(context.kept["pool"].state_dict()["parts"]), expected["pool"], atol=1e-6, rtol=0
    )
    assert same_weights(context.student, expected["student"], 1e-6)
    if "lr_generator" in options:  # so large that rounding decides about biases which batch norm takes out again
        assert min(expected["best"]) < TINY["iterations"] - 1
    else:
        assert same_weights(context.kept["head"], expected["head"], 1e-6)
        assert same_weights(context.kept["generator"], expected["generator"], 1e-6)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("name", ["contrast", "adversarial", "one_hot", "batch_norm_weight", "contrast_temperature"])
def test_another_weight_would_be_noticed(name: str) -> None:
    value = 2 * getattr(Options(), name)
    options = {"eight_bit": False}
    expected = reference(1, Options(**{**TINY, **options}))
    assert same_weights(play(options, ROUND, student=kin()).kept["generator"], expected["generator"], 1e-6)
    context = play({**options, name: value}, ROUND, student=kin())
    assert not same_weights(context.kept["generator"], expected["generator"], 1e-6)


def test_a_round_adds_one_batch_and_asks_about_two_views() -> None:
    meter = play({"pool": 100}, 2 * ROUND).meter
    asked = 2 * (3 * 2 * 8 + 2 * 16)
    assert meter.teacher_images == asked
    assert meter.teacher_backward == 2 * 3 * 2 * 8
    assert meter.synthesised_images == 2 * 3 * 8
    assert meter.optimizer_steps == 2 * ROUND
    context = play({"pool": 100}, 2 * ROUND)
    assert len(context.kept["pool"]) == 2 * 8
    assert context.take_logs()["held"] == (8 + 16) / 2
    assert play({"contrast": 0.0}, ROUND).meter.teacher_images == 3 * 8 + 2 * 16  # no local view


def test_the_student_evaluates_in_synthesis_and_trains_on_the_pool() -> None:
    student = lenet(2, "lenet5bn-half")
    modes: list[tuple[bool, bool]] = []
    student.register_forward_hook(
        lambda network, args, out: modes.append((network.training, args[0].requires_grad)), prepend=True
    )
    context = play({}, ROUND, student=student)
    assert [mode for mode in modes if mode != (False, False)] == [(False, True)] * 3 + [(True, False)] * 2
    norms = [layer for layer in context.student.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [int(norm.num_batches_tracked) for norm in norms] == [2] * 3
    assert context.kept["generator"].training


def test_images_are_pixels_and_crops_have_black_borders() -> None:
    teacher = Listening(lenet(1, "lenet5bn"))
    play({}, 2 * ROUND, teacher=teacher)
    low, high = (0 - IMAGE.mean[0]) / IMAGE.std[0], (1 - IMAGE.mean[0]) / IMAGE.std[0]
    for images in teacher.heard:
        assert images.min() >= low - 1e-5
        assert images.max() <= high + 1e-5
    assert any((images == low).any() for images in teacher.heard)


def test_warm_up_calls_come_before_the_student_and_without_its_part() -> None:
    student = Listening(lenet(2, "lenet5bn-half"))
    context = play({"warm_up": 2}, 6, student=student)
    assert not student.heard
    assert same_weights(context.student, Listening(lenet(2, "lenet5bn-half")))
    assert len(play({"warm_up": 2}, 9 + 2).kept["pool"]) == 20  # three calls of 8, the pool of 20 is full
    play({"warm_up": 2}, 9 + 2, student=student)
    assert len(student.heard) == 3 + 2  # the third call's adversarial term, and the first steps


def test_without_batch_norm_it_runs_on_the_stages_alone() -> None:
    card = find_methods()["cmi"]
    assert card.needs_batch_norm({})
    assert not card.needs_batch_norm({"batch_norm_weight": 0.0})
    options = {**TINY, "batch_norm_weight": 0.0, "taps": "stages"}
    context = run(cmi.declared, options, steps=2 * ROUND)
    assert not same_weights(context.student, lenet(2, "lenet5-half"))


def test_images_are_stored_in_8_bits_unless_told_otherwise() -> None:
    for options, kind in (({}, torch.uint8), ({"eight_bit": False}, torch.float32)):
        assert play(options, ROUND).kept["pool"].state_dict()["parts"][0].dtype == kind
    small = play({"eight_bit": False, "memory_mib": 0.05}, ROUND)  # 20 images of 4 KiB take 0.08 MiB
    assert small.kept["pool"].state_dict()["parts"][0].dtype == torch.uint8


def test_pool_and_bank_keep_their_stated_sizes() -> None:
    context = play({}, 4 * ROUND)  # four batches of 8, for 20 and for 12
    assert (len(context.kept["pool"]), len(context.kept["bank"])) == (20, 12)


def test_with_contrast_alone_views_are_told_apart_better_and_better() -> None:
    """Of twenty images, by what head and images learn together."""
    options = {"iterations": 40, "lr_generator": 0.01, "batch_norm_weight": 0.0, "one_hot": 0.0, "adversarial": 0.0}
    first, last = (
        play({**options, "batch_synthesis": 20, "iterations": n}, n).take_logs()["contrast"] for n in (1, 40)
    )
    assert last < 0.9 * first


def test_defaults_are_the_released_scripts() -> None:
    o = Options()
    assert (o.batch_synthesis, o.iterations, o.latent, o.width, o.lr_generator) == (256, 200, 256, 128, 1e-3)
    assert (o.batch_norm_weight, o.one_hot, o.adversarial, o.contrast, o.contrast_temperature) == (1, 1, 0.5, 0.8, 0.1)
    assert (o.bank, o.bank_sample, o.head, o.pool) == (40_960, 4096, 256, 200 * 256)
    assert (o.student_steps, o.batch, o.temperature) == (400, 128, 20)
    assert (o.optimizer, o.lr_student, o.momentum, o.weight_decay, o.schedule) == ("sgd", 0.1, 0.9, 1e-4, "cosine")


def test_of_resnet34_contrast_takes_the_stages() -> None:
    assert cmi.declared.presets == {f"{data}/resnet18": {"taps": "stages"} for data in ("cifar10", "cifar100")}


# ---- the best of several iterations ----------------------------------------------------------------------------------


def test_the_best_is_a_copy_of_the_lowest_finite_losss_images() -> None:
    best, images = Best(), torch.zeros(2, 3)
    for loss in (math.nan, 3.0, 1.0, math.nan, 2.0, math.inf):
        images = images + 1
        best.look(torch.tensor(loss), images, images[:, 0] * 10)
    again = Best()
    checkpoint.restore_into(again, checkpoint.state_of(best))
    for each in (best, again):
        assert each.loss == 1
        assert torch.equal(each.tensors[0], torch.full((2, 3), 3.0))
        assert torch.equal(each.tensors[1], torch.full((2,), 30.0))
    best.restart()
    best.look(torch.tensor(9.0), images, images[:, 0])
    assert best.loss == 9
    images.zero_()
    assert best.tensors[0].min() == 6  # a copy, whatever becomes of the images
