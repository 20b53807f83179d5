"""Image metrics through an extractor's features or class probabilities."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bench.errors import Unavailable
from bench.metrics.frechet import frechet_distance, frechet_infinity, moments
from bench.metrics.inception_score import inception_score, inception_score_of_splits
from bench.metrics.kernel import kernel_distance, kernel_distance_of_subsets
from bench.metrics.neighbours import density_coverage, precision_recall
from bench.metrics.scene import ImageSets, Measured

SPLITS = 10
STRAIGHT = 20  # images per dimension from which on a Fréchet distance falls along a line in 1 / images, as measured
NEIGHBOURS, BALL = 3, 5  # of precision and recall, and of density and coverage, as their papers have them


def whole_inception_score(scene: ImageSets, name: str) -> Measured:
    logits = logits_of(scene, name)
    return Measured(inception_score(logits), _few_for(logits), facts=facts_of(scene, name) | _classes(logits))


def split_inception_score(scene: ImageSets, name: str) -> Measured:
    logits = logits_of(scene, name)
    value, spread = inception_score_of_splits(logits, SPLITS)
    each = len(logits) // SPLITS
    doubts = (f"splits of {each} images for {logits.shape[1]} classes",) if each < logits.shape[1] else ()
    return Measured(value, doubts, facts=facts_of(scene, name) | _classes(logits) | {"spread": spread})


def frechet(scene: ImageSets, name: str) -> Measured:
    features = scene.embedded(name)[1]
    value = frechet_distance(moments(features), scene.reference(name).moments)
    return Measured(value, _below_twice(scene, name), facts=_compared(scene, name))


def frechet_at_infinity(scene: ImageSets, name: str) -> Measured:
    features = scene.embedded(name)[1]
    value = frechet_infinity(features, scene.reference(name).moments)
    count, dimension = features.shape
    doubts = _below_twice(scene, name)
    if not doubts and count < STRAIGHT * dimension:
        doubts = (
            f"{count} images for {dimension} dimensions: below {STRAIGHT} per dimension the line is not straight",
        )
    return Measured(value, doubts, facts=_compared(scene, name))


def kernel(scene: ImageSets, name: str) -> Measured:
    reference = scene.reference(name)
    value = kernel_distance(scene.embedded(name)[1], reference.features, reference.kernel_mean)
    return Measured(value, facts=_compared(scene, name))


def kernel_of_subsets(scene: ImageSets, name: str) -> Measured:
    features, real = scene.embedded(name)[1], scene.reference(name).features
    value, spread = kernel_distance_of_subsets(features, real)
    fewer = min(len(features), len(real))
    notes = (f"subsets of {fewer} images, all there are",) if fewer < 1000 else ()
    return Measured(value, notes=notes, facts=_compared(scene, name) | {"spread": spread})


def precision(scene: ImageSets, name: str) -> Measured:
    return Measured(_precision_recall(scene, name)[0], facts=_compared(scene, name))


def recall(scene: ImageSets, name: str) -> Measured:
    return Measured(_precision_recall(scene, name)[1], facts=_compared(scene, name))


def density(scene: ImageSets, name: str) -> Measured:
    return Measured(_density_coverage(scene, name)[0], facts=_compared(scene, name))


def coverage(scene: ImageSets, name: str) -> Measured:
    return Measured(_density_coverage(scene, name)[1], facts=_compared(scene, name))


def _precision_recall(scene: ImageSets, name: str) -> tuple[float, float]:
    reference = scene.reference(name)
    features = scene.embedded(name)[1]
    return scene.once(
        ("precision", name),
        lambda: precision_recall(features, reference.features, NEIGHBOURS, reference.radii(NEIGHBOURS)),
    )


def _density_coverage(scene: ImageSets, name: str) -> tuple[float, float]:
    reference = scene.reference(name)
    features = scene.embedded(name)[1]
    return scene.once(
        ("density", name), lambda: density_coverage(features, reference.features, BALL, reference.radii(BALL))
    )


def logits_of(scene: ImageSets, name: str) -> Tensor:
    logits = scene.embedded(name)[2]
    if logits is None:
        raise Unavailable(f"the extractor {name!r} gives features and no classes")
    return logits


def _few_for(logits: Tensor) -> tuple[str, ...]:
    count, classes = logits.shape
    return (f"{count} images are fewer than the extractor's {classes} classes",) if count < classes else ()


def _below_twice(scene: ImageSets, name: str) -> tuple[str, ...]:
    """A covariance of D dimensions from few images is far from the true one, and the distance far too large."""
    count, dimension = scene.embedded(name)[1].shape
    fewest, of = min((count, "images"), (scene.reference(name).count, "training images"))
    if fewest >= 2 * dimension:
        return ()
    return (f"{fewest} {of} for {dimension} dimensions, fewer than twice as many: biased upwards, kid is not",)


def facts_of(scene: ImageSets, name: str) -> dict[str, Any]:
    extractor, features, _ = scene.embedded(name)
    return {
        "dimension": features.shape[1],
        "extractor": extractor.identity,
        "preprocessing": extractor.preprocessing,
    }


def _classes(logits: Tensor) -> dict[str, Any]:
    return {"dimension": logits.shape[1]}


def _compared(scene: ImageSets, name: str) -> dict[str, Any]:
    return facts_of(scene, name) | {"real_images": scene.reference(name).count}
