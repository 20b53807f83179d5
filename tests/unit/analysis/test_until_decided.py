"""Seeds are added to what is undecided, at looks that were planned, and the levels are those of the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from commit_history import commit_file, new_repository, run_git
from record_builder import make_record

from bench.analysis.regression import until_decided as module
from bench.analysis.regression.compare import compare
from bench.analysis.regression.filing import label, open_filed
from bench.analysis.regression.looks import planned_looks
from bench.analysis.regression.summary import explanation, markdown
from bench.analysis.regression.until_decided import plan_looks, until_decided
from bench.cli import answer
from bench.cli.track import cells_of_study
from bench.errors import UserError
from bench.records import Record, load_records, open_results, write_trial
from bench.utils.git import Commit, resolve

STUDY = """
name: two
tasks: [digits/lenet5-half]
methods: [noise, kd]
seeds: [7, 8, 9]
budget: {steps: 4}
"""
SPREAD = (0.02, -0.02, 0.01, -0.01, 0.015, -0.015, 0.005, -0.005, 0.0, 0.012, -0.012, 0.007)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = new_repository(tmp_path / "repo")
    commit_file(made, "study.yaml", STUDY, "A study")
    commit_file(made, "code.txt", "1", "Later")
    monkeypatch.chdir(made)
    return made


def write(folder: Path, method: str, values: Mapping[int, float]) -> None:
    open_results(folder, create=True)
    for seed, value in values.items():
        record = make_record(method, seed, final=value)
        if not (folder / "trials" / record.id).exists():
            write_trial(folder, record, [], {})


class Runs:
    """Takes the place of `dfkd run`: writes records, and notes what was asked for."""

    def __init__(self, root: Path, losses: Mapping[str, float]) -> None:
        self.root, self.losses = root, losses
        self.head = resolve(root, "HEAD").sha
        self.asked: list[tuple[bool, list[str], int]] = []

    def __call__(
        self, folder: Path, here: Commit, study: Mapping[str, Any], place: Path, results: Path, extra: tuple[str, ...]
    ) -> tuple[list[Record | None], None]:
        assert resolve(folder, "HEAD").sha == here.sha
        assert not place.is_absolute()
        assert extra == ()
        later = here.sha == self.head
        self.asked.append((later, study["methods"], len(study["seeds"])))
        for method in study["methods"]:
            loss = self.losses[method] if later else 0.0
            order = SPREAD[::-1] if later else SPREAD
            write(results, method, {seed: 0.8 - loss + order[seed] for seed in study["seeds"]})
        label(results, here)
        return list(load_records(results)), None


def run(root: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch, most: int = 12) -> list[int]:
    monkeypatch.setattr(module, "run_filed", runs)
    tracked, seen = root / "results" / "tracked", []
    plan = plan_looks(root, tracked, cells_of_study(root / "study.yaml"), "HEAD~1", most)
    until_decided(root, tracked, plan, told=lambda count, _: seen.append(count))
    return seen


def test_seeds_are_added_to_what_is_undecided_and_to_nothing_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(root, {"noise": 0.5, "kd": 0.0})
    assert run(root, runs, monkeypatch) == [3, 6, 12]
    assert runs.asked == [
        *[(later, ["noise", "kd"], 3) for later in (False, True)],
        *[(later, ["kd"], count) for count in (6, 12) for later in (False, True)],
    ]
    assert len(run_git(root, "worktree", "list").splitlines()) == 1


def test_it_stops_when_every_score_is_decided(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(root, Runs(root, {"noise": 0.5, "kd": 0.5}), monkeypatch) == [3]


def test_a_later_comparison_of_the_two_has_the_levels_of_the_plan(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(root, Runs(root, {"noise": 0.5, "kd": 0.0}), monkeypatch)
    tracked = root / "results" / "tracked"
    first, second = (open_filed(name, root, tracked) for name in ("HEAD~1", "HEAD"))
    for found in (compare(first, second), compare(second, first)):
        assert found.looks == (3, 6, 12)
        assert found.each_alpha == pytest.approx(0.01 / 3)
        assert found.level == pytest.approx(1 - 0.05 / 3)
        assert "3 looks were planned, at 3, 6, 12 seeds" in explanation(found)
        assert "95 % interval" not in markdown(found)
    archive = tracked / f"{second.folder.name}.parquet"
    assert answer(["archive", str(second.folder), str(archive)]) == 0
    assert open_filed(str(archive), root, tracked).looks == second.looks


def test_the_levels_change_what_is_called(tmp_path: Path) -> None:
    """The same numbers are a regression at one look, and not yet one where three looks were planned."""
    sides = [Commit(f"{digit}" * 40, "2026-01-01", "Words") for digit in (1, 2)]
    for commit, loss in zip(sides, (0.0, 0.045), strict=True):
        order = SPREAD if loss == 0 else SPREAD[::-1]
        write(tmp_path / commit.sha, "kd", {seed: 0.8 - loss + order[seed] for seed in range(6)})
        label(tmp_path / commit.sha, commit)
    assert _outcome(tmp_path, sides) == "regression"
    label(tmp_path / sides[1].sha, sides[1], {sides[0].sha: tuple(range(3, 103))})
    assert _outcome(tmp_path, sides) == "undecided"
    label(tmp_path / sides[1].sha, sides[1])  # another run of `dfkd track` keeps the plan
    assert _outcome(tmp_path, sides) == "undecided"


def _outcome(tmp_path: Path, sides: Sequence[Commit]) -> str:
    base, head = (open_filed(str(tmp_path / commit.sha)) for commit in sides)
    return compare(base, head).outcome


@pytest.mark.parametrize("looks", ['{"a": [5, 5]}', '{"a": []}', '{"a": [true, 5]}', '{"a": "5"}', "[5]"])
def test_a_damaged_plan_is_no_plan(tmp_path: Path, looks: str) -> None:
    write(tmp_path, "kd", {0: 0.9})
    text = f'{{"commit": "{"1" * 40}", "date": "", "subject": "", "looks": {looks}}}'
    (tmp_path / "tracked.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="'looks' must hold rising numbers of seeds"):
        open_filed(str(tmp_path))


@pytest.mark.parametrize(("first", "most", "looks"), [(5, 20, (5, 10, 20)), (5, 12, (5, 10, 12)), (1, 3, (3,))])
def test_looks_double_up_to_the_bound(first: int, most: int, looks: tuple[int, ...]) -> None:
    assert planned_looks(first, most) == looks


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-seeds", "9"], "are for --until-decided"),
        (["--against", "HEAD~1"], "are for --until-decided"),
        (["--until-decided", "--dirty"], "--dirty does not go with --until-decided"),
        (["--until-decided", "--method", "a.py"], "--method does not go with --until-decided"),
        (["--until-decided"], "no earlier commit is stored"),
        (["--until-decided", "--against", "HEAD"], "is the current commit"),
        (["--until-decided", "--against", "nobody"], "no commit, tag or branch 'nobody'"),
        (["--until-decided", "--against", "HEAD~1", "--max-seeds", "2"], "must be at least 3 (the study has 3), not 2"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    root: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(["track", "study.yaml", *options]) == 2
    assert said in capsys.readouterr().err
    assert not (root / "results").exists()


def test_another_plan_for_the_same_two_commits_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(root, Runs(root, {"noise": 0.5, "kd": 0.0}), monkeypatch)
    with pytest.raises(UserError, match=r"looks at 3, 6, 12 seeds were planned .* continue with --max-seeds 12"):
        plan_looks(root, root / "results" / "tracked", cells_of_study(root / "study.yaml"), "HEAD~1", 24)
