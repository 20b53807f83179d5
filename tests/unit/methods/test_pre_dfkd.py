"""PRE-DFKD against its paper and code: its networks, replay, memory updates, disagreement, and the whole loop."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, Listening, first_quick, lenet, run, same_weights, trial
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench.data.image_spec import ImageSpec
from bench.harness.session import session_for
from bench.models import head
from bench.utils.rng import Streams, seed_everything
from methods.common.losses import competition, likeness
from methods.common.pseudo_replay import (
    UnitColumns,
    code_divergence,
    code_spread,
    draw_codes,
    encoder,
    memory_generator,
    novel_generator,
)
from methods.pre_dfkd import Options, pre_dfkd

SMALL = {
    "batch": 8, "batch_memory": 4, "batch_fit": 6, "latent": 6, "width": 4, "student_steps": 3, "memory_updates": 2,
    "lr_student": 0.01,
}  # fmt: skip
NETS = (6, 4, 0.8, 0.08)
SESSION = session_for(IMAGE, 10)


# ---- networks and losses of the replay ------------------------------------------------------------------------------


def test_the_novel_generators_convolutions_have_a_spectral_norm_of_one() -> None:
    torch.manual_seed(0)
    network = novel_generator(SESSION, *NETS)
    before = [layer.parametrizations.weight.original.detach().clone() for layer in network if is_conv(layer)]
    for _ in range(50):  # one power iteration each
        network(torch.randn(4, 6))
    convolutions = [layer for layer in network if is_conv(layer)]
    assert len(convolutions) == 3
    for layer, original in zip(convolutions, before, strict=True):
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)
        expected = original / torch.linalg.matrix_norm(original.flatten(1), 2)
        torch.testing.assert_close(layer.weight, expected, rtol=1e-2, atol=1e-4)
    assert not any(hasattr(layer, "parametrizations") for layer in memory_generator(SESSION, *NETS))


def is_conv(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d)


@pytest.mark.parametrize("make", [novel_generator, memory_generator, encoder])
def test_weights_start_uniform_and_biases_at_zero(make: object) -> None:
    network = make(SESSION, 50, 32, 0.8, 0.08)  # type: ignore[operator]
    weights = [p for name, p in network.named_parameters() if p.ndim > 1]
    values = torch.cat([weight.detach().flatten() for weight in weights])
    assert values.abs().max() <= 0.08
    assert values.std().item() == pytest.approx(0.08 / math.sqrt(3), rel=0.02)
    assert all(not layer.bias.any() for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


def test_the_papers_encoder_on_images_of_32() -> None:
    image = ImageSpec(channels=3, size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    network = encoder(session_for(image, 10), 1000, 128, 0.8, 0.08)
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim > 1]
    assert shapes == [(64, 3, 3, 3), (128, 64, 3, 3), (128, 128, 3, 3), (2000, 128 * 4 * 4)]
    assert [layer.eps for layer in network if isinstance(layer, nn.BatchNorm2d)] == [0.8, 0.8, 1e-5]
    assert sum(isinstance(layer, nn.LeakyReLU) for layer in network) == 2


@pytest.mark.parametrize("size", [8, 20, 28, 32, 36, 64])
def test_the_encoder_takes_other_sizes(size: int) -> None:
    image = ImageSpec(channels=1, size=size, mean=(0.3,), std=(0.25,))
    assert encoder(session_for(image, 10), *NETS)(torch.randn(3, *image.shape)).shape == (3, 12)


def test_columns_are_scaled_along_the_height() -> None:
    images = np.random.default_rng(0).normal(0, 1, (2, 3, 5, 4))
    expected = images / np.sqrt((images**2).sum(2, keepdims=True))
    np.testing.assert_allclose(UnitColumns()(torch.tensor(images)), expected, rtol=1e-12)


def test_the_codes_losses_against_numpy() -> None:
    stream = np.random.default_rng(1)
    mean, log_var, noise = (stream.normal(0, 1, (5, 3)) for _ in range(3))
    moments = torch.tensor(np.concatenate([mean, log_var], 1))
    np.testing.assert_allclose(draw_codes(moments, torch.tensor(noise)), mean + noise * np.exp(log_var / 2), rtol=1e-12)
    divergence = np.mean([0.5 * sum(m * m + np.exp(v) - 1 - v) for m, v in zip(mean, log_var, strict=True)])
    assert code_divergence(moments).item() == pytest.approx(divergence, rel=1e-12)
    spread = ((mean.var(0, ddof=1) - 1) ** 2).mean() + (mean.mean(0) ** 2).mean()
    assert code_spread(torch.tensor(mean)).item() == pytest.approx(spread, rel=1e-12)


# ---- the loop --------------------------------------------------------------------------------------------------------


def balance_and_one_hot(logits: Tensor) -> tuple[Tensor, Tensor]:
    mean = torch.softmax(logits, 1).mean(0)
    return (mean * torch.log10(mean)).sum(), F.cross_entropy(logits, logits.max(1)[1])


def disagreement(teacher: Tensor, student: Tensor, tau: float, clamped: bool) -> Tensor:
    p, q = torch.softmax(teacher / tau, 1), torch.softmax(student / tau, 1)
    if not clamped:
        m = (p + q) / 2
        return 1 - 0.5 * ((p * torch.log(p / m)).sum() + (q * torch.log(q / m)).sum()) / len(p)
    p, q, m = (each.clamp(0.01, 0.99) for each in (p, q, (p + q) / 2))
    j = 0.5 * ((m * torch.log(m / p)).mean() + (m * torch.log(m / q)).mean())
    return 1 - j.clamp(0, 1)


class Reference:
    """The reference code's loop, with two Adams for encoder and memory generator, and a fresh one for the codes."""

    def __init__(self, o: Options, norm: bool) -> None:
        self.o = o
        self.teacher, self.student = lenet(1).eval(), lenet(2, "lenet5bn-half" if norm else "lenet5-half").train()
        with torch.random.fork_rng():
            seed_everything(0)
            nets = (o.latent, o.width, o.eps, o.init)
            self.novel = novel_generator(SESSION, *nets)
            self.memory, self.encoder = memory_generator(SESSION, *nets), encoder(SESSION, *nets)
        self.features: list[Tensor] = []
        head(self.teacher).register_forward_pre_hook(lambda _, args: self.features.append(args[0]))
        self.streams = Streams(0, torch.device("cpu"))

    def noise(self, count: int, stream: str = "noise") -> Tensor:
        return torch.randn(count, self.o.latent, generator=self.streams[stream])

    def replay(self) -> Tensor:
        """As in the code, the memory generator's gradients of this loss stay where they are."""
        o = self.o
        z = self.noise(o.batch_memory, "codes").requires_grad_()
        opt = Adam([z], lr=o.lr_codes)
        balance, one_hot = balance_and_one_hot(self.teacher(self.memory(z)))
        loss = o.balance * balance + o.one_hot * one_hot + ((z.var(0) - 1) ** 2).mean() + (z.mean(0) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        images: Tensor = self.memory(z).detach()
        return images

    def run(self, rounds: int) -> None:
        o = self.o
        opt_n = Adam(self.novel.parameters(), lr=o.lr_generator)
        opt_m, opt_e = (Adam(net.parameters(), lr=o.lr_memory) for net in (self.memory, self.encoder))
        opt_s = SGD(self.student.parameters(), lr=o.lr_student, momentum=0.9, weight_decay=o.weight_decay)
        steps = rounds * (1 + o.student_steps)
        for number in range(rounds):
            x = self.novel(self.noise(o.batch))
            self.features.clear()
            logits = self.teacher(x)
            balance, one_hot = balance_and_one_hot(logits)
            loss = o.one_hot * one_hot + o.balance * balance - o.activation * self.features[0].abs().mean()
            opt_n.zero_grad()
            (loss + disagreement(logits.detach(), self.student(x), o.temperature, o.clamped)).backward()
            opt_n.step()
            for index in range(o.student_steps):
                progress = (number * (1 + o.student_steps) + 1 + index) / steps
                opt_s.param_groups[0]["lr"] = o.lr_student * (1 + math.cos(math.pi * progress)) / 2
                x = self.novel(self.noise(o.batch)).detach()
                self.memory.eval()
                both = torch.cat([x, self.replay()])
                opt_s.zero_grad()
                (self.student(both) - self.teacher(both).detach()).abs().mean().backward()
                opt_s.step()
                if index >= o.memory_updates:
                    continue
                self.memory.train()
                opt_m.zero_grad()
                opt_e.zero_grad()
                u = x[: o.batch_fit] if number == 0 else torch.cat([x[: o.batch_fit], self.replay()])
                moments = self.encoder(u)
                mean, log_var = moments[:, : o.latent], moments[:, o.latent :]
                again = self.memory(mean + self.noise(len(u), "encoder") * torch.exp(0.5 * log_var))
                loss = (u - again).abs().mean() + (self.teacher(u).detach() - self.teacher(again)).abs().mean()
                kl = (0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(1)).mean()
                if not o.match_memory:
                    opt_m.zero_grad()
                (loss + o.code_divergence * kl).backward()
                opt_m.step()
                opt_e.step()


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("form", first_quick([{}, {"clamped": True}, {"match_memory": True}]), ids=str)
@pytest.mark.parametrize("norm", [False, True], ids=["", "batch norm"])
def test_three_rounds_equal_the_loop_of_the_reference_code(norm: bool, form: dict[str, bool]) -> None:
    options = {**SMALL, "code_divergence": 0.1, **form}  # so that it can be seen
    wanted = Reference(Options(**options), norm)
    wanted.run(3)
    student = lenet(2, "lenet5bn-half" if norm else "lenet5-half")
    context = run(pre_dfkd.declared, options, steps=12, student=student)
    assert same_weights(context.kept["generator"], wanted.novel, 1e-9)
    assert same_weights(context.kept["memory"], wanted.memory, 1e-9)
    assert same_weights(context.kept["encoder"], wanted.encoder, 1e-9)
    assert same_weights(context.student, wanted.student, 1e-9)  # running statistics too


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    ("other", "part"),
    [
        ({"disagreement": 0.0}, "generator"),
        ({"temperature": 1.0}, "generator"),
        ({"clamped": True}, "generator"),
        ({"match_memory": True}, "memory"),
        ({"code_divergence": 0.2}, "encoder"),
    ],
    ids=str,
)
def test_another_setting_would_be_noticed(other: dict[str, float], part: str) -> None:
    plain = run(pre_dfkd.declared, {**SMALL, "code_divergence": 0.1}, steps=12)
    varied = run(pre_dfkd.declared, {**SMALL, "code_divergence": 0.1, **other}, steps=12)
    assert not same_weights(plain.kept[part], varied.kept[part], 1e-7)


