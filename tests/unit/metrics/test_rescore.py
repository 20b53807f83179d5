"""Image metrics of finished trials, measured later: nothing is trained again, nothing that was there is lost."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

import pytest
import torch
from record_builder import alter
from safetensors.torch import load_file, save_file

from bench.cli import answer
from bench.data.batches import normalise
from bench.errors import UserError
from bench.execution.run_study import run_study
from bench.harness.teachers.cache import cached_teacher
from bench.metrics.rescore import Wish, score_trials
from bench.models import build
from bench.records import load_record, load_records
from bench.records.folder import replace_record
from bench.spec.task import get_task

STUDY = """
name: scored
tasks: [digits/lenet5-half]
methods: [noise: {batch: 32}, scratch: {batch: 32}]
seeds: [0]
budget: {steps: 4}
points: 1
image_metrics: [confidence]
"""
METRICS = ("confidence", "fd[teacher]", "kid[teacher]", "distillation_loss", "nearest_training_distance")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    run_study(folder / "study.yaml", results=folder / "results", executor="inline")
    return folder / "results"


@pytest.fixture
def results(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(made, tmp_path / "runs" / "scored"))


def test_metrics_are_added_to_the_records_and_nothing_else_changes(results: Path) -> None:
    before = {record.id: record for record in load_records(results)}
    measured = list(score_trials(results, Wish(METRICS)))
    assert [each.reason for each in measured] == ["", ""]
    for record in load_records(results):
        assert set(record.image_metrics) == set(METRICS)
        assert {metric.status for metric in record.image_metrics.values()} <= {"ok", "unreliable"}
        assert record.model_copy(update={"image_metrics": {}}) == before[record.id].model_copy(
            update={"image_metrics": {}}
        )
    assert all(each.measured == METRICS[1:] for each in measured)  # confidence was there
    found = {each.record.trial.method: each.record.image_metrics for each in measured}
    near, distance = "nearest_training_distance", "fd[teacher]"
    assert (found["scratch"][near].value or 0) == pytest.approx(0, abs=0.004)
    assert (found["noise"][near].value or 0) > 0.1
    assert (found["noise"][distance].value or 0) > (found["scratch"][distance].value or 0)


@pytest.mark.slow
def test_later_values_are_those_that_the_run_itself_would_have_measured(made: Path, tmp_path: Path) -> None:
    more = STUDY.replace("[confidence]", '[confidence, "fd[teacher]", "kid[teacher]", distillation_loss]')
    one = more.replace(", scratch: {batch: 32}", "")  # a process takes seconds to begin
    for executor, study in (("inline", more), ("processes", one)):
        (tmp_path / "study.yaml").write_text(study, encoding="utf-8")
        run_study(tmp_path / "study.yaml", results=tmp_path / executor, executor=executor)
    later = shutil.copytree(made, tmp_path / "later")
    list(score_trials(Path(later), Wish(METRICS[:4])))
    inline, processes, scored = (
        {record.id: record.image_metrics for record in load_records(tmp_path / name)}
        for name in ("inline", "processes", "later")
    )
    assert len(processes) == 1
    assert processes.items() <= inline.items()
    assert inline.keys() == scored.keys()
    for trial, metrics in inline.items():
        assert set(metrics) == set(METRICS[:4])
        for name, metric in metrics.items():
            assert scored[trial][name].value == pytest.approx(metric.value, rel=1e-6)


def test_what_has_a_value_is_measured_again_only_when_asked_to(results: Path) -> None:
    list(score_trials(results, Wish(METRICS)))
    assert [each.measured for each in score_trials(results, Wish(METRICS))] == [(), ()]
    again = list(score_trials(results, Wish(("kid[teacher]",), images=40, real_images=100, again=True)))
    kid = again[0].record.image_metrics["kid[teacher]"]
    assert (kid.images, kid.real_images) == (40, 100)


def test_a_metric_that_could_not_be_had_is_tried_again(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(results))
    list(score_trials(results, Wish(("lpips[alex]",))))
    assert load_records(results)[0].image_metrics["lpips[alex]"].status == "unavailable"
    assert [each.measured for each in score_trials(results, Wish(("lpips[alex]",)))] == [("lpips[alex]",)] * 2


def test_a_stopped_scoring_leaves_whole_records(results: Path) -> None:
    scoring = score_trials(results, Wish(METRICS))
    next(scoring)
    scoring.close()
    counts = sorted(len(record.image_metrics) for record in load_records(results))
    assert counts == [1, len(METRICS)]
    assert not list(results.rglob("*.tmp"))


def spoil_images(folder: Path) -> str:
    (folder / "images.safetensors").unlink()
    return "the trial stored no images, or they were not published"


def spoil_bytes(folder: Path) -> str:
    (folder / "images.safetensors").write_bytes(b"images")
    alter(folder)
    return "cannot be read as a trial's images"


def spoil_one_byte(folder: Path) -> str:
    content = bytearray((folder / "images.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "images.safetensors").write_bytes(content)
    return "has changed since it was written"


def spoil_student(folder: Path) -> str:
    save_file({"weight": torch.zeros(3)}, folder / "student.safetensors")
    alter(folder)
    return "cannot be read as the trial's student"


def spoil_students_bytes(folder: Path) -> str:
    (folder / "student.safetensors").write_bytes(b"student")
    return "has changed since it was written"


def spoil_task(folder: Path) -> str:
    record = json.loads((folder / "record.json").read_text())
    record["trial"]["task_sha"] = "0" * 16
    from bench.records import trial_id

    record["id"] = trial_id(record["trial"])
    alter(folder, **record)
    folder.rename(folder.with_name(record["id"]))
    return "its definition has changed"


def spoil_teacher(folder: Path) -> str:
    record = json.loads((folder / "record.json").read_text())
    alter(folder, teacher=record["teacher"] | {"sha256": "0" * 64})
    return "the trial's had 000000000000"


def spoil_data(folder: Path) -> str:
    record = json.loads((folder / "record.json").read_text())
    record["provenance"]["data"]["fingerprint"] = "0" * 64
    alter(folder, **record)
    return "here are not those of the trial"


SPOILT = (spoil_images, spoil_bytes, spoil_one_byte, spoil_student, spoil_students_bytes)


@pytest.mark.parametrize("spoil", [*SPOILT, spoil_task, spoil_teacher, spoil_data])
def test_what_stands_in_the_way_of_one_trial_does_not_stop_the_others(results: Path, spoil: object) -> None:
    assert callable(spoil)
    reason = spoil(next(iter(sorted((results / "trials").iterdir()))))
    found = list(score_trials(results, Wish(METRICS)))
    assert sorted(bool(each.reason) for each in found) == [False, True]
    assert reason in next(each.reason for each in found if each.reason)


def test_without_its_student_a_trial_lacks_what_the_student_is_needed_for_and_nothing_else(results: Path) -> None:
    folder = next(iter((results / "trials").iterdir()))
    (folder / "student.safetensors").unlink()
    measured = {each.record.id: each for each in score_trials(results, Wish(METRICS))}[folder.name]
    metric = measured.record.image_metrics["distillation_loss"]
    assert metric.status == "unavailable"
    assert metric.note == "there is no student to measure it with: the trial kept none"
    assert not measured.reason
    others = [each for name, each in measured.record.image_metrics.items() if name != "distillation_loss"]
    assert all(each.value is not None for each in others)


def test_the_distillation_loss_is_that_of_the_kept_student_on_the_kept_images(results: Path) -> None:
    """The definition, written out over one image after the other."""
    task = get_task("digits/lenet5-half")
    list(score_trials(results, Wish(("distillation_loss", "distillation_loss_variance"))))
    for record in load_records(results):
        folder = results / "trials" / record.id
        student = build(task.student, task.image, 10).eval()
        student.load_state_dict(load_file(folder / "student.safetensors"))
        teacher = cached_teacher(task, record.trial.teacher, 10)
        assert teacher is not None
        losses = []
        for image in normalise(load_file(folder / "images.safetensors")["images"], task.image).split(1):
            with torch.no_grad():
                p, q = (network(image).double().softmax(1)[0] for network in (teacher.network, student))
            losses.append(float((p * (p / q).log()).sum()))
        mean, variance = (record.image_metrics[f"distillation_loss{end}"] for end in ("", "_variance"))
        assert mean.value == pytest.approx(statistics.fmean(losses), rel=1e-5)
        assert variance.value == pytest.approx(statistics.variance(losses), rel=1e-5)
        assert mean.images == variance.images == len(losses)


def test_kept_images_of_another_kind_give_a_status(results: Path) -> None:
    folder = next(iter((results / "trials").iterdir()))
    images = load_file(folder / "images.safetensors")
    save_file({**images, "images": torch.full((9, 1, 32, 32), float("nan"))}, folder / "images.safetensors")
    alter(folder)
    (found,) = score_trials(results, Wish(METRICS), [folder.name])
    assert found.record.image_metrics["fd[teacher]"].status == "unavailable"
    assert "float32" in found.record.image_metrics["fd[teacher]"].note


def test_a_record_is_replaced_by_one_of_the_same_trial_only(results: Path) -> None:
    one, other = ((results / "trials" / record.id, record) for record in load_records(results))
    with pytest.raises(ValueError, match="holds another trial"):
        replace_record(one[0], other[1])
    (one[0] / "record.json").unlink()
    with pytest.raises(UserError, match=r"not a complete trial: it has no record\.json"):
        replace_record(one[0], one[1])


# ---- the command -----------------------------------------------------------------------------------------------------


def test_a_study_is_scored_by_its_name_and_a_trial_by_its_id(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["score", "scored", "--metrics", "fd[teacher],kid[teacher]"]) == 0
    printed = capsys.readouterr().out
    assert "fd[teacher]" in printed
    assert "next: dfkd report --results runs/scored" in printed
    record = load_records(results)[0]
    assert answer(["score", record.id[:8], "--metrics", "coverage[teacher]"]) == 0
    assert "coverage[teacher]" in load_record(results / "trials" / record.id).image_metrics
    assert answer(["score", "scored"]) == 0  # the study's own metrics
    assert "all measured already" in capsys.readouterr().out


def test_a_metric_that_cannot_be_had_is_told_with_exit_code_1(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(results))
    assert answer(["score", "scored", "--metrics", "fid"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "unavailable" in printed
    assert "dfkd weights fetch inception" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no trial 'nothing'"),
        (["scored", "--metrics", "fid[teacher]"], "this is fd[teacher]"),
        (["scored", "--metrics", "fd[teacher]", "--device", "gpu"], "unknown device 'gpu'"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    results: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert results.is_dir()
    assert answer(["score", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_a_study_needs_metrics_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "study.yaml").unlink()
    assert answer(["score", "scored"]) == 2
    assert "name the metrics with --metrics" in capsys.readouterr().err
