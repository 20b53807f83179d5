"""Synthetic results for tests: records with plausible numbers, curves and contact sheets."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.records import Record, open_results, trial_id, write_trial
from bench.records.foreign import checksum_of, sha256_of

FINAL = {"noise": 0.66, "scratch": 0.955, "kd": 0.965, "dafl": 0.91, "zskd": 0.84}
REAL = {"scratch", "kd"}
BUDGET = {"teacher_images": 40000}


def make_record(method: str = "dafl", seed: int = 0, status: str = "ok", **changes: Any) -> Record:
    """A record; ``changes`` replaces parts of the trial (``options=...``) or of the record (``title=...``)."""
    final = changes.pop("final", FINAL.get(method, 0.8) + 0.006 * math.sin(7 * seed + len(method)))
    teacher = changes.pop("teacher_sha", "ab" * 32)
    data = changes.pop("data", "train" if method in REAL else "none")
    title, reason = changes.pop("title", method.upper()), changes.pop("reason", "")
    headline = changes.pop("headline", "last")
    trial = {
        "suite": "0.1",
        "task": "digits/lenet5-half",
        "task_sha": "7a5c0de" * 3,
        "teacher": hashlib.sha256(str(teacher).encode()).hexdigest()[:12],
        "method": method,
        "method_sha": hashlib.sha256(method.encode()).hexdigest()[:12],
        "options": {"batch": 128, "temperature": 4.0},
        "budget": BUDGET,
        "seed": seed,
        "device": "cpu",
        "threads": 1,
        "precision": "float32",
        "deterministic": True,
        "altered_data": False,
        "points": 20,
        "selection": ["last", "ema", "teacher_agreement", "oracle"],
    }
    trial |= changes
    ok = status == "ok"
    images = 0 if method == "scratch" else 40000
    scores = {"last": final, "ema": final - 0.004, "teacher_agreement": final, "oracle": min(1.0, final + 0.008)}
    return Record.model_validate(
        {
            "schema": 1,
            "id": trial_id(trial),
            "study": "demo",
            "status": status,
            "reason": "" if ok else reason or "the loss became NaN at step 12",
            "trial": trial,
            "method": {
                "title": title,
                "paper": "Somebody et al., A Paper, ICCV 2019",
                "data": data,
                "access": "features",
            },
            "teacher": teacher
            and {"sha256": teacher, "network": "lenet5", "recipe": "digits", "seed": 0, "score": 0.972},
            "metric": "accuracy",
            "headline": headline,
            "scores": scores if ok else {},
            "agreement": final - 0.01 if ok else None,
            "image_metrics": {"class_balance": {"value": 0.98, "status": "ok", "images": 2048, "note": ""}},
            "meter": {
                "seconds": 12.3 + len(method) + seed,
                "steps": 312,
                "optimizer_steps": 624,
                "teacher_images": images,
                "teacher_backward": images,
                "student_images": 40000,
                "student_backward": 40000,
                "synthesised_images": 0 if method in REAL else 40000,
                "real_images": 40000 if method in REAL else 0,
                "gmacs": 61.2,
                "peak_memory_mib": 412.0,
                "evaluation_seconds": 1.9,
            },
            "stopped_by": "teacher_images" if ok else status,
            "images": {"count": 2048 if ok else 0, "clipped": 0.01, "different": 2048 if ok else 0},
            "resumed": 0,
            "provenance": {
                "commit": "0123456789abcdef0123456789abcdef01234567",
                "dirty": False,
                "suite": "0.1.0",
                "python": "3.11.7",
                "platform": "Linux-x86_64",
                "device": "AMD EPYC, 2 cores",
                "versions": {"torch": "2.13.0"},
                "threads": 1,
                "deterministic": True,
                "finished": "2026-11-21T10:00:00+00:00",
            },
        }
    )


def make_curve(record: Record) -> list[dict[str, Any]]:
    """The untrained student and twenty evaluations that rise to the record's score."""
    random = np.random.default_rng(record.trial.seed + len(record.trial.method))
    final = record.scores.get("last", 0.2)
    points = []
    for number in range(21):
        share = number / 20
        score = 0.1 + (final - 0.1) * (1 - math.exp(-4.5 * share)) / (1 - math.exp(-4.5))
        score += (1 - share) * 0.03 * float(random.standard_normal())
        points.append(
            {
                "progress": share,
                "seconds": record.meter.seconds * share,
                "steps": int(312 * share),
                "teacher_images": int(record.meter.teacher_images * share),
                "student_images": int(40000 * share),
                "gmacs": 61.2 * share,
                "score": min(max(score, 0.0), 1.0),
                "score_ema": min(max(score - 0.004, 0.0), 1.0),
                "agreement": 0.9 * share,
                "agreement_ema": 0.89 * share,
                "held_out_agreement": None,
                "details": {},
                "details_ema": {},
                "logs": {"loss": 3.0 * (1 - share)},
            }
        )
    return points


def make_sheet(path: Path, method: str = "dafl", side: int = 32, grid: int = 8) -> Path:
    """A contact sheet of ``grid`` x ``grid`` grey images with one pixel between them."""
    random = np.random.default_rng(len(method))
    sheet = np.full((grid * (side + 1) + 1,) * 2, 255, dtype=np.uint8)
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    for row in range(grid):
        for column in range(grid):
            angle = random.uniform(0, np.pi)
            wave = np.sin(18 * (np.cos(angle) * x + np.sin(angle) * y)) * np.exp(-9 * (x**2 + y**2))
            wave += (0.6 if method == "noise" else 0.05) * random.standard_normal((side, side))
            top, left = row * (side + 1) + 1, column * (side + 1) + 1
            sheet[top : top + side, left : left + side] = np.clip(127 + 120 * wave, 0, 255)
    Image.fromarray(sheet).save(path)
    return path


def add(results: Path, record: Record, work: Path | None = None) -> Path:
    """Write a record with its curve, and with a contact sheet if there is a folder to make one in."""
    files = {}
    if work is not None and record.status == "ok":
        files["images.png"] = make_sheet(work / "sheet.png", record.trial.method)
    return write_trial(results, record, make_curve(record) if record.status == "ok" else [], files)


def make_demo(folder: Path, seeds: int = 2) -> Path:
    """The demo's five methods, with contact sheets in ``folder``'s parent."""
    results = open_results(folder, create=True)
    for method in FINAL:
        for seed in range(seeds):
            add(results, make_record(method, seed), folder.parent)
    return results


def alter(trial: Path, /, **changes: Any) -> None:
    """Change a written record, and make its checksums fit again: another record, and not a damaged one."""
    value = json.loads((trial / "record.json").read_text(encoding="utf-8")) | changes
    value["files"] = {name: sha256_of(trial / name) for name in value["files"] if (trial / name).is_file()}
    value["checksum"] = checksum_of(value)
    (trial / "record.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
