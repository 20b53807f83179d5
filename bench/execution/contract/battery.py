"""The checks themselves. Each one returns what is wrong, or an empty string."""

from __future__ import annotations

import ast
import tempfile
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import bench
from bench.data import load_source
from bench.errors import UserError, nearest
from bench.execution.contract.dead_options import dead_options
from bench.execution.contract.short_trials import POINTS, Play, Stage, counts
from bench.harness.teachers.anchors import get_anchors
from bench.harness.teachers.cache import get_teacher, silent
from bench.harness.teachers.progress import Report
from bench.spec.method_card import MethodCard
from bench.spec.presets import preset
from bench.spec.requirements import default_task, why_unsupported
from bench.spec.task import get_task
from bench.spec.teacher_key import teacher_keys

BUDGETS = {"seconds": 0.5, "steps": 7, "teacher_images": 250, "student_images": 250, "gmacs": 0.2}


CHECKS = (
    "imports", "runs", "trains the student", "access", "gradients", "reproducible", "resumes",
    *(f"budget in {unit}" for unit in BUDGETS), "options",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One check's outcome; the message says what is wrong, or what was seen.

    ``seconds`` are those of the trials that it ran; the first trial counts for ``runs``, and others look at it too.
    """

    name: str
    ok: bool
    message: str
    seconds: float


def run_battery(
    card: MethodCard,
    *,
    task: str | None = None,
    method_files: tuple[Path, ...] = (),
    only: Container[str] | None = None,
    isolation: str = "auto",
    report: Callable[[Finding], None] = lambda finding: None,  # noqa: ARG005
    doing: Callable[[str], None] = lambda what: None,  # noqa: ARG005
    training: Report = silent,
) -> list[Finding]:
    """Check one method; ``report`` is called with each finding as it comes.

    A method that does not run, or never trains the student, is not checked further.

    Args:
        card: the method.
        task: the task to check it on; its data and teacher are needed. By default :func:`default_task`.
        method_files: the files that methods are looked for in, besides the built-in ones.
        only: names of the checks to make; all by default.
        isolation: whether its trials run in a process of their own: ``auto``, ``process`` or ``none``.
        report: called with each finding as it comes.
        doing: called with what is about to be done: the name of a check, and of ``options`` what is tried.
        training: told how the teacher's training comes along, where it has to be trained first.

    Raises:
        UserError: the method's file cannot be loaded, the method is not made for the task, or the task's data or
            teacher cannot be had.
    """
    task = task or default_task(card)
    spec = get_task(task)
    if reason := why_unsupported(card, spec, {**preset(card, spec, "paper"), **card.quick}):
        raise UserError(f"{reason}; try --task {default_task(card)}")
    findings: list[Finding] = []

    def note(name: str, check: Callable[[], tuple[bool, str]]) -> bool:
        if only is not None and name not in only:
            return True
        doing(name)
        started = time.perf_counter()
        ok, message = check()
        finding = Finding(name, ok, message, time.perf_counter() - started)
        findings.append(finding)
        report(finding)
        return ok

    note("imports", lambda: _imports(card))
    doing("reading the data, loading the teacher")
    dataset = load_source(spec.source, size=spec.stored_size)
    keys = teacher_keys(spec)
    get_anchors(spec, keys[0], dataset, card.anchors)
    for key in keys:
        get_teacher(spec, key, dataset, training)
    with tempfile.TemporaryDirectory(prefix="dfkd-check-") as folder:
        stage = Stage(card, task, method_files, Path(folder), isolation)
        first = cache(lambda: stage.play(points=POINTS))  # its time counts where it is looked at first
        if not note("runs", lambda: _runs(first())) or not note("trains the student", lambda: _trains(first())):
            return findings  # everything below would say the same again
        note("access", lambda: _access(card, first()))
        note("gradients", lambda: _gradients(first()))
        note("reproducible", lambda: _same(first(), stage.play(points=POINTS), "run a second time"))
        note("resumes", lambda: _resumes(stage, first()))
        for unit, limit in BUDGETS.items():
            note(f"budget in {unit}", lambda unit=unit, limit=limit: _budget(stage, unit, limit))  # type: ignore[misc]
        note("options", lambda: dead_options(stage, doing))
    return findings


def _imports(card: MethodCard) -> tuple[bool, str]:
    """A method uses only bench's public names; the rest is the harness's own."""
    for node in ast.walk(ast.parse(card.file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "bench":
            for alias in node.names:
                if alias.name not in bench.__all__:
                    hint = nearest(alias.name, bench.__all__)
                    return False, f"line {node.lineno}: bench has no public name {alias.name!r}{hint}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for name in names:
                if name.startswith("bench."):
                    return (
                        False,
                        f"line {node.lineno}: {name} is internal to the harness; use the public names of bench",
                    )
    return True, "uses only public names"


def _runs(play: Play) -> tuple[bool, str]:
    record = play.record
    if record.status != "ok":
        return False, f"{record.status}: {record.reason}"
    if not play.finite:
        return False, "the student's weights are not finite at the end"
    return True, f"{record.meter.steps} steps, the teacher unchanged, no real data opened, no NaN"


def _access(card: MethodCard, play: Play) -> tuple[bool, str]:
    if play.used < card.access:
        return True, f"declares {card.access.label}, but uses only {play.used.label}: declare less"
    return True, f"uses {play.used.label}, as declared"


def _trains(play: Play) -> tuple[bool, str]:
    if play.student == play.start:
        return False, "the student's weights are the same at the end as at the start"
    return True, "the student's weights change"


def _gradients(play: Play) -> tuple[bool, str]:
    for optimizer, missing in play.parameters.items():
        if missing:
            shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            return False, f"optimiser {optimizer!r}: no gradient ever reaches {shown} (a detached tensor?)"
    return True, f"gradients reach every parameter of {len(play.parameters)} optimisers"


def _same(first: Play, second: Play, how: str) -> tuple[bool, str]:
    if second.record.status != "ok":
        return False, f"{how}: {second.record.status}: {second.record.reason}"
    before, after = counts(first.record), counts(second.record)
    for name, value in before.items():
        if after[name] != value:
            return False, f"{how}, {name} is {after[name]} instead of {value}"
    if first.student != second.student:
        return False, f"{how}, it ends with a different student: something is random or kept outside the Session"
    return True, "the same bits"


def _resumes(stage: Stage, first: Play) -> tuple[bool, str]:
    stops = tuple(round(first.record.meter.steps * share) for share in (0.15, 0.45, 0.8))
    again = stage.play(points=POINTS, stops=stops)
    ok, message = _same(first, again, f"stopped and resumed at steps {', '.join(map(str, stops))}")
    if ok and [row["score"] for row in again.curve] != [row["score"] for row in first.curve]:
        return False, "stopped and resumed, it has a different curve"
    return ok, message if not ok else f"stopped at steps {', '.join(map(str, stops))}: the same bits"


def _budget(stage: Stage, unit: str, limit: float) -> tuple[bool, str]:
    if unit.startswith("teacher") and stage.card.access == 0:
        return True, "never queries the teacher: limited in student images instead"
    play = stage.play(budget={unit: limit, "steps": 2_000} if unit != "steps" else {unit: limit}, points=10_000)
    record = play.record
    if record.status != "ok":
        return False, f"{record.status}: {record.reason}"
    if record.stopped_by != unit:
        return False, f"ended by {record.stopped_by!r} before its {limit:g} {unit} were spent"
    before = [row for row in play.curve if row["steps"] < record.meter.steps]
    if before and before[-1]["progress"] >= 1:
        return False, "continued for more than one step after the budget was spent"
    spent = getattr(record.meter, unit)
    return True, f"{spent:.4g} of {limit:g} after {record.meter.steps} steps"
