"""DDAD-like: the two discriminators, the loop inferred from DFAD's, per-pixel terms, what is said to be inferred."""

from __future__ import annotations

import pytest
import torch
from method_fixtures import IMAGE, Listening, lenet, run, same_weights
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench import Unsupported, data, dcgan_generator, image_generator
from bench.data.image_spec import ImageSpec
from bench.spec.method_registry import find_methods
from bench.utils.rng import Streams, seed_everything
from methods import ddad as module
from methods.ddad import Options, ddad

SMALL = {"batch": 8, "latent": 6, "width": 4, "student_steps": 2}
RGB = ImageSpec(channels=3, size=16, mean=(0.5,) * 3, std=(0.5,) * 3)


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


def terms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy with the own prediction and sum_k p_k ln p_k, every pixel an image of its own."""
    flat = logits if logits.ndim == 2 else logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
    mean = torch.softmax(flat, 1).mean(0)
    return -torch.log_softmax(flat, 1).max(1).values.mean(), (mean * mean.log()).sum()


def gap(o: Options, teacher: Tensor, student: Tensor) -> Tensor:
    if o.discrepancy == "kl":
        p = torch.softmax(teacher / o.temperature, 1)
        rows = (p * (p.log() - torch.log_softmax(student / o.temperature, 1))).sum(1)
        return o.temperature**2 * rows.mean()
    return (teacher - student).abs().mean() if o.discrepancy == "mae" else ((teacher - student) ** 2).mean()


def reference(
    steps: int, o: Options, teacher: nn.Module, student: nn.Module, image: ImageSpec
) -> tuple[nn.Module, nn.Module]:
    teacher.eval()
    student.train()
    inputs: list[tuple[nn.BatchNorm2d, Tensor]] = []
    for layer in teacher.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_pre_hook(lambda layer, args: inputs.append((layer, args[0])))
    with torch.random.fork_rng():
        seed_everything(0)
        make = dcgan_generator if o.generator == "dcgan" else image_generator
        generator = make(o.latent, image, o.width).train()
    opt_g = Adam(generator.parameters(), lr=o.lr_generator)
    opt_s = SGD(student.parameters(), lr=o.lr_student, momentum=0.9, weight_decay=o.weight_decay)
    noise = Streams(0, torch.device("cpu"))["noise"]
    for _ in range(steps // (o.student_steps + 1)):
        for _ in range(o.student_steps):
            x = generator(torch.randn(o.batch, o.latent, generator=noise)).detach()
            opt_s.zero_grad()
            gap(o, teacher(x).detach(), student(x)).backward()
            opt_s.step()
        x = generator(torch.randn(o.batch, o.latent, generator=noise))
        inputs.clear()
        logits = teacher(x)
        one_hot, balance = terms(logits)
        difference = gap(o, logits, student(x))
        loss = -torch.log(difference + 1) if o.adaptive else -difference
        loss = loss + o.one_hot * one_hot + o.balance * balance
        for layer, value in inputs:
            mean, var = value.mean((0, 2, 3)), value.var((0, 2, 3), correction=0)
            loss = loss + o.batch_norm_weight * ((mean - layer.running_mean).norm() + (var - layer.running_var).norm())
        opt_g.zero_grad()
        loss.backward()
        opt_g.step()
    return generator, student


NETWORKS = {
    "classification": (lambda: lenet(1, "lenet5bn"), lambda: lenet(2, "lenet5bn-half"), IMAGE),
    "segmentation": (lambda: Pixelwise(1), lambda: Pixelwise(2), RGB),
}
VARIANTS = {
    "as it is": {},
    "adaptive": {"adaptive": True},
    "mse": {"discrepancy": "mse"},
    "kl": {"discrepancy": "kl", "temperature": 3.0},
    "dcgan": {"generator": "dcgan"},
}


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_rounds_equal_the_equations(variant: str, kind: str) -> None:
    teacher, student, image = NETWORKS[kind]
    options = {**SMALL, "schedule": "constant", "lr_student": 0.05, **VARIANTS[variant]}
    generator, learnt = reference(6, Options(**options), teacher(), student(), image)
    context = run(ddad.declared, options, steps=6, teacher=teacher(), student=student(), image=image)
    assert same_weights(context.kept["generator"], generator, 1e-9)
    assert same_weights(context.student, learnt, 1e-9)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("other", [{"batch_norm_weight": 0.5}, {"one_hot": 0.0}, {"balance": 2.0}], ids=str)
def test_another_weight_would_be_noticed(other: dict[str, float]) -> None:
    teacher, student, image = NETWORKS["segmentation"]
    options = {**SMALL, "schedule": "constant"}
    generator, _ = reference(6, Options(**options), teacher(), student(), image)
    context = run(ddad.declared, {**options, **other}, steps=6, teacher=teacher(), student=student(), image=image)
    assert not same_weights(context.kept["generator"], generator, 1e-6)


def test_a_round_is_five_steps_of_the_student_and_one_of_the_generator_on_fresh_images() -> None:
    teacher, student = Listening(lenet(1, "lenet5bn")), Listening(lenet(2, "lenet5bn-half"))
    modes: list[tuple[bool, bool]] = []
    student.network.register_forward_hook(
        lambda net, args, _: modes.append((net.training, args[0].requires_grad)), prepend=True
    )
    context = run(ddad.declared, {**SMALL, "student_steps": 5}, steps=12, teacher=teacher, student=student)
    meter = context.meter
    assert meter.optimizer_steps == 12
    assert meter.teacher_images == meter.student_images == meter.synthesised_images == 12 * 8
    assert meter.teacher_backward == 2 * 8
    assert all(torch.equal(a, b) for a, b in zip(teacher.heard, student.heard, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(teacher.heard, teacher.heard[1:], strict=False))
    mine = [mode for mode in modes if mode != (False, False)]  # others are the harness's measurements
    assert mine == ([(True, False)] * 5 + [(True, True)]) * 2
    assert context.kept["generator"].training


def calibrated() -> nn.Module:
    """A teacher whose stored statistics are those of some flat images."""
    network = lenet(1, "lenet5bn").train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network(torch.randn(64, 1, 1, 1, generator=torch.Generator().manual_seed(5)).expand(-1, -1, 32, 32))
    return network.eval()


def test_each_discriminator_pulls_its_own_way() -> None:
    """The generator alone, against a student that stands still, with and without the teacher's part."""
    still = {**SMALL, "batch": 32, "student_steps": 1, "lr_student": 1e-9, "lr_generator": 0.01}

    def end(**weights: float) -> tuple[float, float]:
        """Difference of the logits; distance of all layers' variances from the stored ones."""
        context = run(ddad.declared, {**still, **weights}, steps=20, teacher=calibrated())
        teacher, seen = calibrated(), []
        for layer in teacher.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.register_forward_pre_hook(
                    lambda norm, args: seen.append((args[0].var((0, 2, 3)) - norm.running_var).norm().item())
                )
        with torch.no_grad():
            images = context.kept["generator"](torch.randn(64, 6, generator=torch.Generator().manual_seed(1)))
            return F.l1_loss(teacher(images), context.student(images)).item(), sum(seen)

    student_alone = end(one_hot=0.0, balance=0.0, batch_norm_weight=0.0)
    with_teacher = end(one_hot=0.0, balance=0.0, batch_norm_weight=10.0)
    assert student_alone[0] > 1.2 * with_teacher[0]
    assert student_alone[1] > 1.2 * with_teacher[1]


