"""The parts of a study are the study, whoever runs them; long trials begin first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli import answer
from bench.errors import UserError
from bench.execution.durations import Durations, long_first
from bench.execution.parts import StudyPart, part_of, split
from bench.execution.plan import plan_study
from bench.execution.run_study import run_study
from bench.records import load_records
from bench.spec.trial import Trial


def trial(task: str = "digits/lenet5-half", method: str = "noise", seed: int = 0, **changes: object) -> Trial:
    values: dict[str, object] = {
        **{"suite": "0.1", "task_sha": "a", "teacher": "t", "method_sha": "b", "options": {}, "budget": {"steps": 3}},
        **changes,
    }
    return Trial(task=task, method=method, seed=seed, label=method, **values)  # type: ignore[arg-type]


def grid(tasks: int, methods: int, seeds: int) -> list[Trial]:
    return [
        trial(f"task{task}", f"method{method}", seed)
        for task in range(tasks)
        for method in range(methods)
        for seed in range(seeds)
    ]


@settings(max_examples=50)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 9))
def test_the_parts_together_are_the_study_and_of_one_size(tasks: int, methods: int, seeds: int, count: int) -> None:
    whole = grid(tasks, methods, seeds)
    parts = split(whole, count)
    assert Counter(each.id for part in parts for each in part) == Counter(each.id for each in whole)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("tasks", "methods", "seeds", "count"), [(2, 2, 1, 2), (3, 3, 2, 3), (1, 4, 8, 8), (2, 1, 4, 4)]
)
def test_every_part_has_its_share_of_tasks_and_methods(tasks: int, methods: int, seeds: int, count: int) -> None:
    parts = split(grid(tasks, methods, seeds), count)
    for kind in ("task", "method"):
        for name in {getattr(each, kind) for part in parts for each in part}:
            shares = [sum(getattr(each, kind) == name for each in part) for part in parts]
            assert max(shares) - min(shares) <= 2, (kind, name, shares)


@pytest.mark.parametrize("words", ["0/8", "9/8", "2", "2/0", "a/b", "-1/2", "1/2/3", ""])
def test_a_part_that_is_none_is_refused_with_what_is_wanted(words: str) -> None:
    with pytest.raises(UserError, match="--part must be a part such as 2/8"):
        StudyPart.parse(words)


STUDY = "name: divided\ntasks: [digits/lenet5-half]\nmethods: [noise, dafl]\nseeds: [0, 1]\nbudget: {steps: 1}\n"


def test_parts_have_folders_of_their_own_and_are_merged_to_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("divided.yaml").write_text(STUDY + "points: 1\nselection: [last]\nsettings: small\n", encoding="utf-8")
    ids = {each.id for each in plan_study(Path("divided.yaml")).trials}
    for number in (1, 2, 3):
        done = answer(["run", "divided.yaml", "--part", f"{number}/3", "--executor", "inline", "--isolation", "none"])
        assert done == 0
    assert "dfkd merge runs/divided.part-*-of-3 --out runs/divided" in capsys.readouterr().out
    folders = [Path(f"runs/divided.part-{number}-of-3") for number in (1, 2, 3)]
    assert answer(["status", "divided.yaml"]) == 0
    assert "divided, part 2/3 in runs/divided.part-2-of-3" in capsys.readouterr().out
    assert answer(["merge", *map(str, folders), "--out", "runs/divided"]) == 0
    assert {record.id for record in load_records(Path("runs/divided"))} == ids
    summary = run_study(Path("divided.yaml"), executor="inline", isolation="none")
    assert summary.kept == len(ids) == 4


def test_a_part_without_trials_is_done_at_once(tmp_path: Path) -> None:
    file = tmp_path / "divided.yaml"
    file.write_text(STUDY, encoding="utf-8")
    plan = plan_study(file, results=tmp_path / "out", part=StudyPart(6, 6))
    assert plan.trials == ()
    assert part_of(grid(1, 1, 3), None) == grid(1, 1, 3)


def test_long_trials_begin_first() -> None:
    by_seconds = [trial(seed=0, budget={"seconds": 5.0}), trial(seed=1, budget={"seconds": 50.0})]
    assert [each.seed for each in long_first(by_seconds, Durations())] == [1, 0]
    by_pixels = [trial(seed=0), trial("cifar10/wrn16-1", seed=1), trial("shapes/unet-small", seed=2)]
    assert long_first(by_pixels, Durations())[0].seed == 2
    by_method = [trial(seed=0), trial(seed=1, method="dafl"), trial(seed=2)]
    assert [each.seed for each in long_first(by_method, Durations())] == [1, 0, 2]
    alike = [trial(seed=seed) for seed in (3, 1, 2)]
    assert long_first(alike, Durations()) == alike
