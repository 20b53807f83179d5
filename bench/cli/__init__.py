"""The command line ``dfkd``: one file for each verb, which parses, calls and prints.

Nothing here computes, and importing it imports neither torch nor pandas.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from bench.errors import MethodError, UserError
from bench.utils.text import cut, plain_lines

OK, FAILED, USER_ERROR, STOPPED = 0, 1, 2, 130
LONGEST = 10_000  # characters of a complaint: it may quote a file of somebody else's
FULL = {errno.ENOSPC, errno.EDQUOT}


def main() -> NoReturn:
    """The command ``dfkd``."""
    sys.exit(answer(sys.argv[1:]))


def answer(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; a user's mistake is one sentence, without a traceback."""
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
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may the flush at exit complain
        return OK
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        if error.errno in FULL:
            return _complain(f"the disk is full{place}; free some space and run the same command again")
        if error.filename is None:
            raise
        return _complain(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        print("dfkd: stopped", file=sys.stderr)
        return STOPPED


def _call(arguments: Sequence[str]) -> int:
    from typer.main import get_command

    from bench.cli.app import app

    try:
        get_command(app)(args=list(arguments), prog_name="dfkd")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else OK
    return OK


def _complain(sentence: str) -> int:
    print(f"dfkd: {plain_lines(cut(sentence, LONGEST))}", file=sys.stderr)
    return USER_ERROR