def test_what_a_round_asks() -> None:
    context = run(pre_dfkd.declared, SMALL, steps=8)
    meter = context.meter
    student_step = 4 + (8 + 4)  # a replay's codes, then novel and replayed images
    first = 8 + 3 * student_step + 2 * 6  # and two memory updates on novel images alone
    later = 8 + 3 * student_step + 2 * (4 + 4 + (6 + 4))  # each with a replay of its own, and its answers
    assert meter.teacher_images == first + later
    assert meter.teacher_backward == 2 * 8 + (2 * 3 + 2) * 4 + 2 * 6 + 2 * (6 + 4)
    assert meter.student_images == 2 * (8 + 3 * (8 + 4))
    assert meter.optimizer_steps == 2 + 2 * 3 + 2 * 2 + (2 * 3 + 2)


def test_a_student_step_mixes_novel_and_replayed_images() -> None:
    student = Listening(lenet(2, "lenet5-half"))
    run(pre_dfkd.declared, SMALL, steps=4, student=student)
    assert [len(images) for images in student.heard] == [8, 12, 12, 12]


def test_modes_while_it_runs() -> None:
    """The novel generator and the student train throughout; the memory evaluates for the student's batches."""
    student, modes = lenet(2, "lenet5bn-half"), []
    student.register_forward_hook(
        lambda net, args, _: modes.append((net.training, args[0].requires_grad)), prepend=True
    )
    context = run(pre_dfkd.declared, SMALL, steps=8, student=student)
    mine = [mode for mode in modes if mode != (False, False)]  # others are the harness's measurements
    assert mine == ([(True, True)] + [(True, False)] * 3) * 2
    count = {name: batches(context.kept[name]) for name in ("generator", "memory", "encoder")}
    assert count == {"generator": 8, "memory": 2 + 2 * 3, "encoder": 4}  # later updates replay with two batches


