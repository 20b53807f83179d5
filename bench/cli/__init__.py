"""The command line ``dfkd``: one file for each verb, which parses, calls and prints.

Nothing here computes, and importing it imports neither torch nor pandas.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

from bench.errors import MethodError, UserError
from bench.utils.text import cut, plain_lines

OK, FAILED, USER_ERROR, STOPPED = 0, 1, 2, 130
GO_ON_LATER = 75  # stopped as asked, and everything is saved; EX_TEMPFAIL of sysexits.h
LONGEST = 10_000  # characters of a complaint: it may quote a file of somebody else's
UNREAD = 141  # the reader of a pipe went away (`head`): what a shell reports of a program that SIGPIPE ended
FULL = {errno.ENOSPC, errno.EDQUOT}
NO_MEMORY = (
    "this machine has no memory left for it; free some, or run fewer trials at a time, and run the same command again"
)


def main() -> NoReturn:
    """The command ``dfkd``."""
    sys.exit(answer(sys.argv[1:]))


def answer(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; a user's mistake is one sentence, without a traceback."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character still gets the rest
    try:
        code = _call(arguments)
        sys.stdout.flush()
        return code
    except (UserError, MethodError) as error:
        return _complain(str(error))
    except BrokenPipeError:  # the reader (`head`) has seen enough
        _silence(sys.stdout)
        return UNREAD
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        if error.errno in FULL:
            return _complain(f"the disk is full{place}; free some space and run the same command again")
        if error.errno == errno.ENOMEM:
            return _complain(NO_MEMORY)
        if error.filename is None:
            raise
        return _complain(f"{error.filename}: {error.strerror}")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):  # torch's way to say it
            raise
        return _complain(NO_MEMORY)
    except KeyboardInterrupt:
        _tell("dfkd: stopped")
        return STOPPED


def _call(arguments: Sequence[str]) -> int:
    from typer import BadParameter
    from typer.main import get_command

    from bench.cli.app import app

    usage_error: type[Exception] = BadParameter.__bases__[0]  # typer has no public name for it
    try:
        code = get_command(app)(args=list(arguments), prog_name="dfkd", standalone_mode=False)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer answers it with 1, as a failure
            raise end.__context__ from None
        return end.code if isinstance(end.code, int) else OK
    except usage_error as error:
        return _misused(error)
    return code if isinstance(code, int) else OK


def _misused(error: Any) -> int:
    """Answer a command line that cannot be parsed; without any word, with the help."""
    from bench.cli.usage import usage_sentence

    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return USER_ERROR
    return _complain(usage_sentence(error))


def _complain(sentence: str) -> int:
    _tell(f"dfkd: {plain_lines(cut(sentence, LONGEST))}")
    return USER_ERROR


def _tell(sentence: str) -> None:
    try:
        print(sentence, file=sys.stderr, flush=True)
    except OSError:  # nobody reads it, or its disk is full: the exit code still says it
        _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """Let a stream that cannot be written lead nowhere: the flush at exit may not complain either."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_closed_streams() -> None:
    """Let streams that were closed (``>&-``) lead nowhere, before a file that we open gets their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
