"""What a run tells others through its results folder, and how they stop it; what failed runs again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_run_study import FLAKY

from bench.cli import answer
from bench.errors import UserError
from bench.execution import driver as module
from bench.execution.driver import CANCEL, FILE, read_driver
from bench.execution.overview import overview
from bench.execution.progress import Progress
from bench.execution.run_study import Silence, run_study
from bench.records import Record, load_records
from bench.spec.trial import Trial
from bench.utils.stopping import Stopped

STUDY = """
name: watched
tasks: [digits/lenet5-half]
methods: [noise]
seeds: [0, 1, 2]
budget: {steps: 3}
points: 1
selection: [last]
settings: small
isolation: none
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.0)
    file = tmp_path / "watched.yaml"
    file.write_text(STUDY, encoding="utf-8")
    return file


class Looks(Silence):
    """Calls a function when the second trial runs."""

    def __init__(self, look: object) -> None:
        self.look = look
        self.ended_count = 0

    def update(self, trial: Trial, progress: object) -> None:
        del trial
        if self.ended_count == 1 and isinstance(progress, Progress) and progress.state == "loading" and self.look:
            look, self.look = self.look, None
            assert callable(look)
            look()

    def ended(self, trial: Trial, record: Record) -> None:
        del trial, record
        self.ended_count += 1


def test_status_before_during_and_after(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["status", "watched.yaml"]) == 2
    assert "nothing of watched has run in runs/watched" in capsys.readouterr().err
    seen: list[dict[str, object]] = []

    def look() -> None:
        assert answer(["status", "--json"]) == 0
        seen.extend(json.loads(capsys.readouterr().out))

    run_study(study, executor="inline", audience=Looks(look))
    (during,) = seen
    assert (during["trials"], during["done"], during["waiting"], during["alive"]) == (3, 1, 1, True)
    assert len(during["running"]) == 1  # type: ignore[arg-type]
    assert isinstance(during["seconds_left"], float)
    assert answer(["status", "watched.yaml"]) == 0
    after = capsys.readouterr().out
    assert "watched in runs/watched: 3 trials" in after
    assert "nothing runs" in after
    assert answer(["status", "runs/watched", "--json"]) == 0
    (plain,) = json.loads(capsys.readouterr().out)
    assert (plain["done"], plain["waiting"], plain["alive"], plain["seconds_left"]) == (3, 0, False, 0.0)


# A process of its own: the fence around a method stands in every thread of this one.
CANCELS = """
import sys, time
from pathlib import Path
from bench.cli import answer
while not any(Path("runs/watched").glob("work/*/progress.json")):
    time.sleep(0.05)
sys.exit(answer(["cancel", "runs/watched"]))
"""


def test_cancel_saves_and_stops_and_the_same_call_goes_on(study: Path) -> None:
    study.write_text(STUDY.replace("steps: 3", "steps: 100_000"), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    cancels = subprocess.Popen([sys.executable, "-c", CANCELS], env=environment, stdout=subprocess.PIPE, text=True)
    with pytest.raises(Stopped, match="dfkd cancel"):
        run_study(study, executor="inline")
    said, _ = cancels.communicate(timeout=120)
    assert (cancels.returncode, said) == (0, "runs/watched: saved and stopped\n")
    assert list(Path("runs/watched/work").glob("*/checkpoint.pt"))
    assert not Path("runs/watched", CANCEL).exists()
    found = overview(Path("runs/watched"))
    assert (found.done, found.saved, found.waiting, found.driver and found.driver.running) == (0, 1, 2, False)


def test_cancel_where_nothing_runs_says_so(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_study(study, executor="inline")
    assert answer(["cancel", "watched.yaml"]) == 0
    assert "runs/watched: nothing is running" in capsys.readouterr().out
    assert not Path("runs/watched", CANCEL).exists()


def test_a_wish_for_an_earlier_run_stops_no_later_one(study: Path) -> None:
    run_study(study, executor="inline")
    Path("runs/watched", CANCEL).touch()
    study.write_text(STUDY.replace("[0, 1, 2]", "[0, 1, 2, 3]"), encoding="utf-8")
    assert run_study(study, executor="inline").statuses == {"ok": 4}


def test_a_driver_that_was_killed_is_not_taken_for_one_that_runs(study: Path) -> None:
    run_study(study, executor="inline")
    file = Path("runs/watched", FILE)
    content = json.loads(file.read_text(encoding="utf-8")) | {"ended": False}
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for change, running in (
        ({}, True),  # this very process
        ({"pid": dead.pid}, False),
        ({"began": content["began"] - 100}, False),  # its number belongs to another process now
        ({"host": "another"}, True),
    ):
        file.write_text(json.dumps(content | change), encoding="utf-8")
        found = read_driver(Path("runs/watched"))
        assert found is not None
        assert found.running is running, change
    os.utime(file, (time.time() - 1e4, time.time() - 1e4))
    found = read_driver(Path("runs/watched"))
    assert found is not None
    assert not found.running


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "trials": [[1]]}', '{"schema": 99}'])
def test_a_damaged_file_of_a_driver_is_named(study: Path, text: str) -> None:
    run_study(study, executor="inline")
    Path("runs/watched", FILE).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"run\.json"):
        overview(Path("runs/watched"))
    assert run_study(study, executor="inline").statuses == {"ok": 3}  # which does not need it


def test_retry_runs_what_failed_and_nothing_else(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flag = study.parent / "fails"
    (study.parent / "flaky.py").write_text(FLAKY.replace("{file!r}", repr(str(flag))), encoding="utf-8")
    study.write_text(STUDY.replace("[noise]", "[noise, ./flaky.py]").replace("[0, 1, 2]", "[0]"), encoding="utf-8")
    retry = ["retry", "watched.yaml", "--failed", "--executor", "inline"]
    assert answer(["retry", "watched.yaml"]) == 2
    assert "--failed" in capsys.readouterr().err
    assert answer(retry) == 0
    assert "no trial of watched has failed (0 of 2 trials done)" in capsys.readouterr().out
    flag.touch()
    assert answer(["run", "watched.yaml", "--executor", "inline"]) == 1
    noise = next(Path("runs/watched/trials").glob("*/student.safetensors")).parent
    stamp = (noise / "record.json").stat().st_mtime_ns
    study.write_text(study.read_text(encoding="utf-8").replace("[0]", "[0, 1]"), encoding="utf-8")
    capsys.readouterr()
    assert answer(retry) == 1
    assert "0 of 1 trial ok" in capsys.readouterr().out
    flag.unlink()
    assert answer(retry) == 0
    assert {record.status for record in load_records(Path("runs/watched"))} == {"ok"}
    assert len(load_records(Path("runs/watched"))) == 2  # the second seed was not asked for
    assert (noise / "record.json").stat().st_mtime_ns == stamp
    assert answer(retry) == 0
    assert "no trial of watched has failed (2 of 4 trials done)" in capsys.readouterr().out
