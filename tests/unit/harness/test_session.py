"""What a method can see and do, and what it cannot."""

from __future__ import annotations

import gc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from method_fixtures import lenet
from torch import Tensor, nn
from torch.optim import SGD

from bench import Access, Data, Session
from bench.data import Split
from bench.errors import AccessDenied, DataLeak, MethodError
from bench.harness.losses import kl_divergence
from bench.harness.session import session_for
from bench.harness.trial_context import TrialContext
from bench.spec.budget import Budget

MakeContext = Callable[..., TrialContext]


def sit(context: TrialContext) -> Session:
    return session_for(context.image, 10)


def split(context: TrialContext, count: int = 20) -> Split:
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, *context.image.shape), generator=stream, dtype=torch.uint8)
    return Split(images, torch.arange(count) % 10)


LEVELS: list[tuple[Access, Callable[[Session, Tensor], Any]]] = [
    (Access.LABELS, lambda s, x: s.teacher(x).labels),
    (Access.LOGITS, lambda s, x: s.teacher(x).logits),
    (Access.GRADIENTS, lambda s, x: s.teacher(x.clone().requires_grad_()).logits.sum().backward()),
    (Access.FEATURES, lambda s, x: s.teacher(x, features=True).features),
    (Access.FEATURES, lambda s, x: s.teacher(x, penultimate=True).penultimate),
    (Access.FEATURES, lambda s, x: s.teacher(x, groups=True).groups),
    (Access.FEATURES, lambda s, x: s.teacher(x, layers=True).layers),
    (Access.FEATURES, lambda s, x: s.teacher.layer_shapes),
    (Access.FEATURES, lambda s, x: s.teacher(x, pooled="stages").pooled),
    (Access.FEATURES, lambda s, x: s.teacher.pooled_size("stages")),
    (Access.BATCH_NORM, lambda s, x: s.teacher(x, batch_norm=True).batch_norm),
    (Access.BATCH_NORM, lambda s, x: s.teacher(x, pooled="batch_norm").pooled),
    (Access.BATCH_NORM, lambda s, x: s.teacher.pooled_size("batch_norm")),
    (Access.PARAMETERS, lambda s, x: s.teacher.classifier_weight),
]


@pytest.mark.parametrize("declared", list(Access))
def test_each_level_allows_what_it_includes_and_denies_the_rest(make_context: MakeContext, declared: Access) -> None:
    for level, use in LEVELS:
        with make_context(access=declared, teacher=lenet(1, "lenet5bn")) as context:
            images = torch.randn(4, *context.image.shape)
            if level <= declared:
                use(sit(context), images)
                assert context.used == level
            else:
                with pytest.raises(AccessDenied, match=f"declares Access.{declared.name}"):
                    use(sit(context), images)


def test_denied_access_is_not_an_ordinary_exception(make_context: MakeContext) -> None:
    with make_context(access=Access.LABELS) as context, pytest.raises(AccessDenied):
        try:
            _ = sit(context).teacher(torch.randn(2, *context.image.shape)).logits
        except Exception:  # what a careless method would write
            pytest.fail("swallowed")


def test_logits_carry_a_gradient_only_where_declared(make_context: MakeContext) -> None:
    with make_context(access=Access.LOGITS) as context:
        assert not sit(context).teacher(torch.randn(2, *context.image.shape)).logits.requires_grad
    with make_context(access=Access.GRADIENTS) as context:
        images = torch.randn(2, *context.image.shape, requires_grad=True)
        sit(context).teacher(images).logits.sum().backward()
        assert images.grad is not None
        assert bool(images.grad.any())


def test_features_are_the_input_of_the_head(make_context: MakeContext) -> None:
    with make_context() as context:
        out = sit(context).teacher(torch.randn(3, *context.image.shape), features=True)
        assert out.features.shape == (3, 120)
        torch.testing.assert_close(context._teachers[0].network.head(out.features), out.logits)
        with pytest.raises(AttributeError, match="features=True"):
            _ = sit(context).teacher(torch.randn(3, *context.image.shape)).features


def test_batch_norm_statistics_are_those_of_the_layers_input(make_context: MakeContext) -> None:
    class Normed(nn.Sequential):
        pass

    norm = nn.BatchNorm2d(1)
    norm.running_mean, norm.running_var = torch.tensor([0.5]), torch.tensor([2.0])
    teacher = Normed(norm, nn.Flatten(), nn.Linear(1024, 10))
    with make_context(teacher=teacher) as context:
        images = torch.randn(5, *context.image.shape)
        (entry,) = sit(context).teacher(images, batch_norm=True).batch_norm
    torch.testing.assert_close(entry.mean, images.mean((0, 2, 3)))
    torch.testing.assert_close(entry.var, images.var((0, 2, 3), correction=0))
    assert entry.running_mean.item() == 0.5
    assert entry.running_var.item() == 2.0


