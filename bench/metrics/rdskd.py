"""The protocol of RDSKD's table (Han et al., ICASSP 2021, by its code): very few images, so that its numbers can be
compared with. Five images per class for IS and FID, at most ten pairs per class for LPIPS; none of it means much.

Its code writes float images through a JPEG encoder before it scores them, and takes torchvision's Inception for IS;
here the kept pixels are scored as they are, through the extractor that the metric's name says.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.errors import Unavailable
from bench.metrics import diversity
from bench.metrics.embedding import embed
from bench.metrics.featured import SPLITS, facts_of, logits_of
from bench.metrics.frechet import frechet_distance, moments
from bench.metrics.inception_score import inception_score_of_splits
from bench.metrics.perceptual import paired
from bench.metrics.plain import class_labels
from bench.metrics.scene import ImageSets, Measured

PER_CLASS, PAIRS = 5, 10
WARNING = "RDSKD's protocol: {}; to compare with its table only"


def few_inception_score(scene: ImageSets, name: str) -> Measured:
    logits = logits_of(scene, name)
    chosen = _last_of_each(class_labels(scene), scene.classes, PER_CLASS)
    value, spread = inception_score_of_splits(logits[chosen], SPLITS)
    doubt = WARNING.format(f"{len(chosen)} images, splits of about {max(1, len(chosen) // SPLITS)}")
    facts = {"images": len(chosen), "spread": spread, "dimension": logits.shape[1]}
    return Measured(value, (doubt,), facts=facts_of(scene, name) | facts)


def few_frechet(scene: ImageSets, name: str) -> Measured:
    """Against test images, as its code does."""
    extractor, features, _ = scene.embedded(name)
    chosen = _last_of_each(class_labels(scene), scene.classes, PER_CLASS)
    real = _last_of_each(scene.dataset.test.labels, scene.classes, PER_CLASS)
    seen = embed(extractor, scene.middle(scene.dataset.test.images[real]))[0]
    value = frechet_distance(moments(features[chosen]), moments(seen))
    doubt = WARNING.format(f"{len(chosen)} images against {len(real)} test images")
    facts = {"images": len(chosen), "real_images": len(real)}
    return Measured(value, (doubt,), facts=facts_of(scene, name) | facts)


def few_perceptual(scene: ImageSets, name: str) -> Measured:
    labels, perceptual = class_labels(scene), scene.perceptual(name)
    each = [torch.nonzero(labels == k).flatten()[-PAIRS - 1 :] for k in range(scene.classes)]
    first, second = torch.cat([index[:-1] for index in each]), torch.cat([index[1:] for index in each])
    if not len(first):
        raise Unavailable("no class has two images")
    value = paired(perceptual, scene.images[first], scene.images[second]).mean().item()
    doubt = WARNING.format(f"at most {PAIRS} pairs of successive images per class")
    facts = {"images": len(torch.cat([first, second]).unique()), "pairs": len(first)}
    return Measured(value, (doubt,), facts=facts | diversity.facts_of(perceptual))


def _last_of_each(labels: Tensor, classes: int, count: int) -> Tensor:
    """The places of the last ``count`` images of each class: synthetic ones get better over a trial."""
    return torch.cat([torch.nonzero(labels == k).flatten()[-count:] for k in range(classes)])
