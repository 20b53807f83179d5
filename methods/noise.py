"""RANDOM: the floor. The student learns from noise that the teacher labels.

DAFL's table has it as "normal distribution": x ~ N(0, 1) in normalised space, student and optimiser as DAFL's (``kind:
pixels``). DFAD's table has "RANDOM"; whether that is pixel noise or the images of an untrained generator is not stated,
so the latter is here too (``kind: generator``): DFAD's generator, frozen, in training mode, fed with N(0, 1) codes. The
loss is KL_tau(T || S) for both.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from bench import Access, Data, Session, image_generator, method, option
from methods.common.options import SteppedOptions
from methods.common.training import kept_optimizer, scheduled_steps


@dataclass(frozen=True)
class Options(SteppedOptions):
    kind: Literal["pixels", "generator"] = option("pixels", "normal pixels, or a frozen untrained generator's images")
    batch: int = option(512, "images per step", unit="images", low=2)
    temperature: float = option(1.0, "softmax temperature of the distillation loss", above=0)
    latent: int = option(100, "length of the generator's code", low=1, when={"kind": "generator"})
    width: int = option(128, "channels of the generator", low=2, when={"kind": "generator"})
    optimizer: Literal["adam", "sgd"] = "adam"
    lr_student: float = 2e-3
    weight_decay: float = 0.0


@method(
    "noise", title="Noise", data=Data.NONE, access=Access.LOGITS, segmentation=True,
    paper="Chen et al., Data-Free Learning of Student Networks, ICCV 2019 (row 'normal distribution')",
    presets={
        "cifar10": {
            "batch": 1024, "optimizer": "sgd", "lr_student": 0.1, "weight_decay": 5e-4, "schedule": "milestones",
            "latent": 256,
        },
        "cifar100": {
            "batch": 1024, "optimizer": "sgd", "lr_student": 0.1, "weight_decay": 5e-4, "schedule": "milestones",
            "latent": 256,
        },
        "camvid": {
            "batch": 64, "optimizer": "sgd", "lr_student": 0.1, "weight_decay": 5e-4, "schedule": "milestones",
            "milestones": (0.333, 0.667),
        },
        "nyuv2": {
            "batch": 64, "optimizer": "sgd", "lr_student": 0.1, "weight_decay": 5e-5, "schedule": "milestones",
            "milestones": (0.333, 0.667),
        },
        "caltech101": {
            "batch": 64, "optimizer": "sgd", "lr_student": 0.05, "weight_decay": 5e-4, "schedule": "milestones",
            "milestones": (0.333, 0.667),
        },
    },
    quick={"batch": 32, "width": 8},
)  # fmt: skip
def noise(s: Session, o: Options) -> None:
    """The student matches the teacher on noise: what any method has to beat."""
    generator = s.keep("generator", image_generator(o.latent, s.task.image, o.width)) if o.kind == "generator" else None
    opt_s = kept_optimizer(s, o)
    for _ in scheduled_steps(s, opt_s, o):
        with torch.no_grad():
            if generator is None:
                images = s.noise(o.batch, *s.task.image.shape)
            else:
                images = generator(s.noise(o.batch, o.latent))
        s.distill(opt_s, images, temperature=o.temperature)
