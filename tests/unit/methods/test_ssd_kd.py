"""SSD-KD: phi, the buffer, priorities and weights in NumPy; the loop's parts; every inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, Listening, lenet, run, same_weights
from torch import Tensor, nn

from bench import StudentBatch
from bench.data.image_spec import ImageSpec
from bench.harness import checkpoint
from bench.harness.session import Session
from bench.harness.trial_context import TrialContext
from bench.spec.method_registry import find_methods
from bench.utils.rng import Streams
from methods.common.pixels import PixelSpace
from methods.common.replay import ReplayBuffer, discrepancies, importance, judged, modulation
from methods.ssd_kd import Options, ssd_kd

RANDOM = np.random.default_rng(0)
TINY: dict[str, Any] = {
    "buffer": 16, "batch_synthesis": 8, "iterations": 2, "share": 0.9, "reset_at": 0, "latent": 6, "width": 4,
    "student_steps": 3, "batch": 12, "lr_student": 0.01,
}  # fmt: skip
SPACE = PixelSpace(IMAGE.mean, IMAGE.std)


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    networks = {"teacher": lenet(1, "lenet5bn"), "student": lenet(2, "lenet5bn-half"), **around}
    return run(ssd_kd.declared, {**TINY, **options}, steps=steps, **networks)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    scaled = np.exp(logits / temperature - (logits / temperature).max(1, keepdims=True))
    return scaled / scaled.sum(1, keepdims=True)


def kl(teacher: np.ndarray, student: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return temperature**2 * (p * (np.log(p) - np.log(q))).sum(1)


def filled(classes: list[int], confidence: list[float], capacity: int | None = None, **more: Any) -> ReplayBuffer:
    buffer = ReplayBuffer(capacity or len(classes), 10, SPACE, **more)
    images = torch.zeros(len(classes), *IMAGE.shape)
    buffer.add(images, torch.tensor(classes), torch.tensor(confidence))
    return buffer


# ---- phi -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("diversity", [True, False])
def test_phi_is_rarity_times_doubt_to_the_power_of_gamma(gamma: float, diversity: bool) -> None:
    logits = RANDOM.normal(0, 3, (40, 10))
    classes, best = logits.argmax(1), softmax(logits).max(1)
    shares = RANDOM.dirichlet(np.ones(10))
    expected = (1 - shares[classes] if diversity else 1) * (1 - best) ** gamma
    found = modulation(torch.tensor(logits), torch.tensor(shares), gamma, diversity)
    np.testing.assert_allclose(found, np.broadcast_to(expected, 40), rtol=1e-9)
    assert found.min() >= 0
    assert found.max() <= 1


def test_a_class_that_fills_the_buffer_has_no_phi_and_an_empty_buffer_is_no_reason() -> None:
    logits = torch.tensor([[5.0, *[0.0] * 9], [*[0.0] * 9, 5.0]])
    assert modulation(logits, filled([0] * 4, [0.5] * 4).shares())[0] == 0
    assert modulation(logits, filled([0] * 4, [0.5] * 4).shares())[1] > 0
    empty = ReplayBuffer(4, 10, SPACE)
    torch.testing.assert_close(modulation(logits, empty.shares()), modulation(logits, torch.ones(10), diversity=False))
    assert not empty.shares().any()


def test_a_certain_image_gives_no_infinite_gradient() -> None:
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    modulation(logits, torch.zeros(2), gamma=0.5).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_of_a_map_the_most_frequent_class_and_the_mean_confidence_count() -> None:
    logits = RANDOM.normal(0, 2, (3, 4, 5, 6))
    classes, confidence = judged(torch.tensor(logits))
    for image in range(3):
        flat = logits[image].reshape(4, -1).T
        assert int(classes[image]) == np.bincount(flat.argmax(1), minlength=4).argmax()
        assert confidence[image].item() == pytest.approx(softmax(flat).max(1).mean())


@pytest.mark.parametrize("masked", [True, False])
def test_discrepancies_are_those_of_each_image(masked: bool) -> None:
    teacher, student = RANDOM.normal(0, 2, (20, 4)), RANDOM.normal(0, 2, (20, 4))
    expected = kl(teacher, student) * ((teacher.argmax(1) == student.argmax(1)) if masked else 1)
    found = discrepancies(torch.tensor(teacher), torch.tensor(student), masked)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    maps = [torch.tensor(each.reshape(5, 2, 2, 4)).permute(0, 3, 1, 2) for each in (teacher, student)]
    np.testing.assert_allclose(discrepancies(*maps, masked), expected.reshape(5, 4).mean(1), rtol=1e-9)


# ---- the buffer ------------------------------------------------------------------------------------------------------


def test_room_is_made_by_the_easiest_of_the_most_frequent_class_one_by_one() -> None:
    for _ in range(5):
        classes, confidence = RANDOM.choice(10, 60, p=RANDOM.dirichlet(np.ones(10))), RANDOM.random(60)
        left, expected = set(range(60)), []
        for _ in range(25):
            counts = np.bincount([classes[i] for i in left], minlength=10)
            worst = max((i for i in left if counts[classes[i]] == counts.max()), key=lambda i: confidence[i])
            left.remove(worst)
            expected.append(worst)
        buffer = filled(classes.tolist(), confidence.tolist())
        assert sorted(buffer.evicted(25).tolist()) == sorted(expected)


def test_first_in_first_out_is_the_ablation() -> None:
    buffer = filled([0, 1, 2, 3], [0.9, 0.1, 0.5, 0.7], eviction="fifo")
    assert buffer.evicted(2).tolist() == [0, 1]
    buffer.add(torch.ones(3, *IMAGE.shape), torch.tensor([7, 8, 9]), torch.full((3,), 0.5))
    assert buffer.evicted(4).tolist() == [3, 0, 1, 2]


def test_balanced_eviction_keeps_classes_balanced() -> None:
    skewed = RANDOM.choice(10, (30, 20), p=[0.55, *[0.05] * 9])
    balances = []
    for eviction in ("balanced", "fifo"):
        buffer = ReplayBuffer(100, 10, SPACE, eviction)  # type: ignore[arg-type]
        for classes in skewed:
            buffer.add(torch.zeros(20, *IMAGE.shape), torch.tensor(classes), torch.rand(20))
        counts = np.bincount(buffer.row("classes"), minlength=10) / 100
        expected = -sum(share * np.log(share) for share in counts if share) / np.log(10)
        assert buffer.balance().item() == pytest.approx(expected, rel=1e-5)
        balances.append(expected)
    assert balances[0] > 0.95 > balances[1]


def test_a_full_buffer_is_updated_in_part_and_survives_a_stop() -> None:
    buffer = filled([0, 0, 0, 1], [0.2, 0.8, 0.5, 0.9], capacity=6)
    buffer.note(torch.tensor([1, 3]), torch.tensor([0.25, 3.0]), torch.tensor([0.5, 0.125]))
    new = SPACE.restore(torch.randint(256, (4, *IMAGE.shape), dtype=torch.uint8))
    buffer.add(new, torch.tensor([5, 6, 7, 8]), torch.full((4,), 0.5))
    assert len(buffer) == 6
    assert buffer.row("classes").tolist() == [0, 7, 8, 1, 5, 6]  # the easiest of class 0 went
    torch.testing.assert_close(buffer.images.take(torch.tensor([4, 5, 1, 2])), new)
    assert buffer.row("delta").tolist() == [1, 3, 3, 3, 3, 3]  # new ones get the highest
    assert buffer.row("weight").tolist() == [1, 1, 1, 0.125, 1, 1]
    again = ReplayBuffer(6, 10, SPACE)
    checkpoint.restore_into(again, checkpoint.state_of(buffer))
    more = torch.zeros(2, *IMAGE.shape), torch.tensor([3, 3]), torch.full((2,), 0.3)
    for each in (buffer, again):
        each.add(*more)
    for name in ("classes", "confidence", "delta", "weight", "age"):
        assert torch.equal(buffer.row(name), again.row(name))


def test_more_images_than_places_do_not_overrun() -> None:
    buffer = filled([1, 2, 3, 4, 5], [0.5] * 5, capacity=3)
    assert len(buffer) == 3
    buffer.add(torch.zeros(5, *IMAGE.shape), torch.arange(5), torch.rand(5))
    assert sorted(buffer.row("classes").tolist()) == [0, 1, 2]


# ---- priorities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_probabilities_and_importance_weights(alpha: float, beta: float) -> None:
    buffer, delta = filled([0] * 30, [0.5] * 30), RANDOM.exponential(1, 30).astype(np.float32)
    buffer.note(torch.arange(30), torch.tensor(delta), torch.ones(30))
    expected = (np.abs(delta) + 1e-6) ** alpha
    expected = expected / expected.sum()
    found = buffer.probabilities(alpha, 1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.sum().item() == pytest.approx(1, abs=1e-12)
    weights = (30 * expected) ** -beta
    np.testing.assert_allclose(importance(found, beta), weights / weights.max(), rtol=1e-5)
    if alpha == 0 or beta == 0:
        assert torch.equal(importance(found, beta), torch.ones(30, dtype=torch.float64))


def test_draws_have_the_probabilities() -> None:
    p = torch.tensor([0.5, 0.0, 0.2, 0.3], dtype=torch.float64)
    drawn = ReplayBuffer(4, 10, SPACE).draw(40_000, p, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 40_000, p, atol=0.01)
    assert drawn.min() == 0
    assert drawn.max() == 3


def test_of_a_place_that_was_drawn_twice_the_higher_priority_stays() -> None:
    buffer = filled([0] * 3, [0.5] * 3)
    buffer.note(torch.tensor([2, 0, 2]), torch.tensor([0.1, -0.2, 0.4]), torch.tensor([0.5, 1.0, 0.5]))
    torch.testing.assert_close(buffer.row("delta"), torch.tensor([0.2, 1.0, 0.4]))
    torch.testing.assert_close(buffer.row("weight"), torch.tensor([1.0, 1.0, 0.5]))


# ---- the loop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest", ["buffer", "batch"])
def test_student_steps_follow_the_priorities(largest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws, weights, losses and new priorities of each step, worked out again from the networks' answers."""
    seen: list[dict[str, Any]] = []
    student_step = Session.student_step

    def spy(self: Session, optimizer: Any, images: Tensor, own: Callable[[StudentBatch], Tensor], **how: Any) -> Tensor:
        def heard(batch: StudentBatch) -> Tensor:
            loss = own(batch)
            answers = {"teacher": batch.teacher, "student": batch.student.detach()}
            seen.append({**answers, "places": batch.rows, "loss": loss.item()})
            return loss

        return student_step(self, optimizer, images, heard, **how)

    monkeypatch.setattr(Session, "student_step", spy)
    options = {"alpha": 0.7, "beta": 0.2, "priority_temperature": 2.0, "temperature": 5.0, "student_steps": 6}
    options["largest"] = largest
    context = play(options, 4 + 2 + 6)  # two calls fill the buffer, a third has a part of it renewed
    stream = Streams(0, torch.device("cpu"))["buffer"]
    delta, last = np.ones(16), np.ones(16)
    assert len(seen) == 6
    for number, step in enumerate(seen, start=2):
        priority = (delta + 1e-6) ** 0.7
        p = priority / priority.sum()
        height = torch.rand(12, generator=stream, dtype=torch.float64).numpy()
        places = np.searchsorted(np.cumsum(p), height)
        assert step["places"].tolist() == places.tolist()
        weights = (16 * p) ** -(0.2 + 0.8 * number / 8)
        weights = weights / (weights if largest == "buffer" else weights[places]).max()
        teacher, student = step["teacher"].double().numpy(), step["student"].double().numpy()
        assert step["loss"] == pytest.approx((weights[places] * kl(teacher, student, 5.0)).mean(), rel=1e-4)
        new = last[places] * kl(teacher, student, 2.0)
        for place in set(places.tolist()):
            delta[place] = new[places == place].max()
            last[place] = weights[place]
    np.testing.assert_allclose(context.kept["buffer"].row("delta"), delta, rtol=1e-3)
    np.testing.assert_allclose(context.kept["buffer"].row("weight"), last, rtol=1e-4)


