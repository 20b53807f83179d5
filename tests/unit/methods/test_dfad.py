"""DFAD against paper and code: discrepancies, the loop of the reference code, the modes and the papers' settings."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, Listening, lenet, run, same_weights
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from bench import data, dcgan_generator, image_generator
from bench.data.image_spec import ImageSpec
from bench.spec.method_registry import find_methods
from bench.utils.rng import Streams, seed_everything
from methods.common.losses import DISCREPANCIES
from methods.dfad import Options, dfad, generation_loss

SMALL = {"batch": 8, "latent": 6, "width": 4, "student_steps": 2}
STREAM = np.random.default_rng(0)
SHAPES = {"classification": (5, 10), "segmentation": (2, 4, 6, 3)}


@contextmanager
def optimizer_steps() -> Iterator[list[Optimizer]]:
    """The optimisers in the order in which they take steps."""
    steps: list[Optimizer] = []
    handle = register_optimizer_step_post_hook(lambda optimizer, *_: steps.append(optimizer))
    try:
        yield steps
    finally:
        handle.remove()


# ---- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_discrepancies_are_means_over_images_classes_and_pixels(shape: tuple[int, ...]) -> None:
    teacher, student = STREAM.normal(0, 4, shape), STREAM.normal(0, 4, shape)
    a, b = torch.tensor(teacher), torch.tensor(student)
    mae = sum(abs(t - s) for t, s in zip(teacher.flat, student.flat, strict=True)) / teacher.size
    mse = sum((t - s) ** 2 for t, s in zip(teacher.flat, student.flat, strict=True)) / teacher.size
    assert DISCREPANCIES["mae"](a, b).item() == pytest.approx(mae, rel=1e-12)
    assert DISCREPANCIES["mse"](a, b).item() == pytest.approx(mse, rel=1e-12)
    assert generation_loss(DISCREPANCIES["mae"](a, b), adaptive=False).item() == pytest.approx(-mae, rel=1e-12)
    adaptive = generation_loss(DISCREPANCIES["mae"](a, b), adaptive=True).item()
    assert adaptive == pytest.approx(-np.log(mae + 1), rel=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("discrepancy", DISCREPANCIES)
def test_the_adaptive_gradient_is_the_plain_one_divided_by_d_plus_one(discrepancy: str, scale: float) -> None:
    teacher = torch.tensor(STREAM.normal(0, 1, (2, 4, 3, 3)) * scale)
    student = torch.tensor(STREAM.normal(0, 1, (2, 4, 3, 3)) * scale, requires_grad=True)
    difference = DISCREPANCIES[discrepancy](teacher, student)
    (plain,) = torch.autograd.grad(generation_loss(difference, False), student, retain_graph=True)
    (adaptive,) = torch.autograd.grad(generation_loss(difference, True), student)
    torch.testing.assert_close(adaptive, plain / (difference.detach() + 1), rtol=1e-12, atol=0)


# ---- the loop --------------------------------------------------------------------------------------------------------


def reference(steps: int, o: Options, norm: bool = False) -> tuple[nn.Module, nn.Module]:
    """The loop of the reference code."""
    teacher, student = lenet(1).eval(), lenet(2, "lenet5bn-half" if norm else "lenet5-half").train()
    with torch.random.fork_rng():
        seed_everything(0)
        generator = (dcgan_generator if o.generator == "dcgan" else image_generator)(o.latent, IMAGE, o.width).train()
    opt_g = Adam(generator.parameters(), lr=o.lr_generator)
    opt_s = SGD(student.parameters(), lr=o.lr_student, weight_decay=o.weight_decay, momentum=0.9)
    noise = Streams(0, torch.device("cpu"))["noise"]
    loss = F.l1_loss if o.discrepancy == "mae" else F.mse_loss
    for _ in range(steps):
        for _ in range(o.student_steps):
            fake = generator(torch.randn(o.batch, o.latent, generator=noise)).detach()
            opt_s.zero_grad()
            loss(student(fake), teacher(fake).detach()).backward()
            opt_s.step()
        opt_g.zero_grad()
        fake = generator(torch.randn(o.batch, o.latent, generator=noise))
        distance = loss(student(fake), teacher(fake))
        (-torch.log(distance + 1) if o.adaptive else -distance).backward()
        opt_g.step()
    return generator, student


VARIANTS = {
    "mnist": {},
    "adaptive": {"adaptive": True},
    "dcgan": {"generator": "dcgan"},
    "mse": {"discrepancy": "mse"},
}


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("norm", [False, True], ids=["", "batch norm"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_three_steps_equal_the_loop_of_the_reference_code(variant: str, norm: bool) -> None:
    options = {**SMALL, **VARIANTS[variant]}
    generator, student = reference(3, Options(**options), norm)
    ours = lenet(2, "lenet5bn-half" if norm else "lenet5-half")
    context = run(dfad.declared, options, steps=3, student=ours)
    assert same_weights(context.kept["generator"], generator, 1e-9)
    assert same_weights(context.student, student, 1e-9)


@pytest.mark.usefixtures("_double")
def test_another_loss_would_be_noticed() -> None:
    plain, _ = reference(3, Options(**SMALL))
    assert not same_weights(run(dfad.declared, {**SMALL, "adaptive": True}, steps=3).kept["generator"], plain, 1e-9)
    assert not same_weights(image_generator(6, IMAGE, 4), plain, 1e-4)


def test_a_loop_is_so_many_student_updates_and_one_of_the_generator() -> None:
    with optimizer_steps() as steps:
        context = run(dfad.declared, {**SMALL, "student_steps": 3}, steps=4)
    kinds = ["student" if step is context.kept["opt_s"] else "generator" for step in steps]
    assert kinds == (["student"] * 3 + ["generator"]) * 4
    meter = context.meter
    assert meter.steps == 4
    assert meter.optimizer_steps == 4 * 4
    assert meter.teacher_images == meter.student_images == 4 * (3 + 1) * 8
    assert meter.teacher_backward == 4 * 8  # in the generation step alone
    assert meter.synthesised_images == 4 * 4 * 8
    assert meter.real_images == 0
    assert set(context.logs) == {"imitation", "difference", "gap", "gradient"}


def test_every_step_has_fresh_images_the_same_for_teacher_and_student() -> None:
    teacher, student = Listening(lenet(1)), Listening(lenet(2, "lenet5-half"))
    run(dfad.declared, SMALL, steps=3, teacher=teacher, student=student)
    assert len(teacher.heard) == 9
    assert all(torch.equal(a, b) for a, b in zip(teacher.heard, student.heard, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(teacher.heard, teacher.heard[1:], strict=False))


def test_both_rates_fall_at_the_milestones_by_gamma() -> None:
    rates: dict[str, list[float]] = {"Adam": [], "SGD": []}

    def watch(optimizer: Optimizer, *_: object) -> None:
        rates[type(optimizer).__name__].append(optimizer.param_groups[0]["lr"])

    handle = register_optimizer_step_post_hook(watch)
    options = {**SMALL, "student_steps": 1, "schedule": "milestones", "milestones": (0.3, 0.6), "gamma": 0.5}
    try:
        run(dfad.declared, {**options, "lr_student": 0.04, "lr_generator": 0.008}, steps=10)
    finally:
        handle.remove()
    assert rates["SGD"] == pytest.approx([0.04] * 3 + [0.02] * 3 + [0.01] * 4)
    assert rates["Adam"] == pytest.approx([0.008] * 3 + [0.004] * 3 + [0.002] * 4)


def test_the_students_batch_norm_also_takes_in_the_generation_steps_images() -> None:
    student = lenet(2, "lenet5bn-half")
    modes: list[tuple[bool, bool]] = []
    student.register_forward_hook(
        lambda network, args, out: modes.append((network.training, args[0].requires_grad)), prepend=True
    )
    context = run(dfad.declared, {**SMALL, "student_steps": 1}, steps=3, student=student)
    mine = [mode for mode in modes if mode != (False, False)]  # others are the harness's measurements
    assert mine == [(True, False), (True, True)] * 3  # imitation and generation
    norms = [layer for layer in context.student.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [int(layer.num_batches_tracked) for layer in norms] == [2 * 3] * len(norms)
    assert norms


@pytest.mark.slow
def test_the_generators_learning_raises_the_discrepancy() -> None:
    """With a student that stands still, what is left is the generator's part."""
    options = {**SMALL, "batch": 32, "student_steps": 1, "lr_student": 1e-9, "lr_generator": 0.01}
    context = run(dfad.declared, options, steps=40)
    stream, values = torch.Generator().manual_seed(1), []
    for generator in (image_generator(6, IMAGE, 4), context.kept["generator"]):
        with torch.no_grad():
            images = generator(torch.randn(256, 6, generator=stream))
            values.append(F.l1_loss(lenet(1)(images), context.student(images)).item())
    assert values[1] > 1.1 * values[0]


