"""What a paper's numbers need: studies made of the quotes, narrowed, shortened, and a clear word on every mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.spec.expand import expand
from bench.spec.published import papers
from bench.spec.reproduction import Written, names, reproduction, written
from bench.spec.study import load_study
from bench.spec.task import tasks
from bench.spec.trial import Trial

UNKNOWN = {"dfnd", "kd3", "zskd-pytorch"}  # no source says how long anything ran


def trials(studies: list[Written], folder: Path) -> list[Trial]:
    found = []
    for place, study in enumerate(studies):
        found += expand(load_study(written(study, folder / f"{place}.yaml")))
    return found


@pytest.mark.parametrize("name", sorted(set(papers()) - UNKNOWN - {"wsl"}))
def test_every_number_of_a_paper_gets_trials_with_its_options_and_its_count(name: str, tmp_path: Path) -> None:
    made = trials(reproduction(name), tmp_path)
    for task in tasks().values():
        for quote in task.published.methods:
            if quote.paper != name or not task.trains_teachers:
                continue
            of_quote = [
                trial
                for trial in made
                if (trial.task, trial.method) == (task.name, quote.method)
                and quote.options.items() <= {key: trial.options[key] for key in quote.options}.items()
            ]
            assert of_quote, f"{task.name}: {quote.method}"
            images = task.published.of(quote).teacher_images
            if images:  # of several numbers of one method the largest count
                assert all(trial.budget["teacher_images"] >= images for trial in of_quote)
                assert min(trial.budget["teacher_images"] for trial in of_quote) < 1.03 * images
            if quote.pool in tasks_pools():
                assert {trial.pool for trial in of_quote} == {quote.pool}


def tasks_pools() -> set[str]:
    return {pool for task in tasks().values() for pool in task.pools.values()} - {"pool"}


@pytest.mark.parametrize("name", sorted(UNKNOWN - {"zskd-pytorch"}))
def test_without_any_count_it_says_so(name: str) -> None:
    with pytest.raises(UserError, match=f"no source says how long the methods of '{name}' ran on cifar10/resnet18"):
        reproduction(name)


def test_of_tasks_whose_teachers_are_imported_nobody_else_can_write_the_study(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        reproduction("wsl")
    assert str(raised.value) == (
        "the teacher of imagenet/resnet34-resnet18 is imported: import it, and write a study of your own that names it "
        "(`teachers: {imagenet/resnet34-resnet18: KEY}`)"
    )
    quoting = {task.name for task in tasks().values() for quote in task.published.methods if quote.paper == "fast_dfkd"}
    made = {trial.task for trial in trials(reproduction("fast_dfkd"), tmp_path)}
    assert quoting - made == {"imagenet/resnet50-resnet18", "imagenet/resnet50-mobilenetv2"}


def test_runs_are_the_papers_or_three_or_as_many_as_are_asked_for(tmp_path: Path) -> None:
    assert {trial.seed for trial in trials(reproduction("zskt"), tmp_path)} == {0, 1, 2}
    assert {trial.seed for trial in trials(reproduction("dafl", seeds=5), tmp_path)} == set(range(5))


def test_options_of_the_papers_own_study_come_along(tmp_path: Path) -> None:
    (trial, *_) = trials(reproduction("zskd", rows=["mnist/lenet5-half"]), tmp_path)
    assert trial.options["share"] == 0.99
    found = trials(reproduction("pre_dfkd", rows=["cifar100/resnet18"]), tmp_path)
    assert all(trial.options["clamped"] and trial.options["match_memory"] for trial in found)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (["mnist/lenet5-half", "dfad"], {("mnist/lenet5-half", "dfad")}),
        (["dafl", "dfad", "mnist/lenet5-half"], {("mnist/lenet5-half", "dafl"), ("mnist/lenet5-half", "dfad")}),
        (["dafl", "nyuv2/deeplabv3-mobilenetv2"], {("nyuv2/deeplabv3-mobilenetv2", "dafl")}),
    ],
)
def test_rows_are_chosen_by_task_and_method(rows: list[str], wanted: set[tuple[str, str]], tmp_path: Path) -> None:
    found = trials(reproduction("dfad", rows=rows), tmp_path)
    assert {(trial.task, trial.method) for trial in found} == wanted


def test_a_share_shortens_every_budget_and_leaves_a_second_phase(tmp_path: Path) -> None:
    whole = trials(reproduction("zskd", rows=["fashion_mnist/lenet5-half"]), tmp_path)
    short = trials(reproduction("zskd", rows=["fashion_mnist/lenet5-half"], budget_share=0.01), tmp_path)
    assert len(whole) == len(short)
    for long_one, short_one in zip(whole, short, strict=True):
        assert short_one.budget == {unit: round(limit / 100) for unit, limit in long_one.budget.items()}
    assert {trial.options["share"] for trial in short if trial.method == "zskd"} == {0.5}


def test_the_suites_own_studies_are_narrowed_in_the_same_way(tmp_path: Path) -> None:
    assert {"mnist", "fashion_mnist", "dfad_width"} <= set(names())
    found = trials(reproduction("mnist", rows=["dfad", "kd"], seeds=1, budget_share=0.5), tmp_path)
    assert {(trial.method, trial.seed): dict(trial.budget) for trial in found} == {
        ("kd", 0): {"teacher_images": 1_000_000},
        ("dfad", 0): {"steps": 1_000},
    }


def test_the_mnist_rows_have_their_papers_counts(tmp_path: Path) -> None:
    """Those of studies/paper; only rdskd's is shorter, and its file says so."""
    made = {trial.method: trial for trial in trials(reproduction("mnist", seeds=1), tmp_path)}
    for method in ("dfad", "dafl", "zskd"):
        paper = expand(load_study(Path(__file__).parents[3] / "studies" / "paper" / f"{method}.yaml"))
        (own, *_) = [trial for trial in paper if trial.task == "mnist/lenet5-half"]
        assert dict(made[method].budget) == dict(own.budget)
        assert {name for name, value in made[method].options.items() if value != own.options[name]} <= {"width"}
    assert made["kd_related"].pool == "digits"
    assert made["kd_unrelated"].pool == "fashion_mnist"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "dfda"}, "unknown paper 'dfda'"),
        ({"name": "fashion-mnist"}, "unknown paper 'fashion-mnist'; did you mean 'fashion_mnist'"),
        ({"name": "dfad", "rows": ["dalf"]}, "no row of it has the task or method 'dalf'; did you mean 'dafl'"),
        ({"name": "dfad", "rows": ["dafl", "caltech101/resnet18"]}, "no row has one of caltech101/resnet18 and one of"),
        ({"name": "dfad", "budget_share": 0.0}, "--budget-share must be above 0 and at most 1, not 0"),
        ({"name": "dfad", "budget_share": 1.5}, "--budget-share must be above 0 and at most 1, not 1.5"),
        ({"name": "dfad", "budget_share": float("nan")}, "--budget-share must be above 0 and at most 1, not nan"),
    ],
)
def test_a_mistake_gets_a_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        reproduction(**given)
