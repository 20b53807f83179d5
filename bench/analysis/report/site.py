"""A site of many studies: one front page, and behind it a report of each; or, to be kept in git, a summary of each.

A study that has not changed since, nor the code that shows it, is not rendered again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from bench.analysis.report import report_files, summary_files
from bench.analysis.report.pages.boards import FIGURES, FOLDERS, asked_figures, board_files
from bench.analysis.report.pages.links import INDEX, slug
from bench.analysis.report.pages.method import installed_methods
from bench.analysis.report.pages.site import (
    HOME,
    Entry,
    PublishedStudy,
    describe,
    front_page,
    published_of,
    quoted_of,
    readme,
    standings_of,
    with_way_home,
)
from bench.analysis.report.pages.writing import LISTED, check_place, write_files
from bench.errors import UserError
from bench.records import is_archive, open_results, trial_folders
from bench.records.folder import ARCHIVE, writing
from bench.records.foreign import is_there
from bench.utils.paths import PACKAGE

README = "README.md"
MADE = ".made.json"  # in a study's folder: from what it was rendered, and what the front page says of it
LIBRARIES = ("matplotlib", "numpy", "pillow", "scipy", "jinja2")  # those whose version can change a page


@dataclass(frozen=True)
class Made:
    """What became of a site: its front page, the studies that were rendered now, and those that were not."""

    front: Path
    rendered: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True)
class _SiteJob:
    study: PublishedStudy
    out: Path
    key: str
    summary: bool
    trial_pages: int | None


def make_site(
    studies: Sequence[PublishedStudy],
    out: Path,
    *,
    summary: bool = False,
    trial_pages: int | None = None,
    processes: int = 1,
    told: Callable[[str], None] = lambda _: None,
) -> Made:
    """Write the site of these studies.

    Args:
        studies: with different names, and where the records of each are.
        out: the front page goes to ``out/index.html``, a study to ``out/NAME/``; made if missing. A study that an
            earlier site had here and this one has not is removed.
        summary: write ``out/README.md``, with a figure of each task whose studies differ much in length, and of each
            study ``leaderboard.md`` with one or two figures instead.
        trial_pages: how many trials of a study get a page at most; None: all.
        processes: how many studies are rendered side by side; they import the caller's main module.
        told: the name of each study when it is done.

    Raises:
        UserError: there is no study, two have one name, records are damaged, or ``out`` holds records or other files.
    """
    _check(studies, out)
    mode = f"{'summary' if summary else 'site'} {trial_pages}"
    keys = {each.name: _key(open_results(each.results), mode) for each in studies}
    known = {each.name: _known(out / each.name, keys[each.name]) for each in studies}
    jobs = [_SiteJob(each, out, keys[each.name], summary, trial_pages) for each in studies if known[each.name] is None]
    entries = {name: entry for name, entry in known.items() if entry is not None}
    for entry in _rendered(jobs, processes):
        entries[entry.name] = entry
        told(entry.name)
    ordered = [entries[name] for name in sorted(entries)]
    found, quoted = standings_of(ordered), quoted_of(ordered)
    if summary:
        drawn = asked_figures(found, quoted)
        places = {task: f"{FIGURES}/{slug(task)}.png" for task in drawn}
        front = {README: readme(ordered, places).encode()} | {places[task]: drawn[task] for task in drawn}
    else:
        front = {INDEX: front_page(ordered).encode()} | board_files(found, HOME, published_of(ordered), quoted)
    _remove_others(out, set(entries))
    file, *_ = write_files(out, front)
    done = tuple(sorted(job.study.name for job in jobs))
    return Made(file, done, tuple(sorted(set(entries) - set(done))))


def studies_of(places: Sequence[Path], below: Callable[[Path], Sequence[Path]]) -> list[PublishedStudy]:
    """The studies of results folders, archives, and folders of them; what is filed under a commit is none.

    Args:
        places: as the user named them. A folder of several gives each the name of its path below that folder.
        below: finds the results folders and archives below a folder.

    Raises:
        UserError: one of them holds no results.
    """
    found: list[PublishedStudy] = []
    for place in places:
        inside = below(place) if place.is_dir() else [place]
        if not inside:
            raise UserError(f"there are no results in {place}; name results folders, archives, or a folder of them")
        for results in inside:
            folder = (
                results.parent if results.name == ARCHIVE else results.with_suffix("") if results.is_file() else results
            )
            if len(inside) > 1 and len(folder.name.partition("-")[0]) == 40:
                continue
            name = (
                folder.relative_to(place).as_posix()
                if folder != place and folder.is_relative_to(place)
                else folder.name
            )
            found.append(PublishedStudy(name, open_results(results)))
    return found


def _check(studies: Sequence[PublishedStudy], out: Path) -> None:
    if not studies:
        raise UserError("there is no study to show; name results folders or archives")
    names = [each.name for each in studies]
    if taken := [name for name in names if name.split("/")[0] in FOLDERS]:
        raise UserError(f"a site has folders {', '.join(FOLDERS)} of its own: no study can be called {taken[0]!r}")
    for each in studies:
        if names.count(each.name) > 1:
            twins = " and ".join(str(other.results) for other in studies if other.name == each.name)
            raise UserError(f"{twins} would both be shown as {each.name!r}; name a folder that holds both")
        check_place(out, each.results)
        check_place(out / each.name, each.results)


def _key(results: Path, mode: str) -> str:
    """A hash of everything that a study's pages are made of."""
    found = hashlib.sha256(f"{mode}\n{_code()}\n".encode())
    files = [results] if is_archive(results) else sorted(file for file in _read(results) if is_there(file))
    for file in files:
        found.update(f"{file.relative_to(results).as_posix()}\n".encode())
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()


