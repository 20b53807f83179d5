"""AdaDFKD as it was derived: both contrasts, the choice from the bank, the whole loop written out again, settings."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, first_quick, kin, lenet, run, same_weights
from reference_parts import HeardMaps, agreed_divergence, start_normal
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench import cmi_generator
from bench.harness.trial_context import TrialContext
from bench.spec.method_registry import find_methods
from bench.spec.presets import preset
from bench.spec.task import get_task
from bench.utils.rng import Streams, seed_everything
from methods.adadfkd import Options, adadfkd, among_themselves, told_apart, window

SMALL: dict[str, Any] = {
    "batch": 24, "latent": 6, "width": 4, "student_steps": 2, "lr_student": 0.01, "lambda_start": 0.05,
    "lambda_end": 0.2, "bank": 40, "length": 0.6,
}  # fmt: skip


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    networks = {"teacher": lenet(1, "lenet5bn"), "student": kin(), **around}
    return run(adadfkd.declared, {**SMALL, **options}, steps=steps, **networks)


# ---- the contrasts ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_double")
def test_an_anchor_is_told_from_its_negatives() -> None:
    stream = torch.Generator().manual_seed(0)
    a, b, negatives = (F.normalize(torch.randn(n, 4, generator=stream)) for n in (3, 3, 5))
    found = told_apart(a, b, a @ negatives.T, 0.2)
    for i in range(3):
        own = math.exp(float(a[i] @ b[i]) / 0.2)
        others = sum(math.exp(float(a[i] @ n) / 0.2) for n in negatives)
        assert found[i].item() == pytest.approx(-math.log(own / (own + others)))
        batch = sum(math.exp(float(a[i] @ each) / 0.2) for each in b)
        assert among_themselves(a, b, 0.2)[i].item() == pytest.approx(-math.log(own / batch))


def test_the_window_goes_from_the_least_to_the_most_alike() -> None:
    similar = torch.tensor([[0.5, -0.5, 0.9, 0.1, 0.3], [0.0, 0.4, 0.2, 0.8, 0.6]])
    torch.testing.assert_close(window(similar, 0.6, 0.0), torch.tensor([[-0.5, 0.1, 0.3], [0.0, 0.2, 0.4]]))
    torch.testing.assert_close(window(similar, 0.6, 0.4), torch.tensor([[0.3, 0.5, 0.9], [0.4, 0.6, 0.8]]))
    assert window(similar, 1.0, 0.0).shape == (2, 5)
    assert window(similar, 0.01, 0.99).tolist() == [[pytest.approx(0.9)], [pytest.approx(0.8)]]


# ---- the loop --------------------------------------------------------------------------------------------------------


def reference(rounds: int, o: Options, student: nn.Module) -> dict[str, Any]:
    """CuDFKD's loop with both contrasts."""
    teacher, student = lenet(1, "lenet5bn").eval().requires_grad_(False), student.train()
    heard = HeardMaps(teacher)
    last: dict[str, Tensor] = {}
    for name, network in (("t", teacher), ("s", student)):
        network.head[-1].register_forward_pre_hook(lambda _, args, name=name: last.update({name: args[0]}))
    with torch.random.fork_rng():
        seed_everything(0)
        generator = cmi_generator(o.latent, IMAGE, o.width, large=True).train()
    streams = Streams(0, torch.device("cpu"))
    start_normal(generator, streams["weights"])
    opt_g = Adam(generator.parameters(), o.lr_generator, betas=(0.9, 0.99))
    opt_s = SGD(student.parameters(), o.lr_student, momentum=0.9, weight_decay=1e-4)
    bank = torch.empty(0, 84)
    length = rounds * (1 + o.student_steps)

    def features() -> Tensor:
        f = last["s"]
        if f.shape[1] != 84:
            reach = f.shape[1] ** -0.5
            drawn = torch.rand(84, f.shape[1] + 1, generator=streams["projection"]) * 2 * reach - reach
            f = f @ drawn[:, :-1].T + drawn[:, -1]
        return f / f.norm(dim=1, keepdim=True)

    for step in range(length):
        progress = step / length
        z = torch.randn(o.batch, o.latent, generator=streams["noise"])
        risen = min(max((progress - o.adversarial_from) / (o.adversarial_to - o.adversarial_from), 0), 1)
        if step % (1 + o.student_steps) == 0:
            x = generator(z)
            heard.clear()
            t = teacher(x)
            p = (t / o.temperature_balance).softmax(1).mean(0)
            loss = o.one_hot * F.cross_entropy(t, t.argmax(1)) + o.balance * (p * p.log()).sum()
            loss = loss + o.batch_norm_weight * heard.distance()
            student.eval()
            s = student(x)
            student.train()
            loss = loss - risen * o.adversarial * 9 * agreed_divergence(t, s, 3)
            f_t = last["t"] / last["t"].norm(dim=1, keepdim=True)
            if len(bank) and o.contrast:
                f_s = features()
                similar = (f_s @ bank.T).sort(1).values
                size = round(o.length * len(bank))
                start = round((1 - o.length) * risen * len(bank))
                chosen = similar[:, start : start + size].exp().pow(1 / o.contrast_temperature).sum(1)
                own = ((f_s * f_t).sum(1) / o.contrast_temperature).exp()
                loss = loss - o.contrast * (own / (own + chosen)).log().mean()
            opt_g.zero_grad()
            loss.backward()
            opt_g.step()
            bank = torch.cat([bank, f_t.detach()])[-o.bank :]
            continue
        generator.eval()
        with torch.no_grad():
            x = generator(z)
        generator.train()
        opt_s.param_groups[0]["lr"] = o.lr_student * (1 + math.cos(math.pi * progress)) / 2
        t, s = teacher(x), student(x)
        losses = (s - t).abs().mean(1)
        if o.imitation == "kl":
            p = (t / o.temperature_imitation).softmax(1)
            losses = o.temperature_imitation**2 * (p * (p.log() - (s / o.temperature_imitation).log_softmax(1))).sum(1)
        if o.contrast_student:
            f_t = last["t"] / last["t"].norm(dim=1, keepdim=True)
            similar = (features() @ f_t.T / o.contrast_temperature).exp()
            losses = losses - o.contrast_student * (similar.diagonal() / similar.sum(1)).log()
        losses = losses if o.each == "image" else losses.mean()
        bound = o.lambda_start + (o.lambda_end - o.lambda_start) * progress
        v = (1 + math.exp(-bound)) / (1 + (losses.detach() - bound).exp())
        opt_s.zero_grad()
        (v * losses).mean().backward()
        opt_s.step()
    return {"generator": generator, "student": student, "bank": bank}


