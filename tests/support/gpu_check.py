"""Everything that a GPU is wanted for, in at most nine minutes: ``make gpu-check``.

Runs the tests marked ``gpu``, the table of the methods' steps beside their floors, and the demo study on the GPU, each
with its share of the time; then writes one archive with the logs, the table and what the study has so far. The study
goes on with the next call, or elsewhere: it is in the archive as ``dfkd pack --unfinished`` writes it. Exit code: 0 all
parts are fine, 1 a part failed (the archive is written), 2 there is no GPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MINUTES = 9.0
RESERVE = 40.0  # seconds at the end: to save the running trials and to write the archive
SHARES = {"tests": 0.4, "steps": 0.25, "study": 1.0}  # of the time that is left when a part begins
GO_ON_LATER = 75
PATH = os.pathsep.join([str(ROOT), str(ROOT / "tests/support")])
FINE = {"tests": (0,), "steps": (0,), "study": (0, GO_ON_LATER), "pack": (0,), "doctor": (0,), "nvidia-smi": (0,)}
NO_GPU = (
    "gpu-check: torch sees no CUDA device here, so there is nothing to check. `nvidia-smi` shows whether the machine "
    "has one; plain `pip install torch` installs a build that can use it. (--device cpu tries the parts without a GPU.)"
)


@dataclass(frozen=True)
class Part:
    """One command: its exit code (None: it was stopped because its time was over) and the seconds it took."""

    name: str
    code: int | None
    seconds: float

    @property
    def fine(self) -> bool:
        return self.code in FINE[self.name]


Run = Callable[[str, Sequence[str], float], Part]


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def commands(device: str, work: Path, seconds: Mapping[str, float]) -> dict[str, list[str]]:
    """The command of each part that has a share of the time."""
    dfkd = [sys.executable, "-m", "bench.cli"]
    study = [str(ROOT / "studies/demo.yaml"), "--results", str(work / "results"), "--device", device]
    table = ["--device", device, "--out", str(work / "steps.jsonl"), "--seconds", f"{0.8 * seconds['steps']:.0f}"]
    return {
        "tests": [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "gpu",
            f"--junitxml={work / 'tests.xml'}",
            str(ROOT / "tests"),
        ],
        "steps": [sys.executable, str(ROOT / "tests/benchmarks/device_steps.py"), *table],
        "study": [*dfkd, "run", *study, "--quiet", "--stop-after", f"{max(seconds['study'], 1):.0f}s"],
    }


def check(device: str, work: Path, archive: Path, minutes: float, run: Run, now: Callable[[], float]) -> list[Part]:
    """Run all parts one after the other and write the archive; what each part came to."""
    ends = now() + 60 * minutes - RESERVE
    parts = [run("nvidia-smi", ["nvidia-smi"], 10.0)] if device != "cpu" else []
    parts.append(run("doctor", [sys.executable, "-m", "bench.cli", "doctor"], 30.0))
    for name, share in SHARES.items():
        seconds = max(share * (ends - now()), 1.0)
        command = commands(device, work, dict.fromkeys(SHARES, seconds))[name]
        parts.append(run(name, command, seconds + (RESERVE / 2 if name == "study" else 0)))
    package = work / "study.tar"
    package.unlink(missing_ok=True)
    study = [str(ROOT / "studies/demo.yaml"), str(package), "--results", str(work / "results"), "--device", device]
    parts.append(run("pack", [sys.executable, "-m", "bench.cli", "pack", *study, "--unfinished"], RESERVE / 2))
    facts = [
        {"part": part.name, "code": part.code, "seconds": round(part.seconds, 1), "fine": part.fine} for part in parts
    ]
    (work / "parts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for file in sorted(work.iterdir()):
            if file.is_file():
                tar.add(file, f"{archive.name.partition('.')[0]}/{file.name}")
    return parts


def run_command(work: Path) -> Run:
    """Runs a command with its output in a log; one that takes longer than its time is asked to stop, then killed."""

    def run(name: str, command: Sequence[str], seconds: float) -> Part:
        began = time.monotonic()
        print(f"gpu-check: {name} (at most {seconds:.0f} s), log: {work / name}.log", flush=True)
        with (work / f"{name}.log").open("wb") as log:
            try:
                process = subprocess.Popen(
                    command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, "PYTHONPATH": PATH}
                )
            except OSError as error:
                log.write(f"{error}\n".encode())
                return Part(name, 127, 0.0)
            code: int | None
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        return Part(name, code, time.monotonic() - began)

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the parts without a GPU")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all of it (default: %(default)g)")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu-check"), help="where logs and results go")
    parser.add_argument("--out", type=Path, help="the archive (default: gpu-check-DATE.tar.gz)")
    asked = parser.parse_args(arguments)
    if asked.minutes * 60 <= RESERVE + 20:
        parser.error(f"--minutes {asked.minutes:g}: at least {(RESERVE + 20) / 60:g} are needed")
    if asked.device != "cpu" and not has_gpu():
        print(NO_GPU, file=sys.stderr)
        return 2
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    archive = asked.out or Path(f"gpu-check-{datetime.datetime.now():%Y%m%d-%H%M%S}.tar.gz")
    parts = check(asked.device, work, archive, asked.minutes, run_command(work), time.monotonic)
    for part in parts:
        code = "stopped: its time was over" if part.code is None else f"exit code {part.code}"
        print(f"{part.name:<10} {'fine' if part.fine else 'FAILED':<7} {code}, {part.seconds:.0f} s")
    print(f"archive: {archive}")
    return 0 if all(part.fine for part in parts) else 1


if __name__ == "__main__":
    sys.exit(main())
