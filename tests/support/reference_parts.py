"""What several methods' loops have in common, written a second time for their tests, without the methods' own code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from method_fixtures import IMAGE, lenet, run, same_weights
from torch import Generator, Tensor, nn

from bench.harness.trial_context import TrialContext
from bench.spec.method import Method
from bench.spec.method_registry import find_methods

Statistics = tuple[Tensor, ...]  # mean and variance of a layer's input


def normalise(pixels: Tensor) -> Tensor:
    """Pixels in 0..1 as networks on :data:`IMAGE` see them."""
    return (pixels - IMAGE.mean[0]) / IMAGE.std[0]


class HeardMaps:
    """What the batch norms of a network are given: the ``maps`` of all passes since the last ``clear``."""

    def __init__(self, network: nn.Module) -> None:
        self.maps: list[Tensor] = []
        self._norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        for norm in self._norms:
            norm.register_forward_pre_hook(lambda _, args: self.maps.append(args[0]))

    def clear(self) -> None:
        self.maps.clear()

    def statistics(self) -> list[Statistics]:
        """Of one pass, each layer's mean and biased variance."""
        means = [each.mean((0, 2, 3)) for each in self.maps]
        centred = [each - mean.view(1, -1, 1, 1) for each, mean in zip(self.maps, means, strict=True)]
        return [(mean, (each**2).mean((0, 2, 3))) for mean, each in zip(means, centred, strict=True)]

    def distance(self, statistics: Sequence[Statistics] | None = None) -> Tensor:
        """R_bn: the sum over the layers of the distances, unsquared, of mean and variance to the stored ones."""
        found = torch.zeros(())
        for norm, pair in zip(self._norms, statistics or self.statistics(), strict=True):
            for own, stored in zip(pair, (norm.running_mean, norm.running_var), strict=True):
                assert stored is not None
                found = found + (own - stored).square().sum().sqrt()
        return found


def start_normal(network: nn.Module, stream: Generator) -> None:
    """N(0, 0.02^2) for the layers' weights, N(1, 0.02^2) for the batch norms', biases 0, statistics as at first."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.weight.data.normal_(0, 0.02, generator=stream)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.normal_(1, 0.02, generator=stream)
            layer.reset_running_stats()
        if isinstance(getattr(layer, "bias", None), Tensor):
            layer.bias.data.zero_()  # type: ignore[union-attr,operator]


def averaged(statistics: Sequence[Statistics], past: Sequence[Statistics], share: float) -> list[Statistics]:
    """Each layer's statistics with a ``share`` of the ``past`` ones, where there are any; those are constants."""
    if not past:
        return list(statistics)
    pairs = zip(statistics, past, strict=True)
    return [tuple((1 - share) * a + share * b.detach() for a, b in zip(*each, strict=True)) for each in pairs]


def agreed_divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL(T || S) at a temperature, without its square; images for which both predict another class count as 0."""
    p, same = (teacher / temperature).softmax(1), teacher.argmax(1) == student.argmax(1)
    return ((p * (p.log() - (student / temperature).log_softmax(1))).sum(1) * same).mean()


def stored_images(context: TrialContext) -> Tensor:
    """The images of a method's ``pool``, in the order in which they are stored."""
    return torch.cat(context.kept["pool"].state_dict()["parts"])


def check_it_runs_without_batch_norm(method: Method, options: dict[str, Any], steps: int) -> None:
    """A method needs batch norm unless the weight is 0, and then learns from networks that have none."""
    card = find_methods()[method.name]
    assert card.needs_batch_norm({})
    assert not card.needs_batch_norm({"batch_norm_weight": 0.0})
    context = run(method, {**options, "batch_norm_weight": 0.0}, steps=steps)
    assert not same_weights(context.student, lenet(2, "lenet5-half"))
