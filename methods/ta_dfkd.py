"""TA-DFKD: the teacher as a lenient expert, which says which images are clean and asks the generator for no classes.

A round is ``student_steps`` steps of the student, then one of the generator. Images are pixels G(z) in [0, 1],
z ~ N(0, I), normalised: as they are (x), or cropped with 4 pixels of black border and mirrored, one crop and one mirror
for a whole batch (x'). A selection looks at x and takes from x':

    l_i     CE(T(x_i), argmax T(x_i)), scaled to [0, 1] over the batch
    p_i     posterior of the component of lower mean, of a mixture of two normals that is fitted to the l_i
    x'_i    is selected where p_i > ``threshold``

    student     selections are made, one a step of the loop, until a batch is together (of the last as many as are
                missing, at random); then one step on mean |S(x') - T(x')|
    generator   disagreement * (1 - clip(J, 0, 1)) + batch_norm_weight * R_bn, of the selected of one batch x',
                + l2 * |x'|_2 + tv * TV(x') of all of it
                R_bn sum over the teacher's batch norms of |mean - running mean| + |var - running var|
                J    the mean over N * K elements of [KL(M || P) + KL(M || Q)] / 2, with P, Q the softmax of S / tau
                     and T / tau, M = (P + Q) / 2, all clamped to [0.01, 0.99]; through T as well

Student and generator are in training mode throughout. The generator is DAFL's with a leaky ReLU after its first batch
norm, and a sigmoid. The mixture is fitted by at most 10 steps of expectation maximisation from two means, as
scikit-learn's, with its floor of 5e-4 under the variances; it starts at the smallest and the largest loss.
``selection: none`` is the code's method "basic": no selection anywhere, T is detached in J.

The defaults are those of the released scripts, but for the batch: the scripts at hand say 32, another reading of the
code 1,024, which is also that of PRE-DFKD, from whose loop this one comes. The paper was not read.

Differences: at least two images are selected. A selection of the student's that could add nothing is not made. The
cosine runs over the whole budget (the code steps it once in an epoch of 36 rounds). Other data sets than CIFAR take
its settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, image_generator, method, option
from methods.common.choosing import above
from methods.common.losses import batch_norm_distance, competition
from methods.common.optimizers import set_lr
from methods.common.options import CosineOptions, GeneratorOptions
from methods.common.pixels import PixelSpace
from methods.common.priors import l2_norm, total_variation
from methods.common.rounds import turn
from methods.common.training import kept_optimizer


@dataclass(frozen=True)
class Options(GeneratorOptions, CosineOptions):
    batch: int = 1024
    latent: int = 1000
    eps: float = option(0.8, "epsilon of the generator's later batch norms, as in the reference code", above=0)
    student_steps: int = option(10, "student steps before each generator step", low=1)
    selection: Literal["mixture", "none"] = option("mixture", "whether the teacher selects images")
    threshold: float = option(
        0.5, "posterior above which an image is clean", low=0, high=0.999, when={"selection": "mixture"}
    )
    disagreement: float = option(1.0, "weight of the disagreement with the student", low=0)
    temperature: float = option(3.0, "softmax temperature of the disagreement", above=0)
    batch_norm_weight: float = option(10.0, "weight of the distance of batch-norm statistics", low=0)
    l2: float = option(6e-3, "weight of the images' L2 norm", low=0)
    tv: float = option(1.5e-5, "weight of the total variation", low=0)
    lr_student: float = 0.01
    weight_decay: float = 5e-4


def pixel_generator(s: Session, o: Options) -> nn.Sequential:
    """Codes (N, latent) to pixels (N, C, H, W) in [0, 1]."""
    layers = list(image_generator(o.latent, s.task.image, o.width, eps=o.eps, whiten=False))
    return nn.Sequential(*layers[:3], nn.LeakyReLU(0.2), *layers[3:-2], nn.Sigmoid())


def shared_view(pixels: Tensor, stream: torch.Generator, padding: int = 4) -> Tensor:
    """One window of the images' size, shifted into a black border, mirrored by chance: the same for the whole batch."""
    size = pixels.shape[-1]
    down, right, mirror = torch.randint(2 * (2 * padding + 1), (3,), generator=stream).tolist()
    down, right = down // 2, right // 2
    window = F.pad(pixels, 4 * (padding,))[..., down : down + size, right : right + size]
    return window.flip(3) if mirror % 2 else window


