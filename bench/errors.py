"""What a user sees: every user mistake gives one clear sentence and exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """A mistake that the user can fix. The message says what is wrong, where, and what is allowed.

    The command line prints the message without a traceback and exits with code 2.
    """


class ImagesRefused(UserError):
    """A network that does not take the images of a task. The message names it, and the images."""


class MissingData(UserError):
    """A data set's files are missing. The message names them, and the command or folder that fixes it."""


class MissingWeights(UserError):
    """A metric's weights file is missing. The message names it, and the command or folder that fixes it."""


class Unavailable(Exception):
    """A metric that cannot be measured here; the message says what is missing and what to do."""


class MethodError(Exception):
    """A method file breaks the contract of the Session (a share above 1, an unused optimiser, ...)."""


class Unsupported(MethodError):
    """A method asks for something that the networks of this task do not have.

    The trial's record says ``unsupported``, which is not a failure. A method may raise it itself.
    """


class AccessDenied(BaseException):
    """A method used more of the teacher than it declared.

    Not an ``Exception``: a method's own ``except Exception`` must not hide it.
    """


class DataLeak(BaseException):
    """A method reached for real data that it did not declare. Not an ``Exception``, like ``AccessDenied``."""


class Diverged(BaseException):
    """A loss or the student's weights became NaN or infinite."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint for an unknown name: ``; did you mean 'dafl'?``, or else the allowed names.

    >>> nearest("dalf", ["dafl", "zskd"])
    "; did you mean 'dafl'?"
    >>> nearest("qqq", ["dafl", "zskd"])
    '; allowed: dafl, zskd'
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    if not names:
        return ""
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"; allowed: {shown}"


def nearest_folder(folder: Path) -> str:
    """A hint for a folder that is not there: ``; did you mean 'images'?``; empty where none beside it is alike."""
    try:
        others = [each.name for each in folder.parent.iterdir() if each.is_dir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(folder.name, others, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def nearest_file(name: str, ending: str, folder: Path = Path()) -> str:
    """A hint where a file's ending was left out or its name misspelt: ``; did you mean the file 'mine.py'?``.

    Empty where there is no such file.

    Args:
        name: what a user wrote, a path.
        ending: of such files, as ``.py``.
        folder: where relative paths start.
    """
    try:
        if name and not name.endswith(ending) and (folder / f"{name}{ending}").is_file():
            return f"; did you mean the file {name + ending!r}?"
        written = Path(name)
        if written.suffix != ending:
            return ""
        others = [each.stem for each in (folder / written).parent.glob(f"*{ending}") if each.is_file()]
    except (OSError, ValueError):  # no name of a file: too long, or with a null byte
        return ""
    close = difflib.get_close_matches(written.stem, others, n=1, cutoff=0.6)
    return f"; did you mean the file {str(written.with_name(close[0] + ending))!r}?" if close else ""


def require_file(file: Path, what: str, ending: str) -> None:
    """Check that a file is there.

    Args:
        file: its path.
        what: what it is, for the message, such as ``checkpoint``.
        ending: of such files, as ``.py``.

    Raises:
        UserError: it is a folder, or missing; the message names the file that was meant.
    """
    if file.is_dir():
        raise UserError(f"{file} is a folder; name a {what}")
    if not file.is_file():
        raise UserError(f"no such {what}: {file}{nearest_file(str(file), file.suffix or ending)}")
