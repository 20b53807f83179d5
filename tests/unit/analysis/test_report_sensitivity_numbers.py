"""How robust a method is over its options, what each option matters, and which one changed nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from option_cells import PAIR, cell, grid_of, group_of, measured_group, notes_of, only, sample_of

from bench.analysis.report.sections.groups import Group
from bench.analysis.report.sections.sensitivity_cells import sensitivities_of
from bench.analysis.report.sections.sensitivity_numbers import chance_level, importance_of, robustness, unchanged
from bench.analysis.report.sections.sensitivity_text import importance_table, robustness_table
from bench.analysis.report.sections.sweeps import Sweep, SweepCell
from bench.analysis.report.sections.sweeps_text import sweep_notes
from bench.records import Record


@pytest.fixture
def measured() -> Group:
    return measured_group()


def test_robustness_has_known_answers(measured: Group) -> None:
    (found,) = sensitivities_of(measured)
    dafl, rdskd = (robustness(grid, measured.floor, chance_level(measured)) for grid in found.grids)
    assert dafl is not None
    assert rdskd is not None
    means = [0.95, 0.94, 0.939, 0.55]
    centre = sum(means) / 4
    assert dafl.mean == pytest.approx(centre)
    assert dafl.spread == pytest.approx(math.sqrt(sum((mean - centre) ** 2 for mean in means) / 4))
    assert dafl.seeds == pytest.approx(0.02 * math.sqrt(2))
    assert (dafl.near, dafl.below_noise, dafl.diverged, dafl.trials) == (2, 1, 0, 8)  # exactly one point below is near
    assert found.grids[0].words(dafl.worst) == "temperature=4, lr=0.01"
    assert (rdskd.near, rdskd.below_noise, rdskd.diverged, rdskd.trials) == (2, 0, 3, 8)
    assert rdskd.seeds == pytest.approx(0.0)  # of the cells with two scores


def test_the_table_has_a_line_a_method(measured: Group) -> None:
    (found,) = sensitivities_of(measured)
    head, dafl, rdskd = robustness_table(found, measured)
    assert head[-2:] == ["Diverging trials", "Not above noise"]
    assert dafl[:3] == ["dafl", "4", "84.5"]
    assert dafl[4:] == [
        "2.8",
        "95.0 (temperature=1, lr=0.1)",
        "50 % (2 of 4)",
        "55.0 (temperature=4, lr=0.01)",
        "0 % (0 of 8)",
        "25 % (1 of 4)",
    ]
    assert rdskd[-2:] == ["38 % (3 of 8, 3 without a score)", "0 % (0 of 4)"]


def test_a_method_that_failed_everywhere_has_a_line_without_numbers() -> None:
    found = only([*grid_of(), *grid_of("rdskd", status="diverged")])
    group = group_of([*grid_of(), *grid_of("rdskd", status="diverged")])
    line = robustness_table(found, group)[2]
    assert line == ["rdskd", "4", *["—"] * 6, "100 % (4 of 4)"]


def test_one_seed_has_no_spread_over_seeds() -> None:
    (grid,) = only(grid_of()).grids
    numbers = robustness(grid, None, None)
    assert numbers is not None
    assert (numbers.seeds, numbers.below_noise) == (None, None)


# What the options matter


def importance_lines(records: list[Record]) -> list[list[str]]:
    found = only(records)
    return importance_table(found, [importance_of(grid, found) for grid in found.grids])


def test_the_importance_of_a_full_grid_is_exact_and_stands_beside_chance() -> None:
    """Scores are a sum: 4 points for the temperature, 2 for lr, so 80 % and 20 %; seeds have a variance of 2."""
    records = [
        cell(score=0.8 + 0.04 * (t == 4.0) + 0.02 * (lr == 0.1) + shift, seed=seed, temperature=t, lr=lr)
        for t in (1.0, 4.0)
        for lr in (0.1, 0.01)
        for seed, shift in ((0, -0.01), (1, 0.01))
    ]
    head, line = importance_lines(records)
    assert head == ["Method", "Any effect", "temperature", "lr", "temperature with lr", "How"]
    # of a cell's mean 1 (2 / 2 seeds) of the variance over cells, 5: 20 %, a third each
    at_all = float(line[1].removeprefix("p = "))
    assert at_all == pytest.approx(1 / 24, abs=0.01)  # both seeds order the four cells alike: one of 24 orders
    few = "(by chance 7 %, too few seeds to test)"
    assert line[2:] == [f"80 % {few}", f"20 % {few}", "0 % (by chance 7 %)", "exact"]


def test_an_effect_that_all_seeds_have_is_shown_and_one_that_none_has_is_not() -> None:
    random = np.random.default_rng(0)
    records = [
        cell(score=0.8 + 0.04 * (t == 4.0) + 0.01 * random.random(), seed=seed, temperature=t, lr=lr)
        for t in (1.0, 4.0)
        for lr in (0.1, 0.01)
        for seed in range(8)
    ]
    _, line = importance_lines(records)
    assert line[1] == "p < 0.001"
    of_temperature = float(line[2].rpartition("p = ")[2].removesuffix(")"))
    assert of_temperature == pytest.approx(2 * 2 / 2**8, abs=0.006)  # two of 2^8 orders, times two options
    assert line[3].endswith("no effect shown)")


def test_the_importance_of_a_sample_is_estimated() -> None:
    _, line = importance_lines(sample_of(count=32, slope=0.4))
    assert line[1] == "—"
    assert int(line[2].removesuffix(" %")) > 80
    assert int(line[3].removesuffix(" %")) < 15
    assert line[-1].startswith("estimated (R² 0.")


def test_a_grid_with_a_hole_is_estimated_too_and_a_small_one_not_at_all() -> None:
    nine = grid_of(temperatures=(1.0, 4.0, 20.0), rates=(0.1, 0.01, 0.001))
    varied = [cell(score=0.5 + 0.02 * place, **record.trial.options) for place, record in enumerate(nine)]
    assert importance_lines(varied[:-1])[1][-1].startswith("estimated")
    failed = [cell(status="diverged", **record.trial.options) for record in varied[-2:]]
    assert importance_lines([*varied[:-2], *failed]) == []


def test_a_student_at_chance_level_has_diverged() -> None:
    records = [cell(score=s, temperature=t, lr=lr) for s, (t, lr) in zip(
        (0.9, 0.121, 0.12, 0.1), itertools.product((1.0, 4.0), (0.1, 0.01)), strict=True
    )]  # fmt: skip
    assert chance_level(group_of(records)) == pytest.approx(0.12)  # ten digits
    found = only(records)
    assert robustness_table(found, group_of(records))[1][-1] == "50 % (2 of 4)"
    assert any("at most 12 % (2 points above guessing)" in note for note in notes_of(records))


def test_an_option_that_changed_nothing_is_warned_of() -> None:
    scores = {1.0: 0.9, 4.0: 0.8}
    records = [cell(score=scores[t], temperature=t, lr=lr) for t in scores for lr in (0.1, 0.01, 0.001)]
    assert unchanged(only(records).grids[0].cells, PAIR) == [("lr", 4)]
    assert notes_of(records)[0].startswith("Warning: lr changed nothing in dafl: 4 trials")
    other = [*records[:-1], cell(score=0.8 + 1e-12, temperature=4.0, lr=0.001)]
    assert not any("Warning" in note for note in notes_of(other))


def test_the_sweep_of_an_option_that_changed_nothing_warns_too() -> None:
    group = group_of([cell(score=0.9, temperature=t, seed=seed) for t in (1.0, 4.0) for seed in (0, 1)])
    cells = tuple(SweepCell(str(row.label), "", row) for row in group.rows)
    assert any("changed nothing" in note for note in sweep_notes(Sweep("dafl", "temperature", cells, ()), group))