def _read(results: Path) -> Iterator[Path]:
    """The files of a results folder that a report reads."""
    yield from (results / name for name in ("study.yaml", "tasks.json"))
    for trial in trial_folders(results):
        yield from (trial / name for name in ("record.json", "curve.jsonl", "images.png", "images.webp", "log.txt"))


@cache
def _code() -> str:
    """A hash of the code of the suite and of the installed methods, and of the libraries that draw."""
    files = {file for kind in ("py", "html", "css", "js", "yaml") for file in PACKAGE.rglob(f"*.{kind}")}
    files |= {Path(card.file) for card in installed_methods().values() if card.file is not None}
    found = hashlib.sha256(json.dumps([importlib.metadata.version(name) for name in LIBRARIES]).encode())
    for file in sorted(files):
        found.update(file.read_bytes())
    return found.hexdigest()


def _known(folder: Path, key: str) -> Entry | None:
    """What the front page says of a study that is there already as it would be rendered; None where it is not."""
    try:
        made = json.loads((folder / MADE).read_text(encoding="utf-8"))
        listed = (folder / LISTED).read_text(encoding="utf-8").splitlines()
        whole = made["key"] == key and all((folder / name).is_file() for name in listed)
        return Entry(**made["entry"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _rendered(jobs: Sequence[_SiteJob], processes: int) -> Iterator[Entry]:
    if processes < 2 or len(jobs) < 2:
        yield from map(_render, jobs)
        return
    largest_first = sorted(jobs, key=lambda job: -_size(job.study.results))
    pool = ProcessPoolExecutor(min(processes, len(jobs)), multiprocessing.get_context("spawn"))
    try:
        for done in as_completed([pool.submit(_render, job) for job in largest_first]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _size(results: Path) -> int:
    return results.stat().st_size if results.is_file() else 1_000 * sum(1 for _ in results.glob("trials/*"))


def _render(job: _SiteJob) -> Entry:
    folder, results, depth = job.out / job.study.name, job.study.results, job.study.name.count("/") + 1
    (folder / MADE).unlink(missing_ok=True)  # until all is written again
    if job.summary:
        said = f"[All studies]({'../' * depth}{README}). This is a summary; `make site` renders the whole report."
        contents, groups = summary_files(results, said)
    else:
        contents, groups = report_files(results, job.trial_pages)
        contents = {path: with_way_home(content, path, depth) for path, content in contents.items()}
    entry = describe(job.study, groups)
    write_files(folder, contents)
    with writing(folder):
        (folder / MADE).write_text(json.dumps({"key": job.key, "entry": asdict(entry)}) + "\n", encoding="utf-8")
    return entry


def _remove_others(out: Path, names: set[str]) -> None:
    """Remove the studies of an earlier site that this one does not have, with everything it wrote about them."""
    if not out.is_dir():
        return
    with writing(out):
        for marker in sorted(out.rglob(MADE)):
            folder = marker.parent
            if folder.relative_to(out).as_posix() not in names:
                write_files(folder, {})  # which removes what is listed, and nothing else
                marker.unlink()
                (folder / LISTED).unlink()
                for inner in sorted((each for each in folder.rglob("*") if each.is_dir()), reverse=True):
                    _remove_empty(inner)
                while folder != out:
                    _remove_empty(folder)
                    folder = folder.parent


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
