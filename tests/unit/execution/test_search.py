"""``dfkd search``: suggestions that are ordinary trials, chosen without the test set, the same ones every time."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from record_builder import make_record

from bench.cli import answer
from bench.errors import UserError
from bench.execution.run_study import TrialResult
from bench.execution.search import Suggestion, best_first, check_optuna, fixed, search, spaces_of
from bench.spec.expand import expand
from bench.spec.study import LoadedStudy, load_study

pytest.importorskip("optuna", reason="the extra `search` is not installed")

STUDY = """
name: searching
tasks: [digits/lenet5-half]
methods: {methods}
sample: {{count: 3}}
seeds: [0, 1]
budget: {{steps: 3}}
points: 1
"""
RANGES = "[noise, kd, dafl: {lr_generator: {from: 0.0001, to: 0.1, scale: log}, batch: {from: 10, to: 40}}]"


def load(folder: Path, methods: str = RANGES, extra: str = "") -> LoadedStudy:
    file = folder / "study.yaml"
    file.write_text(STUDY.format(methods=methods) + extra, encoding="utf-8")
    return load_study(file)


class Harness:
    """In place of real trials: the student's agreement is known by its options, its test score is the opposite."""

    def __init__(self, broken: float = math.inf) -> None:
        self.ran: list[Mapping[str, Any]] = []
        self.agreements: dict[str, float] = {}
        self.broken = broken  # from this learning rate on trials diverge

    def run(self, loaded: LoadedStudy) -> Sequence[TrialResult]:
        outcomes = []
        for trial in expand(loaded):
            rate = trial.options["lr_generator"]
            agreement = 1 - abs(math.log10(rate) + 2) / 4  # best at 0.01
            self.agreements[trial.id] = agreement
            status = "diverged" if rate >= self.broken else "ok"
            outcomes.append(
                TrialResult(trial, make_record("dafl", trial.seed, status, final=0.1 + 0.8 * (1 - agreement)), None)
            )
        self.ran.append(outcomes[0].trial.options)
        return outcomes

    def curves(self, ids: Sequence[str]) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        return {
            name: [{"held_out_agreement": None}, {"held_out_agreement": 1.0}, {"held_out_agreement": last}]
            for name in ids
            if (last := self.agreements[name]) is not None
        }

    def cells(self, loaded: LoadedStudy, count: int = 6, seed: int = 0) -> list[Suggestion]:
        (space,) = spaces_of(loaded)
        return list(search(loaded, space, count, seed, self.run, self.curves))


def test_a_suggestion_is_an_ordinary_trial_with_every_seed(tmp_path: Path) -> None:
    harness = Harness()
    first, *_ = harness.cells(load(tmp_path))
    assert [outcome.trial.seed for outcome in first.outcomes] == [0, 1]
    assert set(first.options) == {"lr_generator", "batch"}
    for options in harness.ran:
        assert 0.0001 <= options["lr_generator"] <= 0.1
        assert isinstance(options["batch"], int)
        assert 10 <= options["batch"] <= 40
        assert float(f"{options['lr_generator']:.3g}") == options["lr_generator"]  # readable, as a study's samples