def test_real_images_are_for_those_who_declare_them(make_context: MakeContext) -> None:
    with make_context() as context, pytest.raises(DataLeak, match=r"declares Data\.NONE"):
        sit(context).images(4)


def test_every_real_image_comes_once_an_epoch(make_context: MakeContext) -> None:
    with make_context(data=Data.TRAIN) as probe:
        train = split(probe)
    with make_context(data=Data.TRAIN, real=train) as context:
        batches = [sit(context).images(8) for _ in range(5)]  # two epochs of 20
        labels = torch.cat([labels for _, labels in batches])
        assert context.meter.real_images == 40
    assert labels[:20].bincount().tolist() == [2] * 10
    assert labels[20:].bincount().tolist() == [2] * 10
    assert labels[:20].tolist() != labels[20:].tolist()
    assert batches[0][0].dtype == torch.float32


def test_nothing_in_a_session_leads_to_data_or_to_the_teacher(make_context: MakeContext) -> None:
    with make_context(data=Data.TRAIN) as probe:
        train = split(probe)
    with make_context(real=train, data=Data.TRAIN) as context:
        session = sit(context)
        hidden = {id(value) for value in context._teachers[0].network.state_dict(keep_vars=True).values()}
        hidden |= {id(train.images), id(context._teachers[0].network), id(context._real)}
        reached = _reachable([session, session.teacher, session.task])
    assert not hidden & reached


