"""Segmentation from a study to its report: records, curves, pictures, and methods that are left out by plan."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bench.analysis.report import render
from bench.cli import answer
from bench.data import Dataset, load, shapes
from bench.execution import prepare
from bench.execution.artifacts import COLOURS
from bench.execution.plan import plan_study
from bench.execution.run_study import Summary, run_study
from bench.execution.run_trial import Setting, run_trial
from bench.harness.evaluation import answers, score_network
from bench.harness.teachers.cache import get_teacher
from bench.harness.teachers.passport import passports
from bench.harness.trial_context import TrialContext
from bench.models import build
from bench.records import Record, read_curve
from bench.spec.method_registry import find_methods
from bench.spec.requirements import why_unsupported
from bench.spec.task import Recipe, get_task, recipes, tasks

IOUS = [f"iou[{name}]" for name in ("ground", "disc", "box", "triangle", "stripes")]
METHODS = ("dafl", "dfad", "kd", "noise", "scratch")
STUDY = """
name: seg
tasks:
  - name: tiny
    data: shapes
    image: {channels: 3, size: 64, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
    teacher: {network: unet-small, recipe: tiny, quick: tiny}
    student: unet-small
    augment: {pad: 4, flip: true}
methods:
  - kd: {batch: 32, lr_student: 0.02}
  - scratch: {batch: 32}
  - noise: {batch: 32}
  - dafl: {batch: 32, width: 8, latent: 16}
  - dfad: {batch: 32, width: 2, latent: 16, student_steps: 2}
  - zskd
budget: {steps: 6}
points: 3
average: points
image_metrics: [class_balance, confidence, distillation_loss, intra_class_pixel_std]
"""
REASON = "zskd is for classification, and tiny is segmentation"


@dataclass(frozen=True)
class Done:
    """The study after its first run."""

    file: Path
    results: Path
    summary: Summary

    @property
    def records(self) -> dict[str, Record]:
        return {outcome.trial.method: outcome.record for outcome in self.summary.outcomes}

    def folder(self, method: str) -> Path:
        return self.results / "trials" / self.records[method].id


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """The study, run once in this process, on 60 training images and a teacher of 16 steps."""
    folder = tmp_path_factory.mktemp("segmentation")
    known = dict(tasks())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFKD_CACHE", str(folder / "cache"))
        patch.setattr(shapes, "COUNTS", (60, 20))
        tiny = {"optimizer": "adam", "lr": 0.01, "batch": 16, "epochs": 4}
        patch.setitem(recipes(), "tiny", Recipe.model_validate(tiny))  # type: ignore[arg-type]
        prepare._dataset.cache_clear()
        file = folder / "study.yaml"
        file.write_text(STUDY, encoding="utf-8")
        summary = run_study(file, results=folder / "out", executor="inline", device="cpu")
        yield Done(file, folder / "out", summary)
    prepare._dataset.cache_clear()
    tasks().clear()
    tasks().update(known)


@pytest.fixture(scope="module")
def data(done: Done) -> Dataset:
    found = load("shapes", size=64)
    assert len(found.train.images) == 60
    return found


# ---- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_ends_well_with_the_scores_of_segmentation(done: Done, method: str) -> None:
    record = done.records[method]
    assert (record.status, record.metric, record.stopped_by) == ("ok", "miou", "steps")
    assert list(record.test_metrics) == ["pixel_accuracy", *IOUS]
    assert 0 <= record.test_metrics["pixel_accuracy"] <= 1
    values = [record.test_metrics[name] for name in IOUS]
    present = [value for value in values if value is not None]
    assert record.scores[record.headline] == pytest.approx(sum(present) / len(present))
    assert record.agreement is not None
    assert 0 <= record.agreement <= 1
    assert record.scores["oracle"] == max(row["score"] for row in read_curve(done.folder(method)))
    assert record.meter.steps == 6
    assert record.meter.real_images == (6 * 32 if method in ("kd", "scratch") else 0)
    held_out = 0 if method == "scratch" else 8  # it does not distil
    assert record.images.count == 6 * (32 - held_out)  # of the first batch of each step


@pytest.mark.parametrize("method", METHODS)
def test_every_point_of_the_curve_has_all_classes(done: Done, method: str) -> None:
    rows = read_curve(done.folder(method))
    assert [row["steps"] for row in rows] == [0, 2, 4, 6]
    for row in rows:
        for key, score in (("details", "score"), ("details_ema", "score_ema")):
            assert list(row[key]) == ["pixel_accuracy", *IOUS]
            present = [row[key][name] for name in IOUS if row[key][name] is not None]
            assert row[score] == pytest.approx(sum(present) / len(present))
    assert rows[-1]["details"] == done.records[method].test_metrics


@pytest.mark.parametrize("method", METHODS)
def test_held_out_images_choose_by_the_agreement_over_their_pixels(done: Done, method: str) -> None:
    rows, record = read_curve(done.folder(method)), done.records[method]
    if method == "scratch":  # it never asks the teacher
        assert "teacher_agreement" not in record.scores
        return
    values = [row["held_out_agreement"] for row in rows]
    assert all(0 <= value <= 1 for value in values)
    best = max(range(len(rows)), key=lambda index: (values[index], index))
    assert record.scores["teacher_agreement"] == rows[best]["score"]


@pytest.mark.parametrize("method", METHODS)
def test_image_metrics_are_over_pixels_or_say_why_they_are_not_there(done: Done, method: str) -> None:
    found = done.records[method].image_metrics
    assert found["class_balance"].status == found["confidence"].status == "ok"
    assert 0 <= found["class_balance"].value <= 1
    assert 1 / 5 <= found["confidence"].value <= 1
    spread = found["intra_class_pixel_std"]
    assert (spread.value, spread.status) == (None, "unavailable")
    assert spread.note == "in segmentation an image has no single class"


def test_image_metrics_are_those_of_all_pixels(done: Done, data: Dataset) -> None:
    task = get_task("tiny")
    teacher = get_teacher(task, done.summary.plan.trials[0].teacher, data).network
    images = load_file(done.folder("noise") / "images.safetensors")["images"]
    with torch.no_grad():
        shares = torch.stack([teacher((image[None] / 255 - 0.5) / 0.5).softmax(1)[0] for image in images])
    counts = np.bincount(shares.argmax(1).flatten().numpy(), minlength=5) / shares[:, 0].numel()
    entropy = -sum(share * np.log(share) for share in counts if share) / np.log(5)
    found = done.records["noise"].image_metrics
    assert found["class_balance"].value == pytest.approx(entropy, abs=1e-4)
    assert found["confidence"].value == pytest.approx(shares.max(1).values.double().mean().item(), abs=1e-5)
    student = build(task.student, task.image, 5)
    student.load_state_dict(load_file(done.folder("noise") / "student.safetensors"))
    with torch.no_grad():
        learned = student.eval()((images / 255 - 0.5) / 0.5).softmax(1)
    losses = (shares * (shares / learned).log()).sum(1).mean((1, 2))
    assert found["distillation_loss"].value == pytest.approx(losses.double().mean().item(), rel=1e-3)


def test_the_saved_student_has_the_scores_of_its_record(done: Done, data: Dataset) -> None:
    task, record = get_task("tiny"), done.records["kd"]
    student = build(task.student, task.image, 5)
    student.load_state_dict(load_file(done.folder("kd") / "student.safetensors"))
    score, details = score_network(student.eval(), data.test, task.image, data.classes)
    assert score == record.scores["last"]
    assert details == record.test_metrics


def test_the_teacher_is_scored_alike(done: Done) -> None:
    (passport,) = passports()
    assert passport["metric"] == "miou"
    assert list(passport["test_metrics"]) == ["pixel_accuracy", *IOUS]
    assert done.records["kd"].teacher is not None
    assert done.records["kd"].teacher.score == passport["score"]


@pytest.mark.parametrize("method", ["noise", "kd"])
def test_the_contact_sheet_has_the_teachers_map_and_the_students_beside_each_image(
    done: Done, data: Dataset, method: str
) -> None:
    task, folder = get_task("tiny"), done.folder(method)
    sheet = np.asarray(Image.open(folder / "images.png"))
    assert sheet.shape == (6 * (64 + 6) + 6, 4 * (3 * 64 + 6) + 6, 3)  # 24 images in rows of four, 6 pixels apart
    captured = load_file(folder / "images.safetensors")["images"]
    student = build(task.student, task.image, 5)
    student.load_state_dict(load_file(folder / "student.safetensors"))
    teacher = get_teacher(task, done.summary.plan.trials[0].teacher, data).network
    for place in (0, 3, 4, 23):
        top, left = 6 + place // 4 * 70, 6 + place % 4 * 198
        picture = torch.from_numpy(sheet[top : top + 64, left : left + 192].copy()).permute(2, 0, 1)
        image, *maps = picture.split(64, dim=2)
        assert (captured == image).flatten(1).all(1).any()
        for network, shown in zip((teacher, student.eval()), maps, strict=True):
            expected = COLOURS[answers(network, image[None], task.image)[0].long()].permute(2, 0, 1)
            assert (shown == expected).float().mean() > 0.999
    assert (sheet[:2] == 255).all()


@pytest.mark.parametrize("method", ["dfad", "noise"])
def test_a_trial_gives_the_same_bits_alone_and_agrees_on_held_out_pixels(
    done: Done, data: Dataset, tmp_path: Path, method: str
) -> None:
    (trial,) = [each for each in done.summary.plan.trials if each.method == method]
    contexts: list[TrialContext] = []
    record = run_trial(trial, Setting(tmp_path, inspect=contexts.append))
    assert record.scores == done.records[method].scores
    file = f"trials/{trial.id}/student.safetensors"
    assert (tmp_path / file).read_bytes() == (done.results / file).read_bytes()
    held = contexts[0].capture.held_out
    images, labels = held.column("images"), held.column("labels")
    assert images is not None
    assert labels is not None
    assert labels.shape == (len(images), 64, 64)
    teacher = get_teacher(get_task("tiny"), trial.teacher, data).network
    with torch.no_grad():
        assert torch.equal(teacher(images).argmax(1), labels)
        agreed = (contexts[0].student.eval()(images).argmax(1) == labels).double().mean().item()
    assert read_curve(done.folder(method))[-1]["held_out_agreement"] == pytest.approx(agreed)


# ---- left out by plan ------------------------------------------------------------------------------------------------


def test_only_methods_for_segmentation_are_run_on_it() -> None:
    cards, dense, flat = find_methods(), get_task("shapes/unet-small"), get_task("digits/lenet5-half")
    assert why_unsupported(cards["zskd"], dense) == "zskd is for classification, and shapes/unet-small is segmentation"
    assert all(not why_unsupported(cards[name], dense) for name in METHODS)
    assert not any(why_unsupported(card, flat) for card in cards.values() if not card.batch_norm)


def test_a_method_for_classification_is_no_failure(done: Done) -> None:
    record = done.records["zskd"]
    assert (record.status, record.reason, record.metric) == ("unsupported", REASON, "miou")
    assert record.scores == {}
    assert done.summary.failures == []
    assert [outcome.trial.method for outcome in done.summary.unsupported] == ["zskd"]
    assert done.summary.statuses == {"ok": 5, "unsupported": 1}
    assert not any((done.results / "work").iterdir())


def test_the_command_line_keeps_it_and_says_so(done: Done, capsys: pytest.CaptureFixture[str]) -> None:
    files = {path: path.stat().st_mtime_ns for path in (done.results / "trials").rglob("*") if path.is_file()}
    arguments = ["run", str(done.file), "--results", str(done.results), "--executor", "inline", "--quiet"]
    assert answer([*arguments, "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert f"skipped: {REASON} (1 trial)" in text
    assert "5 of 6 trials ok (5 of them before this run)" in text
    assert "failed" not in text
    assert files == {path: path.stat().st_mtime_ns for path in (done.results / "trials").rglob("*") if path.is_file()}
    plan = plan_study(done.file, results=done.results, device="cpu")
    assert plan.waiting == []


def test_a_study_of_nothing_but_such_methods_needs_no_teacher(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    alone: dict[str, Any] = {
        "name": "alone",
        "tasks": ["shapes/unet-small"],
        "methods": ["zskd"],
        "budget": {"steps": 1},
    }
    file = tmp_path / "alone.yaml"
    file.write_text(json.dumps(alone), encoding="utf-8")
    summary = run_study(file, results=tmp_path / "out", executor="inline", device="cpu")
    assert summary.statuses == {"unsupported": 1}
    assert not (tmp_path / "cache").exists()
    written = {path.name for path in render(tmp_path / "out", tmp_path / "report")}
    assert "leaderboard.md" in written
    assert "for classification" in (tmp_path / "report" / "leaderboard.md").read_text(encoding="utf-8")


# ---- the report ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(done: Done, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    render(done.results, out)
    return out


def test_the_leaderboard_says_what_was_not_run(report: Path) -> None:
    text = (report / "leaderboard.md").read_text(encoding="utf-8")
    assert f"- Not run: {REASON}." in text
    assert "**Failures**" not in text
    assert "| zskd |" not in text
    assert text.count("\n## tiny") == 1


def test_the_leaderboard_has_a_table_of_classes(done: Done, report: Path) -> None:
    lines = (report / "leaderboard.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("**Further test metrics, %**") + 2
    assert lines[start] == "| Method | pixel accuracy | ground | disc | box | triangle | stripes |"
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines[start + 2 : start + 7]}
    assert rows.keys() == set(METHODS)
    for method, line in rows.items():
        values = list(done.records[method].test_metrics.values())
        shown = ["—" if value is None else f"{100 * value:.1f}" for value in values]
        assert line == f"| {method} | {' | '.join(shown)} |"
    assert lines[start + 7] == ""


def test_the_page_has_both_as_well(report: Path) -> None:
    (page,) = (report / "tasks").glob("*.html")
    text = page.read_text(encoding="utf-8")
    assert f"Not run: {REASON}." in text
    assert "Further test metrics, %" in text
    for name in ("pixel accuracy", "ground", "triangle", "stripes"):
        assert f">{name}<" in text
    assert "mean IoU" in text
    csv = (report / "leaderboard.csv").read_text(encoding="utf-8")
    assert "zskd" not in csv
    assert csv.count(",miou,") == csv.count("\n") - 1
