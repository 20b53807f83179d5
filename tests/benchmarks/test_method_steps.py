"""One generator-and-student step of every method at its paper's batch sizes, beside the passes that it needs.

The *floor* of a step is the forward and backward passes of all networks (teacher, student, generators, heads) that the
algorithm cannot do without (:mod:`needed_passes`), on random inputs of the same shapes: forward alone, or backward to
the input, or backward to the weights. Losses, optimisers, image priors, augmentation, stores, random numbers and all
that the harness does are not in it: a ratio of 1 would be a method that does nothing but call its networks.

A round is one step of the loop where it moves generator and student, else one step of each kind; what a method does in
phases is measured phase by phase, and its row is the sum. Rounds are shortened to few steps (``student_steps`` and the
like): that changes how often a step comes, not what it does. Step and floor take turns, and both are measured in
processor time of one thread: other work on the machine hardly matters. ``make bench`` prints the rows of
docs/performance.md; nothing is asserted of a speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from needed_passes import NEEDED
from stepping import Floor, Row, Stepping, real_images

from bench.harness.session import session_for
from bench.harness.trial_context import TrialContext
from bench.models import build
from bench.spec.budget import Budget
from bench.spec.method import Data
from bench.spec.method_card import MethodCard
from bench.spec.method_loader import load_method
from bench.spec.method_registry import find_methods
from bench.spec.presets import preset
from bench.spec.requirements import why_unsupported
from bench.spec.task import TaskSpec, get_task

TASKS = ("mnist/lenet5-half", "cifar10/wrn16-1")
WITH_BATCH_NORM = {"mnist/lenet5-half": "mnist/lenet5bn-half"}  # where a method needs the teacher's statistics
LARGEST = {"cifar10/wrn16-1": 64}  # images in the largest batch: with the papers' a step takes up to a minute there
COUNTS = ("batch", "batch_student", "batch_synthesis", "batch_memory", "batch_fit", "bank_sample")
SECONDS = 4.0  # of a step's time: what the rounds of one measurement take, if that makes 3 to 40 of them
STEPS = 100_000  # the budget; no measurement comes to its end


class Round(NamedTuple):
    """What is measured: steps of these kinds, under these options, after ``skip`` steps."""

    kinds: tuple[str, ...]
    skip: int = 1
    options: Mapping[str, Any] = MappingProxyType({})


STUDENT = Round(("student",))
BOTH = Round(("both",))
PHASES = (Round(("generator",), options={"share": 0.9}), Round(("student",), 2, {"share": 1 / STEPS}))
ROUNDS: Mapping[str, tuple[Round, ...]] = {
    "noise": (STUDENT,),
    "kd": (STUDENT,),  # KD-REL and KD-UNR are the same on other images
    "scratch": (STUDENT,),
    "osakd": (STUDENT,),
    "sd_dropout": (STUDENT,),
    "wsl": (STUDENT,),
    "prokt": (BOTH,),
    "dfa": (Round(("search 0",), options={"share": 0.9}), Round(("student",), 2, {"share": 1 / STEPS})),
    "dfnd": (Round(("student",), 2, {"share": 1 / STEPS}),),
    "kd3": (Round(("student",), 2, {"candidates": 1, "every": 1000}),),
    "dafl": (BOTH,),
    "dfad": (BOTH._replace(options={"student_steps": 1}),),
    "zskd": PHASES,
    "rdskd": PHASES,
    "deepdream": PHASES,
    "deepinversion": PHASES,
    "adi": (Round(("generator",), 3, {"share": 1 / STEPS, "student_steps": 1}), PHASES[1]),
    "zskt": (BOTH,),
    "dfq": (Round(("generator", "student"), 2, {"student_steps": 1}),),
    "ddad": (Round(("student", "generator"), 2, {"student_steps": 1}),),
    "pre_dfkd": (Round(("generator", "fit"), 2, {"student_steps": 1, "memory_updates": 1}),),
    "cmi": (Round(("generator",)), Round(("student",), 2, {"iterations": 1})),
    "fast_dfkd": (
        Round(("generator", "generator", "student"), 3, {"iterations": 2, "warm_up": 0, "student_steps": 1}),
    ),
    "lra": (Round(("generator", "student"), 2, {"first": 1, "student_steps": 1}),),
    "mad": (Round(("student", "generator"), 2, {"student_steps": 1}),),
    "ta_dfkd": (Round(("selection", "student", "generator"), 3, {"student_steps": 1, "threshold": 0.0}),),
    "nayer": (
        Round(
            ("generator", "generator", "student"), 3, {"iterations": 2, "warm_up": 0, "calls": 1, "student_steps": 1}
        ),
    ),
    "cudfkd": (
        Round(("generator", "student"), 2, {"student_steps": 1, "adversarial_from": 0.0, "adversarial_to": 1 / STEPS}),
    ),
    "cpsc_dfkd": (Round(("generator", "student"), 2, {"generator_steps": 1, "student_steps": 1}),),
    "csd": (
        Round(
            ("generator", "generator", "student"),
            4,
            {"iterations": 2, "warm_up": 1, "iterations_warm_up": 1, "share": 0.5, "student_steps": 1},
        ),
    ),
    "spaceshipnet": (Round(("generator", "generator", "student"), 3, {"iterations": 2, "student_steps": 1}),),
    "adadfkd": (
        Round(("generator", "student"), 2, {"student_steps": 1, "adversarial_from": 0.0, "adversarial_to": 1 / STEPS}),
    ),
    "ssd_kd": (Round(("generator", "generator", "student"), 5, {"student_steps": 1}),),
}
CASES = [
    pytest.param(task, name, each, id=f"{task}-{name}-{'-'.join(dict.fromkeys(each.kinds))}")
    for task in TASKS
    for name, rounds in ROUNDS.items()
    for each in rounds
]
TRIED = ("mnist/lenet5-half", "dfq")  # where only the code is tried


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def options_for(card: MethodCard, task: TaskSpec, measured: Round, paper: bool) -> dict[str, Any]:
    """The paper's options with the round's; the images of all batches are scaled alike where the task asks for it."""
    options = {**card.defaults(), **preset(card, task, "paper"), **({} if paper else card.quick), **measured.options}
    largest = max(value for name, value in options.items() if name in COUNTS and name != "bank_sample")
    scale = min(1.0, LARGEST.get(task.name, largest) / largest)
    return {name: max(2, round(value * scale)) if name in COUNTS else value for name, value in options.items()}


def stores_filled(kept: Mapping[str, Any], inputs: Mapping[str, tuple[int, ...]], classes: int) -> None:
    """Stores that are read in every step, as they are after a while."""
    if "bank" in kept:
        kept["bank"].add(*torch.randn(2, kept["bank"].capacity, *inputs["head"]))
    if "buffer" in kept:
        count = kept["buffer"].capacity
        images = torch.randn(count, *inputs["teacher"])  # the student has seen none yet
        kept["buffer"].add(images, torch.randint(classes, (count,)), torch.rand(count))


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("task", "name", "measured"), CASES)
def test_step(
    benchmark: Any, make_context: Callable[..., TrialContext], request: Any, task: str, name: str, measured: Round
) -> None:
    paper = bool(request.config.getoption("benchmark_enable"))
    if not paper and (task, name) != TRIED:
        pytest.skip("measured with --benchmark-enable only: the papers' batches take minutes")
    card = find_methods()[name]
    spec = get_task(task)
    if why_unsupported(card, spec, card.defaults()):
        spec = get_task(WITH_BATCH_NORM[task])
    method = load_method(card)
    options = method.make_options(options_for(card, spec, measured, paper))
    context = make_context(
        image=spec.image,
        budget=Budget(steps=STEPS),
        access=card.access,
        data=card.data,
        teacher=build(spec.teacher.network, spec.image, 10).eval(),
        student=build(spec.student, spec.image, 10),
        real=real_images(spec.image.shape) if card.data is not Data.NONE else None,
        augment=spec.augment,
        fresh_teacher=lambda _: build(spec.teacher.network, spec.image, 10),
    )

    def run() -> None:
        with context:
            context.clock.start()
            method.run(session_for(spec.image, 10), options)

    needed = NEEDED[name](options)
    floors: list[float] = []
    with Stepping(context, run) as trial:
        trial.advance()
        stores_filled(context.kept, trial.inputs, 10)
        trial.advance(measured.skip)
        before = time.process_time()
        trial.advance(len(measured.kinds))
        rounds = min(40, max(3, round(SECONDS / (time.process_time() - before))))
        floor = Floor(trial, [each for kind in measured.kinds for each in needed[kind]])
        floor.play()

        def play() -> None:
            before = time.process_time()
            floor.play()
            floors.append(time.process_time() - before)

        benchmark.pedantic(trial.advance, args=(len(measured.kinds),), setup=play, rounds=rounds if paper else 1)
    if paper:
        row = Row.of(name, spec.name, options, measured.kinds, benchmark.stats.stats.data, floors)
        benchmark.extra_info.update(row._asdict())
