"""Records and curves as pandas tables, for reports and for anybody's own notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.records.reading import read_curves, read_plain, trial_ids
from bench.records.schema import CurvePoint
from bench.utils.memory_format import CONTIGUOUS

if TYPE_CHECKING:
    import pandas

NESTED = ("details", "details_ema", "logs")  # of a curve's line
FIRST = ["id", "study", "status", "reason", "task", "method", "seed", "budget", "options", "headline", "score"]


def short_text(values: Mapping[Any, object]) -> str:
    """A mapping as one canonical line.

    >>> short_text({"lr": 0.1, "batch": 128})
    'batch=128, lr=0.1'
    """
    return ", ".join(f"{key}={values[key]}" for key in sorted(values))


def load_frame(results: Path) -> pandas.DataFrame:
    """One row per record, one column per fact, in the order of the ids; failures have no scores.

    Scores are shares, from 0 to 1; ``score`` is that of the headline rule, the others bear their rule's name.
    Raises:
        UserError: a record is damaged or of a newer schema.
    """
    import pandas

    rows = [_row(value) for value in read_plain(results)]
    return pandas.DataFrame(rows) if rows else pandas.DataFrame(columns=FIRST)


def load_curves(results: Path, ids: Iterable[str] | None = None) -> pandas.DataFrame:
    """One row per evaluation of every trial, or of ``ids``.

    A method's own scalars are in columns ``logs.NAME``, further test metrics in ``details.NAME``.

    Raises:
        UserError: a curve is missing or damaged.
    """
    import pandas

    names = trial_ids(results) if ids is None else list(ids)
    rows: list[dict[str, Any]] = []
    for name, curve in read_curves(results, names).items():
        for point in curve:
            parts = {part: point.pop(part, None) or {} for part in NESTED}
            flat = {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}
            rows.append({"id": name, **point, **flat})
    if not rows:
        return pandas.DataFrame(columns=["id", *(name for name in CurvePoint.model_fields if name not in NESTED)])
    return pandas.DataFrame(rows)


def _row(record: dict[str, Any]) -> dict[str, Any]:
    trial, teacher, provenance = record["trial"], record["teacher"] or {}, record["provenance"]
    scores: dict[str, float] = record["scores"]
    return {
        "id": record["id"],
        "study": record["study"],
        "status": record["status"],
        "reason": record["reason"],
        "task": trial["task"],
        "method": trial["method"],
        "seed": trial["seed"],
        "budget": short_text(trial["budget"]),
        "options": short_text(trial["options"]),
        "headline": record["headline"],
        "score": scores.get(record["headline"]),
        **dict.fromkeys(trial["selection"]),
        **scores,
        "agreement": record["agreement"],
        **record["meter"],
        "stopped_by": record["stopped_by"],
        "resumed": record["resumed"],
        "metric": record["metric"],
        "data": record["method"]["data"],
        "access": record["method"]["access"],
        "title": record["method"]["title"],
        "teacher_sha": teacher.get("sha256"),
        "teacher_network": teacher.get("network"),
        "teacher_score": teacher.get("score"),
        "ensemble_score": (record.get("ensemble") or {}).get("score"),
        "task_sha": trial["task_sha"],
        "method_sha": trial["method_sha"],
        "identity_rule": trial.get("identity_rule", 1),
        "suite": trial["suite"],
        "device": trial["device"],
        "threads": trial["threads"],
        "precision": trial["precision"],
        "memory_format": trial.get("memory_format", CONTIGUOUS),
        "deterministic": trial["deterministic"],
        "altered_data": trial["altered_data"],
        "points": trial["points"],
        "images": record["images"]["count"],
        "clipped": record["images"]["clipped"],
        "different_images": record["images"].get("different"),
        **{f"test_metrics.{name}": value for name, value in record.get("test_metrics", {}).items()},
        **{f"image_metrics.{name}": metric["value"] for name, metric in record["image_metrics"].items()},
        "finished": provenance.get("finished"),
    }
