"""Results folders and archives: finding them if none is named, and their unfinished trials."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.execution.plan import RUNS
from bench.execution.progress import Progress, read_progress
from bench.records import open_results
from bench.records.folder import ARCHIVE
from bench.records.foreign import is_id, is_there, refuse_link

BASES = (RUNS, Path("results"))  # one's own runs, and what the project publishes
# Other archives are used only where they are named: they may be copies of folders beside them.
PUBLISHED = re.compile(rf"{re.escape(ARCHIVE)}|[0-9a-f]{{40}}(-dirty-[0-9a-f]+)?\.parquet")


@dataclass(frozen=True)
class Unfinished:
    """A trial that is running, or was stopped."""

    id: str
    folder: Path
    progress: Progress | None
    saved: bool


def results_folders(base: Path) -> list[Path]:
    """The results folders below ``base``, itself included."""
    return [place for place in results_below(base) if place.is_dir()]


def results_below(base: Path) -> list[Path]:
    """The results folders below ``base``, itself included, and the archives that take the place of one.

    These are named ``records.parquet``, or by a commit. Where there is a folder too, it is the one that counts.
    """
    found = []
    for folder, inner, names in os.walk(base):
        place = Path(folder)
        if "results.json" in names:
            found.append(place)
            inner.clear()  # thousands of trials need not be walked through
        else:
            archives = [place / name for name in names if PUBLISHED.fullmatch(name)]
            found += [file for file in archives if file.name == ARCHIVE or not file.with_suffix("").is_dir()]
    return sorted(found)


def searched(named: Sequence[Path]) -> list[Path]:
    """The folders and archives named, checked; or else all below ``runs`` and ``results``.

    Raises:
        UserError: one is not a results folder or of a newer schema, or there is none.
    """
    folders = list(named) or [place for base in BASES for place in results_below(base)]
    if not folders:
        raise UserError(
            f"no results folder below {' or '.join(f'./{base}' for base in BASES)}; name one with --results"
        )
    return [open_results(folder) for folder in folders]


def latest() -> Path:
    """The results folder below ``runs`` in which a trial ended last."""
    folders = results_folders(RUNS)
    if not folders:
        raise UserError(f"no results folder below ./{RUNS}; name one with --results, or create one with `dfkd run`")
    return max(folders, key=_changed)


def _changed(folder: Path) -> float:
    trials = folder / "trials"
    return (trials if trials.is_dir() else folder).stat().st_mtime


def unfinished(folders: Sequence[Path], prefix: str) -> list[Unfinished]:
    """The trials without a record whose id begins with ``prefix``."""
    found = []
    for results in folders:
        for work in sorted((results / "work").glob("*")):
            if is_id(work.name) and work.name.startswith(prefix) and not (results / "trials" / work.name).exists():
                if work.is_symlink():
                    refuse_link(work)
                saved = is_there(work / "checkpoint.pt")
                found.append(Unfinished(work.name, work, read_progress(work), saved))
    return found