def test_without_priorities_it_is_plain_distillation() -> None:
    runs = [play({"alpha": 0.0, "beta": beta}, 20) for beta in (0.1, 0.9)]
    assert same_weights(runs[0].student, runs[1].student)
    assert all(context.kept["buffer"].row("weight").eq(1).all() for context in runs)


def test_the_buffer_is_filled_first_and_then_updated_in_part() -> None:
    student = Listening(lenet(2, "lenet5bn-half"))
    context = play({"buffer": 20}, 6, student=student)  # three calls, the last one fills it up
    buffer = context.kept["buffer"]
    assert len(buffer) == 20
    assert not student.heard
    context = play({"buffer": 20}, 6 + 5, student=student)
    assert len(student.heard) == 2 + 3  # the fourth call's adversarial term, then student steps
    meter = context.meter
    assert meter.teacher_images == 4 * 2 * 8 + 3 * 12
    assert meter.optimizer_steps == 4 * 2 + 4 + 3
    assert context.kept["filled"]["calls"] == 3


def test_images_held_and_made_are_logged_once_a_call() -> None:
    logs = play({"buffer": 20}, 4 * 2).take_logs()  # four calls of eight images
    assert logs["held"] == (8 + 16 + 20 + 20) / 4
    assert logs["made"] == (8 + 16 + 24 + 32) / 4


