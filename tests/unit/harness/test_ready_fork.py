"""The fork that a worker keeps for its method: it is there for one order, and never stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from slurm_site import wait_for

from bench.utils.confinement import available

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such forks")

WAITS = """
import sys
from bench.harness.isolation.template import get_template, use_fork
use_fork()
print(get_template().pid, flush=True)
sys.stdin.read()
"""
ENDED = """
import os, signal
from bench.harness.isolation.template import get_template, use_fork
use_fork()
fork = get_template()
os.kill(fork.pid, signal.SIGKILL)
try:
    fork.start({"way": "landlock"}, [0, 0, 0, 0])
except RuntimeError as error:
    print(error)
status, seconds, memory = fork.wait(fork.pid)
print(os.WTERMSIG(status), seconds >= 0, memory >= 0)
"""
TWICE = """
import dataclasses, sys
from pathlib import Path
from bench.execution.plan import plan_study
from bench.execution.run_trial import Setting, run_trial
from bench.harness.isolation import template
from bench.records import open_results
from bench.utils.confinement import available

template.use_fork()
fork = template.get_template()
results = Path(sys.argv[2])
first, second = plan_study(Path(sys.argv[1]), results=results).trials
open_results(results, create=True)
for trial in (first, second):
    record = run_trial(trial, Setting(results, isolation=available()))
    print(record.status, record.provenance["isolation"]["mode"], template.get_template() is fork)
    assert 0 < record.provenance["isolation"]["method_cpu_seconds"] < 60
    assert 0 < record.meter.peak_memory_mib < 4096
"""
STUDY = """
name: two
tasks: [digits/lenet5-half]
methods: [{noise: {batch: 4}}]
seeds: [0, 1]
budget: {steps: 1}
points: 1
"""


@contextmanager
def waiting() -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A process with a fork that waits for its order, and the fork."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        yield worker, psutil.Process(int(worker.stdout.readline()))


def gone(process: psutil.Process) -> bool:
    """In some containers nobody collects what has lost its parent."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_it_ends_with_a_worker_that_never_used_it() -> None:
    with waiting() as (worker, fork):
        assert not gone(fork)
        assert worker.communicate()[0] == ""
        assert worker.returncode == 0
        assert not fork.is_running()  # collected, too


def test_it_ends_with_a_worker_that_is_killed() -> None:
    with waiting() as (worker, fork):
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        wait_for(lambda: gone(fork))


def test_signals_to_all_processes_do_not_end_it_before_its_worker() -> None:
    with waiting() as (worker, fork):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            fork.send_signal(number)
        assert not gone(fork)
        assert worker.poll() is None


def test_one_that_was_killed_before_its_order_is_told_of() -> None:
    done = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{signal.SIGKILL:d} True True"


@pytest.mark.slow
@pytest.mark.skipif(available() is None, reason="this machine confines no process")
def test_it_has_one_method_and_the_next_one_another_process(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", TWICE, str(tmp_path / "study.yaml"), str(tmp_path / "results")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["ok process False", "ok process False"], done.stderr
