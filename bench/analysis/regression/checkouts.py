"""Runs of `dfkd run` with another commit's own code, in a checkout of its own, filed under that commit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.analysis.regression.filing import filed_place, label, lighten, unpack_filed
from bench.records import Record, load_records, trial_ids
from bench.utils.git import Commit
from bench.utils.stopping import Stopped, asked, listening

LOOK = 0.2  # seconds between two looks at whether to stop
NAME = ".dfkd-step.yaml"  # of the study in the checkout; it is gone after the run


class Ran(subprocess.CompletedProcess[str]):
    """A command that has ended."""

    @property
    def reason(self) -> str:
        """The last line that it wrote to standard error."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.returncode}"


def run_filed(
    folder: Path, here: Commit, study: Mapping[str, Any], place: Path, results: Path, extra: tuple[str, ...] = ()
) -> tuple[list[Record | None], Ran | None]:
    """Run a study with a checkout's own code and file its records under the commit; what is filed is not run again.

    Args:
        folder: the checkout, at ``here``.
        here: the commit.
        study: as written.
        place: the folder of the study, from the top of the checkout, for the paths in it.
        results: where the commit is filed.
        extra: further options of `dfkd run`.

    Returns:
        The record of each trial, None where there is none; and the run, None where nothing was left to run. A study
        that cannot be planned there has no trials, and the run says why.
    """
    with study_in(folder, place, study) as file:
        planned = dfkd(folder, "run", str(file), "--results", str(results.resolve()), *extra, "--dry-run")
        ids = re.findall(r"^([0-9a-f]{16})\b", planned.stdout, flags=re.MULTILINE) if planned.returncode == 0 else []
        if not ids:
            return [], planned
        records = filed_records(results, ids)
        if all(record and record.status in ("ok", "unsupported") for record in records):
            return records, None
        unpack_filed(results)
        beside = results / "study.yaml"
        before = beside.read_bytes() if beside.is_file() else None
        try:
            ran = dfkd(folder, "run", str(file), "--results", str(results.resolve()), *extra, "--quiet")
        finally:
            if before is not None:  # the whole study, of which this is a part
                beside.write_bytes(before)
            if (results / "results.json").is_file():
                label(results, here)
                lighten(results)
        return filed_records(results, ids), ran


@contextmanager
def study_in(folder: Path, place: Path, study: Mapping[str, Any]) -> Iterator[Path]:
    """A study as a file of a checkout, gone at the end; arguments as for ``run_filed``."""
    file = folder / place / NAME
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(study), encoding="utf-8")  # JSON is YAML
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def filed_records(results: Path, ids: list[str]) -> list[Record | None]:
    """The filed record of each trial, in their order."""
    place = filed_place(results)
    if place is None:
        return [None for _ in ids]
    found = {record.id: record for record in load_records(place, set(ids) & set(trial_ids(place)))}
    return [found.get(name) for name in ids]


def dfkd(folder: Path, *arguments: str) -> Ran:
    """Run a command of dfkd with the code of a checkout, whatever version it is, and this Python's libraries.

    Raises:
        Stopped: a signal came. The command was told, saved what it could, and has ended.
    """
    return run_python(folder, "-m", "bench.cli", *arguments)


def run_python(folder: Path, *arguments: str) -> Ran:
    """Run this Python with the code of a checkout; raises as ``dfkd``."""
    paths = [str(folder.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    program = [sys.executable, *arguments]
    with listening():
        process = subprocess.Popen(
            program, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        told = False
        try:
            while True:
                try:
                    output, errors = process.communicate(timeout=LOOK)
                    break
                except subprocess.TimeoutExpired:
                    if asked() and not told:
                        process.send_signal(signal.SIGTERM)
                        told = True
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        if reason := asked():
            raise Stopped(reason)
    return Ran(program, process.returncode, output, errors)
