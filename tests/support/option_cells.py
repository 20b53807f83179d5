"""Rows whose options differ, for tests of the sensitivity sections."""

from __future__ import annotations

from typing import Any

from record_builder import make_record

from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.groups import Group
from bench.analysis.report.sections.sensitivity_cells import Sensitivity, sensitivities_of
from bench.analysis.report.sections.sensitivity_numbers import importance_of
from bench.analysis.report.sections.sensitivity_text import sensitivity_notes
from bench.records import Record
from bench.spec.grid import Sample, draw

PAIR = ("temperature", "lr")


def cell(method: str = "dafl", score: float = 0.9, seed: int = 0, status: str = "ok", **options: Any) -> Record:
    more = {"code": options.pop("code")} if "code" in options else {}
    changes = {"method_sha": more["code"]} if more else {}
    return make_record(method, seed, status, final=score, options={"batch": 64, **options}, **changes)


def grid_of(
    method: str = "dafl", temperatures: Any = (1.0, 4.0), rates: Any = (0.1, 0.01), **more: Any
) -> list[Record]:
    return [cell(method, temperature=t, lr=lr, **more) for t in temperatures for lr in rates]


def group_of(records: list[Record]) -> Group:
    (group,) = group_records(records)
    return group


def notes_of(records: list[Record]) -> list[str]:
    group = group_of(records)
    (found,) = sensitivities_of(group)
    return sensitivity_notes(found, group, [importance_of(grid, found) for grid in found.grids])


def only(records: list[Record]) -> Sensitivity:
    (found,) = sensitivities_of(group_of(records))
    return found


def sample_of(method: str = "dafl", count: int = 16, slope: float = 0.0, **more: Any) -> list[Record]:
    """Sobol's points in temperature (1 to 20) and lr (0.001 to 1, by factors)."""
    points = draw(Sample(count=count), 2)
    return [
        cell(method, 0.5 + slope * x, temperature=round(1 + 19 * x, 2), lr=float(f"{10 ** (3 * y - 3):.3g}"), **more)
        for x, y in points.tolist()
    ]


def measured_group() -> Group:
    """Two methods, 2 x 2 cells, two seeds; one cell of rdskd has one score, one none. Noise is at 60 %."""
    scores = {(1.0, 0.1): 0.95, (1.0, 0.01): 0.94, (4.0, 0.1): 0.939, (4.0, 0.01): 0.55}
    records = [
        cell("dafl", score + shift, seed, temperature=t, lr=lr)
        for (t, lr), score in scores.items()
        for seed, shift in ((0, -0.02), (1, 0.02))
    ]
    for (t, lr), score in scores.items():
        for seed in (0, 1):
            failed = (t, lr) == (4.0, 0.01) or ((t, lr) == (4.0, 0.1) and seed == 1)
            status = "diverged" if failed else "ok"
            records.append(cell("rdskd", score - 0.1, seed, status, temperature=t, lr=lr))
    return group_of([*records, make_record("noise", final=0.6)])
