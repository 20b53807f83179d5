"""Which trials can be run here; the others are left out by plan, with a reason. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench import data
from bench.data import files
from bench.data.pool import demand_pool
from bench.errors import MissingData
from bench.models import has_batch_norm, has_layers
from bench.spec.method import Data
from bench.spec.method_card import MethodCard
from bench.spec.method_registry import card_of
from bench.spec.task import TaskSpec, get_task
from bench.spec.teacher_key import why_no_way
from bench.spec.trial import Trial


def unsupported(trials: Iterable[Trial]) -> dict[str, str]:
    """The trials whose method is not made for their task, by id, and why."""
    reasons = {}
    for trial in trials:
        card, task = card_of(trial), get_task(trial.task)
        reason = why_no_images(card, task) or why_unsupported(card, task, trial.options)
        reason = reason or why_no_pool(card, task, trial.pool)
        if reason := reason or why_no_anchors(card, task, trial.teacher):
            reasons[trial.id] = reason
    return reasons


def missing_data(trials: Iterable[Trial], folder: Path | None, allow_altered: bool) -> dict[str, str]:
    """The trials whose data set or pool is missing, by id, with the reason.

    Raises:
        UserError: a file that is there and cannot be used.
    """
    trials = list(trials)
    sources = {name: get_task(name).source for name in {trial.task for trial in trials}}
    reason = cache(partial(_why_missing, folder=folder, allow_altered=allow_altered))
    sets = {name: next(filter(None, map(reason, data.parts_of(source))), "") for name, source in sources.items()}
    pools = {
        trial.pool: _why_no_images(str(trial.pool_path or trial.pool), folder, allow_altered)
        for trial in trials
        if trial.pool
    }
    reasons = {trial.id: sets[trial.task] or pools.get(trial.pool, "") for trial in trials}
    return {trial: reason for trial, reason in reasons.items() if reason}


def why_unsupported(
    card: MethodCard, task: TaskSpec, options: Mapping[str, Any] | None = None, batch_norm: bool | None = None
) -> str:
    """Why a method cannot be run on a task with these options, in one sentence; empty when it can.

    ``batch_norm`` says whether the teacher has any, where somebody has looked. Otherwise, whether torchvision's
    networks and a user's own have batch norm, or name layers, is known when they are built, not here: there the
    method's first question about it ends the trial with the same status.
    """
    if task.dense and not card.segmentation:
        return f"{card.name} is for classification, and {task.name} is segmentation"
    has = has_batch_norm(task.teacher.network) if batch_norm is None else batch_norm
    if card.needs_batch_norm(options or {}) and has is False:
        where = f" with {card.batch_norm} above 0" if isinstance(card.batch_norm, str) else ""
        return f"{card.name} needs batch-norm statistics{where}, and the teacher of {task.name} has no batch norm"
    networks = ((task.teacher.network, task.places("teacher")), (task.student, task.places("student")))
    for network, places in networks if card.layers else ():
        if has_layers(network) is False and not places.get("layers"):
            return (
                f"{card.name} needs the feature maps of both networks' layers, and {network} of {task.name} names none"
            )
    return ""


def why_no_images(card: MethodCard, task: TaskSpec) -> str:
    """Why a method that needs real training images has none, in one sentence; empty when it has."""
    if card.data is Data.TRAIN and not task.has_training_images:
        return f"{card.name} needs real training images, and {task.name} has none"
    return ""


def why_no_pool(card: MethodCard, task: TaskSpec, pool: str) -> str:
    """Why a method that needs a pool of other real images has none, in one sentence; empty when it has."""
    if card.pool and not pool:
        return (
            f"{card.name} needs the {card.pool} pool, and {task.name} names none; "
            f"`pools: {{{task.name}: {{{card.pool}: ...}}}}` in the study does"
        )
    return ""


def why_no_anchors(card: MethodCard, task: TaskSpec, teacher: str) -> str:
    """Why a method that follows the teacher's training cannot do so, in one sentence; empty when it can."""
    reason = why_no_way(task, teacher) if card.anchors else ""
    return f"{card.name} follows the teacher's training, and {reason}" if reason else ""


def _why_missing(source: data.Source, folder: Path | None, allow_altered: bool) -> str:
    statuses = data.status_of(source, folder)
    try:
        files.demand_usable(source, statuses, data.search_folders(folder), allow_altered)
    except MissingData as error:
        accepted = {"ok", "missing", "altered"} if allow_altered else {"ok", "missing"}
        if any(status.state not in accepted for status in statuses):
            raise
        return str(error)
    return ""


def _why_no_images(pool: str, folder: Path | None, allow_altered: bool) -> str:
    if pool in data.SOURCES and pool != "pool":
        return _why_missing(data.find(pool), folder, allow_altered)
    try:
        demand_pool(pool, folder, allow_altered)
    except MissingData as error:
        return str(error)
    return ""


def default_task(card: MethodCard) -> str:
    """Where a method is checked: the digits with a LeNet-5 as teacher, with batch norm where the method needs that."""
    return "digits/lenet5bn-half" if card.needs_batch_norm(card.quick) else "digits/lenet5-half"
