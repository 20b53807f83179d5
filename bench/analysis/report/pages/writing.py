"""A report's files on disk: nowhere among records, and without pages that an earlier report has left there."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

from bench.errors import UserError
from bench.records.folder import writing

# Letters, digits, _ . - and no part that begins with a dot, apart from the site's own note of how a report was made.
PLAIN = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}/)*(?:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}|\.made\.json)")
LISTED = ".report-files"  # what the last report into a folder has written, a path a line


def check_place(out: Path, results: Path) -> None:
    """Raise UserError for a place where pages would lie among records, or which cannot be written: before the work."""
    place, own = out.resolve(), results.resolve()
    taken = place == own or any((own / name) in (place, *place.parents) for name in ("trials", "work"))
    if taken or (place / "results.json").exists():
        raise UserError(f"{out} contains records; a report needs a separate folder, such as {results / 'report'}")
    there = next(each for each in (place, *place.parents) if each.exists())
    missing = errno.ENOTDIR if not there.is_dir() else 0 if os.access(there, os.W_OK | os.X_OK) else errno.EACCES
    with writing(out):
        if missing:
            raise OSError(missing, os.strerror(missing), str(there))


def write_files(out: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files by their paths below ``out``, and remove those of the report before that are not among them.

    Names of methods, tasks and options become parts of paths, and may be anything: a path that is not plain is an
    error in the suite (``links.slug`` makes plain ones), and nothing is written.
    """
    if strange := [name for name in contents if not PLAIN.fullmatch(name)]:
        raise ValueError(f"not a plain path below a report: {strange[0]!r}")
    with writing(out):
        listed = out / LISTED
        for name in listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else ():
            if name not in contents and PLAIN.fullmatch(name) and (out / name).resolve().is_relative_to(out.resolve()):
                (out / name).unlink(missing_ok=True)
        for name, content in contents.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)
        listed.write_text("".join(f"{name}\n" for name in sorted(contents)), encoding="utf-8")
    return [out / name for name in contents]
