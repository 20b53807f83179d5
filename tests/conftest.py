"""Fixtures for all tests: a cache of their own, real data where it is found, a context to sit at."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from run_cache import cache_of_run

from bench.data import status

if TYPE_CHECKING:
    from bench.harness.trial_context import TrialContext


# Results are bit-stable for one number of threads only; torch reads this when it is imported. Workers pin their own.
os.environ["OMP_NUM_THREADS"] = "1"

for _name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):  # of whoever runs the tests; pytest-xdist sets the first one
    os.environ.pop(_name, None)

settings.register_profile("suite", deadline=None)  # a loaded machine is no failure
settings.load_profile("suite")


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of the whole run. A test that counts, alters or removes what is cached sets one of its own."""
    folder = cache_of_run(tmp_path_factory.getbasetemp(), os.environ)
    folder.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("DFKD_CACHE")
    os.environ["DFKD_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["DFKD_CACHE"]
    else:
        os.environ["DFKD_CACHE"] = before


@pytest.fixture
def make_context() -> Callable[..., TrialContext]:
    """Builds a context as the runner does, with an untrained LeNet pair on the digits' geometry and no real data."""

    def make(**changes: Any) -> TrialContext:
        import torch

        from bench.harness.trial_context import TrialContext
        from bench.models import build
        from bench.spec.budget import Budget
        from bench.spec.method import Access, Data
        from bench.spec.task import get_task

        image = get_task("digits/lenet5-half").image
        torch.manual_seed(changes.get("seed", 0))
        settings: dict[str, Any] = {
            "image": image,
            "teacher": build("lenet5", image, 10),
            "student": build("lenet5-half", image, 10),
            "budget": Budget(steps=10),
            "access": Access.PARAMETERS,
            "data": Data.NONE,
            "device": torch.device("cpu"),
            "seed": 0,
        }
        context = TrialContext(**{**settings, **changes})
        context.learning = lambda: None  # most tests look at a single call, and need no loop around it
        return context

    return make


@pytest.fixture(autouse=True)
def _forget_tasks() -> Iterator[None]:
    """Tasks that a test makes known are unknown to the next one."""
    from bench.spec.task import tasks

    before = dict(tasks())
    yield
    tasks().clear()
    tasks().update(before)


@functools.cache
def _states(name: str) -> frozenset[str]:
    """The states of a set's files; those of a large set take a second to find out."""
    return frozenset(file.state for file in status(name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of real sets that are not here, and of GPUs where there is none, saying what is missing.

    A test with ``data(name, altered=True)`` can do with well-formed files that are not the official ones.
    """
    for item in items:
        for marker in item.iter_markers("data"):
            usable = {"ok", "altered"} if marker.kwargs.get("altered") else {"ok"}
            for name in marker.args:
                if not _states(name) <= usable:
                    item.add_marker(
                        pytest.mark.skip(reason=f"real {name} not found: set DFKD_DATA (`dfkd data status`)")
                    )
        if item.get_closest_marker("gpu") is not None:
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
