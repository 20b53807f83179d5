"""A report's files on disk: nowhere among records, and without pages that an earlier report has left there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.errors import UserError
from bench.records.folder import writing

LISTED = ".report-files"  # what the last report into a folder has written, a path a line


def check_place(out: Path, results: Path) -> None:
    """Raise UserError for a place where pages would lie among records."""
    place, own = out.resolve(), results.resolve()
    taken = place == own or any((own / name) in (place, *place.parents) for name in ("trials", "work"))
    if taken or (place / "results.json").exists():
        raise UserError(f"{out} contains records; a report needs a separate folder, such as {results / 'report'}")


def write_files(out: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files by their paths below ``out``, and remove those of the report before that are not among them."""
    with writing(out):
        listed = out / LISTED
        for name in listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else ():
            if name not in contents and (out / name).resolve().is_relative_to(out.resolve()):
                (out / name).unlink(missing_ok=True)
        for name, content in contents.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)
        listed.write_text("".join(f"{name}\n" for name in sorted(contents)), encoding="utf-8")
    return [out / name for name in contents]
