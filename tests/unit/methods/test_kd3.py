"""KD^3, derived again: losses in NumPy, selection by both networks, the student that holds the shared classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, Listening, images_of, lenet, run, same_weights
from scipy.special import log_softmax, softmax
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional as F

from bench.data import Split
from bench.data.batches import RealImages, normalise
from bench.harness.session import Session
from bench.harness.trial_context import TrialContext
from bench.utils.rng import Streams, seed_everything
from methods.kd3 import aligned, fold, info_nce, kd3, mixed

RANDOM = np.random.default_rng(0)
CPU = torch.device("cpu")
POOL = images_of(60)
TINY: dict[str, Any] = {
    "batch": 16, "rule": "share", "kept": 0.5, "every": 1, "optimizer": "sgd", "lr_student": 0.02, "weight_decay": 0.0,
    "schedule": "constant", "contrast": 0.0,
}  # fmt: skip
SURVEY = 4  # steps of a selection among the whole pool


def student() -> nn.Module:
    return lenet(2, "lenet5-half")


def teacher() -> nn.Module:
    """Untrained, but not of one opinion."""
    network = lenet(1)
    network.head[2].weight.data.mul_(30)
    return network


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    networks = {"teacher": teacher(), "student": student(), **around}
    split = Split(POOL.images, torch.arange(len(POOL.images)))
    return run(kd3.declared, {**TINY, **options}, steps=steps, train=split, **networks)


def distinct(batches: list[Tensor]) -> set[bytes]:
    return {image.numpy().tobytes() for batch in batches for image in batch}


# ---- golden ----------------------------------------------------------------------------------------------------------


def test_features_are_aligned_by_confidence() -> None:
    f, g, sure = RANDOM.normal(0, 1, (12, 7)), RANDOM.normal(0, 1, (12, 7)), RANDOM.random(12)
    expected = np.mean(sure / sure.mean() * ((f - g) ** 2).sum(1) / 7)
    assert aligned(*map(torch.tensor, (f, g, sure))).item() == pytest.approx(expected, rel=1e-9)
    unweighted = aligned(torch.tensor(f), torch.tensor(g), torch.full((12,), 0.4, dtype=torch.float64))
    assert unweighted.item() == pytest.approx(((f - g) ** 2).mean(), rel=1e-9)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_each_image_is_told_apart_from_the_others_of_the_batch(temperature: float) -> None:
    f, g = RANDOM.normal(0, 1, (9, 5)), RANDOM.normal(0, 1, (9, 5))
    cosine = (f @ g.T) / np.outer(np.linalg.norm(f, axis=1), np.linalg.norm(g, axis=1))
    expected = -log_softmax(cosine / temperature, 1).diagonal().mean()
    assert info_nce(torch.tensor(f), torch.tensor(g), temperature).item() == pytest.approx(expected, rel=1e-9)


def test_a_perturbed_image_has_a_mixture_of_two_images_statistics_and_the_first_ones_content() -> None:
    x, share = RANDOM.normal(0.4, 2, (6, 3, 8, 8)), RANDOM.random(6)
    partners = RANDOM.permutation(6)
    found = mixed(torch.tensor(x), torch.tensor(partners), torch.tensor(share), eps=0.0).numpy()
    own, m, d = share[:, None], x.mean((2, 3)), x.std((2, 3))
    np.testing.assert_allclose(found.mean((2, 3)), own * m + (1 - own) * m[partners], rtol=1e-9)
    np.testing.assert_allclose(found.std((2, 3)), own * d + (1 - own) * d[partners], rtol=1e-9)
    for image in range(6):
        for channel in range(3):
            assert np.corrcoef(found[image, channel].ravel(), x[image, channel].ravel())[0, 1] == pytest.approx(1)


def test_an_image_mixed_with_itself_alone_stays_and_a_flat_one_is_no_division_by_zero() -> None:
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(mixed(x, torch.tensor([1, 2, 3, 0]), torch.ones(4)), x, rtol=1e-4, atol=1e-4)
    flat = torch.stack([torch.full((1, 8, 8), 2.0), torch.zeros(1, 8, 8)])
    torch.testing.assert_close(mixed(flat, torch.tensor([1, 0]), torch.tensor([0.5, 0.5])), torch.ones(2, 1, 8, 8))


@pytest.mark.parametrize("bias", [torch.randn(10), None])
def test_a_last_layer_holds_what_the_shared_classifier_computes(bias: Tensor | None) -> None:
    adapter, weight, into, features = nn.Linear(5, 8), torch.randn(10, 8), nn.Linear(5, 10), torch.randn(20, 5)
    fold(adapter, weight, bias, into)
    torch.testing.assert_close(into(features), F.linear(adapter(features), weight, bias))


# ---- the loop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 2.0, "feature": 0.3, "weighted": False, "trust": 0.8, "trust_end": 0.8},
        {"classifier": "own"},
        {"contrast": 0.7, "contrast_temperature": 0.3, "mixing": 0.5},
        {"contrast": 0.7, "feature": 0.0},
    ],
)
def test_steps_follow_the_equations(options: dict[str, Any]) -> None:
    o = kd3.declared.make_options({**TINY, "candidates": 16, **options})  # one step of selection: 8 images or more
    net, network, real = student(), teacher().eval(), RealImages(Split(POOL.images, torch.arange(60)), IMAGE, 0, CPU)
    weight, bias = network.head[2].weight.detach(), network.head[2].bias.detach()
    with torch.random.fork_rng():
        seed_everything(0)
        adapter, partners = nn.Linear(42, 84), Streams(0, CPU)["partners"]
        shared = o.classifier == "shared"
        if shared:
            fold(adapter, weight, bias, net.head[2])
        looked, places = real.survey(16)
        with torch.no_grad():
            p = network(looked).softmax(1)
            if o.trust < 1:
                p = o.trust * p + (1 - o.trust) * net.eval()(looked).softmax(1)
        net.train()
        sure, classes = p.max(1)
        picked = [
            int(places[i])
            for i in range(16)
            if sum(bool(sure[j] > sure[i]) for j in range(16) if classes[j] == classes[i])
            < np.ceil(0.5 * int((classes == classes[i]).sum()))
        ]
        real.choose(torch.tensor(sorted(picked)))
        learned = [each for name, each in net.named_parameters() if not (shared and name.startswith("head.2"))]
        optimizer = torch.optim.SGD([*learned, *adapter.parameters()], 0.02, momentum=0.9)
        steps = -(-len(picked) // 16)
        for step in range(steps):
            trust = o.trust + (o.trust_end - o.trust) * (1 + step) / (1 + steps)
            images, _ = real.take(16)

            def hidden(network: nn.Module, images: Tensor) -> Tensor:
                return network.head[1](network.head[0](network.body(images)))

            with torch.no_grad():
                wanted = hidden(network, images)
                answer = network(images)
            f = hidden(net, images)
            logits = adapter(f) @ weight.T + bias if shared else net.head[2](f)
            soft = (answer / o.temperature).softmax(1)
            loss = o.temperature**2 * (soft * (soft.log() - (logits / o.temperature).log_softmax(1))).sum(1).mean()
            if o.feature:
                w = (trust * answer.softmax(1) + (1 - trust) * logits.detach().softmax(1)).amax(1)
                w = w / w.mean() if o.weighted else torch.ones(16)
                loss = loss + o.feature * (w * (wanted - adapter(f)).square().sum(1) / 84).mean()
            if o.contrast:
                share = Beta(o.mixing, o.mixing).sample((16,))
                changed = mixed(images, torch.randperm(16, generator=partners), share)
                loss = loss + o.contrast * info_nce(f, hidden(net, changed), o.contrast_temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if shared:
                fold(adapter, weight, bias, net.head[2])
    context = play({"candidates": 16, **options}, 1 + steps)
    assert context.meter.optimizer_steps == steps
    assert same_weights(context.student, net, 1e-5)
    if o.classifier == "shared" or o.feature:
        assert same_weights(context.kept["adapter"], adapter, 1e-5)


def test_the_student_that_is_scored_answers_as_the_teachers_classifier_does_behind_the_adapter() -> None:
    context = play({"contrast": 0.1}, 12)
    images, network, last = normalise(POOL.images, IMAGE), context.student.eval(), teacher().head[2]
    with torch.no_grad():
        features = network.head[1](network.head[0](network.body(images)))
        shared = last(context.kept["adapter"](features))
        torch.testing.assert_close(network(images), shared, rtol=1e-4, atol=1e-4)


def test_the_first_selection_is_the_teachers_and_the_next_ones_are_of_both() -> None:
    network, asked = Listening(teacher()), Listening(student())
    context = play({}, SURVEY, teacher=network, student=asked)
    images = normalise(POOL.images, IMAGE)
    assert asked.heard == []  # at the start a is 1
    with torch.no_grad():
        sure, classes = teacher().eval()(images).softmax(1).max(1)
    torch.testing.assert_close(context.kept["confidence"], sure)
    assert torch.equal(context.kept["classes"], classes)
    context = play({"trust": 0.6, "trust_end": 0.6}, SURVEY)
    with torch.no_grad():
        both = 0.6 * teacher().eval()(images).softmax(1) + 0.4 * context.student.eval()(images).softmax(1)
    torch.testing.assert_close(context.kept["confidence"], both.amax(1))


def test_the_teacher_is_asked_once_about_an_image_of_the_pool_and_again_about_those_trained_on() -> None:
    network, asked = Listening(teacher()), Listening(student())
    context = play({"kept": 0.25, "every": 2}, 40, teacher=network, student=asked)
    rounds = context.kept["at"]["round"]
    assert rounds >= 3
    trained = context.meter.optimizer_steps
    assert context.meter.teacher_images == 60 + 16 * trained
    looked = [heard for heard in asked.heard if len(heard) < 16]  # the last batch of each later selection
    assert len(looked) in (rounds - 1, rounds)
    assert distinct(network.heard[:SURVEY]) == distinct([normalise(POOL.images, IMAGE)])
    assert len(distinct(network.heard[SURVEY : SURVEY + 1])) < 60


def test_only_selected_images_are_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[set[int]] = []
    choose, images = Session.choose, Session.images

    def noted(self: Session, places: Tensor) -> None:
        chosen.append(set(places.tolist()))
        choose(self, places)

    def checked(self: Session, batch: int) -> tuple[Tensor, Tensor]:
        found = images(self, batch)
        assert set(found[1].tolist()) <= chosen[-1]
        return found

    monkeypatch.setattr(Session, "choose", noted)
    monkeypatch.setattr(Session, "images", checked)
    context = play({"rule": "threshold", "threshold": 0.5, "trust": 0.5, "lr_student": 0.05}, 60)
    assert len({frozenset(each) for each in chosen}) > 1  # the choice moves with the student
    assert context.take_logs()["kept"] == pytest.approx(np.mean([len(each) / 60 for each in chosen]), rel=0.5)


def test_a_selection_may_look_at_a_part_of_the_pool_the_next_in_turn() -> None:
    network = Listening(teacher())
    context = play({"candidates": 16, "trust": 0.9}, 12, teacher=network)
    assert context.kept["looked"].sum() in (12, 16)  # the last batch of a round through the pool is smaller
    assert context.kept["state"]["seen"] == 60
    assert context.kept["state"]["kept"] >= 0.5


def test_the_weight_of_the_teacher_falls_along_the_budget() -> None:
    context = play({"trust": 1.0, "trust_end": 0.5}, 40)
    assert 0.5 < context.kept["state"]["trust"] < 0.65


def test_held_out_images_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where some are held out others stand in for them, in every term."""
    batches: list[Tensor] = []
    student_features = Session.student_features

    def heard(self: Session, images: Tensor, **how: Any) -> tuple[Tensor, Tensor]:
        batches.append(images)
        return student_features(self, images, **how)

    monkeypatch.setattr(Session, "student_features", heard)
    monkeypatch.setattr("methods.kd3.mixed", lambda images, partners, share: images)  # the images themselves
    context = play({"batch": 40, "contrast": 0.1, "kept": 1.0}, 5)
    held = context.capture.held_out.column("images")
    assert held is not None
    first = batches[0]
    assert len(first) == 40
    assert not distinct([held[:8]]) & distinct([first])


def test_it_is_labelled_as_re_derived_and_its_inferences_are_options() -> None:
    declared = kd3.declared
    assert "re-derived" in declared.title
    assert declared.pool == "wild"
    o = declared.make_options({})
    assert (o.batch, o.optimizer, o.lr_student, o.momentum, o.weight_decay) == (256, "sgd", 0.1, 0.9, 5e-4)
    assert (o.temperature, o.trust, o.trust_end, o.mixing, o.classifier) == (4.0, 1.0, 0.5, 0.1, "shared")


def test_it_learns_what_the_teacher_says() -> None:
    context = play({"kept": 1.0, "contrast": 0.1, "lr_student": 0.01}, 80)
    images = normalise(POOL.images, IMAGE).numpy()
    with torch.no_grad():
        answers = [each.eval()(torch.tensor(images)).numpy() for each in (teacher(), student(), context.student)]
    p = softmax(answers[0], 1)
    first, last = ((p * (np.log(p) - log_softmax(each, 1))).sum(1).mean() for each in answers[1:])
    assert last < 0.5 * first
