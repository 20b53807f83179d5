"""Whether what runs should save itself and stop: because of a signal, or because its time is over.

Long work asks :func:`asked` where it can save itself, saves, and raises :class:`Stopped`.
"""

from __future__ import annotations

import datetime
import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from bench.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
TWICE = 1.0  # seconds: `timeout` sends its signal to the command and to its group, which is one signal
_PARTS = (("h", 3600.0), ("m", 60.0), ("s", 1.0))
_DURATION = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit, _ in _PARTS))
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")


class Stopped(KeyboardInterrupt):
    """The work stopped as asked; all of it is saved, and the same call continues."""

    def __init__(self, reason: str, late: int = 0) -> None:
        """``reason`` says who asked; ``late`` is how many trials did not save themselves in time: they continue from
        their last checkpoint."""
        super().__init__(reason)
        self.reason = reason
        self.late = late


@dataclass
class _Listening:
    ends: float  # as time.time() has it
    reason: str = ""
    first: float = 0.0  # when Ctrl-C was pressed, as time.monotonic() has it


_listening: list[_Listening] = []


def asked() -> str:
    """Why to stop: the name of a signal, or that the time is over; empty while nobody wants it."""
    if not _listening:
        return ""
    here = _listening[0]
    if not here.reason and time.time() >= here.ends:
        here.reason = "its time is over"
    return here.reason


def ask(reason: str) -> None:
    """Have :func:`asked` say this, unless it says something already or nobody listens."""
    if _listening:
        _listening[0].reason = _listening[0].reason or reason


@contextmanager
def listening(ends: float = float("inf"), signals: Sequence[signal.Signals] = SIGNALS) -> Iterator[None]:
    """Inside, the signals and the time ``ends`` (as ``time.time()`` has it) set what :func:`asked` says.

    Ctrl-C counts even where it was ignored when this process started, as in a background job of a script. A second
    Ctrl-C, more than ``TWICE`` seconds later, raises KeyboardInterrupt wherever the program is: what has not been saved
    is lost. Signals reach the main thread only. An inner call changes nothing but an earlier ``ends``.
    """
    if _listening:
        _listening[0].ends = min(_listening[0].ends, ends)
        yield
        return
    here = _Listening(ends)

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if number == signal.SIGINT:
            if here.first and now - here.first > TWICE:
                raise KeyboardInterrupt
            here.first = here.first or now
        here.reason = here.reason or ("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, on_signal) for number in signals} if main else {}
    _listening.append(here)
    try:
        yield
    finally:
        _listening.clear()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def stop_time(after: str | None, at: str | None, now: float | None = None) -> float:
    """When to stop, as ``time.time()`` has it: after a duration or at a time of day, whichever comes first.

    Args:
        after: such as ``9m``, ``90s`` or ``1h30m``; None: no such limit.
        at: ``HH:MM`` or ``HH:MM:SS`` of this machine's clock, today or else tomorrow; None: no such limit.
        now: the time; the clock's, if not given.

    Raises:
        UserError: they are not written like this, or the duration is 0.
    """
    now = time.time() if now is None else now
    ends = float("inf")
    if after is not None:
        ends = now + seconds_of(after)
    if at is not None:
        found = _CLOCK.fullmatch(at.strip())
        if found is None:
            raise UserError(f"--stop-at must be a time of day such as 14:30 or 14:30:15, not {at}")
        hour, minute, second = (int(part or 0) for part in found.groups())
        here = datetime.datetime.fromtimestamp(now)  # local time, as the user's watch has it
        then = here.replace(hour=hour, minute=minute, second=second, microsecond=0)
        if then <= here:
            then += datetime.timedelta(days=1)
        ends = min(ends, then.timestamp())
    return ends


def seconds_of(duration: str, option: str = "--stop-after", other: str = "") -> float:
    """The seconds of a duration in hours, minutes and seconds.

    ``option`` is where it was written, and ``other`` what it could be instead, in words for the complaint.

    >>> seconds_of("9m"), seconds_of("1h30m"), seconds_of("0.5s")
    (540.0, 5400.0, 0.5)

    Raises:
        UserError: it is none, or is 0.
    """
    found = _DURATION.fullmatch(duration.strip().replace(" ", ""))
    numbers = found.groups() if found else ()
    total = sum(float(number) * factor for number, (_, factor) in zip(numbers, _PARTS, strict=False) if number)
    if not total:
        raise UserError(f"{option} must be a duration such as 9m, 90s or 1h30m{other}, not {duration}")
    return total


def signal_name(number: int) -> str:
    """Its name, or its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time one
        return f"signal {number}"
