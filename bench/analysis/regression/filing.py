"""Where the numbers of a commit are filed, and how they are found again by commit, tag or folder.

::

    TRACKED/<commit>/                     a results folder like any other
    TRACKED/<commit>/tracked.json         the commit, its date and subject
    TRACKED/<commit>/trials/<id>/bits.json   hash of the student's weights, in place of the weights
    TRACKED/<commit>/speed/<hash>.json    pytest-benchmark's, one file a run
    TRACKED/<commit>-dirty-<hash>/        a tree that was changed: the hash is of the changed files
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.analysis.regression.speed import Run, read_run, reduced
from bench.errors import UserError
from bench.records import Record, load_record, open_results, trial_folders
from bench.records.folder import read_json, writing
from bench.utils.git import Commit, changes, checkout_of, commit, fingerprint, git, resolve
from bench.utils.paths import ROOT

TRACKED = Path("results") / "tracked"  # below the checkout's top folder
DIRTY = "-dirty-"
HASHES = (40, 64)  # hex digits of a commit: SHA-1 and SHA-256 repositories
LABEL = "tracked.json"
BITS = "bits.json"
HEAVY = ("student.safetensors", "images.safetensors", "images.png")  # per trial megabytes that no comparison needs


@dataclass(frozen=True)
class Filed:
    """One side of a comparison: everything measured of a commit, or stored in a folder."""

    name: str  # as the user wrote it
    folder: Path
    commit: Commit | None  # None: an untracked folder
    records: tuple[Record, ...]
    bits: Mapping[str, str]  # trial id -> hash of the student's weights, where it is known
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        """As in ``v1.2, 012345678 Subject of the commit``."""
        if self.commit is None:
            return self.name
        start = "" if self.commit.sha.startswith(self.name) else f"{self.name}, "
        changed = " (changed)" if DIRTY in self.folder.name else ""
        return f"{start}{self.commit.short}{changed} {self.commit.subject}"


def check_code(root: Path) -> None:
    """Raise UserError in a checkout of the suite whose code is not the one that runs: numbers would be another's."""
    own = root.resolve()
    if (own / "bench" / "__init__.py").is_file() and own != ROOT:
        raise UserError(
            f"the code that runs is that of {ROOT}, not of the checkout {root}: numbers filed under a commit must be "
            f"its own; use the environment of that checkout (`make setup` there), or set PYTHONPATH={own}"
        )


def place_for(root: Path, tracked: Path, dirty: bool) -> tuple[Path, Commit]:
    """The folder for the records of the current commit, and the commit.

    Args:
        root: the checkout.
        tracked: where all commits are filed.
        dirty: whether a changed tree is accepted; it is filed under a name of its own.

    Raises:
        UserError: there is no commit yet, or the tree is changed and that is not accepted.
    """
    head = resolve(root, "HEAD")
    changed = changes(root, apart_from=tracked)
    if not changed:
        return tracked / head.sha, head
    if not dirty:
        shown = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        raise UserError(
            f"{root} differs from its commit {head.short} in {shown}: numbers stored under a commit must be its own; "
            "commit or stash the changes, or pass --dirty to store them separately"
        )
    return tracked / f"{head.sha}{DIRTY}{fingerprint(root, changed)}", head


def label(folder: Path, head: Commit) -> None:
    """Write down which commit a results folder belongs to."""
    write_json(folder / LABEL, {"commit": head.sha, "date": head.date, "subject": head.subject})


def lighten(results: Path) -> None:
    """Put the hash of each student in the place of the student and its images.

    The trials stay finished: only their records and curves are needed to compare them, and nothing runs again.
    """
    for folder in trial_folders(results):
        student = folder / HEAVY[0]
        if student.is_file() and not (folder / BITS).is_file():
            write_json(folder / BITS, {"student": sha256_of(student)})
        with writing(folder):
            for name in HEAVY:
                (folder / name).unlink(missing_ok=True)


