"""DFA: mixtures of layers and losses in NumPy, the search and stage 2 written out bare, and what the two paths do."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, images_of, lenet, same_weights, trial
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from bench.data import Split
from bench.data.batches import RealImages
from bench.errors import Unsupported
from bench.harness.trial_context import TrialContext
from bench.spec.method import Access, Data
from methods.dfa import aggregated, depth, dfa, weights_of

CPU = torch.device("cpu")
PLAIN = {"batch": 8, "optimizer": "sgd", "lr_student": 0.02, "schedule": "constant", "lr_aggregation": 0.1}
Array = NDArray[np.float64]


pytestmark = pytest.mark.usefixtures("_double")


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    method = dfa.declared
    setup = {"teacher": lenet(1), "student": lenet(2, "lenet5-half"), "train": images_of(60), **around}
    with trial(steps=steps, access=method.access, data=method.data, **setup) as (session, context):
        method.run(session, method.make_options({**PLAIN, **options}))
        return context


def maps_of(network: nn.Module, images: Tensor) -> list[list[Tensor]]:
    """Of LeNets without batch norm: each convolution's output before and after ReLU."""
    found, x = [], images.double()
    for module in network.body:  # type: ignore[union-attr]
        x = module(x)
        if isinstance(module, nn.Conv2d):
            found.append([x])
        elif isinstance(module, nn.ReLU):
            found[-1].append(x)
    return found


def onwards(network: nn.Module, maps: Tensor, group: int) -> Tensor:
    """The logits of a LeNet from the map that ends a group."""
    begin = [place for place, module in enumerate(network.body) if isinstance(module, nn.ReLU)][group] + 1  # type: ignore[arg-type]
    logits: Tensor = network.head(network.body[begin:](maps))  # type: ignore[operator,index]
    return logits


def arrays(*maps: Tensor) -> list[Array]:
    return [each.detach().numpy() for each in maps]


# ---- the equations in NumPy ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_mixture_is_the_sum_of_maps_by_softmax(count: int) -> None:
    maps, b = torch.randn(count, 3, 4, 6, 6), torch.randn(count)
    weights = weights_of(b, "search")
    np.testing.assert_allclose(weights.numpy(), softmax(b.numpy()), rtol=1e-12)
    expected = (softmax(b.numpy())[:, None, None, None, None] * maps.numpy()).sum(0)
    np.testing.assert_allclose(aggregated(list(maps), weights).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(weights_of(b, "average").numpy(), np.full(count, 1 / count))
    assert weights_of(b, "last").tolist() == [0.0] * (count - 1) + [1.0]
    assert torch.equal(aggregated(list(maps), weights_of(b, "last")), maps[-1])


def test_depth_is_where_mixtures_lie_in_their_groups() -> None:
    one, other = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.75, 0.25])
    assert float(depth([one])) == pytest.approx(0.3 * 0.5 + 0.5)
    assert float(depth([one, other])) == pytest.approx((0.65 + 0.25) / 2)
    assert float(depth([weights_of(torch.zeros(4), "last")])) == 1


def losses(teacher: list[list[Array]], ends: list[Array], b: Sequence[Array], connectors: Sequence[nn.Conv2d]) -> Array:
    """D of each group: mean squares between the student's map, through its connector, and the mixture."""
    found = []
    for maps, end, logits, connector in zip(teacher, ends, b, connectors, strict=True):
        weight, bias = arrays(connector.weight[:, :, 0, 0], connector.bias)  # type: ignore[arg-type]
        adapted = np.einsum("oc,nchw->nohw", weight, end) + bias[None, :, None, None]
        mixture = sum(w * each for w, each in zip(softmax(logits), maps, strict=True))
        found.append(((adapted - mixture) ** 2).mean())
    return np.asarray(found)


