"""The commands that repeat a trial come to the same trial, whatever its record holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from record_builder import make_record

from bench.errors import UserError
from bench.execution.base_record import base_record
from bench.records import Record, open_results
from bench.spec.custom_tasks import kept_task, save_tasks
from bench.spec.expand import expand
from bench.spec.method_registry import card_of
from bench.spec.rerun import caveats, commands, how_to_repeat, study_of
from bench.spec.study import load_study
from bench.spec.task import get_task
from bench.spec.trial import Trial

STUDY = """
name: small
tasks: [digits/lenet5-half]
methods: [{kd: {temperature: 3.5}}, noise]
seeds: [3]
budget: {steps: 5}
points: 2
"""


def trials_of(text: str, folder: Path, **settings: bool) -> list[Trial]:
    file = folder / "study.yaml"
    file.write_text(text, encoding="utf-8")
    return expand(load_study(file), **settings)


def record_of(trial: Trial, **changes: object) -> Record:
    return Record.model_validate(base_record(trial, card_of(trial), "crashed", "a reason") | changes)


@pytest.mark.parametrize(
    "extra", ["", "teacher: quick\n", "teachers: {digits/lenet5-half: mine-0123}\n", "selection: [ema, oracle]\n"]
)
@pytest.mark.parametrize("altered", [False, True])
def test_a_record_makes_its_trial_again(extra: str, altered: bool, tmp_path: Path) -> None:
    for trial in trials_of(STUDY + extra, tmp_path, altered_data=altered):
        study = json.dumps(study_of(record_of(trial)))
        assert [each.id for each in trials_of(study, tmp_path, altered_data=altered)] == [trial.id]


def test_a_task_of_ones_own_is_written_into_the_study(tmp_path: Path) -> None:
    task = get_task("digits/lenet5-half").model_copy(update={"name": "mine/own", "student": "lenet5"})
    study = json.loads(json.dumps(study_of(record_of(trials_of(STUDY, tmp_path)[0]), task)))
    assert study["tasks"][0]["name"] == "mine/own"
    results = open_results(tmp_path / "results", create=True)
    save_tasks(results, [task.model_dump(mode="json")])
    text, _ = how_to_repeat(make_record("kd", task="mine/own"), {"kd"}, partial(kept_task, results))
    assert '"name": "mine/own"' in text


def test_the_commands_run_as_they_stand_and_plan_the_same_trial(tmp_path: Path) -> None:
    trial = trials_of(STUDY, tmp_path)[0]
    record = record_of(trial)
    text = commands(record.model_copy(update={"provenance": {**record.provenance, "commit": None}}))
    shim = tmp_path / "bin" / "dfkd"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bench.cli "$@" --dry-run\n')
    shim.chmod(0o755)
    away = tmp_path / "away"
    away.mkdir()
    found = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    ran = subprocess.run(
        ["sh", "-e", "-c", text],
        cwd=away,
        env=os.environ | {"PATH": f"{shim.parent}:{os.environ['PATH']}", "PYTHONPATH": ":".join(found)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = ran.stdout.splitlines()
    (place,) = [place for place, line in enumerate(lines) if line.startswith(trial.id)]
    row = " ".join(lines[place : place + 3])  # a paragraph where the table is wider than the screen
    assert "digits/lenet5-half" in row
    assert "to run" in row
    assert [path.name for path in away.iterdir()] == ["trial.yaml"]


def test_the_commit_is_checked_out_where_it_is_known(tmp_path: Path) -> None:
    record = record_of(trials_of(STUDY, tmp_path)[0])
    known = record.model_copy(update={"provenance": {"commit": "abc123", "dirty": True, "suite": "0.1"}})
    assert commands(known).startswith("git checkout abc123\n")
    assert any("uncommitted changes" in each for each in caveats(known, {"kd"}))
    unknown = known.model_copy(update={"provenance": {"suite": "0.1"}})
    assert commands(unknown).startswith("cat > trial.yaml")
    assert any("commit was not recorded" in each for each in caveats(unknown, {"kd"}))
    assert any("--method FILE" in each for each in caveats(known, set()))


def test_hostile_text_runs_nothing(tmp_path: Path) -> None:
    hostile = "x'; touch owned; echo $(touch owned)\nEND\ntouch owned\n"
    record = make_record(hostile, options={hostile: hostile}, device="cpu; touch owned")
    provenance = {**record.provenance, "commit": "; touch owned"}
    text = commands(record.model_copy(update={"provenance": provenance}))
    shims = "git() { :; }; dfkd() { :; }\n"
    subprocess.run(["sh", "-e", "-c", shims + text], cwd=tmp_path, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["trial.yaml"]
    assert json.loads((tmp_path / "trial.yaml").read_text().splitlines()[2].removeprefix("methods: ")) == [
        {hostile: {hostile: hostile}}
    ]


def test_a_task_that_is_gone_is_said_and_no_command_is_made(tmp_path: Path) -> None:
    record = make_record(task="gone/task")
    with pytest.raises(UserError, match="unknown task 'gone/task'"):
        commands(record)
    text, said = how_to_repeat(record, {"dafl"}, lambda _: None)
    assert text == ""
    assert "unknown task 'gone/task'" in said[0]


def test_what_an_imported_teacher_and_code_of_ones_own_need_is_said(tmp_path: Path) -> None:
    record = record_of(trials_of(STUDY + "teachers: {digits/lenet5-half: mine-0123}\n", tmp_path)[0])
    builtin = get_task("digits/lenet5-half")
    assert caveats(record, {"kd"}, builtin)[-1].startswith("No recipe of the task produces the teacher mine-0123")
    facts = {"sha256": "0" * 64, "network": "net.py:build", "recipe": "imported", "seed": None, "score": 0.9}
    known = Record.model_validate(record.model_dump(mode="json", by_alias=True) | {"teacher": facts})
    assert caveats(known, {"kd"}, builtin)[-1] == ("The teacher mine-0123 was imported: import the same weights first.")
    own = builtin.model_copy(
        update={"teacher": builtin.teacher.model_copy(update={"network": "net.py:build"}), "student": "net.py:small"}
    )
    assert caveats(known, {"kd"}, own)[-1] == (
        "net.py:build, net.py:small: code of the task's author; it must be there."
    )
