"""A results folder of synthetic records, as many as one likes: for benchmarks, and to try out large folders by hand.

``python tests/benchmarks/many_records.py FOLDER [COUNT]`` writes 100,000 trials with their curves (1.6 GB).
"""

from __future__ import annotations

import json
import random
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.records import as_json, open_results, trial_id

BUILDER = runpy.run_path(str(Path(__file__).parents[1] / "support" / "record_builder.py"))
TASKS, METHODS, CELLS, SEEDS = 20, 25, 2, 100


def write_many(folder: Path, count: int = TASKS * METHODS * CELLS * SEEDS) -> Path:
    """``count`` trials in a new results folder: up to 20 tasks with 25 methods of two option cells, over 100 seeds.

    Half of the cells fail on their last seed; the floor and the ceiling of every task are among the methods.
    """
    results = open_results(folder, create=True)
    for record, curve in _trials(count):
        trial = results / "trials" / record["id"]
        trial.mkdir()
        (trial / "record.json").write_text(json.dumps(record, indent=1) + "\n")
        (trial / "curve.jsonl").write_text("".join(json.dumps(point) + "\n" for point in curve))
    return results


def _trials(count: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    draw = random.Random(0)
    methods = ["noise", "kd", "scratch", *(f"method{place:02d}" for place in range(3, METHODS))]
    per_task, seeds = max(1, count // TASKS), max(1, min(SEEDS, count // (TASKS * METHODS * CELLS)))
    for number in range(count):
        task, rest = divmod(number, per_task)
        row, seed = divmod(rest, seeds)
        cell, method = divmod(row, METHODS)
        failed = seed == seeds - 1 and cell == 1
        final = min(0.99, 0.5 + 0.015 * method + 0.005 * (cell % 5) + draw.gauss(0, 0.01))
        record = json.loads(_template(methods[method], failed))
        trial = record["trial"]
        trial["task"], trial["seed"] = f"task{task:02d}/net", seed
        trial["options"] = {"batch": 128, "lr_student": 0.01 * (cell + 1), "milestones": [0.6, 0.75, 0.9]}
        record["id"] = trial_id(trial)
        record["scores"] = {rule: final + shift for rule, shift in RULES.items()} if not failed else {}
        record["agreement"] = None if failed else final
        record["meter"]["seconds"] += draw.random()
        for metric in record["image_metrics"].values():
            metric["value"] = draw.random()
        yield record, [] if failed else _curve(final, record["meter"]["seconds"], draw)


RULES = {"last": 0.0, "ema": -0.004, "teacher_agreement": 0.0, "oracle": 0.008}
IMAGES = ("class_balance", "confidence", "nearest_training_distance", "fd[teacher]", "kid[teacher]")
_TEMPLATES: dict[tuple[str, bool], str] = {}


def _template(method: str, failed: bool) -> str:
    if (method, failed) not in _TEMPLATES:
        record = json.loads(as_json(BUILDER["make_record"](method, 0, "diverged" if failed else "ok")))
        one = record["image_metrics"]["class_balance"]
        record["image_metrics"] = {} if failed else dict.fromkeys(IMAGES, one)
        _TEMPLATES[method, failed] = json.dumps(record)
    return _TEMPLATES[method, failed]


def _curve(final: float, seconds: float, draw: random.Random) -> list[dict[str, Any]]:
    points = []
    for place in range(11):
        share = place / 10
        score = min(1.0, max(0.0, final * (1 - 0.9 * (1 - share) ** 3) + draw.gauss(0, 0.005)))
        points.append(
            {
                "progress": share,
                "seconds": seconds * share,
                "steps": 31 * place,
                "teacher_images": 4000 * place,
                "student_images": 4000 * place,
                "gmacs": 6.12 * place,
                "score": score,
                "score_ema": score,
                "agreement": score,
                "agreement_ema": score,
                "held_out_agreement": None,
                "details": {},
                "details_ema": {},
                "logs": {"loss": 3.0 * (1 - share) + draw.random(), "one_hot": draw.random()},
            }
        )
    return points


if __name__ == "__main__":
    write_many(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
