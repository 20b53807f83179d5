"""What is measured, and what each number means: unit, direction, bounds and what it needs. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A number that the suite reports.

    ``higher_is_better`` is None where neither direction is better in itself. ``kind`` says where it comes from: the
    student's ``score``, the synthetic ``image``s, or what the trial ``cost``. A name that ends in ``[EXTRACTOR]`` or
    ``[NETWORK]`` stands for one metric with each extractor of features, or each network of perceptual distances.
    """

    name: str
    doc: str
    kind: Literal["score", "image", "cost"]
    unit: str
    higher_is_better: bool | None
    low: float | None = 0.0
    high: float | None = None
    needs: str = ""


_ALL = (
    Metric("accuracy", "share of test images whose class the student predicts", "score", "share", True, high=1.0),
    Metric(
        "miou",
        "segmentation: intersection over union of each class over all test pixels, averaged over the classes; void "
        "pixels do not count",
        "score",
        "share",
        True,
        high=1.0,
    ),
    Metric(
        "pixel_accuracy",
        "segmentation: share of test pixels assigned their class; void pixels do not count",
        "score",
        "share",
        True,
        high=1.0,
    ),
    Metric("iou[CLASS]", "segmentation: the intersection over union of one class", "score", "share", True, high=1.0),
    Metric(
        "agreement",
        "share of test images (in segmentation: of pixels that have a class) on which student and teacher agree",
        "score",
        "share",
        True,
        high=1.0,
    ),
    Metric(
        "synthetic_agreement",
        "of a task without any images: share of made images on which student and teacher agree; it proves little",
        "score",
        "share",
        True,
        high=1.0,
    ),
    Metric(
        "class_balance",
        "entropy of the classes that the teacher assigns to the synthetic images, divided by ln(classes)",
        "image",
        "share",
        True,
        high=1.0,
        needs="the teacher",
    ),
    Metric(
        "confidence",
        "mean of the teacher's highest class probability on the synthetic images",
        "image",
        "probability",
        None,
        high=1.0,
        needs="the teacher",
    ),
    Metric(
        "distillation_loss",
        "mean over the synthetic images of KL(teacher || student) of the class probabilities, the student as the trial "
        "left it; an image's is the mean over its pixels in segmentation",
        "image",
        "nats",
        None,
        needs="the teacher, the student",
    ),
    Metric(
        "distillation_loss_variance",
        "variance over the synthetic images of KL(teacher || student), with n - 1 in the denominator",
        "image",
        "nats squared",
        None,
        needs="the teacher, the student",
    ),
    Metric(
        "intra_class_pixel_std",
        "standard deviation of a pixel over the synthetic images of one class (as the teacher assigns them), "
        "averaged over pixels and classes",
        "image",
        "share of the pixel range",
        True,
        high=math.sqrt(0.5),  # of two images, one black and one white, with the n - 1 in the denominator
        needs="the teacher",
    ),
    Metric(
        "nearest_training_distance",
        "memorisation: root mean square difference of a synthetic image to the nearest training image, mean",
        "image",
        "share of the pixel range",
        None,
        high=1.0,
        needs="the training images",
    ),
    Metric(
        "is[EXTRACTOR]",
        "Inception Score over all images at once: exp of the mutual information of image and class",
        "image",
        "classes",
        True,
        low=1.0,
        needs="an extractor that classifies",
    ),
    Metric(
        "is_splits[EXTRACTOR]",
        "Inception Score in torch-fidelity's form: mean over 10 splits of the shuffled images",
        "image",
        "classes",
        True,
        low=1.0,
        needs="an extractor that classifies",
    ),
    Metric(
        "fid[inception]",
        "Fréchet Inception Distance to the training images",
        "image",
        "squared distance",
        False,
        needs="Inception's weights, the training images",
    ),
    Metric(
        "fd[EXTRACTOR]",
        "Fréchet distance to the training images between features of an extractor that is not Inception",
        "image",
        "squared distance",
        False,
        needs="an extractor, the training images",
    ),
    Metric(
        "fid_infinity[inception]",
        "FID extrapolated to infinitely many synthetic images (Chong and Forsyth, 2020)",
        "image",
        "squared distance",
        False,
        low=None,
        needs="Inception's weights, the training images",
    ),
    Metric(
        "fd_infinity[EXTRACTOR]",
        "Fréchet distance extrapolated to infinitely many synthetic images",
        "image",
        "squared distance",
        False,
        low=None,
        needs="an extractor, the training images",
    ),
    Metric(
        "kid[EXTRACTOR]",
        "Kernel Inception Distance: squared maximum mean discrepancy under the cubic kernel, unbiased, over all pairs",
        "image",
        "squared distance",
        False,
        low=None,
        needs="an extractor, the training images",
    ),
    Metric(
        "kid_subsets[EXTRACTOR]",
        "Kernel Inception Distance in torch-fidelity's form: mean over 100 random subsets of 1,000",
        "image",
        "squared distance",
        False,
        low=None,
        needs="an extractor, the training images",
    ),
    Metric(
        "precision[EXTRACTOR]",
        "share of the synthetic images that lie among the training images' 3 nearest neighbours",
        "image",
        "share",
        True,
        high=1.0,
        needs="an extractor, the training images",
    ),
    Metric(
        "recall[EXTRACTOR]",
        "share of the training images that lie among the synthetic images' 3 nearest neighbours",
        "image",
        "share",
        True,
        high=1.0,
        needs="an extractor, the training images",
    ),
    Metric(
        "density[EXTRACTOR]",
        "mean number of training images' 5-neighbour balls around a synthetic image, over 5 (Naeem et al., 2020)",
        "image",
        "ratio",
        True,
        needs="an extractor, the training images",
    ),
    Metric(
        "coverage[EXTRACTOR]",
        "share of the training images whose 5-neighbour ball contains a synthetic image",
        "image",
        "share",
        True,
        high=1.0,
        needs="an extractor, the training images",
    ),
    Metric(
        "lpips[NETWORK]",
        "diversity: mean perceptual distance of all pairs of images of one class, as the teacher assigns them",
        "image",
        "distance",
        True,
        needs="the network's weights, the teacher",
    ),
    Metric(
        "lpips_all[NETWORK]",
        "diversity: mean perceptual distance of all pairs of images",
        "image",
        "distance",
        True,
        needs="the network's weights",
    ),
    Metric(
        "rdskd_is[EXTRACTOR]",
        "Inception Score by RDSKD's protocol: five images per class, 10 splits; noisy, only for its table",
        "image",
        "classes",
        True,
        low=1.0,
        needs="an extractor that classifies, the teacher",
    ),
    Metric(
        "rdskd_fid[inception]",
        "FID by RDSKD's protocol: five images per class against five test images per class; only for its table",
        "image",
        "squared distance",
        False,
        needs="Inception's weights, the teacher, the test images",
    ),
    Metric(
        "rdskd_fd[EXTRACTOR]",
        "Fréchet distance by RDSKD's protocol through another extractor",
        "image",
        "squared distance",
        False,
        needs="an extractor, the teacher, the test images",
    ),
    Metric(
        "rdskd_lpips[NETWORK]",
        "LPIPS by RDSKD's protocol: at most ten successive pairs per class; only for its table",
        "image",
        "distance",
        True,
        needs="the network's weights, the teacher",
    ),
    Metric("seconds", "wall-clock time inside the method, evaluation excluded", "cost", "s", False),
    Metric("steps", "passes through the method's loops", "cost", "steps", False),
    Metric("optimizer_steps", "optimiser updates of any network or image", "cost", "steps", False),
    Metric("teacher_images", "images forward through the teacher", "cost", "images", False),
    Metric("teacher_backward", "images backward through the teacher", "cost", "images", False),
    Metric("student_images", "images forward through the student", "cost", "images", False),
    Metric("student_backward", "images backward through the student", "cost", "images", False),
    Metric("synthesised_images", "images made by registered networks or drawn as noise", "cost", "images", False),
    Metric("real_images", "real images that the method was given", "cost", "images", False),
    Metric("gmacs", "multiply-adds of all networks, forward and backward", "cost", "10^9", False),
    Metric("evaluation_seconds", "wall-clock time of scoring and checkpointing", "cost", "s", False),
    Metric("peak_memory_mib", "highest memory use of the process, or of the GPU", "cost", "MiB", False),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
