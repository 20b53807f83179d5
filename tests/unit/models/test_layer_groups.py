"""Layers of one shape as groups: their maps in the teacher's answer and in the student's, where one may be replaced."""

from __future__ import annotations

import pytest
import torch
from method_fixtures import IMAGE, images_of, trial
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from bench import StudentBatch
from bench.data.image_spec import ImageSpec
from bench.errors import MethodError, Unsupported
from bench.models import NETWORKS, WITHOUT_LAYERS, build, has_layers, layers
from bench.models.layer_groups import LayerGroups
from bench.spec.method import Data
from bench.spec.method_registry import find_methods
from bench.spec.requirements import why_unsupported
from bench.spec.task import get_task

RGB = ImageSpec(channels=3, size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


def network(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(name, RGB, 10).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_registry_knows_which_networks_name_layers(name: str) -> None:
    image = RGB.model_copy(update={"size": 64}) if name.startswith(("deeplab", "unet")) else RGB
    with torch.device("meta"):
        built = build(name, image, 10)
    assert has_layers(name) == bool(layers(built))
    if layers(built):
        assert any(len(group) > 1 for group in LayerGroups(built, image.shape).shapes)


def test_of_other_networks_only_building_them_tells() -> None:
    assert has_layers("torchvision/resnet18") is None
    assert set(NETWORKS) >= WITHOUT_LAYERS


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("lenet5", [(2, 6, 28), (2, 16, 10), (2, 120, 1)]),
        ("lenet5bn-half", [(3, 3, 28), (3, 8, 10), (3, 60, 1)]),
        ("resnet34", [(3, 64, 32), (4, 128, 16), (6, 256, 8), (3, 512, 4)]),
        ("resnet50", [(3, 256, 32), (4, 512, 16), (6, 1024, 8), (3, 2048, 4)]),
        ("wrn40-2", [(6, 32, 32), (6, 64, 16), (6, 128, 8)]),
        ("vgg11", [(1, 64, 32), (1, 128, 16), (2, 256, 8), (4, 512, 4)]),
        ("vit-mini", [(6, 128, 8)]),
    ],
)
def test_groups_of_each_family(name: str, groups: list[tuple[int, int, int]]) -> None:
    with torch.device("meta"):
        found = LayerGroups(build(name, RGB, 10), RGB.shape).shapes
    assert [(len(group), *group[0][:2]) for group in found] == groups
    assert all(len(set(group)) == 1 for group in found)


def test_a_residual_networks_maps_are_its_blocks() -> None:
    teacher, images = network("wrn16-1"), torch.randn(3, *RGB.shape)
    with torch.no_grad():
        x, expected = teacher.conv1(images), []
        for stage in teacher.stages:
            expected.append([x := block(x) for block in stage.layer])
    with trial(steps=1, teacher=teacher, student=network("wrn16-1", 1), image=RGB) as (s, context):
        assert s.teacher.layer_shapes == s.student_layer_shapes
        assert context.meter.teacher_images == context.meter.macs == 0
        found = s.teacher(images, layers=True).layers
        assert context.meter.teacher_images == 3
        assert not any(module._forward_hooks for module in teacher.modules())
        with pytest.raises(AttributeError, match="request them"):
            _ = s.teacher(images).layers
    assert [len(group) for group in found] == [2, 2, 2]
    for group, wanted in zip(found, expected, strict=True):
        for own, other in zip(group, wanted, strict=True):
            torch.testing.assert_close(own, other)


def test_a_vggs_maps_are_those_after_relu() -> None:
    teacher, images = network("vgg11"), torch.randn(2, *RGB.shape)
    with trial(steps=1, teacher=teacher, student=network("vgg8"), image=RGB) as (s, _):
        maps = s.teacher(images, layers=True).layers
    assert all(bool((each >= 0).all()) and bool(each.any()) for group in maps for each in group)
    with torch.no_grad():
        x = F.max_pool2d(F.relu(teacher.block0(images)), 2)
        torch.testing.assert_close(maps[1][0], F.relu(teacher.block1(x)))


