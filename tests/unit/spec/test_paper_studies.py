"""The studies in studies/paper: each method on its paper's tasks, with its options, for as long as in the paper.

A method's counts are written a second time here, as phases: (steps, images that the teacher is asked about in a step),
from the options that the trials really have. A new study needs an entry in TASKS and in PHASES, and a row in
docs/methods.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.spec.expand import expand
from bench.spec.method_registry import find_methods
from bench.spec.presets import preset
from bench.spec.study import load_study, study_files
from bench.spec.task import get_task
from bench.spec.trial import Trial

STUDIES = {name.removeprefix("paper/"): file for name, file in study_files().items() if name.startswith("paper/")}
PAGE = Path(__file__).parents[3] / "docs" / "methods.md"
Options = Mapping[str, Any]
Phases = list[tuple[int, int]]

CIFAR = ("cifar10/resnet18", "cifar100/resnet18")
LARGE = ("caltech101/resnet18", "camvid/deeplabv3-mobilenetv2", "nyuv2/deeplabv3-mobilenetv2")
PAIRS = tuple(
    f"{data}/{pair}"
    for data in ("cifar10", "cifar100")
    for pair in ("resnet18", "vgg11-resnet18", "wrn16-1", "wrn40-1", "wrn16-2")
)
DEEP_INVERSION = ("cifar10/resnet18", "cifar10/vgg11-resnet18")

TASKS: Mapping[str, tuple[str, ...]] = {
    "adi": DEEP_INVERSION,
    "cmi": PAIRS,
    "dafl": ("mnist/lenet5-half", *CIFAR),
    "ddad": (*CIFAR, *LARGE),
    "deepdream": DEEP_INVERSION,
    "deepinversion": DEEP_INVERSION,
    "dfad": ("mnist/lenet5-half", *CIFAR, *LARGE),
    "dfq": PAIRS,
    "fast_dfkd": PAIRS,
    "lra": CIFAR,
    "mad": CIFAR,
    "nayer": PAIRS,
    "pre_dfkd": ("mnist/lenet5-half", *CIFAR),
    "rdskd": ("mnist/lenet5-half", "svhn/wrn16-1", "cifar10/resnet18"),
    "ssd_kd": (*PAIRS, "nyuv2/deeplabv3-mobilenetv2"),
    "ta_dfkd": CIFAR,
    "cudfkd": PAIRS,
    "cpsc_dfkd": CIFAR,
    "csd": ("cifar10/wrn16-1",),
    "spaceshipnet": CIFAR,
    "adadfkd": CIFAR,
    "zskd": ("mnist/lenet5-half", "fashion_mnist/lenet5-half", "cifar10/alexnet-half"),
    "zskt": ("svhn/wrn16-1", "cifar10/wrn16-1", "cifar10/wrn16-2", "cifar10/wrn40-1"),
}


def adi(_: str, o: Options) -> Phases:
    first, more = o["first_images"] // o["batch"], (o["images"] - o["first_images"]) // o["batch"]
    batches = [(first * o["iterations"], o["batch"]), (more * o["iterations"], o["batch"])]
    return [batches[0], (more * o["student_steps"], o["batch_student"]), batches[1]]


def cmi(_: str, o: Options) -> Phases:
    calls = 200
    return [(calls * o["iterations"], 2 * o["batch_synthesis"]), (calls * o["student_steps"], o["batch"])]


def ddad(task: str, o: Options) -> Phases:
    epochs = 500 if task in CIFAR else 300
    return [(epochs * 50 * (o["student_steps"] + 1), o["batch"])]


def dfq(_: str, o: Options) -> Phases:
    rounds = 200 * 400 // o["student_steps"]
    return [(rounds * o["generator_steps"], o["batch"]), (rounds * o["student_steps"], o["batch"])]


def fast_dfkd(_: str, o: Options) -> Phases:
    after = 220 - o["warm_up"]
    updates = [(calls * o["iterations"], o["batch_synthesis"]) for calls in (o["warm_up"], after)]
    return [*updates, (after * o["student_steps"], o["batch"])]


def lra(_: str, o: Options) -> Phases:
    rounds, steps = 400 * 72, o["student_steps"]
    return [
        (rounds * o["generator_steps"], o["batch"]),
        (o["first"] * steps, o["batch"]),  # with an empty memory
        ((rounds - o["first"]) * steps, o["batch"] + o["batch_memory"]),
    ]


def mad(_: str, o: Options) -> Phases:
    rounds = 500 * 50
    return [(rounds * o["student_steps"], 2 * o["batch"]), (rounds, o["batch"])]


def nayer(_: str, o: Options) -> Phases:
    rounds = 320 - o["warm_up"]
    calls = (o["warm_up"] * o["calls_warm_up"], rounds * o["calls"])
    updates = [(number * o["iterations"], o["batch_synthesis"]) for number in calls]
    return [*updates, (rounds * o["student_steps"], o["batch"])]


def pre_dfkd(_: str, o: Options) -> Phases:
    """A student step asks about the replay's codes and both kinds of images; a memory update about what it fits too."""
    rounds, updates, replay = 400 * 36, o["memory_updates"], o["batch_memory"]
    step = replay + o["batch"] + replay
    return [
        (rounds * o["generator_steps"], o["batch"]),
        (rounds * (o["student_steps"] - updates), step),
        (updates, step + o["batch_fit"]),  # of the first round, which has nothing to replay
        ((rounds - 1) * updates, step + 2 * replay + o["batch_fit"] + replay),
    ]