def test_it_learns_from_networks_that_answer_for_every_pixel() -> None:
    options = {**SMALL, "generator": "dcgan", "adaptive": True, "lr_generator": 1e-4, "schedule": "constant"}
    context = run(ddad.declared, options, steps=120, image=RGB, teacher=Pixelwise(1), student=Pixelwise(2))
    images = torch.rand(8, *RGB.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        teacher, before = Pixelwise(1).eval()(images), Pixelwise(2).eval()(images)
        after = context.student.eval()(images)
    assert F.l1_loss(after, teacher) < 0.7 * F.l1_loss(before, teacher)


def test_without_batch_norm_it_is_unsupported_unless_the_term_is_dropped() -> None:
    with pytest.raises(Unsupported, match="has no batch norm"):
        run(ddad.declared, SMALL, steps=3, teacher=lenet(1))
    context = run(ddad.declared, {**SMALL, "batch_norm_weight": 0}, steps=3, teacher=lenet(1))
    assert "statistics" not in context.logs
    assert find_methods()["ddad"].needs_batch_norm({"batch_norm_weight": 0.0}) is False


def test_it_is_named_and_documented_as_an_inference() -> None:
    card = find_methods()["ddad"]
    assert card.title == "DDAD-like"
    assert "Inferred" in (module.__doc__ or "")
    assert card.segmentation


def test_defaults_and_presets_are_the_documented_start_values() -> None:
    start = {
        "batch": 256, "latent": 256, "student_steps": 5, "discrepancy": "mae", "adaptive": False, "one_hot": 1.0,
        "balance": 5.0, "lr_generator": 1e-3, "optimizer": "sgd", "lr_student": 0.1, "momentum": 0.9,
        "weight_decay": 5e-4, "schedule": "milestones", "milestones": (100 / 500, 200 / 500),
    }  # fmt: skip
    options = ddad.declared.make_options({})
    assert {name: getattr(options, name) for name in start} == start
    assert 0.1 <= options.batch_norm_weight <= 1
    for name, values in ddad.declared.presets.items():
        chosen = ddad.declared.make_options(values)
        assert chosen.adaptive == (data.find(name).kind == "segmentation")
        assert (chosen.batch, chosen.generator) == (64, "dcgan")
