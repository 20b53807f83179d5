"""One trial, from its identity to its record."""

from __future__ import annotations

import getpass
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from bench.execution.run_trial import Setting, run_trial
from bench.execution.status import Interrupted
from bench.records import Record, open_results, read_curve
from bench.spec.method_registry import read_cards
from bench.spec.study import SUITE
from bench.spec.task import get_task
from bench.spec.teacher_key import teacher_key
from bench.spec.trial import Trial

METHOD = """
from torch.optim import SGD
from bench import Access, Data, Session, method

@method("mine", title="Mine", paper="none", data=Data.NONE, access=Access.LOGITS)
def mine(s: Session) -> None:
    opt = s.keep("opt", SGD(s.student.parameters(), 0.05))
    for _ in s.steps("train"):
        images = s.noise(32, *s.task.image.shape)
        BODY
        s.distill(opt, images)
        s.log(spread=images.std())
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return open_results(tmp_path / "results", create=True)


def trial_of(folder: Path, body: str = "pass", **changes: Any) -> Trial:
    file = folder / "mine.py"
    file.write_text(METHOD.replace("BODY", body), encoding="utf-8")
    task = get_task("digits/lenet5-half")
    values: dict[str, Any] = {
        "suite": SUITE,
        "task": task.name,
        "task_sha": task.sha,
        "teacher": teacher_key(task),
        "method": "mine",
        "method_sha": read_cards(file)[0].sha,
        "options": {},
        "budget": {"steps": 8},
        "seed": 0,
        "points": 4,
        "study": "test",
        "image_metrics": ("class_balance", "confidence", "intra_class_pixel_std"),
        "method_files": (file,),
    }
    return Trial(**{**values, **changes})


def test_a_finished_trial_leaves_its_whole_folder(tmp_path: Path, results: Path) -> None:
    trial = trial_of(tmp_path)
    record = run_trial(trial, Setting(results))
    folder = results / "trials" / trial.id
    assert record.status == "ok"
    assert sorted(file.name for file in folder.iterdir()) == [
        "curve.jsonl",
        "images.png",
        "images.safetensors",
        "record.json",
        "student.safetensors",
    ]
    assert not (results / "work" / trial.id).exists()
    assert record.id == trial.id
    assert set(record.scores) == {"last", "ema", "teacher_agreement", "oracle"}
    assert record.scores["oracle"] >= record.scores["last"]
    assert record.stopped_by == "steps"
    assert record.meter.steps == 8
    assert record.meter.teacher_images == record.meter.student_images == 256
    assert record.meter.synthesised_images == 256
    assert record.meter.peak_memory_mib
    assert record.meter.peak_memory_mib > 50
    assert record.teacher is not None
    assert record.teacher.score > 0.9
    kept = load_file(folder / "images.safetensors")
    assert kept["images"].shape == (192, 1, 32, 32)  # eight of each step are held out
    assert kept["steps"].unique().tolist() == list(range(8))
    assert record.images.count == 192
    assert record.images.clipped > 0.1  # normal noise leaves the pixel range
    assert record.images.different == record.images.count  # held-out images leave no copies in the sample
    assert {name: metric.status for name, metric in record.image_metrics.items()} == dict.fromkeys(
        trial.image_metrics, "ok"
    )


def test_the_curve_has_the_start_and_evenly_spread_points(tmp_path: Path, results: Path) -> None:
    trial = trial_of(tmp_path)
    record = run_trial(trial, Setting(results))
    curve = read_curve(results / "trials" / trial.id)
    assert [row["steps"] for row in curve] == [0, 2, 4, 6, 8]
    assert [row["progress"] for row in curve] == [0, 0.25, 0.5, 0.75, 1]
    assert curve[-1]["score"] == record.scores["last"]
    assert max(row["score"] for row in curve) == record.scores["oracle"]
    assert 0.9 < curve[1]["logs"]["spread"] < 1.1
    assert all(row["held_out_agreement"] is not None for row in curve)


FAILURES = {
    "diverged": ("images = images * float('nan')", "a loss became NaN or infinite"),
    "crashed": ("raise ValueError('no good')", "ValueError: no good (mine.py, line 10)"),
    "crashed by leaving": ("raise SystemExit(0)", "SystemExit: 0 (mine.py, line 10)"),
    "crashed below": ("images.view(-1, 7)", "(mine.py, line 10)"),
    "out_of_memory": ("raise MemoryError('too big')", "too big"),
    "denied": ("s.teacher(images, features=True)", "declares Access.LOGITS, not Access.FEATURES"),
    "leaked": ("s.images(2)", "declares Data.NONE"),
    "timed_out": ("import time; time.sleep(0.2)", "timeout of 0.1 s"),
}


@pytest.mark.parametrize("status", sorted(FAILURES))
def test_every_failure_is_a_record(tmp_path: Path, results: Path, status: str) -> None:
    body, reason = FAILURES[status]
    trial = trial_of(tmp_path, body, timeout=0.1 if status == "timed_out" else None)
    record = run_trial(trial, Setting(results))
    assert record.status == status.split()[0]
    assert reason in record.reason
    assert record.scores == {}
    assert record.agreement is None
    assert "Traceback" in (results / "trials" / trial.id / "log.txt").read_text(encoding="utf-8")


def test_weights_are_looked_at_besides_the_losses(tmp_path: Path, results: Path) -> None:
    body = "s.distill(opt, images); [p.data.mul_(float('nan')) for p in s.student.parameters()]; continue"
    record = run_trial(trial_of(tmp_path, body, points=8), Setting(results))
    assert record.status == "diverged"
    assert record.reason == "the student's weights became NaN or infinite"


def test_earlier_results_hold_real_images_and_are_fenced(tmp_path: Path, results: Path) -> None:
    body = f"open({str(results / 'results.json')!r})"
    record = run_trial(trial_of(tmp_path, body), Setting(results))
    assert record.status == "leaked"
    assert record.reason.startswith("the method opened real data: results.json; ")


def test_missing_data_is_a_record(tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    task = get_task("mnist/lenet5-half")
    trial = trial_of(tmp_path, task=task.name, task_sha=task.sha, teacher=teacher_key(task))
    record = run_trial(trial, Setting(results))
    assert record.status == "missing_data"
    assert "dfkd data fetch mnist" in record.reason


def test_a_failed_trial_is_tried_again_and_a_finished_one_is_kept(tmp_path: Path, results: Path) -> None:
    (tmp_path / "bad").touch()
    body = "if (__import__('pathlib').Path(__file__).parent / 'bad').exists(): raise ValueError('bad day')"
    trial = trial_of(tmp_path, body)
    assert run_trial(trial, Setting(results)).status == "crashed"
    (tmp_path / "bad").unlink()
    assert run_trial(trial, Setting(results)).status == "ok"


def same(first: Record, second: Record, results: tuple[Path, Path]) -> None:
    folders = [folder / "trials" / first.id for folder in results]
    assert (folders[0] / "student.safetensors").read_bytes() == (folders[1] / "student.safetensors").read_bytes()
    assert (folders[0] / "images.safetensors").read_bytes() == (folders[1] / "images.safetensors").read_bytes()
    assert (folders[0] / "images.png").read_bytes() == (folders[1] / "images.png").read_bytes()
    curves = [[{**row, "seconds": 0} for row in read_curve(folder)] for folder in folders]
    assert curves[0] == curves[1]
    assert first.scores == second.scores
    assert first.agreement == second.agreement
    assert first.image_metrics == second.image_metrics


# The contract's check `resumes` does the same for a method of each kind.
@pytest.mark.parametrize("method", ["zskd", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dafl", "kd"))])
def test_interrupted_and_resumed_gives_the_same_bits(tmp_path: Path, method: str) -> None:
    from bench.spec.method_registry import find_methods

    card = find_methods()[method]
    options = {**card.defaults(), **card.quick}
    trial = trial_of(tmp_path, method=method, method_sha=card.sha, options=options, budget={"steps": 30}, points=6)
    whole = open_results(tmp_path / "whole", create=True)
    broken = open_results(tmp_path / "broken", create=True)
    first = run_trial(trial, Setting(whole))
    for calls in (4, 9, 5):
        left = [calls]

        def stop(left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] < 0

        with pytest.raises(Interrupted):
            run_trial(trial, Setting(broken, stop=stop))
        assert not (broken / "trials" / trial.id).exists()
    second = run_trial(trial, Setting(broken))
    assert second.resumed == 3
    same(first, second, (whole, broken))


@pytest.mark.parametrize("spoilt", ["checkpoint.pt", "points/00000.safetensors"])
def test_a_flipped_byte_of_what_was_saved_starts_the_trial_again(tmp_path: Path, spoilt: str) -> None:
    trial = trial_of(tmp_path, budget={"steps": 30}, points=6, selection=("last", "teacher_agreement"))
    whole, broken = (open_results(tmp_path / name, create=True) for name in ("whole", "broken"))
    first = run_trial(trial, Setting(whole))
    left = [9]

    def stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    with pytest.raises(Interrupted):
        run_trial(trial, Setting(broken, stop=stop))
    file = broken / "work" / trial.id / spoilt
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    second = run_trial(trial, Setting(broken))
    same(first, second, (whole, broken))
    assert second.resumed == 0
    assert "has changed since it was written" in second.provenance["restarted"]
    assert "started again from the beginning" in (broken / "trials" / trial.id / "log.txt").read_text()


def test_same_trial_same_bits(tmp_path: Path) -> None:
    trial = trial_of(tmp_path)
    folders = tuple(open_results(tmp_path / name, create=True) for name in "ab")
    same(run_trial(trial, Setting(folders[0])), run_trial(trial, Setting(folders[1])), (folders[0], folders[1]))


def test_another_seed_is_another_student(tmp_path: Path, results: Path) -> None:
    first, second = trial_of(tmp_path), trial_of(tmp_path, seed=1)
    for trial in (first, second):
        run_trial(trial, Setting(results))
    students = [(results / "trials" / trial.id / "student.safetensors").read_bytes() for trial in (first, second)]
    assert students[0] != students[1]


def test_precision_changes_the_outcome_but_runs(tmp_path: Path, results: Path) -> None:
    record = run_trial(trial_of(tmp_path, precision="bfloat16"), Setting(results))
    full = run_trial(trial_of(tmp_path), Setting(results))
    assert record.status == full.status == "ok"
    students = [(results / "trials" / each.id / "student.safetensors").read_bytes() for each in (record, full)]
    assert students[0] != students[1]


def test_a_method_without_distill_has_no_agreement_rule(tmp_path: Path, results: Path) -> None:
    body = "s.update(opt, s.student(images).square().mean()); continue"
    record = run_trial(trial_of(tmp_path, body), Setting(results))
    assert record.status == "ok"
    assert set(record.scores) == {"last", "ema", "oracle"}
    record = run_trial(trial_of(tmp_path, body, selection=("teacher_agreement", "last")), Setting(results))
    assert record.status == "crashed"
    assert "has nothing to choose by" in record.reason


def test_a_blind_method_is_limited_in_student_images(tmp_path: Path, results: Path) -> None:
    body = "s.update(opt, s.student(images).square().mean()); continue"
    trial = trial_of(tmp_path, body, budget={"teacher_images": 100})
    file = trial.method_files[0]
    file.write_text(file.read_text(encoding="utf-8").replace("Access.LOGITS", "Access.NONE"), encoding="utf-8")
    record = run_trial(trial, Setting(results))
    assert record.stopped_by == "student_images"
    assert record.meter.student_images == 128
    assert record.trial.budget == {"teacher_images": 100}


def test_provenance_names_versions_but_no_person_and_no_host(tmp_path: Path, results: Path) -> None:
    trial = trial_of(tmp_path)
    record = run_trial(trial, Setting(results))
    found = record.provenance
    assert {"commit", "dirty", "suite", "python", "platform", "device", "versions", "threads", "deterministic"} <= set(
        found
    )
    assert found["versions"]["torch"]
    text = json.dumps(record.model_dump(mode="json"))
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert str(Path.home()) not in text
    assert str(tmp_path) not in text