def _reachable(roots: list[Any]) -> set[int]:
    """Ids of everything that attributes, containers and closures lead to; a module's globals are not followed."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, ModuleType | type):
            continue
        seen.add(id(thing))
        if callable(thing) and hasattr(thing, "__globals__"):
            waiting += [cell.cell_contents for cell in thing.__closure__ or ()]
            continue
        waiting += gc.get_referents(thing)
    return seen


def test_distillation_loss_is_hintons(make_context: MakeContext) -> None:
    with make_context() as context:
        session = sit(context)
        opt = session.keep("opt", SGD(session.student.parameters(), 0.1))
        images, labels = torch.randn(16, *context.image.shape), torch.arange(16) % 10
        with torch.no_grad():
            answer, logits = session.student(images), session.teacher(images).logits
        wanted = 0.7 * kl_divergence(logits, answer, 3.0) + 0.2 * nn.functional.cross_entropy(answer, labels)
        loss = session.distill(opt, images, temperature=3.0, alpha=0.7, labels=labels, beta=0.2)
    torch.testing.assert_close(loss, wanted)
    assert not loss.requires_grad


def test_known_logits_save_the_question(make_context: MakeContext) -> None:
    with make_context() as context:
        session = sit(context)
        opt = session.keep("opt", SGD(session.student.parameters(), 0.1))
        context.clock.start()
        images = torch.randn(8, *context.image.shape)
        session.distill(opt, images, logits=torch.randn(8, 10))
        assert context.meter.teacher_images == 0
        session.distill(opt, images)
        assert context.meter.teacher_images == 8


def test_some_images_are_held_out_from_training(make_context: MakeContext) -> None:
    with make_context() as context:
        session = sit(context)
        opt = session.keep("opt", SGD(session.student.parameters(), 0.1))
        trained: list[Tensor] = []
        session.student.register_forward_pre_hook(lambda _, args: trained.append(args[0].detach().clone()))
        images = torch.randn(64, *context.image.shape)
        session.distill(opt, images)
        held = context.capture.held_out.column("images")
    assert held is not None
    torch.testing.assert_close(held, images[:8])
    assert len(trained[0]) == 64
    assert not any(bool((picture == trained[0]).flatten(1).all(1).any()) for picture in held)


def test_update_touches_only_its_own_parameters(make_context: MakeContext) -> None:
    with make_context() as context:
        session = sit(context)
        generator = session.keep("generator", nn.Linear(4, 1024))
        opt = session.keep("opt", SGD(generator.parameters(), 0.1))
        before = [p.detach().clone() for p in generator.parameters()]
        images = generator(torch.randn(4, 4)).view(4, *context.image.shape)
        session.update(opt, session.student(images).square().mean())
        assert all(p.grad is None for p in session.student.parameters())
        assert all(bool((a != b).any()) for a, b in zip(before, generator.parameters(), strict=True))


def test_update_refuses_a_loss_that_reaches_nothing(make_context: MakeContext) -> None:
    with make_context() as context:
        session = sit(context)
        generator = session.keep("generator", nn.Linear(4, 4))
        opt = session.keep("opt", SGD(generator.parameters(), 0.1))
        with pytest.raises(MethodError, match="no gradient reaches them"):
            session.update(opt, session.student(torch.randn(2, *context.image.shape)).mean())
        with pytest.raises(MethodError, match="detached"):
            session.update(opt, torch.tensor(1.0))
        with pytest.raises(MethodError, match="a single number"):
            session.update(opt, generator(torch.randn(2, 4)))


def test_an_optimiser_must_be_kept(make_context: MakeContext) -> None:
    with make_context() as context:
        session = sit(context)
        context.clock.start()
        opt = SGD(session.student.parameters(), 0.1)
        with pytest.raises(MethodError, match="used but not kept"):
            session.update(opt, session.student(torch.randn(2, *context.image.shape)).mean())


def test_things_are_kept_once_and_must_be_savable(make_context: MakeContext) -> None:
    with make_context() as context:
        session = sit(context)
        session.keep("a", {"x": 1})
        with pytest.raises(MethodError, match="two objects are kept as 'a'"):
            session.keep("a", {"x": 1})
        with pytest.raises(MethodError, match="not int"):
            session.keep("b", 3)


def test_streams_are_independent_and_repeatable(make_context: MakeContext) -> None:
    with make_context() as context:
        session = sit(context)
        first, other = session.noise(4), session.noise(4, stream="other")
    with make_context() as context:
        session = sit(context)
        session.uniform(100)
        torch.testing.assert_close(session.noise(4, stream="other"), other)
        torch.testing.assert_close(session.noise(4), first)
    with make_context(seed=1) as context:
        assert bool((sit(context).noise(4) != first).all())


def test_phases_share_the_budget(make_context: MakeContext) -> None:
    with make_context(budget=Budget(steps=10)) as context:
        session = sit(context)
        first = list(session.steps("first", share=0.3))
        second = list(session.steps("second"))
    assert len(first) == 3
    assert len(second) == 7
    assert first == pytest.approx([0, 1 / 3, 2 / 3])
    assert second == pytest.approx([i / 7 for i in range(7)])


def test_a_phase_that_ends_early_leaves_its_share(make_context: MakeContext) -> None:
    with make_context(budget=Budget(steps=10)) as context:
        session = sit(context)
        for _ in session.steps("first", share=0.5):
            break
        progress = list(session.steps("second"))
    assert len(progress) == 10
    assert progress[0] == 0
    assert progress == sorted(progress)


def test_a_short_phase_gives_its_time_to_the_next(make_context: MakeContext) -> None:
    with make_context(budget=Budget(steps=10)) as context:
        session = sit(context)
        for progress in session.steps("first", share=0.5):
            if progress >= 0.4:
                break
        progress = list(session.steps("second"))
    assert progress == pytest.approx([i / len(progress) for i in range(len(progress))])


def test_shares_and_names_of_phases_are_checked(make_context: MakeContext) -> None:
    with make_context() as context:
        session = sit(context)
        list(session.steps("a", share=0.6))
        with pytest.raises(MethodError, match="two loops are named 'a'"):
            list(session.steps("a"))
        with pytest.raises(MethodError, match=r"add up to 1\.1"):
            list(session.steps("b", share=0.5))
    with make_context() as context, pytest.raises(MethodError, match="inside a step of another loop"):
        session = sit(context)
        for _ in session.steps("outer"):
            list(session.steps("inner"))


def test_a_loop_that_spends_nothing_is_stopped(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.harness.clock.IDLE_STEPS", 50)
    with (
        make_context(budget=Budget(teacher_images=100)) as context,
        pytest.raises(MethodError, match="50 steps of 'idle'"),
    ):
        for _ in sit(context).steps("idle"):
            pass


def test_work_that_the_budget_does_not_limit_goes_on_for_long(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.harness.clock.IDLE_STEPS", 5)
    monkeypatch.setattr("bench.harness.clock.STUCK_STEPS", 20)
    with (
        make_context(budget=Budget(student_images=100)) as context,
        pytest.raises(MethodError, match="20 steps of 'dream'"),
    ):
        context.clock.start()
        session = sit(context)
        for _ in session.steps("dream"):
            session.noise(2, *context.image.shape)


def test_logs_are_means_since_the_last_look(make_context: MakeContext) -> None:
    with make_context() as context:
        session = sit(context)
        session.log(loss=1.0)
        session.log(loss=torch.tensor([2.0, 4.0]))
        assert context.take_logs() == {"loss": 2.0}
        assert context.take_logs() == {}


def test_a_session_is_dead_outside_its_trial(make_context: MakeContext) -> None:
    with make_context() as context:
        session = sit(context)
    with pytest.raises(MethodError, match="only while the harness runs"):
        session.noise(1)
