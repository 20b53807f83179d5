"""Where the numbers of a commit are filed, and how they are found again by commit, tag or folder.

::

    TRACKED/<commit>/                     a results folder like any other
    TRACKED/<commit>/tracked.json         the commit, its date and subject, and planned looks
    TRACKED/<commit>/trials/<id>/bits.json   hash of the student's weights, in place of the weights
    TRACKED/<commit>/speed/<hash>.json    pytest-benchmark's, one file a run
    TRACKED/<commit>-dirty-<hash>/        a tree that was changed: the hash is of the changed files
    TRACKED/<commit>.parquet              all of this as an archive; the folder counts, where there are both
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.analysis.regression.speed import Run, read_run, reduced
from bench.analysis.regression.stated import with_statements
from bench.errors import UserError
from bench.records import (
    Record,
    is_archive,
    load_records,
    open_results,
    place_of,
    read_beside,
    read_students,
    trial_folders,
)
from bench.records.archive import BITS, STUDENT, files_beside, student_hash
from bench.records.folder import read_json, writing
from bench.records.foreign import is_there, parse, sha256_of
from bench.records.merge import merge
from bench.records.sheets import NAMES
from bench.utils.git import Commit, changes, checkout_of, commit, fingerprint, git, line_of, resolve
from bench.utils.paths import ROOT
from bench.utils.text import shown

TRACKED = Path("results") / "tracked"  # below the checkout's top folder
DIRTY = "-dirty-"
HASHES = (40, 64)  # hex digits of a commit: SHA-1 and SHA-256 repositories
LABEL = "tracked.json"
EARLIER = 20  # commits whose seeds are looked at beside the two that are compared
HEAVY = (STUDENT, "images.safetensors", *NAMES)  # per trial megabytes that no comparison needs


@dataclass(frozen=True)
class Filed:
    """One side of a comparison: everything measured of a commit, or stored in a folder."""

    name: str  # as the user wrote it
    folder: Path  # or an archive
    commit: Commit | None  # None: an untracked folder
    records: tuple[Record, ...]
    bits: Mapping[str, str]  # trial id -> hash of the student's weights, where it is known
    runs: tuple[Run, ...]
    looks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # by base commit, see ``sequential.py``

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
        dirty: whether a changed tree is accepted; it is filed under its own name.

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


def label(folder: Path, head: Commit, looks: Mapping[str, Sequence[int]] | None = None) -> None:
    """Write down which commit a results folder belongs to; looks that were written down before stay."""
    file = folder / LABEL
    known = looks_of(file.read_text(encoding="utf-8"), file) if file.is_file() else {}
    planned = {**known, **(looks or {})}
    facts: dict[str, object] = {"commit": head.sha, "date": head.date, "subject": head.subject}
    write_json(file, facts | ({"looks": planned} if planned else {}))


def looks_of(text: str | None, where: Path) -> dict[str, tuple[int, ...]]:
    """The planned looks of the comparisons with other commits, by their hash: seeds on each side, rising.

    Raises:
        UserError: they are not of that form.
    """
    found = {} if text is None else parse(text, str(where)).get("looks", {})
    if not isinstance(found, Mapping) or not all(map(_are_looks, found.values())):
        raise UserError(f"{where}: 'looks' must hold rising numbers of seeds by commit")
    return {str(sha): tuple(looks) for sha, looks in found.items()}


def _are_looks(looks: object) -> bool:
    if not isinstance(looks, list) or not looks or not all(type(count) is int and count > 0 for count in looks):
        return False
    return looks == sorted(set(looks))


def lighten(results: Path) -> None:
    """Put the hash of each student in the place of the student and its images.

    The trials stay finished: only their records and curves are needed to compare them, and nothing runs again.
    """
    for folder in trial_folders(results):
        if is_there(folder / STUDENT) and not is_there(folder / BITS):
            write_json(folder / BITS, {"student": student_hash(folder)})
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
    """The numbers of a commit, a tag or a branch, or in a results folder or an archive.

    Args:
        name: what the user wrote; a folder or an archive is meant where it is one.
        repo: a folder in the checkout that commits are looked up in; the current folder if not named.
        tracked: where commits are filed; ``results/tracked`` in the checkout if not named.

    Raises:
        UserError: it is no folder and no commit, it is both, or nothing is stored under it.
    """
    path = Path(name)
    if path.is_dir() or (is_archive(path) and path.is_file()):
        if path.is_dir() and path.parent == Path() and not name.startswith(".") and _is_commit(repo, name):
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
    place = filed_place(base / found.sha)
    if place is None:
        raise UserError(
            f"nothing is stored under {found.short} ({found.subject}) in {base}{_others(root, base)}; "
            "`dfkd track STUDY` at that commit stores its numbers"
        )
    return read_filed(name, open_results(place), found)


def open_earlier(head: Filed, repo: Path | None = None, tracked: Path | None = None) -> list[Filed]:
    """The ``EARLIER`` latest tracked commits on the line that leads to a tracked one; none for a results folder."""
    if head.commit is None:
        return []
    try:
        root = checkout_of(repo or Path())
        line = line_of(root, resolve(root, head.commit.sha).sha)
    except UserError:
        return []
    filed = tracked_commits(tracked or root / TRACKED)
    there = [commit for commit in reversed(line[:-1]) if commit.sha in filed]
    return [read_filed(commit.sha, filed[commit.sha], commit) for commit in there[:EARLIER]]


def read_filed(name: str, results: Path, known: Commit | None = None) -> Filed:
    """Read a results folder or an archive as one side of a comparison."""
    place = place_of(results)
    runs = [(file, text) for file, text in files_beside(place).items() if file.startswith("speed/")]
    return Filed(
        name,
        results,
        known or _labelled(place),
        tuple(with_statements(load_records(place), read_beside(place, "study.yaml"), place / "study.yaml")),
        read_students(place),
        tuple(read_run(place / file, text) for file, text in runs),
        looks_of(read_beside(place, LABEL), place / LABEL),
    )


def filed_place(folder: Path) -> Path | None:
    """Where it is that was filed as ``folder``: the folder, or the archive beside it; None where there is neither."""
    archive = folder.with_name(f"{folder.name}.parquet")
    if (folder / "results.json").is_file():
        return folder
    return archive if archive.is_file() else None


def unpack_filed(folder: Path) -> None:
    """Unpack what was filed as an archive, so that it goes on as a folder and nothing is run twice."""
    place = filed_place(folder)
    if place is not None and is_archive(place):
        merge([place], folder)


def tracked_commits(tracked: Path) -> dict[str, Path]:
    """The folders or archives of clean commits, by hash."""
    if not tracked.is_dir():
        return {}
    names = sorted({entry.name.removesuffix(".parquet") for entry in tracked.iterdir()})
    places = {name: filed_place(tracked / name) for name in names if len(name) in HASHES}
    return {name: place for name, place in places.items() if place is not None}


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


def _labelled(results: Path) -> Commit | None:
    text = read_beside(results, LABEL)
    if text is None:
        return None
    facts = parse(text, f"{results / LABEL}")
    try:
        sha, date, subject = (facts[name] for name in ("commit", "date", "subject"))
    except KeyError as error:
        raise UserError(f"{results / LABEL}: {error} is missing") from None
    if not all(isinstance(value, str) for value in (sha, date, subject)) or not re.fullmatch("[0-9a-f]{40,64}", sha):
        raise UserError(f"{results / LABEL}: 'commit' must be a commit's hash, 'date' and 'subject' texts")
    return Commit(sha, shown(date), shown(subject))


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
