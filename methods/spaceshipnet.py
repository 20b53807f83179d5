"""SpaceshipNet: maps inside the generator exchange channels between images; the student looks where the teacher looks.

One synthesis call: codes z ~ N(0, I), which stay, labels y all classes in their order, again and again. A fresh Adam on
the generator G alone, whose weights live on from call to call, minimises for ``iterations`` updates, on v, the pixels
of G(z) cropped with 4 pixels of black border and flipped, then normalised,

    L = batch_norm_weight * R_bn + one_hot * CE(T(v), y)
    R_bn    sum over the teacher's batch norms of |mean - running mean| + |var - running var|  (batch_norm_distance)

Of the update with the lowest finite L the maps inside G are stored, at three points: after the first batch norm, and
after the activation of each of the two convolutions that follow. A round is one call, then ``student_steps`` of the
student. Each draws one point and a batch of its maps, with replacement. With probability ``exchange`` half of the
channels of map i, drawn again for each, come from map N - 1 - i (channel-wise feature exchange, CFE). G, in evaluation
mode, makes images x of these maps from that point on, which are cropped and flipped. The student's step is on

    alpha * tau^2 KL_tau(T || S) / K + cam * mean (C_S - C_T)^2 + attention * sum over g of mean (A_g(S) - A_g(T))^2

    A_g     (N, h, w), Grad-CAM at the last map M_g of layer group g: sum over channels c of w_c M_gc, w_c the spatial
            mean of the gradient of the logit of T's class with respect to M_gc, a constant
    C       (N, K, h, w), class activation maps: the last layer's weights, constants, times the last map as a 1x1
            convolution. Where the last map is not what the last layer takes the mean of (LeNet), the last layer's
            inputs stand in, as a map of one position
    / K     the code's mean is over images and classes; ``by_class: false`` is the mean over images

The defaults are those of the released scripts, the same for CIFAR-10 and CIFAR-100. The paper was not read.

Differences: the cosine runs over the whole budget step by step (once a call in the code). Maps are drawn with
replacement, and a full store drops its oldest (the code's never is full; in half precision, as here where it lies on
the host, it takes 11 GB). The student starts as the suite's students do (the code's from Xavier's weights). Layer
groups are the suite's: for ResNets those are the code's four stages. Networks whose groups do not agree are
unsupported, and so are teachers whose layers only the task names: Grad-CAM looks into a copy of the teacher.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, StudentBatch, Unsupported, cmi_generator, method, option
from methods.common.best import Best
from methods.common.losses import batch_norm_distance, kl_rows
from methods.common.optimizers import set_lr
from methods.common.options import CosineOptions
from methods.common.pixels import PixelSpace
from methods.common.pools import ImagePool
from methods.common.rounds import evaluating, restart, turn
from methods.common.training import kept_optimizer
from methods.common.views import cropped_view

POINTS = (1, 2, 3)  # parts of the generator after which maps are stored


@dataclass(frozen=True)
class Options(CosineOptions):
    batch_synthesis: int = option(256, "images of one synthesis call", unit="images", low=2)
    iterations: int = option(200, "updates of a synthesis call", low=1)
    batch_norm_weight: float = option(1.0, "weight of the distance of batch-norm statistics", low=0)
    one_hot: float = option(0.5, "weight of the cross-entropy with the wanted classes", low=0)
    latent: int = option(256, "length of the generator's code", low=1)
    width: int = option(128, "channels of the generator's first layers; the papers' 128 are slow on a CPU", low=2)
    lr_generator: float = option(1e-3, "Adam's learning rate on the generator", above=0)
    student_steps: int = option(2000, "student steps after each synthesis call", low=1)
    batch: int = option(256, "images per student step", unit="images", low=2)
    exchange: float = option(0.7, "probability that a batch's maps exchange channels", low=0, high=1)
    points: Literal["all", "first", "second", "third"] = option("all", "where in the generator maps are stored")
    pool: int = option(
        51_200, "the most maps to keep at each point (all, in the paper's 200 calls)", unit="images", low=1
    )
    memory_mib: float = option(
        2048.0, "a larger store of maps lies on the host, in half precision", unit="MiB", above=0
    )
    alpha: float = option(1.0, "weight of the KL divergence", low=0)
    temperature: float = option(30.0, "its softmax temperature", above=0, when={"alpha": 1.0})
    by_class: bool = option(True, "it is divided by the number of classes, as in the code", when={"alpha": 1.0})
    cam: float = option(1.0, "weight of the distance of class activation maps", low=0)
    attention: float = option(1.0, "weight of the distance of Grad-CAMs", low=0)


class StagedGenerator(nn.Module):
    """CMI's generator in four parts, between which its maps can be taken and put back in.

    ``generator(codes, into=maps)`` gives normalised images, and the outputs of all parts are appended to the list;
    ``generator(maps, start)`` goes on from the maps that part ``start`` (from 0) takes.
    """

    def __init__(self, plain: nn.Sequential) -> None:
        super().__init__()
        self.parts = nn.ModuleList([plain[:3], plain[3:7], plain[7:11], plain[11:]])

    def forward(self, given: Tensor, start: int = 0, into: list[Tensor] | None = None) -> Tensor:
        for part in self.parts[start:]:
            given = part(given)
            if into is not None:
                into.append(given)
        return given


@torch.no_grad()
def kaiming_weights(network: nn.Module, stream: torch.Generator) -> None:
    """Weights N(0, 2 / inputs), of batch norm N(1, 0.02^2), biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.weight.normal_(0.0, math.sqrt(2 / module.weight[0].numel()), generator=stream)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.normal_(1.0, 0.02, generator=stream)
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()


