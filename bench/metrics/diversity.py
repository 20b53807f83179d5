"""Diversity: how far apart the synthetic images are to the eye, as LPIPS sees it."""

from __future__ import annotations

from typing import Any

from bench.metrics.perceptual import Perceptual, mean_pairwise
from bench.metrics.plain import class_labels, over_classes, too_few
from bench.metrics.scene import ImageSets, Measured


def within_classes(scene: ImageSets, name: str) -> Measured:
    labels, perceptual = class_labels(scene), scene.perceptual(name)
    value, pairs = mean_pairwise(perceptual, scene.images, labels)
    counted = sum(int((labels == k).sum()) > 1 for k in range(scene.classes))
    return Measured(value, too_few(scene), over_classes(counted, scene), facts_of(perceptual) | {"pairs": pairs})


def over_all(scene: ImageSets, name: str) -> Measured:
    perceptual = scene.perceptual(name)
    value, pairs = mean_pairwise(perceptual, scene.images, None)
    return Measured(value, facts=facts_of(perceptual) | {"pairs": pairs})


def facts_of(perceptual: Perceptual) -> dict[str, Any]:
    return {"extractor": perceptual.identity, "preprocessing": perceptual.preprocessing}
