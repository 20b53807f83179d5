"""A study on three Ray nodes of which one is killed, and on three Slurm nodes of which one is pre-empted:
``python three_nodes.py TRIALS FOLDER [ray] [slurm]``.

Each record is compared with that of `processes` on this machine. What is printed is a JSON object with the counts. An
engine that is not installed is left out, and named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray_site import ray_site, why_no_ray
from slurm_site import slurm, why_no_slurm

METHOD = '''
import time
import torch
from bench import Access, Data, Session, method

@method("brief", title="Brief", paper="none", data=Data.NONE, access=Access.LOGITS)
def brief(s: Session) -> None:
    """Long enough to be met on the way."""
    opt = s.keep("opt", torch.optim.SGD(s.student.parameters(), 0.1, momentum=0.9))
    for _ in s.steps("train"):
        time.sleep(0.02)
        s.distill(opt, s.noise(4, *s.task.image.shape))
'''
STUDY = """
name: three_nodes
tasks: [digits/lenet5-half]
methods: [./brief.py]
seeds: {seeds}
budget: {{steps: 20}}
points: 1
selection: [last]
isolation: none
"""
MEASURED = ("seconds", "evaluation_seconds", "peak_memory_mib")  # these differ from run to run


def main() -> None:
    count, folder, engines = int(sys.argv[1]), Path(sys.argv[2]).resolve(), sys.argv[3:] or ["ray", "slurm"]
    folder.mkdir(parents=True)
    (folder / "brief.py").write_text(METHOD, encoding="utf-8")
    (folder / "study.yaml").write_text(STUDY.format(seeds=list(range(count))), encoding="utf-8")
    began = time.monotonic()
    finish(start(folder, "processes", "processes"))
    found: dict[str, Any] = {"processes": {"trials": count, "minutes": minutes(began)}}
    ways: dict[str, Callable[[Path, int], None]] = {"ray": on_ray, "slurm": on_slurm}
    for name in engines:
        why = {"ray": why_no_ray, "slurm": why_no_slurm}[name]()
        if why:
            found[name] = why
            continue
        began = time.monotonic()
        ways[name](folder, count)
        found[name] = {**compared(folder / "processes", folder / name), "minutes": minutes(began)}
    print(json.dumps(found, indent=1))


def on_ray(folder: Path, count: int) -> None:
    with ray_site(3) as site:
        driver = start(folder, "ray", f"ray:address={site.address}")
        kept = until(folder / "ray", driver, count // 3)
        while not site.workers(site.nodes[2]):
            time.sleep(0.2)
        site.kill(site.nodes[2])
        finish(driver)
        unchanged(folder / "ray", kept)


def on_slurm(folder: Path, count: int) -> None:
    with slurm(folder / "site", nodes=3) as site:
        driver = start(folder, "slurm", "slurm:parts=3,poll=1s")
        kept = until(folder / "slurm", driver, count // 3)
        site.tell("sbatch", "--partition=urgent", "--nodelist=node2", "--wrap=sleep 3", "--output=/dev/null")
        attempts = "slurm/work/slurm-*/tasks/*-1"
        while not list(folder.glob(attempts)):
            assert driver.poll() is None, "no task was pre-empted"
            time.sleep(0.1)
        finish(driver)
        unchanged(folder / "slurm", kept)


def start(folder: Path, results: str, executor: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench", "run", "study.yaml", "--results", results, "--executor", executor]
    command += ["--quiet", "--checkpoint-seconds", "0.2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    with (folder / f"{results}.log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, text=True)


def finish(driver: subprocess.Popen[str]) -> None:
    assert driver.wait() == 0, "the run failed; see its log in the folder"


def records_of(results: Path) -> dict[str, bytes]:
    found = results.glob("trials/[0-9a-f]*/record.json")
    return {file.parent.name: file.read_bytes() for file in found}


def until(results: Path, driver: subprocess.Popen[str], count: int) -> dict[str, bytes]:
    """The records, once there are so many."""
    while len(found := records_of(results)) < count:
        assert driver.poll() is None, "the run ended before its engine was disturbed"
        time.sleep(0.2)
    return found


def unchanged(results: Path, before: dict[str, bytes]) -> None:
    assert before.items() <= records_of(results).items(), "a finished record was lost or made again"


def compared(one: Path, other: Path) -> dict[str, int]:
    """How many trials have a record in both, how many of them are equal bit for bit, how many went on."""
    from bench.records import load_records

    there = {record.id: record for record in load_records(other)}
    equal = sum(record.id in there and known(one, record) == known(other, there[record.id])
                for record in load_records(one))  # fmt: skip
    resumed = sum(record.resumed > 0 for record in there.values())
    return {"trials": len(there), "equal": equal, "went_on": resumed}


def known(results: Path, record: Any) -> Any:
    """All of a trial that is not measured by a clock."""
    from bench.records import read_curve

    folder = results / "trials" / record.id
    meter = {name: value for name, value in record.meter.model_dump().items() if name not in MEASURED}
    curve = [{name: value for name, value in row.items() if name not in MEASURED} for row in read_curve(folder)]
    student = (folder / "student.safetensors").read_bytes()
    return record.status, record.scores, record.test_metrics, record.agreement, record.images, meter, curve, student


def minutes(began: float) -> float:
    return round((time.monotonic() - began) / 60, 1)


if __name__ == "__main__":
    main()
