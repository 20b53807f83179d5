"""Fast-DFKD: a meta-learned start of the generator, from which a batch of images is inverted in a few updates.

One synthesis call is ``iterations`` (the paper's k) updates of a copy theta' of the generator's weights theta, and of
its codes z, then one of theta (:mod:`methods.common.meta_inversion`), on

    L = batch_norm_weight * R_bn + one_hot * CE(T(v), y) + adversarial * L_adv

    v       pixels G(z), cropped with 4 pixels of black border and flipped, then normalised
    R_bn    sum over the teacher's batch norms of |mean - running mean| + |var - running var| (batch_norm_distance), of
            the statistics (1 - m) * batch + m * average over earlier calls, m = ``average`` (BatchNormAverage)
    L_adv   - mean m_i KL(T_i || S_i), tau 1, m_i = 1 where S, in eval mode, agrees with T (adversarial_agreement)

The images G(z) of the update with the lowest finite L go to the pool in 8 bits. After ``warm_up`` calls without L_adv,
each call is followed by ``student_steps`` steps on KL_tau(T || S), factor tau^2, on cropped and flipped images drawn
from the pool with replacement. At the call ``reset_at`` after the warm-up the generator's first layers start over.

The defaults are those of the released script for WRN-40-2 with k = 5, the same for CIFAR-10 and CIFAR-100. With another
k go other rates: k = 2: lr_generator 5e-3, lr_codes 0.015; k = 10: 2e-3, 0.01. For the other teachers, ResNet-34 and
VGG-11, the weights are presets of their tasks. ``meta: none`` is the code's variant "fast": no copy, the generator
itself is trained. The meta update follows the last inner one; as that does not touch theta, the order makes no
difference.

Differences: the warm-up is counted in calls (one in each of the paper's 20 epochs), at most ``share`` of the budget. In
the code L_adv begins with the warm-up's last call, here with the first after it. The cosine runs over the budget that
the warm-up leaves. Images are drawn with replacement.
"""

from dataclasses import dataclass

from torch.nn import functional as F

from bench import Access, Data, Session, cmi_generator, method, option
from methods.common.losses import adversarial_agreement, batch_norm_distance
from methods.common.meta_inversion import Calls, MetaInversion, renew_first_layers
from methods.common.optimizers import scheduled, set_lr
from methods.common.options import MetaOptions, StoreOptions
from methods.common.pixels import PixelSpace
from methods.common.pools import ImagePool
from methods.common.rounds import evaluating
from methods.common.training import kept_optimizer
from methods.common.views import cropped_view


@dataclass(frozen=True)
class Options(MetaOptions, StoreOptions):
    warm_up: int = option(20, "synthesis calls before the student's first step, without the adversarial term", low=0)
    pool: int = option(56_320, "the most images to keep (all, in the paper's 220 calls)", unit="images", low=1)
    lr_student: float = 0.2
    lr_end: float = option(2e-4, "the student's last learning rate", low=0, when={"schedule": "cosine"})


@method(
    "fast_dfkd", title="Fast-DFKD", data=Data.NONE, access=Access.BATCH_NORM, batch_norm="batch_norm_weight",
    paper="Fang et al., Up to 100x Faster Data-Free Knowledge Distillation, AAAI 2022",
    presets={
        "cifar10/resnet18": {"adversarial": 1.33, "one_hot": 0.5},
        "cifar100/resnet18": {"adversarial": 1.33, "one_hot": 0.5},
        "cifar10/vgg11-resnet18": {"adversarial": 1.0, "one_hot": 0.5},
        "cifar100/vgg11-resnet18": {"adversarial": 1.0, "one_hot": 0.5},
    },
    quick={
        "batch_synthesis": 16, "iterations": 2, "warm_up": 2, "reset_at": 2, "latent": 16, "width": 8, "pool": 40,
        "memory_mib": 0.2, "student_steps": 3, "batch": 32,
    },
)  # fmt: skip
def fast_dfkd(s: Session, o: Options) -> None:
    """A generator learns a start from which images are inverted in a few updates; the student trains on all of them."""
    space = PixelSpace.of(s)
    inversion = MetaInversion.of(s, o, cmi_generator(o.latent, s.task.image, o.width))
    opt_s = kept_optimizer(s, o)
    pool = s.keep("pool", ImagePool(o.pool, space, ring=True, eight_bit=o.eight_bit, limit_mib=o.memory_mib))
    calls = Calls(s, o, "warm")

    def invert(index: int, number: int, adversarial: float) -> None:
        """One update of the synthesis; ``number`` counts calls after the warm-up."""
        if index == 0 and number == o.reset_at > 0:
            renew_first_layers(inversion.generator, s.generator("weights"))
        images = inversion.images(index)
        view = cropped_view(images, space, s.generator("views"))
        out = s.teacher(view, batch_norm=o.batch_norm_weight > 0)
        loss = o.one_hot * F.cross_entropy(out.logits, inversion.labels)
        statistics = out.batch_norm if o.batch_norm_weight else ()
        if statistics:
            distance = batch_norm_distance(inversion.average.blend(statistics))
            loss = loss + o.batch_norm_weight * distance
            s.log(batch_norm=distance)
        if adversarial:
            with evaluating(s.student):
                loss = loss + adversarial * adversarial_agreement(out.logits, s.student(view))
        s.log(inversion=loss)
        if inversion.learn(index, loss, statistics, images):
            pool.add(inversion.best.tensors[0])
            s.log(held=len(pool))

    if o.warm_up:
        for _ in s.steps("warm-up", share=o.share):
            if calls.made(o.warm_up):
                break
            invert(calls.first(), 0, 0.0)
    for progress in s.steps("train"):
        part, index = calls.turn()
        if part == "synthesis":
            invert(index, calls.number, o.adversarial)
            continue
        images = cropped_view(pool.sample(o.batch, s.generator("pool", host=True)), space, s.generator("crops"))
        end = o.lr_end if o.schedule == "cosine" else 0.0
        set_lr(opt_s, end + scheduled(o.lr_student - end, o.schedule, progress))
        s.log(distillation=s.distill(opt_s, images, temperature=o.temperature))
