"""Every built-in method holds the whole contract."""

from __future__ import annotations

import pytest

from bench.cards import find_methods
from bench.check import run_battery

pytestmark = pytest.mark.slow  # a quarter of a minute for each method


@pytest.mark.parametrize("name", sorted(find_methods()))
def test_method_passes_the_battery(name: str) -> None:
    failed = [finding for finding in run_battery(find_methods()[name]) if not finding.ok]
    assert not failed


def test_no_method_declares_more_access_than_it_uses() -> None:
    for name, card in find_methods().items():
        findings = run_battery(card, only={"access"})
        assert "as declared" in findings[0].message, name
