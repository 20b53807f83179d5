"""TA-DFKD against its code: the selection beside scikit-learn's mixture, the whole loop, views, settings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, Listening, first_quick, lenet, run, same_weights
from reference_parts import HeardMaps, normalise
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench.harness.session import session_for
from bench.harness.trial_context import TrialContext
from bench.spec.method_registry import find_methods
from bench.utils.rng import Streams, seed_everything
from methods.ta_dfkd import Options, cleanness, pixel_generator, shared_view, ta_dfkd

SMALL: dict[str, Any] = {"batch": 24, "latent": 6, "width": 4, "student_steps": 2, "lr_student": 0.01}


def sure(seed: int, name: str) -> nn.Module:
    """With answers that are far from uniform, so that its losses differ."""
    network = lenet(seed, name)
    list(network.parameters())[-2].data.mul_(20)
    return network


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    networks = {"teacher": sure(1, "lenet5bn"), "student": lenet(2, "lenet5bn-half"), **around}
    return run(ta_dfkd.declared, {**SMALL, **options}, steps=steps, **networks)


# ---- the selection ---------------------------------------------------------------------------------------------------


def by_scikit_learn(losses: Tensor) -> np.ndarray:
    """From two means that start at both ends; scikit-learn's own start is random, and so is its answer."""
    x = np.asarray(losses.double())[:, None]
    x = (x - x.min()) / (x.max() - x.min())
    labels = KMeans(2, init=np.array([[0.0], [1.0]]), n_init=1, tol=0).fit(x).labels_
    groups = [x[labels == each] for each in (0, 1)]
    mixture = GaussianMixture(
        n_components=2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0,
        weights_init=[len(each) / len(x) for each in groups],
        means_init=[each.mean(0) for each in groups],
        precisions_init=[[[1 / (each.var() + 5e-4)]] for each in groups],
    ).fit(x)  # fmt: skip
    return np.asarray(mixture.predict_proba(x)[:, mixture.means_.argmin()])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("count", [24, 200, 1024])
@pytest.mark.parametrize("shape", ["two groups", "exponential", "skewed"])
def test_the_posterior_is_that_of_scikit_learns_mixture(shape: str, count: int) -> None:
    stream = torch.Generator().manual_seed(count)
    losses = torch.randn(count, generator=stream) * 0.1 + 3
    if shape == "two groups":
        losses[count // 3 :] -= 2
    elif shape == "exponential":
        losses = -torch.rand(count, generator=stream).log()
    else:
        losses = torch.rand(count, generator=stream) ** 4
    own = np.asarray(cleanness(losses))
    assert own == pytest.approx(by_scikit_learn(losses), abs=1e-6)
    assert 0.02 < (own > 0.5).mean() < 0.98


def test_equal_losses_are_all_clean() -> None:
    assert cleanness(torch.full((5,), 0.3)).tolist() == [1.0] * 5


# ---- views and the generator -----------------------------------------------------------------------------------------


def test_a_view_is_one_window_for_the_whole_batch_with_a_black_border() -> None:
    pixels = torch.rand(3, 1, 32, 32) + 1
    stream = torch.Generator().manual_seed(0)
    windows, mirrored = set(), 0
    for _ in range(60):
        view = shared_view(pixels, stream)
        padded = F.pad(pixels, (4, 4, 4, 4))
        found = [
            (down, right, flip)
            for down in range(9)
            for right in range(9)
            for flip in (False, True)
            if torch.equal(padded[..., down : down + 32, right : right + 32].flip(3 if flip else ()), view)
        ]
        assert len(found) == 1
        windows.add(found[0][:2])
        mirrored += found[0][2]
    assert len(windows) > 30
    assert 15 < mirrored < 45


def test_the_generator_is_the_reference_codes() -> None:
    session = session_for(IMAGE, 10)
    network = pixel_generator(session, Options())
    names = [type(layer).__name__ for layer in network]
    assert names == [
        "Linear", "Unflatten", "BatchNorm2d", "LeakyReLU", "Upsample", "Conv2d", "BatchNorm2d", "LeakyReLU",
        "Upsample", "Conv2d", "BatchNorm2d", "LeakyReLU", "Conv2d", "Sigmoid",
    ]  # fmt: skip
    assert [layer.eps for layer in network if isinstance(layer, nn.BatchNorm2d)] == [1e-5, 0.8, 0.8]
    assert network[0].weight.shape == (128 * 8 * 8, 1000)
    assert [tuple(layer.weight.shape[:2]) for layer in network if isinstance(layer, nn.Conv2d)] == [
        (128, 128), (64, 128), (1, 64),
    ]  # fmt: skip
    pixels = network(torch.randn(4, 1000))
    assert pixels.min() >= 0
    assert pixels.max() <= 1


# ---- the loop --------------------------------------------------------------------------------------------------------


def reference(rounds: int, o: Options) -> dict[str, Any]:
    """The released code's loop, its selection by scikit-learn; returns also the steps that it took."""
    teacher, student = sure(1, "lenet5bn").eval().requires_grad_(False), lenet(2, "lenet5bn-half").train()
    heard = HeardMaps(teacher)
    with torch.random.fork_rng():
        seed_everything(0)
        generator = pixel_generator(session_for(IMAGE, 10), o).train()
    streams = Streams(0, torch.device("cpu"))
    opt_g = Adam(generator.parameters(), o.lr_generator)
    opt_s = SGD(student.parameters(), o.lr_student, momentum=0.9, weight_decay=5e-4)

    def made() -> tuple[Tensor, Tensor]:
        pixels = generator(torch.randn(o.batch, o.latent, generator=streams["noise"]))
        return normalise(shared_view(pixels, streams["views"])), normalise(pixels)

    def selected(plain: Tensor) -> list[int]:
        t = teacher(plain.detach())
        losses = -t.log_softmax(1).gather(1, t.argmax(1, keepdim=True))[:, 0]
        return [int(each) for each in np.flatnonzero(by_scikit_learn(losses) > o.threshold)]

    steps = 0
    for _ in range(rounds):
        for _ in range(o.student_steps):
            if o.selection == "mixture":
                found: list[Tensor] = []
                while len(found) < o.batch:
                    with torch.no_grad():
                        view, plain = made()
                    places, room = selected(plain), o.batch - len(found)
                    if len(places) > room:
                        order = torch.randperm(len(places), generator=streams["rest"])[:room]
                        places = [places[each] for each in order]
                    found += [view[each] for each in places]
                    steps += 1
                images = torch.stack(found)
            else:
                with torch.no_grad():
                    images = made()[0]
            opt_s.zero_grad()
            (teacher(images) - student(images)).abs().mean().backward()
            opt_s.step()
            steps += 1
        view, plain = made()
        clean = view[selected(plain)] if o.selection == "mixture" else view
        heard.clear()
        t, s = teacher(clean), student(clean)
        t = t.detach() if o.selection == "none" else t
        p, q = (s / o.temperature).softmax(1), (t / o.temperature).softmax(1)
        m = (0.5 * (p + q)).clamp(0.01, 0.99)
        p, q = p.clamp(0.01, 0.99), q.clamp(0.01, 0.99)
        js = (0.5 * m * (m.log() - p.log()) + 0.5 * m * (m.log() - q.log())).mean()
        loss = o.disagreement * (1 - js.clamp(0, 1)) + o.l2 * view.square().sum().sqrt()
        loss = loss + o.batch_norm_weight * heard.distance()
        for a, b in (
            (view[..., :-1], view[..., 1:]),
            (view[..., :-1, :], view[..., 1:, :]),
            (view[..., 1:, :-1], view[..., :-1, 1:]),
            (view[..., :-1, :-1], view[..., 1:, 1:]),
        ):
            loss = loss + o.tv * (a - b).square().sum().sqrt()
        opt_g.zero_grad()
        loss.backward()
        opt_g.step()
        steps += 1
    return {"generator": generator, "student": student, "steps": steps, "loss": loss.item()}


VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "no selection": {"selection": "none"},
    "another threshold": {"threshold": 0.3, "disagreement": 50.0, "tv": 0.01, "l2": 0.0},
    "no statistics": {"batch_norm_weight": 0.0},
}


