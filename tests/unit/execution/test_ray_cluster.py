"""On a real Ray: one of this machine's own, and three nodes of which one dies, and a worker, in the midst of trials."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray_site import Site, ray_site, why_no_ray
from slurm_site import wait_for
from test_stopping_studies import content, study

from bench.cli import answer
from bench.execution.run_study import run_study
from bench.records import load_records

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_no_ray()), reason=why_no_ray())]
PATIENCE = 600.0
TRIALS = int(os.environ.get("DFKD_RAY_TRIALS", "16"))  # with 40 it takes some minutes
DRIVERS: list[subprocess.Popen[str]] = []


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ray_site() as found:
        yield found


@pytest.fixture(autouse=True)
def _leave_no_driver() -> Iterator[None]:
    yield
    while DRIVERS:
        driver = DRIVERS.pop()
        if driver.poll() is None:
            driver.kill()
            driver.communicate()


def start(folder: Path, executor: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench", "run", "study.yaml", "--results", "results", "--quiet"]
    command += ["--executor", executor, "--checkpoint-seconds", "0.2", *more]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    DRIVERS.append(subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **streams))
    return DRIVERS[-1]


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, said
    assert "Traceback" not in said
    return said


def saved(folder: Path, since: float = 0.0) -> set[str]:
    """The trials of which the driver has a checkpoint, one newer than ``since``."""
    files = folder.glob("results/work/*/checkpoint.pt")
    return {file.parent.name for file in files if file.stat().st_mtime > since}


def test_a_ray_of_this_machines_own_runs_isolated_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed, stopped by Ctrl-C, which reaches all processes of the terminal's group, and run to the end."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    run_study(study(tmp_path, 60, 0.05), results=tmp_path / "whole", executor="inline", isolation="none")
    options = ("ray", "--isolation", "process", "--workers", "2")
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 75)):
        process, began = start(tmp_path, *options), time.time()
        wait_for(lambda: bool(saved(tmp_path, began)) or process.poll() is not None, PATIENCE)  # noqa: B023
        assert process.poll() is None, process.communicate()
        ours = psutil.Process(process.pid).children(recursive=True)
        assert any("raylet" in each.name() for each in ours)
        os.killpg(process.pid, number)
        said = finish(process, code)
        assert ("stopped (Ctrl-C)" in said) == (code == 75)
        assert "except" not in said, said  # all managed in time
        psutil.wait_procs(ours, 60)
        assert not [each for each in ours if each.is_running()]
    finish(start(tmp_path, *options))
    assert content(tmp_path / "results") == content(tmp_path / "whole")
    records = load_records(tmp_path / "results")
    assert sum(record.resumed for record in records) >= 2
    assert {record.provenance["isolation"]["mode"] for record in records} == {"process"}


@pytest.mark.parametrize("way", ["SIGTERM", "SIGUSR1", "its time is over", "dfkd cancel", "SIGKILL"])
def test_a_driver_that_is_stopped_has_what_was_running(
    site: Site, tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All trials are saved, and the same command goes on; after a kill from the last checkpoints."""
    steps = 300 if way == "its time is over" else 60
    run_study(study(tmp_path, steps, 0.05), results=tmp_path / "whole", executor="inline", isolation="none")
    command = (f"ray:address={site.address}", "--isolation", "none")
    for seconds in (15, 30, 60, 120, 240):  # nobody knows how long a start takes
        process = start(tmp_path, *command, *([f"--stop-after={seconds}s"] if way == "its time is over" else []))
        wait_for(lambda: bool(saved(tmp_path)) or process.poll() is not None, PATIENCE)  # noqa: B023
        if way != "its time is over" or saved(tmp_path) or process.wait() != 75:
            break
    capsys.readouterr()
    if process.poll() is None:
        assert answer(["status", str(tmp_path / "results"), "--json"]) == 0
        (status,) = json.loads(capsys.readouterr().out)
        assert status["alive"]
        assert status["running"]
    if way == "dfkd cancel":
        assert answer(["cancel", str(tmp_path / "results"), "--wait", "300"]) == 0
        assert "saved and stopped" in capsys.readouterr().out
    elif way.startswith("SIG"):
        process.send_signal(getattr(signal, way))
    if way == "SIGKILL":
        finish(process, -signal.SIGKILL)
        wait_for(lambda: not any(site.workers(node) for node in site.nodes), 60)  # Ray ends its trials
    else:
        assert f"stopped ({way})" in finish(process, 75)
    assert saved(tmp_path)
    finish(start(tmp_path, *command))
    assert content(tmp_path / "results") == content(tmp_path / "whole")
    assert max(record.resumed for record in load_records(tmp_path / "results")) == 1


