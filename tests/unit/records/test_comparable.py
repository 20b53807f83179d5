"""Records are comparable if they share task, teacher, budget, suite, selection rule, and the rules of measuring."""

from __future__ import annotations

from typing import Any

import pytest
from record_builder import make_record

from bench.records import Loaded, Record, comparable


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "zskd"},
        {"seed": 3},
        {"options": {"batch": 1}},
        {"status": "diverged"},
        {"threads": 4},
        {"method_sha": "f" * 12},
        {"identity_rule": 2},
        {"memory_format": "channels_last"},
    ],
)
def test_what_is_compared_may_differ(changes: dict[str, Any]) -> None:
    assert comparable(make_record(**changes)) == comparable(make_record())


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "digits/other"},
        {"task_sha": "0" * 16},
        {"teacher_sha": "cd" * 32},
        {"budget": {"teacher_images": 40001}},
        {"budget": {"teacher_images": 40000, "seconds": 9}},
        {"suite": "0.2"},
        {"headline": "ema"},
        {"device": "cuda"},
        {"precision": "mixed"},
        {"points": 10},
    ],
)
def test_what_a_comparison_rests_on_may_not(changes: dict[str, Any]) -> None:
    assert comparable(make_record(**changes)) != comparable(make_record())


def test_the_order_of_a_budget_and_the_number_of_a_gpu_do_not_matter() -> None:
    two = [{"seconds": 9, "steps": 5}, {"steps": 5, "seconds": 9}]
    assert comparable(make_record(budget=two[0])) == comparable(make_record(budget=two[1]))
    assert comparable(make_record(device="cuda:1")) == comparable(make_record(device="cuda"))


def test_a_trial_without_a_teacher_can_be_filed_under_one() -> None:
    never = make_record(status="crashed", teacher_sha=None)
    assert comparable(never).teacher == ""
    assert comparable(never, Loaded("ab" * 32)) == comparable(make_record())


def test_other_images_are_never_compared_and_altered_files_with_the_same_images_are() -> None:
    def on(fingerprint: str, altered: bool) -> Record:
        record = make_record(altered_data=altered)
        return record.model_copy(update={"provenance": {**record.provenance, "data": {"fingerprint": fingerprint}}})

    first, same, other = on("a", False), on("a", True), on("b", True)
    assert comparable(first) == comparable(same)
    assert comparable(first) != comparable(other)
