"""Kinds of faults beside those of fault_injection.py: methods that misbehave, workers, memory, teachers in training.

Workers come from forks of the process that injects, as drivers do: a worker costs milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from fault_injection import Harness

GRACE_SECONDS = 1.0  # of a worker beyond its timeout
LEFT_SECONDS = 60.0  # for processes of a driver that was killed to end

BAD = '''
import os, sys, signal, threading, time
import torch
from bench import Access, Data, Session, method

@method("bad", title="Bad", paper="none", data=Data.NONE, access=Access.LOGITS)
def bad(s: Session) -> None:
    """Goes wrong in its third step."""
    opt = s.keep("opt", torch.optim.SGD(s.student.parameters(), 0.1))
    for number, _ in enumerate(s.steps("train")):
        s.distill(opt, s.noise(4, *s.task.image.shape))
        if number == 2:
            {body}
'''
STUDY = """
name: faults
tasks: [digits/lenet5-half]
methods: [./bad.py, ./tiny.py]
seeds: [0]
budget: {steps: 6}
points: 1
selection: [last]
isolation: none
timeout: 20
"""
HANG = "timeout: 4"
TRAINING = """
name: training
tasks:
  - name: short
    data: digits
    image: {channels: 1, size: 32, mean: [0.3], std: [0.25]}
    teacher: {network: lenet5, recipe: quick, seed: 7}
    student: lenet5-half
