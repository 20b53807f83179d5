"""Every method makes just the passes that its algorithm needs, learns nothing of the teacher, and lets a GPU run.

What is needed is written down in :mod:`needed_passes`; what is done is seen from outside, by hooks and below autograd.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from method_fixtures import images_of, lenet, trial
from method_kinds import others_slow
from needed_passes import INPUT, NEEDED, NOTHING, SELECTED, WEIGHTS, Pass
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import TorchDispatchMode

from bench.harness.trial_context import TrialContext
from bench.spec.method import Data
from bench.spec.method_loader import load_method
from bench.spec.method_registry import find_methods

ROOT = Path(__file__).parents[3]
STEPS = 12  # with the quick options enough for every kind of step, where there are several

WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "unique_dim",
}  # the host waits for it
EXPECTED = {  # none of these makes a GPU wait in every step
    "bench/harness/optimizer_steps.py: finite": "on a GPU at every hundredth step",
    "methods/common/augment.py: vary": "the variants come from a stream on the host",
    "methods/common/choosing.py: lowest": "once, when the images are chosen",
    "methods/common/choosing.py: above": "once a selection",
    "methods/kd3.py: select": "once a selection",
    "methods/kd3.py: loss": "a distribution checks its parameters, which lie on the host",
    "methods/dfnd.py: dfnd": "once, when the images are chosen",
    "methods/osakd.py: posterior": "one_hot looks at its indices on a CPU, and on no GPU",
    "methods/common/priors.py: _whole": "the shift comes from a stream on the host",
    "methods/ta_dfkd.py: cleanness": "once a selection, whose size decides what comes next",
    "methods/ta_dfkd.py: shared_view": "the shift comes from a stream on the host",
    "methods/spaceshipnet.py: spaceshipnet": "the point and the chance come from a stream on the host",
    "methods/zskd.py: zskd": "once a batch of impressions: a Dirichlet distribution checks its concentrations",
    "torch/optim": "Adam counts its steps on the host",
}


class Seen:
    """One forward pass, and what its backward pass reached."""

    def __init__(self, name: str, count: int, training: bool) -> None:
        self.name, self.count, self.training = name, count, training
        self.reached: set[str] = set()
        self.open = False  # it has a graph, and no optimiser has moved since

    def as_pass(self) -> Pass:
        """With backward passes as in the table: one that ends in the weights may pass a generator's codes as well."""
        own = self.name in ("teacher", "student")
        to = "+".join(sorted(self.reached)) if own or WEIGHTS not in self.reached else WEIGHTS
        return comparable(Pass(self.name, self.count, to or NOTHING, self.training))


def comparable(each: Pass) -> Pass:
    """A head sees as many earlier images as the bank has; the frozen teacher has one mode."""
    count = 0 if each.network == "head" else each.count
    return each._replace(count=count, training=each.training or each.network == "teacher")