@pytest.mark.parametrize("name", ["lenet5bn-half", "wrn16-1", "vgg8", "resnet18", "vit-mini"])
def test_a_map_in_its_own_place_changes_nothing_and_another_one_all_that_follows(name: str) -> None:
    student, images = network(name), torch.randn(4, *RGB.shape)
    with trial(steps=1, teacher=network("lenet5"), student=student, image=RGB) as (s, context):
        student.eval()
        with torch.no_grad():
            logits, ends = s.student_groups(images)
            shown = [each.clone() for each in ends]
            for group, end in enumerate(ends):
                torch.testing.assert_close(s.student_from(images, group, end), logits)
                torch.testing.assert_close(s.student_from(torch.randn_like(images), group, end), logits)
                assert not torch.allclose(s.student_from(images, group, end.flip(0)), logits)
        assert context.meter.student_images == 4 * (1 + 3 * len(ends))
    for now, before in zip(ends, shown, strict=True):
        assert torch.equal(now, before)  # though some networks go on in place
    assert not any(module._forward_hooks for module in layers(student))


def test_a_gradient_through_a_replaced_map_reaches_it_and_what_follows_alone() -> None:
    with trial(steps=1) as (s, context):
        student = s.student
        maps = torch.randn(5, 8, 10, 10, requires_grad=True)
        s.student_from(torch.zeros(5, *IMAGE.shape), 1, maps).sum().backward()
        assert maps.grad is not None
        assert bool(maps.grad.any())
        reached = [name for name, each in student.named_parameters() if each.grad is not None]
        assert reached == [name for name, _ in student.named_parameters() if name.startswith(("body.6", "head"))]
        assert context.meter.student_backward == 5


@pytest.mark.parametrize("uses", ["answer", "maps", "both", "first map"])
def test_a_pass_for_maps_is_counted_once_on_its_way_back(uses: str) -> None:
    with trial(steps=1) as (s, context):
        logits, ends = s.student_groups(torch.randn(6, *IMAGE.shape))
        chosen = {"answer": [logits], "maps": [*ends], "both": [logits, *ends], "first map": [ends[0]]}[uses]
        sum(each.sum() for each in chosen).backward()  # type: ignore[union-attr]
        assert (context.meter.student_images, context.meter.student_backward) == (6, 6)


def test_a_students_step_has_the_maps_of_both_networks_in_groups() -> None:
    images = torch.randn(40, *IMAGE.shape)
    seen: list[StudentBatch] = []

    def loss(batch: StudentBatch) -> Tensor:
        seen.append(batch)
        return torch.stack([group[-1].square().mean() for group in batch.layers]).sum()

    with trial(steps=1) as (s, context):
        opt = s.keep("opt", SGD(s.student.parameters(), 0.0))
        with torch.no_grad():
            out, (_, ends) = s.teacher(images, layers=True), s.student_groups(images)
        s.student_step(opt, images, loss, logits=out.logits, rows=[group[-1] for group in out.layers], layers=True)
        assert (context.meter.teacher_images, context.meter.student_images) == (40, 80)
        shapes = [[tuple(each.shape[1:]) for each in group] for group in seen[0].layers]
        assert shapes == [list(group) for group in s.student_layer_shapes]
    order = [*range(8, 16), *range(8, 40)]  # those held out are not among them
    for found, group in zip(seen[0].rows, out.layers, strict=True):
        torch.testing.assert_close(found, group[-1][order])
    for group, wanted in zip(seen[0].layers, ends, strict=True):
        torch.testing.assert_close(group[-1], wanted[order])