@cache
def usual() -> nn.Module:
    """The student of the usual settings, in double precision."""
    student: nn.Module = reference(4, Options(**SMALL), kin())["student"]
    return student


VARIANTS: dict[str, dict[str, Any]] = {
    "as derived": {},
    "each image, another distance": {"each": "image", "imitation": "mae", "contrast": 3.0, "length": 0.9},
    "the student's contrast alone": {"contrast": 0.0, "contrast_student": 1.0},
    "the generator's contrast alone": {"contrast": 1.0, "contrast_student": 0.0},
}


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("variant", first_quick(VARIANTS))
def test_four_rounds_equal_the_loop_written_out(variant: str) -> None:
    options = VARIANTS[variant]
    expected = reference(4, Options(**{**SMALL, **options}), kin())
    context = play(options, 12)
    assert same_weights(context.kept["generator"], expected["generator"], 1e-7)  # with running statistics
    assert same_weights(context.student, expected["student"], 1e-7)


@pytest.mark.usefixtures("_double")
def test_features_of_another_length_go_through_a_layer_that_is_drawn_again() -> None:
    expected = reference(3, Options(**SMALL), lenet(2, "lenet5bn-half"))
    context = play({}, 9, student=lenet(2, "lenet5bn-half"))
    assert same_weights(context.student, expected["student"], 1e-7)
    bank = torch.cat(context.kept["features"].state_dict()["parts"])
    assert bank.shape == (40, 84)
    torch.testing.assert_close(bank.sum(0), expected["bank"].sum(0))  # a ring has another order


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    "options", first_quick([{"contrast": 0.0}, {"contrast_student": 0.0}, {"length": 0.3}, {"bank": 30}]), ids=str
)
def test_another_setting_would_be_noticed(options: dict[str, Any]) -> None:
    assert not same_weights(play(options, 12).student, usual(), 1e-8)


def test_it_is_labelled_as_re_derived_and_has_the_scripts_settings() -> None:
    card = find_methods()["adadfkd"]
    assert "re-derived" in card.title
    assert card.needs_batch_norm({})
    assert not card.needs_batch_norm({"batch_norm_weight": 0.0})
    o = Options()
    assert (o.batch, o.latent, o.width, o.lr_generator, o.generator_steps, o.student_steps) == (
        512,
        512,
        128,
        1e-3,
        1,
        10,
    )
    assert (o.one_hot, o.balance, o.temperature_balance, o.batch_norm_weight, o.temperature) == (1, 20, 20, 1, 3)
    assert (o.lr_student, o.momentum, o.weight_decay, o.schedule) == (0.1, 0.9, 1e-4, "cosine")
    assert (o.curriculum, o.each, o.imitation, o.temperature_imitation) == ("log", "batch", "kl", 20)
    assert (o.contrast, o.contrast_student, o.contrast_temperature, o.bank, o.length) == (0.1, 0.1, 0.07, 8192, 0.9)
    assert (o.adversarial, o.adversarial_from, o.adversarial_to) == (0.3 * (187 - 62), 0.25, 0.75)
    assert (o.lambda_start, o.lambda_end) == (2.41, pytest.approx(2.41 + 250 * 400 * 1e-4))
    assert preset(card, get_task("cifar100/resnet18"), "paper") == {
        "batch": 768, "student_steps": 5, "temperature_balance": 5.0, "adversarial": pytest.approx(0.05 * 600),
        "adversarial_from": 0.2, "adversarial_to": 0.8, "lambda_start": 1.2,
        "lambda_end": pytest.approx(1.2 + 1000 * 400 * 2e-5), "bank": 24_576, "length": 0.62, "imitation": "mae",
    }  # fmt: skip