class Watch(TorchDispatchMode):
    """The passes of each step, weight gradients of the teacher, and where the host would wait for a device."""

    def __init__(self, context: TrialContext) -> None:
        super().__init__()
        self.steps: list[tuple[Counter[Pass], bool]] = []  # the passes, and whether the student's weights moved
        self.teacher_gradients = 0
        self.waits: Counter[str] = Counter()
        self._seen, self._moved = list[Seen](), False
        self._student = {id(parameter) for parameter in context.student.parameters()}
        teacher = context._teachers[0].network
        self._teacher_weights = {parameter.data_ptr() for parameter in teacher.parameters()}
        self._follow("teacher", teacher)
        if context.trajectory is not None:
            self._follow("teacher", context.trajectory._counted.network)
        self._follow("student", context.student)
        context.hooks.on_keep = self._follow
        context.hooks.after_step = self._step

    def _step(self) -> None:
        passes = Counter(seen.as_pass() for seen in self._seen)
        self.steps.append((passes, self._moved))
        self._seen, self._moved = [], False

    def _updated(self, optimizer: Optimizer, *_: Any) -> None:
        """After the backward pass: the next one is of other forward passes."""
        self._moved |= any(id(each) in self._student for group in optimizer.param_groups for each in group["params"])
        for seen in self._seen:
            seen.open = False

    def __enter__(self) -> Watch:
        self._hook = register_optimizer_step_post_hook(self._updated)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hook.remove()

    def _follow(self, name: str, network: Any) -> None:
        if not isinstance(network, nn.Module):
            return

        def before(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if given[0].device.type == "meta":
                return None
            seen = Seen(name, len(given[0]), module.training)
            self._seen.append(seen)
            entry = given[0].view_as(given[0])  # what reaches it went through this pass
            if entry.requires_grad:
                entry.register_hook(lambda _: seen.reached.add(INPUT))
            return (entry, *given[1:])

        def after(_: nn.Module, given: tuple[Any, ...], answer: Tensor) -> None:
            if answer.requires_grad:
                next(each for each in reversed(self._seen) if each.name == name).open = True

        def reached(_: Tensor) -> None:
            for seen in self._seen:
                if seen.open and seen.name == name:
                    seen.reached.add(WEIGHTS)

        network.register_forward_pre_hook(before)
        network.register_forward_hook(after)
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.register_hook(reached)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "convolution_backward" and args[2].data_ptr() in self._teacher_weights:
            self.teacher_gradients += any(args[-1][1:])  # asked for: input, weight, bias
        masked = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            each is not None and each.dtype is torch.bool for each in args[1]
        )
        if name in WAITING or masked:
            self.waits[_place()] += 1
        return func(*args, **(kwargs or {}))


def _place() -> str:
    """The innermost function of torch's optimisers or of the project that is at work."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.parts[-3:-1] == ("torch", "optim"):
            return "torch/optim"
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ("bench", "methods"):
            return f"{path.relative_to(ROOT)}: {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


def watched(name: str) -> tuple[Watch, Any]:
    card = find_methods()[name]
    method = load_method(card)
    options = method.make_options(dict(card.quick))
    networks = {"teacher": lenet(1, "lenet5bn"), "student": lenet(2, "lenet5bn-half")}
    real = images_of(64) if card.data is not Data.NONE else None
    steps = STEPS if len(NEEDED[name](options)) > 1 else 2
    around = {
        "anchors": [lenet(seed, "lenet5bn").state_dict() for seed in range(4, 3 + method.anchors)],
        "fresh_teacher": lambda _: lenet(3, "lenet5bn"),
    }
    with trial(steps=steps, access=card.access, data=card.data, train=real, **networks, **around) as (session, context):
        with Watch(context) as watch:
            method.run(session, options)
        teacher = context._teachers[0].network
    assert all(not weight.requires_grad and weight.grad is None for weight in teacher.parameters())
    return watch, options


@pytest.mark.parametrize("name", others_slow(find_methods().values()))
def test_a_step_makes_the_passes_that_the_algorithm_needs(name: str) -> None:
    watch, options = watched(name)
    needed = {kind: Counter(comparable(each) for each in passes) for kind, passes in NEEDED[name](options).items()}
    counts = {each.count for passes in needed.values() for each in passes}
    found: set[str] = set()
    for number, (seen, student_moved) in enumerate(watch.steps):
        passes = seen
        if SELECTED in counts:
            passes = Counter(
                each if each.count in counts else each._replace(count=SELECTED) for each in seen.elements()
            )
        kinds = {kind for kind, wanted in needed.items() if wanted == passes}
        assert kinds, f"step {number} made {dict(passes)}"
        assert any(moves_student(kind) == student_moved for kind in kinds)
        found |= kinds
    assert found == set(needed)
    assert watch.teacher_gradients == 0
    assert set(watch.waits) <= set(EXPECTED)


def moves_student(kind: str) -> bool:
    return kind in ("both", "fit", "first fit") or kind.startswith("search") or kind.endswith("student")