def cleanness(losses: Tensor, iterations: int = 10, tolerance: float = 1e-2, floor: float = 5e-4) -> Tensor:
    """The posterior (N,) of the component of lower mean, of two normals that are fitted to losses (N,), on the host.

    Args:
        losses: any scale; they are shifted and scaled to [0, 1]. All of them equal: 1 for each.
        iterations: of expectation maximisation, at most.
        tolerance: it ends when the mean log-likelihood changes by less.
        floor: added to each variance.
    """
    x = losses.detach().double().cpu()
    span = x.max() - x.min()
    if not span > 0:
        return torch.ones_like(x)
    x = (x - x.min()) / span
    means = torch.tensor([0.0, 1.0], dtype=x.dtype)
    for _ in range(100):  # two means; neither loses its last loss, the smallest and the largest
        share = F.one_hot((x[:, None] - means).abs().argmin(1), 2).to(x.dtype)
        former, means = means, (share * x[:, None]).sum(0) / share.sum(0)
        if torch.equal(former, means):
            break

    def fit() -> tuple[Tensor, Tensor, Tensor]:
        count = share.sum(0) + 10 * torch.finfo(x.dtype).eps
        mean = (share * x[:, None]).sum(0) / count
        return count / len(x), mean, (share * (x[:, None] - mean).square()).sum(0) / count + floor

    def joint() -> Tensor:
        return weight.log() - (2 * math.pi * var).log() / 2 - (x[:, None] - mean).square() / (2 * var)

    weight, mean, var = fit()
    likelihood = -math.inf
    for _ in range(iterations):
        log = joint()
        share = log.softmax(1)
        weight, mean, var = fit()
        former_likelihood, likelihood = likelihood, float(log.logsumexp(1).mean())
        if abs(likelihood - former_likelihood) < tolerance:
            break
    return joint().softmax(1)[:, mean.argmin()]


@method(
    "ta_dfkd", title="TA-DFKD", data=Data.NONE, access=Access.BATCH_NORM, batch_norm="batch_norm_weight",
    paper="Shin and Choi, Teacher as a Lenient Expert: Teacher-Agnostic Data-Free Knowledge Distillation, AAAI 2024",
    quick={"batch": 32, "latent": 16, "width": 8, "student_steps": 2},
)  # fmt: skip
def ta_dfkd(s: Session, o: Options) -> None:
    """A generator makes images without wanted classes; both networks learn from those that the teacher passes."""
    space = PixelSpace.of(s)
    generator = s.keep("generator", pixel_generator(s, o))
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator))
    opt_s = kept_optimizer(s, o)
    chosen = s.keep("chosen", torch.zeros(o.batch, *s.task.image.shape))
    at: dict[str, Any] = s.keep("at", {})
    held = s.keep("held", {"count": 0})

    def made() -> tuple[Tensor, Tensor]:
        """Normalised images for the student, and as the teacher is to judge them."""
        pixels = generator(s.noise(o.batch, o.latent))
        view = shared_view(pixels, s.generator("views", host=True))
        return space.normalise(view), space.normalise(pixels)

    def selected(plain: Tensor) -> Tensor:
        """Places of the clean ones of a batch, at least two."""
        with torch.no_grad():
            logits = s.teacher(plain.detach()).logits
        losses = F.cross_entropy(logits, logits.argmax(1), reduction="none")
        places = above(cleanness(losses), o.threshold, 2)
        s.log(selected=len(places) / o.batch)
        return places.to(plain.device)

    for progress in s.steps("train"):
        generates = at.get("part") == "student" and at["index"] == o.student_steps - 1  # comes next
        if o.selection == "mixture" and not generates and held["count"] < o.batch:
            with torch.no_grad():
                view, plain = made()
            places, room = selected(plain), o.batch - held["count"]
            if len(places) > room:
                order = torch.randperm(len(places), generator=s.generator("rest", host=True))
                places = places[order[:room].to(places.device)]
            chosen[held["count"] : held["count"] + len(places)] = view[places]
            held["count"] += len(places)
            continue
        part, _ = turn(at, student=o.student_steps, generator=1)
        if part == "student":
            set_lr(opt_s, o.rate(progress))
            images = chosen
            if o.selection == "none":
                with torch.no_grad():
                    images = made()[0]
            held["count"] = 0
            s.log(imitation=s.distill(opt_s, images, criterion=F.l1_loss))
            continue
        view, plain = made()
        clean = view[selected(plain)] if o.selection == "mixture" else view
        out = s.teacher(clean, batch_norm=o.batch_norm_weight > 0)
        logits = out.logits.detach() if o.selection == "none" else out.logits
        apart = competition(logits, s.student(clean), o.temperature, elements=True)
        loss = o.disagreement * apart + o.l2 * l2_norm(view) + o.tv * total_variation(view)
        if o.batch_norm_weight:
            distance = batch_norm_distance(out.batch_norm)
            loss = loss + o.batch_norm_weight * distance
            s.log(batch_norm=distance)
        s.update(opt_g, loss)
        s.log(disagreement=apart, generation=loss)
