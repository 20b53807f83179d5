"""SSD-KD (re-derived): small-scale data-free distillation from a replay buffer of a few thousand inverted images.

Its authors published no code. Established are the idea and the figure: a small buffer, updated in parts by an inversion
that weighs diversity and difficulty (phi), and read by priority (delta). The formulae below are from memory, and every
number of theirs is an option. x = G(z), v its cropped and flipped view, R the buffer, c_T the class that the teacher
predicts, p_T its probability.

Inversion, ``iterations`` updates a call with Fast-DFKD's meta-learned generator
(:mod:`methods.common.meta_inversion`), on

    L = batch_norm_weight * R_bn + one_hot * CE(T(v), y) - adversarial * mean phi(v_i) d(v_i)
    phi = (1 - |{x' in R: c_T(x') = c_T(v)}| / |R|) * (1 - p_T(v))^gamma                               (modulation)
    d   = m KL(T || S), tau 1, m = 1 where S, in eval mode, agrees with T (CMI's); or without m        (discrepancies)

Buffer: each call's best images, in 8 bits, take the places of as many: of the most frequent class the easiest, one by
one (``eviction: balanced``), or the oldest (``fifo``). Student, ``student_steps`` steps a call, on images i drawn with

    P_i = (|delta_i| + eps)^alpha / sum_j (...)     w_i = (|R| P_i)^(-beta) / max_j w_j, beta rising to 1
    loss = mean w_i KL_tau(T || S), factor tau^2    delta_i = (w_i of the use before) * KL(T(x_i) || S(x_i))

Inferred, each with its option: phi's form (``gamma``, ``diversity``), that it is a weight without gradient
(``phi_gradient``), its place in the loss, d (``discrepancy``), all weights and rates of inversion and student (those of
Fast-DFKD for the teacher and k = 2; the student's 0.2 or, for wide ResNets, 0.1), no adversarial term while the buffer
fills (``fill_adversarial``), the new start of the first layers (``reset_at``), ``eviction``, ``alpha``, ``beta``,
``eps``, the weight in delta (``weighted_priority``), delta's temperature (``priority_temperature``), ``temperature``,
one pass over the buffer a call (``student_steps``: 20 of 256), and over what max_j goes (``largest``): the images
drawn. Over the buffer, as P_i's sum does, its least probable image leaves those that are drawn next to no weight: on
the digits the mean loss ends at 0.002 instead of 0.05, and the score at 88 % instead of 98 %.
Without an option: beta rises linearly with the budget after the filling; new images have the buffer's highest priority;
an empty buffer means a diversity of 1; c_T and p_T of an image are those of its view in the best update. For
segmentation nothing is known of the paper's definitions: p_T and KL are means over pixels, c_T the most frequent class,
and CE is with the teacher's own prediction, as no class is wanted of an image.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from bench import Access, Data, Session, StudentBatch, cmi_generator, dcgan_generator, method, option
from methods.common.losses import batch_norm_distance, kl_rows, one_hot_loss
from methods.common.meta_inversion import Calls, MetaInversion, renew_first_layers
from methods.common.optimizers import set_lr
from methods.common.options import MetaOptions
from methods.common.pixels import PixelSpace
from methods.common.replay import ReplayBuffer, discrepancies, importance, judged, modulation
from methods.common.rounds import evaluating
from methods.common.training import kept_optimizer
from methods.common.views import cropped_view


@dataclass(frozen=True)
class Options(MetaOptions):
    buffer: int = option(5000, "images in the replay buffer", unit="images", low=1)
    eviction: Literal["balanced", "fifo"] = option("balanced", "which images make room for new ones")
    fill_adversarial: bool = option(False, "the adversarial term already while the buffer is filled")
    diversity: bool = option(True, "phi's factor for classes that are rare in the buffer")
    gamma: float = option(2.0, "phi's exponent of the teacher's doubt; 0 leaves the difficulty out", low=0)
    phi_gradient: bool = option(False, "phi carries a gradient, and is not a mere weight")
    discrepancy: Literal["agreement", "kl"] = option("agreement", "KL divergence where both predict alike, or anywhere")
    iterations: int = 2
    adversarial: float = option(1.1, "weight of the modulated disagreement with the student", low=0)
    generator: Literal["upsample", "dcgan"] = option("upsample", "CMI's for 32x32 images, or DFAD's for 128x128")
    width: int = option(
        128, "channels of `upsample`'s first or `dcgan`'s last layers (128 and 64 in the papers)", low=2
    )
    lr_generator: float = 5e-3
    lr_codes: float = 0.015
    student_steps: int = 20
    alpha: float = option(1.0, "exponent of the priorities; 0 draws uniformly", low=0)
    beta: float = option(0.4, "first exponent of the importance weights, which rises to 1", low=0, high=1)
    eps: float = option(1e-6, "least priority", above=0)
    largest: Literal["buffer", "batch"] = option("batch", "where the importance weight of 1 is: max_j")
    weighted_priority: bool = option(True, "an image's priority has its last importance weight as a factor")
    priority_temperature: float = option(1.0, "softmax temperature of the priorities' divergence", above=0)


@method(
    "ssd_kd", title="SSD-KD (re-derived)", data=Data.NONE, access=Access.BATCH_NORM,
    batch_norm="batch_norm_weight", segmentation=True,
    paper="Liu et al., Small Scale Data-Free Knowledge Distillation, CVPR 2024 (no code published)",
    presets={
        "cifar10/resnet18": {"adversarial": 1.33, "one_hot": 0.5, "lr_student": 0.2},
        "cifar100/resnet18": {"adversarial": 1.33, "one_hot": 0.5, "lr_student": 0.2},
        "cifar10/vgg11-resnet18": {"adversarial": 1.0, "one_hot": 0.5, "lr_student": 0.2},
        "cifar100/vgg11-resnet18": {"adversarial": 1.0, "one_hot": 0.5, "lr_student": 0.2},
        "nyuv2": {"buffer": 16_000, "generator": "dcgan", "width": 64, "batch_synthesis": 64, "batch": 64},
        "camvid": {"buffer": 16_000, "generator": "dcgan", "width": 64, "batch_synthesis": 64, "batch": 64},
        "shapes": {"generator": "dcgan", "width": 64, "batch_synthesis": 64, "batch": 64},
    },
    quick={
        "buffer": 40, "batch_synthesis": 16, "batch": 32, "student_steps": 3, "reset_at": 1, "latent": 16, "width": 8,
    },
)  # fmt: skip
def ssd_kd(s: Session, o: Options) -> None:
    """A few thousand inverted images, kept diverse and difficult; the student trains on those that it needs most."""
    space = PixelSpace.of(s)
    make = dcgan_generator if o.generator == "dcgan" else cmi_generator
    inversion = MetaInversion.of(s, o, make(o.latent, s.task.image, o.width))
    opt_s = kept_optimizer(s, o)
    buffer = s.keep("buffer", ReplayBuffer(o.buffer, s.task.classes, space, o.eviction))
    calls = Calls(s, o, "filled")

    def invert(index: int, number: int, adversarial: float) -> None:
        """One update of the synthesis; the last of a call updates the buffer. ``number`` counts calls after filling."""
        if index == 0 and number == o.reset_at > 0:
            renew_first_layers(inversion.generator, s.generator("weights"))
        images = inversion.images(index)
        view = cropped_view(images, space, s.generator("views"))
        out = s.teacher(view, batch_norm=o.batch_norm_weight > 0)
        certain = one_hot_loss(out.logits) if out.logits.ndim > 2 else F.cross_entropy(out.logits, inversion.labels)
        loss = o.one_hot * certain
        statistics = out.batch_norm if o.batch_norm_weight else ()
        if statistics:
            loss = loss + o.batch_norm_weight * batch_norm_distance(inversion.average.blend(statistics))
        if adversarial:
            with evaluating(s.student):
                differ = discrepancies(out.logits, s.student(view), masked=o.discrepancy == "agreement")
            phi = modulation(out.logits, buffer.shares(), o.gamma, o.diversity)
            loss = loss - adversarial * ((phi if o.phi_gradient else phi.detach()) * differ).mean()
            s.log(phi=phi)
        s.log(inversion=loss)
        if inversion.learn(index, loss, statistics, images, *judged(out.logits)):
            buffer.add(*inversion.best.tensors)
            s.log(held=len(buffer), made=buffer.made)

    for _ in s.steps("fill", share=o.share):
        if buffer.full:
            break
        invert(calls.first(), 0, o.adversarial if o.fill_adversarial else 0.0)
    for progress in s.steps("train"):
        part, index = calls.turn()
        if part == "synthesis":
            invert(index, calls.number, o.adversarial)
            s.log(balance=buffer.balance())
            continue
        probabilities = buffer.probabilities(o.alpha, o.eps)
        weights = importance(probabilities, o.beta + (1 - o.beta) * progress).float()
        places = buffer.draw(o.batch, probabilities, s.generator("buffer"))

        def weighed(batch: StudentBatch, weights: Tensor = weights) -> Tensor:
            """The student's loss; the images' new priorities are noted in passing. The rows are their places."""
            delta = kl_rows(batch.teacher, batch.student.detach(), o.priority_temperature)
            if o.weighted_priority:
                delta = delta * buffer.row("weight")[batch.rows]
            own = weights[batch.rows]
            if o.largest == "batch":
                own = own / own.max()
            buffer.note(batch.rows, delta, own)
            return (own * kl_rows(batch.teacher, batch.student, o.temperature)).mean()

        images = cropped_view(buffer.images.take(places), space, s.generator("crops"))
        set_lr(opt_s, o.rate(progress))
        s.log(distillation=s.student_step(opt_s, images, weighed, rows=places))
