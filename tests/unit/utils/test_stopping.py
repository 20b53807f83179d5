"""Stopping: by signals, by durations, by the time of day."""

from __future__ import annotations

import datetime
import os
import signal
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UserError
from bench.utils import stopping
from bench.utils.stopping import SIGNALS, asked, listening, seconds_of, stop_time

NOON = datetime.datetime(2026, 3, 5, 12, 0, 0).timestamp()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_asks_once_and_its_handler_is_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with listening():
        assert asked() == ""
        os.kill(os.getpid(), number)
        assert asked() == ("Ctrl-C" if number == signal.SIGINT else number.name)
        os.kill(os.getpid(), number)  # as `timeout` does: to the command, and to its group
        assert asked()
    assert signal.getsignal(number) == before
    assert asked() == ""


def test_a_second_ctrl_c_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "TWICE", 0.0)
    with listening(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # a scheduler that says it again wants nothing else
        os.kill(os.getpid(), signal.SIGINT)
        assert asked() == "SIGTERM"
        time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_counts_where_it_was_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with listening():
            os.kill(os.getpid(), signal.SIGINT)
            assert asked() == "Ctrl-C"
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_earliest_of_several_times_counts() -> None:
    with listening(time.time() + 1000), listening(time.time() - 1):
        assert asked() == "its time is over"


def test_outside_the_main_thread_only_the_time_counts() -> None:
    found = []

    def work() -> None:
        with listening(time.time() - 1):
            found.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["its time is over"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("9m", 540), ("90s", 90), ("1h30m", 5400), ("0.5s", 0.5), ("1h 1m 1s", 3661), ("2h", 7200)]
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "9", "m", "9 minutes", "-9m", "0s", "0h0m", "9m1h", "nanm", "9m9m", "1e3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="a duration such as 9m"):
        seconds_of(text)


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 999))
def test_durations_are_sums(hours: int, minutes: int, seconds: int) -> None:
    if hours or minutes or seconds:
        assert seconds_of(f"{hours}h{minutes}m{seconds}s") == 3600 * hours + 60 * minutes + seconds


@pytest.mark.parametrize(
    ("at", "hours"), [("12:30", 0.5), ("11:30", 23.5), ("12:00", 24), ("12:00:36", 0.01), ("9:00", 21)]
)
def test_a_time_of_day_is_the_next_one(at: str, hours: float) -> None:
    assert stop_time(None, at, NOON) == NOON + 3600 * hours


@pytest.mark.parametrize("at", ["", "24:00", "12:60", "12", "noon", "12:00:99", "2026-03-05T12:00"])
def test_what_is_no_time_of_day_is_refused(at: str) -> None:
    with pytest.raises(UserError, match=r"a time of day such as 14:30"):
        stop_time(None, at, NOON)


def test_the_earlier_of_both_counts() -> None:
    assert stop_time("9m", "12:05", NOON) == NOON + 300
    assert stop_time("2m", "12:05", NOON) == NOON + 120
    assert stop_time(None, None, NOON) == float("inf")
