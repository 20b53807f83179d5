"""A teacher's anchors: made on the way or by going it again, the same bytes, verified; and what cannot be followed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from method_fixtures import images_of, lenet, trial
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.data import Dataset, load
from bench.errors import MethodError, Unsupported, UserError
from bench.harness.teachers import training
from bench.harness.teachers.anchors import check_anchors, get_anchors, step_of
from bench.harness.teachers.cache import get_teacher, import_teacher, train_teacher
from bench.harness.teachers.passport import passport_text
from bench.harness.teachers.progress import TrainingProgress
from bench.spec.method_registry import find_methods
from bench.spec.requirements import why_no_anchors
from bench.spec.task import get_task
from bench.spec.teacher_key import teacher_key
from bench.utils.paths import anchor_folder, teacher_folder
from bench.utils.stopping import Stopped, listening

# two epochs of six steps
DIGITS = get_task("digits/lenet5-half")
TASK = DIGITS.model_copy(update={"teacher": DIGITS.teacher.model_copy(update={"recipe": "quick", "quick": ""})})
KEY = teacher_key(TASK)
STEPS = 12
FILES = ["01.safetensors", "02.safetensors", "03.safetensors"]
States = list[dict[str, Tensor]]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", size=32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))


def content(count: int = 4) -> dict[str, bytes]:
    folder = anchor_folder(KEY, count)
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix == ".safetensors"}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def put_weights(change: float) -> None:
    """Other weights in the cached teacher's place, with a passport that fits them."""
    folder = teacher_folder() / KEY
    weights = {name: value + change for name, value in load_file(folder / "weights.safetensors").items()}
    save_file(weights, folder / "weights.safetensors")
    write_passport(folder, sha256=hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest())


def write_passport(folder: Path, **values: Any) -> None:
    passport = json.loads((folder / "passport.json").read_text())
    (folder / "passport.json").write_bytes(passport_text({**passport, **values}))


def test_they_are_the_weights_at_even_steps_of_the_training(digits: Dataset) -> None:
    seen: dict[int, dict[str, Tensor]] = {}

    def watch(step: int, steps: int, network: torch.nn.Module) -> None:
        assert steps == STEPS
        seen[step] = {name: value.clone() for name, value in network.state_dict().items()}

    train_teacher(TASK, TASK.teacher, digits, watch=watch)
    states = get_anchors(TASK, KEY, digits, 4)
    assert len(states) == 3
    assert all(same(state, seen[step]) for state, step in zip(states, (3, 6, 9), strict=True))
    assert same(seen[STEPS], load_file(teacher_folder() / KEY / "weights.safetensors"))


def test_the_last_step_is_the_last_anchor_whatever_the_number() -> None:
    assert [step_of(number, 5, 12) for number in range(1, 6)] == [3, 5, 8, 10, 12]


def test_made_on_the_way_or_by_going_it_again_they_are_the_same_bytes(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_teacher(TASK, TASK.teacher, digits)
    before = {file.name: file.read_bytes() for file in (teacher_folder() / KEY).iterdir()}
    get_anchors(TASK, KEY, digits, 4)
    assert {name: (teacher_folder() / KEY / name).read_bytes() for name in before} == before, "the teacher stays"
    again = content()
    assert sorted(again) == FILES
    weights = before["weights.safetensors"]

    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "other"))
    reports: list[TrainingProgress] = []
    get_anchors(TASK, KEY, digits, 4, reports.append)
    assert sum(report.epoch == 0 for report in reports) == 1, "trained once"
    assert content() == again
    assert (teacher_folder() / KEY / "weights.safetensors").read_bytes() == weights
    assert [path.name for path in teacher_folder().iterdir() if path.is_dir()] == [KEY], "no work is left"


def test_cached_ones_are_not_made_again(digits: Dataset) -> None:
    first = get_anchors(TASK, KEY, digits, 4)
    reports: list[TrainingProgress] = []
    second = get_anchors(TASK, KEY, digits, 4, reports.append)
    assert reports == []
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


def test_without_anchors_nothing_is_done(digits: Dataset) -> None:
    assert get_anchors(TASK, KEY, digits, 0) == []
    assert not teacher_folder().exists()


def test_a_stopped_training_goes_on_and_leaves_the_same_anchors(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_anchors(TASK, KEY, digits, 4)
    whole = content()
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)

    def stop(progress: TrainingProgress) -> None:
        if progress.epoch > 1.2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get_anchors(TASK, KEY, digits, 4, stop)
    assert not anchor_folder(KEY, 4).exists()
    reports: list[TrainingProgress] = []
    get_anchors(TASK, KEY, digits, 4, reports.append)
    assert reports[0].epoch > 0.9, "not from the beginning"
    assert content() == whole


