"""The progress of a running trial, for display; its working folder, and the file in which a worker reports."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.records.foreign import parse, read_bytes, refuse_link
from bench.utils.text import shown

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
    for place in (folder.parent, folder):
        if place.is_symlink():
            refuse_link(place)
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
    """The last progress written; None where there is none, or no such file is ours."""
    try:
        value = parse(read_bytes(work / _NAME), _NAME)
        state, share, score, seconds = (value[field.name] for field in dataclasses.fields(Progress))
        numbers = [float(number) for number in (share, seconds, 0.0 if score is None else score)]
    except (UserError, KeyError, TypeError, ValueError):
        return None
    if not isinstance(state, str) or len(value) != len(dataclasses.fields(Progress)) or min(numbers) < 0:
        return None
    return Progress(shown(state[:200]), min(numbers[0], 1.0), None if score is None else numbers[2], numbers[1])
