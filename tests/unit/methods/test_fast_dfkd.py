"""Fast-DFKD against paper and code: the meta-learned inversion written out a second time, warm-up, counts, settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, Listening, first_quick, kin, lenet, run, same_weights
from reference_parts import (
    HeardMaps,
    Statistics,
    agreed_divergence,
    averaged,
    check_it_runs_without_batch_norm,
    normalise,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from bench import cmi_generator
from bench.harness.trial_context import TrialContext
from bench.utils.rng import Streams, seed_everything
from methods import fast_dfkd as module
from methods.common.meta_inversion import renew_first_layers
from methods.common.views import crop_and_flip
from methods.fast_dfkd import Options, fast_dfkd

TINY: dict[str, Any] = {
    "batch_synthesis": 8, "iterations": 3, "warm_up": 1, "share": 0.9, "reset_at": 0, "latent": 6, "width": 4,
    "pool": 100, "eight_bit": False, "student_steps": 2, "batch": 16, "lr_student": 0.01,
}  # fmt: skip


def play(options: dict[str, Any], steps: int, **around: Any) -> TrialContext:
    networks = {"teacher": lenet(1, "lenet5bn"), "student": kin(), **around}
    return run(fast_dfkd.declared, {**TINY, **options}, steps=steps, **networks)


def reference(calls: int, o: Options) -> dict[str, Any]:
    """The reference code's synthesis, warm-up first; the student's steps come after each later call."""
    teacher, student = lenet(1, "lenet5bn").eval().requires_grad_(False), kin().train()
    heard = HeardMaps(teacher)
    with torch.random.fork_rng():
        seed_everything(0)
        theta = cmi_generator(o.latent, IMAGE, o.width).train()
    streams = Streams(0, torch.device("cpu"))
    meta = Adam(theta.parameters(), o.lr_generator * o.iterations, betas=(0.5, 0.999))
    opt_s = SGD(student.parameters(), o.lr_student, momentum=0.9, weight_decay=1e-4)
    ema: list[Statistics] = []
    pool: list[Tensor] = []
    for call in range(calls):
        copy = cmi_generator(o.latent, IMAGE, o.width).train() if o.meta != "none" else theta
        copy.load_state_dict(theta.state_dict())
        z = torch.randn(o.batch_synthesis, o.latent, generator=streams["noise"]).requires_grad_()
        y = torch.empty(o.batch_synthesis, dtype=torch.int64).random_(10, generator=streams["labels"])
        groups = [{"params": [*copy.parameters()], "lr": o.lr_generator}, {"params": [z], "lr": o.lr_codes}]
        opt = Adam(groups, betas=(0.5, 0.999))
        best, sums = math.inf, [torch.zeros_like(parameter) for parameter in theta.parameters()]
        for _ in range(o.iterations):
            x = copy(z)
            view = normalise(crop_and_flip(x * IMAGE.std[0] + IMAGE.mean[0], streams["views"]))
            heard.clear()
            logits = teacher(view)
            loss = o.one_hot * F.cross_entropy(logits, y)
            now = averaged(heard.statistics(), ema, o.average)
            loss = loss + o.batch_norm_weight * heard.distance(now)
            if call >= o.warm_up:
                student.eval()
                answer = student(view)
                student.train()
                loss = loss - o.adversarial * agreed_divergence(logits, answer, 1)
            if loss.item() < best:
                best, images = loss.item(), x.detach().clone()
            opt.zero_grad()
            loss.backward()
            sums = [total + parameter.grad for total, parameter in zip(sums, copy.parameters(), strict=True)]
            opt.step()
        if o.meta != "none":
            pairs = zip(theta.parameters(), copy.parameters(), strict=True)
            gaps = [67 * (own.detach() - other.detach()) for own, other in pairs]
            for parameter, gradient in zip(theta.parameters(), sums if o.meta == "maml" else gaps, strict=True):
                parameter.grad = gradient
            meta.step()
        ema = now
        pool.append(images)
        for step in range(o.student_steps if call >= o.warm_up else 0):
            length = o.iterations + o.student_steps
            done = (call - o.warm_up) * length + o.iterations + step
            opt_s.param_groups[0]["lr"] = rate(o, done / ((calls - o.warm_up) * length))
            rows = torch.cat(pool)
            drawn = rows[torch.randint(len(rows), (o.batch,), generator=streams["pool"])]
            seen = normalise(crop_and_flip(drawn * IMAGE.std[0] + IMAGE.mean[0], streams["crops"]))
            p, log_q = (teacher(seen) / 20).softmax(1), (student(seen) / 20).log_softmax(1)
            opt_s.zero_grad()
            (400 * (p * (p.log() - log_q)).sum() / o.batch).backward()
            opt_s.step()
    return {"theta": theta, "student": student, "pool": torch.cat(pool)}


def rate(o: Options, progress: float) -> float:
    return o.lr_end + (o.lr_student - o.lr_end) * (1 + math.cos(math.pi * progress)) / 2


def same(a: nn.Module, b: nn.Module, tolerance: float = 1e-6) -> bool:
    """Equal parameters; running statistics, which training mode does not use, aside."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(torch.allclose(left, right, atol=tolerance, rtol=0) for left, right in pairs)


