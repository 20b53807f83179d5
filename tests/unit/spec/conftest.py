"""Fixtures for tests of declarations."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["here", pytest.param("process", marks=pytest.mark.slow)])
def _read_here_and_confined(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed declarations are read in this process and, slowly, in a confined one, which imports torch each time."""
    if request.param == "here":
        monkeypatch.setattr("bench.spec.confined_cards.available", lambda: None)
