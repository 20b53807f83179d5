"""What ``dfkd verify`` writes into a record's provenance, as a reader sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from bench.records.schema import Record

KEY = "verified"  # of the provenance
Outcome = Literal["same bits", "within tolerance", "differs", "not compared"]
VERIFIED: tuple[Outcome, ...] = ("same bits", "within tolerance")


def verified(record: Record) -> bool | None:
    """Whether the trial, run again, was what its record says; None where nobody has tried."""
    told = record.provenance.get(KEY)
    return told.get("outcome") in VERIFIED if isinstance(told, Mapping) else None
