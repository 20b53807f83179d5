"""Training a teacher: it can be stopped and goes on with the same bits, tells how it comes along, and ends clearly."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from bench.data import Dataset, Split, load
from bench.data.image_spec import Augmentation
from bench.errors import UserError
from bench.harness.checkpoint import save_checkpoint
from bench.harness.teachers import cache as teacher_cache
from bench.harness.teachers import training
from bench.harness.teachers.cache import get_teacher, train_teacher
from bench.harness.teachers.passport import passports, read_passport
from bench.harness.teachers.progress import TrainingProgress
from bench.harness.teachers.training import teacher_loss
from bench.models import deeplab
from bench.spec.task import Recipe, TaskSpec, TeacherSpec, get_recipe, get_task, recipes, tasks
from bench.spec.teacher_key import known_teachers, quick_teachers, teacher_key
from bench.utils import stopping
from bench.utils.paths import teacher_folder
from bench.utils.stopping import listening

DIGITS = get_task("digits/lenet5-half")
TASK = DIGITS.model_copy(update={"augment": Augmentation(pad=2)})
CPU = torch.device("cpu")
DROPOUT = """
from torch import nn

def network(image, classes):
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64 * image.channels, classes))
"""


class Stopped(Exception):
    """The user pulls the plug."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data() -> Dataset:
    """A few of the digits: six steps an epoch at a batch of 32, the last of them over its end."""
    whole = load("digits", size=32)
    train, test = whole.train, whole.test
    few = Split(train.images[:180], train.labels[:180]), Split(test.images[:50], test.labels[:50])
    return dataclasses.replace(whole, train=few[0], test=few[1])


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TeacherSpec]:
    """A teacher with a recipe of one's own: two epochs of Adam unless told otherwise."""

    def make(network: str = "lenet5", seed: int = 0, **changes: Any) -> TeacherSpec:
        values = {"optimizer": "adam", "lr": 0.002, "batch": 32, "epochs": 2, **changes}
        monkeypatch.setitem(recipes(), "mine", Recipe.model_validate(values))  # type: ignore[arg-type]
        return TeacherSpec(network=network, recipe="mine", seed=seed)

    return make


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports and checkpoints after every step, not only every few seconds."""
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def checkpoints() -> list[Path]:
    """Those of teachers that are being trained, wherever in the cache they lie."""
    return list(teacher_folder().rglob("checkpoint.pt"))


def stop_after(steps: int) -> Callable[[TrainingProgress], None]:
    """A report that ends the training when ``steps`` more steps were made; the first report comes before any step."""
    left = [steps + 1]

    def report(progress: TrainingProgress) -> None:
        left[0] -= 1
        if not left[0]:
            raise Stopped

    return report


# ---- stopped and taken up again --------------------------------------------------------------------------------------

RUNS: dict[str, dict[str, Any]] = {
    "adam, one cycle": {"schedule": "one_cycle", "lr": 0.01},
    "adam, cosine, weight decay": {"schedule": "cosine", "weight_decay": 1e-3},
    "sgd, milestones": {"optimizer": "sgd", "lr": 0.1, "schedule": "milestones", "milestones": (1,), "gamma": 0.3},
    "nesterov, constant": {"optimizer": "sgd", "lr": 0.1, "nesterov": True},
    "batch norm": {"network": "lenet5bn", "optimizer": "sgd", "lr": 0.1},
    "dropout": {"network": "dropout"},
    "mixed": {"mixed": True, "schedule": "one_cycle"},
}


@pytest.mark.parametrize("steps", [1, 5, 6, 11, 12])
def test_a_signal_saves_the_training_where_it_is(
    data: Dataset, spec: Callable[..., TeacherSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)
    mine = spec()
    whole = weights(train_teacher(TASK, mine, data))
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "broken"))

    def report(progress: TrainingProgress) -> None:
        if round(6 * progress.epoch) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    if steps == 12:  # the last: there is nothing left to stop
        with listening():
            folder = train_teacher(TASK, mine, data, report)
    else:
        with listening(), pytest.raises(stopping.Stopped):
            train_teacher(TASK, mine, data, report)
        assert len(checkpoints()) == 1
        assert not passports()
        seen: list[TrainingProgress] = []
        folder = train_teacher(TASK, mine, data, seen.append)
        assert round(6 * seen[0].epoch) == steps
    assert weights(folder) == whole


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("run", RUNS)
def test_stopped_and_taken_up_again_gives_the_same_bytes(
    data: Dataset, spec: Callable[..., TeacherSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    changes = dict(RUNS[run])
    if changes.get("network") == "dropout":
        (tmp_path / "own.py").write_text(DROPOUT, encoding="utf-8")
        changes["network"] = f"{tmp_path / 'own.py'}:network"
    mine = spec(**changes)
    torch.manual_seed(1)
    whole = weights(train_teacher(TASK, mine, data))
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "broken"))
    for steps in (2, 4, 3):  # each stop loses one step; the second stop is in the second epoch
        torch.manual_seed(steps)
        with pytest.raises(Stopped):
            train_teacher(TASK, mine, data, stop_after(steps))
        assert len(checkpoints()) == 1
        assert not passports()  # half a teacher is none
    seen: list[TrainingProgress] = []
    folder = train_teacher(TASK, mine, data, seen.append)
    assert seen[0].epoch == 1.0  # 1 + 3 + 2 steps are saved
    assert seen[-1].done
    assert weights(folder) == whole
    assert [path for path in teacher_folder().iterdir() if path.is_dir()] == [folder]  # the work folder is gone


@pytest.mark.usefixtures("every_step")
def test_time_before_a_stop_counts(data: Dataset, spec: Callable[..., TeacherSpec]) -> None:
    mine, seen = spec(), []
    with pytest.raises(Stopped):
        train_teacher(TASK, mine, data, stop_after(4))
    (file,) = checkpoints()
    state = torch.load(file, weights_only=True)
    del state["id"]
    save_checkpoint(file.parent, teacher_key(TASK, mine), {**state, "seconds": 1000.0})
    folder = train_teacher(TASK, mine, data, seen.append)
    assert all(progress.seconds > 1000 for progress in seen)
    assert 1000 < read_passport(folder)["seconds"] < 1100


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("damage", ["another key", "not a checkpoint"])
def test_a_checkpoint_that_is_not_this_teachers_is_not_used(
    data: Dataset, spec: Callable[..., TeacherSpec], tmp_path: Path, damage: str
) -> None:
    mine = spec()
    whole, _ = training.train(TASK, mine, data, tmp_path / "a", key="k", device=CPU, report=lambda progress: None)
    work, seen = tmp_path / "b", []
    with pytest.raises(Stopped):
        training.train(TASK, mine, data, work, key="other", device=CPU, report=stop_after(5))
    if damage == "not a checkpoint":
        (work / "checkpoint.pt").write_bytes(b"half a file")
    again, _ = training.train(TASK, mine, data, work, key="k", device=CPU, report=seen.append)
    assert seen[0].epoch == 0
    pairs = zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not work.exists()


def test_the_network_comes_back_ready_to_be_asked(
    data: Dataset, spec: Callable[..., TeacherSpec], tmp_path: Path
) -> None:
    threads, before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    network, seconds = training.train(
        TASK, spec("lenet5bn", mixed=True), data, tmp_path / "w", key="k", device=CPU, report=lambda progress: None
    )
    assert not network.training
    assert all(value.is_contiguous() for value in network.state_dict().values())
    assert seconds > 0
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, before)


def test_augmentation_changes_the_teacher(data: Dataset, spec: Callable[..., TeacherSpec]) -> None:
    mine = spec(epochs=1)
    assert weights(train_teacher(TASK, mine, data)) != weights(train_teacher(DIGITS, mine, data))


# ---- progress and failure --------------------------------------------------------------------------------------------


def test_progress_is_told_at_the_start_and_at_the_end(
    data: Dataset, spec: Callable[..., TeacherSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "REPORT_SECONDS", math.inf)
    seen: list[TrainingProgress] = []
    train_teacher(TASK, spec(), data, seen.append)
    start, end = seen
    assert (start.epoch, start.epochs, start.done) == (0.0, 2, False)
    assert math.isnan(start.loss)
    assert (end.epoch, end.epochs, end.done) == (2.0, 2, True)
    assert 0 < end.loss < 3
    assert 0 <= start.seconds < end.seconds


@pytest.mark.usefixtures("every_step")
def test_progress_on_the_way_has_the_loss_since_the_last_report(
    data: Dataset, spec: Callable[..., TeacherSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    often: list[TrainingProgress] = []
    train_teacher(TASK, spec(), data, often.append)
    assert [progress.epoch for progress in often] == pytest.approx([step / 6 for step in range(13)])
    assert [progress.seconds for progress in often] == sorted(progress.seconds for progress in often)
    monkeypatch.setattr(training, "REPORT_SECONDS", math.inf)
    monkeypatch.setenv("DFKD_CACHE", str(teacher_folder() / "other"))
    seldom: list[TrainingProgress] = []
    train_teacher(TASK, spec(), data, seldom.append)
    assert seldom[-1].loss == pytest.approx(np.mean([progress.loss for progress in often[1:]]), rel=1e-5)


def test_a_loss_that_becomes_infinite_names_recipe_and_task(data: Dataset, spec: Callable[..., TeacherSpec]) -> None:
    mine = spec(optimizer="sgd", lr=1e30)
    with pytest.raises(UserError) as error:
        train_teacher(TASK, mine, data)
    assert str(error.value).startswith("recipe 'mine' on digits/lenet5-half: the teacher's loss became ")
    assert str(error.value).endswith("; lower its learning rate")
    assert not passports()


@pytest.mark.parametrize("fast", [False, True])
def test_a_mixed_recipe_trains_and_the_passport_says_in_which_precision(
    data: Dataset, spec: Callable[..., TeacherSpec], monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    for module in (training, teacher_cache):
        monkeypatch.setattr(module, "has_bfloat16", lambda device: fast)
    plain = train_teacher(TASK, spec(epochs=6), data)
    mixed = train_teacher(TASK, spec(epochs=6, mixed=True), data)
    assert read_passport(plain)["precision"] == "float32"
    assert read_passport(mixed)["precision"] == ("bfloat16" if fast else "float32")
    assert read_passport(mixed)["recipe_content"]["mixed"] is True
    assert "mixed" not in read_passport(plain)["recipe_content"]
    assert read_passport(mixed)["score"] > 0.3  # guessing gives 0.1
    assert get_teacher(TASK, mixed.name, data).network.training is False


# ---- losses ----------------------------------------------------------------------------------------------------------


def focal(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean over all pixels, those of no class included, of (1 - exp(-ce))^2 * ce."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        if label != -100:
            ce = -log_softmax(row)[label]
            total += (1 - math.exp(-ce)) ** 2 * ce
    return total / len(labels)


def test_focal_loss_of_pixels_counts_void_ones_in_the_mean() -> None:
    stream = np.random.default_rng(0)
    logits, labels = stream.normal(0, 3, (2, 5, 4, 3)), stream.integers(0, 5, (2, 4, 3))
    labels[stream.random(labels.shape) < 0.4] = -100
    rows = np.moveaxis(logits, 1, -1).reshape(-1, 5)
    given = torch.tensor(logits), torch.tensor(labels)
    assert teacher_loss("focal", *given).item() == pytest.approx(focal(rows, labels.reshape(-1)), rel=1e-12)
    counted = labels.reshape(-1) != -100
    cross = -log_softmax(rows[counted], axis=1)[np.arange(counted.sum()), labels.reshape(-1)[counted]].mean()
    assert teacher_loss("cross_entropy", *given).item() == pytest.approx(cross, rel=1e-12)
    flat = torch.tensor(rows), torch.tensor(labels.reshape(-1))
    for name in ("focal", "cross_entropy"):
        assert teacher_loss(name, *flat).item() == pytest.approx(teacher_loss(name, *given).item(), rel=1e-12)


def test_only_the_focal_loss_can_take_a_batch_without_any_class() -> None:
    logits = torch.randn(2, 5, 4, 4, requires_grad=True)
    loss = teacher_loss("focal", logits, torch.full((2, 4, 4), -100))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_a_sure_answer_gives_the_focal_loss_a_finite_gradient() -> None:
    logits = (200 * torch.eye(5)[[0, 1]]).requires_grad_()
    loss = teacher_loss("focal", logits, torch.tensor([0, 2]))
    loss.backward()
    assert loss.item() == pytest.approx(100)
    assert torch.isfinite(logits.grad).all()


def test_the_recipes_loss_is_the_one_that_is_used(data: Dataset, spec: Callable[..., TeacherSpec]) -> None:
    ends = []
    for loss in ("cross_entropy", "focal"):
        seen: list[TrainingProgress] = []
        train_teacher(TASK, spec(loss=loss, epochs=1), data, seen.append)
        ends.append(seen[-1].loss)
    assert ends[1] < 0.9 * ends[0]


# ---- backbone --------------------------------------------------------------------------------------------------------


def test_a_backbone_that_does_not_fit_is_refused(
    data: Dataset, spec: Callable[..., TeacherSpec], tmp_path: Path
) -> None:
    file = tmp_path / "resnet50.pt"
    with pytest.raises(UserError, match="no such checkpoint"):
        train_teacher(TASK, spec(), data, backbone=file)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    with pytest.raises(UserError, match=r"resnet50\.pt: only deeplabv3-resnet50 takes these weights, not LeNet"):
        train_teacher(TASK, spec(), data, backbone=file)
    assert not passports()
    assert not [path for path in teacher_folder().iterdir() if path.is_dir()]


@pytest.mark.usefixtures("every_step")
def test_a_backbone_is_part_of_the_key_and_of_the_passport(
    data: Dataset, spec: Callable[..., TeacherSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def fill(network: nn.Module, given: dict[str, torch.Tensor], file: Path) -> None:
        used.append(file.name)
        with torch.no_grad():
            network.head[2].bias.copy_(given["bias"])

    monkeypatch.setattr(deeplab, "load_backbone", fill)
    mine, folders = spec(epochs=1), [train_teacher(TASK, spec(epochs=1), data)]
    for number in range(2):
        file = tmp_path / f"backbone{number}.pt"
        torch.save({"bias": torch.full((10,), float(number))}, file)
        folders.append(train_teacher(TASK, mine, data, backbone=file))
        passport = read_passport(folders[-1])
        assert passport["backbone"] == file.name
        assert folders[-1].name == f"{teacher_key(TASK, mine)}-backbone-{passport['backbone_sha256'][:12]}"
        assert get_teacher(TASK, folders[-1].name, data).passport["key"] == folders[-1].name
    assert used == ["backbone0.pt", "backbone1.pt"]
    assert len({weights(folder) for folder in folders}) == 3
    assert train_teacher(TASK, mine, data, backbone=tmp_path / "backbone0.pt") == folders[1]
    assert used == ["backbone0.pt", "backbone1.pt"]  # it was there
    assert "backbone" not in read_passport(folders[0])


# ---- keys ------------------------------------------------------------------------------------------------------------

DEFAULTS = {"gamma": 0.1, "nesterov": False, "loss": "cross_entropy", "mixed": False, "threads": 1}


def test_keys_of_earlier_versions_still_hold() -> None:
    """Teachers that users trained, and records that name them, stay of use."""
    assert teacher_key(get_task("mnist/lenet5-half")) == "lenet5-cbc427f39b3c9f5a"
    assert teacher_key(DIGITS) == "lenet5-d8b6c598edaaf98e"


def test_fields_at_their_default_leave_the_key_alone(spec: Callable[..., TeacherSpec]) -> None:
    key = teacher_key(TASK, spec())
    assert teacher_key(TASK, spec(**DEFAULTS)) == key
    assert not DEFAULTS.keys() & get_recipe("mine").identity.keys()


def test_fields_that_change_the_weights_change_the_key(spec: Callable[..., TeacherSpec]) -> None:
    changes = {"gamma": 0.2, "nesterov": True, "loss": "focal", "mixed": True, "threads": 2, "schedule": "one_cycle"}
    assert len({teacher_key(TASK, spec(**{name: value})) for name, value in changes.items()}) == len(changes)
    assert teacher_key(TASK, spec()) not in {teacher_key(TASK, spec(**{name: changes[name]})) for name in changes}


def test_crops_and_mirrors_and_sizes_change_the_key() -> None:
    changes: list[dict[str, Any]] = [
        {"augment": None},
        {"augment": Augmentation(flip=True)},
        {"augment": Augmentation(pad=1)},
        {"resize": 40},
        {"resize": 48},
    ]
    assert len({teacher_key(DIGITS.model_copy(update=change)) for change in changes}) == len(changes)
    assert teacher_key(DIGITS.model_copy(update={"augment": None})) == teacher_key(DIGITS)


# ---- quick teachers --------------------------------------------------------------------------------------------------


def with_quick(recipe: str) -> TaskSpec:
    return TASK.model_copy(update={"teacher": TASK.teacher.model_copy(update={"quick": recipe, "seed": 3})})


def test_a_tasks_quick_teacher_is_its_own_but_for_the_recipe() -> None:
    assert quick_teachers(with_quick("quick"))[0] == TeacherSpec(network="lenet5", recipe="quick", seed=3)
    with pytest.raises(UserError, match="task 'digits/lenet5-half' has no quick teacher"):
        quick_teachers(with_quick(""))


def test_known_teachers_are_the_papers_and_the_quick_one_also_on_altered_data() -> None:
    task = with_quick("quick")
    paper, quick = TeacherSpec(network="lenet5", recipe="digits", seed=3), quick_teachers(task)[0]
    expected = {
        teacher_key(task, each) + ending: (each, bool(ending)) for each in (paper, quick) for ending in ("", "-altered")
    }
    assert known_teachers(task) == expected
    assert set(known_teachers(with_quick(""))) == {key for key, (each, _) in expected.items() if each == paper}
    assert len(known_teachers(with_quick("digits"))) == 2  # the paper's is quick enough


@pytest.mark.parametrize("task", [pytest.param(task, id=name) for name, task in tasks().items() if task.teacher.recipe])
def test_the_suites_quick_recipes_make_other_teachers_or_the_very_same(task: TaskSpec) -> None:
    known = known_teachers(task)
    assert teacher_key(task) in known
    assert len(known) == (4 if task.teacher.quick not in ("", task.teacher.recipe) else 2)


def test_the_teachers_of_imagenet_are_imported() -> None:
    without = [task for task in tasks().values() if not task.teacher.recipe]
    assert {task.data for task in without} == {"imagenet"}
    for task in without:
        with pytest.raises(UserError) as raised:
            teacher_key(task)
        assert str(raised.value) == (
            f"task '{task.name}' names no recipe for its teacher, so it cannot be trained: import it (`dfkd teacher "
            f"import FILE --task {task.name}`) and name its key in the study, `teachers: {{{task.name}: KEY}}`"
        )


def test_the_quick_teacher_is_trained_when_its_key_is_asked_for(
    data: Dataset, spec: Callable[..., TeacherSpec]
) -> None:
    spec(epochs=1)
    task = with_quick("mine")
    key = teacher_key(task, quick_teachers(task)[0])
    assert key != teacher_key(task)
    teacher = get_teacher(task, key, data)
    assert (teacher.passport["recipe"], teacher.passport["seed"], teacher.passport["key"]) == ("mine", 3, key)
    assert [passport["key"] for passport in passports()] == [key]
