"""The count is of what really happened, however a network is called; what is not counted is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, images_of, trial
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.optimizer import _global_optimizer_post_hooks
from torch.optim.swa_utils import AveragedModel

from bench import Access, Data, Session, image_generator
from bench.errors import AccessDenied, MethodError
from bench.harness.trial_context import BudgetSpent, TrialContext

TEACHER, STUDENT = 416_520, 133_740  # multiply-adds of the LeNet pair


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *IMAGE.shape, generator=torch.Generator().manual_seed(seed))


class Conditional(nn.Module):
    """Images for codes and wanted classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.body = image_generator(8, IMAGE, width=4)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.body(torch.cat([z, self.embed(y)], 1))


class Heads(nn.Module):
    """Several answers in containers."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.left, self.right, self.wrap = nn.Linear(7, 5), nn.Linear(7, 3), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.left(x), self.right(x))


# ---- kept networks: any signature -----------------------------------------------------------------------------------


def test_arguments_by_place_and_by_name_are_counted_alike() -> None:
    spent = []
    for call in (lambda g, z, y: g(z, y), lambda g, z, y: g(z=z, y=y), lambda g, z, y: g(z, y=y)):
        with trial(steps=1) as (s, context):
            generator = s.keep("generator", Conditional())
            call(generator, torch.randn(6, 4), torch.arange(6)).sum().backward()
            spent.append((context.meter.synthesised_images, context.meter.macs))
    assert spent[0][0] == 6
    assert spent[0][1] > 0
    assert spent[1:] == [spent[0]] * 2


@pytest.mark.parametrize(
    "wrap",
    [
        lambda a, b: (a, b),
        lambda a, b: [a, b],
        lambda a, b: {"a": a, "b": {"c": b}},
        lambda a, b: (a, None, "text", (b,)),
    ],
)
def test_answers_in_containers_are_counted_once_on_the_way_back(wrap: Callable[[Tensor, Tensor], Any]) -> None:
    with trial(steps=1) as (s, context):
        network = s.keep("network", Heads(wrap))
        answer = network(torch.randn(4, 7))
        assert context.meter.macs == 4 * 7 * 8
        found: list[Tensor] = []
        torch.utils._pytree.tree_map(lambda each: found.append(each) if isinstance(each, Tensor) else None, answer)
        sum(each.square().sum() for each in found).backward()  # type: ignore[union-attr]
        assert context.meter.macs == 4 * 7 * 8 * 3


def test_labels_alone_make_images() -> None:
    with trial(steps=1) as (s, context):
        network = s.keep("g", nn.Sequential(nn.Embedding(10, 8), image_generator(8, IMAGE, width=4)))
        network(torch.arange(5))
        assert context.meter.synthesised_images == 5


def test_a_part_of_a_kept_network_is_counted_by_itself() -> None:
    with trial(steps=1) as (s, context):
        pair = s.keep("pair", nn.ModuleDict({"left": nn.Linear(7, 5), "right": nn.Linear(5, 3)}))
        pair["right"](pair["left"](torch.randn(2, 7)))
        assert context.meter.macs == 2 * (35 + 15)


def test_going_around_the_call_is_counted_too() -> None:
    with trial(steps=1) as (s, context):
        network = s.keep("network", nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)))
        network.forward(torch.randn(2, 7))
        assert context.meter.macs == 2 * (35 + 15)


def test_the_old_spectral_norm_works_and_is_counted() -> None:
    with trial(steps=1) as (s, context):
        network = s.keep("d", nn.utils.spectral_norm(nn.Linear(7, 5)))
        for _ in range(3):
            network(torch.randn(2, 7)).sum().backward()
        assert context.meter.macs == 3 * 3 * 2 * 35


def test_a_network_that_nobody_kept_is_counted_all_the_same() -> None:
    with trial(steps=1) as (_, context):
        nn.Linear(7, 5)(torch.randn(2, 7))
        assert context.meter.macs == 70


def test_what_a_call_costs_depends_on_its_arguments() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(7, 7)

        def forward(self, x: Tensor, times: int = 1) -> Tensor:
            for _ in range(times):
                x = self.layer(x)
            return x

    with trial(steps=1) as (s, context):
        network = s.keep("network", Deep())
        for times in (1, 3, 1, 3):
            network(torch.randn(2, 7), times)
        network(torch.randn(4, 7), times=2)
        assert context.meter.macs == 49 * (2 * 8 + 4 * 2)


# ---- copies and wrappers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, AveragedModel, lambda g: nn.Sequential(copy.deepcopy(g))])
def test_a_copy_made_after_keep_is_counted_once(copied: Callable[[nn.Module], nn.Module]) -> None:
    with trial(steps=1) as (s, context):
        generator = s.keep("g", image_generator(8, IMAGE, width=4))
        generator(torch.randn(4, 8))
        alone = context.meter.macs
        average = s.keep("average", copied(generator))
        average(torch.randn(4, 8))
        assert context.meter.synthesised_images == 8
        assert context.meter.macs == 2 * alone


def test_a_kept_wrapper_around_kept_networks_counts_nothing_twice() -> None:
    with trial(steps=1) as (s, context):
        generator = s.keep("g", image_generator(8, IMAGE, width=4))
        both = s.keep("both", nn.Sequential(generator, s.student))
        generator(torch.randn(4, 8))
        alone = context.meter.macs
        both(torch.randn(4, 8)).sum().backward()
        assert context.meter.synthesised_images == 8
        assert context.meter.student_images == 4
        assert context.meter.student_backward == 4
        assert context.meter.macs == alone + 3 * (alone + 4 * STUDENT)


def test_a_copy_of_the_student_is_not_the_student() -> None:
    with trial(steps=1) as (s, context):
        s.keep("other", copy.deepcopy(s.student))(images(4))
        assert context.meter.student_images == 0
        assert context.meter.macs == 4 * STUDENT


# ---- the student, the teacher and its copies ------------------------------------------------------------------------


def test_functional_calls_are_counted() -> None:
    with trial(steps=1) as (s, context):
        weights = dict(s.student.named_parameters())
        torch.func.functional_call(s.student, weights, (images(4),)).sum().backward()
        torch.func.functional_call(s.student, weights, (), {"images": images(4)})
        assert (context.meter.student_images, context.meter.student_backward) == (8, 4)
        assert context.meter.macs == 4 * STUDENT * 4


def test_vmap_hides_no_image_from_the_students_count() -> None:
    with trial(steps=1) as (s, context):
        s.student.eval()
        torch.vmap(s.student)(images(12).view(3, 4, *IMAGE.shape))
        assert context.meter.student_images == 12
        weights = {name: torch.stack([value.detach()] * 5) for name, value in s.student.named_parameters()}
        two = images(2)
        torch.vmap(lambda each: torch.func.functional_call(s.student, each, (two,)))(weights)
        assert context.meter.student_images == 22
        assert context.meter.macs == 22 * STUDENT


def test_a_function_transform_counts_the_students_way_back() -> None:
    with trial(steps=1) as (s, context):
        weights = {name: value.detach() for name, value in s.student.named_parameters()}
        torch.func.grad(lambda each: torch.func.functional_call(s.student, each, (images(4),)).sum())(weights)
        assert (context.meter.student_images, context.meter.student_backward) == (4, 4)


class Liar(Tensor):
    """Says that it is one image."""

    def __len__(self) -> int:
        return 1

    @property
    def shape(self) -> Any:  # type: ignore[override]
        return torch.Size((1, *IMAGE.shape))


def test_a_tensor_that_lies_about_its_length_is_counted_as_it_is() -> None:
    with trial(steps=1) as (s, context):
        s.teacher(images(8).as_subclass(Liar))
        s.student(images(8).as_subclass(Liar))
        assert (context.meter.teacher_images, context.meter.student_images) == (8, 8)


@pytest.mark.parametrize("shape", [(4, 1, 16, 16), (4, 1, 64, 64), (4, 1, 32, 48), (1, 32, 32), (2, 2, 1, 32, 32)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with trial(steps=1) as (s, context):
        for network in (s.teacher, s.student, s.teacher.copy()):
            with pytest.raises(MethodError, match=r"images \(N, 1, 32, 32\), as this task has them"):
                network(torch.randn(*shape))
        assert (context.meter.teacher_images, context.meter.student_images) == (0, 0)


def test_parts_of_the_student_are_not_called_by_themselves() -> None:
    with trial(steps=1) as (s, _):
        for use in (lambda: s.student.head(torch.randn(2, 60)), lambda: s.student.forward(images(2))):
            with pytest.raises(MethodError, match="a part of the student"):
                use()
        kept = s.keep("around", nn.Sequential(nn.Identity(), s.student.body, nn.Linear(1, 1)))
        with pytest.raises(MethodError, match="a part of the student"):
            kept(images(2))
        _, features = s.student_features(images(2))
        assert s.student_head(features).shape == (2, 10)


# torch itself brings them along with the first forward-mode derivative
JIT = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


@JIT
@pytest.mark.parametrize(
    "way",
    [
        lambda s: torch.vmap(lambda each: s.teacher(each).logits)(images(6).view(3, 2, *IMAGE.shape)),
        lambda s: torch.func.jacrev(lambda x: s.teacher(x).logits)(images(2)),
        lambda s: torch.autograd.functional.jacobian(lambda x: s.teacher(x).logits, images(2), vectorize=True),
        lambda s: torch.func.jacfwd(lambda x: s.teacher(x).logits)(images(2)),
        lambda s: torch.func.jvp(lambda x: s.teacher(x).logits, (images(2),), (images(2),)),
    ],
)
def test_what_hides_questions_to_the_teacher_is_refused_by_name(way: Callable[[Session], Any]) -> None:
    with trial(steps=1) as (s, context):
        with pytest.raises(MethodError, match=r"vmap, jacrev, jacfwd|jvp, jacfwd"):
            way(s)
        assert context.meter.teacher_backward == 0


def _dual(s: Session) -> None:
    with forward_ad.dual_level():
        s.teacher(forward_ad.make_dual(images(2), images(2, 1)))


@JIT
@pytest.mark.parametrize(
    "way",
    [
        lambda s: torch.func.jacfwd(lambda x: s.teacher(x).logits)(images(2)),
        lambda s: torch.func.jvp(lambda x: s.teacher(x).logits, (images(2),), (images(2),)),
        lambda s: torch.func.grad(lambda x: s.teacher(x).logits.sum())(images(2)),
        _dual,
    ],
)
def test_every_kind_of_derivative_is_a_gradient(way: Callable[[Session], Any]) -> None:
    with trial(steps=1, access=Access.LOGITS) as (s, _), pytest.raises(AccessDenied, match="gradients"):
        way(s)


def test_each_pass_through_the_teacher_is_counted_to_any_order() -> None:
    with trial(steps=1) as (s, context):
        x = images(4).requires_grad_()
        (slope,) = torch.autograd.grad(s.teacher(x).logits.softmax(1)[:, 0].sum(), x, create_graph=True)
        assert (context.meter.teacher_images, context.meter.teacher_backward) == (4, 4)
        slope.square().sum().backward()
        assert context.meter.teacher_backward > 4
        assert context.meter.macs == TEACHER * (4 + context.meter.teacher_backward)


# ---- images that nobody kept a network for --------------------------------------------------------------------------


def test_a_generator_that_is_not_kept_is_named() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1024)

        def forward(self, z: Tensor) -> Tensor:
            return self.layer(z).view(-1, *IMAGE.shape)

    with trial(steps=1) as (s, context):
        with pytest.raises(MethodError, match=r"\(Mine\) makes images but is not kept: s\.keep"):
            Mine()(torch.randn(4, 4))
        with pytest.raises(MethodError, match=r"s\.keep"), torch.no_grad():
            copy.deepcopy(s.keep("mine", Mine()))(torch.randn(4, 4))
        nn.Sequential(nn.Identity(), nn.Flatten(0), nn.Unflatten(0, (4, *IMAGE.shape)))(images(4))  # has no weights
        nn.Sequential(context.kept["mine"])(torch.randn(4, 4))  # nor has this one of its own
        assert context.meter.synthesised_images == 4


# ---- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [-1, 0, 10**12, 1.5, True, None, "8", float("nan")])
def test_absurd_numbers_of_real_images_are_errors(number: Any) -> None:
    with trial(steps=1, data=Data.TRAIN, train=images_of(20)) as (s, context):
        with pytest.raises(MethodError, match=r"s\.images\(batch\) takes whole numbers from 1 to 1,000,000"):
            s.images(number)
        with pytest.raises(MethodError, match="whole numbers"):
            s.images(number, part=(0, 2))
        assert context.meter.real_images == 0


@pytest.mark.parametrize(
    "shape", [(-5, 1, 32, 32), (10**12, 4), (10**6, 10**6), (2.5, 3), (True, 3), (4, "3"), (10**30,)]
)
def test_absurd_shapes_of_noise_are_errors(shape: tuple[Any, ...]) -> None:
    with trial(steps=1) as (s, context):
        for draw in (s.noise, s.uniform):
            with pytest.raises(MethodError, match=r"whole numbers|numbers at a time"):
                draw(*shape)
        assert context.meter.synthesised_images == 0


def test_a_shape_in_one_piece_is_a_shape() -> None:
    with trial(steps=1) as (s, context):
        assert s.noise((3, *IMAGE.shape)).shape == (3, *IMAGE.shape)  # type: ignore[arg-type]
        assert context.meter.synthesised_images == 3


# ---- loops ----------------------------------------------------------------------------------------------------------


def _distil(s: Session) -> None:
    s.distill(s.keep("opt", SGD(s.student.parameters(), 0.1)), images(4))


def _by_hand(s: Session) -> None:
    s.student(images(4)).square().mean().backward()
    with torch.no_grad():
        for parameter in s.student.parameters():
            parameter -= 0.1 * parameter.grad  # type: ignore[operator]


def _generator(s: Session) -> None:
    generator = s.keep("g", image_generator(8, IMAGE, width=4))
    s.update(s.keep("opt_g", SGD(generator.parameters(), 0.1)), generator(torch.randn(4, 8)).square().mean())


def _known(s: Session) -> None:
    parameters = list(s.student.parameters())
    s.apply(s.keep("opt", SGD(parameters, 0.1)), [torch.ones_like(each) for each in parameters])


def _images(s: Session) -> None:
    s.teacher(images(4).requires_grad_()).logits.sum().backward()


TRAINING = [_distil, _by_hand, _generator, _known, _images]


@pytest.mark.parametrize("train", TRAINING)
def test_training_before_the_first_loop_is_refused(train: Callable[[Session], None]) -> None:
    with trial(steps=3, loops=True) as (s, _), pytest.raises(MethodError, match=r"outside a loop.*s\.steps"):
        train(s)


@pytest.mark.parametrize("train", TRAINING)
def test_training_between_and_after_loops_is_refused(train: Callable[[Session], None]) -> None:
    with trial(steps=4, loops=True) as (s, context):
        for _ in s.steps("first", share=0.5):
            pass
        with pytest.raises(MethodError, match=r"outside a loop.*s\.steps"):
            train(s)
        for _ in s.steps("second"):
            break
        context.kept.clear()
        with pytest.raises(MethodError, match=r"outside a loop.*s\.steps"):
            train(s)


def test_after_the_budget_a_network_is_not_even_asked() -> None:
    with trial(steps=1, loops=True) as (s, _):
        kept = s.keep("kept", nn.Linear(2, 2))
        for _ in s.steps("all"):
            pass
        for use in (lambda: s.student(images(2)), lambda: s.teacher(images(2)), lambda: kept(torch.randn(2, 2))):
            with pytest.raises(BudgetSpent):
                use()


def _ended(method: Callable[[Session], None], steps: int = 2) -> TrialContext:
    with trial(steps=steps, loops=True) as (s, context):
        method(s)
    context.check_end()
    return context


def test_a_method_without_a_loop_is_refused() -> None:
    with pytest.raises(MethodError, match=r"no loop: train inside `for _ in s\.steps"):
        _ended(lambda s: None)


def _write(s: Session) -> None:
    with torch.no_grad():
        next(iter(s.student.parameters())).mul_(1.5)


def _write_data(s: Session) -> None:
    next(iter(s.student.parameters())).data.mul_(1.5)


def _write_numpy(s: Session) -> None:
    next(iter(s.student.parameters())).detach().numpy()[...] *= 1.5


def _load(s: Session) -> None:
    s.student.load_state_dict({name: value + 1 for name, value in s.student.state_dict().items()})


@pytest.mark.parametrize("write", [_write, _write_data, _write_numpy, _load])
@pytest.mark.parametrize("leave", ["at the end", "by break"])
def test_writing_into_the_student_after_the_last_loop_is_refused(write: Callable[[Session], None], leave: str) -> None:
    def method(s: Session) -> None:
        write(s)
        for _ in s.steps("all"):
            write(s)
            if leave == "by break":
                break
        write(s)

    with pytest.raises(MethodError, match="changed after the last loop"):
        _ended(method)


def test_writing_before_between_and_in_loops_is_allowed() -> None:
    def method(s: Session) -> None:
        _write(s)
        for _ in s.steps("first", share=0.5):
            _write(s)
        _write(s)
        for _ in s.steps("second"):
            _write(s)
            break

    _ended(method)


# ---- what counts cannot be taken away unseen ------------------------------------------------------------------------


def test_replacing_what_counts_is_noticed() -> None:
    for take_away in (
        lambda: setattr(nn.Module, "__call__", lambda self, *args, **kwargs: self.forward(*args, **kwargs)),
        lambda: _global_optimizer_post_hooks.clear(),
    ):
        with trial(steps=2) as (s, _), pytest.raises(MethodError, match="by which is counted"):
            for _ in s.steps("all"):
                take_away()


def test_hooks_of_the_students_own_can_be_cleared_and_it_is_counted() -> None:
    with trial(steps=1) as (s, context):
        for hooks in (s.student._forward_hooks, s.student._forward_pre_hooks, s.student._backward_hooks):
            hooks.clear()
        s.student(images(4)).sum().backward()
        assert (context.meter.student_images, context.meter.student_backward) == (4, 4)


def test_counting_is_over_with_the_trial() -> None:
    before = nn.Module.__call__
    with trial(steps=1) as (s, context):
        s.student(images(2))
        student = s.student
        assert nn.Module.__call__ is not before
    student(images(2))
    assert nn.Module.__call__ is before
    assert context.meter.student_images == 2


def test_counting_changes_no_bit() -> None:
    def answers() -> list[Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 30 * 30, 3)
        )
        found = []
        for number in range(3):  # the first one is counted as it is made
            answer = network(images(5, number))
            F.cross_entropy(answer, torch.arange(5) % 3).backward()
            found += [answer.detach(), *(each.grad.clone() for each in network.parameters())]  # type: ignore[union-attr]
        return found

    bare = answers()
    with trial(steps=1):
        counted = answers()
    assert all(torch.equal(a, b) for a, b in zip(bare, counted, strict=True))
