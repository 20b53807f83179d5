"""DFND: score, noise matrix and loss in NumPy; choice, training and a stop against bare loops."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, Listening, images_of, lenet, run, same_weights, trial
from scipy.special import log_softmax, softmax
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data import Split
from bench.data.batches import RealImages, normalise
from bench.harness import checkpoint
from bench.harness.trial_context import TrialContext
from bench.spec.method import Data
from methods.dfnd import adapted, dfnd, judged, noise_matrix

RANDOM = np.random.default_rng(0)
CPU = torch.device("cpu")
POOL = images_of(60)
TINY: dict[str, Any] = {"batch": 16, "kept": 0.5, "lr_student": 0.05, "lr_matrix": 0.05, "weight_decay": 0.0}
LOOK = 4  # steps that it takes to see the pool


def pool() -> Split:
    """Labels are places, as the runner hands a pool over."""
    return Split(POOL.images, torch.arange(len(POOL.images)))


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    around = {"teacher": lenet(1), "student": lenet(2, "lenet5-half"), **around}
    return run(dfnd.declared, {**TINY, **options}, steps=steps, train=pool(), **around)


def distinct(batches: list[Tensor]) -> set[bytes]:
    return {image.numpy().tobytes() for batch in batches for image in batch}


def q(free: np.ndarray, accuracy: float) -> np.ndarray:
    matrix = np.zeros_like(free)
    for i in range(len(free)):
        others = [j for j in range(len(free)) if j != i]
        matrix[i, others] = (1 - accuracy) * softmax(free[i, others])
        matrix[i, i] = accuracy
    return matrix


# ---- golden ----------------------------------------------------------------------------------------------------------


def test_the_score_is_the_cross_entropy_with_the_teachers_own_prediction() -> None:
    logits = RANDOM.normal(0, 4, (30, 10))
    scores, classes = judged(torch.tensor(logits))
    np.testing.assert_array_equal(classes, logits.argmax(1))
    np.testing.assert_allclose(scores, -log_softmax(logits, 1)[range(30), logits.argmax(1)], rtol=1e-12)


@pytest.mark.parametrize("accuracy", [0.3, 0.7774, 0.9523])
def test_rows_of_the_noise_matrix_sum_to_one_around_a_fixed_diagonal(accuracy: float) -> None:
    free = RANDOM.normal(0, 3, (10, 10))
    found = noise_matrix(torch.tensor(free), accuracy)
    np.testing.assert_allclose(found, q(free, accuracy), rtol=1e-9)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(found.diagonal(), accuracy)
    uniform = noise_matrix(torch.zeros(10, 10, dtype=torch.float64), accuracy)
    np.testing.assert_allclose(uniform[~torch.eye(10, dtype=torch.bool)], (1 - accuracy) / 9)


def test_the_noisy_label_is_explained_through_the_matrix() -> None:
    logits, free, labels = RANDOM.normal(0, 3, (20, 10)), RANDOM.normal(0, 1, (10, 10)), RANDOM.integers(10, size=20)
    noisy = softmax(logits, 1) @ q(free, 0.8)
    expected = -np.log(noisy[range(20), labels]).mean()
    found = adapted(torch.tensor(logits), torch.tensor(labels), noise_matrix(torch.tensor(free), 0.8))
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_only_entries_beside_the_diagonal_are_learned() -> None:
    free = torch.zeros(10, 10, requires_grad=True)
    adapted(torch.randn(20, 10), torch.arange(20) % 10, noise_matrix(free, 0.8)).backward()
    assert free.grad is not None
    assert not free.grad.diagonal().any()
    assert free.grad[~torch.eye(10, dtype=torch.bool)].all()


# ---- the loop --------------------------------------------------------------------------------------------------------


def test_it_looks_at_the_whole_pool_once_and_trains_on_the_images_of_which_the_teacher_is_surest() -> None:
    teacher = Listening(lenet(1))
    context = play({"kept": 0.25}, LOOK + 6, teacher=teacher)
    images = normalise(POOL.images, IMAGE)
    with torch.no_grad():
        sure = lenet(1).eval()(images).double().log_softmax(1).amax(1)
    best = images[sure.argsort(descending=True)[:15]]
    assert [len(heard) for heard in teacher.heard] == [16, 16, 16, 12, *[16] * 6]
    assert distinct(teacher.heard[:LOOK]) == distinct([images])
    assert distinct(teacher.heard[LOOK:]) == distinct([best])
    logs = context.take_logs()
    assert logs["kept"] == 0.25
    assert logs["certain"] == pytest.approx(sure.sort().values[-15:].exp().mean().item(), rel=1e-5)
    assert 0 < logs["balance"] <= 1


def test_when_its_share_is_spent_it_chooses_among_those_that_it_has_seen() -> None:
    teacher = Listening(lenet(1))
    context = play({"share": 0.2, "kept": 0.5}, 10, teacher=teacher)  # two steps of looking
    assert len(distinct(teacher.heard[:2])) == 32
    assert distinct(teacher.heard[2:]) < distinct(teacher.heard[:2])
    assert context.kept["found"]["kept"] == 16 / 60
    assert context.meter.teacher_images == 160


@pytest.mark.parametrize("options", [{}, {"temperature": 2.0, "adaptation": 0.3, "accuracy": 0.5}, {"adaptation": 0.0}])
def test_steps_follow_the_papers_loss(options: dict[str, Any]) -> None:
    o = dfnd.declared.make_options({**TINY, **options, "schedule": "constant"})
    student, teacher, real = lenet(2, "lenet5-half"), lenet(1).eval(), RealImages(pool(), IMAGE, 0, CPU)
    free = torch.zeros(10, 10, requires_grad=True)
    opt_s, opt_q = torch.optim.SGD(student.parameters(), 0.05, momentum=0.9), torch.optim.Adam([free], 0.05)
    with torch.no_grad():
        sure = teacher(normalise(POOL.images, IMAGE)).log_softmax(1).amax(1)
    real.choose(sure.argsort(descending=True)[:30].sort().values)
    for _ in range(4):
        images, _ = real.take(16)
        with torch.no_grad():
            answer = teacher(images)
        soft, own = (answer / o.temperature).softmax(1), student(images)
        divergence = (soft * (soft.log() - (own / o.temperature).log_softmax(1))).sum(1).mean()
        off = torch.where(torch.eye(10) > 0, torch.zeros(()), free.exp())
        matrix = o.accuracy * torch.eye(10) + (1 - o.accuracy) * off / off.sum(1, keepdim=True)
        noisy = F.nll_loss((own.softmax(1) @ matrix).log(), answer.argmax(1))
        opt_s.zero_grad()
        opt_q.zero_grad()
        (o.temperature**2 * divergence + o.adaptation * noisy).backward()
        opt_s.step()
        if o.adaptation:
            opt_q.step()
    context = play({**options, "schedule": "constant"}, LOOK + 4)
    assert context.meter.steps == LOOK + 4
    assert same_weights(context.student, student, 1e-5)
    torch.testing.assert_close(context.kept["free"], free, rtol=1e-3, atol=1e-5)


def test_the_codes_normalisation_is_imagenets() -> None:
    heard = []
    for normalisation in ("task", "imagenet"):
        teacher = Listening(lenet(1))
        play({"normalisation": normalisation, "kept": 1.0}, LOOK + 4, teacher=teacher)
        heard.append(torch.cat(teacher.heard))
    mean, std = np.mean([0.485, 0.456, 0.406]), np.mean([0.229, 0.224, 0.225])
    pixels = heard[0] * IMAGE.std[0] + IMAGE.mean[0]
    torch.testing.assert_close(heard[1], ((pixels - mean) / std).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stop", [2, LOOK, LOOK + 2])
def test_a_stop_while_it_looks_or_trains_changes_nothing(stop: int) -> None:
    class Stopped(Exception):
        pass

    whole, states = play({}, LOOK + 5), []

    def started(skip_phases: tuple[str, ...] = ()) -> Any:
        around = {"teacher": lenet(1), "student": lenet(2, "lenet5-half"), "steps": LOOK + 5, "data": Data.POOL}
        return trial(**around, train=pool(), skip_phases=skip_phases)

    with started() as (s, context):

        def end() -> None:
            if context.meter.steps == stop:
                states.append(copy.deepcopy(context.state()))
                raise Stopped

        context.hooks.after_step = end
        with pytest.raises(Stopped):
            dfnd.declared.run(s, dfnd.declared.make_options(TINY))
    (state,) = states
    with started(tuple(state["phases"][:-1])) as (s, context):
        context.hooks.on_keep = lambda name, thing: checkpoint.restore_into(thing, state["kept"][name])
        context.hooks.on_phase = lambda phase: context.restore(state) if phase == state["phases"][-1] else None
        dfnd.declared.run(s, dfnd.declared.make_options(TINY))
        assert same_weights(context.student, whole.student)
        assert context.kept["found"] == whole.kept["found"]
        assert context.meter.teacher_images == whole.meter.teacher_images


def test_settings_are_those_of_the_reference_code() -> None:
    o = dfnd.declared.make_options({})
    assert o.kept == pytest.approx(600_000 / 1_281_167, abs=5e-4)
    assert (o.batch, o.temperature, o.adaptation, o.accuracy, o.lr_matrix) == (256, 4.0, 1.0, 0.9523, 1e-3)
    assert (o.optimizer, o.lr_student, o.momentum, o.weight_decay) == ("sgd", 0.1, 0.9, 5e-4)
    assert (o.schedule, o.milestones, o.normalisation) == ("milestones", (0.4, 0.8), "task")
    assert dfnd.declared.make_options(dfnd.declared.presets["cifar100"]).accuracy == 0.7774


def test_the_rate_falls_along_the_training_not_along_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.SGD.step

    def noted(self: Any, *args: Any, **more: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **more)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    play({"milestones": (0.35, 0.75)}, LOOK + 10)
    assert rates == pytest.approx([0.05] * 4 + [0.005] * 4 + [0.0005] * 2)


def test_it_learns_what_the_teacher_says_of_the_chosen_images() -> None:
    certain = lenet(1)
    certain.head[2].weight.data.mul_(30)  # an untrained network says next to nothing
    context = play({"schedule": "constant", "kept": 1.0}, 50, teacher=certain)
    images = normalise(POOL.images, IMAGE)
    networks: list[nn.Module] = [certain, lenet(2, "lenet5-half"), context.student]
    with torch.no_grad():
        teacher, before, after = (network.eval()(images).log_softmax(1) for network in networks)
    first, last = ((teacher.exp() * (teacher - each)).sum(1).mean() for each in (before, after))
    assert last < 0.5 * first