def error(logits: Array, labels: Array) -> float:
    return float(-log_softmax(logits, 1)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("options", [{}, {"feature": 0.3}, {"alpha": 0.7, "temperature": 3.0}])
def test_stage_two_is_the_cross_entropy_and_the_distances_of_all_groups(options: dict[str, Any]) -> None:
    context = play({"aggregation": "average", **options}, steps=1)
    images, labels = RealImages(images_of(60), IMAGE, 0, CPU).take(8)
    teacher, student = lenet(1), lenet(2, "lenet5-half")
    start = [context.kept["start"][str(place + 1)] for place in range(3)]
    connectors = [nn.Conv2d(*reversed(each["weight"].shape[:2]), 1) for each in start]
    for connector, state in zip(connectors, start, strict=True):
        connector.load_state_dict(state)
    of_teacher, of_student = maps_of(teacher, images), maps_of(student, images)
    t, s = (network(images.double()).detach().numpy() for network in (teacher, student))
    distances = losses([arrays(*each) for each in of_teacher], arrays(*(each[-1] for each in of_student)),
                       [np.zeros(2)] * 3, connectors)  # fmt: skip
    tau = options.get("temperature", 4.0)
    soft = (softmax(t / tau, 1) * (log_softmax(t / tau, 1) - log_softmax(s / tau, 1))).sum(1).mean() * tau**2
    expected = error(s, labels.numpy()) + options.get("feature", 1.0) * distances.sum() + options.get("alpha", 0) * soft
    logs = context.take_logs()
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)  # logs are float32
    assert logs["depth"] == 0.5
    assert distances.min() > 0


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 2.0)])
def test_the_bridge_loss_has_a_path_each_way(weights: tuple[float, float]) -> None:
    options = {"share": 0.5, "student_to_teacher": weights[0], "teacher_to_student": weights[1], "lr_student": 1e-12}
    context = play({**options, "lr_aggregation": 1e-12}, steps=2)
    real, teacher, student = RealImages(images_of(60), IMAGE, 0, CPU), lenet(1), lenet(2, "lenet5-half")
    there, back = [], []
    for part in (1, 0):
        images, labels = real.part(part, 2).take(8)
        maps, end = arrays(*maps_of(teacher, images)[0]), maps_of(student, images)[0][-1].detach().numpy()
        there += [*losses([maps], [end], [np.zeros(2)], [context.kept["to_teacher_0"]])]
        mixture = torch.from_numpy((maps[0] + maps[1]) / 2)
        logits = onwards(student, context.kept["to_student_0"](mixture), 0)
        back.append(error(logits.detach().numpy(), labels.numpy()))
    logs = context.take_logs()
    assert logs["student_to_teacher"] == pytest.approx(np.mean(there), rel=1e-6)
    assert logs["teacher_to_student"] == pytest.approx(np.mean(back), rel=1e-6)


# ---- the loops written out -------------------------------------------------------------------------------------------


