"""ADI against paper and code: the competition with the student, new batches while it learns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from method_fixtures import lenet, run, same_weights
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from bench.spec.method_registry import find_methods
from bench.spec.requirements import why_unsupported
from bench.spec.task import get_task
from methods.adi import Options, adi
from methods.common.losses import competition, likeness
from methods.deepinversion import Options as DeepInversionOptions
from methods.deepinversion import deepinversion

SMALL = {
    "batch": 6, "iterations": 3, "first_images": 6, "images": 18, "batch_student": 16, "share": 0.5, "student_steps": 4,
}  # fmt: skip


@pytest.fixture
def order() -> Iterator[list[Optimizer]]:
    """The optimisers in the order in which they take steps."""
    steps: list[Optimizer] = []
    handle = register_optimizer_step_post_hook(lambda optimizer, *_: steps.append(optimizer))
    yield steps
    handle.remove()


def around(**change: nn.Module) -> dict[str, nn.Module]:
    return {"teacher": lenet(1, "lenet5bn"), "student": lenet(2, "lenet5bn-half"), **change}


def test_a_new_batch_joins_the_pool_after_so_many_student_steps(order: list[Optimizer]) -> None:
    context = run(adi.declared, SMALL, steps=22, **around())
    kinds = "".join("s" if each is context.kept["opt_s"] else "x" for each in order)
    assert kinds == "xxx" + "ssssxxx" * 2 + "sssss"  # the pool is full then
    assert len(context.kept["pool"]) == 18
    assert context.meter.student_backward == 13 * 16 + 6 * 6  # through the student to the competing images
    assert context.meter.teacher_images == 9 * 6 + 13 * 16
    assert context.meter.synthesised_images == 18


def test_a_batch_that_the_first_share_cuts_short_is_used_and_the_next_one_is_whole(order: list[Optimizer]) -> None:
    context = run(adi.declared, {**SMALL, "iterations": 5, "share": 0.1}, steps=20, **around())
    kinds = "".join("s" if each is context.kept["opt_s"] else "x" for each in order)
    assert kinds == "xx" + "ssssxxxxx" * 2
    assert len(context.kept["pool"]) == 18


def test_the_first_images_are_deepinversions() -> None:
    ours = run(adi.declared, SMALL, steps=7, **around())
    shared = {key: value for key, value in SMALL.items() if key not in ("first_images", "student_steps")}
    theirs = run(deepinversion.declared, {**shared, "images": 6}, steps=7, **around())
    assert torch.equal(ours.kept["pool"].state_dict()["parts"][0], theirs.kept["pool"].state_dict()["parts"][0])


def divergence(t: np.ndarray, s: np.ndarray, clamped: bool) -> float:
    """Jensen-Shannon's of the paper, or what the code has under this name; of probabilities, mean over the batch."""
    m = (t + s) / 2
    if clamped:
        m, t, s = (np.clip(each, 0.01, 0.99) for each in (m, t, s))
        return float(0.5 * (m * np.log(m / s)).sum() / len(t) + 0.5 * (m * np.log(m / t)).sum() / len(t))
    return float(0.5 * (t * np.log(t / m)).sum() / len(t) + 0.5 * (s * np.log(s / m)).sum() / len(t))


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_the_papers_competition_is_one_minus_the_jensen_shannon_divergence(tau: float) -> None:
    t, s = np.random.default_rng(0).normal(0, 5, (2, 7, 4))
    p, q = (np.exp(each / tau) / np.exp(each / tau).sum(1, keepdims=True) for each in (t, s))
    pairs = torch.tensor(t), torch.tensor(s)
    assert likeness(*pairs, tau).item() == pytest.approx(1 - divergence(p, q, clamped=False), rel=1e-12)
    assert competition(*pairs, tau).item() == pytest.approx(1 - divergence(p, q, clamped=True), rel=1e-12)
    assert likeness(*pairs, tau).item() == likeness(*pairs[::-1], tau).item()


