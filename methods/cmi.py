"""CMI: contrastive model inversion.

One synthesis call: the generator G starts over (weights N(0, 0.02^2)) with codes z ~ N(0, I) and labels y ~ uniform.
Adam on G and z minimises, for ``iterations`` updates, on views of the pixels G(z),

    L = batch_norm_weight * R_bn + one_hot * CE(T(v_g), y) + adversarial * L_adv + contrast * L_cr

    v_g     global view: crop with 4 pixels of black border and flip, then normalised; for R_bn, CE and L_adv
    v_l     local view: resized crop of [0.25, 1] of the area and flip, then normalised
    R_bn    sum over the teacher's batch norms of |mean - running mean| + |var - running var|  (batch_norm_distance)
    L_adv   - mean m_i KL(T_i || S_i), tau 1, m_i = 1 where S, in eval mode, agrees with T     (adversarial_agreement)
    L_cr    each local view is to find its own global view among those of the batch and of a sample of the bank. Both
            are spatial means of the inputs of T's batch norms, seen by a head that learns along (contrast)

The un-augmented images of the iteration with the lowest finite L go to the pool in 8 bits, that iteration's features to
the bank. Then the student makes ``student_steps`` steps on KL_tau(T || S), factor tau^2, on cropped and flipped images
drawn from the pool with replacement.

The defaults are those of the released script for CIFAR-10 and CIFAR-100 from scratch, with 200 iterations; the tables'
CMI-500 has 500. ``warm_up`` calls before the student's first step, without L_adv, stand for the images that the
adversarial script has inverted beforehand (195 calls; student_steps 2000, one_hot 0.5).

Differences: a full bank gives its sample (the code's gives none once, and the call's loss is NaN); it need not be a
multiple of the batch. A full pool drops its oldest images (the paper's never is full). ``taps: stages`` takes the
inputs of the network's stages alone for L_cr, as the code does for ResNet-34 (presets). Images are drawn
with replacement.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, cmi_generator, method, option
from methods.common.best import Best
from methods.common.contrastive import InstanceHead, contrast
from methods.common.losses import adversarial_agreement, batch_norm_distance
from methods.common.meta import normal_weights
from methods.common.optimizers import set_lr
from methods.common.options import StoreOptions, SynthesisOptions
from methods.common.pixels import PixelSpace
from methods.common.pools import FeatureBank, ImagePool
from methods.common.rounds import evaluating, turn
from methods.common.training import kept_optimizer
from methods.common.views import crop_and_flip, cropped_view, resized_crop_and_flip


@dataclass(frozen=True)
class Options(SynthesisOptions, StoreOptions):
    iterations: int = option(200, "updates of a synthesis call; 500 in CMI-500", low=1)
    warm_up: int = option(0, "synthesis calls before the student's first step, without the adversarial term", low=0)
    batch_norm_weight: float = 1.0
    one_hot: float = 1.0
    adversarial: float = 0.5
    contrast: float = option(0.8, "weight of the contrastive loss", low=0)
    contrast_temperature: float = option(0.1, "temperature of the contrastive loss", above=0, when={"contrast": 0.8})
    taps: Literal["batch_norm", "stages"] = option(
        "batch_norm", "where contrast takes its features: inputs of batch norms or of stages", when={"contrast": 0.8}
    )
    head: int = option(256, "outputs of the contrastive head", low=1, when={"contrast": 0.8})
    bank: int = option(40_960, "earlier images whose features are kept", unit="images", low=1, when={"contrast": 0.8})
    bank_sample: int = option(4096, "of them, drawn in each iteration", unit="images", low=1, when={"contrast": 0.8})
    lr_generator: float = option(1e-3, "Adam's learning rate on generator, codes and contrastive head", above=0)
    batch: int = 128


@method(
    "cmi", title="CMI", data=Data.NONE, access=Access.BATCH_NORM, batch_norm="batch_norm_weight",
    paper="Fang et al., Contrastive Model Inversion for Data-Free Knowledge Distillation, IJCAI 2021",
    presets={"cifar10/resnet18": {"taps": "stages"}, "cifar100/resnet18": {"taps": "stages"}},
    quick={
        "batch_synthesis": 16, "iterations": 4, "latent": 16, "width": 8, "bank": 24, "bank_sample": 20, "head": 8,
        "pool": 40, "memory_mib": 0.2, "student_steps": 3, "batch": 32,
    },
)  # fmt: skip
def cmi(s: Session, o: Options) -> None:
    """Images are inverted so that each differs from all stored ones; the student trains on the store."""
    space, batch = PixelSpace.of(s), o.batch_synthesis
    generator = s.keep("generator", cmi_generator(o.latent, s.task.image, o.width))
    codes = s.keep("codes", torch.zeros(batch, o.latent, requires_grad=True))
    labels = s.keep("labels", torch.zeros(batch, dtype=torch.int64))
    fresh = [*generator.parameters(), codes]
    groups = [{"params": fresh, "betas": (0.5, 0.999)}]
    if o.contrast:  # in the same optimiser, so that one backward pass serves; its moments stay from call to call
        head = s.keep("head", InstanceHead(s.teacher.pooled_size(o.taps), o.head))
        groups.append({"params": list(head.parameters()), "betas": (0.9, 0.999)})
    opt_g = s.keep("opt_g", Adam(groups, o.lr_generator))
    opt_s = kept_optimizer(s, o)
    pool = s.keep("pool", ImagePool(o.pool, space, ring=True, eight_bit=o.eight_bit, limit_mib=o.memory_mib))
    bank = s.keep("bank", FeatureBank(o.bank, o.memory_mib))
    best = s.keep("best", Best())
    at: dict[str, Any] = s.keep("at", {})

    for progress in s.steps("train"):
        student_steps = 0 if at.get("round", 0) < o.warm_up else o.student_steps
        part, index = turn(at, synthesis=o.iterations, student=student_steps)
        if part == "student":
            images = cropped_view(pool.sample(o.batch, s.generator("pool", host=True)), space, s.generator("crops"))
            set_lr(opt_s, o.rate(progress))
            s.log(distillation=s.distill(opt_s, images, temperature=o.temperature))
            continue

        if index == 0:
            normal_weights(generator, s.generator("weights"))
            codes.data.copy_(s.noise(*codes.shape))
            labels.random_(s.task.classes, generator=s.generator("labels"))
            for parameter in fresh:
                opt_g.state.pop(parameter, None)
            best.restart()
        images = generator(codes)
        pixels = space.pixels(images)
        view = space.normalise(crop_and_flip(pixels, s.generator("views")))
        out = s.teacher(view, batch_norm=o.batch_norm_weight > 0, pooled=o.taps if o.contrast else None)
        loss = o.one_hot * F.cross_entropy(out.logits, labels)
        if o.batch_norm_weight:
            distance = batch_norm_distance(out.batch_norm)
            loss = loss + o.batch_norm_weight * distance
            s.log(batch_norm=distance)
        if o.adversarial and at["round"] >= o.warm_up:
            with evaluating(s.student):
                loss = loss + o.adversarial * adversarial_agreement(out.logits, s.student(view))
        found = [images]
        if o.contrast:
            local_view = space.normalise(resized_crop_and_flip(pixels, s.generator("views")))
            local = s.teacher(local_view, pooled=o.taps).pooled
            cached = bank.sample(o.bank_sample, s.generator("bank", host=True))
            distinct = contrast(head, local, out.pooled, cached, o.contrast_temperature)
            loss = loss + o.contrast * distinct
            s.log(contrast=distinct)
            found += [local, out.pooled]
        best.look(loss, *found)
        s.update(opt_g, loss)
        s.log(inversion=loss)
        if index == o.iterations - 1:
            pool.add(best.tensors[0])
            s.log(held=len(pool))
            if o.contrast:
                bank.add(best.tensors[1], best.tensors[2])
