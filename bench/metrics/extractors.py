"""Extractors by name: the networks through whose features synthetic and real images are compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.data import find
from bench.data.batches import normalise
from bench.data.image_spec import ImageSpec
from bench.errors import Unavailable, UserError, nearest
from bench.harness.teachers.cache import cached_teacher, weights_hash
from bench.metrics.embedding import ANTIALIASED, Embedding, Extractor, embed, grey, identity_of, resized, rgb, tapped
from bench.models import taps
from bench.models.foreign import PREFIX, call_own
from bench.spec.metric_names import FEATURE_EXTRACTORS, INCEPTION, OPEN_WORDS, RANDOM
from bench.spec.task import TaskSpec, tasks
from bench.spec.teacher_key import teacher_key
from bench.utils.code_identity import code_hash
from bench.utils.rng import derive

__all__ = ["Embedding", "Extractor", "MetricContext", "embed", "get_extractor"]

LENET = "lenet5"
SMALL = 3 * 64 * 64  # values of an image of which many go through a network at once
SEED = 0  # of the random state in which a user's own function is called


@dataclass(frozen=True)
class MetricContext:
    """What an extractor may need to know about the trial whose images it sees."""

    task: TaskSpec
    teacher: nn.Module  # frozen, in evaluation mode, on the device
    teacher_sha: str
    classes: int
    device: torch.device
    weights: Path | None = None  # from --weights
    student: nn.Module | None = None  # as the trial left it, in evaluation mode, on the device; None: no metric asks


def get_extractor(name: str, around: MetricContext) -> Extractor:
    """The extractor of a name, ready to run on the trial's device.

    ``inception``, ``vgg16`` and their ``-random`` versions; ``teacher``; ``lenet5-DATASET``; ``torchvision/NETWORK``;
    a user's own ``module:function`` or ``path/to/file.py:function``.

    Raises:
        Unavailable: there is no such extractor, or its weights, library, teacher or code are not to be had.
    """
    try:
        return _find(name, around)
    except UserError as error:
        raise Unavailable(str(error)) from None


def _find(name: str, around: MetricContext) -> Extractor:
    base = name.removesuffix(RANDOM)
    if name == "teacher":
        return _teacher(around)
    if base in (INCEPTION, "vgg16"):
        from bench.metrics import imagenet  # torchvision takes a second to import

        build = imagenet.inception if base == INCEPTION else imagenet.vgg16
        return build(name, around.weights, around.device)
    if name.startswith(PREFIX):
        from bench.metrics.imagenet import of_torchvision

        return of_torchvision(name, around.weights, around.device)
    if name.startswith(f"{LENET}-"):
        return _lenet5(name, around)
    if ":" in name:
        return _own(name, around)
    raise Unavailable(f"unknown extractor {name!r}{nearest(name, FEATURE_EXTRACTORS)}, or {OPEN_WORDS}")


def _teacher(around: MetricContext) -> Extractor:
    """The task's teacher: the input of its head, averaged over positions in segmentation, and its logits."""
    image = around.task.image
    answer = tapped(around.teacher)
    preprocessing = _normalisation(image) + ("; features averaged over positions" if around.task.dense else "")

    def run(images: Tensor) -> Embedding:
        return answer(normalise(images.to(around.device), image))

    head = "".join(f" {name}" for name in taps.tapped(around.teacher, "head"))  # of other features
    identity = identity_of("teacher", around.teacher_sha + head, preprocessing)
    return Extractor("teacher", identity, preprocessing, _batch(image), run)


def _lenet5(name: str, around: MetricContext) -> Extractor:
    """The LeNet-5 that is the teacher of a built-in task on the data set that the name says."""
    own = {task.data: task for task in tasks().values() if task.built_in and task.teacher.network == LENET}
    dataset = name.removeprefix(f"{LENET}-")
    if dataset not in own:
        raise Unavailable(f"{name}: no built-in task has a LeNet-5 for the data set {dataset!r}{nearest(dataset, own)}")
    task = own[dataset]
    teacher = cached_teacher(task, teacher_key(task), len(find(dataset).classes))
    if teacher is None:
        raise Unavailable(
            f"{name} is the teacher of {task.name}, which is not trained yet; run `dfkd teacher train {task.name}`"
        )
    image, answer = task.image, tapped(teacher.network.to(around.device))
    colours = "grey repeated to 3 channels" if image.channels == 3 else "colours to grey (ITU-R 601 luma)"
    preprocessing = f"{colours}; {ANTIALIASED.format(image.size)}; {_normalisation(image)}"

    def run(images: Tensor) -> Embedding:
        pixels = images.to(around.device).float()
        pixels = rgb(pixels) if image.channels == 3 else grey(pixels)
        return answer(normalise(resized(pixels, image.size), image))

    identity = identity_of("teacher", str(teacher.passport["sha256"]), preprocessing)
    return Extractor(name, identity, preprocessing, _batch(image), run)


def _own(name: str, around: MetricContext) -> Extractor:
    """What a user's function gives for the task's ImageSpec: a module from float32 images in [0, 1] to features (N, D),
    or to features and logits (N, K)."""
    image = around.task.image
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(SEED, name))  # weights that it draws are the same every time
        file, network = call_own(name, image)
    network.eval().requires_grad_(False).to(around.device)
    preprocessing = "x / 255; the rest is the extractor's own"

    def run(images: Tensor) -> Embedding:
        try:
            found = network(images.to(around.device).float() / 255)
        except Exception as error:
            raise Unavailable(f"extractor {name!r}: {file} fails with {type(error).__name__}: {error}") from error
        features, logits = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
        for what, value in (("features", features), ("logits", logits)):
            if not (value is None and what == "logits"):
                _check(f"extractor {name!r}: {file} gives {what}", value, len(images))
        return features, logits

    identity = identity_of(f"own {code_hash(file)}", weights_hash(network), preprocessing)
    return Extractor(name, identity, preprocessing, _batch(image), run)


def _check(what: str, value: object, count: int) -> None:
    if not isinstance(value, Tensor):
        raise Unavailable(f"{what} of type {type(value).__name__}, not a tensor")
    if value.ndim != 2 or len(value) != count or not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise Unavailable(f"{what} {kind} {tuple(value.shape)} for {count} images, not floats ({count}, D)")


def _normalisation(image: ImageSpec) -> str:
    mean, std = (", ".join(map(str, values)) for values in (image.mean, image.std))
    return f"(x / 255 - ({mean})) / ({std})"


def _batch(image: ImageSpec) -> int:
    return 500 if image.channels * image.size**2 <= SMALL else 16
