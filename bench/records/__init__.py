"""What a finished trial leaves behind: its schema, written whole or not at all, read back one by one or as tables.

Nothing here runs a trial or judges a number, and pandas is imported only where a table is made.
"""

from bench.records.comparable import Comparable, Loaded, comparable, loaded
from bench.records.folder import is_archive, load_record, place_of, read_curve, trial_folders, write_trial
from bench.records.frame import load_curves, load_frame, short_text
from bench.records.reading import (
    Outline,
    load_records,
    locate,
    log_end,
    open_results,
    read_beside,
    read_columns,
    read_curves,
    read_outline,
    read_sheets,
    read_students,
    trial_ids,
)
from bench.records.schema import (
    SCHEMA,
    CurvePoint,
    ImageFacts,
    ImageMetric,
    MeterReading,
    MethodFacts,
    PoolFacts,
    Record,
    Status,
    TeacherFacts,
    TrialIdentity,
    as_json,
    trial_id,
)

__all__ = [
    "SCHEMA",
    "Comparable",
    "Loaded",
    "CurvePoint",
    "ImageFacts",
    "ImageMetric",
    "PoolFacts",
    "MeterReading",
    "MethodFacts",
    "Outline",
    "Record",
    "Status",
    "TeacherFacts",
    "TrialIdentity",
    "as_json",
    "comparable",
    "is_archive",
    "load_curves",
    "load_frame",
    "load_record",
    "load_records",
    "loaded",
    "locate",
    "log_end",
    "open_results",
    "place_of",
    "read_beside",
    "read_columns",
    "read_curve",
    "read_curves",
    "read_outline",
    "read_sheets",
    "read_students",
    "short_text",
    "trial_folders",
    "trial_id",
    "trial_ids",
    "write_trial",
]