def test_the_same_seed_suggests_the_same_and_more_go_on_from_there(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    first = [cell.options for cell in Harness().cells(loaded, 12)]
    assert [cell.options for cell in Harness().cells(loaded, 15)][:12] == first
    assert [cell.options for cell in Harness().cells(loaded, 12, seed=1)] != first


def test_cells_are_ranked_by_held_out_agreement_and_not_by_the_test_score(tmp_path: Path) -> None:
    ranked = best_first(Harness().cells(load(tmp_path), 8))
    assert [cell.agreement for cell in ranked] == sorted((cell.agreement for cell in ranked), reverse=True)
    scores = [cell.score for cell in ranked]
    assert None not in scores
    assert scores == sorted(scores)  # the test scores say the opposite


def test_the_search_comes_nearer_to_the_best_than_its_first_ten(tmp_path: Path) -> None:
    cells = Harness().cells(load(tmp_path), 40)
    mean = lambda some: sum(cell.agreement for cell in some) / len(some)  # noqa: E731
    assert mean(cells[20:]) > mean(cells[:10]) + 0.03


def test_the_agreement_is_that_of_the_student_that_the_headline_rule_scores(tmp_path: Path) -> None:
    """The curve has 1.0 on the way: the rule `teacher_agreement` takes it, `last` does not."""
    last, *_ = Harness().cells(load(tmp_path), 1)
    assert last.agreement < 1
    best, *_ = Harness().cells(load(tmp_path, extra="selection: [teacher_agreement]\n"), 1)
    assert best.agreement == 1


def test_a_cell_with_a_failed_seed_is_the_worst(tmp_path: Path) -> None:
    cells = Harness(broken=0.005).cells(load(tmp_path), 10)
    failed = [cell for cell in cells if cell.options["lr_generator"] >= 0.005]
    assert failed
    assert {(cell.agreement, cell.score) for cell in failed} == {(0.0, None)}
    assert best_first(cells)[0] not in failed


def test_a_cell_that_is_suggested_twice_is_listed_once(tmp_path: Path) -> None:
    cells = Harness().cells(
        load(tmp_path, "[dafl: {lr_generator: {from: 0.01, to: 0.1}, batch: {from: 10, to: 11}}]"), 6
    )
    assert len(best_first([*cells, *cells])) == len({tuple(cell.options.items()) for cell in cells})


def test_lists_are_choices_and_single_values_stay(tmp_path: Path) -> None:
    text = "[dafl: {lr_generator: {from: 0.001, to: 0.1}, batch: [10, 20], temperature: 3.0}]"
    harness = Harness()
    harness.cells(load(tmp_path, text), 12)
    assert {options["batch"] for options in harness.ran} == {10, 20}
    assert {options["temperature"] for options in harness.ran} == {3.0}


def test_ranges_need_neither_a_count_nor_a_sample(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.format(methods=RANGES).replace("sample: {count: 3}\n", ""), encoding="utf-8")
    with pytest.raises(UserError, match="needs a `count`"):
        load_study(file)
    loaded = load_study(file, searched=True)
    assert [space.method for space in spaces_of(loaded)] == ["dafl"]
    assert [name for name, _ in fixed(loaded).entries] == ["noise", "kd"]


def test_entries_without_a_range_are_kept_apart(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert [name for name, _ in fixed(loaded).entries] == ["noise", "kd"]
    both = load(tmp_path, "[dafl, dafl: {batch: {from: 10, to: 40}}]")
    assert fixed(both).entries == (("dafl", {}),)


@pytest.mark.parametrize(
    ("methods", "extra", "said"),
    [
        (
            "[dafl: {batch: {from: 2, to: 4}, temperature: 2.0}, dafl: {batch: {from: 5, to: 9}}]",
            "",
            "dafl has ranges in two entries",
        ),
        (RANGES, "selection: [last]\n", "held out for the rule teacher_agreement"),
    ],
)
def test_a_study_that_cannot_be_searched_says_why(tmp_path: Path, methods: str, extra: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        spaces_of(load(tmp_path, methods, extra))


def test_a_study_without_ranges_has_nothing_to_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY.format(methods="[noise]").replace("sample: {count: 3}\n", ""))
    assert answer(["search", "study.yaml"]) == 2
    assert "nothing to search" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_without_optuna_the_error_says_how_to_install_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    load(tmp_path)
    known = importlib.util.find_spec
    monkeypatch.setattr("bench.execution.search.find_spec", lambda name: None if name == "optuna" else known(name))
    with pytest.raises(UserError, match=r"pip install 'dfkd-bench\[search\]'"):
        check_optuna()
    assert answer(["search", "study.yaml"]) == 2
    assert "pip install 'dfkd-bench[search]'" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_search_runs_real_trials_and_a_second_one_finds_their_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = STUDY.format(methods="[noise: {batch: {from: 40, to: 80}}]").replace("[0, 1]", "[0]")
    Path("study.yaml").write_text(text)
    command = ["search", "study.yaml", "--executor", "inline", "--cells", "2", "--json"]
    assert answer(command) == 0
    first = json.loads(capsys.readouterr().out)
    (folder,) = Path("runs").iterdir()
    records = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/record.json")}
    assert sorted(path.parent.name for path in records) == sorted({name for cell in first for name in cell["trials"]})
    assert answer(command) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/record.json")} == records


def test_a_method_whose_batches_are_too_small_to_hold_images_out_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY.format(methods="[noise: {batch: {from: 2, to: 4}}]").replace("[0, 1]", "[0]"))
    assert answer(["search", "study.yaml", "--executor", "inline", "--json"]) == 2
    assert "no images were held out in trial" in capsys.readouterr().err
