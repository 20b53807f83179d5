"""DeepDream against paper and code: class images by gradient on noise, then distillation; no batch norm."""

from __future__ import annotations

import pytest
import torch
from method_fixtures import Listening, digits_teacher, lenet, run, same_weights
from torch.nn import functional as F
from torch.optim import SGD

from bench.spec.method_registry import find_methods
from bench.spec.requirements import why_unsupported
from bench.spec.task import get_task
from bench.utils.rng import Streams
from methods.deepdream import Options, deepdream

CPU = torch.device("cpu")
SMALL = {"batch": 6, "iterations": 3, "images": 12, "batch_student": 16, "share": 0.6, "jitter": 1}


@pytest.mark.usefixtures("_double")
def test_two_batches_of_images_follow_the_papers_loop() -> None:
    options = {**SMALL, "tv": 0.02, "l2": 0.03, "lr_images": 0.05}
    context = run(deepdream.declared, options, steps=10)
    teacher = lenet(1).eval().requires_grad_(False)
    streams = Streams(0, CPU)
    made = []
    for batch in range(2):
        x = torch.randn(6, 1, 32, 32, generator=streams["noise"]).requires_grad_()
        y = (torch.arange(6) + 6 * batch) % 10
        optimizer = torch.optim.Adam([x], lr=0.05)
        for _ in range(3):
            down, right = (int(torch.randint(3, (), generator=streams["jitter"])) - 1 for _ in range(2))
            v = torch.cat([x[:, :, -down:], x[:, :, :-down]], 2) if down else x
            v = torch.cat([v[..., -right:], v[..., :-right]], 3) if right else v
            tv = sum(
                ((a - b) ** 2).sum().sqrt()
                for a, b in [
                    (v[..., 1:], v[..., :-1]),
                    (v[..., 1:, :], v[..., :-1, :]),
                    (v[..., 1:, 1:], v[..., :-1, :-1]),
                    (v[..., 1:, :-1], v[..., :-1, 1:]),
                ]
            )
            loss = F.cross_entropy(teacher(v), y) + 0.02 * tv + 0.03 * (v**2).sum().sqrt()
            (x.grad,) = torch.autograd.grad(loss, x)
            optimizer.step()
        made.append(x.detach().clone())
    torch.testing.assert_close(
        torch.cat(context.kept["pool"].state_dict()["parts"]), torch.cat(made), rtol=0, atol=1e-8
    )