VARIANTS: dict[str, dict[str, Any]] = {
    "maml": {},
    "reptile": {"meta": "reptile"},
    "none": {"meta": "none"},
    "plain statistics": {"average": 0.0},
    "one update": {"iterations": 1},
}


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("variant", first_quick(VARIANTS))
def test_four_calls_equal_the_papers_loop(variant: str) -> None:
    options = VARIANTS[variant]
    o = Options(**{**TINY, **options})
    expected = reference(4, o)
    context = play(options, o.iterations + 3 * (o.iterations + o.student_steps))
    torch.testing.assert_close(
        torch.cat(context.kept["pool"].state_dict()["parts"]), expected["pool"], atol=1e-6, rtol=0
    )
    assert same(context.kept["generator"], expected["theta"])
    assert same_weights(context.student, expected["student"], 1e-6)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    "options",
    first_quick([{"average": 0.5}, {"adversarial": 5.0}, {"one_hot": 1.0}, {"lr_codes": 0.1}, {"meta": "reptile"}]),
    ids=str,
)
def test_another_loop_would_be_noticed(options: dict[str, Any]) -> None:
    expected = reference(3, Options(**TINY))
    assert same(play({}, 3 + 2 * 5).kept["generator"], expected["theta"])
    assert not same(play(options, 3 + 2 * 5).kept["generator"], expected["theta"])


@pytest.mark.usefixtures("_double")
def test_with_one_update_the_first_meta_step_is_a_plain_step_of_adam() -> None:
    meta, plain = (play({"iterations": 1, "meta": kind}, 1).kept["generator"] for kind in ("maml", "none"))
    assert same(meta, plain, 1e-12)


def test_counts_of_steps_and_images() -> None:
    context = play({"warm_up": 2}, 2 * 3 + 2 * 5)
    meter = context.meter
    assert meter.teacher_images == 4 * 3 * 8 + 4 * 16
    assert meter.teacher_backward == 4 * 3 * 8
    assert meter.student_images == 2 * 3 * 8 + 4 * 16  # in the synthesis only after the warm-up
    assert meter.optimizer_steps == 4 * 3 + 4 + 4  # inner, meta, student
    assert len(context.kept["pool"]) == 4 * 8
    assert context.take_logs()["held"] == (8 + 16 + 24 + 32) / 4


def test_the_meta_rate_is_the_inner_one_times_the_number_of_updates() -> None:
    context = play({"lr_generator": 0.002, "lr_codes": 0.03, "iterations": 4}, 4)
    assert [group["lr"] for group in context.kept["opt_g"].param_groups] == [0.002, 0.03]
    assert context.kept["opt_meta"].param_groups[0]["lr"] == pytest.approx(0.008)
    for name in ("opt_g", "opt_meta"):
        assert all(group["betas"] == (0.5, 0.999) for group in context.kept[name].param_groups)


