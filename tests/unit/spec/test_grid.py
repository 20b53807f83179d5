"""Ranges and samples: which values a study gives an option, and what a user is told of each mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UserError
from bench.spec.expand import expand
from bench.spec.grid import Range, Sample, draw, settled
from bench.spec.options import OptionSpec
from bench.spec.study import LoadedStudy, Study, load_study
from bench.spec.trial import Trial

Load = Callable[..., list[Trial]]


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., LoadedStudy]:
    def loaded(*entries: str, more: str = "") -> LoadedStudy:
        listed = "".join(f"  - {entry}\n" for entry in entries)
        file = tmp_path / "study.yaml"
        text = f"name: s\ntasks: [digits/lenet5-half]\nmethods:\n{listed}budget: {{steps: 10}}\n{more}"
        file.write_text(text, encoding="utf-8")
        return load_study(file)

    return loaded


@pytest.fixture
def trials(loaded: Callable[..., LoadedStudy]) -> Load:
    return lambda *entries, more="": expand(loaded(*entries, more=more))


def values(found: list[Trial], name: str) -> list[Any]:
    return [trial.options[name] for trial in found]


@pytest.mark.parametrize(
    ("name", "written", "expected"),
    [
        ("lr_generator", "{from: 0.001, to: 0.1, count: 5, scale: log}", [0.001, 0.00316, 0.01, 0.0316, 0.1]),
        ("temperature", "{from: 1, to: 20, count: 3}", [1.0, 10.5, 20.0]),
        ("temperature", "{from: 100, to: 101, count: 5, scale: linear}", [100.0, 100.25, 100.5, 100.75, 101.0]),
        ("lr_student", "{from: 0.123456, to: 0.987654, count: 2}", [0.123456, 0.987654]),
        ("width", "{from: 4, to: 64, count: 5, scale: log}", [4, 8, 16, 32, 64]),
        ("width", "{from: 2, to: 5, count: 4}", [2, 3, 4, 5]),
    ],
)
def test_a_range_is_a_grid_axis_from_end_to_end(trials: Load, name: str, written: str, expected: list[float]) -> None:
    found = values(trials(f"dafl: {{{name}: {written}}}"), name)
    assert found == expected
    assert {type(value) for value in found} == {type(expected[0])}


def test_ranges_and_lists_multiply(trials: Load) -> None:
    found = trials("dafl: {temperature: {from: 1, to: 2, count: 2}, optimizer: [adam, sgd]}", "noise")
    assert [(t.options["temperature"], t.options["optimizer"]) for t in found if t.method == "dafl"] == [
        (1.0, "adam"),
        (1.0, "sgd"),
        (2.0, "adam"),
        (2.0, "sgd"),
    ]


def test_a_range_makes_the_trials_that_a_list_of_its_values_makes(trials: Load) -> None:
    ranged = trials("dafl: {lr_generator: {from: 0.01, to: 1, count: 3, scale: log}}")
    assert [trial.id for trial in ranged] == [trial.id for trial in trials("dafl: {lr_generator: [0.01, 0.1, 1.0]}")]


def test_a_sample_draws_from_all_ranges_and_lists_at_once(trials: Load) -> None:
    entry = "dafl: {temperature: {from: 1, to: 20, scale: log}, width: {from: 2, to: 3}, optimizer: [adam, sgd]}"
    found = trials(entry, "kd: {batch: [8, 4]}", "noise", more="sample: {count: 32}\nseeds: [0, 1]\n")
    cells = {trial.label: trial.options for trial in found if trial.method == "dafl"}
    assert len(cells) == 32
    assert values([t for t in found if t.method == "kd"], "batch") == [8, 8, 4, 4]  # no range: a grid
    for name, allowed in (("width", {2, 3}), ("optimizer", {"adam", "sgd"})):
        chosen = [options[name] for options in cells.values()]
        assert set(chosen) == allowed
        assert 10 <= chosen.count(chosen[0]) <= 22
    temperatures = [options["temperature"] for options in cells.values()]
    assert all(float(f"{value:.3g}") == value for value in temperatures)
    assert 14 <= sum(value < 20**0.5 for value in temperatures) <= 18  # half of the factors


@pytest.mark.parametrize("how", ["sobol", "random"])
def test_a_larger_sample_begins_with_the_smaller_one(trials: Load, how: str) -> None:
    entry = "dafl: {temperature: {from: 1, to: 20}, lr_generator: {from: 0.001, to: 1, scale: log}}"
    few = trials(entry, more=f"sample: {{count: 5, how: {how}}}\n")
    many = trials(entry, more=f"sample: {{count: 12, how: {how}}}\n")
    other = trials(entry, more=f"sample: {{count: 12, how: {how}, seed: 1}}\n")
    assert [trial.id for trial in many][:5] == [trial.id for trial in few]
    assert not {trial.id for trial in many} & {trial.id for trial in other}


def test_two_methods_have_the_same_points_whatever_the_order_of_their_options(trials: Load) -> None:
    axes = ["temperature: {from: 1, to: 20}", "lr_generator: {from: 0.001, to: 1, scale: log}"]
    entries = [f"dafl: {{{', '.join(axes)}}}", f"rdskd: {{{', '.join(axes[::-1])}}}"]
    found = trials(*entries, more="sample: {count: 6}\n")
    pairs = [(t.options["temperature"], t.options["lr_generator"]) for t in found]
    assert pairs[:6] == pairs[6:]
    assert len(set(pairs)) == 6


def test_draws_that_come_to_the_same_cell_make_it_once(trials: Load) -> None:
    assert sorted(values(trials("dafl: {width: {from: 2, to: 4}}", more="sample: {count: 30}\n"), "width")) == [2, 3, 4]


def test_sobols_points_are_spread_more_evenly_than_chance() -> None:
    columns = draw(Sample(count=64), 3).T
    assert all(sorted((column * 64).astype(int)) == sorted({*(column * 64).astype(int)}) for column in columns)
    assert draw(Sample(count=7, how="random", seed=3), 2).shape == (7, 2)


@given(
    low=st.floats(1e-6, 1e3),
    factor=st.floats(1.001, 1e4),
    share=st.floats(0, 1),
    scale=st.sampled_from(["linear", "log"]),
)
def test_a_settled_value_is_within_its_range_and_settled(low: float, factor: float, share: float, scale: str) -> None:
    spec = OptionSpec("o", float, 1.0)
    given = Range.model_validate({"from": low, "to": low * factor, "scale": scale})
    value = settled(spec, given, low + share * low * (factor - 1))
    assert given.low <= value <= given.high
    assert settled(spec, given, value) == value


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("dafl: {lr_generator: {from: 0, to: 1, count: 3}}", "'lr_generator' must be above 0, not 0"),
        ("dafl: {lr_generator: {from: 1, to: .inf, count: 3}}", "to: must be finite"),
        ("dafl: {lr_generator: {from: 1, to: x, count: 3}}", "to: must be a number, not 'x'"),
        ("dafl: {one_hot: {from: 0, to: 1, count: 3, scale: log}}", "a log range starts above 0, not at 0"),
        ("dafl: {one_hot: {from: 2, to: 1, count: 3}}", "`to` of option 'one_hot' must be above its `from`, 2"),
        ("dafl: {one_hot: {from: 1, to: 2, count: 1}}", "count: must be at least 2, not 1"),
        ("dafl: {one_hot: {from: 1, to: 2}}", "needs a `count`, or the study needs a `sample`"),
        ("dafl: {one_hot: {form: 1, to: 2, count: 2}}", "unknown key 'form'; did you mean 'from'?"),
        ("dafl: {one_hot: {to: 2, count: 2}}", "the key 'from' is missing"),
        ("dafl: {one_hot: {from: 1, to: 2, count: 2, scale: lin}}", "did you mean 'linear'?"),
        ("dafl: {width: {from: 2, to: 4, count: 8}}", "'width' has only 3 different values in this range, not 8"),
        ("dafl: {width: {from: 2.5, to: 4, count: 2}}", "'width' must be int, not 2.5"),
        ("dafl: {optimizer: {from: 1, to: 2, count: 2}}", "is adam | sgd and takes no range; list its values"),
        ("dafl: {milestones: {from: 0.1, to: 0.2, count: 2}}", "takes no range"),
        ("dafl: {nothing: {from: 1, to: 2, count: 2}}", "dafl has no option 'nothing'"),
    ],
)
def test_a_mistake_in_a_range_is_named_with_its_line(loaded: Any, entry: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        loaded("noise", entry)
    assert "study.yaml, line 5: " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("entry", "sample", "line", "message"),
    [
        ("dafl: {one_hot: {from: 1, to: 2, count: 3}}", "{count: 4}", 4, "the study's `sample` already sets"),
        ("dafl: {one_hot: [1, 2]}", "{count: 4}", 6, "nothing to sample: no option has a range"),
        ("dafl: {one_hot: {from: 1, to: 2}}", "{}", 6, "the key 'count' is missing"),
        ("dafl: {one_hot: {from: 1, to: 2}}", "{count: 4, how: sobal}", 6, "did you mean 'sobol'?"),
        ("dafl: {one_hot: {from: 1, to: 2}}", "{count: 4, sed: 1}", 6, "unknown key 'sed'; did you mean 'seed'?"),
        ("dafl: {one_hot: {from: 1, to: 2}}", "{count: 0}", 6, "must be at least 1, not 0"),
    ],
)
def test_a_mistake_in_a_sample_is_named_with_its_line(
    loaded: Any, entry: str, sample: str, line: int, message: str
) -> None:
    with pytest.raises(UserError) as error:
        loaded(entry, more=f"sample: {sample}\n")
    assert f"study.yaml, line {line}: " in str(error.value)
    assert message in str(error.value)


def test_editors_learn_of_ranges_and_samples_from_the_schema() -> None:
    schema = Study.model_json_schema()
    assert "sample" in schema["properties"]
    assert {"from", "to", "count", "scale"} <= set(json.dumps(schema).replace('"', " ").split())
