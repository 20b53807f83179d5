"""What git knows about a checkout: commits by name, their order, what was changed, other commits' files beside it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UserError, nearest
from bench.utils.text import shown

CODE = (".py", ".yaml", ".yml")  # files of these kinds that git does not know change what runs, too


@dataclass(frozen=True)
class Commit:
    """A commit, and what a reader wants to know about it.

    ``sha`` has 40 hex digits, or 64 in a SHA-256 repository; ``date`` is ISO 8601; ``subject`` is one line that may be
    shown anywhere: control characters and bytes in no valid encoding are written out.
    """

    sha: str
    date: str
    subject: str

    @property
    def short(self) -> str:
        return self.sha[:9]


def git(root: Path, *arguments: str, timeout: float | None = 60) -> str:
    """What a git command prints, run in ``root`` whatever the user's settings are.

    Bytes in no valid encoding are kept by surrogateescape, as file names have them.

    Raises:
        OSError, subprocess.SubprocessError: there is no git, or it failed; ``stderr`` says why.
    """
    done = _run(root, *arguments, timeout=timeout)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    return str(done.stdout).rstrip("\n")  # not strip: names may begin and end with blanks


def _run(root: Path, *arguments: str, timeout: float | None = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", str(root), *_SETTINGS, *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
        timeout=timeout,
        env=_environment(),
        stdin=subprocess.DEVNULL,
    )


def checkout_of(folder: Path) -> Path:
    """The top folder of the checkout that holds ``folder``.

    Raises:
        UserError: it is in none, git is not installed, or git refuses to read it; its words say why.
    """
    try:
        return Path(git(folder, "rev-parse", "--show-toplevel"))
    except FileNotFoundError:
        raise UserError("git is not installed; it is needed to identify commits") from None
    except subprocess.CalledProcessError as error:
        if "dubious ownership" in error.stderr:
            raise UserError(_dubious(folder, error.stderr)) from None
        raise UserError(f"{folder.resolve()} is not in a git checkout; change to one, or name it with --repo") from None
    except subprocess.SubprocessError as error:
        raise UserError(f"git does not answer in {folder.resolve()}: {error}") from None


def resolve(root: Path, name: str) -> Commit:
    """The commit that a tag, a branch, a hash or an expression such as ``main~2`` stands for.

    Raises:
        UserError: nothing or several things bear that name; the nearest tag or branch, or the candidates, are told.
    """
    try:
        done = _run(root, "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: a NUL in the name
        raise UserError(f"git cannot search for {name!r} in {root}") from None
    if done.returncode and ".." in name:
        raise UserError(f"{name!r} is a range of commits; name one commit, tag or branch")
    if "is ambiguous" in done.stderr:
        raise UserError(f"{name!r} is ambiguous in {root}: {', '.join(_candidates(root, name))}")
    if done.returncode != 0:
        cut = f"; {SHALLOW}" if is_shallow(root) else ""
        raise UserError(f"{root} has no commit, tag or branch {name!r}{nearest(name, _names(root))}{cut}")
    return commit(root, done.stdout.strip())


def commit(root: Path, sha: str) -> Commit:
    """A commit by its full hash."""
    return _commits(root, "--no-walk", sha)[0]


def line_of(root: Path, tip: str) -> list[Commit]:
    """The first-parent line that leads to ``tip``, oldest first: a merged branch is one step of it.

    In a shallow clone it begins where that was cut off; see :func:`is_shallow`.
    """
    return _commits(root, "--first-parent", "--reverse", tip)


def is_shallow(root: Path) -> bool:
    """Whether the clone holds only the last commits of its history."""
    return git(root, "rev-parse", "--is-shallow-repository") == "true"


def changes(root: Path, apart_from: Path | None = None) -> list[str]:
    """What differs from the current commit and could change a number, as paths.

    Every changed file that git knows counts, of the others code and YAML files, unless they are ignored, and whole
    checkouts inside: submodules that are not as the commit has them, and clones that git does not know.

    Args:
        root: the checkout.
        apart_from: a folder that does not count: where records are filed.
    """
    listed = git(
        root, "status", "--porcelain=v1", "--untracked-files=all", "--ignore-submodules=none", "--no-renames", "-z"
    )
    found = []
    for entry in listed.split("\0"):
        state, path = entry[:2], entry[3:]
        if not path:
            continue
        inside = apart_from is not None and (root / path).resolve().is_relative_to(apart_from.resolve())
        if not inside and (state != "??" or path.endswith(CODE) or _is_checkout(root / path)):
            found.append(path)
    return found


def fingerprint(root: Path, paths: list[str]) -> str:
    """Eight hex digits for the content of changed files: another change, another fingerprint.

    Of a checkout inside it is that of its commit and of its own changes.
    """
    return str(_digest(root, paths).hexdigest())[:8]


def _digest(root: Path, paths: list[str]) -> Any:
    digest = hashlib.sha256()
    for path in sorted(paths):
        file = root / path
        content = b""
        if _is_checkout(file):
            head = _run(file, "rev-parse", "HEAD").stdout.strip()
            content = f"{head} {_digest(file, changes(file)).hexdigest()}".encode()
        elif file.is_symlink():
            content = os.fsencode(file.readlink())
        elif file.is_file():
            content = file.read_bytes()
        digest.update(os.fsencode(path) + b"\0" + content + b"\0")
    return digest


def _is_checkout(path: Path) -> bool:
    return path.is_dir() and (path / ".git").exists()


@contextmanager
def worktree(root: Path, sha: str) -> Iterator[Path]:
    """A temporary checkout of a commit beside the user's own, which stays as it is; gone at the end.

    Raises:
        UserError: git cannot check the commit out; nothing is left behind.
    """
    with tempfile.TemporaryDirectory(prefix="dfkd-bisect-") as scratch:
        folder = Path(scratch) / "checkout"
        try:
            done = _run(root, "worktree", "add", "--detach", "--quiet", str(folder), sha, timeout=None)
            if done.returncode:
                reason = shown(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "git says no more")
                raise UserError(f"git cannot check out {sha[:9]} of {root}: {reason}")
            yield folder
        finally:
            _run(root, "worktree", "remove", "--force", str(folder))
            shutil.rmtree(folder, ignore_errors=True)
            _run(root, "worktree", "prune")


SHALLOW = "the history ends here, since the clone is shallow: `git fetch --unshallow` brings the rest"


def _commits(root: Path, *which: str) -> list[Commit]:
    """Commits in git's order; fields are separated by NUL, which no commit can hold."""
    fields = git(root, "log", "-z", "--no-show-signature", "--format=tformat:%H%x00%cI%x00%s", *which, "--").split("\0")
    whole = zip(fields[0::3], fields[1::3], fields[2::3], strict=False)  # the last one ends with a NUL, too
    return [Commit(sha, date, shown(subject) or "(no subject)") for sha, date, subject in whole]


