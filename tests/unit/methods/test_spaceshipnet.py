"""SpaceshipNet against its code: the exchange, both maps of attention, the whole loop written out again, settings."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, first_quick, lenet, run, same_weights
from reference_parts import normalise
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench import Unsupported, cmi_generator
from bench.harness.trial_context import TrialContext
from bench.models import build
from bench.spec.method_registry import find_methods
from bench.utils.rng import Streams, seed_everything
from methods.common.views import crop_and_flip
from methods.spaceshipnet import (
    Options,
    StagedGenerator,
    class_maps,
    exchanged,
    grad_cams,
    kaiming_weights,
    spaceshipnet,
)

TINY: dict[str, Any] = {
    "batch_synthesis": 13, "iterations": 3, "latent": 6, "width": 4, "student_steps": 3, "batch": 7, "lr_student": 0.01,
}  # fmt: skip
ROUND = 3 + 3  # steps


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    networks = {"teacher": lenet(1, "lenet5bn"), "student": lenet(2, "lenet5bn-half"), **around}
    return run(spaceshipnet.declared, {**TINY, **options}, steps=steps, **networks)


# ---- the exchange ----------------------------------------------------------------------------------------------------


def test_half_of_the_channels_come_from_the_map_at_the_other_end() -> None:
    maps = torch.arange(5 * 8.0).view(5, 8, 1, 1).expand(5, 8, 2, 2)
    mixed = exchanged(maps, torch.Generator().manual_seed(0))
    drawn = []
    for place in range(5):
        own = [torch.equal(mixed[place, c], maps[place, c]) for c in range(8)]
        assert all(torch.equal(mixed[place, c], maps[4 - place, c]) for c in range(8) if not own[c])
        assert sum(own) == (8 if place == 2 else 4)  # the one in the middle is its own partner
        drawn.append(tuple(own))
    assert len(set(drawn)) > 2  # for each anew
    odd = exchanged(maps[:2, :5], torch.Generator().manual_seed(0))
    assert sum(torch.equal(odd[0, c], maps[0, c]) for c in range(5)) == 2


def test_a_generator_goes_on_from_its_maps() -> None:
    plain = cmi_generator(6, IMAGE, 8)
    generator = StagedGenerator(plain).eval()
    codes = torch.randn(3, 6)
    maps: list[Tensor] = []
    images = generator(codes, into=maps)
    assert [tuple(each.shape[1:]) for each in maps] == [(8, 8, 8), (8, 16, 16), (4, 32, 32), (1, 32, 32)]
    assert maps[3] is images
    for point, each in zip((1, 2, 3), maps, strict=False):
        torch.testing.assert_close(generator(each, point), plain.eval()(codes))
    kaiming_weights(generator, torch.Generator().manual_seed(0))
    assert plain[4].weight.std().item() == pytest.approx(math.sqrt(2 / (8 * 9)), rel=0.1)
    assert plain[11].bias.abs().max() == 0


# ---- where a network looks -------------------------------------------------------------------------------------------


def test_grad_cam_weighs_channels_by_their_mean_gradient() -> None:
    """Where the mean of a map goes into a linear layer, the gradient of a logit is its weight over the positions."""
    maps = torch.randn(3, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, dtype=torch.float64)
    logits, classes = maps.mean((2, 3)) @ weight.T, torch.tensor([0, 4, 2])
    (found,) = grad_cams(logits, classes, [maps])
    torch.testing.assert_close(found, (weight[classes][:, :, None, None] / 4 * maps).sum(1))
    (gradient,) = torch.autograd.grad(found.sum(), maps)
    torch.testing.assert_close(gradient, (weight[classes] / 4)[:, :, None, None].expand(3, 4, 2, 2))


def test_class_maps_average_to_the_logits() -> None:
    maps, weight = torch.randn(3, 4, 2, 2), torch.randn(5, 4)
    torch.testing.assert_close(class_maps(weight, maps, torch.empty(0)).mean((2, 3)), maps.mean((2, 3)) @ weight.T)
    inputs = torch.randn(3, 7)
    other = torch.randn(5, 7)
    torch.testing.assert_close(class_maps(other, maps, inputs)[:, :, 0, 0], inputs @ other.T)


# ---- the loop --------------------------------------------------------------------------------------------------------


def looked(network: nn.Module, x: Tensor, classes: Tensor | None) -> tuple[Tensor, list[Tensor], Tensor]:
    """Logits, Grad-CAMs by hooks on the maps as in the code, and the class maps of the last inputs."""
    ends, gradients, last = [], [], []
    places = [each for each in network.body if isinstance(each, nn.ReLU)]
    hooks = [each.register_forward_hook(lambda *call: ends.append(call[2])) for each in places]
    hooks.append(network.head[-1].register_forward_pre_hook(lambda _, args: last.append(args[0])))
    logits = network(x)
    for each in ends:
        hooks.append(each.register_hook(gradients.append))
    chosen = logits.argmax(1) if classes is None else classes
    torch.autograd.grad(logits, ends, F.one_hot(chosen, 10).to(logits), retain_graph=True)
    cams = [(g.mean((2, 3))[:, :, None, None] * m).sum(1) for g, m in zip(gradients[::-1], ends, strict=True)]
    for hook in hooks:
        hook.remove()
    return logits, cams, last[0] @ network.head[-1].weight.detach().T


def reference(rounds: int, o: Options) -> dict[str, Any]:
    """The released code's loop: a call, then the student's steps."""
    teacher, student = lenet(1, "lenet5bn").eval().requires_grad_(False), lenet(2, "lenet5bn-half").train()
    statistics: list[Tensor] = []
    norms = [layer for layer in teacher.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_pre_hook(lambda _, args: statistics.append(args[0]))
    with torch.random.fork_rng():
        seed_everything(0)
        generator = cmi_generator(o.latent, IMAGE, o.width).train()
    streams = Streams(0, torch.device("cpu"))
    for layer in generator:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.weight.data.normal_(
                0, math.sqrt(2 / (layer.weight.numel() / len(layer.weight))), generator=streams["weights"]
            )
        elif isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.normal_(1, 0.02, generator=streams["weights"])
        if getattr(layer, "bias", None) is not None:
            layer.bias.data.zero_()
    opt_s = SGD(student.parameters(), o.lr_student, momentum=0.9, weight_decay=1e-4)
    used = [1, 2, 3] if o.points == "all" else [2]
    ends = {1: 3, 2: 7, 3: 11}
    pools: dict[int, list[Tensor]] = {point: [] for point in used}
    y = torch.arange(o.batch_synthesis) % 10
    for number in range(rounds):
        z = torch.randn(o.batch_synthesis, o.latent, generator=streams["noise"])
        opt, best = Adam(generator.parameters(), o.lr_generator, betas=(0.5, 0.999)), math.inf
        for _ in range(o.iterations):
            maps = {0: z}
            x = z
            for place, layer in enumerate(generator):
                x = layer(x)
                maps[place + 1] = x
            view = normalise(crop_and_flip(x * IMAGE.std[0] + IMAGE.mean[0], streams["views"]))
            statistics.clear()
            loss = o.one_hot * F.cross_entropy(teacher(view), y)
            for norm, each in zip(norms, statistics, strict=True):
                mean = each.mean((0, 2, 3))
                var = ((each - mean.view(1, -1, 1, 1)) ** 2).mean((0, 2, 3))
                for own, stored in ((mean, norm.running_mean), (var, norm.running_var)):
                    loss = loss + o.batch_norm_weight * (own - stored).square().sum().sqrt()
            if loss.item() < best:
                best, found = loss.item(), {point: maps[ends[point]].detach().clone() for point in used}
            opt.zero_grad()
            loss.backward()
            opt.step()
        for point in used:
            pools[point].append(found[point])
        generator.eval()
        for step in range(o.student_steps):
            point = used[int(torch.randint(len(used), (), generator=streams.on_host("pool")))]
            stored = torch.cat(pools[point])
            m = stored[torch.randint(len(stored), (o.batch,), generator=streams.on_host("pool"))]
            if torch.rand((), generator=streams.on_host("pool")) < o.exchange:
                m = exchanged(m, streams["channels"])
            with torch.no_grad():
                x = generator[ends[point] :](m)
            x = normalise(crop_and_flip(x * IMAGE.std[0] + IMAGE.mean[0], streams["crops"]))
            t, t_cams, t_classes = looked(teacher, x.requires_grad_(), None)
            s, s_cams, s_classes = looked(student, x.detach(), t.argmax(1))
            kl = F.kl_div((s / o.temperature).log_softmax(1), (t.detach() / o.temperature).softmax(1), reduction="sum")
            loss = o.alpha * o.temperature**2 * kl / (s.numel() if o.by_class else len(s))
            loss = loss + o.cam * F.mse_loss(s_classes, t_classes.detach())
            for own, other in zip(s_cams, t_cams, strict=True):
                loss = loss + o.attention * F.mse_loss(own, other.detach())
            progress = (number * (o.iterations + o.student_steps) + o.iterations + step) / (
                rounds * (o.iterations + o.student_steps)
            )
            opt_s.param_groups[0]["lr"] = o.lr_student * (1 + math.cos(math.pi * progress)) / 2
            opt_s.zero_grad()
            loss.backward()
            opt_s.step()
        generator.train()
    return {"generator": generator, "student": student, "pools": {point: torch.cat(pools[point]) for point in used}}


@cache
def usual() -> nn.Module:
    """The student of the usual settings, in double precision."""
    student: nn.Module = reference(2, Options(**TINY))["student"]
    return student


VARIANTS: dict[str, dict[str, Any]] = {
    "code": {},
    "mean over images": {"by_class": False, "exchange": 1.0, "one_hot": 2.0},
    "one point": {"points": "second", "exchange": 0.0},
    "the KL divergence alone": {"cam": 0.0, "attention": 0.0},
    "attention alone": {"cam": 0.0, "alpha": 0.0, "batch_norm_weight": 0.0},
}


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("variant", first_quick(VARIANTS))
def test_three_rounds_equal_the_codes_loop(variant: str) -> None:
    options = VARIANTS[variant]
    expected = reference(3, Options(**{**TINY, **options}))
    context = play(options, 3 * ROUND)
    for point, maps in expected["pools"].items():
        found = torch.cat(context.kept[f"pool_{point}"].state_dict()["parts"])
        torch.testing.assert_close(found, maps, atol=1e-5, rtol=0)
    assert same_weights(context.student, expected["student"], 1e-6)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    "options",
    first_quick([{"cam": 0.0}, {"attention": 0.0}, {"exchange": 0.0}, {"temperature": 3.0}, {"points": "third"}]),
    ids=str,
)
def test_another_setting_would_be_noticed(options: dict[str, Any]) -> None:
    assert not same_weights(play(options, 2 * ROUND).student, usual(), 1e-6)


def test_counts_of_steps_and_images() -> None:
    context = play({}, 2 * ROUND)
    meter = context.meter
    assert meter.teacher_images == 2 * (3 * 13 + 3 * 7)
    assert meter.teacher_backward == 2 * (3 * 13 + 3 * 7)  # Grad-CAM is a backward pass, too
    assert meter.student_images == 2 * 3 * 7
    assert meter.student_backward == 2 * 2 * 3 * 7
    assert meter.synthesised_images == 2 * (3 * 13 + 3 * 7)
    assert len(context.kept["pool_1"]) == 2 * 13


def test_a_large_store_lies_in_half_precision_and_a_full_one_drops_its_oldest() -> None:
    context = play({"memory_mib": 1e-3, "pool": 20}, 2 * ROUND)
    (part,) = context.kept["pool_3"].state_dict()["parts"]
    assert (part.dtype, len(part)) == (torch.float16, 20)


def test_a_network_that_averages_its_last_map_has_class_maps_of_it() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = [build(name, IMAGE, 10) for name in ("wrn16-1", "wrn16-1")]
    context = play({"batch": 4, "batch_synthesis": 4}, ROUND, teacher=networks[0], student=networks[1])
    assert context.take_logs()["cam"] > 0


def test_networks_whose_groups_do_not_agree_are_unsupported() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        other = build("wrn16-1", IMAGE, 10)
    with pytest.raises(Unsupported, match="the same sizes"):
        play({}, 1, teacher=other)


def test_defaults_are_the_released_scripts() -> None:
    card = find_methods()["spaceshipnet"]
    assert card.needs_batch_norm({})
    assert not card.needs_batch_norm({"batch_norm_weight": 0.0})
    o = Options()
    assert (o.batch_synthesis, o.iterations, o.latent, o.width, o.lr_generator) == (256, 200, 256, 128, 1e-3)
    assert (o.batch_norm_weight, o.one_hot, o.exchange, o.points) == (1, 0.5, 0.7, "all")
    assert (o.student_steps, o.batch, o.pool) == (2000, 256, 200 * 256)
    assert (o.alpha, o.temperature, o.by_class, o.cam, o.attention) == (1, 30, True, 1, 1)
    assert (o.optimizer, o.lr_student, o.momentum, o.weight_decay, o.schedule) == ("sgd", 0.1, 0.9, 1e-4, "cosine")
