"""A throw-away git repository, and records of its commits with planted changes and known noise.

``python tests/support/commit_history.py FOLDER`` makes the one of docs/continuous-integration.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from record_builder import make_record

from bench.analysis.regression.filing import Filed, label, read_filed, write_json
from bench.records import open_results, write_trial
from bench.utils.git import Commit, resolve

SEEDS = 5
COMMITS, NOISE = 30, 0.004
WORSE, BETTER, BACK = 9, 15, 24  # where dafl loses 4 points, zskd gains 3 and dafl gets 2.5 of its own back


def run_git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(root), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def new_repository(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    run_git(root, "init", "--quiet", "--initial-branch=main")
    return root


def commit_file(root: Path, name: str, text: str, subject: str) -> Commit:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    run_git(root, "add", name)
    run_git(root, "commit", "--quiet", "--allow-empty", "-m", subject)
    return resolve(root, "HEAD")


def write_records(
    folder: Path, scores: Mapping[str, Sequence[float]], bits: Mapping[str, str] | None = None, **changes: object
) -> Path:
    """A results folder with a record a method and seed; ``bits`` names what all students of a method consist of."""
    open_results(folder, create=True)
    for method, values in scores.items():
        for seed, value in enumerate(values):
            record = make_record(method, seed, final=min(max(float(value), 0.0), 1.0), **changes)
            trial = write_trial(folder, record, [], {})
            if bits and method in bits:
                write_json(trial / "bits.json", {"student": f"{bits[method]}-{seed}"})
    return folder


def filed(folder: Path, scores: Mapping[str, Sequence[float]], **changes: object) -> Filed:
    return read_filed(folder.name, write_records(folder, scores, **changes))  # type: ignore[arg-type]


def planted_levels() -> list[dict[str, float]]:
    """The true score of each method at each of ``COMMITS`` commits."""
    return [
        {
            "dafl": 0.90 - 0.04 * (index >= WORSE) + 0.025 * (index >= BACK),
            "zskd": 0.70 + 0.03 * (index >= BETTER),
            "kd": 0.95,
            "noise": 0.60,
        }
        for index in range(COMMITS)
    ]


def history(
    root: Path, levels: Sequence[Mapping[str, float]], noise: float, seeds: int = SEEDS, number: int = 0
) -> list[Commit]:
    """A repository with a commit for each of ``levels`` (mean score by method), each with its records filed.

    Every seed has its own offset, the same at all commits; what is drawn again at each commit is normal with the
    standard deviation ``noise``.
    """
    random = np.random.default_rng(number)
    new_repository(root)
    offsets = {method: random.normal(0, 0.02, seeds) for method in levels[0]}
    commits = []
    for index, level in enumerate(levels):
        text = json.dumps(dict(level))
        head = commit_file(root, "levels.json", text, f"Commit {index}")
        scores = {name: mean + offsets[name] + random.normal(0, noise, seeds) for name, mean in level.items()}
        folder = write_records(root / "results" / "tracked" / head.sha, scores)
        label(folder, head)
        commits.append(head)
    return commits


if __name__ == "__main__":
    history(Path(sys.argv[1]), planted_levels(), NOISE)