@pytest.mark.parametrize("kind", ["upsample", "dcgan"])
def test_the_generator_is_the_papers_for_small_or_for_large_images(kind: str) -> None:
    made: dict[str, nn.Module] = {"upsample": image_generator(6, IMAGE, 4), "dcgan": dcgan_generator(6, IMAGE, 4)}
    found = run(dfad.declared, {**SMALL, "generator": kind}, steps=1).kept["generator"]
    assert str(found) == str(made[kind])
    assert found.training
    assert any(isinstance(layer, nn.ConvTranspose2d) for layer in found) == (kind == "dcgan")


@pytest.mark.parametrize("variant", ["mnist", "mse", "adaptive"])
def test_the_generators_gradient_and_the_gap_are_logged(variant: str) -> None:
    """Of one generation step, whose student is as it was before: its first imitation step has a rate of next to 0."""
    options = {**SMALL, **VARIANTS[variant], "student_steps": 1, "lr_student": 1e-12}
    logs = run(dfad.declared, options, steps=1).take_logs()
    with torch.random.fork_rng():
        seed_everything(0)
        generator = image_generator(6, IMAGE, 4).train()
    noise, teacher, student = Streams(0, torch.device("cpu"))["noise"], lenet(1).eval(), lenet(2, "lenet5-half")
    generator(torch.randn(8, 6, generator=noise))
    images = generator(torch.randn(8, 6, generator=noise))
    apart = student(images) - teacher(images)
    distance = apart.square().mean() if variant == "mse" else apart.abs().mean()
    (torch.log(distance + 1) if variant == "adaptive" else distance).backward()
    squares = sum(float(weight.grad.double().square().sum()) for weight in generator.parameters())
    assert logs["gradient"] == pytest.approx(squares**0.5, rel=1e-4)
    assert logs["gap"] == pytest.approx(apart.abs().mean().item(), rel=1e-4)
    assert logs["difference"] == pytest.approx(distance.item(), rel=1e-4)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(("kind", "power"), [("mae", 1), ("mse", 2)])
