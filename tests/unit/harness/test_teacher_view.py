"""What the teacher answers beside its logits: batch-norm statistics, spatial means, groups; and where it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, lenet, trial
from torch import Tensor, nn
from torch.optim import SGD

from bench import StudentBatch, kl_divergence, models
from bench.data.image_spec import ImageSpec
from bench.errors import MethodError, Unsupported
from bench.models import NETWORKS, build, has_batch_norm, stages
from bench.utils.rng import Streams

RGB = ImageSpec(channels=3, size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
NORMS = nn.modules.batchnorm._BatchNorm


def wrn(seed: int, name: str = "wrn16-1") -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(name, RGB, 10)
        for module in network.modules():  # running statistics as after training
            if isinstance(module, NORMS):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return network


def inputs_of(network: nn.Module, modules: list[nn.Module], images: Tensor) -> list[Tensor]:
    seen: list[Tensor] = []
    hooks = [module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone())) for module in modules]
    with torch.no_grad():
        network.eval()(images)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("name", NETWORKS)
def test_the_registry_knows_which_networks_have_batch_norm(name: str) -> None:
    image = RGB.model_copy(update={"size": 64}) if name.startswith(("deeplab", "unet")) else RGB
    with torch.device("meta"):
        network = build(name, image, 10)
    assert has_batch_norm(name) == any(isinstance(module, NORMS) for module in network.modules())


def test_of_other_networks_only_building_them_tells() -> None:
    assert has_batch_norm("torchvision/resnet18") is None
    assert has_batch_norm("mine.py:make") is None


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("lenet5", [(6, 14), (16, 5)]),
        ("lenet5bn-half", [(3, 14), (8, 5)]),
        ("resnet18", [(64, 32), (128, 16), (256, 8), (512, 4)]),
        ("wrn40-2", [(32, 32), (64, 16), (128, 8)]),
        ("vgg11", []),
        ("alexnet", []),
    ],
)
def test_stages_of_each_family(name: str, shapes: list[tuple[int, int]]) -> None:
    with torch.device("meta"):
        network = build(name, RGB, 10)
    seen: list[tuple[int, int]] = []
    for stage in stages(network):
        stage.register_forward_hook(lambda _, args, output: seen.append(tuple(output.shape[1:3])))
    network(torch.zeros(2, *RGB.shape, device="meta"))
    assert seen == shapes


@pytest.mark.parametrize("pooled", ["batch_norm", "stages"])
def test_means_are_those_of_the_inputs_image_by_image(pooled: str) -> None:
    teacher = wrn(1)
    images = torch.randn(5, *RGB.shape)
    modules = stages(teacher) if pooled == "stages" else [each for each in teacher.modules() if isinstance(each, NORMS)]
    expected = np.concatenate([value.double().numpy().mean((2, 3)) for value in inputs_of(teacher, modules, images)], 1)
    with trial(steps=1, teacher=teacher, student=wrn(2), image=RGB) as (s, context):
        assert s.teacher.pooled_size(pooled) == expected.shape[1]  # type: ignore[arg-type]
        assert context.meter.teacher_images == 0
        assert context.meter.macs == 0
        out = s.teacher(images.requires_grad_(), pooled=pooled)  # type: ignore[arg-type]
        np.testing.assert_allclose(out.pooled.detach(), expected, rtol=1e-4, atol=1e-5)
        out.pooled.sum().backward()
        assert images.grad is not None
        assert bool(images.grad.any())
        assert (context.meter.teacher_images, context.meter.teacher_backward) == (5, 5)
        assert all(parameter.grad is None for parameter in teacher.parameters())


def test_groups_are_the_outputs_of_the_stages() -> None:
    teacher = wrn(1)
    images = torch.randn(3, *RGB.shape)
    with torch.no_grad():
        x = teacher.eval().conv1(images)
        expected = [x := stage(x) for stage in stages(teacher)]
    with trial(steps=1, teacher=teacher, student=wrn(2), image=RGB) as (s, _):
        out = s.teacher(images, groups=True)
    assert len(out.groups) == 3
    for found, wanted in zip(out.groups, expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_nothing_is_computed_and_no_hook_is_left_when_nothing_is_asked_for() -> None:
    teacher = lenet(1, "lenet5bn")
    with trial(steps=1, teacher=teacher) as (s, _):
        s.teacher(torch.randn(2, *IMAGE.shape), batch_norm=True, pooled="batch_norm", groups=True, features=True)
        assert not any(module._forward_pre_hooks for module in teacher.modules())
        assert not any(module._forward_hooks for module in teacher.modules())
        out = s.teacher(torch.randn(2, *IMAGE.shape))
        for name in ("batch_norm", "pooled", "groups", "features"):
            with pytest.raises(AttributeError, match="request "):
                getattr(out, name)


def test_a_network_without_batch_norm_or_stages_leaves_the_trial_out_by_plan() -> None:
    images = torch.randn(2, *IMAGE.shape)
    with trial(steps=1) as (s, _):
        for question in ({"batch_norm": True}, {"pooled": "batch_norm"}):
            with pytest.raises(Unsupported, match="LeNet has no batch norm, and the method needs its statistics"):
                s.teacher(images, **question)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))
    with trial(steps=1, teacher=teacher) as (s, _):
        for question in ({"groups": True}, {"pooled": "stages"}):
            with pytest.raises(Unsupported, match="Sequential names no stages, and the method needs its groups"):
                s.teacher(images, **question)
        with pytest.raises(MethodError, match="'batch_norm' or 'stages', not 'all'"):
            s.teacher(images, pooled="all")  # type: ignore[arg-type]


# ---- the student's groups, rows of one's own, clipped gradients ------------------------------------------------------


def test_the_students_groups_come_from_the_pass_that_distils() -> None:
    teacher, student = wrn(1), wrn(2)
    images = torch.randn(40, *RGB.shape)  # enough for some to be held out
    seen: list[tuple[list[Tensor], list[Tensor]]] = []

    def distance(batch: StudentBatch) -> Tensor:
        seen.append(([*batch.rows], [each.detach() for each in batch.groups]))
        apart = [((a - b) ** 2).mean() for a, b in zip(batch.rows, batch.groups, strict=True)]
        return kl_divergence(batch.teacher, batch.student) + torch.stack(apart).sum()

    with trial(steps=1, teacher=teacher, student=student, image=RGB) as (s, context):
        opt = s.keep("opt", SGD(s.student.parameters(), 0.0))
        with torch.no_grad():
            out = s.teacher(images, groups=True)
        asked = context.meter.teacher_images
        plain = s.distill(opt, images[:8], logits=out.logits[:8])
        rows = [group[:8] for group in out.groups]
        both = s.student_step(opt, images[:8], distance, logits=out.logits[:8], rows=rows, groups=True)
        assert context.meter.teacher_images == asked
        assert context.meter.student_images == 16
        expected = sum(((a - b) ** 2).mean() for a, b in zip(*seen[0], strict=True))
        torch.testing.assert_close(both, plain + expected)
        s.student_step(opt, images, distance, logits=out.logits, rows=out.groups, groups=True)
        assert context.meter.teacher_images == asked
        assert not any(module._forward_hooks for stage in stages(student) for module in stage.modules())
        held = context.capture.held_out.column("images")
        assert held is not None
        order = torch.cat([torch.arange(8, 16), torch.arange(8, 40)])
        torch.testing.assert_close(seen[1][0][0], out.groups[0][order])


def test_rows_follow_the_images_that_are_trained_on() -> None:
    images = torch.randn(64, *IMAGE.shape)
    with trial(steps=1) as (s, _):
        opt = s.keep("opt", SGD(s.student.parameters(), 0.1))
        with torch.no_grad():
            logits = s.teacher(images).logits
        found: list[Tensor] = []

        def weighted(batch: StudentBatch) -> Tensor:
            found.append(batch.rows)
            torch.testing.assert_close(batch.teacher, logits[batch.rows])  # each row beside its own image's answer
            return ((batch.teacher - batch.student).abs().mean(1) * batch.rows).mean()

        s.student_step(opt, images, weighted, logits=logits, rows=torch.arange(64))
    assert found[0].tolist() == [*range(8, 16), *range(8, 64)]


@pytest.mark.parametrize("norm", [1e-3, 1e6])
def test_gradients_are_clipped_to_a_common_norm(norm: float) -> None:
    def change(clip: float | None) -> Tensor:
        with trial(steps=1) as (s, _):
            opt = s.keep("opt", SGD(s.student.parameters(), 1.0))
            before = torch.cat([parameter.detach().flatten().clone() for parameter in s.student.parameters()])
            s.update(opt, s.student(torch.ones(4, *IMAGE.shape)).square().sum(), clip=clip)
            return torch.cat([parameter.detach().flatten() for parameter in s.student.parameters()]) - before

    free, clipped = change(None), change(norm)
    expected = free * min(1.0, norm / float(free.norm()))
    torch.testing.assert_close(clipped, expected, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 0.0}, "clip, the largest norm of the gradients, must be above 0, not 0"),
        ({"clip": -1.0}, "clip, the largest norm of the gradients, must be above 0, not -1"),
        ({"clip": float("nan")}, "must be above 0, not nan"),
        ({"temperature": 0}, "a temperature must be above 0, not 0"),
        ({"temperature": -4.0}, "a temperature must be above 0, not -4"),
        ({"beta": 1.0}, r"s.distill\(beta=1\) needs labels="),
    ],
)
def test_what_a_step_is_told_has_limits(options: dict[str, float], message: str) -> None:
    with pytest.raises(MethodError, match=message), trial(steps=1) as (s, _):
        s.distill(s.keep("opt", SGD(s.student.parameters(), 1.0)), s.noise(4, *IMAGE.shape), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["text", None, [1.0]])
def test_only_numbers_are_logged(value: object) -> None:
    with (
        pytest.raises(MethodError, match=r"s.log\(loss=...\) takes a number or a tensor, not "),
        trial(steps=1) as (s, _),
    ):
        s.log(loss=value)  # type: ignore[arg-type]


def test_known_gradients_are_tensors_of_the_parameters_shapes() -> None:
    with trial(steps=1) as (s, _):
        network = s.keep("network", nn.Linear(3, 2))
        opt = s.keep("opt", SGD(network.parameters(), 0.5))
        for wrong in ([None, None], [torch.ones(2, 3)], [torch.ones(2), torch.ones(2)]):
            with pytest.raises(MethodError, match="takes one gradient for each of the optimiser's parameters"):
                s.apply(opt, wrong)  # type: ignore[arg-type]
        with pytest.raises(MethodError, match="must be above 0, not 0"):
            s.apply(opt, [torch.ones(2, 3), torch.ones(2)], clip=0.0)


def test_known_gradients_make_a_counted_step() -> None:
    with trial(steps=1) as (s, context):
        network = s.keep("network", nn.Linear(3, 2))
        opt = s.keep("opt", SGD(network.parameters(), 0.5))
        before = [parameter.detach().clone() for parameter in network.parameters()]
        gradients = [torch.ones(2, 3), torch.tensor([0.0, 2.0])]
        reached: list[object] = []
        context.updates.on_gradients = reached.append
        s.apply(opt, gradients)
        for own, old, gradient in zip(network.parameters(), before, gradients, strict=True):
            torch.testing.assert_close(own.detach(), old - 0.5 * gradient)
        s.apply(opt, gradients, clip=0.1)
        length = float(torch.cat([each.flatten() for each in gradients]).norm())
        torch.testing.assert_close(network.bias.detach(), before[1] - (0.5 + 0.05 / length) * gradients[1])
        assert context.meter.optimizer_steps == 2
        assert reached == [opt, opt]
        with pytest.raises(MethodError, match="one gradient for each of the optimiser's parameters"):
            s.apply(opt, gradients[:1])
        s.apply(opt, [torch.full((2, 3), torch.nan), torch.zeros(2)])
        with pytest.raises(BaseException, match="NaN or infinite"):
            context.check_finite()


def test_a_host_stream_is_the_devices_own_on_the_cpu() -> None:
    with trial(steps=1) as (s, _):
        assert s.generator("shift", host=True) is s.generator("shift")


def test_a_host_stream_is_seeded_by_its_name_and_saved_apart_from_the_devices() -> None:
    streams = Streams(3, torch.device("cuda"))  # no number is drawn on the device itself
    first, again = (
        torch.rand(3, generator=each.on_host("shift")) for each in (streams, Streams(3, torch.device("cpu")))
    )
    torch.testing.assert_close(first, again)
    saved = {"shift (host)": streams.on_host("shift").get_state()}
    later = torch.rand(3, generator=streams.on_host("shift"))
    other = Streams(9, torch.device("cuda"))
    other.restore({**Streams(9, torch.device("cpu")).state(), "streams": saved})
    torch.testing.assert_close(torch.rand(3, generator=other.on_host("shift")), later)


def test_names_of_networks_without_batch_norm_are_in_the_registry() -> None:
    assert set(NETWORKS) >= models.WITHOUT_BATCH_NORM
