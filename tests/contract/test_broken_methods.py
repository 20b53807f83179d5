"""What the battery is for: each change below breaks one rule in a good method, and the battery says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.execution.contract import Finding, run_battery
from bench.execution.contract.battery import CHECKS
from bench.spec.method_registry import read_cards

GOOD = Path(__file__).parent / "good" / "one_hot.py"
IMPORT = "from torch.nn import functional as F\n"
GENERATE = "images = generator(s.noise(o.batch, 32))\n"
LOOP = '    for _ in s.steps("train"):\n'
UPDATE = "s.update(opt_g, F.cross_entropy(logits, logits.argmax(1)))\n"
DISTILL = "s.distill(opt_s, images, logits=logits, temperature=o.temperature)\n"

# What is wrong: the changes (old, new), the check that finds it, and what it says.
Broken = tuple[list[tuple[str, str]], str, str]
BROKEN: dict[str, Broken] = {
    "trains on scikit-learn's real digits": (
        [
            (IMPORT, f"import torch\nfrom sklearn.datasets import load_digits\n{IMPORT}"),
            (
                LOOP,
                "    pixels = torch.from_numpy(load_digits().images / 16).float()[:, None]\n"
                f"    real = F.interpolate(pixels, size=s.task.image.size)\n{LOOP}",
            ),
            (GENERATE, f"{GENERATE[:-1]} + real[: o.batch]\n"),
        ],
        "runs",
        "leaked: the method opened real data: digits.csv.gz",
    ),
    "reaches for real data and hides the refusal": (
        [
            (IMPORT, f"from sklearn.datasets import load_digits\n{IMPORT}"),
            (
                LOOP,
                "    try:\n        load_digits()\n"
                f"    except BaseException:\n        print('nothing to see here')\n{LOOP}",
            ),
        ],
        "runs",
        "leaked: the method opened real data: digits.csv.gz",
    ),
    "declares gradients and uses features": (
        [(UPDATE, f"s.teacher(images, features=True)\n        {UPDATE}")],
        "runs",
        "denied: the method uses the teacher's features, but declares Access.GRADIENTS",
    ),
    "reaches into the harness and changes the teacher": (
        [
            ("from bench import Access", "from bench.harness.trial_context import current\nfrom bench import Access"),
            (LOOP, f"{LOOP}        next(current()._teachers[0].network.parameters()).data.mul_(1.0001)\n"),
        ],
        "runs",
        "denied: the method changed the teacher's weights or statistics",
    ),
    "has a learning rate that makes the loss NaN": (
        [("option(0.002,", "option(1e30,")],
        "runs",
        "diverged: a loss became NaN or infinite",
    ),
    "does not keep the student's optimiser": (
        [('s.keep("opt_s", Adam(s.student.parameters(), o.lr_student))', "Adam(s.student.parameters(), o.lr_student)")],
        "runs",
        "crashed: an optimiser (Adam) is used but not kept",
    ),
    "never trains the student": ([(DISTILL, "")], "trains the student", "the same at the end as at the start"),
    "detaches the images before the teacher sees them": (
        [
            ("s.teacher(images)", "s.teacher(images.detach())"),
            ("logits.argmax(1)))", "logits.argmax(1)) + 0 * images.mean())"),
        ],
        "gradients",
        "optimiser 'opt_g': no gradient ever reaches generator.0.weight",
    ),
    "trains only the second half of the generator": (
        [(GENERATE, "images = generator[5:](generator[:5](s.noise(o.batch, 32)).detach())\n")],
        "gradients",
        "optimiser 'opt_g': no gradient ever reaches generator.0.weight",
    ),
    "draws noise of its own, seeded by the clock": (
        [
            (IMPORT, f"import time\n\nimport torch\n{IMPORT}"),
            (
                "s.noise(o.batch, 32)",
                "torch.randn(o.batch, 32, generator=torch.Generator().manual_seed(time.time_ns()))",
            ),
        ],
        "reproducible",
        "ends with a different student",
    ),
    "has a running mean in a local variable, which a resumed trial has lost": (
        [
            (LOOP, f"    smooth = 0.0\n{LOOP}"),
            (DISTILL, f"smooth = 0.9 * smooth + 0.1 * float(logits.detach().abs().mean())\n        {DISTILL}"),
            ("temperature=o.temperature)", "temperature=o.temperature + smooth)"),
        ],
        "resumes",
        "ends with a different student",
    ),
    "never uses its temperature option": (
        [("temperature=o.temperature", "temperature=4.0")],
        "options",
        "'temperature' (4.0, 8.0",
    ),
}


def write(folder: Path, changes: list[tuple[str, str]]) -> Path:
    source = GOOD.read_text(encoding="utf-8")
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    file = folder / "mine.py"
    file.write_text(source.replace('"one_hot"', '"mine"'), encoding="utf-8")
    return file


def check(file: Path, only: set[str] | None = None, isolation: str = "auto") -> list[Finding]:
    (card,) = read_cards(file)
    return run_battery(card, method_files=(file,), only=only, isolation=isolation)


# Long ones, beside others of the same check: "hides the refusal", and test_an_option_that_counts_late_is_no_dead_one.
LONG = ("trains on scikit-learn's real digits", "never uses its temperature option")


@pytest.mark.parametrize("what", [pytest.param(each, marks=[pytest.mark.slow] * (each in LONG)) for each in BROKEN])
def test_broken_method_is_caught(what: str, tmp_path: Path) -> None:
    changes, wanted, message = BROKEN[what]
    # In another process there is no teacher to change; the check of the options is many trials, quicker in this one.
    here = "none" if "into the harness" in what or wanted == "options" else "auto"
    findings = check(write(tmp_path, changes), only={wanted}, isolation=here)
    assert [finding.ok for finding in findings] == [False]
    assert message in findings[0].message


def test_reaching_into_the_harness_is_named_with_its_line(tmp_path: Path) -> None:
    changes, _, _ = BROKEN["reaches into the harness and changes the teacher"]
    (finding,) = check(write(tmp_path, changes), only={"imports"})
    assert not finding.ok
    assert finding.message.startswith("line 8: bench.harness.trial_context is internal to the harness")


@pytest.mark.parametrize("only", [set(CHECKS) - {"options"}, pytest.param(None, marks=pytest.mark.slow)])
def test_twenty_line_method_passes(tmp_path: Path, only: set[str] | None) -> None:
    findings = check(write(tmp_path, []), only)
    assert [finding for finding in findings if not finding.ok] == []
    assert len(findings) == (12 if only else 13)


def test_undeclared_access_is_noted(tmp_path: Path) -> None:
    (finding,) = check(write(tmp_path, [("Access.GRADIENTS", "Access.BATCH_NORM")]), only={"access"})
    assert finding.ok
    assert finding.message == "declares batch-norm, but uses only gradients: declare less"


@pytest.mark.slow
def test_an_option_that_counts_late_is_no_dead_one(tmp_path: Path) -> None:
    late = "temperature=o.temperature if step == 38 else 4.0"
    changes = [(LOOP, '    for step, _ in enumerate(s.steps("train")):\n'), ("temperature=o.temperature", late)]
    (finding,) = check(write(tmp_path, changes), only={"options"}, isolation="none")
    assert finding.ok, finding.message
