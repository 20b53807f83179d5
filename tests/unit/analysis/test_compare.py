"""What is said of two sides: verdicts, what is not comparable, failures, and nothing more than the data bear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commit_history import filed
from record_builder import make_record

from bench.analysis.regression.compare import Comparison, compare
from bench.analysis.regression.effects import SMALLEST, TIME, metric_named, own_effects, smallest_effect
from bench.analysis.regression.filing import Filed, read_filed
from bench.analysis.regression.verdicts import Number, decide, ratio_number
from bench.errors import UserError
from bench.records import open_results, write_trial
from bench.utils.git import Commit

GOOD = [0.90, 0.91, 0.89, 0.92, 0.90]
NOISE = np.array([0.001, -0.002, 0.0015, 0.0, -0.001])


def score(found: Comparison, method: str = "dafl") -> Number:
    (number,) = [each for each in found.numbers if (each.method, each.metric) == (method, "accuracy")]
    return number


def sides(tmp_path: Path, base: Any, head: Any, **changes: Any) -> tuple[Filed, Filed]:
    return filed(tmp_path / "base", {"dafl": base}), filed(tmp_path / "head", {"dafl": head}, **changes)


@pytest.mark.parametrize(
    ("change", "verdict"), [(-0.05, "worse"), (0.05, "better"), (0.0, "same"), (-0.005, "same"), (-0.0098, "undecided")]
)
def test_a_difference_is_judged_by_its_size_and_its_certainty(tmp_path: Path, change: float, verdict: str) -> None:
    found = score(compare(*sides(tmp_path, GOOD, GOOD + NOISE + change)))
    assert found.verdict == verdict
    assert found.pairs == 5
    assert found.difference == pytest.approx(change + NOISE.mean())
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.difference < found.high
    assert found.adjusted is not None
    assert found.p is not None
    assert found.adjusted >= found.p
    assert not found.identical


def test_pairs_see_what_the_spread_of_the_seeds_hides(tmp_path: Path) -> None:
    wide = np.array([0.2, 0.5, 0.9, 0.35, 0.7])
    assert score(compare(*sides(tmp_path, wide, wide + NOISE - 0.03))).verdict == "worse"


def test_a_difference_that_was_not_found_is_not_sameness(tmp_path: Path) -> None:
    found = compare(*sides(tmp_path, GOOD, [0.95, 0.86, 0.93, 0.88, 0.91]))
    number = score(found)
    assert number.verdict == found.outcome == "undecided"
    assert number.visible is not None
    assert number.needed is not None
    assert 0.05 < number.visible < 0.2  # the spread of a difference is 4 points
    assert 100 < number.needed < 1000


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_are_no_data_however_large_the_difference(tmp_path: Path, seeds: int) -> None:
    found = score(compare(*sides(tmp_path, GOOD[:seeds], [0.1] * seeds)))
    assert found.verdict == "undecided"
    assert f"{seeds} seed" in found.why
    assert "needs 3" in found.why


def test_the_same_difference_on_every_seed_needs_no_test(tmp_path: Path) -> None:
    found = score(compare(*sides(tmp_path, [1.0] * 5, [0.1] * 5)))
    assert (found.verdict, found.p) == ("worse", None)


def test_a_p_value_below_all_floats_is_a_regression_all_the_same(tmp_path: Path) -> None:
    seeds = np.random.default_rng(0).normal(0, 1e-12, 60)
    number = score(compare(*sides(tmp_path, [0.9] * 60, list(0.8 + seeds))))
    assert (number.verdict, number.p) == ("worse", 0.0)


@pytest.mark.parametrize(("head", "verdict"), [(2.0, "worse"), (1.0, "same")])
def test_speeds_without_any_spread_are_judged(head: float, verdict: str) -> None:
    effect = smallest_effect(TIME.name)
    assert effect is not None
    number = ratio_number(("speed", "step", TIME.name), TIME, effect, [1.0] * 3, [head] * 3)
    assert decide([number], 0.01)[0].verdict == verdict


@pytest.mark.parametrize(
    ("before", "after", "identical"),
    [("one", "one", "bits"), ("one", "other", ""), ("one", None, "numbers"), (None, None, "numbers")],
)
def test_equal_numbers_are_called_identical_as_far_as_bits_are_known(
    tmp_path: Path, before: str | None, after: str | None, identical: str
) -> None:
    base, head = (
        filed(tmp_path / name, {"dafl": GOOD}, bits={"dafl": bits} if bits else None)
        for name, bits in (("base", before), ("head", after))
    )
    found = compare(base, head)
    assert score(found).identical == identical
    assert {number.verdict for number in found.numbers} == {"same"}
    assert not any(number.tested for number in found.numbers)
    assert found.outcome == "no regression"


def test_one_seed_is_enough_to_be_identical(tmp_path: Path) -> None:
    assert score(compare(*sides(tmp_path, GOOD[:1], GOOD[:1]))).verdict == "same"


def test_every_metric_goes_by_its_own_direction(tmp_path: Path) -> None:
    def side(name: str, sign: int) -> Filed:
        folder = open_results(tmp_path / name, create=True)
        for seed in range(5):
            record = make_record("dafl", seed, final=0.9)
            shift = 1 + sign * (0.2 + 0.001 * seed)
            images = {"status": "ok", "images": 100}
            write_trial(
                folder,
                record.model_copy(
                    update={
                        "image_metrics": {
                            "fd[teacher]": type(record.image_metrics["class_balance"])(value=20 * shift, **images),
                            "confidence": type(record.image_metrics["class_balance"])(value=0.5 * shift, **images),
                            "class_balance": type(record.image_metrics["class_balance"])(value=0.5 * shift, **images),
                        },
                        "meter": record.meter.model_copy(update={"gmacs": 60 * shift, "seconds": 10 * shift}),
                    }
                ),
                [],
                {},
            )
        return read_filed(name, folder)

    found = compare(side("base", 0), side("head", 1))
    verdicts = {number.metric: number.verdict for number in found.numbers}
    assert verdicts["fd[teacher]"] == "worse"
    assert verdicts["gmacs"] == "changed"  # a cost, and no loss
    assert found.outcome == "no regression"  # what is not a score informs
    assert verdicts["class_balance"] == "better"
    assert verdicts["confidence"] == "changed"
    assert "seconds" not in verdicts
    back = compare(side("base2", 1), side("head2", 0))
    assert {number.metric: number.verdict for number in back.numbers}["fd[teacher]"] == "better"
    only = compare(side("base3", 0), side("head3", 1), only=["class_balance"])
    assert [number.metric for number in only.numbers] == ["class_balance"]
    timed = compare(side("base4", 0), side("head4", 1), own=own_effects(["seconds=10%"]))
    assert {number.metric: number.verdict for number in timed.numbers}["seconds"] == "changed"


def test_ones_own_smallest_effect_wins(tmp_path: Path) -> None:
    both = sides(tmp_path, GOOD, GOOD + NOISE - 0.05)
    assert score(compare(*both, own=own_effects(["accuracy=0.2"]))).verdict == "same"
    assert score(compare(*both, own=own_effects(["accuracy=2%"]))).smallest == pytest.approx(0.02 * np.mean(GOOD))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("accuracy", "write METRIC=SIZE"),
        ("acuracy=0.1", "did you mean 'accuracy'?"),
        ("accuracy=big", "must be a number"),
        ("accuracy=-1", "must be a number of at least 0"),
        ("accuracy=nan", "must be a number"),
    ],
)
def test_a_mistaken_effect_is_told(written: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        own_effects([written])
    assert said in str(error.value)


def test_every_smallest_effect_is_of_a_declared_metric() -> None:
    assert [name for name in SMALLEST if metric_named(name) is None] == []


def test_what_differs_in_more_than_code_is_listed_and_not_compared(tmp_path: Path) -> None:
    found = compare(*sides(tmp_path, GOOD, GOOD, options={"batch": 64, "temperature": 4.0}))
    assert not found.numbers
    assert found.outcome == "undecided"
    unknown = "(the records do not tell which options were stated)"
    assert [(each.what, each.why) for each in found.missing] == [
        ("all numbers", f"not in head: batch 128 -> 64 {unknown}"),
        ("all numbers", "not in base"),
    ]
    budget = compare(*sides(tmp_path / "budget", GOOD, GOOD, budget={"steps": 5}))
    assert budget.missing[0].why.startswith("not in head: budget teacher_images=40000 -> steps=5")


def test_another_teacher_under_the_same_recipe_is_not_compared(tmp_path: Path) -> None:
    base, head = sides(tmp_path, GOOD, GOOD)
    other = tuple(
        record.model_copy(
            update={"teacher": record.teacher and record.teacher.model_copy(update={"sha256": "cd" * 32})}
        )
        for record in head.records
    )
    found = compare(base, Filed(head.name, head.folder, None, other, {}, ()))
    assert not found.numbers
    assert found.missing[0].why == "the teacher's weights differ"


def test_code_may_differ_and_seeds_may_be_missing(tmp_path: Path) -> None:
    found = compare(*sides(tmp_path, GOOD, [*GOOD, 0.5], method_sha="f" * 12))
    assert score(found).pairs == 5
    assert [(each.what, each.why) for each in found.missing] == [("seed 5", "not in base")]


def test_a_later_rule_of_identity_is_no_other_condition_than_other_code(tmp_path: Path) -> None:
    found = compare(*sides(tmp_path, GOOD, GOOD, method_sha="f" * 12, identity_rule=2))
    assert score(found).pairs == 5
    assert not found.missing


def test_a_memory_format_that_changed_is_no_other_condition_and_is_named(tmp_path: Path) -> None:
    found = compare(*sides(tmp_path, GOOD, GOOD, memory_format="channels_last"))
    assert score(found).pairs == 5
    assert not found.missing
    assert "memory format contiguous -> channels_last" in str(score(found))


def with_failures(tmp_path: Path, name: str, statuses: dict[int, str]) -> Filed:
    folder = open_results(tmp_path / name, create=True)
    for seed, value in enumerate(GOOD):
        status = statuses.get(seed, "ok")
        changes = {"reason": "it broke"} if status != "ok" else {}
        write_trial(folder, make_record("dafl", seed, status, final=value, **changes), [], {})
    return read_filed(name, folder)


def test_a_trial_that_fails_in_head_alone_is_a_regression(tmp_path: Path) -> None:
    well, broken = with_failures(tmp_path, "well", {}), with_failures(tmp_path, "broken", {1: "crashed", 2: "diverged"})
    found = compare(well, broken)
    assert found.outcome == "regression"
    assert [(turn.seed, turn.after, turn.reason) for turn in found.failed] == [
        (1, "crashed", "it broke"),
        (2, "diverged", "it broke"),
    ]
    assert score(found).pairs == 3
    back = compare(broken, well)
    assert back.outcome == "no regression"
    assert len(back.fixed) == 2
    both = compare(broken, broken)
    assert both.outcome == "no regression"  # of the seeds that are left
    assert [each.why for each in both.missing] == ["failed on both sides: crashed", "failed on both sides: diverged"]


def test_missing_data_is_no_regression(tmp_path: Path) -> None:
    well, bare = with_failures(tmp_path, "well", {}), with_failures(tmp_path, "bare", {4: "missing_data"})
    found = compare(well, bare)
    assert found.outcome == "no regression"
    assert [each.why for each in found.missing] == ["missing data in head: it broke"]


def test_holm_corrects_for_the_scores_by_themselves(tmp_path: Path) -> None:
    methods = {f"m{index}": GOOD for index in range(6)}
    random = np.random.default_rng(0)
    shifted = {name: np.array(GOOD) + random.normal(-0.004, 0.002, 5) for name in methods}
    found = compare(filed(tmp_path / "a", methods), filed(tmp_path / "b", shifted))
    for family in ("score", "other"):
        tested = [number for number in found.numbers if number.tested and number.family == family]
        assert len(tested) == 6  # accuracy; agreement: the counts do not differ
        smallest = min(tested, key=lambda number: number.p or 0)
        assert smallest.adjusted == pytest.approx(min(1, 6 * (smallest.p or 0)))


def test_agreement_and_costs_warn_and_never_fail(tmp_path: Path) -> None:
    base, head = sides(tmp_path, GOOD, GOOD)
    changed = tuple(
        record.model_copy(
            update={
                "agreement": 0.5 + seed / 1000,
                "meter": record.meter.model_copy(update={"synthesised_images": 90_000, "teacher_images": 1}),
            }
        )
        for seed, record in enumerate(head.records)
    )
    found = compare(base, Filed(head.name, head.folder, None, changed, {}, ()))
    verdicts = {number.metric: (number.verdict, number.family) for number in found.numbers}
    assert verdicts["agreement"] == ("worse", "other")
    assert verdicts["synthesised_images"] == verdicts["teacher_images"] == ("changed", "other")
    assert found.outcome == "no regression"
    named = compare(base, Filed(head.name, head.folder, None, changed, {}, ()), only=["agreement"])
    assert named.outcome == "regression"  # who names a number lets it decide


def test_a_gain_is_no_loss_even_where_it_is_not_certain(tmp_path: Path) -> None:
    found = compare(*sides(tmp_path, GOOD, np.array(GOOD) + np.array([0.01, 0.03, 0.02, 0.035, 0.005])))
    assert (score(found).verdict, found.outcome) == ("not worse", "no regression")


def test_the_seeds_of_earlier_commits_sharpen_a_comparison(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    draws = [np.array(0.8) + random.normal(0, 0.02, 5) for _ in range(8)]
    before = [filed(tmp_path / f"earlier{place}", {"dafl": draw}) for place, draw in enumerate(draws[2:])]
    base, head = sides(tmp_path, draws[0], draws[1] - 0.01)
    alone, helped = score(compare(base, head)), score(compare(base, head, earlier=before))
    assert alone.visible is not None
    assert helped.visible is not None
    assert helped.visible < alone.visible
    assert (alone.tests[-1].freedom, helped.tests[-1].freedom) == (8, 8 + 6 * 4)
    once = score(compare(base, head, earlier=[before[0]] * 9))
    assert once.tests[-1].freedom == 8 + 4  # the same numbers again are one draw
    calm = [filed(tmp_path / f"calm{place}", {"dafl": 0.8 + (draw - 0.8) / 50}) for place, draw in enumerate(draws)]
    assert score(compare(base, head, earlier=calm)).tests == alone.tests  # another spread is not taken together


def test_another_rule_may_carry_the_score(tmp_path: Path) -> None:
    base, head = sides(tmp_path, GOOD, GOOD + NOISE - 0.05)
    calm = tuple(
        record.model_copy(update={"scores": {**record.scores, "ema": old.scores["ema"]}})
        for record, old in zip(head.records, base.records, strict=True)
    )
    found = compare(base, Filed(head.name, head.folder, None, calm, {}, ()), rule="ema")
    assert (score(found).verdict, found.outcome) == ("same", "no regression")
    nobody = compare(base, head, rule="nobody's")
    assert nobody.outcome == "undecided"
    assert nobody.missing[0].why == "neither side has it by the rule nobody's"


def test_a_side_tells_its_commit_and_that_it_was_changed(tmp_path: Path) -> None:
    commit = Commit("0123456789abcdef" * 2 + "01234567", "2026-01-01", "A subject")
    assert Filed("v1", tmp_path, commit, (), {}, ()).title == "v1, 012345678 A subject"
    assert Filed("0123", tmp_path, commit, (), {}, ()).title == "012345678 A subject"
    changed = Filed("0123", tmp_path / f"{commit.sha}-dirty-01", commit, (), {}, ())
    assert changed.title == "012345678 (changed) A subject"
