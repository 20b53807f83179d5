"""CPSC-DFKD against its code: the contrast, the class batch norms, the whole loop, schedule and settings."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, first_quick, kin, lenet, run, same_weights
from reference_parts import HeardMaps
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench import image_generator
from bench.harness.trial_context import TrialContext
from bench.spec.method_registry import find_methods
from bench.spec.presets import preset
from bench.spec.task import get_task
from bench.utils.rng import Streams, seed_everything
from methods.cpsc_dfkd import (
    ClassBatchNorm,
    ClassGenerator,
    Options,
    cpsc_dfkd,
    logits_distance,
    supervised_contrast,
)

SMALL: dict[str, Any] = {
    "batch": 24, "latent": 6, "width": 4, "generator_steps": 2, "student_steps": 2, "lr_student": 0.01, "warmup": 0.3,
}  # fmt: skip


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    networks = {"teacher": lenet(1, "lenet5bn"), "student": lenet(2, "lenet5bn-half"), **around}
    return run(cpsc_dfkd.declared, {**SMALL, **options}, steps=steps, **networks)


# ---- losses ----------------------------------------------------------------------------------------------------------


def contrast_by_hand(views: tuple[Tensor, Tensor], labels: Tensor, tau: float) -> float:
    rows, classes = [*views[0].tolist(), *views[1].tolist()], [*labels.tolist(), *labels.tolist()]

    def similar(a: int, b: int) -> float:
        return sum(x * y for x, y in zip(rows[a], rows[b], strict=True)) / tau

    anchors = []
    for a in range(len(rows)):
        others = [b for b in range(len(rows)) if b != a]
        total = math.log(sum(math.exp(similar(a, b)) for b in others))
        positive = [b for b in others if classes[b] == classes[a]]
        anchors.append(-sum(similar(a, b) - total for b in positive) / len(positive))
    return sum(anchors) / len(anchors)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("tau", [0.07, 1.0])
def test_the_contrast_is_that_of_all_pairs_of_both_views(tau: float) -> None:
    stream = torch.Generator().manual_seed(0)
    views = (F.normalize(torch.randn(7, 5, generator=stream)), F.normalize(torch.randn(7, 5, generator=stream)))
    labels = torch.tensor([0, 1, 0, 2, 1, 1, 3])
    assert supervised_contrast(views, labels, tau).item() == pytest.approx(contrast_by_hand(views, labels, tau))


def test_the_contrast_is_lowest_where_a_class_is_one_direction() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    together = F.one_hot(labels, 4).float()
    apart = torch.eye(4)
    assert supervised_contrast((together, together), labels, 0.1) < supervised_contrast((apart, apart), labels, 0.1)
    features = torch.randn(4, 3, requires_grad=True)
    supervised_contrast((F.normalize(features), F.normalize(features)), labels, 0.07).backward()
    assert torch.isfinite(features.grad).all()


def test_the_forms_of_the_logits_distance() -> None:
    s, t = torch.tensor([[1.0, 2.0], [0.0, 4.0]], requires_grad=True), torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert logits_distance(s, t, "mse").item() == pytest.approx(21 / 4)
    assert logits_distance(s, t, "log").item() == pytest.approx(math.log(21 / 4))
    assert logits_distance(s, t, "log", whole=True).item() == pytest.approx(math.log(21) / 2)
    assert logits_distance(s, t, "mse", whole=True).item() == pytest.approx(21 / 4)


# ---- the generator ---------------------------------------------------------------------------------------------------


def test_a_class_has_its_own_scale_and_shift() -> None:
    layer = ClassBatchNorm(3, 2)
    assert layer.norm.eps == 1e-3
    assert not layer.norm.affine
    layer.scale.weight.data[1] = torch.tensor([2.0, 3.0])
    layer.shift.weight.data[1] = torch.tensor([0.5, -0.5])
    maps = torch.randn(4, 2, 5, 5)
    plain = (maps - maps.mean((0, 2, 3), keepdim=True)) / (
        maps.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-3
    ).sqrt()
    found = layer(maps, torch.tensor([0, 1, 2, 1]))
    torch.testing.assert_close(found[[0, 2]], plain[[0, 2]])
    changed = plain[[1, 3]] * torch.tensor([2.0, 3.0]).view(1, 2, 1, 1) + torch.tensor([0.5, -0.5]).view(1, 2, 1, 1)
    torch.testing.assert_close(found[[1, 3]], changed)


def test_all_batch_norms_of_dafls_generator_know_the_class() -> None:
    generator = ClassGenerator(image_generator(6, IMAGE, 4), 10)
    kinds = [type(each).__name__ for each in generator.layers]
    assert kinds.count("ClassBatchNorm") == 4
    assert "BatchNorm2d" not in kinds
    assert kinds[-2:] == ["Tanh", "ClassBatchNorm"]
    assert generator(torch.randn(5, 6), torch.arange(5)).shape == (5, 1, 32, 32)


# ---- the loop --------------------------------------------------------------------------------------------------------


def reference(rounds: int, o: Options, teacher: nn.Module, student: nn.Module) -> dict[str, Any]:
    """The released code's loop, the rate along the steps."""
    teacher, student = teacher.eval().requires_grad_(False), student.train()
    heard = HeardMaps(teacher)
    last: dict[str, Tensor] = {}
    for name, network in (("t", teacher), ("s", student)):
        network.head.register_forward_pre_hook(lambda _, args, name=name: last.update({name: args[0]}))
    own, other = (network.head[0].in_features for network in (student, teacher))
    with torch.random.fork_rng():
        seed_everything(0)
        generator = ClassGenerator(image_generator(o.latent, IMAGE, o.width), 10).train()
        adapter = nn.Sequential(nn.Linear(own, own), nn.ReLU(), nn.Linear(own, other)).requires_grad_(False)
    streams = Streams(0, torch.device("cpu"))
    opt_g = Adam(generator.parameters(), o.lr_generator, betas=(0.5, 0.999))
    opt_s = SGD(student.parameters(), o.lr_student, momentum=0.9, weight_decay=5e-4)
    length = o.generator_steps + o.student_steps

    def kl(s: Tensor, t: Tensor) -> Tensor:
        return F.kl_div(s.log_softmax(1), t.softmax(1), reduction="sum") / len(s)

    def ce(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits if o.label == "logits" else logits.softmax(1), y)

    for step in range(rounds * length):
        progress = step / (rounds * length)
        y = torch.randint(10, (o.batch,), generator=streams["labels"])
        z = torch.randn(o.batch, o.latent, generator=streams["noise"])
        if step % length < o.generator_steps:
            if o.fresh_adam:
                opt_g = Adam(generator.parameters(), o.lr_generator, betas=(0.5, 0.999))
            x = generator(z, y)
            heard.clear()
            t, s = teacher(x), student(x)
            apart = (s - t.detach()).square().mean()
            loss = -kl(s, t) - o.alpha * (apart if o.distance == "mse" else apart.log())
            loss = loss + o.batch_norm_weight * heard.distance()
            if o.contrast:
                f = torch.cat([F.normalize(last["s"] if own == other else adapter(last["s"])), F.normalize(last["t"])])
                similar = f @ f.T / o.contrast_temperature
                similar = similar - similar.max(1, keepdim=True).values.detach()
                others = 1 - torch.eye(len(f))
                mask = (y.repeat(2)[:, None] == y.repeat(2)).double() * others
                log_prob = similar - (similar.exp() * others).sum(1, keepdim=True).log()
                loss = loss - o.contrast * ((mask * log_prob).sum(1) / mask.sum(1)).mean()
            loss = loss + o.cross_entropy * ce(t, y)
            opt_g.zero_grad()
            loss.backward()
            opt_g.step()
            continue
        rate = progress / o.warmup if progress < o.warmup else 1.0
        if progress >= o.warmup:
            rate = (1 + math.cos(math.pi * (progress - o.warmup) / (1 - o.warmup))) / 2
        opt_s.param_groups[0]["lr"] = o.lr_student * rate
        x = generator(z, y).detach()
        t, s = teacher(x), student(x)
        apart = (s - t).square().mean() if o.distance == "mse" else torch.log(torch.norm(t - s, 2))
        opt_s.zero_grad()
        (kl(s, t) + o.alpha * apart + o.cross_entropy * ce(s, y)).backward()
        opt_s.step()
    return {"generator": generator, "student": student}


