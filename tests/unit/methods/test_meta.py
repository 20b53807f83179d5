"""Copies, sums of gradients and averages for a meta-learner; turns, evaluation mode and fresh optimisers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from method_fixtures import same_weights, trial
from torch import Tensor, nn
from torch.optim import SGD

from bench import BatchNormStatistics, cmi_generator
from bench.data.image_spec import ImageSpec
from bench.harness import checkpoint
from methods.common.meta import BatchNormAverage, GradientSum, copy_weights, normal_weights, reptile
from methods.common.rounds import evaluating, restart, turn

TINY = ImageSpec(channels=1, size=8, mean=(0.5,), std=(0.25,))


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_generator_starts_anew_as_cmi_does() -> None:
    network = cmi_generator(64, TINY, 64)
    network(torch.randn(8, 64))
    normal_weights(network, stream(1))
    again = cmi_generator(64, TINY, 64)
    normal_weights(again, stream(1))
    assert same_weights(network, again)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1.0, abs=0.02)
            assert 0.01 < module.weight.std().item() < 0.03
            assert not module.bias.any()
            assert not module.running_mean.any()


def test_a_copy_has_all_weights_and_goes_its_own_way() -> None:
    source, target = cmi_generator(4, TINY, 4), cmi_generator(4, TINY, 4)
    source(torch.randn(8, 4))
    copy_weights(source, target)
    assert same_weights(source, target)
    target[0].weight.data.add_(1)
    assert not same_weights(source, target)


def test_gradients_add_up_over_exactly_the_inner_updates() -> None:
    with trial(steps=1) as (s, _):
        meta, inner = s.keep("meta", nn.Linear(3, 1, bias=False)), s.keep("inner", nn.Linear(3, 1, bias=False))
        total = s.keep("total", GradientSum(meta))
        opt_meta, opt = (
            s.keep(f"opt {net.weight.shape} {id(net)}", SGD(net.parameters(), 0.1)) for net in (meta, inner)
        )
        start = meta.weight.detach().clone()
        copy_weights(meta, inner)
        data = torch.randn(2, 5, 3)
        expected, w = torch.zeros(1, 3), start.clone()
        for batch in data:
            s.update(opt, inner(batch).square().mean())
            total.add(inner)
            gradient = 2 * (batch @ w.T).T @ batch / 5
            expected, w = expected + gradient, w - 0.1 * gradient
        torch.testing.assert_close(inner.weight.detach(), w)
        saved = checkpoint.state_of(total)
        s.apply(opt_meta, total.take())
        torch.testing.assert_close(meta.weight.detach(), start - 0.1 * expected)
        assert not any(each.any() for each in total.sums)
        checkpoint.restore_into(total, saved)
        torch.testing.assert_close(total.sums[0], expected)


def test_reptile_points_from_the_inner_weights_to_the_meta_ones() -> None:
    (gradient,) = reptile([torch.tensor([3.0])], [torch.tensor([1.0])], 67.0)
    assert gradient.item() == 134.0


def entry(mean: Tensor, var: Tensor) -> BatchNormStatistics:
    return BatchNormStatistics(mean, var, torch.zeros(2), torch.ones(2))


def test_the_average_of_statistics_is_the_closed_form() -> None:
    average = BatchNormAverage(0.9)
    means = torch.randn(6, 2, generator=stream())
    for index, mean in enumerate(means):
        found = average.blend([entry(mean, mean + 5)])[0]
        weights = [0.9**index, *(0.1 * 0.9 ** (index - call) for call in range(1, index + 1))]
        expected = sum(weight * own for weight, own in zip(weights, means, strict=False))
        torch.testing.assert_close(found.mean, expected)
        torch.testing.assert_close(found.var, expected + 5)
        assert torch.equal(found.running_var, torch.ones(2))
        average.update([entry(mean, mean + 5)])
        again = BatchNormAverage(0.9)
        checkpoint.restore_into(again, checkpoint.state_of(average))
        average = again


def test_the_gradient_goes_through_the_batchs_part_alone() -> None:
    average = BatchNormAverage(0.75)
    average.update([entry(torch.ones(2, requires_grad=True), torch.ones(2))])
    mean = torch.zeros(2, requires_grad=True)
    average.blend([entry(mean, torch.ones(2))])[0].mean.sum().backward()
    assert mean.grad.tolist() == [0.25, 0.25]


# ---- turns -----------------------------------------------------------------------------------------------------------


def test_turns_follow_each_other_and_survive_a_stop() -> None:
    at: dict[str, Any] = {}
    seen = []
    for step in range(14):
        filled = at.get("round", 0) >= 2
        seen.append((*turn(at, make=2, learn=3 if filled else 0), at["round"]))
        if step % 2:
            at = dict(at)
    parts = [f"{part}{index}" for part, index, _ in seen]
    assert parts == ["make0", "make1"] * 2 + ["make0", "make1", "learn0", "learn1", "learn2"] * 2
    assert [number for _, _, number in seen] == [0, 0, 1, 1, *[2] * 5, *[3] * 5]
    with pytest.raises(ValueError, match="length 1 or more"):
        turn({}, make=0)


def test_a_student_in_evaluation_mode_is_metered_but_not_trained_on() -> None:
    with trial(steps=1) as (s, context):
        norm = s.keep("norm", nn.BatchNorm2d(1))  # what makes images has to be kept
        images = torch.randn(4, *s.task.image.shape)
        with evaluating(s.student, norm):
            assert not s.student.training
            s.student(images)
            norm(images)
        assert s.student.training
        assert not norm.running_mean.any()
        assert context.meter.student_images == 4
        assert context.capture.training.rows == []
        s.student(images)
        assert len(context.capture.training.rows) == 1
        with pytest.raises(RuntimeError, match="boom"), evaluating(s.student):
            raise RuntimeError("boom")
        assert s.student.training


def test_a_restarted_optimiser_is_as_good_as_new() -> None:
    def learn(fresh: bool) -> Tensor:
        with trial(steps=1) as (s, _):
            codes = s.keep("codes", torch.zeros(3, requires_grad=True))
            opt = s.keep("opt", torch.optim.Adam([codes], 0.1))
            if not fresh:
                s.update(opt, (codes * torch.tensor([1.0, -7.0, 3.0])).sum())
                codes.data.zero_()
                restart(opt)
            for _ in range(3):
                s.update(opt, (codes - 1).pow(4).sum())
            return codes.detach()

    assert torch.equal(learn(fresh=True), learn(fresh=False))
