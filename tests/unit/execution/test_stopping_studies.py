"""A study that is stopped saves itself and goes on with the same bits, for every signal and executor."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from bench.execution.executors import processes
from bench.execution.isolation import isolated
from bench.execution.plan import plan_study
from bench.execution.progress import Progress
from bench.execution.run_study import Silence, run_study
from bench.execution.run_trial import Setting, run_trial
from bench.execution.status import Interrupted
from bench.records import Record, load_records, read_curve
from bench.spec.trial import Trial
from bench.utils import stopping
from bench.utils.confinement import why_not
from bench.utils.stopping import SIGNALS, Stopped, listening

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems spawn their workers, which takes long")

PATIENT = '''
import time
import torch
from bench import Access, Data, Session, method

@method("patient", title="Patient", paper="none", data=Data.NONE, access=Access.LOGITS)
def patient(s: Session) -> None:
    """Slow enough to be stopped on the way."""
    opt = s.keep("opt", torch.optim.SGD(s.student.parameters(), 0.1, momentum=0.9))
    for _ in s.steps("train"):
        time.sleep({seconds})
        s.distill(opt, s.noise(4, *s.task.image.shape))
'''
STUDY = """
name: stopped
tasks: [digits/lenet5-half]
methods: [./patient.py]
seeds: [0, 1]
budget: {{steps: {steps}}}
points: 2
selection: [last, teacher_agreement]
"""
QUICK = {
    ("inline", "none", signal.SIGINT),
    ("inline", "process", signal.SIGUSR1),
    ("processes", "process", signal.SIGTERM),
}
WAYS = [
    pytest.param(
        executor,
        isolation,
        number,
        id=f"{executor}-{isolation}-{number.name}",
        marks=[] if (executor, isolation, number) in QUICK else pytest.mark.slow,
    )
    for executor in ("inline", "processes")
    for isolation in ("none", "process")
    for number in SIGNALS
]


class Sends(Silence):
    """Sends this process a signal when the first trial is running, and counts what has ended."""

    def __init__(self, number: signal.Signals, times: int = 1) -> None:
        self.number = number
        self.left = times
        self.ended_ids: list[str] = []

    def update(self, trial: Trial, progress: object) -> None:
        del trial
        if self.left and isinstance(progress, Progress) and progress.state == "running":
            self.left -= 1
            os.kill(os.getpid(), self.number)

    def ended(self, trial: Trial, record: Record) -> None:
        del record
        self.ended_ids.append(trial.id)


def study(folder: Path, steps: int = 30, seconds: float = 0.03) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "patient.py").write_text(PATIENT.replace("{seconds}", str(seconds)), encoding="utf-8")
    (folder / "study.yaml").write_text(STUDY.format(steps=steps), encoding="utf-8")
    return folder / "study.yaml"


def content(results: Path) -> dict[str, tuple[bytes, list[object]]]:
    """Students and curves (without times) of the finished trials."""
    found = {}
    for record in load_records(results):
        folder = results / "trials" / record.id
        curve = [{key: value for key, value in row.items() if key != "seconds"} for row in read_curve(folder)]
        assert record.status == "ok", record.reason
        found[record.id] = ((folder / "student.safetensors").read_bytes(), list(curve))
    return found


def halves(results: Path) -> list[str]:
    """Files that were being written."""
    return [str(file) for file in results.rglob("*") if file.suffix in (".part", ".tmp") or file.name.endswith(".part")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study without a stop. Of two folders the methods' code is the same, and so are the trials."""
    folder = tmp_path_factory.mktemp("whole")
    run_study(study(folder), results=folder / "results", executor="inline", isolation="none")
    return folder / "results"


def possible(isolation: str) -> None:
    if isolation == "process" and (why := why_not()):
        pytest.skip(why)


@pytest.mark.parametrize(("executor", "isolation", "number"), WAYS)
def test_a_signal_saves_what_runs_and_the_same_call_goes_on_with_the_same_bits(
    whole: Path, tmp_path: Path, executor: str, isolation: str, number: signal.Signals
) -> None:
    possible(isolation)
    file, results = study(tmp_path), tmp_path / "results"
    audience = Sends(number)
    with pytest.raises(Stopped) as stop:
        run_study(
            file,
            results=results,
            executor=executor,
            isolation=isolation,
            workers=1,
            checkpoint_seconds=1e9,
            audience=audience,
        )
    assert stop.value.reason == ("Ctrl-C" if number == signal.SIGINT else number.name)
    assert stop.value.late == 0
    assert not audience.ended_ids
    assert [file.parent.parent.name for file in results.rglob("checkpoint.pt")] == ["work"]  # of the one that ran
    assert not list(results.glob("trials/*"))
    assert not halves(results)
    assert not list(results.glob("work/.*.outcome"))
    run_study(file, results=results, executor=executor, isolation=isolation, workers=1)
    assert content(results) == content(whole)
    assert sorted(record.resumed for record in load_records(results)) == [0, 1]
    assert not list((results / "work").iterdir())


