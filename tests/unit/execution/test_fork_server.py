"""Workers forked from one process: as a spawned one has it, and nothing is lost when that process ends."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from slurm_site import wait_for
from test_gpu_memory import ended_with

from bench.execution.executors import Work, processes
from bench.execution.executors import fork_server as module
from bench.execution.executors.fork_server import ForkServer
from bench.execution.plan import plan_study
from bench.execution.progress import Progress
from bench.execution.run_study import Silence, run_study
from bench.spec.trial import Trial

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems spawn their workers")

STUDY = """
name: small
tasks: [digits/lenet5-half]
methods: [{method}]
seeds: {seeds}
budget: {{steps: {steps}}}
points: 1
selection: [last]
"""
LOOKS = '''
import json, os, sys
import torch
from bench import Access, Data, Session, method

@method("looks", title="Looks", paper="none", data=Data.NONE, access=Access.LOGITS)
def looks(s: Session) -> None:
    """Prints what its process is like."""
    print("SEEN", json.dumps({
        "cwd": os.getcwd(), "threads": torch.get_num_threads(), "mine": os.environ.get("MINE"),
        "gone": os.environ.get("GONE"), "group": os.getpgid(0) == os.getpid(), "input": sys.stdin.read(),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }))
    opt = s.keep("opt", torch.optim.SGD(s.student.parameters(), 0.1))
    for _ in s.steps("train"):
        s.distill(opt, s.noise(4, *s.task.image.shape))
'''


@pytest.fixture
def _own_server() -> Iterator[None]:
    module.close_server()
    yield
    module.close_server()


def study(folder: Path, method: str, steps: int = 1, more: str = "", seeds: tuple[int, ...] = (0, 1)) -> Path:
    text = STUDY.format(method=method, steps=steps, seeds=list(seeds))
    (folder / "study.yaml").write_text(text + more, encoding="utf-8")
    return folder / "study.yaml"


def seen(results: Path) -> list[dict[str, object]]:
    logs = [file.read_text(encoding="utf-8") for file in sorted(results.glob("trials/*/log.txt"))]
    return [json.loads(log.partition("SEEN ")[2].partition("\n")[0]) for log in logs]


@pytest.mark.usefixtures("_own_server")
def test_a_worker_has_the_folder_environment_and_threads_of_its_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "looks.py").write_text(LOOKS, encoding="utf-8")
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("GONE", "1")
    file = study(tmp_path, "looks.py", seeds=(0,))
    run_study(file, results=tmp_path / "first", isolation="none")
    (server,) = module._servers
    monkeypatch.setenv("MINE", "yes")
    monkeypatch.delenv("GONE")
    monkeypatch.chdir(tmp_path / "here")
    run_study(file, results=tmp_path / "second", isolation="none")
    assert module._servers == [server]  # it was asked again
    for each in seen(tmp_path / "second"):
        assert each == {
            **{"cwd": str(tmp_path / "here"), "threads": 1, "mine": "yes", "gone": None, "group": True, "input": ""},
            "descriptors": each["descriptors"],
        }
        assert int(str(each["descriptors"])) < 12


@pytest.mark.usefixtures("_own_server")
@pytest.mark.slow
def test_another_number_of_threads_needs_another_server(tmp_path: Path) -> None:
    (tmp_path / "looks.py").write_text(LOOKS, encoding="utf-8")
    run_study(study(tmp_path, "looks.py", seeds=(0,)), results=tmp_path / "first", isolation="none")
    (server,) = module._servers
    third = study(tmp_path, "looks.py", more="threads: 2\n", seeds=(0,))
    run_study(third, results=tmp_path / "third", isolation="none")
    assert module._servers != [server]  # threads are counted when torch is imported
    assert {each["threads"] for each in seen(tmp_path / "third")} == {2}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_worker_for_a_gpu_is_spawned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """A GPU's driver does not outlive a fork."""
    ways = []
    monkeypatch.setattr(processes, "fork_server", lambda environment: ways.append("forked"))
    monkeypatch.setattr(processes.subprocess, "Popen", lambda *args, **more: ways.append("spawned"))
    trial = plan_study(study(tmp_path, "noise"), results=tmp_path / "results").trials[0]
    trial = dataclasses.replace(trial, device=device)
    processes._start(trial, Work(tmp_path / "results", None, 60.0, 1, None, None, "none"), None)
    assert ways == (["forked", "spawned"] if device == "cpu" else ["spawned"])