def written_out(steps: int, share: float, st: float, ts: float, decay: float) -> tuple[nn.Module, list[Tensor]]:
    """The student and the b of each group after the algorithm, with nothing of the suite but images and networks."""
    teacher, student = lenet(1).requires_grad_(False), lenet(2, "lenet5-half")
    with trial(steps=1, access=Access.FEATURES, data=Data.TRAIN, train=images_of(60)):  # torch's random state as it is
        forth = [nn.Conv2d(own, wanted, 1) for wanted, own in ((6, 3), (16, 8), (120, 60))]
        back = [nn.Conv2d(wanted, own, 1) for wanted, own in ((6, 3), (16, 8), (120, 60))]
    start = deepcopy((student.state_dict(), [each.state_dict() for each in forth]))
    b = [torch.zeros(2, requires_grad=True) for _ in range(3)]
    modules = nn.ModuleList([student, *forth, *back])
    opt_w = SGD(modules.parameters(), 0.02, momentum=0.9, weight_decay=5e-4)
    opt_b = Adam(b, 0.1, betas=(0.5, 0.999), weight_decay=decay)
    real = RealImages(images_of(60), IMAGE, 0, CPU)

    def bridge(images: Tensor, labels: Tensor, i: int) -> tuple[Tensor, Tensor]:
        maps = maps_of(teacher, images)[i]
        a = torch.exp(b[i]) / torch.exp(b[i]).sum()
        mixture = a[0] * maps[0] + a[1] * maps[1]
        there = (forth[i](maps_of(student, images)[i][-1]) - mixture).square().mean()
        telling = F.cross_entropy(onwards(student, back[i](mixture), i), labels)
        own = F.cross_entropy(student(images.double()), labels)
        return own, st * there + ts * telling

    searching = round(steps * share)
    for step in range(searching):
        i = min(int(3 * step / searching), 2)
        for part, optimizer in ((1, opt_b), (0, opt_w)):
            own, paths = bridge(*real.part(part, 2).take(8), i)
            opt_b.zero_grad()
            opt_w.zero_grad()
            (own + paths).backward()
            optimizer.step()

    student.load_state_dict(start[0])
    for each, state in zip(forth, start[1], strict=True):
        each.load_state_dict(state)
    opt_s = SGD(nn.ModuleList([student, *forth]).parameters(), 0.02, momentum=0.9, weight_decay=5e-4)
    for _ in range(steps - searching):
        images, labels = real.take(8)
        loss = F.cross_entropy(student(images.double()), labels)
        for i, (maps, own) in enumerate(zip(maps_of(teacher, images), maps_of(student, images), strict=True)):
            a = b[i].detach().softmax(0)
            loss = loss + 0.5 * (forth[i](own[-1]) - a[0] * maps[0] - a[1] * maps[1]).square().mean()
        opt_s.zero_grad()
        loss.backward()
        opt_s.step()
    return student, b


def test_both_stages_equal_the_algorithm_written_out() -> None:
    options = {
        "share": 0.6, "student_to_teacher": 0.7, "teacher_to_student": 1.3, "weight_decay_aggregation": 0.01,
        "feature": 0.5,
    }  # fmt: skip
    student, b = written_out(10, 0.6, 0.7, 1.3, 0.01)
    context = play(options, steps=10)
    for place, expected in enumerate(b):
        torch.testing.assert_close(context.kept[f"b_{place}"].detach(), expected.detach(), rtol=1e-8, atol=1e-10)
        assert float(expected.detach().abs().max()) > 0.1  # each group had its turn
    assert same_weights(context.student, student, 1e-8)
    other = play({**options, "feature": 0.6}, steps=10)
    assert not same_weights(other.student, student, 1e-8)


def test_the_search_leaves_nothing_to_stage_two_but_the_mixtures() -> None:
    met: dict[str, list[Tensor]] = {}
    method = dfa.declared
    student = lenet(2, "lenet5-half")
    with trial(steps=8, access=method.access, data=method.data, student=student, train=images_of(60)) as (s, context):
        context.hooks.on_phase = lambda phase: met.update({phase: [w.clone() for w in student.state_dict().values()]})
        method.run(s, method.make_options({**PLAIN, "share": 0.5}))
        assert context.kept["opt_s"].state_dict()["state"].keys() == {*range(len(list(student.parameters())) + 6)}
    assert all(torch.equal(one, other) for one, other in zip(met["search"], met["distil"], strict=True))
    assert not same_weights(student, lenet(2, "lenet5-half"))


def test_groups_take_turns_in_equal_parts_of_the_search() -> None:
    when: list[list[bool]] = []
    method = dfa.declared
    with trial(steps=12, access=method.access, data=method.data, train=images_of(60)) as (s, context):
        context.hooks.after_step = lambda: when.append([bool(context.kept[f"b_{group}"].any()) for group in range(3)])
        method.run(s, method.make_options({**PLAIN, "share": 0.5}))
    assert [sum(each) for each in when] == [1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3]
    assert when[1] == [True, False, False]