def test_the_student_evaluates_in_synthesis_and_is_left_alone_in_the_warm_up() -> None:
    student = lenet(2, "lenet5bn-half")
    modes: list[tuple[bool, bool]] = []
    student.register_forward_hook(
        lambda network, args, out: modes.append((network.training, args[0].requires_grad)), prepend=True
    )
    play({"warm_up": 2}, 2 * 3 + 5, student=student)
    assert [mode for mode in modes if mode != (False, False)] == [(False, True)] * 3 + [(True, False)] * 2


def test_the_warm_up_takes_at_most_its_share() -> None:
    student = Listening(lenet(2, "lenet5bn-half"))
    context = play({"warm_up": 100, "share": 0.2, "adversarial": 0.0}, 20, student=student)
    assert context.kept["warm"]["calls"] == 2  # four steps, the last of them the second call's first
    assert len(student.heard) == 5
    assert len(context.kept["pool"]) == 5 * 8  # the second call was finished


@pytest.mark.parametrize("warm_up", [0, 2])
def test_the_first_layers_start_again_at_one_call(warm_up: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    teacher = Listening(lenet(1, "lenet5bn"))
    monkeypatch.setattr(module, "renew_first_layers", lambda *_: calls.append(len(teacher.heard)))
    play({"reset_at": 2, "warm_up": warm_up}, 20, teacher=teacher)
    assert calls == [warm_up * 3 + 5]


def test_first_layers_again_means_both_weights_around_0() -> None:
    generator = cmi_generator(32, IMAGE, 64)
    before = cmi_generator(32, IMAGE, 64)
    before.load_state_dict(generator.state_dict())
    renew_first_layers(generator, torch.Generator().manual_seed(0))
    for layer in (generator[0], generator[2]):
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.01)
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.3)
        assert not layer.bias.any()
    assert same_weights(generator[3:], before[3:])


def test_the_students_rate_falls_to_its_floor() -> None:
    rates: list[float] = []

    def watch(optimizer: Optimizer, *_: object) -> None:
        if isinstance(optimizer, SGD):
            rates.append(optimizer.param_groups[0]["lr"])

    handle = register_optimizer_step_post_hook(watch)
    try:
        options = {"warm_up": 0, "iterations": 1, "student_steps": 99, "lr_end": 0.004}
        play(options, 100)
    finally:
        handle.remove()
    expected = [0.004 + 0.006 * (1 + math.cos(math.pi * step / 100)) / 2 for step in range(1, 100)]
    assert rates == pytest.approx(expected)


def test_a_full_pool_drops_the_oldest_in_8_bits() -> None:
    context = play({"pool": 20, "eight_bit": True}, 3 + 3 * 5)
    (pool,) = context.kept["pool"].state_dict()["parts"]
    assert (len(pool), pool.dtype) == (20, torch.uint8)


def test_without_batch_norm_it_runs_on_the_other_terms() -> None:
    check_it_runs_without_batch_norm(fast_dfkd.declared, TINY, 13)


def test_defaults_are_the_released_scripts() -> None:
    o = Options()
    assert (o.batch_synthesis, o.iterations, o.lr_generator, o.lr_codes, o.latent) == (256, 5, 3e-3, 0.01, 256)
    assert (o.adversarial, o.batch_norm_weight, o.one_hot, o.average) == (1.1, 10, 0.4, 0.9)
    assert (o.warm_up, o.reset_at, o.meta, o.pool) == (20, 120, "maml", 220 * 256)
    assert (o.student_steps, o.batch, o.temperature, o.optimizer) == (400, 256, 20, "sgd")
    assert (o.lr_student, o.lr_end, o.momentum, o.weight_decay, o.schedule) == (0.2, 2e-4, 0.9, 1e-4, "cosine")


@pytest.mark.parametrize(("teacher", "weights"), [("resnet18", (1.33, 0.5)), ("vgg11-resnet18", (1.0, 0.5))])
def test_other_teachers_have_weights_of_their_own(teacher: str, weights: tuple[float, float]) -> None:
    for data in ("cifar10", "cifar100"):
        o = fast_dfkd.declared.make_options(fast_dfkd.declared.presets[f"{data}/{teacher}"])
        assert (o.adversarial, o.one_hot, o.batch_norm_weight, o.lr_student) == (*weights, 10, 0.2)
