"""Two studies that start at the same moment and need the same teacher train it once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.records import load_records

STUDY = """
name: {name}
tasks:
  - name: own
    data: digits
    image: {{channels: 1, size: 32, mean: [0.3], std: [0.25]}}
    teacher: {{network: lenet5, recipe: quick, seed: 7}}
    student: lenet5-half
methods: [noise]
seeds: [{seed}]
budget: {{steps: 2}}
points: 1
selection: [last]
settings: {{}}
"""


@pytest.mark.slow
def test_a_teacher_is_trained_once_however_many_wait(tmp_path: Path) -> None:
    environment = {**os.environ, "DFKD_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(Path(__file__).parents[2])}
    runs = []
    for seed, name in enumerate(("one", "two")):
        text = STUDY.format(name=name, seed=seed).replace("settings: {}\n", "")
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "bench.cli", "run", f"{name}.yaml", "--quiet", "--executor", "inline"]
        runs.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True))
    said = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert sum("the teacher of own is trained" in each for each in said) == 1, said
    teachers = {
        record.teacher.sha256 if record.teacher else ""
        for name in ("one", "two")
        for record in load_records(tmp_path / "runs" / name)
    }
    assert len(teachers) == 1