def _dubious(folder: Path, words: str) -> str:
    """Git's own words about a repository of another owner, and its remedy."""
    lines = [shown(line.strip()) for line in words.splitlines() if line.strip()]
    first = next((line for line in lines if "dubious ownership" in line), lines[0]).removeprefix("fatal: ")
    remedy = next((line for line in lines if "safe.directory" in line), "")
    return f"git does not read {folder.resolve()}: {first}" + (f"; its remedy: `{remedy}`" if remedy else "")


def _candidates(root: Path, name: str) -> list[str]:
    """What an ambiguous name may stand for: tags and branches of that name, or the commits whose hash begins so."""
    refs = git(root, "for-each-ref", "--format=%(refname)").splitlines()
    same = [ref for ref in refs if ref in (f"refs/tags/{name}", f"refs/heads/{name}", f"refs/remotes/{name}")]
    if same:
        return [shown(ref) for ref in same]
    hashes = git(root, "rev-parse", f"--disambiguate={name}").splitlines()
    return [sha[:16] for sha in hashes if git(root, "cat-file", "-t", sha) == "commit"]


def _names(root: Path) -> list[str]:
    names = git(root, "for-each-ref", "--format=%(refname:short)", "refs/tags", "refs/heads").splitlines()
    return [shown(name) for name in names]


# Whatever the user has set: nothing is coloured, paged, signed, renamed, quoted, mapped or left out, and no hook or
# monitor of theirs runs.
_SETTINGS = [
    each
    for setting in (
        "color.ui=false",
        "core.fsmonitor=false",
        f"core.hooksPath={os.devnull}",
        "core.pager=cat",
        "core.quotePath=false",
        "core.untrackedCache=false",
        "diff.ignoreSubmodules=none",
        "diff.renames=false",
        "i18n.logOutputEncoding=UTF-8",
        "log.follow=false",
        "log.mailmap=false",
        "log.showSignature=false",
        "status.renames=false",
        "status.showUntrackedFiles=all",
        "status.submoduleSummary=false",
        "submodule.recurse=false",
    )
    for each in ("-c", setting)
]


def _environment() -> dict[str, str]:
    """Git's own words in English, and the folder as told: a hook sets variables that point elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    return {**kept, "LC_ALL": "C", "GIT_PAGER": "cat", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


_ELSEWHERE = {
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY",
    "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF", "GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_ICASE_PATHSPECS",
    "GIT_TRACE", "GIT_CEILING_DIRECTORIES", "GIT_DEFAULT_HASH",
}  # fmt: skip