methods: [./tiny.py]
seeds: [0]
budget: {steps: 6}
points: 1
selection: [last]
isolation: none
"""


@dataclass(frozen=True)
class Way:
    """What a method does, what its record says, and on which executors it may: some end the process they are in."""

    body: str
    statuses: Sequence[str] = ("crashed",)
    executors: Sequence[str] = ("inline", "processes")


OWN = ("processes",)
WAYS = {
    "hangs": Way("while True: time.sleep(0.01)", ("timed_out",), OWN),
    "hangs in C": Way("lock = threading.Lock(); lock.acquire(); lock.acquire()", ("timed_out",), OWN),
    "forks": Way("os._exit(0) if os.fork() == 0 else os.wait()"),
    "exits": Way("os._exit({code})", executors=OWN),
    "ends itself": Way("os.kill(os.getpid(), signal.SIGKILL)", ("out_of_memory",), OWN),
    "aborts": Way("os.abort()", executors=OWN),
    "KeyboardInterrupt": Way("raise KeyboardInterrupt"),
    "SystemExit": Way("sys.exit({code})"),
    "GeneratorExit": Way("raise GeneratorExit"),
    "a group": Way("raise BaseExceptionGroup('several', [ValueError('a'), KeyboardInterrupt(), SystemExit(0)])"),
    "no such letters": Way(r"raise ValueError('\ud800 \x00 \x1b[31m ' + chr(0xdfff))"),
    "no words": Way("raise type('Bad', (Exception,), {{'__str__': lambda self: 1 / 0}})()"),
    "no memory": Way("torch.empty(1 << 50)", ("out_of_memory",)),
    "eats memory": Way(
        "import resource; resource.setrlimit(resource.RLIMIT_AS, ({room},) * 2); eaten = []\n"
        "            while True: eaten.append(bytearray(1 << 24))",
        ("out_of_memory",),
        OWN,
    ),
    "megabytes": Way("for _ in range(16): print('x' * (1 << 20))", ("ok",)),
    "threads": Way("[threading.Thread(target=time.sleep, args=(3,)).start() for _ in range(8)]", ("ok",)),
}  # fmt: skip


def method(harness: Harness, kind: str, executor: str) -> None:
    """A method goes wrong in a way that a method can: its record says so, and the trial beside it has its bits."""
    counts = harness.counts[kind]
    name = harness.next_way(WAYS, executor)
    way, folder, results = WAYS[name], harness.folder / "method", harness.folder / "method" / "results"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    code = harness.random.randrange(256)
    room = psutil.Process().memory_info().vms + (1 << 30)
    (folder / "bad.py").write_text(BAD.replace("{body}", way.body.format(code=code, room=room)), encoding="utf-8")
    (folder / "study.yaml").write_text(STUDY.replace("timeout: 20", HANG) if "hangs" in name else STUDY, "utf-8")
    shutil.copyfile(harness.folder / "tiny.py", folder / "tiny.py")
    before: dict[str, bytes] = {}
    for _ in range(2):  # the second run tries the failure again
        ended = harness.run(results, study=folder / "study.yaml", executor=executor)
        found = {file.parent.name: file.read_bytes() for file in results.glob("trials/*/record.json")}
        says = {name: record_of(content) for name, content in found.items()}
        bad = {says[each]["status"] for each in found if says[each]["trial"]["method"] == "bad"}
        tiny = {each for each in found if says[each]["trial"]["method"] == "tiny"}
        if ended != (0 if bad == {"ok"} else 1) or not bad or not bad <= set(way.statuses):
            counts.lost += 1
            counts.notes.append(f"a method that {name!r}, on {executor}: exit code {ended}, statuses {sorted(bad)}")
        counts.told += bad != {"ok"}
        there = harness.content(results)
        if len(tiny) != 1 or any(there.get(each) not in harness.whole.values() for each in tiny):
            counts.lost += 1
            counts.notes.append(f"a method that {name!r}, on {executor}, reached into the trial beside it")
        kept = {each: content for each, content in found.items() if says[each]["status"] == "ok"}
        counts.doubled += sum(kept.get(each) != content for each, content in before.items())
        before = kept
    harness.wait_for_all(kind)


def worker(harness: Harness, kind: str, executor: str) -> None:
    """``kill -9`` of a worker, as the system does that has no memory left, or of what workers are forked from."""
    pid = harness.start(harness.results, executor=executor)
    time.sleep(harness.random.uniform(0, 1.1 * harness.seconds))
    below = psutil.Process(pid).children(recursive=True)
    if below:
        harness.random.choice(below).send_signal(signal.SIGKILL)
    harness.counts[kind].told += harness.exit_code(pid) != 0
    harness.wait_for_all(kind)
    harness.check(kind)
    harness.complete(kind)


def memory(harness: Harness, kind: str, executor: str) -> None:
    """From some moment on the driver and its workers get no more memory than a little beside what they have."""
    pid = harness.start(harness.results, executor=executor)
    time.sleep(harness.random.uniform(0, harness.seconds))
    more = int(10 ** harness.random.uniform(3, 6.5))
    for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with contextlib.suppress(psutil.Error, OSError):
            room = each.memory_info().vms + more
            resource.prlimit(each.pid, resource.RLIMIT_AS, (room, room))
    harness.counts[kind].told += harness.exit_code(pid) != 0
    harness.wait_for_all(kind)
    harness.check(kind)
    harness.complete(kind)


def training(harness: Harness, kind: str, executor: str) -> None:
    """``kill -9``, or a refused write, while a teacher is trained: the next run has that of an undisturbed one."""
    found = Training(harness)
    pid = found.start("one", executor, harness.refusal(12) if (refused := harness.random.random() < 0.5) else None)
    found.kill(pid, not refused)
    harness.counts[kind].told += found.ended(kind, pid, killed=not refused) == 2
    found.complete(kind, ["one"], executor)


def same_teacher(harness: Harness, kind: str, executor: str) -> None:
    """Two studies want the same teacher at the same moment, and one is killed or refused a write, or neither: the other
    one has it, and it is trained once."""
    found = Training(harness)
    fate = harness.random.choice(("killed", "refused", "undisturbed"))
    first = found.start("one", executor, harness.refusal(12) if fate == "refused" else None)
    second = found.start("two", harness.random.choice(("inline", "processes")), None)
    found.kill(first, fate == "killed")
    code = found.ended(kind, first, killed=fate == "killed")
    harness.counts[kind].told += code == 2
    other = found.ended(kind, second)
    if other != 0 or (fate == "undisturbed" and code != 0):
        harness.counts[kind].lost += 1
        harness.counts[kind].notes.append(f"one was {fate} ({code}), and the other ended with exit code {other}")
    passport = found.passport()
    found.complete(kind, ["one", "two"], executor)
    if found.passport() != passport:
        harness.counts[kind].doubled += 1
        harness.counts[kind].notes.append("the teacher was trained twice")


class Training:
    """Studies whose teacher is not in the cache, which is their own."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self.folder = harness.folder / "training"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        shutil.copyfile(harness.folder / "tiny.py", self.folder / "tiny.py")
        (self.folder / "study.yaml").write_text(TRAINING, encoding="utf-8")
        if harness.trained is None:  # an undisturbed run, once
            began = time.monotonic()
            assert harness.exit_code(self.start("whole", "inline", None)) == 0
            harness.trained = (self._teachers(), harness.content(self.folder / "whole"), time.monotonic() - began)
            shutil.rmtree(self.folder / "cache")

    def start(self, results: str, executor: str, before: Callable[[], None] | None) -> int:
        def prepare() -> None:
            from bench.harness.teachers import training

            os.environ["DFKD_CACHE"] = str(self.folder / "cache")
            training.CHECKPOINT_SECONDS = 0.05
            if before is not None:
                before()

        return self._harness.start(self.folder / results, prepare, study=self.folder / "study.yaml", executor=executor)

    def kill(self, pid: int, wanted: bool) -> None:
        assert self._harness.trained is not None
        if wanted:
            time.sleep(self._harness.random.uniform(0, self._harness.trained[2]))
            os.kill(pid, signal.SIGKILL)

    def ended(self, kind: str, pid: int, killed: bool = False) -> int:
        """The exit code; one that no run ends with is a fault of the suite."""
        code = self._harness.exit_code(pid)
        if code not in ((0, -signal.SIGKILL) if killed else (0, 1, 2)):
            self._harness.counts[kind].lost += 1
            self._harness.counts[kind].notes.append(f"a run ended with exit code {code}")
        return code

    def complete(self, kind: str, results: Sequence[str], executor: str) -> None:
        assert self._harness.trained is not None
        teachers, whole, _ = self._harness.trained
        self._harness.wait_for_all(kind)
        for name in results:
            code = self.ended(kind, self.start(name, executor, None))
            if code or self._harness.content(self.folder / name) != whole or self._teachers() != teachers:
                self._harness.counts[kind].lost += 1
                self._harness.counts[kind].notes.append(f"{name} did not complete with the same bits ({code})")
        self._harness.wait_for_all(kind)
        if left := [each.name for each in self._places() if each.name.startswith(".") and each.suffix != ".lock"]:
            self._harness.counts[kind].notes.append(f"{left} was left")
            self._harness.counts[kind].lost += 1

    def passport(self) -> list[bytes]:
        return [file.read_bytes() for file in (self.folder / "cache").glob("teachers/*/passport.json")]

    def _teachers(self) -> dict[str, bytes]:
        files = (self.folder / "cache").glob("teachers/*/weights.safetensors")
        return {file.parent.name: file.read_bytes() for file in files}

    def _places(self) -> list[Path]:
        return list((self.folder / "cache" / "teachers").iterdir())


