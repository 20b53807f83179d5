"""Every built-in method holds the whole contract."""

from __future__ import annotations

import pytest
from method_kinds import one_of_each_kind

from bench.execution.contract import run_battery
from bench.spec.method_registry import find_methods

KINDS = set(one_of_each_kind(find_methods().values()).values())


class AllBut(frozenset[str]):
    """Every check but these."""

    def __contains__(self, name: object) -> bool:
        return not super().__contains__(name)


def holds(name: str, only: AllBut, isolation: str = "auto") -> None:
    findings = run_battery(find_methods()[name], only=only, isolation=isolation)
    assert not [finding for finding in findings if not finding.ok]
    (access,) = (finding for finding in findings if finding.name == "access")
    assert "as declared" in access.message  # a built-in method declares no more than it uses


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_method_of_each_kind_passes_the_battery(name: str) -> None:
    # Without a trial for each option, and in this process: both take as much time again. A separate process gives the
    # same bits (test_isolated_methods.py), and the battery's own tests run their methods in one.
    holds(name, AllBut({"options"}), isolation="none")


@pytest.mark.slow
@pytest.mark.parametrize("name", find_methods())
def test_method_passes_the_battery(name: str) -> None:
    holds(name, AllBut())


@pytest.mark.parametrize("name", ["noise"])
def test_every_option_of_a_method_changes_the_outcome(name: str) -> None:
    (finding,) = run_battery(find_methods()[name], only={"options"})
    assert finding.ok, finding.message