def test_what_a_search_costs_is_counted() -> None:
    context = play({"share": 0.5}, steps=8)
    assert context.meter.teacher_images == 4 * 2 * 8 + 4 * 8
    assert context.meter.student_images == 4 * 4 * 8 + 4 * 8
    assert context.meter.teacher_backward == 0
    assert context.meter.real_images == 4 * 2 * 8 + 4 * 8
    for without in ("average", "last"):
        context = play({"aggregation": without}, steps=8)
        assert (context.meter.teacher_images, context.meter.student_images) == (64, 64)
        assert context.phases == ["distil"]


# ---- what the two paths do -------------------------------------------------------------------------------------------


class Telling(nn.Module):
    """Two layers of one shape: one has the image's mean in it, the other is silent; the network goes on from both."""

    def __init__(self, image: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 8, stride=8)
        self.silent = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 10)
        self.layers = [self.conv, self.silent] if image else [self.conv]
        for each, value in ((self.conv, 1 / 64), (self.silent, 0.0)):
            nn.init.constant_(each.weight, value)
            nn.init.zeros_(each.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images.to(self.conv.weight.dtype))
        logits: Tensor = self.head((x + self.silent(x)).mean((2, 3)))
        return logits


class Small(nn.Module):
    """A student with one layer of the same size, and more after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 8, stride=8)
        self.head = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 10))
        self.layers = [self.conv]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(images.to(self.conv.weight.dtype)).mean((2, 3)))
        return logits


def bright_and_dark() -> Split:
    labels = torch.arange(80) % 2
    return Split((labels * 200 + 25).to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 32, 32), labels)


def weight_of_telling(there: float, back: float) -> float:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = {"teacher": Telling(), "student": Small()}
    paths = {"student_to_teacher": there, "teacher_to_student": back, "share": 0.9, "lr_aggregation": 0.02}
    rates = {
        "batch": 16,
        "optimizer": "adam",
        "lr_student": 1e-3,
    }  # the student takes time for maps that are not silent
    context = play({**paths, **rates}, steps=60, train=bright_and_dark(), **networks)
    return float(context.kept["b_0"].detach().softmax(0)[0])


def test_one_path_asks_for_maps_that_tell_and_the_other_for_maps_that_are_easy() -> None:
    telling, both, easy = weight_of_telling(0, 1), weight_of_telling(1, 1), weight_of_telling(1, 0)
    assert telling > 0.6
    assert easy < 0.4
    assert easy < both < telling


# ---- where it cannot be run ------------------------------------------------------------------------------------------


def test_networks_whose_groups_do_not_agree_leave_the_trial_out_by_plan() -> None:
    with pytest.raises(Unsupported, match="not the same number of layer groups with maps of the same sizes"):
        play({}, steps=2, teacher=Telling())


def test_groups_of_one_layer_have_nothing_to_aggregate() -> None:
    with pytest.raises(Unsupported, match="there is nothing to aggregate"):
        play({}, steps=2, teacher=Telling(image=False), student=Small())


def test_it_is_labelled_as_re_derived_and_its_settings_are_the_documented_ones() -> None:
    method, o = dfa.declared, dfa.declared.options()
    assert "re-derived" in method.title
    assert (method.data, method.access, method.layers) == (Data.TRAIN, Access.FEATURES, True)
    assert o.share == pytest.approx(40 / 280, abs=1e-3)
    assert (o.lr_aggregation, o.weight_decay_aggregation) == (3e-4, 1e-3)
    assert (o.student_to_teacher, o.teacher_to_student, o.feature, o.alpha) == (1, 1, 1, 0)
    assert o.milestones == (150 / 240, 180 / 240, 210 / 240)
    assert set(method.presets) == {"digits", "mnist", "fashion_mnist"}  # CIFAR's are the defaults