@cache
def usual() -> nn.Module:
    """The student of the usual settings, in double precision."""
    student: nn.Module = reference(3, Options(**SMALL), lenet(1, "lenet5bn"), lenet(2, "lenet5bn-half"))["student"]
    return student


VARIANTS: dict[str, dict[str, Any]] = {
    "code": {"label": "probabilities"},
    "cifar10": {"label": "probabilities", "distance": "log"},
    "paper": {"contrast": 3.0},
    "kept adam": {"fresh_adam": False, "contrast_temperature": 0.5},
    "no statistics, no contrast": {"batch_norm_weight": 0.0, "contrast": 0.0},
}


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("variant", first_quick(VARIANTS))
def test_three_rounds_equal_the_codes_loop(variant: str) -> None:
    # a fresh Adam moves by the sign of the gradient: rounding turns that of the smallest ones
    options = {"lr_generator": 1e-4, **VARIANTS[variant]}
    expected = reference(3, Options(**{**SMALL, **options}), lenet(1, "lenet5bn"), lenet(2, "lenet5bn-half"))
    context = play(options, 12)
    assert same_weights(context.kept["generator"], expected["generator"], 1e-6)  # with running statistics
    assert same_weights(context.student, expected["student"], 1e-6)


@pytest.mark.usefixtures("_double")
def test_a_student_of_the_teachers_width_needs_no_adapter() -> None:
    options = {"lr_generator": 1e-4}
    expected = reference(2, Options(**{**SMALL, **options}), lenet(1, "lenet5bn"), kin())
    context = play(options, 8, student=kin())
    assert isinstance(context.kept["adapter"], nn.Identity)
    assert same_weights(context.student, expected["student"], 1e-6)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    "options",
    first_quick([{"label": "probabilities"}, {"alpha": 1.0}, {"fresh_adam": False}, {"warmup": 0.0}]),
    ids=str,
)
def test_another_setting_would_be_noticed(options: dict[str, Any]) -> None:
    assert not same_weights(play(options, 12).student, usual(), 1e-5)


