"""RDSKD against paper and code: the generator's phase, the reference losses, the frozen generator, the settings."""

from __future__ import annotations

import pytest
import torch
from method_fixtures import IMAGE, Listening, digits_teacher, lenet, run, same_weights
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam
from torch.optim.optimizer import register_optimizer_step_post_hook

from bench import image_generator
from bench.spec.task import get_task
from bench.utils.rng import Streams, seed_everything
from methods.rdskd import Options, rdskd

SMALL = {"batch": 8, "latent": 6, "width": 4, "generator_steps": 7, "renewal": 3, "share": 0.7, "batch_student": 16}


def make_generator(o: Options) -> nn.Module:
    with torch.random.fork_rng():
        seed_everything(0)
        return image_generator(o.latent, IMAGE, o.width, eps=o.eps).train()


def first_phase(steps: int, o: Options) -> tuple[nn.Module, list[list[float]], torch.Generator]:
    """The generator's training, written out: two half-batches, three losses, constants renewed at an epoch's second."""
    teacher, generator = lenet(1).eval(), make_generator(o)
    optimizer = Adam(generator.parameters(), lr=o.lr_generator)
    noise = Streams(0, torch.device("cpu"))["noise"]
    oh_before = ie_before = 0.0
    constants = []
    for step in range(steps):
        constants.append([oh_before, ie_before])
        x = generator(torch.randn(o.batch, o.latent, generator=noise))
        x1, x2 = x[: o.batch // 2], x[o.batch // 2 :]
        t1, t2 = teacher(x1), teacher(x2)
        p1, p2 = F.softmax(t1, 1), F.softmax(t2, 1)
        both = torch.cat([p1, p2])
        oh = -both.max(1).values.log().mean()
        ie = (both.mean(0) * both.mean(0).log()).sum()
        ds = 1 / (((x2 - x1) ** 2).sum().sqrt() / ((p2 - p1) ** 2).sum().sqrt() + 1e-20)
        if o.exponential:
            loss = torch.exp(oh - oh_before) + torch.exp(ie - ie_before) + o.diversity * ds
        else:
            loss = oh + ie + o.diversity * ds
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % o.renewal == 1:
            oh_before, ie_before = oh.item(), ie.item()
    constants.append([oh_before, ie_before])
    return generator, constants, noise


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("change", [{}, {"diversity": 0.0}, {"exponential": False}], ids=["paper", "plain", "no exp"])
def test_the_generators_phase_is_the_papers(change: dict[str, object]) -> None:
    options = {**SMALL, **change}
    expected, constants, _ = first_phase(7, Options(**options))  # type: ignore[arg-type]
    context = run(rdskd.declared, options, steps=10)
    weights = {name for name, _ in expected.named_parameters()}
    found = dict(context.kept["generator"].named_parameters())
    assert all((found[name] - dict(expected.named_parameters())[name]).abs().max() < 1e-9 for name in weights)
    assert not same_weights(context.kept["generator"], make_generator(Options(**options)), 1e-4)  # type: ignore[arg-type]
    torch.testing.assert_close(context.kept["previous"], torch.tensor(constants[-1]))


@pytest.mark.usefixtures("_double")
def test_the_reference_losses_are_those_of_the_second_step_of_each_epoch() -> None:
    """Zero for two steps, then constant for an epoch of three at a time."""
    _, constants, _ = first_phase(7, Options(**SMALL))
    assert constants[0] == constants[1] == [0.0, 0.0]
    assert constants[2] == constants[3] == constants[4] != constants[1]
    assert constants[5] == constants[6] == constants[7] != constants[4]
    for steps in range(1, 7):
        context = run(rdskd.declared, {**SMALL, "share": 0.99}, steps=steps)
        torch.testing.assert_close(context.kept["previous"], torch.tensor(constants[steps]))


@pytest.mark.usefixtures("_double")
def test_the_student_follows_on_images_of_the_frozen_generator_in_evaluation_mode() -> None:
    o = Options(**SMALL)
    generator, _, noise = first_phase(7, o)
    teacher, student = lenet(1).eval(), lenet(2, "lenet5-half").train()
    generator.eval()
    optimizer = Adam(student.parameters(), lr=2e-3)
    for _ in range(3):
        with torch.no_grad():
            x = generator(torch.randn(16, 6, generator=noise))
            target = F.softmax(teacher(x) / 10, 1)
        answer = F.log_softmax(student(x) / 10, 1)
        loss = 100 * (target * (target.log() - answer)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    context = run(rdskd.declared, SMALL, steps=10)
    assert not context.kept["generator"].training
    assert same_weights(context.kept["generator"], generator, 1e-9)  # with its running statistics
    assert same_weights(context.student, student, 1e-9)


def test_the_teacher_is_asked_once_for_each_image_and_the_student_waits() -> None:
    teacher, student = Listening(lenet(1)), Listening(lenet(2, "lenet5-half"))
    context = run(rdskd.declared, SMALL, steps=10, teacher=teacher, student=student)
    assert [len(batch) for batch in teacher.heard] == [8] * 7 + [16] * 3
    assert all(torch.equal(a, b) for a, b in zip(teacher.heard[7:], student.heard, strict=True))
    assert context.meter.teacher_backward == 7 * 8
    assert context.meter.student_backward == 3 * 16
    assert context.meter.synthesised_images == 7 * 8 + 3 * 16
    assert set(context.logs) == {"one_hot", "balance", "classes", "diversity", "clamped", "distillation"}


def test_the_logged_number_of_classes_is_that_of_equally_frequent_ones() -> None:
    """Of the first batch, whose softmax is worked out again."""
    logs = run(rdskd.declared, {**SMALL, "share": 0.99}, steps=1).take_logs()
    codes = torch.randn(8, 6, generator=Streams(0, torch.device("cpu"))["noise"])
    mean = F.softmax(lenet(1).eval()(make_generator(Options(**SMALL))(codes)), 1).mean(0)
    assert logs["classes"] == pytest.approx(torch.exp(-(mean * mean.log()).sum()).item(), rel=1e-5)
    assert 1 < logs["classes"] < 10


def test_the_generators_phase_ends_at_its_steps_or_with_its_share() -> None:
    long = run(rdskd.declared, SMALL, steps=20)
    assert long.meter.student_backward == 16 * (20 - 7)
    short = run(rdskd.declared, {**SMALL, "share": 0.2}, steps=20)
    assert short.meter.student_backward == 16 * (20 - 4)


@pytest.mark.slow
def test_diversity_seeking_spreads_the_images_of_a_class() -> None:
    """On the digits' teacher, after 60 steps. The paper's weight of 1 shows in longer runs only: L_ds is about 0.03."""
    image = get_task("digits/lenet5-half").image
    codes = torch.randn(512, 6, generator=torch.Generator().manual_seed(5))
    spreads = []
    for weight in (0.0, 20.0):
        options = {**SMALL, "batch": 32, "width": 8, "generator_steps": 60, "renewal": 20, "share": 0.98}
        options |= {"diversity": weight, "lr_generator": 0.01}
        teacher = digits_teacher()
        context = run(rdskd.declared, options, steps=62, teacher=teacher, image=image)
        with torch.no_grad():
            images = context.kept["generator"](codes)
            classes = teacher(images).argmax(1)
        found = [images[classes == k] for k in range(10) if (classes == k).sum() > 5]
        assert len(found) >= 8  # the balance loss holds with and without it
        spreads.append(torch.stack([each.std(0).mean() for each in found]).mean().item())
    assert spreads[1] > 1.03 * spreads[0]


def test_an_odd_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="even number of images, not 9"):
        run(rdskd.declared, {**SMALL, "batch": 9}, steps=4)


def test_the_students_rate_falls_at_the_milestones_of_its_own_phase() -> None:
    rates: list[float] = []

    def watch(optimizer: torch.optim.Optimizer, *_: object) -> None:
        rates.append(optimizer.param_groups[0]["lr"])

    handle = register_optimizer_step_post_hook(watch)
    options = {**SMALL, "generator_steps": 10, "share": 0.5, "schedule": "milestones", "lr_student": 0.02}
    try:
        run(rdskd.declared, options, steps=20)
    finally:
        handle.remove()
    assert rates == pytest.approx([1e-3] * 10 + [0.02] * 8 + [0.002] * 2)


def test_the_generators_images_are_whitened_and_of_dafls_network() -> None:
    made: Tensor = run(rdskd.declared, SMALL, steps=8).kept["generator"]
    assert str(made) == str(make_generator(Options(**SMALL)))
    inner = [layer.eps for layer in made.modules() if isinstance(layer, nn.BatchNorm2d) and layer.affine]
    assert inner == [1e-5, 0.8, 0.8]


def test_defaults_and_presets_are_the_papers() -> None:
    shared = {
        "batch": 512, "width": 128, "eps": 0.8, "lr_generator": 1e-3, "generator_steps": 20 * 120, "renewal": 120,
        "exponential": True, "diversity": 1.0, "temperature": 10.0, "batch_student": 512, "lr_student": 2e-3,
    }  # fmt: skip
    expected = {
        "mnist": {**shared, "latent": 100, "schedule": "constant"},
        "svhn": {**shared, "latent": 1000, "schedule": "constant"},
        "cifar10": {**shared, "latent": 1000, "schedule": "milestones", "milestones": (800 / 1000,)},
    }
    method = rdskd.declared
    assert set(method.presets) == {"svhn", "cifar10"}
    for data, values in expected.items():
        options = method.make_options(method.presets.get(data, {}))
        assert {name: getattr(options, name) for name in values} == values
