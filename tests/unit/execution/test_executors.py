"""Executors by name, with typed options; what is wrong gets a sentence with the nearest name."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Sequence

import pytest

from bench.cli import answer
from bench.errors import UserError
from bench.execution.executors import ENTRY_POINTS, EXECUTORS, Executor, Watcher, Work, check_executor, get_executor
from bench.execution.executors.slurm import Slurm
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
        ("slurm:parts=many", "executor slurm: parts=many: input should be a valid integer"),
        ("slurm:parts=0", "executor slurm: parts=0: input should be greater than or equal to 1"),
        ("slurm:memory=lots", "executor slurm: memory=lots: "),
        ("slurm:time=soon", "soon"),
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