def read_runs(files: Sequence[Path], head: Commit, dirty: bool = False) -> list[Run]:
    """Read pytest-benchmark's JSON of the current commit; ``dirty``: measurements of a changed tree are accepted.

    Raises:
        UserError: one is not such a file, lacks the calibration, or was measured at another commit or on a changed
            tree.
    """
    runs = [read_run(file) for file in files]
    for run in runs:
        if run.commit is not None and run.commit != head.sha:
            raise UserError(f"{run.file} was measured at commit {run.commit[:9]}, not at {head.short}")
        if run.dirty and not dirty:
            raise UserError(
                f"{run.file} was measured on a changed tree (commit_info.dirty): numbers filed under a commit must be "
                "its own; measure the commit itself, or say --dirty to file them apart"
            )
    return runs


def file_runs(folder: Path, runs: Sequence[Run]) -> None:
    """File benchmark runs beside the records, without host and single timings; the same file twice is one run."""
    for run in runs:
        write_json(folder / "speed" / f"{sha256_of(run.file)[:16]}.json", reduced(read_json(run.file)))


def open_filed(name: str, repo: Path | None = None, tracked: Path | None = None) -> Filed:
    """The numbers of a commit, a tag or a branch, or in a results folder.

    Args:
        name: what the user wrote; a folder is meant where it is one.
        repo: a folder in the checkout that commits are looked up in; the current folder if not named.
        tracked: where commits are filed; ``results/tracked`` in the checkout if not named.

    Raises:
        UserError: it is no folder and no commit, it is both, or nothing is stored under it.
    """
    path = Path(name)
    if path.is_dir():
        if path.parent == Path() and not name.startswith(".") and _is_commit(repo, name):
            raise UserError(
                f"{name!r} is both a folder and a commit; write ./{name} for the folder, or the commit's hash"
            )
        return read_filed(name, open_results(path))
    try:
        root = checkout_of(repo or Path())
        found = resolve(root, name)
    except UserError as error:
        raise UserError(f"no folder {name!r}, and {error}") from None
    base = tracked or root / TRACKED
    folder = base / found.sha
    if not (folder / "results.json").is_file():
        raise UserError(
            f"nothing is stored under {found.short} ({found.subject}) in {base}{_others(root, base)}; "
            "`dfkd track STUDY` at that commit stores its numbers"
        )
    return read_filed(name, open_results(folder), found)


def read_filed(name: str, folder: Path, known: Commit | None = None) -> Filed:
    """Read a results folder as one side of a comparison."""
    folders = trial_folders(folder)
    bits = {each.name: digest for each in folders if (digest := _bits(each))}
    runs = tuple(read_run(file) for file in sorted((folder / "speed").glob("*.json")))
    return Filed(name, folder, known or _labelled(folder), tuple(map(load_record, folders)), bits, runs)


def tracked_commits(tracked: Path) -> dict[str, Path]:
    """The folders of clean commits, by hash."""
    if not tracked.is_dir():
        return {}
    folders = [folder for folder in sorted(tracked.iterdir()) if (folder / "results.json").is_file()]
    return {folder.name: folder for folder in folders if len(folder.name) in HASHES}


def write_json(file: Path, value: Mapping[str, object]) -> None:
    """Write a JSON file, whole or not at all."""
    part = file.with_name(f".{file.name}.part")
    with writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)


def sha256_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _bits(trial: Path) -> str | None:
    if (trial / BITS).is_file():
        return str(read_json(trial / BITS).get("student"))
    return sha256_of(trial / HEAVY[0]) if (trial / HEAVY[0]).is_file() else None


def _labelled(folder: Path) -> Commit | None:
    if not (folder / LABEL).is_file():
        return None
    facts = read_json(folder / LABEL)
    try:
        return Commit(facts["commit"], facts["date"], facts["subject"])
    except KeyError as error:
        raise UserError(f"{folder / LABEL}: {error} is missing") from None


def _is_commit(repo: Path | None, name: str) -> bool:
    try:
        resolve(checkout_of(repo or Path()), name)
    except UserError:
        return False
    return True


def _others(root: Path, base: Path) -> str:
    """The tracked commit nearest to the present, as a hint."""
    filed = tracked_commits(base)
    if not filed:
        return ", or under any other commit"
    for sha in git(root, "log", "--format=%H").splitlines():
        if sha in filed:
            near = commit(root, sha)
            return f"; the latest stored commit: {near.short} ({near.subject})"
    return f"; {len(filed)} commits of another history are"