def test_the_divergence_of_networks_that_exclude_each_other_is_log_two_and_of_equal_ones_zero() -> None:
    certain = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]], requires_grad=True)
    apart, same = likeness(certain, -certain), likeness(certain, certain)
    assert apart.item() == pytest.approx(1 - np.log(2))
    assert same.item() == 1
    (gradient,) = torch.autograd.grad(apart, certain)
    assert torch.isfinite(gradient).all()


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("clamped", [False, True])
def test_later_images_compete_with_the_student_as_it_is(clamped: bool) -> None:
    """One update of the second batch, written out: the divergence in NumPy, its gradient by finite differences."""
    options = {
        **SMALL, "iterations": 1, "jitter": 0, "tv": 0.0, "l2": 0.0, "batch_norm_weight": 0.0, "competition": 5.0,
        "student_steps": 1, "lr_images": 1e-6, "clamped": clamped,
    }  # fmt: skip
    networks = around()
    before = run(adi.declared, options, steps=2, **around())
    teacher, student = lenet(1, "lenet5bn").eval(), before.student.eval()

    def loss(x: np.ndarray, labels: np.ndarray) -> float:
        with torch.no_grad():
            t, s = (F.softmax(network(torch.tensor(x)) / 3, 1).numpy() for network in (teacher, student))
            plain = F.softmax(teacher(torch.tensor(x)), 1).numpy()
        js = divergence(t, s, clamped)
        one_hot = -np.log(plain[range(len(x)), labels]).mean()
        return float(one_hot + 5.0 * (1 - np.clip(js, 0, 1)))

    found: list[torch.Tensor] = []

    def watch(optimizer: Optimizer, *_: object) -> None:
        parameter = optimizer.param_groups[0]["params"][0]
        if parameter.shape == (6, 1, 32, 32):
            assert parameter.grad is not None
            found.append(parameter.grad.clone())

    handle = register_optimizer_step_post_hook(watch)
    try:
        context = run(adi.declared, options, steps=3, **networks)
    finally:
        handle.remove()
    assert len(found) == 2  # the first batch's only update, and the second's
    x, labels = context.kept["images"].detach().numpy(), context.kept["labels"].numpy()
    for place in np.ndindex(2, 1, 2, 2):
        at = (place[0], 0, 10 + 7 * place[2], 12 + 5 * place[3])
        up, down = x.copy(), x.copy()
        up[at] += 1e-5
        down[at] -= 1e-5
        slope = (loss(up, labels) - loss(down, labels)) / 2e-5
        assert found[1][at].item() == pytest.approx(slope, rel=1e-2, abs=1e-7)


def test_the_student_is_asked_in_evaluation_mode_and_stays_as_it_is() -> None:
    student = lenet(2, "lenet5bn-half")
    modes: list[tuple[bool, bool]] = []
    student.register_forward_hook(
        lambda network, args, out: modes.append((network.training, args[0].requires_grad)), prepend=True
    )
    context = run(adi.declared, SMALL, steps=14, **around(student=student))
    mine = [mode for mode in modes if mode != (False, False)]  # others are the harness's measurements
    assert mine == [(True, False)] * 4 + [(False, True)] * 3 + [(True, False)] * 4
    assert context.student.training
    norms = [layer for layer in context.student.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    assert [int(layer.num_batches_tracked) for layer in norms] == [8] * len(norms)


def test_making_images_leaves_the_students_weights_alone() -> None:
    """Before and after the second batch."""
    options = {**SMALL, "share": 0.2, "first_images": 1, "iterations": 2, "schedule": "constant"}
    contexts = [run(adi.declared, options, steps=steps, **around()) for steps in (6, 8)]
    assert same_weights(contexts[0].student, contexts[1].student)
    assert [len(context.kept["pool"]) for context in contexts] == [6, 12]


def outspoken(seed: int, name: str) -> nn.Module:
    """An untrained network that is sure of something."""
    network = lenet(seed, name)
    with torch.no_grad():
        list(network.parameters())[-2].mul_(30)  # the last layer's weight
    return network


@pytest.mark.slow
def test_competition_makes_images_on_which_the_student_differs_more() -> None:
    options = {**SMALL, "batch": 32, "first_images": 32, "images": 64, "iterations": 25, "lr_student": 1e-4}
    gaps = []
    for weight in (0.0, 10.0):
        networks = {"teacher": outspoken(1, "lenet5bn"), "student": outspoken(2, "lenet5bn-half")}
        context = run(adi.declared, {**options, "competition": weight, "batch_norm_weight": 0.0}, steps=54, **networks)
        assert len(context.kept["pool"]) == 64
        images = torch.cat(context.kept["pool"].state_dict()["parts"])[32:]
        with torch.no_grad():
            p = F.softmax(context.student.eval()(images) / 3, 1)
            q = F.softmax(outspoken(1, "lenet5bn").eval()(images) / 3, 1)
        gaps.append((p - q).abs().sum(1).mean().item())
    assert gaps[1] > 1.2 * gaps[0]


def test_without_statistics_it_needs_no_batch_norm() -> None:
    card = find_methods()["adi"]
    assert "batch_norm_weight above 0" in why_unsupported(card, get_task("digits/lenet5-half"), {})
    assert not why_unsupported(card, get_task("digits/lenet5-half"), {"batch_norm_weight": 0.0})
    context = run(adi.declared, {**SMALL, "batch_norm_weight": 0.0}, steps=12)
    assert context.meter.student_backward


def test_defaults_are_deepinversions_and_the_papers() -> None:
    ours, theirs = vars(Options()), vars(DeepInversionOptions())
    assert {name: ours[name] for name in theirs} == theirs
    more = {
        "competition": 10.0,
        "temperature_competition": 3.0,
        "student_steps": 50,
        "first_images": 128_000,
        "clamped": False,
    }
    assert {name: value for name, value in ours.items() if name not in theirs} == more
    assert adi.declared.presets == deepinversion.declared.presets
