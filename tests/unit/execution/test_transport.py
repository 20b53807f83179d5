"""Orders and answers, without any engine: a worker in another folder with another cache gives the same bits."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_carry import METHOD, NETWORK, TASKS, StopsAtSecond

from bench._version import __version__
from bench.data import Dataset
from bench.data.source import Source
from bench.errors import UserError
from bench.execution import transport
from bench.execution.executors import Work
from bench.execution.plan import Plan, plan_study
from bench.execution.run_study import run_study
from bench.execution.transport import MANIFEST, accept, open_order, write_order
from bench.execution.work_order import ERROR, work_on
from bench.records import load_records, read_curve
from bench.utils.stopping import Stopped

STUDY = """
name: travels
tasks: [tasks.yaml]
methods: [methods/mine.py]
seeds: [0, 1, 2]
budget: {steps: 30}
points: 2
selection: [last]
isolation: none
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a method, a network and a task of its own; one trial ended, one saved, one not begun."""
    folder = tmp_path_factory.mktemp("driver")
    files = {
        "travels.yaml": STUDY,
        "tasks.yaml": TASKS,
        "methods/mine.py": METHOD,
        "methods/beside.py": "RATE = 0.1\n",
        "networks/student.py": NETWORK,
        "networks/layers.py": "from torch import nn\n\ndef middle():\n    return [nn.Dropout(0.1)]\n",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def _half(project: Path) -> Path:
    before = Path.cwd()
    os.chdir(project)
    try:
        run_study(Path("travels.yaml"), results=project / "whole", executor="inline")
        with pytest.raises(Stopped):
            run_study(Path("travels.yaml"), results=project / "half", executor="inline", audience=StopsAtSecond())
    finally:
        os.chdir(before)
    return project / "half"


@pytest.fixture
def half(_half: Path, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    shutil.copytree(_half, tmp_path / "half")
    return tmp_path / "half"


def planned(half: Path) -> Plan:
    return plan_study(Path("travels.yaml"), results=half)


def work_of(half: Path, isolation: str = "none") -> Work:
    return Work(half, None, 1e9, 1, None, None, isolation)


def content(results: Path) -> dict[str, tuple[bytes, list[object]]]:
    return {
        record.id: (
            (results / "trials" / record.id / "student.safetensors").read_bytes(),
            [{k: v for k, v in row.items() if k != "seconds"} for row in read_curve(results / "trials" / record.id)],
        )
        for record in load_records(results)
    }


def test_a_worker_elsewhere_gives_the_bits_of_an_undisturbed_run(half: Path, tmp_path: Path, project: Path) -> None:
    plan = planned(half)
    write_order(tmp_path / "order.tar", plan.waiting, work_of(half))
    (tmp_path / "elsewhere").mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "DFKD_CACHE": str(tmp_path / "another cache"),
    }
    command = [sys.executable, "-m", "bench.execution.work_order", str(tmp_path / "order.tar"), "mine"]
    hidden = project.with_name("hidden")
    project.rename(hidden)  # nothing is taken from there
    try:
        done = subprocess.run(command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True)
    finally:
        hidden.rename(project)
    assert done.returncode == 0, done.stderr
    assert sorted(line.split()[0] for line in done.stdout.splitlines()) == ["ok", "ok"]
    answer = tmp_path / "elsewhere" / "mine" / "results"
    for trial in plan.waiting:
        record = accept(answer, trial, half)
        assert record is not None
    assert content(half) == content(project / "whole")
    assert sorted(record.resumed for record in load_records(half)) == [0, 0, 1]
    for trial in plan.waiting:
        before = (half / "trials" / trial.id / "record.json").stat().st_mtime_ns
        accept(answer, trial, half)  # a second time changes nothing
        assert (half / "trials" / trial.id / "record.json").stat().st_mtime_ns == before
        for name in ("record.json", "curve.jsonl"):
            assert (half / "trials" / trial.id / name).read_bytes() == (
                answer / "trials" / trial.id / name
            ).read_bytes()
    assert not list((half / "work").iterdir())


def test_what_was_saved_comes_back_and_goes_on(half: Path, tmp_path: Path, project: Path) -> None:
    plan = planned(half)
    (trial,) = [each for each in plan.waiting if (half / "work" / each.id / "checkpoint.pt").exists()]
    write_order(tmp_path / "order.tar", [trial], work_of(half))
    shutil.rmtree(half / "work" / trial.id)
    order = open_order(tmp_path / "order.tar", tmp_path / "order", tmp_path / "answer")
    assert [each.id for each in order.trials] == [trial.id]
    assert accept(tmp_path / "answer", trial, half) is None
    assert run_study(Path("travels.yaml"), results=half, executor="inline").statuses == {"ok": 3}
    assert content(half) == content(project / "whole")
    assert sorted(record.resumed for record in load_records(half)) == [0, 0, 1]


def test_another_version_is_refused_with_both(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_order(tmp_path / "order.tar", planned(half).waiting[:1], work_of(half))
    monkeypatch.setattr(transport, "__version__", "9.9.9")
    assert work_on(tmp_path / "order.tar", tmp_path / "worker") == 2
    said = (tmp_path / "worker" / ERROR).read_text(encoding="utf-8")
    assert __version__ in said
    assert "9.9.9" in said
    assert not list((tmp_path / "worker").glob("results/*"))


def test_another_data_set_is_refused(half: Path, tmp_path: Path) -> None:
    def other(manifest: dict[str, object]) -> None:
        manifest["data"][0]["sha256"] = "0" * 64  # type: ignore[index]

    write_order(tmp_path / "order.tar", planned(half).waiting[:1], work_of(half))
    rewritten(tmp_path / "order.tar", other)
    with pytest.raises(UserError, match="data set digits is another one here than on the driver's side"):
        open_order(tmp_path / "order.tar", tmp_path / "order", tmp_path / "answer")


def test_the_orders_of_one_run_read_a_data_set_once(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each trial of a large study would cost its driver a whole reading; a worker reads its own."""
    reads: list[str] = []
    load = transport.data.load_source

    def counted(source: Source, **more: Any) -> Dataset:
        reads.append(source.name)
        return load(source, **more)

    monkeypatch.setattr(transport.data, "load_source", counted)
    work = work_of(half)
    for number, trial in enumerate(planned(half).waiting):
        write_order(tmp_path / f"{number}.tar", [trial], work)
    assert reads == ["digits"]
    open_order(tmp_path / "1.tar", tmp_path / "order", tmp_path / "answer")
    assert reads == ["digits", "digits"]
    write_order(tmp_path / "later.tar", planned(half).waiting[:1], work_of(half))  # of another run
    assert reads == ["digits", "digits", "digits"]


