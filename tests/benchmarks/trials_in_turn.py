"""Whole trials by several checkouts and settings, in turn, in processor time of everything that they start.

    python tests/benchmarks/trials_in_turn.py --variant old=../base --variant new=. \
        --trial dafl:mnist/lenet5-half:20000 --trial noise:digits/lenet5-half:20000

A trial is ``method:task:teacher images``, with ``settings: small`` and ten points. Each is one ``dfkd run`` with one
worker and everything else as that checkout has it by default, start and ending included; the teacher is there. A
variant is ``name=FOLDER``, with keys of a study behind it, such as ``old=../base,precision=bfloat16``. The table says
the medians over the rounds, of the rounds' ratios to the first variant, and the scores of the seed of each round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, median

STUDY = """
name: in_turn
tasks: [{task}]
methods: [{method}]
seeds: [{seed}]
budget: {{teacher_images: {images}}}
settings: small
points: 10
"""


def run(folder: Path, settings: str, trial: str, seed: int, cache: Path) -> tuple[float, float]:
    """Seconds of processor time of one ``dfkd run``, and the score."""
    method, task, images = trial.rsplit(":", 2)
    environment = {**os.environ, "PYTHONPATH": str(folder), "DFKD_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as place:
        study = Path(place, "in_turn.yaml")
        words = STUDY.format(task=task, method=method, seed=seed, images=images)
        study.write_text(words + "".join(f"{key}\n" for key in settings.split(",") if key).replace("=", ": "))
        command = [sys.executable, "-m", "bench", "run", str(study), "--results", f"{place}/results", "--quiet"]
        before = os.times()
        done = subprocess.run([*command, "--workers", "1"], cwd=place, env=environment, capture_output=True, text=True)
        after = os.times()
        if done.returncode:
            raise SystemExit(f"{trial} by {folder}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        records = list(Path(place, "results", "trials").glob("*/record.json"))
        scores = json.loads(records[0].read_text(encoding="utf-8"))["scores"]
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, 100 * scores["last"]


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--variant", action="append", required=True, metavar="NAME=FOLDER[,KEY=VALUE]")
    reader.add_argument("--trial", action="append", required=True, metavar="METHOD:TASK:IMAGES")
    reader.add_argument("--rounds", type=int, default=5)
    reader.add_argument(
        "--cache", type=Path, default=Path("in_turn_cache"), help="where the variants' teachers are kept"
    )
    asked = reader.parse_args()
    variants = {}
    for word in asked.variant:
        (name, _, folder), *settings = (part.partition("=") for part in word.split(","))
        variants[name] = (Path(folder).resolve(), ",".join("".join(each) for each in settings))
    print("| trial | " + " | ".join(f"{name}, s (ratio), scores, %" for name in variants) + " |")
    print("|---|" + "--:|" * len(variants))
    for trial in asked.trial:
        times: dict[str, list[float]] = {name: [] for name in variants}
        scores: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(asked.rounds + 1):
            order = list(variants) if number % 2 else list(reversed(variants))
            for name in order:
                folder, settings = variants[name]
                cache = asked.cache.resolve() / folder.name
                used, score = run(folder, settings, trial, max(number - 1, 0), cache)
                if number:  # before the first round teachers are trained and files are compiled
                    times[name].append(used)
                    scores[name].append(score)
        first = times[next(iter(variants))]
        cells = []
        for name in variants:
            ratio = median(one / other for one, other in zip(times[name], first, strict=True))
            spread = f"{fmean(scores[name]):.1f} ({min(scores[name]):.1f} to {max(scores[name]):.1f})"
            cells.append(f"{median(times[name]):.2f} ({ratio:.2f}), {spread}")
        print(f"| {trial} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