def ssd_kd(_: str, o: Options) -> Phases:
    fill, calls = math.ceil(o["buffer"] / o["batch_synthesis"]), 1000
    updates = [(number * o["iterations"], o["batch_synthesis"]) for number in (fill, calls)]
    return [*updates, (calls * o["student_steps"], o["batch"])]


def zskt(task: str, o: Options) -> Phases:
    return [({"svhn": 50_000, "cifar10": 80_000}[data(task)], (o["generator_steps"] + 1) * o["batch"])]


def dafl(task: str, o: Options) -> Phases:
    return [({"mnist": 200, "cifar10": 2000, "cifar100": 2000}[data(task)] * 120, o["batch"])]


def deepinversion(_: str, o: Options) -> Phases:
    return [(1000 * 2000, 256), (25_000, o["batch_student"])] if o["images"] == 1000 * o["batch"] else []


def dfad(task: str, o: Options) -> Phases:
    epochs = {"mnist": 40, "cifar10": 500, "cifar100": 500}.get(data(task), 300)
    return [(epochs * 50, (o["student_steps"] + 1) * o["batch"])]


def rdskd(_: str, o: Options) -> Phases:
    return [(o["generator_steps"], o["batch"]), (1000 * 120, o["batch_student"])]


def ta_dfkd(_: str, o: Options) -> Phases:
    """With two selections to a step of the student, and half of the generator's images selected."""
    rounds, steps = 200 * 36, 200 * 36 * o["student_steps"]
    return [(2 * steps, o["batch"]), (steps, o["batch"]), (rounds, o["batch"] + o["batch"] // 2)]


def cudfkd(task: str, o: Options) -> Phases:
    rounds = {"cifar10": 250, "cifar100": 300}[data(task)] * 400 // o["student_steps"]
    return [(rounds * (o["generator_steps"] + o["student_steps"]), o["batch"])]


def cpsc_dfkd(_: str, o: Options) -> Phases:
    return [(600 * 50 * (o["generator_steps"] + o["student_steps"]), o["batch"])]


def csd(_: str, o: Options) -> Phases:
    filling, rounds = o["warm_up"] * o["iterations_warm_up"], 100
    return [
        (filling, o["batch_synthesis"]),
        (rounds * o["iterations"], o["batch_synthesis"]),
        (rounds * o["student_steps"], o["batch"]),
    ]


def spaceshipnet(_: str, o: Options) -> Phases:
    calls = 200
    return [(calls * o["iterations"], o["batch_synthesis"]), (calls * o["student_steps"], o["batch"])]


def adadfkd(task: str, o: Options) -> Phases:
    rounds = {"cifar10": 250, "cifar100": 1000}[data(task)] * 400 // o["student_steps"]
    return [(rounds * (o["generator_steps"] + o["student_steps"]), o["batch"])]


def zskd(_: str, o: Options) -> Phases:
    made = (o["impressions"] // o["batch"] * o["iterations"], o["batch"])
    variants = 106 if o["expand"] else 1
    return [made, (500 * math.ceil(o["impressions"] / o["batch_student"]), o["batch_student"] * variants)]


CODES_FORMS: Mapping[str, Options] = {  # where the numbers were made with the code's form, not with the paper's text
    "pre_dfkd": {"clamped": True, "match_memory": True},
}


PHASES: Mapping[str, Callable[[str, Options], Phases]] = {
    "adi": adi,
    "cmi": cmi,
    "dafl": dafl,
    "ddad": ddad,
    "deepdream": deepinversion,
    "deepinversion": deepinversion,
    "dfad": dfad,
    "dfq": dfq,
    "fast_dfkd": fast_dfkd,
    "lra": lra,
    "mad": mad,
    "nayer": nayer,
    "pre_dfkd": pre_dfkd,
    "rdskd": rdskd,
    "ssd_kd": ssd_kd,
    "ta_dfkd": ta_dfkd,
    "cudfkd": cudfkd,
    "cpsc_dfkd": cpsc_dfkd,
    "csd": csd,
    "spaceshipnet": spaceshipnet,
    "adadfkd": adadfkd,
    "zskd": zskd,
    "zskt": zskt,
}


def data(task: str) -> str:
    return get_task(task).data


def trials(method: str) -> list[Trial]:
    return expand(load_study(STUDIES[method]))


def test_every_study_has_its_counts_here() -> None:
    assert set(STUDIES) == set(TASKS) == set(PHASES)


@pytest.mark.parametrize("method", STUDIES)
def test_it_runs_the_method_on_its_papers_tasks_with_the_papers_options(method: str) -> None:
    found = trials(method)
    study = load_study(STUDIES[method]).study
    assert study.name == f"paper-{method}"
    assert (study.settings, study.teacher) == ("paper", "paper")
    assert [(trial.task, trial.method, trial.seed) for trial in found] == [
        (task, method, seed) for task in TASKS[method] for seed in study.seeds
    ]
    card = find_methods()[method]
    for trial in found:
        defaults = {**card.defaults(), **preset(card, get_task(trial.task), "paper")}
        changed = {name: value for name, value in trial.options.items() if value != defaults[name]}
        changed.pop("share", None)
        assert changed == CODES_FORMS.get(method, {})


@pytest.mark.parametrize("method", STUDIES)
def test_the_budget_is_the_papers_number_of_steps(method: str) -> None:
    for trial in trials(method):
        phases = PHASES[method](trial.task, trial.options)
        assert trial.budget == {"steps": sum(steps for steps, _ in phases)}, trial.task
        if "share" in trial.options:  # the paper's number ends the first phase, not its share
            assert phases[0][0] <= trial.options["share"] * trial.budget["steps"]


@pytest.mark.parametrize("method", STUDIES)
def test_the_comment_beside_a_budget_multiplies_to_it(method: str) -> None:
    """`{steps: 24_000}   # 200 epochs x 120 iterations`, with ` + ` between products."""
    lines = [line for line in STUDIES[method].read_text(encoding="utf-8").splitlines() if "steps:" in line]
    assert lines
    for line in lines:
        found = re.fullmatch(r".*\{steps: ([\d_]+)\}   # (.+)", line)
        assert found, line
        products = [
            math.prod(int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", product))
            for product in found[2].split(" + ")
        ]
        assert sum(products) == int(found[1]), line


@pytest.mark.parametrize("method", STUDIES)
def test_the_documentation_has_the_same_counts(method: str) -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `paper/{method}`")
    ]
    expected = {}
    for trial in trials(method):
        phases = PHASES[method](trial.task, trial.options)
        images = sum(steps * images for steps, images in phases)
        expected[f"`{trial.task}`"] = (f"{trial.budget['steps']:,}", f"{images:,}")
    assert {task: (steps, images) for _, tasks, steps, images, *_ in rows for task in tasks.split(", ")} == expected
