"""Which rows are cells of one space of options: grids, samples of ranges, lines along one option."""

from __future__ import annotations

import itertools
import math

import pytest
from option_cells import PAIR, cell, grid_of, group_of, notes_of, only, sample_of
from record_builder import make_record

from bench.analysis.report.figures.heat_map import squares
from bench.analysis.report.sections.option_axis import axis_of
from bench.analysis.report.sections.sensitivity_cells import grids_of, sensitivities_of
from bench.analysis.report.sections.sensitivity_numbers import importance_of
from bench.analysis.report.sections.sensitivity_text import heat_caption, importance_table
from bench.spec.grid import Sample, draw


def test_rows_over_two_options_are_a_grid_with_its_values_in_order() -> None:
    (grid,) = grids_of(group_of(grid_of(temperatures=(20.0, 1.0, 4.0))))
    assert (grid.name, grid.options, grid.full) == ("dafl", PAIR, True)
    assert [grid.values(name) for name in PAIR] == [[1.0, 4.0, 20.0], [0.01, 0.1]]
    assert len(grid.cells) == 6


@pytest.mark.parametrize(
    "places",
    [
        [(1.0, 0.1), (4.0, 0.1)],  # one option, two values
        [(1.0, 0.1), (4.0, 0.1), (1.0, 0.2)],  # one option at a time
        [(1.0, 0.1), (2.0, 0.2), (3.0, 0.3)],  # both together
        [(1.0, 0.1)],
    ],
)
def test_few_rows_that_are_no_grid_say_nothing(places: list[tuple[float, float]]) -> None:
    assert sensitivities_of(group_of([cell(temperature=t, lr=lr) for t, lr in places])) == []


def test_a_row_with_a_value_of_its_own_stands_beside_the_grid_and_is_named() -> None:
    records = [*grid_of(), cell(temperature=1.0, lr=0.05), cell(temperature=1.0, lr=0.1, batch=512)]
    assert len(only(records).grids[0].cells) == 4
    assert notes_of(records)[-1] == (
        "Not among the cells: dafl (batch=512, lr=0.1, temperature=1.0), dafl (batch=64, lr=0.05, temperature=1.0)."
    )


def test_cells_that_failed_belong_to_the_grid_and_it_is_not_full() -> None:
    (grid,) = grids_of(group_of([*grid_of()[:3], cell(temperature=4.0, lr=0.01, status="diverged")]))
    assert (len(grid.cells), len(grid.scored), grid.full) == (4, 3, False)


def test_a_grid_with_a_cell_that_was_not_run_is_not_full() -> None:
    (grid,) = grids_of(group_of(grid_of(temperatures=(1.0, 4.0, 20.0), rates=(0.1, 0.01, 0.001))[:-1]))
    assert (len(grid.cells), grid.full) == (8, False)


def test_values_may_be_lists_and_words() -> None:
    found = only([cell(betas=betas, how=how) for betas in ([1.0], [1.0, 0.1]) for how in ("mse", "mae")])
    assert found.title == "betas by how"
    assert [place.text for place in found.axis("how").places] == ["mae", "mse"]


def test_methods_over_the_same_options_come_together_in_the_order_of_the_first() -> None:
    other = [
        make_record("rdskd", options={"lr": lr, "temperature": t}) for lr in (0.1, 0.01) for t in (1.0, 4.0)
    ]  # written in another order
    found = only([*grid_of(), *other])
    assert [grid.name for grid in found.grids] == ["dafl", "rdskd"]
    assert {grid.options for grid in found.grids} == {PAIR}


def test_fewer_of_the_same_values_come_together_too_and_are_said_to_differ() -> None:
    records = [*grid_of(temperatures=(1.0, 4.0, 20.0)), *grid_of("rdskd")]
    assert len(only(records).grids) == 2
    assert any("have different values here" in note for note in notes_of(records))
    assert not any("do not have" in note for note in notes_of([*grid_of(), *grid_of("rdskd")]))


def test_other_values_or_options_are_looked_at_apart() -> None:
    records = [*grid_of(), *grid_of("rdskd", rates=(7.0, 8.0)), *(cell("cmi", a=a, b=b) for a in "xy" for b in "xy")]
    assert [[grid.name for grid in each.grids] for each in sensitivities_of(group_of(records))] == [
        ["cmi"],
        ["dafl"],
        ["rdskd"],
    ]


def test_versions_of_the_code_are_grids_with_names_of_their_own() -> None:
    records = [*grid_of(code="0123456789ab"), *grid_of(code="ba9876543210")]
    assert sorted(grid.name for grid in only(records).grids) == ["dafl (code=0123456)", "dafl (code=ba98765)"]


# Samples and lines


def test_cells_that_share_no_value_are_a_sample_in_intervals() -> None:
    records = sample_of()
    found = only([*records, cell(temperature=3.33, lr=0.0333, batch=512)])
    (grid,) = found.grids
    assert (grid.options, grid.sampled, len(grid.cells), grid.full) == (PAIR, True, 16, False)
    assert [row.records[0].trial.options["batch"] for row in grid.aside] == [512]
    axis = found.axis("lr")
    assert axis.logarithmic
    assert not found.axis("temperature").logarithmic
    assert sum(len(place.values) for place in axis.places) == 16
    by_hand = [
        sum(low <= r.trial.options["lr"] <= high for r in records) for low, high in itertools.pairwise(axis.edges)
    ]
    assert [len(place.values) for place in axis.places] == by_hand
    shown = [square for line in squares(grid, (found.axis("temperature"), axis)) for square in line]
    assert sum(len(square.rows) for square in shown) == 16
    assert "all cells in a square" in heat_caption(found, PAIR)


def test_a_listed_option_of_a_sample_stays_a_list() -> None:
    points = draw(Sample(count=16), 2).tolist()
    found = only([cell(lr=round(x, 3), how=("mse", "mae")[int(2 * y)]) for x, y in points])
    assert found.sampled
    assert [place.text for place in found.axis("how").places] == ["mae", "mse"]
    assert not found.axis("how").edges


def test_few_cells_or_those_around_a_middle_are_no_sample() -> None:
    assert sensitivities_of(group_of(sample_of(count=7))) == []
    star = [cell(temperature=float(t), lr=0.1) for t in range(1, 9)] + [cell(temperature=1.0, lr=0.2)]
    (found,) = sensitivities_of(group_of(star))
    assert (found.options, found.sampled) == (("temperature",), False)


def test_samples_of_two_methods_come_together_but_not_with_a_grid() -> None:
    records = [*sample_of(), *sample_of("rdskd"), *grid_of("cmi")]
    assert [[grid.name for grid in each.grids] for each in sensitivities_of(group_of(records))] == [
        ["cmi"],
        ["dafl", "rdskd"],
    ]


def test_three_values_of_one_option_are_a_line_without_heat_map() -> None:
    found = only([cell(temperature=t, lr=0.1) for t in (20.0, 1.0, 4.0)])
    assert (found.options, found.pairs) == (("temperature",), [])
    assert [place.text for place in found.axis("temperature").places] == ["1", "4", "20"]
    assert importance_table(found, [importance_of(grid, found) for grid in found.grids]) == []


def test_truth_values_and_words_stand_in_places_of_their_own() -> None:
    axis = axis_of("fresh", [True, False])
    assert (axis.numbers, axis.logarithmic, [axis.scaled(value) for value in (False, True)]) == (False, False, [0, 1])
    assert axis_of("lr", [1.0, 1.5, 2.0]).logarithmic is False
    assert axis_of("lr", [0.001, 0.01, 0.1]).scaled(0.01) == pytest.approx(math.log(0.01))