def rewritten(file: Path, change: Callable[[dict[str, object]], None]) -> None:
    with tarfile.open(file) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    manifest = json.loads(members[0][1])
    change(manifest)
    members[0] = (MANIFEST, json.dumps(manifest).encode())
    with tarfile.open(file, "w") as tar:
        for name, each in members:
            info = tarfile.TarInfo(name)
            info.size = len(each)
            tar.addfile(info, io.BytesIO(each))


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(folder="../.."),
        lambda manifest: manifest["trials"][0].update(method_files=["/etc/passwd"]),
        lambda manifest: manifest["trials"][0].update(method_files=["../x.py"]),
        lambda manifest: manifest["trials"][0].pop("task"),
        lambda manifest: manifest["files"].popitem(),
        lambda manifest: manifest["files"].update({"../x.py": {"size": 0, "sha256": "0" * 64}}),
        lambda manifest: manifest.pop("data"),
    ],
)
def test_an_order_that_is_none_is_refused(half: Path, tmp_path: Path, change: Callable[..., None]) -> None:
    write_order(tmp_path / "order.tar", planned(half).waiting, work_of(half))
    rewritten(tmp_path / "order.tar", change)
    with pytest.raises(UserError):
        open_order(tmp_path / "order.tar", tmp_path / "order", tmp_path / "answer")
    assert not (tmp_path / "x.py").exists()


@pytest.mark.parametrize("name", ["record.json", "curve.jsonl", "student.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped"])
def test_a_damaged_answer_changes_nothing(half: Path, tmp_path: Path, project: Path, name: str, damage: str) -> None:
    trial = planned(half).waiting[0]
    shutil.copytree(project / "whole" / "trials" / trial.id, tmp_path / "answer" / "trials" / trial.id)
    file = tmp_path / "answer" / "trials" / trial.id / name
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "flipped": bytes(whole)}[damage])
    with pytest.raises(UserError):
        accept(tmp_path / "answer", trial, half)
    assert not (half / "trials" / trial.id).exists()


def test_an_answer_to_another_order_is_refused(half: Path, tmp_path: Path, project: Path) -> None:
    one, other = planned(half).waiting
    shutil.copytree(project / "whole" / "trials" / one.id, tmp_path / "answer" / "trials" / other.id)
    with pytest.raises(UserError):
        accept(tmp_path / "answer", other, half)
    assert not (half / "trials" / other.id).exists()