def test_the_adapter_stays_as_it_is() -> None:
    before, after = (play({}, steps).kept["adapter"] for steps in (1, 12))
    assert same_weights(before, after)


def test_counts_of_steps_and_images() -> None:
    meter = play({}, 12).meter
    assert (meter.teacher_images, meter.teacher_backward) == (12 * 24, 6 * 24)
    assert meter.student_images == 12 * 24
    assert meter.synthesised_images == 12 * 24


def test_the_rate_rises_and_then_falls() -> None:
    o = Options(lr_student=1.0, warmup=0.2)
    rates = [o.warmed_rate(p) for p in (0.0, 0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert Options(lr_student=1.0, warmup=0.2, schedule="constant").warmed_rate(0.1) == 1
    assert Options(lr_student=1.0, warmup=0.0).warmed_rate(0.5) == pytest.approx(0.5)


def test_defaults_and_presets_are_the_released_codes_command() -> None:
    card = find_methods()["cpsc_dfkd"]
    assert card.needs_batch_norm({})
    assert not card.needs_batch_norm({"batch_norm_weight": 0.0})
    o = Options()
    assert (o.batch, o.latent, o.width, o.lr_generator) == (512, 256, 128, 1e-3)
    assert (o.generator_steps, o.student_steps, o.temperature, o.distance) == (6, 5, 1, "mse")
    assert (o.alpha, o.batch_norm_weight, o.contrast, o.contrast_temperature) == (5, 1, 0.7, 0.07)
    assert (o.cross_entropy, o.fresh_adam, o.warmup) == (0.7, True, pytest.approx(10 / 600, abs=1e-4))
    assert (o.lr_student, o.momentum, o.weight_decay, o.schedule) == (0.1, 0.9, 5e-4, "cosine")
    assert preset(card, get_task("cifar10/resnet18"), "paper") == {"distance": "log"}