def test_the_student_follows_at_the_temperature_with_momentum_and_a_cosine() -> None:
    teacher = Listening(lenet(1))
    context = run(deepdream.declared, {**SMALL, "augmentation": "none", "lr_student": 0.02}, steps=10, teacher=teacher)
    network, student = lenet(1).eval(), lenet(2, "lenet5-half").train()
    optimizer = SGD(student.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    pool = torch.cat(context.kept["pool"].state_dict()["parts"])
    distilled = teacher.heard[6:]
    for step, images in enumerate(distilled):
        assert (images[:, None] - pool).abs().amax((2, 3, 4)).min(1).values.max() == 0  # each is one of the pool
        optimizer.param_groups[0]["lr"] = 0.02 * (1 + torch.cos(torch.tensor(torch.pi * step / 4)).item()) / 2
        with torch.no_grad():
            target = F.softmax(network(images) / 3, 1)
        loss = 9 * (target * (target.log() - F.log_softmax(student(images) / 3, 1))).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert len(distilled) == 4
    assert same_weights(context.student, student, 1e-5)


def test_the_teacher_labels_the_students_views_anew() -> None:
    teacher, student = Listening(lenet(1)), Listening(lenet(2, "lenet5-half"))
    context = run(deepdream.declared, SMALL, steps=10, teacher=teacher, student=student)
    pool = torch.cat(context.kept["pool"].state_dict()["parts"])
    assert [len(batch) for batch in teacher.heard] == [6] * 6 + [16] * 4
    assert all(torch.equal(a, b) for a, b in zip(teacher.heard[6:], student.heard, strict=True))
    assert (teacher.heard[6][:, None] - pool).abs().amax((2, 3, 4)).min(1).values.max() > 0.1
    assert context.meter.teacher_backward == 36
    assert context.meter.student_backward == 4 * 16
    assert context.meter.synthesised_images == 12


def test_making_images_ends_at_their_number_or_with_its_share() -> None:
    full = run(deepdream.declared, {**SMALL, "share": 0.9}, steps=20)
    assert (len(full.kept["pool"]), full.meter.student_backward) == (12, 16 * 14)
    cut = run(deepdream.declared, {**SMALL, "iterations": 100}, steps=10)
    assert (len(cut.kept["pool"]), cut.meter.student_backward) == (6, 16 * 4)


@pytest.mark.parametrize(("clip", "dtype"), [(False, torch.float16), (True, torch.uint8)])
def test_a_pool_beyond_its_limit_is_not_cut_to_real_pixels_unless_images_are(clip: bool, dtype: torch.dtype) -> None:
    options = {**SMALL, "clip": clip}
    large = run(deepdream.declared, {**options, "pool_mib": 12 * 4096 / 2**20 - 1e-6}, steps=10).kept["pool"]
    small = run(deepdream.declared, {**options, "pool_mib": 12 * 4096 / 2**20}, steps=10).kept["pool"]
    (packed,), (plain,) = large.state_dict()["parts"], small.state_dict()["parts"]
    assert (packed.dtype, plain.dtype) == (dtype, torch.float32)
    assert clip or torch.equal(packed, plain.half())
    assert clip or plain.abs().max() > 3.5  # noise that no clipped pixel could be


def test_the_teacher_sees_the_wanted_classes_in_the_images() -> None:
    teacher = digits_teacher()
    image = get_task("digits/lenet5-half").image
    options = {**SMALL, "batch": 20, "images": 20, "iterations": 30, "lr_images": 0.05, "share": 0.95}
    context = run(deepdream.declared, options, steps=32, teacher=teacher, image=image)
    pool = torch.cat(context.kept["pool"].state_dict()["parts"])
    with torch.no_grad():
        found = F.softmax(teacher(pool), 1)
    wanted = torch.arange(20) % 10
    assert (found.argmax(1) == wanted).double().mean() >= 0.95
    assert found[range(20), wanted].mean() > 0.8


def test_more_total_variation_weight_gives_smoother_images() -> None:
    def roughness(weight: float) -> float:
        context = run(deepdream.declared, {**SMALL, "iterations": 30, "share": 0.95, "tv": weight}, steps=32)
        pool = torch.cat(context.kept["pool"].state_dict()["parts"])
        return (pool[..., 1:] - pool[..., :-1]).abs().mean().item()

    assert roughness(0.1) < 0.9 * roughness(0.0)


def test_it_needs_neither_batch_norm_nor_more_than_gradients() -> None:
    card = find_methods()["deepdream"]
    assert card.access.label == "gradients"
    assert not why_unsupported(card, get_task("mnist/lenet5-half"))


def test_defaults_are_the_papers_for_cifar10() -> None:
    expected = {
        "batch": 256, "iterations": 2000, "lr_images": 0.05, "beta1": 0.9, "beta2": 0.999,
        "schedule_images": "constant", "jitter": 2, "flip": False, "clip": False,
        "tv": 2.5e-5, "tv_form": "l2", "l2": 3e-8, "l2_form": "batch",
        "images": 1000 * 256, "labels": "balanced", "temperature": 3.0, "optimizer": "sgd", "momentum": 0.9,
        "lr_student": 0.1, "schedule": "cosine", "augmentation": "crop+flip",
    }  # fmt: skip
    assert {name: getattr(Options(), name) for name in expected} == expected
    assert all(values == {"augmentation": "crop"} for values in deepdream.declared.presets.values())