class Once(nn.Module):
    """A network whose layers are what a test makes of them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 10)
        self.layers = {"none": [], "twice": [self.conv, self.head], "unused": [self.conv, nn.ReLU()]}[kind]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(images).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "Once names no layers, and the method needs their maps"),
        ("twice", "not all layers that Once names make a map"),
        ("unused", "not all layers that Once names make a map"),
    ],
)
def test_networks_without_usable_layers_leave_the_trial_out_by_plan(kind: str, message: str) -> None:
    with trial(steps=1, teacher=Once(kind), student=Once(kind)) as (s, _):
        with pytest.raises(Unsupported, match=message):
            s.teacher(torch.randn(2, *IMAGE.shape), layers=True)
        with pytest.raises(Unsupported, match=message):
            _ = s.student_layer_shapes


def test_wrong_maps_are_told() -> None:
    images = torch.zeros(2, *IMAGE.shape)
    with trial(steps=1) as (s, _):
        with pytest.raises(MethodError, match="no layer group 3: the network has 3, from 0"):
            s.student_from(images, 3, torch.zeros(2, 60, 1, 1))
        with pytest.raises(MethodError, match=r"maps of group 1 are \(8, 10, 10\), not \(16, 10, 10\)"):
            s.student_from(images, 1, torch.zeros(2, 16, 10, 10))


def test_a_task_whose_networks_name_no_layers_is_known_to_be_unsupported() -> None:
    cards, task = find_methods(), get_task("cifar10/alexnet-half")
    assert why_unsupported(cards["dfa"], task) == (
        "dfa needs the feature maps of both networks' layers, and alexnet of cifar10/alexnet-half names none"
    )
    mixed = task.model_copy(update={"student": "hintonnet", "teacher": get_task("digits/lenet5-half").teacher})
    assert "and hintonnet of cifar10/alexnet-half names none" in why_unsupported(cards["dfa"], mixed)
    assert why_unsupported(cards["kd"], task) == why_unsupported(cards["dfa"], get_task("digits/lenet5-half")) == ""


# ---- parts of the training images ------------------------------------------------------------------------------------


def test_parts_share_no_image_and_none_is_left_out() -> None:
    with trial(steps=1, data=Data.TRAIN, train=images_of(21)) as (s, context):
        drawn = [s.images(size, part=(place, 2))[0] for place, size in ((0, 11), (1, 10))]
        again = s.images(22, part=(0, 2))[0]  # two more epochs of the first
        assert context.meter.real_images == 43
        everything = s.images(21)[0]

    def numbers(images: Tensor) -> list[int]:
        return [int((everything == image).flatten(1).all(1).nonzero()[0, 0]) for image in images]

    first, second = map(numbers, drawn)
    assert sorted(first + second) == list(range(21))
    assert sorted(numbers(again)) == sorted(first * 2)
    assert numbers(again)[:11] != first  # an order of its own in each epoch


def test_taking_from_a_part_leaves_the_whole_as_it_was() -> None:
    def taken(parts: bool) -> Tensor:
        with trial(steps=1, data=Data.TRAIN, train=images_of(30)) as (s, _):
            if parts:
                s.images(7, part=(1, 3))
            return s.images(12)[0]

    assert torch.equal(taken(True), taken(False))


def test_parts_go_on_where_they_were_stopped() -> None:
    with trial(steps=1, data=Data.TRAIN, train=images_of(30)) as (s, context):
        s.images(7, part=(1, 2))
        state = context.real.state()
        wanted = [s.images(20, part=(place, 2))[0] for place in (0, 1)]
    with trial(steps=1, data=Data.TRAIN, train=images_of(30)) as (s, context):
        s.images(3, part=(0, 2))
        context.real.restore(state)
        assert torch.equal(s.images(20, part=(1, 2))[0], wanted[1])


@pytest.mark.parametrize("part", [(2, 2), (-1, 2), (0, 0), (0, 31)])
def test_parts_that_there_are_not_are_told(part: tuple[int, int]) -> None:
    with trial(steps=1, data=Data.TRAIN, train=images_of(30)) as (s, _), pytest.raises(MethodError, match="no part"):
        s.images(4, part=part)
    with trial(steps=1, data=Data.POOL, train=images_of(30)) as (s, _), pytest.raises(MethodError, match="choose"):
        s.images(4, part=(0, 2))