@pytest.mark.parametrize("executor", ["inline", pytest.param("processes", marks=pytest.mark.slow)])
def test_time_that_is_over_stops_in_the_same_way(whole: Path, tmp_path: Path, executor: str) -> None:
    class TimeIsOver(Sends):
        def update(self, trial: Trial, progress: object) -> None:
            del trial
            if self.left and isinstance(progress, Progress) and progress.share > 0:
                self.left = 0
                stopping._listening[0].ends = time.time()

    file, results = study(tmp_path), tmp_path / "results"
    reasons: list[str] = []
    while not reasons or reasons[-1]:
        try:
            run_study(file, results=results, executor=executor, workers=2, audience=TimeIsOver(signal.SIGINT))
            reasons.append("")
        except Stopped as stop:
            reasons.append(stop.reason)
    assert len(reasons) > 1
    assert set(reasons) == {"its time is over", ""}
    assert content(results) == content(whole)


def test_time_that_is_over_at_once_leaves_nothing_half_done(tmp_path: Path) -> None:
    file, results = study(tmp_path), tmp_path / "results"
    with listening(time.time() - 1), pytest.raises(Stopped):
        run_study(file, results=results)
    assert not list(results.glob("trials/*"))
    assert not list(results.glob("work/*"))


@pytest.mark.parametrize("executor", ["inline", pytest.param("processes", marks=pytest.mark.slow)])
def test_a_stop_after_the_last_trial_is_none(tmp_path: Path, executor: str) -> None:
    """What has ended when the signal comes has ended: nothing is left to go on with."""

    class AtTheEnd(Silence):
        def ended(self, trial: Trial, record: Record) -> None:
            del trial, record
            count.append(1)
            if len(count) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    count: list[int] = []
    summary = run_study(study(tmp_path, steps=1), results=tmp_path / "results", executor=executor, audience=AtTheEnd())
    assert summary.statuses == {"ok": 2}


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_a_stop_after_the_last_step_loses_nothing(whole: Path, tmp_path: Path, isolation: str) -> None:
    possible(isolation)
    (trial,) = plan_study(study(tmp_path), results=tmp_path).trials[:1]
    steps = [0]

    def stop() -> bool:
        steps[0] += 1
        return steps[0] == 30

    way = isolated(isolation, "cpu").way
    with pytest.raises(Interrupted):
        run_trial(trial, Setting(tmp_path / "results", stop=stop, isolation=way))
    assert run_trial(trial, Setting(tmp_path / "results", isolation=way)).resumed == 1
    assert content(tmp_path / "results")[trial.id] == content(whole)[trial.id]


def test_who_does_not_save_in_time_goes_back_to_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.3)
    file, results = study(tmp_path, steps=2, seconds=3.0), tmp_path / "results"
    with pytest.raises(Stopped) as stop:
        run_study(file, results=results, workers=1, audience=Sends(signal.SIGTERM))
    assert stop.value.late == 1
    assert not list(results.glob("trials/*"))
    assert not halves(results)


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["none", "process"])
@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_a_second_ctrl_c_stops_at_once_and_the_study_still_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str, isolation: str
) -> None:
    class SendsTwo(Sends):
        def update(self, trial: Trial, progress: object) -> None:
            if self.left and isinstance(progress, Progress) and progress.state == "running":
                threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            super().update(trial, progress)

    possible(isolation)
    monkeypatch.setattr("bench.utils.stopping.TWICE", 0.0)
    file, results = study(tmp_path, steps=3, seconds=2.0), tmp_path / "results"
    with pytest.raises(KeyboardInterrupt) as stop:
        run_study(
            file,
            results=results,
            executor=executor,
            isolation=isolation,
            workers=1,
            checkpoint_seconds=0.0,
            audience=SendsTwo(signal.SIGINT),
        )
    assert not isinstance(stop.value, Stopped)
    assert not list(results.glob("trials/*"))
    assert run_study(file, results=results, executor=executor, isolation=isolation).statuses == {"ok": 2}


@pytest.mark.slow
def test_a_worker_that_somebody_else_stops_is_a_failure_that_is_tried_again(tmp_path: Path) -> None:
    class StopsTheWorker(Silence):
        done = False

        def update(self, trial: Trial, progress: object) -> None:
            if not self.done and isinstance(progress, Progress) and progress.state == "running":
                self.done = True
                order = results / "work" / trial.id / "order.json"
                assert json.loads(order.read_text(encoding="utf-8"))
                for pid in _workers():
                    os.kill(pid, signal.SIGTERM)

    results = tmp_path / "results"
    file = study(tmp_path)
    summary = run_study(file, results=results, workers=1, isolation="none", audience=StopsTheWorker())
    assert summary.statuses == {"crashed": 1, "ok": 1}
    assert run_study(file, results=results, workers=1, isolation="none").statuses == {"ok": 2}


def _workers() -> list[int]:
    """The workers of this process: children of its fork server."""
    import psutil

    from bench.execution.executors import fork_server

    return [child.pid for child in psutil.Process(fork_server._servers[0]._process.pid).children()]
