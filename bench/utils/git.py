"""What git knows of a checkout: commits by name, their order, what was changed, and other commits' files beside it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError, nearest

CODE = (".py", ".yaml", ".yml")  # files of these kinds that git does not know change what runs, too


@dataclass(frozen=True)
class Commit:
    """A commit, and what a reader wants to know of it; ``date`` is ISO 8601."""

    sha: str
    date: str
    subject: str

    @property
    def short(self) -> str:
        return self.sha[:9]


def git(root: Path, *arguments: str, timeout: float | None = 60) -> str:
    """What a git command prints, run in ``root``.

    Raises:
        OSError, subprocess.SubprocessError: there is no git, or it failed; ``stderr`` says why.
    """
    done = subprocess.run(
        ["git", "-C", str(root), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=timeout,
        env=_environment(),
    )
    return done.stdout.rstrip()  # not strip: `status` begins lines with blanks


def checkout_of(folder: Path) -> Path:
    """The top folder of the checkout that holds ``folder``.

    Raises:
        UserError: it is in none, or git is not installed.
    """
    try:
        return Path(git(folder, "rev-parse", "--show-toplevel"))
    except FileNotFoundError:
        raise UserError("git is not installed; it is needed to identify commits") from None
    except subprocess.SubprocessError:
        raise UserError(f"{folder.resolve()} is not in a git checkout; change to one, or name it with --repo") from None


def resolve(root: Path, name: str) -> Commit:
    """The commit that a tag, a branch, a hash or an expression such as ``main~2`` stands for.

    Raises:
        UserError: nothing or several things bear that name; the nearest tag or branch, or the candidates, are told.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}"],
            capture_output=True,
            text=True,
            check=False,
            env=_environment(),
        )
    except (OSError, ValueError):  # ValueError: a NUL in the name
        raise UserError(f"git cannot search for {name!r} in {root}") from None
    if "is ambiguous" in done.stderr:
        raise UserError(f"{name!r} is ambiguous in {root}: {', '.join(_candidates(root, name))}")
    if done.returncode != 0:
        raise UserError(f"{root} has no commit, tag or branch {name!r}{nearest(name, _names(root))}")
    return commit(root, done.stdout.strip())


def commit(root: Path, sha: str) -> Commit:
    """A commit by its full hash."""
    return _parse(git(root, "log", "--no-walk", _FORMAT, sha))


def line_of(root: Path, tip: str) -> list[Commit]:
    """The first-parent line that leads to ``tip``, oldest first: a merged branch is one step of it."""
    return [_parse(line) for line in git(root, "log", "--first-parent", "--reverse", _FORMAT, tip).splitlines()]


def changes(root: Path, apart_from: Path | None = None) -> list[str]:
    """What differs from the current commit and could change a number, as paths.

    Every changed file that git knows counts, and of the others code and YAML files, unless they are ignored.

    Args:
        root: the checkout.
        apart_from: a folder that does not count: where records are filed.
    """
    listed = git(root, "-c", "core.quotePath=false", "status", "--porcelain", "--untracked-files=all", "-z")
    found = []
    entries = iter(listed.split("\0"))
    for entry in entries:
        state, path = entry[:2], entry[3:]
        if not path:
            continue
        if "R" in state or "C" in state:
            next(entries)  # the old name
        inside = apart_from is not None and (root / path).resolve().is_relative_to(apart_from.resolve())
        if not inside and (state != "??" or path.endswith(CODE)):
            found.append(path)
    return found


def fingerprint(root: Path, paths: list[str]) -> str:
    """Eight hex digits for the content of changed files: another change, another fingerprint."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        file = root / path
        digest.update(path.encode() + b"\0" + (file.read_bytes() if file.is_file() else b"") + b"\0")
    return digest.hexdigest()[:8]


@contextmanager
def worktree(root: Path, sha: str) -> Iterator[Path]:
    """A temporary checkout of a commit beside the user's own, which stays as it is; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="dfkd-bisect-") as scratch:
        folder = Path(scratch) / "checkout"
        git(root, "worktree", "add", "--detach", "--quiet", str(folder), sha)
        try:
            yield folder
        finally:
            git(root, "worktree", "remove", "--force", str(folder))


_FORMAT = "--format=%H%x09%cI%x09%s"


def _parse(line: str) -> Commit:
    sha, date, subject = line.split("\t", 2)
    return Commit(sha, date, subject)


def _candidates(root: Path, name: str) -> list[str]:
    """What an ambiguous name may stand for: tags and branches of that name, or the commits whose hash begins so."""
    refs = git(root, "for-each-ref", "--format=%(refname)").splitlines()
    same = [ref for ref in refs if ref in (f"refs/tags/{name}", f"refs/heads/{name}", f"refs/remotes/{name}")]
    if same:
        return same
    hashes = git(root, "rev-parse", f"--disambiguate={name}").splitlines()
    return [sha[:16] for sha in hashes if git(root, "cat-file", "-t", sha) == "commit"]


def _names(root: Path) -> list[str]:
    return git(root, "for-each-ref", "--format=%(refname:short)", "refs/tags", "refs/heads").splitlines()


def _environment() -> dict[str, str]:
    """Git's own words in English, and the folder as told: a hook sets variables that point elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    return {**kept, "LC_ALL": "C"}


_ELSEWHERE = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX"}
