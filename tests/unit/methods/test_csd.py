"""CSD against its code: turns and labels, the connector, synthesis, rounds and warm-up written out again, settings."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, Listening, first_quick, kin, lenet, run, same_weights
from reference_parts import HeardMaps, check_it_runs_without_batch_norm, normalise, start_normal, stored_images
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench import cmi_generator
from bench.harness.trial_context import TrialContext
from bench.utils.rng import Streams, seed_everything
from methods.common.contrastive import InstanceHead
from methods.common.views import crop_and_flip
from methods.csd import MapConnector, Options, csd, joint_labels, turned

TINY: dict[str, Any] = {
    "batch_synthesis": 9, "iterations": 3, "warm_up": 2, "iterations_warm_up": 2, "share": 0.9, "latent": 6, "width": 4,
    "pool": 1000, "eight_bit": False, "student_steps": 2, "batch": 7, "lr_student": 0.01, "lr_auxiliary": 0.05,
}  # fmt: skip
WARM_UP, ROUND = 2 * 2, 3 + 2  # steps


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    networks = {"teacher": lenet(1, "lenet5bn"), "student": kin(), **around}
    return run(csd.declared, {**TINY, **options}, steps=steps, **networks)


# ---- the auxiliary task ----------------------------------------------------------------------------------------------


def test_an_image_stands_in_four_turns_with_a_label_for_class_and_turn() -> None:
    images = torch.arange(2 * 9.0).view(2, 1, 3, 3)
    four = turned(images)
    assert four.shape == (8, 1, 3, 3)
    assert torch.equal(four[0], images[0])
    assert four[1, 0].tolist() == [[2, 5, 8], [1, 4, 7], [0, 3, 6]]
    assert torch.equal(four[6], images[1].flip(1, 2))
    assert torch.equal(four[7].rot90(1, (1, 2)), images[1])
    assert joint_labels(torch.tensor([0, 3])).tolist() == [0, 1, 2, 3, 12, 13, 14, 15]


def test_the_connector_brings_maps_to_the_teachers_channels_and_size() -> None:
    connector = MapConnector(3, 5, 4)
    assert connector(torch.randn(2, 3, 4, 4)).shape == (2, 5, 4, 4)
    assert connector(torch.randn(2, 3, 8, 8)).shape == (2, 5, 4, 4)
    assert connector(torch.randn(2, 3, 6, 6)).shape == (2, 5, 4, 4)
    maps = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(connector(maps), connector(F.adaptive_avg_pool2d(maps, 4)))
    shapes = [tuple(each.shape) for each in connector.parameters() if each.ndim == 4]
    assert shapes == [(10, 3, 1, 1), (10, 10, 3, 3), (5, 10, 1, 1)]
    assert all(layer.bias is None for layer in connector.layers if isinstance(layer, nn.Conv2d))


# ---- the loop --------------------------------------------------------------------------------------------------------


def reference(warm: int, rounds: int, o: Options) -> dict[str, Any]:
    """The released code's loop: a bank of calls, then a call and the student's steps in turn."""
    teacher, student = lenet(1, "lenet5bn").eval().requires_grad_(False), kin().train()
    heard = HeardMaps(teacher)
    last: dict[str, Tensor] = {}
    for name, network in (("t", teacher), ("s", student)):
        network.body[-2].register_forward_hook(lambda *call, name=name: last.update({name: call[2]}))
    student.head[-1].register_forward_pre_hook(lambda _, args: last.update(f=args[0]))
    with torch.random.fork_rng():
        seed_everything(0)
        generator = cmi_generator(o.latent, IMAGE, o.width).train()
        connector = MapConnector(kin().body[-4].out_channels, 120, 1)
        head = InstanceHead(kin().head[-1].in_features, 40)
    streams = Streams(0, torch.device("cpu"))
    opt_s = SGD([*student.parameters(), *connector.parameters()], o.lr_student, momentum=0.9, weight_decay=1e-4)
    opt_a = SGD(head.parameters(), o.lr_auxiliary, momentum=0.9, weight_decay=1e-4)
    pool: list[Tensor] = []
    wanted: list[Tensor] = []

    def told(x: Tensor, y: Tensor, through: bool) -> Tensor:
        student.eval()
        four = torch.stack([torch.rot90(x, k, (2, 3)) for k in range(4)], 1).view(-1, *x.shape[1:])
        student(four)
        student.train()
        features = last["f"] if through else last["f"].detach()
        return F.cross_entropy(head(features), torch.stack([y * 4 + k for k in range(4)], 1).view(-1))

    for number in range(warm + rounds):
        start_normal(generator, streams["weights"])
        z = torch.randn(o.batch_synthesis, o.latent, generator=streams["noise"]).requires_grad_()
        y = torch.empty(o.batch_synthesis, dtype=torch.int64).random_(10, generator=streams["labels"])
        opt = Adam([*generator.parameters(), z], o.lr_generator, betas=(0.5, 0.999))
        best = math.inf
        for _ in range(o.iterations_warm_up if number < warm else o.iterations):
            x = generator(z)
            view = normalise(crop_and_flip(x * IMAGE.std[0] + IMAGE.mean[0], streams["views"]))
            heard.clear()
            loss = o.one_hot * F.cross_entropy(teacher(view), y)
            loss = loss + o.batch_norm_weight * heard.distance()
            if number >= warm and o.adversarial:
                loss = loss - o.adversarial * told(view, y, True)
            if loss.item() < best:
                best, images = loss.item(), x.detach().clone()
            opt.zero_grad()
            loss.backward()
            opt.step()
        pool.append(images)
        wanted.append(y)
        for step in range(o.student_steps if number >= warm else 0):
            if step == 0:
                for layer in head.layers:
                    if isinstance(layer, nn.Linear):
                        layer.weight.data.normal_(0, 0.02, generator=streams["auxiliary"])
                        layer.bias.data.zero_()
            done = (number - warm) * (o.iterations + o.student_steps) + o.iterations + step
            progress = done / (rounds * (o.iterations + o.student_steps))
            opt_s.param_groups[0]["lr"] = o.lr_student * (1 + math.cos(math.pi * progress)) / 2
            places = torch.randint(sum(map(len, pool)), (o.batch,), generator=streams["pool"])
            pixels = torch.cat(pool)[places] * IMAGE.std[0] + IMAGE.mean[0]
            seen, y_seen = normalise(crop_and_flip(pixels, streams["crops"])), torch.cat(wanted)[places]
            p, answer = (teacher(seen) / 20).softmax(1), student(seen)
            loss = 400 * (p * (p.log() - (answer / 20).log_softmax(1))).sum() / o.batch
            loss = loss + o.cross_entropy * F.cross_entropy(answer, y_seen)
            loss = loss + o.feature * (connector(last["s"]) - last["t"]).square().mean()
            opt_s.zero_grad()
            loss.backward()
            opt_s.step()
            if o.adversarial:
                opt_a.zero_grad()
                told(seen, y_seen, False).backward()
                opt_a.step()
    return {"student": student, "pool": torch.cat(pool), "head": head, "connector": connector}


@cache
def usual() -> nn.Module:
    """The student of the usual settings, in double precision."""
    student: nn.Module = reference(2, 2, Options(**TINY))["student"]
    return student


VARIANTS: dict[str, dict[str, Any]] = {
    "code": {},
    "other weights": {"adversarial": 2.0, "feature": 1.0, "cross_entropy": 0.0, "one_hot": 0.3},
    "without the task": {"adversarial": 0.0},
}


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("variant", first_quick(VARIANTS))
def test_two_rounds_equal_the_codes_loop(variant: str) -> None:
    options = VARIANTS[variant]
    expected = reference(2, 2, Options(**{**TINY, **options}))
    context = play(options, WARM_UP + 2 * ROUND)
    torch.testing.assert_close(stored_images(context), expected["pool"], atol=1e-6, rtol=0)
    assert same_weights(context.student, expected["student"], 1e-6)
    assert same_weights(context.kept["connector"], expected["connector"], 1e-6)
    assert same_weights(context.kept["auxiliary"], expected["head"], 1e-6)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    "options", first_quick([{"adversarial": 0.0}, {"feature": 1.0}, {"cross_entropy": 0.0}]), ids=str
)
def test_another_loop_would_be_noticed(options: dict[str, Any]) -> None:
    assert not same_weights(play(options, WARM_UP + 2 * ROUND).student, usual(), 1e-5)


def test_counts_of_steps_and_images() -> None:
    context = play({}, WARM_UP + 2 * ROUND)
    meter, updates = context.meter, WARM_UP + 2 * 3
    assert meter.teacher_images == updates * 9 + 4 * 7
    assert meter.teacher_backward == updates * 9
    assert meter.student_images == 2 * 3 * 4 * 9 + 4 * 7 + 4 * 4 * 7
    assert meter.optimizer_steps == updates + 2 * 4
    assert len(context.kept["pool"]) == len(context.kept["classes"]) == 4 * 9


def test_an_image_keeps_the_class_that_it_was_made_for() -> None:
    context = play({"pool": 20}, WARM_UP + 2 * ROUND)
    assert len(context.kept["pool"]) == len(context.kept["classes"]) == 20
    whole = play({}, WARM_UP + 2 * ROUND)
    images, labels = stored_images(whole), torch.cat(whole.kept["classes"].state_dict()["parts"])
    ring, rings = stored_images(context), torch.cat(context.kept["classes"].state_dict()["parts"])
    found = [
        (images == each).flatten(1).all(1).nonzero()[:, 0] for each in ring[:16]
    ]  # of the last call there may differ
    matches = [(int(place[0]), label) for place, label in zip(found, rings[:16].tolist(), strict=True) if len(place)]
    assert matches
    assert all(labels[place] == label for place, label in matches)


def test_the_warm_up_takes_at_most_its_share_and_a_call_is_finished() -> None:
    student = Listening(lenet(2, "lenet5bn-half"))
    student.layers = student.network.layers
    context = play({"warm_up": 100, "iterations_warm_up": 3, "share": 0.25, "adversarial": 0.0}, 20, student=student)
    assert context.kept["filled"]["calls"] == 2  # five steps, the last of them the second call's second
    assert len(student.heard) == 2 * 2 + 1  # in 14 steps after it: two rounds, and one more call with a step


def test_without_batch_norm_it_runs_on_the_other_terms() -> None:
    check_it_runs_without_batch_norm(csd.declared, TINY, WARM_UP + ROUND)


def test_defaults_are_the_released_scripts() -> None:
    o = Options()
    assert (o.warm_up, o.iterations_warm_up, o.batch_synthesis, o.iterations) == (400, 500, 200, 200)
    assert (o.latent, o.width, o.lr_generator, o.pool) == (256, 128, 1e-3, 500 * 200)
    assert (o.batch_norm_weight, o.one_hot, o.adversarial) == (1, 1, 10)
    assert (o.student_steps, o.batch, o.temperature, o.cross_entropy, o.feature) == (2000, 128, 20, 1, 30)
    assert (o.optimizer, o.lr_student, o.momentum, o.weight_decay, o.schedule) == ("sgd", 0.1, 0.9, 1e-4, "cosine")
    assert o.lr_auxiliary == 0.1