@pytest.mark.usefixtures("_double")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("variant", first_quick(VARIANTS))
def test_four_rounds_equal_the_codes_loop(variant: str) -> None:
    options = {"schedule": "constant", **VARIANTS[variant]}
    expected = reference(4, Options(**{**SMALL, **options}))
    context = play(options, expected["steps"])
    assert same_weights(context.kept["generator"], expected["generator"], 1e-7)  # with running statistics
    assert same_weights(context.student, expected["student"], 1e-7)
    assert expected["steps"] == 12 if variant == "no selection" else expected["steps"] >= 12 + 8


@pytest.mark.usefixtures("_double")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "options", first_quick([{"threshold": 0.999}, {"selection": "none"}, {"disagreement": 0.0}]), ids=str
)
def test_another_setting_would_be_noticed(options: dict[str, Any]) -> None:
    constant = {"schedule": "constant"}
    expected = reference(2, Options(**{**SMALL, **constant}))
    context = play({**constant, **options}, expected["steps"])
    assert not same_weights(context.kept["generator"], expected["generator"], 1e-6)


def test_the_student_gets_a_full_batch_of_what_was_selected() -> None:
    student, teacher = Listening(lenet(2, "lenet5bn-half")), Listening(sure(1, "lenet5bn"))
    context = play({}, 40, student=student, teacher=teacher)
    asked = [len(each) for each in teacher.heard]
    assert {len(each) for each in student.heard[:2]} == {24}
    assert asked.count(24) > len(student.heard)  # the selections
    assert 0 < context.take_logs()["selected"] < 1


def test_the_rate_falls_along_a_cosine() -> None:
    rate = play({"selection": "none"}, 30).kept["opt_s"].param_groups[0]["lr"]
    assert rate == pytest.approx(0.01 * (1 + math.cos(math.pi * 28 / 30)) / 2)


def test_defaults_are_the_released_scripts() -> None:
    card = find_methods()["ta_dfkd"]
    assert card.needs_batch_norm({})
    assert not card.needs_batch_norm({"batch_norm_weight": 0.0})
    o = Options()
    assert (o.latent, o.width, o.eps, o.lr_generator, o.student_steps) == (1000, 128, 0.8, 1e-3, 10)
    assert (o.threshold, o.temperature, o.batch_norm_weight, o.l2, o.tv) == (0.5, 3, 10, 6e-3, 1.5e-5)
    assert (o.lr_student, o.momentum, o.weight_decay, o.schedule) == (0.01, 0.9, 5e-4, "cosine")
    assert (o.selection, o.disagreement) == ("mixture", 1)
