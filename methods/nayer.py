"""NAYER: noisy-layer generation, a generator without a noise input: its randomness is a layer, drawn in every call.

One synthesis call makes a batch of images x = G(e_y). Its wanted classes y are all K classes in their order, again and
again, the rest of the batch drawn at random. G normalises the fixed embeddings e_y over the batch, sends each group of
K of them (one of each class) through a noisy layer of its own, weights N(0, 1), bias 0, and all of them on to the body
of CMI's generator. The noisy layers are drawn again in every call. A fresh Adam on all of G, noisy layers included,
makes ``iterations`` updates on

    L = batch_norm_weight * R_bn + one_hot * CE(T(v), y) + adversarial * L_adv

    v       pixels of x, cropped with 4 pixels of black border and flipped, then normalised
    R_bn    sum over the teacher's batch norms of |mean - running mean| + |var - running var| (batch_norm_distance), of
            the statistics (1 - m) * batch + m * average over earlier calls, m = ``average`` (BatchNormAverage)
    L_adv   - mean m_i KL(T_i || S_i), tau 1, m_i = 1 where S, in eval mode, agrees with T (adversarial_agreement)

The images x of the update with the lowest finite L go to the pool in 8 bits. A round is ``calls`` calls, then
``student_steps`` steps on KL_tau(T || S), factor tau^2, on cropped and flipped images drawn from the pool with
replacement. ``warm_up`` rounds of ``calls_warm_up`` calls, without L_adv and without the student, come first. Every
``life`` rounds, counted from the start and from the end of the warm-up, G starts over with fresh weights.

The defaults are those of the released scripts for CIFAR-100; CIFAR-10 has 30 updates a call. The sizes of the noisy
layer are the script's too: its generator's class has 256 outputs as the default, the script passes 1,000.

Differences: the embeddings. The paper takes those of the classes' names by a text encoder (CLIP's, 512 numbers), from a
file beside the code. A method can read no file here, and may not know the names of a task's classes. ``orthogonal``
stands in: random vectors of unit length, each at right angles to all others while there are no more classes than
numbers; ``normal`` is N(0, 1) vectors. So what the paper gains by related names is not in the scores. The
warm-up takes at most ``share`` of the budget. The cosine runs over the budget that the warm-up leaves. Images are
drawn with replacement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, cmi_generator, method, option
from methods.common.best import Best
from methods.common.losses import adversarial_agreement, batch_norm_distance
from methods.common.meta import BatchNormAverage
from methods.common.optimizers import scheduled, set_lr
from methods.common.options import StoreOptions, SynthesisOptions
from methods.common.pixels import PixelSpace
from methods.common.pools import ImagePool
from methods.common.rounds import evaluating, restart, turn
from methods.common.training import kept_optimizer
from methods.common.views import cropped_view


@dataclass(frozen=True)
class Options(SynthesisOptions, StoreOptions):
    embedding: Literal["orthogonal", "normal"] = option("orthogonal", "what stands in for embedded class names")
    latent: int = option(512, "length of an embedding", low=1)
    noisy: int = option(1000, "outputs of a noisy layer", low=1)
    calls: int = option(2, "synthesis calls of a round", low=1)
    warm_up: int = option(20, "rounds before the student's first step, without the adversarial term", low=0)
    calls_warm_up: int = option(10, "synthesis calls of a round of the warm-up", low=1, when={"warm_up": 20})
    share: float = option(0.2, "the largest share of the budget for the warm-up", above=0, high=0.99)
    life: int = option(10, "rounds after which the generator starts over", low=1)
    average: float = option(
        0.9, "momentum of the average of batch statistics over calls", low=0, high=0.999, when={"batch_norm_weight": 10}
    )
    iterations: int = 40
    batch_synthesis: int = 400
    one_hot: float = 0.5
    adversarial: float = 1.33
    batch: int = 512
    pool: int = option(320_000, "the most images to keep (all, in the paper's 320 rounds)", unit="images", low=1)
    lr_generator: float = option(4e-3, "Adam's learning rate on the generator", above=0)
    lr_student: float = 0.2
    lr_end: float = option(2e-4, "the student's last learning rate", low=0, when={"schedule": "cosine"})


class NoisyGenerator(nn.Module):
    """Classes, int64 (N,), to normalised images (N, C, H, W); no noise goes in.

    Args:
        embeddings: one fixed vector a class, (K, D).
        noisy: outputs of a noisy layer.
        batch: the most labels of a call: K of them share a noisy layer, in the order in which they come.
        body: codes (N, ``noisy``) to images.
    """

    embeddings: Tensor

    def __init__(self, embeddings: Tensor, noisy: int, batch: int, body: nn.Module) -> None:
        super().__init__()
        classes, length = embeddings.shape
        self.register_buffer("embeddings", embeddings)
        self.norm = nn.BatchNorm1d(length)
        self.noisy = nn.ModuleList(nn.Linear(length, noisy) for _ in range(math.ceil(batch / classes)))
        self.body = body

    def forward(self, labels: Tensor) -> Tensor:
        groups = self.norm(self.embeddings[labels]).split(len(self.embeddings))
        codes = torch.cat([layer(group) for layer, group in zip(self.noisy, groups, strict=False)])
        images: Tensor = self.body(codes)
        return images

    @torch.no_grad()
    def draw_noisy_layers(self, stream: torch.Generator) -> None:
        """All weights of the noisy layers from N(0, 1), their biases 0."""
        for name, parameter in self.noisy.named_parameters():
            parameter.normal_(generator=stream) if name.endswith("weight") else parameter.zero_()


@torch.no_grad()
def start_over(generator: nn.Module, stream: torch.Generator) -> None:
    """Fresh weights as torch makes them: linear and convolution U(-1, 1) / sqrt(inputs), batch norm 1 and 0."""
    for module in generator.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            reach = 1 / math.sqrt(module.weight[0].numel())
            for _, parameter in module.named_parameters():
                parameter.uniform_(-reach, reach, generator=stream)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_parameters()  # draws nothing


def embeddings(s: Session, kind: str, length: int) -> Tensor:
    """One vector a class, (K, ``length``): unit vectors at right angles, or N(0, 1)."""
    drawn = s.noise(s.task.classes, length, stream="embeddings")
    if kind == "normal":
        return drawn
    across = len(drawn) > length  # more classes than numbers: the columns are at right angles instead
    found: Tensor = torch.linalg.qr(drawn if across else drawn.T).Q
    return found.contiguous() if across else found.T.contiguous()


@method(
    "nayer", title="NAYER", data=Data.NONE, access=Access.BATCH_NORM, batch_norm="batch_norm_weight",
    paper="Tran et al., NAYER: Noisy Layer Data Generation for Efficient and Effective Data-free KD, CVPR 2024",
    presets={"cifar10": {"iterations": 30}},
    quick={
        "batch_synthesis": 16, "iterations": 2, "warm_up": 2, "calls_warm_up": 2, "life": 2, "latent": 16, "noisy": 16,
        "width": 8, "pool": 40, "memory_mib": 0.2, "student_steps": 3, "batch": 32,
    },
)  # fmt: skip
def nayer(s: Session, o: Options) -> None:
    """A generator makes images of embedded classes through layers of noise; the student trains on all of them."""
    space = PixelSpace.of(s)
    body = cmi_generator(o.noisy, s.task.image, o.width)
    vectors = embeddings(s, o.embedding, o.latent)
    generator = s.keep("generator", NoisyGenerator(vectors, o.noisy, o.batch_synthesis, body))
    labels = s.keep("labels", torch.zeros(o.batch_synthesis, dtype=torch.int64))
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator, betas=(0.5, 0.999)))
    opt_s = kept_optimizer(s, o)
    pool = s.keep("pool", ImagePool(o.pool, space, ring=True, eight_bit=o.eight_bit, limit_mib=o.memory_mib))
    average = s.keep("average", BatchNormAverage(o.average))
    best = s.keep("best", Best())
    at: dict[str, Any] = s.keep("at", {})  # its rounds are calls
    warm = s.keep("warm", {"calls": 0})

    def begin(fresh: bool) -> None:
        """A call: new classes, noisy layers and optimiser; a new generator too, when its life is over."""
        whole = o.batch_synthesis // s.task.classes * s.task.classes
        labels[:whole] = torch.arange(whole, device=s.device) % s.task.classes
        labels[whole:].random_(s.task.classes, generator=s.generator("labels"))
        if fresh:
            start_over(generator, s.generator("weights"))
        generator.draw_noisy_layers(s.generator("noisy"))
        restart(opt_g)
        best.restart()

    def invert(index: int, fresh: bool, adversarial: float) -> None:
        """One update of a call."""
        if index == 0:
            begin(fresh)
        images = generator(labels)
        view = cropped_view(images, space, s.generator("views"))
        out = s.teacher(view, batch_norm=o.batch_norm_weight > 0)
        loss = o.one_hot * F.cross_entropy(out.logits, labels)
        statistics = out.batch_norm if o.batch_norm_weight else ()
        if statistics:
            distance = batch_norm_distance(average.blend(statistics))
            loss = loss + o.batch_norm_weight * distance
            s.log(batch_norm=distance)
        if adversarial:
            with evaluating(s.student):
                loss = loss + adversarial * adversarial_agreement(out.logits, s.student(view))
        best.look(loss, images)
        s.update(opt_g, loss)
        s.log(inversion=loss)
        if index == o.iterations - 1:
            average.update(statistics)
            pool.add(best.tensors[0])
            s.log(held=len(pool))

    if o.warm_up:
        for _ in s.steps("warm-up", share=o.share):
            if warm["calls"] == o.warm_up * o.calls_warm_up and at["index"] == o.iterations - 1:
                break
            _, index = turn(at, synthesis=o.iterations)
            warm["calls"] = at["round"] + 1
            invert(index, at["round"] % (o.life * o.calls_warm_up) == 0, 0.0)
    for progress in s.steps("train"):
        call = at.get("round", 0) - warm["calls"]  # from 0; -1 where one of the warm-up is under way
        rests = call >= 0 and (call + 1) % o.calls == 0
        part, index = turn(at, synthesis=o.iterations, student=o.student_steps if rests else 0)
        if part == "synthesis":
            call = at["round"] - warm["calls"]
            invert(index, call % (o.life * o.calls) == 0, o.adversarial if call >= 0 else 0.0)
            continue
        images = cropped_view(pool.sample(o.batch, s.generator("pool", host=True)), space, s.generator("crops"))
        end = o.lr_end if o.schedule == "cosine" else 0.0
        set_lr(opt_s, end + scheduled(o.lr_student - end, o.schedule, progress))
        s.log(distillation=s.distill(opt_s, images, temperature=o.temperature))
