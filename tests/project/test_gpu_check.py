"""``make gpu-check``: its parts, its time, its archive, and what it says where there is no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import gpu_check
import pytest
from gpu_check import PATH, RESERVE, Part, check, main, run_command

ROOT = Path(__file__).parents[2]


class Fake:
    """A clock, and commands that take all the time that they are given and end with the codes that are wanted."""

    def __init__(self, **codes: int | None) -> None:
        self.now = 1000.0
        self.codes = codes
        self.ran: dict[str, Sequence[str]] = {}

    def __call__(self, name: str, command: Sequence[str], seconds: float) -> Part:
        assert seconds > 0
        self.now += seconds
        self.ran[name] = command
        return Part(name, self.codes.get(name, 0), seconds)


@pytest.mark.parametrize("minutes", [1.5, 3.0, 9.0])
def test_all_parts_fit_into_the_time_and_into_one_archive(tmp_path: Path, minutes: float) -> None:
    fake = Fake(study=75)
    (tmp_path / "work").mkdir()
    (tmp_path / "work/steps.jsonl").write_text("{}\n", encoding="utf-8")
    parts = check("cuda", tmp_path / "work", tmp_path / "a.tar.gz", minutes, fake, lambda: fake.now)
    assert [part.name for part in parts] == ["nvidia-smi", "doctor", "tests", "steps", "study", "pack"]
    assert all(part.fine for part in parts)
    assert fake.now - 1000 <= 60 * minutes + 10
    assert list(fake.ran["tests"])[2:6] == ["pytest", "-q", "-m", "gpu"]
    command = list(fake.ran["study"])
    after = float(command[command.index("--stop-after") + 1].removesuffix("s"))
    assert after <= 60 * minutes - RESERVE
    assert "--unfinished" in fake.ran["pack"]
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert set(tar.getnames()) == {"a/parts.json", "a/steps.jsonl"}
    facts = json.loads((tmp_path / "work/parts.json").read_text(encoding="utf-8"))
    assert {each["part"]: each["code"] for each in facts}["study"] == 75


@pytest.mark.parametrize("failed", ["tests", "steps", "study", "pack"])
@pytest.mark.parametrize("code", [1, 2, None])
def test_a_part_that_fails_is_told_and_the_archive_is_written(tmp_path: Path, failed: str, code: int | None) -> None:
    fake = Fake(**{failed: code})
    (tmp_path / "work").mkdir()
    parts = check("cpu", tmp_path / "work", tmp_path / "a.tar.gz", 9.0, fake, lambda: fake.now)
    assert {part.name for part in parts if not part.fine} == {failed}
    assert (tmp_path / "a.tar.gz").is_file()


def test_without_a_gpu_it_says_so_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "has_gpu", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    said = capsys.readouterr().err
    assert "torch sees no CUDA device here" in said
    assert list(tmp_path.iterdir()) == []


def test_the_exit_code_is_that_of_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "has_gpu", lambda: True)
    for code, wanted in ((0, 0), (1, 1), (None, 1)):
        fake = Fake(steps=code)
        monkeypatch.setattr(gpu_check, "run_command", lambda work, fake=fake: fake)
        assert main(["--work", str(tmp_path / "work"), "--out", str(tmp_path / "a.tar.gz")]) == wanted


def test_too_little_time_is_refused() -> None:
    with pytest.raises(SystemExit) as end:
        main(["--minutes", "0.5"])
    assert end.value.code == 2


def test_commands_are_logged_and_end_in_time(tmp_path: Path) -> None:
    run = run_command(tmp_path)
    part = run("tests", [sys.executable, "-c", "print('said'); raise SystemExit(3)"], 60)
    assert (part.code, part.fine) == (3, False)
    assert "said" in (tmp_path / "tests.log").read_text(encoding="utf-8")
    assert run("steps", [sys.executable, "-c", "import time; time.sleep(60)"], 0.5).code is None
    assert run("nvidia-smi", ["no-such-program"], 1).code == 127


def test_the_makefile_has_it() -> None:
    done = subprocess.run(["make", "--dry-run", "gpu-check"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "tests/support/gpu_check.py" in done.stdout


@pytest.mark.slow
def test_steps_are_measured_on_any_device(tmp_path: Path) -> None:
    script = ROOT / "tests/benchmarks/device_steps.py"
    out = tmp_path / "steps.jsonl"
    command = [sys.executable, str(script), "--device", "cpu", "--quick", "--rounds", "1", "--seconds", "2"]
    subprocess.run([*command, "--out", str(out)], cwd=tmp_path, env={"PYTHONPATH": PATH}, check=True)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert rows
    assert all(row["step"] > 0 and row["floor"] > 0 for row in rows)