def batches(network: nn.Module) -> int:
    """How many batches its batch norms took in."""
    norm = next(layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    return int(norm.num_batches_tracked)


def test_one_adam_step_moves_every_code_by_its_rate() -> None:
    with trial(steps=2, access=pre_dfkd.declared.access) as (s, context):
        options = pre_dfkd.declared.make_options({**SMALL, "lr_codes": 0.02, "width": 8})
        pre_dfkd.declared.run(s, options)
    drawn = torch.randn(4, 6, generator=Streams(0, torch.device("cpu"))["codes"])
    moved = (context.kept["codes"].detach() - drawn).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.02), rtol=1e-2, atol=0)
    assert len(context.kept["opt_z"].state) == 1


def test_defaults_and_presets_are_the_papers() -> None:
    paper = {
        "batch": 1024, "batch_memory": 128, "batch_fit": 512, "generator_steps": 1, "student_steps": 10,
        "memory_updates": 4, "latent": 1000, "width": 128, "eps": 0.8, "init": 0.08, "one_hot": 1.0, "balance": 5.0,
        "activation": 0.1, "disagreement": 1.0, "temperature": 3.0, "clamped": False,
        "match_memory": False, "code_divergence": 1e-5, "lr_generator": 0.02,
        "lr_memory": 0.02 / 40, "lr_codes": 0.02, "optimizer": "sgd", "lr_student": 0.1, "schedule": "cosine",
        "momentum": 0.9, "weight_decay": 5e-4,
    }  # fmt: skip
    assert vars(pre_dfkd.declared.make_options({})) == paper
    assert set(pre_dfkd.declared.presets) == {"mnist"}
    mnist = pre_dfkd.declared.make_options(pre_dfkd.declared.presets["mnist"])
    assert (mnist.optimizer, mnist.weight_decay) == ("adam", 0.0)


def pull(clamped: bool, classes: int, deviation: float) -> float:
    """The norm of the disagreement's gradient on the student's logits, for independent normal ones."""
    stream = torch.Generator().manual_seed(0)
    teacher, student = (deviation * torch.randn(1024, classes, generator=stream) for _ in range(2))
    student.requires_grad_()
    disagree = partial(competition, elements=True) if clamped else likeness
    return float(torch.autograd.grad(disagree(teacher, student, 3.0), student)[0].norm())


@pytest.mark.parametrize(
    ("classes", "deviation", "low", "high"), [(100, 5, 38, 44), (100, 10, 20, 25), (10, 1, 8, 10), (10, 10, 3.5, 4.5)]
)
def test_how_much_less_the_codes_form_pulls(classes: int, deviation: float, low: float, high: float) -> None:
    assert low < pull(False, classes, deviation) / pull(True, classes, deviation) < high


@pytest.mark.parametrize("deviation", [1.0, 2.0])
def test_of_a_hundred_undecided_classes_the_codes_form_has_no_gradient(deviation: float) -> None:
    assert pull(True, 100, deviation) == 0
    assert pull(False, 100, deviation) > 1e-4
