"""What a shell completes: names of studies, methods, tasks and data sets. Where none fits, it offers files itself."""

from __future__ import annotations

from collections.abc import Iterable

from bench.data import NAMES
from bench.errors import UserError
from bench.spec import reproduction
from bench.spec.method_registry import find_methods
from bench.spec.study import study_files
from bench.spec.task import tasks


def studies(incomplete: str) -> list[str]:
    return _beginning(incomplete, study_files())


def papers(incomplete: str) -> list[str]:
    return _beginning(incomplete, reproduction.names())


def methods(incomplete: str) -> list[str]:
    try:
        return _beginning(incomplete, find_methods())
    except UserError:  # an installed package with a broken method; a shell has no place for the sentence
        return []


def task_names(incomplete: str) -> list[str]:
    return _beginning(incomplete, tasks())


def data_sets(incomplete: str) -> list[str]:
    return _beginning(incomplete, NAMES)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