def test_trials_that_fit_nowhere_are_told(site: Site, tmp_path: Path) -> None:
    study(tmp_path)
    process = start(tmp_path, f"ray:address={site.address},cpus=100,gpus=1", "--isolation", "none")
    assert "has 100 CPUs, 1 GPU for a trial; the most that one has: 1 CPU, 0 GPUs" in finish(process, 2)


def test_a_node_and_a_worker_die_among_many_trials(site: Site, tmp_path: Path) -> None:
    file = study(tmp_path, 12, 0.1)
    text = file.read_text(encoding="utf-8").replace("seeds: [0, 1]", f"seeds: {list(range(TRIALS))}")
    text = text.replace("points: 2", "points: 1").replace("[last, teacher_agreement]", "[last]")
    file.write_text(text, encoding="utf-8")
    run_study(file, results=tmp_path / "whole", executor="processes", workers=2, isolation="none")
    process = start(tmp_path, f"ray:address={site.address}", "--isolation", "none")
    seeds = {record.trial.seed: record.id for record in load_records(tmp_path / "whole")}
    seen: dict[str, bytes] = {}
    ends: list[str] = []

    def look() -> None:
        """No record that was there is gone or another one."""
        found = {each.parent.name: each.read_bytes() for each in tmp_path.glob("results/trials/[0-9a-f]*/record.json")}
        assert seen.items() <= found.items()
        seen.update(found)
        assert process.poll() is None or len(seen) == TRIALS, process.communicate()

    def kill_one(node: subprocess.Popen[bytes], whole_node: bool) -> None:
        """In the midst of a trial of which the driver has a checkpoint."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            look()
            for worker, seed in site.workers(node):
                if (name := seeds[seed]) in saved(tmp_path):
                    site.kill(node) if whole_node else worker.kill()
                    ends.append(name)
                    return
            time.sleep(0.2)  # a trial lasts longer than a second; looking at all processes takes a core's time
        raise AssertionError("no trial was met on the way")

    wait_for(lambda: look() or len(seen) >= 4, PATIENCE)
    kill_one(site.nodes[1], whole_node=False)
    kill_one(site.nodes[2], whole_node=True)
    after = len(seen)
    while process.poll() is None:
        look()
        time.sleep(0.5)
    finish(process)
    look()
    assert len(seen) == TRIALS
    assert after < TRIALS
    assert content(tmp_path / "results") == content(tmp_path / "whole")
    resumed = {record.id: record.resumed for record in load_records(tmp_path / "results")}
    assert all(resumed[name] for name in ends)
    assert not list((tmp_path / "results" / "work").iterdir())


def test_a_run_whose_cluster_dies_says_so_and_goes_on_elsewhere(site: Site, tmp_path: Path) -> None:
    """The last test with the cluster: its head dies, with all that runs on it, in the midst of trials."""
    run_study(study(tmp_path, 60, 0.05), results=tmp_path / "whole", executor="inline", isolation="none")
    process = start(tmp_path, f"ray:address={site.address}", "--isolation", "none")
    wait_for(lambda: bool(saved(tmp_path)) or process.poll() is not None, PATIENCE)
    assert process.poll() is None, process.communicate()
    site.kill(site.nodes[0])
    began = time.monotonic()
    said = finish(process, 2)
    assert f"the connection to the Ray cluster {site.address} is lost: " in said
    assert "the same command continues" in said
    assert time.monotonic() - began < 180
    assert saved(tmp_path)
    finish(start(tmp_path, "processes", "--isolation", "none"))
    assert content(tmp_path / "results") == content(tmp_path / "whole")
    assert max(record.resumed for record in load_records(tmp_path / "results")) == 1