MORE: Mapping[str, Callable[[Harness, str, str], None]] = {
    "method": method,
    "worker": worker,
    "memory": memory,
    "training": training,
    "same_teacher": same_teacher,
}


def record_of(content: bytes) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(content)
    return found


class Forked:
    """In the place of a process that Python starts: a fork of this one, which has imported everything."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        env: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        stdout: IO[bytes] | int = subprocess.DEVNULL,
        **streams: Any,
    ) -> None:
        del streams
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        try:
            from bench.execution.executors import fork_server, worker

            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for number, stream in enumerate((null, stdout, stdout)):
                os.dup2(null if isinstance(stream, int) else stream.fileno(), number)
            first = pass_fds[0] if pass_fds else 4096
            os.closerange(3, first)
            os.closerange(first + 1, 4096)
            os.environ.clear()
            os.environ.update(env)
            if pass_fds:
                fork_server.serve(first)
            worker.main(Path(words[-2]), int(words[-1]))
            os._exit(0)
        finally:
            os._exit(1)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (timeout or 1e9)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("fork", timeout or 0.0)
            time.sleep(0.002)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def fork_workers() -> None:
    """From now on, drivers that this process forks have their workers from forks, too; all end with this process."""
    from bench.execution.executors import fork_server, processes
    from bench.utils.confinement.system import prctl

    here = {"Popen": Forked, "DEVNULL": subprocess.DEVNULL, "TimeoutExpired": subprocess.TimeoutExpired}
    for module in (fork_server, processes):
        module.subprocess = types.SimpleNamespace(**here)  # type: ignore[attr-defined]
    processes.GRACE_SECONDS = GRACE_SECONDS
    prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what a killed driver leaves behind is seen here


def wait_for_children() -> list[str]:
    """Wait for all that drivers have left behind; those that do not end are killed and named."""
    deadline = time.monotonic() + LEFT_SECONDS
    left: list[str] = []
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return left
        if not pid:
            if time.monotonic() > deadline:
                below = psutil.Process().children(recursive=True)
                left += [" ".join(each.cmdline()) for each in below]
                for each in below:
                    each.kill()
                deadline = time.monotonic() + LEFT_SECONDS
            time.sleep(0.005)


if __name__ == "__main__":
    sys.exit("this is a part of fault_injection.py")
