"""Options that several methods have under the same names: bases for a method's own ``Options``.

A method inherits what it shares, states what is its own, and overrides a default by one line
(``lr_student: float = 0.2``). A base has the default of most of the methods that inherit it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench import option
from methods.common.optimizers import scheduled

# ---- the student's training ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StudentOptions:
    """The student's optimiser: Adam, or SGD with momentum."""

    optimizer: Literal["adam", "sgd"] = option("sgd", "the student's optimiser")
    lr_student: float = option(0.1, "the student's learning rate", above=0)
    momentum: float = option(0.9, "the student's momentum", low=0, high=1, when={"optimizer": "sgd"})
    weight_decay: float = option(1e-4, "the student's weight decay", low=0)


@dataclass(frozen=True)
class CosineOptions(StudentOptions):
    """Its rate falls along a cosine, or stays."""

    schedule: Literal["constant", "cosine"] = option("cosine", "how the student's rate falls")

    def rate(self, progress: float) -> float:
        """The student's learning rate at ``progress`` (0 to 1) of its phase."""
        return scheduled(self.lr_student, self.schedule, progress)


@dataclass(frozen=True)
class SteppedOptions(StudentOptions):
    """Its rate may also fall in steps."""

    schedule: Literal["constant", "cosine", "milestones"] = option("constant", "how the student's rate falls")
    milestones: tuple[float, ...] = option(
        (0.4, 0.8),
        "shares of the budget after which the student's rate is a tenth",
        above=0,
        high=1,
        when={"schedule": "milestones"},
    )

    def rate(self, progress: float) -> float:
        """The student's learning rate at ``progress`` (0 to 1) of its phase."""
        return scheduled(self.lr_student, self.schedule, progress, self.milestones)


