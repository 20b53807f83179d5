"""The plan of a study: its trials, and which of them are already finished. Nothing is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.execution.parts import StudyPart, part_of
from bench.records import load_record, open_results
from bench.records.folder import refuse_archive
from bench.spec.expand import expand
from bench.spec.method_registry import card_of
from bench.spec.study import LoadedStudy, Study, load_study
from bench.spec.trial import Trial
from bench.utils.hardware import choose_device, gpu_count, usable_cores

RUNS = Path("runs")  # where a study's results go, by its name, unless another folder is named


@dataclass(frozen=True)
class Plan:
    """The plan of a study: its trials (no two with the same id), and which of them are already finished."""

    study: Study
    trials: tuple[Trial, ...]
    finished: frozenset[str]
    results: Path
    gpu: int | None
    part: StudyPart | None = None  # the trials are those of this part of the study

    @property
    def waiting(self) -> list[Trial]:
        """The trials to run: new ones, unfinished ones and those that failed."""
        return [trial for trial in self.trials if trial.id not in self.finished]


def plan_study(
    file: Path,
    *,
    results: Path | None = None,
    device: str = "auto",
    method_files: Sequence[Path] = (),
    allow_altered: bool = False,
    data_folder: Path | None = None,
    part: StudyPart | None = None,
) -> Plan:
    """Read a study and see what is left of it; writes nothing but the cache of decoded images.

    ``data_folder`` is where to look for data sets first: a pool's content is part of a trial's identity. ``part``: plan
    only this part of the study.

    Raises:
        UserError: the study, the device or the results folder cannot be used.
    """
    loaded = load_study(file, method_files)
    return plan_loaded(
        loaded, results=results, device=device, allow_altered=allow_altered, data_folder=data_folder, part=part
    )


def plan_loaded(
    loaded: LoadedStudy,
    *,
    results: Path | None = None,
    device: str = "auto",
    allow_altered: bool = False,
    data_folder: Path | None = None,
    part: StudyPart | None = None,
) -> Plan:
    """What is left of a study that was read already, or of one part of it.

    Raises:
        UserError: the device or the results folder cannot be used.
    """
    kind, gpu = choose_device(device)
    unique: dict[str, Trial] = {}
    for trial in expand(loaded, kind, allow_altered, data_folder):
        unique.setdefault(trial.id, trial)
    folder = results or RUNS / (loaded.study.name + (part.suffix if part else ""))
    refuse_archive(folder)
    if (folder / "results.json").exists():
        open_results(folder)
    trials = tuple(part_of(list(unique.values()), part))
    return Plan(loaded.study, trials, finished_of(folder, trials), folder, gpu, part)


@dataclass(frozen=True)
class IdleSweep:
    """An option that a study sweeps, and settings with which it acts; none of the trials has them."""

    task: str
    method: str
    option: str
    live: Mapping[str, Any]


def idle_sweeps(trials: Iterable[Trial]) -> list[IdleSweep]:
    """The options that take several values while a switch on which they are declared to depend is never on.

    Only switches (words, yes or no) are looked at: what depends on a number acts with other numbers as well.
    """
    alike: dict[tuple[str, str], list[Trial]] = defaultdict(list)
    for trial in trials:
        alike[trial.task, trial.method].append(trial)
    found = []
    for (task, method), group in alike.items():
        for spec in card_of(group[0]).specs:
            live = {name: value for name, value in spec.when.items() if isinstance(value, str | bool)}
            swept = len({repr(trial.options.get(spec.name)) for trial in group}) > 1
            if live and swept and not any(live.items() <= trial.options.items() for trial in group):
                found.append(IdleSweep(task, method, spec.name, live))
    return found


def default_workers(plan: Plan) -> int:
    """Trials at a time: the cores divided by a trial's threads, and no two that would share a GPU."""
    fit = max(1, usable_cores() // plan.study.threads)
    if all(trial.device == "cpu" for trial in plan.trials):
        return fit
    return min(fit, max(1, gpu_count())) if plan.gpu is None else 1


def finished_of(results: Path, trials: Iterable[Trial]) -> frozenset[str]:
    """The ids of the trials that have a record which another run would not change; a damaged one is the user's to
    look at."""
    folder = results / "trials"
    there = [trial.id for trial in trials if (folder / trial.id).is_dir()]
    return frozenset(name for name in there if load_record(folder / name).status in ("ok", "unsupported"))


def failed_of(plan: Plan) -> list[Trial]:
    """The trials of a plan that have run and failed."""
    return [trial for trial in plan.waiting if (plan.results / "trials" / trial.id).is_dir()]