def test_near_agreement_a_gradient_of_squared_differences_vanishes_one_order_faster(kind: str, power: int) -> None:
    """Students that differ from the teacher by a little, and by a hundredth of that."""
    gaps, gradients = [], []
    for scale in (1e-5, 1e-7):
        student = copy.deepcopy(lenet(1))
        with torch.no_grad():
            for own, other in zip(student.parameters(), lenet(3).parameters(), strict=True):
                own.add_(other, alpha=scale)
        options = {**SMALL, "discrepancy": kind, "student_steps": 1, "lr_student": 1e-15}
        logs = run(dfad.declared, options, steps=1, student=student).take_logs()
        gaps.append(logs["gap"])
        gradients.append(logs["gradient"])
    assert gaps[0] / gaps[1] == pytest.approx(100, rel=0.02)
    assert gradients[0] / gradients[1] == pytest.approx(100**power, rel=0.1)


# ---- segmentation ----------------------------------------------------------------------------------------------------


class Pixelwise(nn.Module):
    """Answers for every pixel of images of three channels."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
            self.head = nn.Conv2d(4, 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images))
        return logits


def test_it_learns_from_networks_that_answer_for_every_pixel() -> None:
    image = ImageSpec(channels=3, size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    options = {**SMALL, "generator": "dcgan", "adaptive": True, "lr_student": 0.1, "lr_generator": 1e-4}
    context = run(dfad.declared, options, steps=60, image=image, teacher=Pixelwise(1), student=Pixelwise(2))
    images = torch.rand(8, *image.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        teacher, before = Pixelwise(1).eval()(images), Pixelwise(2).eval()(images)
        after = context.student.eval()(images)
    assert F.l1_loss(after, teacher) < 0.7 * F.l1_loss(before, teacher)


# ---- the papers' settings --------------------------------------------------------------------------------------------

SHARED = {
    "optimizer": "sgd", "momentum": 0.9, "student_steps": 5, "lr_generator": 1e-3, "discrepancy": "mae", "gamma": 0.1,
}  # fmt: skip
SMALL_IMAGES = {"generator": "upsample", "width": 128, "adaptive": False}
LARGE_IMAGES = {"generator": "dcgan", "width": 64, "latent": 256, "batch": 64, "schedule": "milestones"}
CIFAR = {
    **SMALL_IMAGES, "latent": 256, "batch": 256, "lr_student": 0.1, "weight_decay": 5e-4, "schedule": "milestones",
    "milestones": (100 / 500, 200 / 500),
}  # fmt: skip
PAPERS = {
    "mnist": {
        **SMALL_IMAGES, "latent": 100, "batch": 512, "lr_student": 0.01, "weight_decay": 1e-4, "schedule": "constant",
    },
    "cifar10": CIFAR,
    "cifar100": CIFAR,
    "caltech101": {**LARGE_IMAGES, "lr_student": 0.05, "weight_decay": 5e-4, "adaptive": False},
    "camvid": {**LARGE_IMAGES, "lr_student": 0.1, "weight_decay": 5e-4, "adaptive": True},
    "nyuv2": {**LARGE_IMAGES, "lr_student": 0.1, "weight_decay": 5e-5, "adaptive": True, "gamma": 0.3},
}  # fmt: skip


@pytest.mark.parametrize("name", PAPERS)
def test_defaults_and_presets_are_the_papers(name: str) -> None:
    options = dfad.declared.make_options(dfad.declared.presets.get(name, {}))
    values = {**SHARED, **PAPERS[name]}
    assert {key: getattr(options, key) for key in values} == values
    if PAPERS[name].get("generator") == "dcgan":  # epochs 100 and 200 of 300
        assert options.milestones == pytest.approx((100 / 300, 200 / 300), abs=1e-3)


@pytest.mark.parametrize("name", dfad.declared.presets)
def test_every_preset_is_of_a_data_set_and_has_valid_options(name: str) -> None:
    assert name in data.NAMES
    options = dfad.declared.make_options(dfad.declared.presets[name])
    assert options.adaptive == (data.find(name).kind == "segmentation")


def test_the_card_says_that_it_needs_no_data_and_does_segmentation() -> None:
    card = find_methods()["dfad"]
    assert card.segmentation
    assert (card.data.value, card.access.label) == (dfad.declared.data.value, dfad.declared.access.label)
    assert card.presets.keys() == dfad.declared.presets.keys()
