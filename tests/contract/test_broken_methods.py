"""What the battery is for: each of these files breaks one rule, and the battery says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cards import read_cards
from bench.check import Finding, run_battery

HERE = Path(__file__).parent
CAUGHT = {
    "peeks": ("runs", "leaked: the method opened real data: digits.csv.gz"),
    "swallows": ("runs", "leaked: the method opened real data: digits.csv.gz"),
    "too_curious": ("runs", "denied: the method uses the teacher's features, but declares Access.GRADIENTS"),
    "moves_the_teacher": ("runs", "denied: the method changed the teacher's weights or statistics"),
    "explodes": ("runs", "diverged: a loss became NaN or infinite"),
    "hidden_optimizer": ("runs", "crashed: an optimiser (Adam) is used but not kept"),
    "lazy": ("trains the student", "the same at the end as at the start"),
    "detached_generator": ("gradients", "optimiser 'opt_g': no gradient ever reaches generator.0.weight"),
    "half_detached": ("gradients", "optimiser 'opt_g': no gradient ever reaches generator.0.weight"),
    "unseeded": ("reproducible", "ends with another student"),
    "forgets_state": ("resumes", "ends with another student"),
    "dead_temperature": ("options", "'temperature' (4.0, 8.0"),
}


def check(file: Path, only: set[str] | None = None) -> list[Finding]:
    (card,) = read_cards(file)
    return run_battery(card, method_files=(file,), only=only)


def test_the_list_is_complete() -> None:
    assert set(CAUGHT) == {file.stem for file in (HERE / "broken").glob("*.py")}


@pytest.mark.parametrize("name", sorted(CAUGHT))
def test_broken_method_is_caught(name: str) -> None:
    wanted, message = CAUGHT[name]
    findings = check(HERE / "broken" / f"{name}.py", only={wanted})
    assert [finding.ok for finding in findings] == [False]
    assert message in findings[0].message


def test_reaching_into_the_harness_is_named_with_its_line() -> None:
    (finding,) = check(HERE / "broken" / "moves_the_teacher.py", only={"imports"})
    assert not finding.ok
    assert finding.message.startswith("line 8: bench.desk is the harness's own")


def test_twenty_line_method_passes() -> None:
    assert [finding for finding in check(HERE / "good" / "one_hot.py") if not finding.ok] == []


def test_undeclared_access_is_noted(tmp_path: Path) -> None:
    source = (HERE / "good" / "one_hot.py").read_text(encoding="utf-8")
    file = tmp_path / "modest.py"
    file.write_text(source.replace("Access.GRADIENTS", "Access.BATCH_NORM"), encoding="utf-8")
    (finding,) = check(file, only={"access"})
    assert finding.ok
    assert finding.message == "declares batch-norm, but uses only gradients: declare less"