class Ends:
    """A process that ends when it is told."""

    returncode = 0

    def __init__(self) -> None:
        self.ended = False

    def poll(self) -> int | None:
        return 0 if self.ended else None


@pytest.mark.parametrize(
    ("device", "gpu", "workers", "given"),
    [
        ("cuda", None, 2, [0, 1, 0, 1, 0]),
        ("cuda", None, 5, [0, 1, 2, 0, 1]),
        ("cuda", 2, 2, [2, 2, 2, 2, 2]),
        ("cpu", None, 2, [None] * 5),
    ],
)
def test_each_trial_gets_the_gpu_with_the_fewest_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, gpu: int | None, workers: int, given: list[int | None]
) -> None:
    """Without any GPU: three are said to be there, and no process is started."""
    running: list[tuple[str, Ends]] = []
    orders: list[int | None] = []

    def popen(words: list[str], **more: object) -> Ends:
        orders.append(json.loads((Path(words[-2]) / "order.json").read_text())["gpu"])
        running.append((words[-2], Ends()))
        return running[-1][1]

    monkeypatch.setattr("bench.utils.hardware.free_gpu_mib", lambda: dict.fromkeys(range(3), 1e6))
    monkeypatch.setattr(processes, "fork_server", lambda environment: None)
    monkeypatch.setattr(processes.subprocess, "Popen", popen)
    monkeypatch.setattr(processes, "_collect", lambda job, work: ended_with("crashed"))
    monkeypatch.setattr(processes, "_rest", lambda jobs: setattr(running.pop(0)[1], "ended", True))
    plan = plan_study(study(tmp_path, "noise", seeds=tuple(range(5))), results=tmp_path / "results")
    trials = [dataclasses.replace(trial, device=device) for trial in plan.trials]
    processes.run(trials, Work(tmp_path / "results", None, 60.0, workers, gpu, None, "none"), Silence())
    assert orders == given


def test_a_worker_that_nobody_has_collected_has_ended() -> None:
    """Its server was killed, and in a container nobody may collect what it leaves."""
    server = ForkServer.__new__(ForkServer)
    server._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # nobody is at the other end
    with server._control, subprocess.Popen(["sleep", "60"]) as worker:
        assert server.code(worker.pid) is None
        os.kill(worker.pid, signal.SIGKILL)
        wait_for(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_ZOMBIE)
        assert server.code(worker.pid) == 1
        worker.wait()
        assert server.code(worker.pid) == 1


@pytest.mark.usefixtures("_own_server")
@pytest.mark.slow
def test_spawned_and_forked_workers_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = study(tmp_path, "zskd", 3)
    run_study(file, results=tmp_path / "forked")
    with monkeypatch.context() as patch:
        patch.setattr("bench.execution.executors.processes.fork_server", lambda environment: None)
        run_study(file, results=tmp_path / "spawned")
    students = [
        [file.read_bytes() for file in sorted(tmp_path.glob(f"{how}/trials/*/student.safetensors"))]
        for how in ("forked", "spawned")
    ]
    assert len(students[0]) == 2
    assert students[0] == students[1]


@pytest.mark.usefixtures("_own_server")
@pytest.mark.slow
def test_a_server_that_has_ended_is_replaced(tmp_path: Path) -> None:
    run_study(study(tmp_path, "noise: {batch: 4}"), results=tmp_path / "first")
    (server,) = module._servers
    server._process.kill()
    server._process.wait()
    summary = run_study(study(tmp_path, "noise: {batch: 4}", 2), results=tmp_path / "second")
    assert summary.statuses == {"ok": 2}


@pytest.mark.usefixtures("_own_server")
@pytest.mark.slow
def test_workers_whose_server_is_killed_save_themselves_and_the_study_goes_on(tmp_path: Path) -> None:
    file = study(tmp_path, "noise: {batch: 4}", 400)

    killed: list[int] = []

    class Kills(Silence):
        """Kills the server when the first trial runs."""

        def update(self, trial: Trial, progress: object) -> None:
            del trial
            if not killed and isinstance(progress, Progress) and progress.state == "running":
                killed.append(module._servers[0]._process.pid)
                os.kill(killed[0], signal.SIGKILL)

    run_study(file, results=tmp_path / "out", workers=1, audience=Kills())
    assert killed
    again = run_study(file, results=tmp_path / "out", workers=1)
    assert again.statuses == {"ok": 2}


def test_no_server_is_left_behind() -> None:
    server = ForkServer(os.environ)
    pid = server._process.pid
    server.close()
    time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