def test_the_buffer_keeps_its_stated_size_in_8_bits() -> None:
    (images,) = play({"buffer": 20}, 6 + 4 * 5).kept["buffer"].images.state_dict()["parts"]
    assert (len(images), images.dtype) == (20, torch.uint8)


def test_filling_takes_at_most_its_share() -> None:
    context = play({"buffer": 500, "share": 0.25, "adversarial": 0.0}, 20)
    assert context.kept["filled"]["calls"] == 3  # five steps; the third call is finished afterwards
    assert len(context.kept["buffer"]) == 6 * 8


def test_the_student_evaluates_in_synthesis() -> None:
    student = lenet(2, "lenet5bn-half")
    modes: list[tuple[bool, bool]] = []
    student.register_forward_hook(
        lambda network, args, out: modes.append((network.training, args[0].requires_grad)), prepend=True
    )
    play({}, 4 + 5, student=student)
    assert [mode for mode in modes if mode != (False, False)] == [(False, True)] * 2 + [(True, False)] * 3


def test_phi_weighs_the_adversarial_term_alone() -> None:
    """With gamma so large that phi is 0 the inversion is that without an adversarial term."""
    options = {"adversarial": 5.0, "discrepancy": "kl", "diversity": False}
    none, off, on = (
        play({**options, **more}, 4 + 5).kept["generator"] for more in ({"gamma": 1000.0}, {"adversarial": 0.0}, {})
    )
    assert same_weights(none, off, 1e-6)
    assert not same_weights(none, on, 1e-6)