def exchanged(maps: Tensor, stream: torch.Generator) -> Tensor:
    """CFE: half of the channels of each map i of (N, C, h, w), rounded up, come from map N - 1 - i."""
    count, channels = maps.shape[:2]
    order = torch.rand(count, channels, generator=stream, device=stream.device).argsort(1).argsort(1)
    own = (order < channels // 2).to(maps.device)
    return torch.where(own[:, :, None, None], maps, maps.flip(0))


def grad_cams(logits: Tensor, classes: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
    """A_g (N, h, w) of each map (N, C, h, w), for the logits (N, K) of classes (N,); a gradient goes to maps alone."""
    chosen = logits.gather(1, classes[:, None]).sum()
    gradients = torch.autograd.grad(chosen, list(maps), retain_graph=True)
    return [(gradient.mean((2, 3), keepdim=True) * each).sum(1) for gradient, each in zip(gradients, maps, strict=True)]


class Looking:
    """A copy of the teacher that shows its layers' maps with their graph, which the teacher itself does not.

    Args:
        network: what is asked, frozen and in evaluation mode.
        groups: the number of maps of each layer group.

    Raises:
        Unsupported: the network does not name these layers itself.
    """

    def __init__(self, network: nn.Module, groups: Sequence[int]) -> None:
        layers: list[nn.Module] = list(getattr(network, "layers", ()))
        if len(layers) != sum(groups):
            raise Unsupported(
                f"a copy of {type(network).__name__} names no layers: Grad-CAM needs the graph of their maps"
            )
        self.network = network
        self._ends = [layers[sum(groups[: group + 1]) - 1] for group in range(len(groups))]
        self._classifier = [each for each in network.modules() if isinstance(each, nn.Linear)][-1]

    def __call__(self, images: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """The logits, the last map of each group, and the inputs (N, D) of the last layer."""
        maps: list[Tensor] = []
        inputs: list[Tensor] = []
        hooks = [each.register_forward_hook(lambda *call: maps.append(call[2])) for each in self._ends]
        hooks.append(self._classifier.register_forward_pre_hook(lambda _, args: inputs.append(args[0])))
        try:
            logits = self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        return logits, maps, inputs[0]


def class_maps(weight: Tensor, last: Tensor, inputs: Tensor) -> Tensor:
    """C (N, K, h, w) of the last map (N, C, h, w), or where C is not the weight's (K, D), of the inputs (N, D)."""
    maps = last if last.shape[1] == weight.shape[1] else inputs[:, :, None, None]
    return F.conv2d(maps, weight[:, :, None, None])


@method(
    "spaceshipnet", title="SpaceshipNet", data=Data.NONE, access=Access.PARAMETERS, batch_norm="batch_norm_weight",
    layers=True,
    paper="Yu et al., Data-Free Knowledge Distillation via Feature Exchange and Activation Region Constraint, "
    "CVPR 2023",
    quick={
        "batch_synthesis": 16, "iterations": 2, "latent": 16, "width": 8, "student_steps": 3, "batch": 16, "pool": 40,
        "memory_mib": 0.2,
    },
)  # fmt: skip
def spaceshipnet(s: Session, o: Options) -> None:
    """Maps of inverted images exchange channels for new images; the student looks where the teacher looks."""
    sizes = [[group[-1][1:] for group in groups] for groups in (s.teacher.layer_shapes, s.student_layer_shapes)]
    if sizes[0] != sizes[1]:
        raise Unsupported("teacher and student have not the same number of layer groups with maps of the same sizes")
    space = PixelSpace.of(s)
    generator = s.keep("generator", StagedGenerator(cmi_generator(o.latent, s.task.image, o.width)))
    kaiming_weights(generator, s.generator("weights"))
    codes = s.keep("codes", torch.zeros(o.batch_synthesis, o.latent))
    labels = torch.arange(o.batch_synthesis, device=s.device) % s.task.classes
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator, betas=(0.5, 0.999)))
    opt_s = kept_optimizer(s, o)
    points = POINTS if o.points == "all" else (("first", "second", "third").index(o.points) + 1,)
    pools = {
        point: s.keep(f"pool_{point}", ImagePool(o.pool, ring=True, limit_mib=o.memory_mib, clipped=False))
        for point in points
    }
    best = s.keep("best", Best())
    at: dict[str, Any] = s.keep("at", {})
    looks = bool(o.attention or o.cam)
    if looks:
        teacher = s.keep("teacher", s.teacher.copy().requires_grad_(False)).eval()
        looking = Looking(teacher, [len(group) for group in s.teacher.layer_shapes])
        weight = s.teacher.classifier_weight

    def invert(index: int) -> None:
        """One update of a call."""
        if index == 0:
            codes.copy_(s.noise(*codes.shape))
            restart(opt_g)
            best.restart()
        maps: list[Tensor] = []
        images = generator(codes, into=maps)
        out = s.teacher(cropped_view(images, space, s.generator("views")), batch_norm=o.batch_norm_weight > 0)
        loss = o.one_hot * F.cross_entropy(out.logits, labels)
        if o.batch_norm_weight:
            distance = batch_norm_distance(out.batch_norm)
            loss = loss + o.batch_norm_weight * distance
            s.log(batch_norm=distance)
        best.look(loss, *(maps[point - 1] for point in points))
        s.update(opt_g, loss)
        s.log(inversion=loss)
        if index == o.iterations - 1:
            for pool, found in zip(pools.values(), best.tensors, strict=True):
                pool.add(found)
            s.log(held=len(pools[points[0]]))

    def regions(images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The teacher's logits, its Grad-CAMs, and last its class activation maps, of what is asked for."""
        logits, ends, inputs = looking(images.requires_grad_(o.attention > 0))
        found = grad_cams(logits, logits.argmax(1), ends) if o.attention else []
        if o.cam:
            found.append(class_maps(weight, ends[-1], inputs))
        return logits.detach(), [each.detach() for each in found]

    def imitation(batch: StudentBatch) -> Tensor:
        """The student's loss; the rows are what ``regions`` gives of the teacher."""
        apart = kl_rows(batch.teacher, batch.student, o.temperature).mean()
        loss = o.alpha * apart / (batch.student.shape[1] if o.by_class else 1)
        if not looks:
            return loss
        ends = [group[-1] for group in batch.layers]
        regional = torch.zeros((), device=s.device)
        if o.attention:
            own = grad_cams(batch.student, batch.teacher.argmax(1), ends)
            looked = torch.stack([F.mse_loss(*pair) for pair in zip(own, batch.rows, strict=False)]).sum()
            regional = regional + o.attention * looked
            s.log(attention=looked)
        if o.cam:
            activations = class_maps(s.student_classifier.weight.detach(), ends[-1], batch.penultimate)
            activated = F.mse_loss(activations, batch.rows[-1])
            regional = regional + o.cam * activated
            s.log(cam=activated)
        return loss + regional

    for progress in s.steps("train"):
        part, index = turn(at, synthesis=o.iterations, student=o.student_steps)
        if part == "synthesis":
            invert(index)
            continue
        stream = s.generator("pool", host=True)
        point = points[int(torch.randint(len(points), (), generator=stream))]
        maps = pools[point].sample(o.batch, stream)
        if float(torch.rand((), generator=stream)) < o.exchange:
            maps = exchanged(maps, s.generator("channels"))
        with torch.no_grad(), evaluating(generator):
            images = cropped_view(generator(maps, point), space, s.generator("crops"))
        set_lr(opt_s, o.rate(progress))
        logits, targets = regions(images) if looks else (None, None)
        loss = s.student_step(
            opt_s, images, imitation, logits=logits, rows=targets, layers=looks, penultimate=o.cam > 0
        )
        s.log(distillation=loss)