def test_a_signal_keeps_the_anchors_that_are_there(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_anchors(TASK, KEY, digits, 4)
    whole = content()
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)

    def stop(progress: TrainingProgress) -> None:
        if progress.epoch > 1.2:
            os.kill(os.getpid(), signal.SIGUSR1)

    with listening(), pytest.raises(Stopped):
        get_anchors(TASK, KEY, digits, 4, stop)
    assert not anchor_folder(KEY, 4).exists()
    reports: list[TrainingProgress] = []
    get_anchors(TASK, KEY, digits, 4, reports.append)
    assert reports[0].epoch > 1.2
    assert sum(report.epoch < 1.2 for report in reports) == 0, "not trained a second time"
    assert content() == whole


def test_a_teacher_that_is_another_one_when_trained_again_has_no_anchors(digits: Dataset) -> None:
    train_teacher(TASK, TASK.teacher, digits)
    put_weights(0.1)  # as if another processor had trained it
    with pytest.raises(UserError, match="gets other weights when it is trained again here") as error:
        get_anchors(TASK, KEY, digits, 4)
    assert f"delete {teacher_folder() / KEY}" in str(error.value)
    assert not anchor_folder(KEY, 4).exists()


def test_a_teacher_of_a_gpu_is_refused_before_anything_runs(digits: Dataset) -> None:
    folder = train_teacher(TASK, TASK.teacher, digits)
    check_anchors(KEY, 4)
    made = json.loads((folder / "passport.json").read_text())["provenance"]
    write_passport(folder, provenance={**made, "deterministic": False})
    reports: list[TrainingProgress] = []
    with pytest.raises(UserError, match="was not trained on a CPU"):
        check_anchors(KEY, 4)
    with pytest.raises(UserError, match="was not trained on a CPU"):
        get_anchors(TASK, KEY, digits, 4, reports.append)
    assert reports == []


def test_more_anchors_than_steps_are_refused(digits: Dataset) -> None:
    with pytest.raises(UserError, match="recipe 'quick' makes 12 steps on digits, too few for 13 anchors"):
        get_anchors(TASK, KEY, digits, 13)
    assert not (teacher_folder() / KEY).exists()


def test_altered_anchors_are_refused(digits: Dataset) -> None:
    get_anchors(TASK, KEY, digits, 4)
    folder = anchor_folder(KEY, 4)
    file = folder / "02.safetensors"
    original = file.read_bytes()
    file.write_bytes(original[:-1] + b"\x01")
    with pytest.raises(UserError, match=r"02\.safetensors is altered; delete"):
        get_anchors(TASK, KEY, digits, 4)
    file.unlink()
    with pytest.raises(UserError, match=r"02\.safetensors is missing; delete"):
        get_anchors(TASK, KEY, digits, 4)
    file.write_bytes(original)
    put_weights(0.1)
    with pytest.raises(UserError, match="holds the anchors of other weights"):
        get_anchors(TASK, KEY, digits, 4)


@pytest.mark.parametrize(("text", "message"), [("{", "is not a passport"), ('{"schema": 99}', "has version 99")])
def test_a_damaged_or_newer_passport_is_named(digits: Dataset, text: str, message: str) -> None:
    get_anchors(TASK, KEY, digits, 4)
    (anchor_folder(KEY, 4) / "passport.json").write_text(text)
    with pytest.raises(UserError, match=message):
        get_anchors(TASK, KEY, digits, 4)


def test_an_imported_teacher_has_no_way_to_follow(digits: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    save_file(get_teacher(TASK, KEY, digits).network.state_dict(), file)
    key = import_teacher(TASK, file, digits).name
    reason = f"the training of teacher '{key}' is unknown"
    with pytest.raises(Unsupported, match=reason):
        get_anchors(TASK, key, digits, 4)
    cards = find_methods()
    assert reason in why_no_anchors(cards["rco"], TASK, key)
    assert why_no_anchors(cards["rco"], TASK, KEY) == ""
    assert why_no_anchors(cards["kd"], TASK, key) == ""


# ---- what a method sees ----------------------------------------------------------------------------------------------


def anchors() -> list[dict[str, Tensor]]:
    return [lenet(seed).state_dict() for seed in (5, 6)]


def test_each_anchor_answers_for_itself_and_is_counted_as_the_teacher() -> None:
    images = images_of(4).images.float()
    with trial(steps=1, teacher=lenet(1), anchors=anchors()) as (s, context):
        assert s.teacher.anchors == 3
        spent = []
        for anchor, seed in ((0, 5), (1, 6), (2, 1), (None, 1), (0, 5)):
            before = context.meter.macs
            with torch.no_grad():
                assert torch.equal(s.teacher(images, anchor=anchor).logits, lenet(seed).eval()(images))
            spent.append(context.meter.macs - before)
        assert context.meter.teacher_images == 20
        assert len(set(spent)) == 1


def test_an_anchor_that_is_not_there_is_an_error() -> None:
    images = images_of(4).images.float()
    with trial(steps=1) as (s, _):
        assert s.teacher.anchors == 0
        with pytest.raises(MethodError, match="there is no anchor 0: the method declares anchors=0"):
            s.teacher(images, anchor=0)
    with trial(steps=1, anchors=anchors()) as (s, _):
        for anchor in (-1, 3):
            with pytest.raises(MethodError, match="the method declares anchors=3"):
                s.teacher(images, anchor=anchor)