def test_it_learns_from_networks_that_answer_for_every_pixel() -> None:
    image = ImageSpec(channels=3, size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    options = {**TINY, "generator": "dcgan", "student_steps": 10, "lr_student": 0.05, "temperature": 2.0}
    context = run(ssd_kd.declared, options, steps=60, image=image, teacher=Pixelwise(1), student=Pixelwise(2))
    images = context.kept["buffer"].images.take(torch.arange(16))
    with torch.no_grad():
        answers = [network.eval()(images) for network in (Pixelwise(1), Pixelwise(2), context.student)]
    teacher, before, after = (each.log_softmax(1) for each in answers)
    first, last = ((teacher.exp() * (teacher - each)).sum(1).mean() for each in (before, after))
    assert last < 0.7 * first
    assert ssd_kd.declared.segmentation


class Pixelwise(nn.Module):
    """Answers for every pixel of images of three channels."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
            self.head = nn.Conv2d(4, 10, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images))
        return logits


# ---- what it says of itself ------------------------------------------------------------------------------------------


def test_it_is_labelled_as_re_derived_and_needs_batch_norm() -> None:
    card = find_methods()["ssd_kd"]
    assert card.title == "SSD-KD (re-derived)"
    assert card.needs_batch_norm({})
    assert not card.needs_batch_norm({"batch_norm_weight": 0.0})
    context = run(ssd_kd.declared, {**TINY, "batch_norm_weight": 0.0}, steps=12)
    assert not same_weights(context.student, lenet(2, "lenet5-half"))


def test_defaults_are_the_documented_starting_points() -> None:
    o = Options()
    assert (o.buffer, o.gamma, o.diversity, o.phi_gradient, o.eviction) == (5000, 2, True, False, "balanced")
    assert (o.alpha, o.beta, o.eps, o.largest, o.temperature, o.batch) == (1, 0.4, 1e-6, "batch", 20, 256)
    assert (o.batch_norm_weight, o.one_hot, o.adversarial, o.discrepancy) == (10, 0.4, 1.1, "agreement")
    assert (o.iterations, o.lr_generator, o.lr_codes, o.meta, o.batch_synthesis) == (2, 5e-3, 0.015, "maml", 256)
    assert (o.student_steps, o.optimizer, o.lr_student, o.momentum, o.weight_decay) == (20, "sgd", 0.1, 0.9, 1e-4)


@pytest.mark.parametrize(("teacher", "weights"), [("resnet18", (1.33, 0.5)), ("vgg11-resnet18", (1.0, 0.5))])
def test_other_teachers_have_fast_dfkds_weights_and_rate(teacher: str, weights: tuple[float, float]) -> None:
    for data in ("cifar10", "cifar100"):
        o = ssd_kd.declared.make_options(ssd_kd.declared.presets[f"{data}/{teacher}"])
        assert (o.adversarial, o.one_hot, o.batch_norm_weight, o.lr_student) == (*weights, 10, 0.2)
