"""Every built-in method holds the whole contract."""

from __future__ import annotations

import pytest
from method_kinds import others_slow

from bench.execution.contract import run_battery
from bench.spec.method_registry import find_methods


@pytest.mark.parametrize("name", others_slow(find_methods().values()))  # a quarter of a minute for each
def test_method_passes_the_battery(name: str) -> None:
    findings = run_battery(find_methods()[name])
    assert not [finding for finding in findings if not finding.ok]
    (access,) = (finding for finding in findings if finding.name == "access")
    assert "as declared" in access.message  # a built-in method declares no more than it uses
