"""A failure of one trial is its own: a record with its reason, and the study goes on."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from bench.execution.run_study import run_study
from bench.records import Record
from bench.utils.confinement import available

METHOD = """
import os, sys, signal, threading
import torch
from torch.optim import SGD
from bench import Access, Data, Session, method


@method("mine", title="Mine", paper="none", data=Data.NONE, access=Access.LOGITS)
def mine(s: Session) -> None:
    opt = s.keep("opt", SGD(s.student.parameters(), 0.05))
    for _ in s.steps("train"):
        s.distill(opt, s.noise(32, *s.task.image.shape))
{body}
"""

MODES = ["none", *(["process"] if available() else [])]

# what the method does in a step -> what its record says, in either mode
ANYWHERE: dict[str, str | dict[str, str]] = {
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "raise SystemExit(0)": "SystemExit: 0",
    "raise GeneratorExit": "GeneratorExit",
    "raise StopIteration": "StopIteration",
    "raise type('Mine', (BaseException,), {})('mine')": "Mine: mine",
    "raise BaseExceptionGroup('several', [ValueError('a'), KeyboardInterrupt()])": "several",
    "raise ExceptionGroup('several', [ExceptionGroup('inner', [MemoryError('no room')])])": "no room",
    "raise ValueError('\\ud800 \\x1b[31m \\x00')": "\\ud800 \\x1b[31m \\x00",
    "raise type('Bad', (Exception,), {'__str__': lambda self: 1 / 0})()": "ZeroDivisionError",
    "raise OSError(28, 'No space left on device', 'x')": "No space left on device",
    "torch.save({'x': torch.ones(100_000)}, '/dev/full')": "",
    "from bench.errors import UserError; raise UserError('the user is to blame')": "the user is to blame",
    "from bench.errors import MissingData; raise MissingData('no data')": "no data",
    "from bench.execution.run_trial import Interrupted; raise Interrupted": "Interrupted",
    "from bench.harness.trial_context import current; current().meter.student_images = -5": "student_images",
    "from bench.harness.trial_context import current; current().meter.steps = 'many'": {
        "none": "makes no record",
        "process": "TypeError",
    },
    "if os.fork() == 0:\n    raise ValueError('a child')\nos.wait()": "a method starts no other process",
    "s.noise(-5, 1, 32, 32)": "whole numbers",
}
IN_A_PROCESS: dict[str, str | dict[str, str]] = {
    **{f"os._exit({code})": f"exit code {code} before the trial did" for code in (0, 2, 3)},
    "os.kill(os.getpid(), signal.SIGTERM)": {"none": "asked to stop (SIGTERM)", "process": "died of SIGTERM"},
    "os.kill(os.getpid(), 35)": "signal 35",
    "import ctypes; ctypes.string_at(0)": "SIGSEGV",
    "import atexit; atexit.register(os._exit, 3); raise SystemExit(0)": "SystemExit: 0",
}


def _records(tmp_path: Path, bodies: list[str], executor: str, isolation: str = "auto") -> list[Record]:
    """Of one study with a method of each body, and `noise` behind it."""
    names = [f"mine{number}.py" for number in range(len(bodies))]
    for number, (name, body) in enumerate(zip(names, bodies, strict=True)):
        text = METHOD.format(body=textwrap.indent(body, " " * 8)).replace('"mine"', f'"mine{number}"')
        (tmp_path / name).write_text(text, encoding="utf-8")
    study = tmp_path / "study.yaml"
    study.write_text(
        f"name: failing\ntasks: [digits/lenet5-half]\nmethods: [{', '.join(names)}, noise]\nseeds: [0]\n"
        "budget: {steps: 2}\npoints: 1\nselection: [last]\nsettings: small\n",
        encoding="utf-8",
    )
    summary = run_study(study, results=tmp_path / "out", executor=executor, isolation=isolation)
    *mine, noise = [outcome.record for outcome in summary.outcomes]
    assert noise.status == "ok"  # the study went on
    return mine


def _words(expected: str | dict[str, str], isolation: str) -> str:
    return expected if isinstance(expected, str) else expected[isolation]


# Each way is a trial: quickly, a process of their own sees one exception of each kind, and this process all of them.
RAISED = (
    "raise KeyboardInterrupt",
    "raise SystemExit(0)",
    "raise BaseExceptionGroup('several', [ValueError('a'), KeyboardInterrupt()])",
    "raise ValueError('\\ud800 \\x1b[31m \\x00')",
    "raise type('Bad', (Exception,), {'__str__': lambda self: 1 / 0})()",
    "from bench.errors import UserError; raise UserError('the user is to blame')",
    "from bench.harness.trial_context import current; current().meter.steps = 'many'",
    "if os.fork() == 0:\n    raise ValueError('a child')\nos.wait()",
)
RAISING = [
    pytest.param("none", tuple(ANYWHERE), id="none"),
    pytest.param("process", RAISED, id="process"),
    pytest.param("process", tuple(ANYWHERE), id="process, all", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("isolation", "bodies"), [each for each in RAISING if each.values[0] in MODES])
def test_what_a_method_raises_is_a_record(tmp_path: Path, isolation: str, bodies: tuple[str, ...]) -> None:
    records = _records(tmp_path, list(bodies), "inline", isolation)
    for body, record in zip(bodies, records, strict=True):
        assert record.provenance["isolation"]["mode"] == isolation
        assert record.status in ("crashed", "out_of_memory", "denied"), (body, record.status, record.reason)
        assert _words(ANYWHERE[body], isolation) in record.reason, (body, record.reason)
        record.reason.encode("utf-8")


# Each way costs a worker, which imports torch: a few of them are quick enough for every day.
QUICK = ("os._exit(0)", "os.kill(os.getpid(), signal.SIGTERM)", "import ctypes; ctypes.string_at(0)")
WORKERS = [
    pytest.param("none", QUICK, id="none"),
    pytest.param("none", tuple(IN_A_PROCESS), id="none, all", marks=pytest.mark.slow),
    *(pytest.param(mode, tuple(IN_A_PROCESS), id=mode, marks=pytest.mark.slow) for mode in MODES if mode != "none"),
]


@pytest.mark.parametrize(("isolation", "ways"), WORKERS)
def test_a_process_that_ends_in_any_way_is_a_record(tmp_path: Path, isolation: str, ways: tuple[str, ...]) -> None:
    records = _records(tmp_path, list(ways), "processes", isolation)
    for body, record in zip(ways, records, strict=True):
        assert record.status == "crashed", (body, record.status, record.reason)
        assert _words(IN_A_PROCESS[body], isolation) in record.reason, (body, record.reason)
        assert not (tmp_path / "out" / "work" / f".{record.id}.outcome").exists()


@pytest.mark.skipif("process" not in MODES, reason="methods cannot be isolated here")
def test_a_methods_own_process_may_end_in_any_way_too(tmp_path: Path) -> None:
    for body, record in zip(IN_A_PROCESS, _records(tmp_path, list(IN_A_PROCESS), "inline", "process"), strict=True):
        assert record.status == "crashed", (body, record.status, record.reason)
        assert _words(IN_A_PROCESS[body], "process") in record.reason, (body, record.reason)


@pytest.mark.parametrize("isolation", MODES)
def test_denials_inside_a_group_are_denials(tmp_path: Path, isolation: str) -> None:
    bodies = [
        "try:\n    s.teacher(s.noise(2, *s.task.image.shape), features=True)\nexcept BaseException as error:\n"
        "    raise BaseExceptionGroup('several', [ValueError('x'), error])",
        "try:\n    s.images(2)\nexcept BaseException as error:\n    raise BaseExceptionGroup('x', [error])",
    ]
    assert [record.status for record in _records(tmp_path, bodies, "inline", isolation)] == ["denied", "leaked"]


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "SystemExit", "GeneratorExit"])
def test_a_file_that_does_not_load_is_the_users_to_look_at(tmp_path: Path, raised: str) -> None:
    from bench.errors import UserError

    (tmp_path / "mine.py").write_text(METHOD.format(body="") + f"\nraise {raised}\n", encoding="utf-8")
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: x\ntasks: [digits/lenet5-half]\nmethods: [mine.py]\nseeds: [0]\nbudget: {steps: 2}\nsettings: small\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError, match=f"importing it fails with {raised}"):
        run_study(study, results=tmp_path / "out", executor="inline")
