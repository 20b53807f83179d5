"""The record of a trial: the part that every trial has, whatever became of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.records import SCHEMA, Record, write_trial
from bench.spec.budget import Meter
from bench.spec.method_card import MethodCard
from bench.spec.method_registry import card_of
from bench.spec.task import get_task
from bench.spec.trial import Trial
from bench.utils.provenance import provenance


def base_record(trial: Trial, card: MethodCard, status: str, reason: str) -> dict[str, Any]:
    """A record's content before anything was measured."""
    return {
        "schema": SCHEMA,
        "id": trial.id,
        "study": trial.study,
        "status": status,
        "reason": reason.replace(str(Path.home()), "~"),  # a record names no user
        "trial": trial.identity(),
        "method": {
            "title": card.title,
            "paper": card.paper,
            "data": card.data.value,
            "access": card.access.label,
        },
        "teacher": None,
        "metric": get_task(trial.task).metric,
        "headline": trial.selection[0],
        "scores": {},
        "test_metrics": {},
        "agreement": None,
        "image_metrics": {},
        "meter": Meter().as_record(),
        "stopped_by": status,
        "images": {"count": 0, "clipped": 0.0, "different": 0},
        "resumed": 0,
        "provenance": {
            **provenance(threads=trial.threads, deterministic=trial.deterministic, device=trial.device),
            # What the study states: the rest of the options are defaults, which another commit may change.
            "stated": {
                "settings": trial.settings,
                "options": [list(entry) for entry in trial.stated],
                "memory_format": trial.memory_format,
            },
        },
    }


def record_failure(trial: Trial, status: str, reason: str, results: Path, log: Path) -> Record:
    """Write the record of a trial whose process is gone."""
    record = Record.model_validate(base_record(trial, card_of(trial), status, reason))
    files: Mapping[str, Path] = {"log.txt": log} if log.exists() else {}
    rows: Sequence[dict[str, Any]] = []
    write_trial(results, record, list(rows), files)
    return record
