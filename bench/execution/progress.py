"""The progress of a running trial, for display; its working folder, and the file in which a worker reports."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError

_NAME = "progress.json"


@dataclass(frozen=True)
class Progress:
    """``state`` is a word ("teacher 3/40", "running", "ok", ...); ``share`` the spent part of the budget, 0 to 1."""

    state: str = "starting"
    share: float = 0.0
    score: float | None = None
    seconds: float = 0.0


def work_folder(results: Path, trial_id: str) -> Path:
    """The folder of an unfinished trial, made if needed."""
    folder = results / "work" / trial_id
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {results}: {error.strerror}; choose another folder with --results") from None
    return folder


def progress_files(work: Path) -> tuple[Path, Path]:
    """What :func:`write_progress` writes."""
    return work / f"{_NAME}.part", work / _NAME


def write_progress(work: Path, progress: Progress) -> None:
    """Leave it for the parent to see; nothing happens once the trial has ended and its folder is gone."""
    part, file = progress_files(work)
    with contextlib.suppress(FileNotFoundError):
        part.write_text(json.dumps(dataclasses.asdict(progress)), encoding="utf-8")
        part.replace(file)


def read_progress(work: Path) -> Progress | None:
    """The last progress written, or None."""
    try:
        return Progress(**json.loads((work / _NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
