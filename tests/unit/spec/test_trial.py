"""A trial's id: the same for the same trial wherever it comes from, another for another."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.records import TrialIdentity, trial_id
from bench.spec.budget import Budget
from bench.spec.trial import IDENTITY, OUTSIDE, Trial
from bench.utils.code_identity import RULE

TRIAL = Trial(
    suite="0.1",
    task="digits/lenet5-half",
    task_sha="1" * 16,
    teacher="lenet5-" + "2" * 16,
    method="zskd",
    method_sha="3" * 64,
    options={"temperature": 20.0, "betas": (1.0, 0.1), "beta": None, "rescale": True},
    budget={"steps": 10},
    seed=0,
    study="demo",
    label="zskd (temperature=20)",
    image_metrics=("confidence",),
    real_images=500,
    timeout=5.0,
    method_files=(Path("/somewhere/my_method.py"),),
)

OTHER: dict[str, Any] = {
    "suite": "0.2",
    "task": "mnist/lenet5-half",
    "task_sha": "4" * 16,
    "teacher": "lenet5-" + "5" * 16,
    "method": "dafl",
    "method_sha": "6" * 64,
    "options": {**TRIAL.options, "betas": (0.1, 1.0)},
    "budget": {"steps": 11},
    "seed": 1,
    "device": "cuda",
    "threads": 2,
    "precision": "bfloat16",
    "deterministic": False,
    "altered_data": True,
    "points": 21,
    "selection": ("last",),
    "study": "mine",
    "label": "",
    "image_metrics": (),
    "real_images": None,
    "timeout": None,
    "method_files": (),
    "own_task": {"name": "mine"},
    "pool": "cifar10",
    "teachers": ("lenet5-0123", "resnet18-4567"),
    "identity_rule": 3,
    "memory_format": "channels_last",
    "pool_path": Path("/somewhere/images.npy"),
    "settings": "small",
    "average": "points",
    "stated": (("temperature",), ()),
}


def test_every_field_is_either_identity_or_outside() -> None:
    assert {field.name for field in dataclasses.fields(Trial)} == {*IDENTITY, *OUTSIDE} == OTHER.keys()
    assert set(IDENTITY) == TrialIdentity.model_fields.keys()


@pytest.mark.parametrize("field", IDENTITY)
def test_the_id_changes_with_what_can_change_the_outcome(field: str) -> None:
    assert dataclasses.replace(TRIAL, **{field: OTHER[field]}).id != TRIAL.id


@pytest.mark.parametrize("field", OUTSIDE)
def test_the_id_does_not_change_with_what_cannot(field: str) -> None:
    assert dataclasses.replace(TRIAL, **{field: OTHER[field]}).id == TRIAL.id


def test_the_id_is_sixteen_hex_digits_and_knows_no_order_of_options() -> None:
    shuffled = dict(reversed(TRIAL.options.items()))
    assert dataclasses.replace(TRIAL, options=shuffled).id == TRIAL.id
    assert len(TRIAL.id) == 16
    assert int(TRIAL.id, 16) >= 0


def test_each_option_counts_even_one_that_is_none() -> None:
    ids = {dataclasses.replace(TRIAL, options={**TRIAL.options, name: 7}).id for name in TRIAL.options}
    assert len(ids | {TRIAL.id}) == len(TRIAL.options) + 1


def test_the_record_of_a_trial_has_its_id() -> None:
    identity = TrialIdentity.model_validate(TRIAL.identity())
    assert trial_id(identity.model_dump(mode="json")) == TRIAL.id


def test_records_of_the_first_rule_keep_their_ids_and_those_of_a_later_one_can_be_read() -> None:
    first, later = dataclasses.replace(TRIAL, identity_rule=1), dataclasses.replace(TRIAL, identity_rule=RULE + 1)
    assert TRIAL.identity()["identity_rule"] == RULE
    written = {name: value for name, value in TRIAL.identity().items() if name != "identity_rule"}  # as it was then
    assert first.identity() == written
    assert TrialIdentity.model_validate(written).identity_rule == 1
    for trial in (first, TRIAL, later):
        identity = TrialIdentity.model_validate(trial.identity())
        assert identity.identity_rule == trial.identity_rule
        assert trial_id(identity.model_dump(mode="json")) == trial.id
    assert len({first.id, TRIAL.id, later.id}) == 3


def test_a_trial_from_before_there_were_memory_formats_keeps_its_id() -> None:
    assert "memory_format" not in TRIAL.identity()
    assert TrialIdentity.model_validate(TRIAL.identity()).memory_format == "contiguous"
    other = dataclasses.replace(TRIAL, memory_format="channels_last")
    identity = TrialIdentity.model_validate(other.identity())
    assert identity.memory_format == "channels_last"
    assert trial_id(identity.model_dump(mode="json")) == other.id
    assert Trial.from_json(other.to_json()) == other


def test_the_budget_of_a_trial_is_checked_once_more() -> None:
    assert TRIAL.limits == Budget(steps=10)


SCALAR = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.none())
NAMES = st.text("abcdefgh_", min_size=1, max_size=5)


@given(
    options=st.dictionaries(NAMES, SCALAR | st.lists(SCALAR, min_size=1, max_size=3).map(tuple), max_size=5),
    budget=st.dictionaries(st.sampled_from(["seconds", "steps"]), st.integers(1) | st.floats(0.1, 1e9), min_size=1),
    selection=st.permutations(["last", "ema", "oracle"]).map(tuple),
    seed=st.integers(0, 2**63 - 1),
    label=st.text(),
    timeout=st.none() | st.floats(0.1, 1e9),
    files=st.lists(NAMES.map(Path), max_size=2).map(tuple),
    stated=st.lists(st.lists(NAMES, max_size=2).map(tuple), max_size=2).map(tuple),
)
def test_a_trial_survives_the_way_to_another_process(
    options: Any, budget: Any, selection: Any, seed: int, label: str, timeout: float | None, files: Any, stated: Any
) -> None:
    trial = dataclasses.replace(
        TRIAL,
        options=options,
        budget=budget,
        selection=selection,
        seed=seed,
        label=label,
        timeout=timeout,
        method_files=files,
        stated=stated,
    )
    arrived = Trial.from_json(json.loads(json.dumps(trial.to_json())))
    assert arrived == trial
    assert repr(arrived.options) == repr(trial.options)  # tuples are tuples, 1 is not 1.0
    assert arrived.id == trial.id
