"""Whatever happens to a study, no finished record is lost, changed or made twice, and it completes afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from method_fixtures import digits_teacher

from bench.spec.task import get_task
from bench.spec.teacher_key import teacher_key

SCRIPT = Path(__file__).parents[1] / "support" / "fault_injection.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the faults are those of Linux")


@pytest.mark.parametrize(
    ("seed", "count", "seconds"), [(1, 60, 3600), pytest.param(2, 500, 36_000, marks=pytest.mark.slow)]
)
def test_no_record_is_lost_and_none_doubled(
    cache: Path, tmp_path: Path, seed: int, count: int, seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    digits_teacher()  # trained on first use
    key = teacher_key(get_task("digits/lenet5-half"))
    shutil.copytree(cache / "teachers" / key, tmp_path / "cache" / "teachers" / key)  # one to damage
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "DFKD_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(seed), str(count), str(tmp_path / "faults")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        print(f"\nfaults: {found['total']}")
    notes = {kind: each["notes"] for kind, each in found["kinds"].items() if each["notes"]}
    assert found["total"]["injected"] == count
    assert (found["total"]["lost"], found["total"]["doubled"]) == (0, 0), notes
    assert found["kinds"]["finished"]["told"] == found["kinds"]["finished"]["injected"]
    assert found["kinds"]["teacher"]["told"] == found["kinds"]["teacher"]["injected"]
    of = {kind.partition(" on ")[2] or "inline": kind for kind in found["kinds"]}
    assert sorted(of) == ["inline", "processes"]
    assert {"training", "same_teacher", "method", "memory"} <= {kind.partition(" on ")[0] for kind in found["kinds"]}