@dataclass(frozen=True)
class RealImageOptions(SteppedOptions):
    """Training on real images: DAFL's teacher's optimiser for LeNet-5; for CIFAR, CMI's is in the presets."""

    batch: int = option(256, "images per step", unit="images", low=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    lr_student: float = 1e-3
    milestones: tuple[float, ...] = (0.6, 0.75, 0.9)
    weight_decay: float = 0.0


# ---- a generator that learns beside the student ----------------------------------------------------------------------


@dataclass(frozen=True)
class GeneratorOptions:
    """A generator that learns by Adam."""

    batch: int = option(512, "images of one generator or student step", unit="images", low=2)
    latent: int = option(100, "length of the generator's code", low=1)
    width: int = option(128, "channels of the generator's first layers; the papers' 128 are slow on a CPU", low=2)
    lr_generator: float = option(1e-3, "the generator's learning rate (Adam)", above=0)


@dataclass(frozen=True)
class AdversaryOptions(GeneratorOptions):
    """DFAD's and DDAD's generator, which looks for images on which teacher and student differ."""

    student_steps: int = option(5, "student steps before each generator step", low=1)
    discrepancy: Literal["mae", "mse", "kl"] = option("mae", "how far apart teacher and student are")
    temperature: float = option(1.0, "softmax temperature of `kl`", above=0, when={"discrepancy": "kl"})
    adaptive: bool = option(False, "the generator minimises -log(D + 1) instead of -D, as for segmentation")
    generator: Literal["upsample", "dcgan"] = option("upsample", "DFAD's for 32x32 images, or for 128x128")
    width: int = option(128, "channels of `upsample`'s first or `dcgan`'s last layers (128 and 64 in DFAD)", low=2)


# ---- images by gradient on themselves --------------------------------------------------------------------------------


@dataclass(frozen=True)
class InversionOptions(CosineOptions):
    """DeepDream, DeepInversion and ADI: how images are made, and how the student learns from them."""

    batch: int = option(256, "images made at a time", unit="images", low=2)
    iterations: int = option(2000, "updates of a batch of images", low=1)
    images: int = option(256_000, "the most images to make", unit="images", low=1)
    pool_mib: float = option(
        1024.0, "a larger pool of images lies on the host, in 16 bits, with `clip` in 8", unit="MiB", above=0
    )
    lr_images: float = option(0.05, "Adam's learning rate on normalised images", above=0)
    beta1: float = option(0.9, "Adam's first decay on images", low=0, high=0.999)
    beta2: float = option(0.999, "Adam's second decay on images", low=0, high=0.99999)
    schedule_images: Literal["constant", "cosine"] = option("constant", "how the images' rate falls within a batch")
    warmup: int = option(
        0, "updates over which the images' rate rises", low=0, high=1000, when={"schedule_images": "cosine"}
    )
    labels: Literal["balanced", "random"] = option("balanced", "the wanted classes: all in turn, or drawn")
    jitter: int = option(2, "largest random shift, each way", unit="pixels", low=0)
    flip: bool = option(False, "mirror the whole batch in every second update, by chance")
    tv: float = option(2.5e-5, "weight of the total variation", low=0)
    tv_form: Literal["l2", "l1"] = option("l2", "total variation by norms over the batch, or by mean absolute values")
    l2: float = option(3e-8, "weight of the images' L2 norm; 0 in the code", low=0)
    l2_form: Literal["batch", "image"] = option("batch", "one norm over the batch, or the mean of each image's")
    clip: bool = option(False, "cut images to the range of pixels after every update")
    share: float = option(0.5, "share of the budget spent on images", above=0, high=0.99)
    temperature: float = option(3.0, "softmax temperature of the distillation loss", above=0)
    batch_student: int = option(256, "images per student step", unit="images", low=2)
    augmentation: Literal["crop+flip", "crop", "none"] = option("crop+flip", "what the student's images go through")


@dataclass(frozen=True)
class StatisticsOptions:
    """DeepInversion's term of batch-norm statistics."""

    batch_norm_weight: float = option(10.0, "weight of the batch-norm statistics", above=0)
    first_layer: float = option(1.0, "factor of the first batch-norm layer's term; 10 for ImageNet", low=0)
    squared: bool = option(False, "squared norms of the statistics, for comparison")


# ---- images by inverting a generator, a batch a call -----------------------------------------------------------------


@dataclass(frozen=True)
class SynthesisOptions(CosineOptions):
    """CMI, Fast-DFKD and SSD-KD: calls that make a batch of images, and the student's steps between them."""

    batch_synthesis: int = option(256, "images of one synthesis call", unit="images", low=2)
    iterations: int = option(200, "updates of a synthesis call", low=1)
    batch_norm_weight: float = option(10.0, "weight of the distance of batch-norm statistics", low=0)
    one_hot: float = option(0.4, "weight of the cross-entropy with the wanted classes", low=0)
    adversarial: float = option(1.1, "weight of the disagreement with the student, where both predict alike", low=0)
    latent: int = option(256, "length of the generator's code", low=1)
    width: int = option(128, "channels of the generator's first layers; the papers' 128 are slow on a CPU", low=2)
    student_steps: int = option(400, "student steps after each synthesis call", low=1)
    batch: int = option(256, "images per student step", unit="images", low=2)
    temperature: float = option(20.0, "softmax temperature of the distillation loss", above=0)


@dataclass(frozen=True)
class MetaOptions(SynthesisOptions):
    """Fast-DFKD's generator, whose start is learned; SSD-KD has it too."""

    iterations: int = option(5, "updates of a synthesis call (k)", low=1)
    share: float = option(
        0.2, "the largest share of the budget for the warm-up, or for filling the buffer", above=0, high=0.99
    )
    average: float = option(
        0.9, "momentum of the average of batch statistics over calls", low=0, high=0.999, when={"batch_norm_weight": 10}
    )
    meta: Literal["maml", "reptile", "none"] = option("maml", "how the generator's start is learned")
    reset_at: int = option(
        120, "call after the warm-up or the filling at which the first layers start over; 0: at none", low=0
    )
    lr_generator: float = option(3e-3, "Adam's learning rate on the copy; the meta learner's is k times that", above=0)
    lr_codes: float = option(0.01, "Adam's learning rate on the codes", above=0)


@dataclass(frozen=True)
class StoreOptions:
    """The store of all images of CMI and Fast-DFKD."""

    pool: int = option(51_200, "the most images to keep (all, in the paper's 200 calls)", unit="images", low=1)
    eight_bit: bool = option(True, "keep images in 8 bits, as the PNG files of the reference code do")
    memory_mib: float = option(
        2048.0, "larger stores lie on the host, images in 8 bits", unit="MiB", above=0, when={"eight_bit": False}
    )
