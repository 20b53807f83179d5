"""Executors by name, with typed options; what is wrong gets a sentence with the nearest name."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.cli import answer
from bench.errors import UserError
from bench.execution.durations import time_limit
from bench.execution.executors import ENTRY_POINTS, EXECUTORS, Executor, Watcher, Work, check_executor, get_executor
from bench.execution.executors.slurm import Slurm
from bench.execution.slurm_queue import queue_words, submit, tasks_of
from bench.spec.trial import Trial


@pytest.mark.parametrize("name", EXECUTORS)
def test_every_executor_is_found_by_its_name(name: str) -> None:
    assert type(get_executor(name)).__name__.lower() == name


def test_options_have_types() -> None:
    found = get_executor("slurm:partition=gpu,time=1h30m,parts=3")
    assert isinstance(found, Slurm)
    assert (found.partition, found.time, found.parts, found.qos) == ("gpu", 5400.0, 3, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("procesess", "unknown executor 'procesess'; did you mean 'processes'?"),
        ("inline:fast=1", "executor inline has no option 'fast'; it takes none"),
        ("slurm:partitoin=gpu", "executor slurm has no option 'partitoin'; did you mean 'partition'?"),
        ("slurm:gpu", "executor slurm: an option is written NAME=VALUE, not 'gpu'"),
        ("slurm:parts=1,parts=2", "executor slurm: the option 'parts' is there twice"),
        ("slurm:parts=many", "executor slurm: parts must be a whole number, not many"),
        ("slurm:parts=0", "executor slurm: parts must be at least 1, not 0"),
        ("slurm:memory=lots", "executor slurm: memory must be a size such as 8G, not 'lots'"),
        ("slurm:time=soon", "executor slurm: time must be a duration such as 9m, 90s or 1h30m, not soon"),
        ("ray:adress=head", "executor ray has no option 'adress'; did you mean 'address'?"),
        (
            "ray:address=ray://head:1",
            "executor ray: address must be `local` or the HOST:PORT of a cluster's head, not 'ray://head:1'",
        ),
        ("ray:address=", "executor ray: address must be `local` or the HOST:PORT of a cluster's head, not ''"),
        ("ray:gpus=1.5", "executor ray: gpus must be a part of one GPU, or a whole number of them, not 1.5"),
        ("ray:gpus=-1", "executor ray: gpus must be at least 0, not -1"),
        ("ray:memory=lots", "executor ray: memory must be a size such as 8G, not 'lots'"),
        ("ray:retries=some", "executor ray: retries must be a whole number, not some"),
        ("", "unknown executor ''"),
    ],
)
def test_what_is_wrong_is_said(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError) as error:
        check_executor(words)
    assert said in str(error.value)
    assert answer(["run", "demo", "--dry-run", "--executor", words]) == 2
    assert said in capsys.readouterr().err


class OfASite(Executor):
    queue: str = "day"

    def __call__(self, trials: Sequence[Trial], work: Work, watcher: Watcher) -> None:
        del trials, work, watcher


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("a_sites_own")
    module.OfASite, module.Other = OfASite, dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_sites_own", module)
    entries = [
        importlib.metadata.EntryPoint("site", "a_sites_own:OfASite", ENTRY_POINTS),
        importlib.metadata.EntryPoint("other", "a_sites_own:Other", ENTRY_POINTS),
        importlib.metadata.EntryPoint("gone", "not_installed:X", ENTRY_POINTS),
        importlib.metadata.EntryPoint("inline", "a_sites_own:OfASite", ENTRY_POINTS),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)


def test_a_site_brings_its_own(installed: None) -> None:
    found = get_executor("site:queue=night")
    assert isinstance(found, OfASite)
    assert found.queue == "night"
    assert not isinstance(get_executor("inline"), OfASite)  # no package takes the place of a built-in one
    with pytest.raises(UserError, match=r"unknown executor 'siet'; did you mean 'site'\?"):
        get_executor("siet")
    with pytest.raises(UserError, match=r"executor 'other', entry point 'a_sites_own:Other' .* is no"):
        get_executor("other")
    with pytest.raises(UserError, match="importing it fails with ModuleNotFoundError"):
        get_executor("gone")


def trial(seed: int = 0, **changes: object) -> Trial:
    values: dict[str, object] = {
        **{"suite": "0.1", "task": "digits/lenet5-half", "task_sha": "a", "teacher": "t", "method": "noise"},
        **{"method_sha": "b", "options": {}, "budget": {"seconds": 60.0}, "threads": 2},
        **changes,
    }
    return Trial(seed=seed, **values)  # type: ignore[arg-type]


def test_the_script_of_slurm_says_what_was_asked_for(tmp_path: Path) -> None:
    work = Work(tmp_path / "results", None, 30.0, 1)
    trials = [trial(seed) for seed in range(4)]
    script = get_executor("slurm:partition=gpu,parts=8,cpus=4,gpus=1,memory=8G").dry_run(trials, work)
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    for name, value in {
        "array": "1-4",  # no more tasks than trials
        "partition": "gpu",
        "cpus-per-task": "4",
        "gres": "gpu:1",
        "mem": "8G",
        "signal": "B:USR1@120",
        "open-mode": "append",
        "time": "12",  # minutes: 600 s, and 1.5 times the 60 s of one trial's budget
    }.items():
        assert f"#SBATCH --{name}={value}" in lines
    assert "#SBATCH --requeue" in lines
    assert "--account" not in script
    assert "DFKD_WORKERS=2" in lines[-2]
    assert lines[-1].startswith("exec ")  # so that the signal reaches the task
    assert not (tmp_path / "results").exists()
    assert "#SBATCH --time=90" in get_executor("slurm:time=1h30m").dry_run(trials, work)


def test_the_limit_of_a_task_comes_from_the_budgets() -> None:
    assert time_limit([trial(0), trial(1), trial(2)], 1) == 600 + 1.5 * 180
    assert time_limit([trial(0), trial(1), trial(2)], 3) == 600 + 1.5 * 60
    assert time_limit([trial(budget={"steps": 5}, timeout=100.0)], 1) == 600 + 1.5 * 100
    assert time_limit([trial(0), trial(1, budget={"steps": 5})], 1) == 0.0  # nobody knows


def test_where_there_is_no_slurm_a_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no `sbatch` here"):
        submit(tmp_path / "script.sh")


SQUEUE = """#!/bin/sh
case "$*" in
  *--jobs=7*) printf '7_1|RUNNING|None\\n7_2|PENDING|BeginTime\\n7_[3-4]|PENDING|Resources\\n' ;;
  *--jobs=8*) echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1 ;;
  *) echo "Unable to contact slurm controller" >&2; exit 1 ;;
esac
"""


def test_the_queue_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "squeue").write_text(SQUEUE, encoding="utf-8")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert [task.state for task in tasks_of("7") or []] == ["RUNNING", "PENDING", "PENDING"]
    assert tasks_of("8") == []  # it is gone
    assert tasks_of("9") is None  # who knows
    for job in ("7", "8", "9"):
        (tmp_path / "results" / "work" / f"slurm-{job}").mkdir(parents=True)
        (tmp_path / "results" / "work" / f"slurm-{job}" / "job.txt").write_text(job, encoding="ascii")
    assert queue_words(tmp_path / "results") == [
        "Slurm job 7: 2 pending, 1 running",
        "Slurm job 9: the queue does not answer",
    ]
