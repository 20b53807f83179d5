"""Places in somebody else's network that the task names: methods find them, and mistakes are told before training."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from method_fixtures import IMAGE, lenet, trial
from torch import Tensor, nn
from torch.optim import SGD

from bench.cli import answer
from bench.errors import Unsupported, UserError
from bench.execution.run_study import run_study
from bench.models import head, layers, stages
from bench.models.cost import bare_copy
from bench.models.taps import tap
from bench.records import load_records
from bench.spec.method_registry import find_methods
from bench.spec.requirements import why_unsupported
from bench.spec.task import TaskSpec, get_task

NETWORK = """
from torch import nn


class Foreign(nn.Module):
    '''What people write: no head, no stages, a classifier of several layers, and a part that nobody calls.'''

    def __init__(self, width):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, width, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(width, 2 * width, 5), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.unused = nn.Linear(1, 1)
        self.drop = nn.Dropout(0.1)
        self.classifier = nn.Sequential(nn.Linear(50 * width, 32), nn.ReLU(), nn.Linear(32, 10))

    @property
    def stages(self):
        return ["of its author", "for something else"]

    def forward(self, images):
        return self.classifier(self.drop(self.drop(self.features(images).flatten(1))))


def teacher(image, classes):
    return Foreign(6)


def student(image, classes):
    return Foreign(3)
"""
PLACES = {
    "head": ("classifier.2",),
    "stages": ("features.2", "features.5"),
    "layers": ("features.0", "features.1", "features.3"),
}
TASK = {
    "name": "own/foreign",
    "data": "digits",
    "image": {"channels": 1, "size": 32, "mean": [0.3051], "std": [0.3238]},
    "teacher": {"network": "own_networks.py:teacher", "recipe": "digits"},
    "student": "own_networks.py:student",
}
NAMED = {"head": "classifier.2", "stages": ["features.2", "features.5"]}


def foreign(width: int = 3) -> nn.Module:
    space: dict[str, type[nn.Module]] = {"__name__": "own"}  # type: ignore[dict-item]
    exec(NETWORK, space)
    return space["Foreign"](width)


def tap_foreign(**places: tuple[str, ...]) -> nn.Module:
    network = foreign()
    tap(network, "task 'a'", IMAGE.shape, places or PLACES)
    return network


# ---- the places ----------------------------------------------------------------------------------------------------


def test_what_the_task_names_is_found_and_the_network_stays_as_it_was() -> None:
    network = foreign()
    before, names = copy.deepcopy(network.state_dict()), [name for name, _ in network.named_modules()]
    tap(network, "task 'a'", IMAGE.shape, PLACES)
    for found in (network, copy.deepcopy(network), bare_copy(network).to("meta")):
        modules = dict(found.named_modules())
        assert head(found) is modules["classifier.2"]
        assert [modules[name] for name in PLACES["stages"]] == stages(found)
        assert [modules[name] for name in PLACES["layers"]] == layers(found)
    assert [name for name, _ in network.named_modules()] == names
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_place_goes_before_the_networks_own() -> None:
    network = lenet(0)
    own = head(network)
    tap(network, "task 'a'", IMAGE.shape, {"head": ("head.2",)})
    assert head(network) is own[2]  # type: ignore[index]
    assert len(stages(network)) == 2  # what is not named is the network's


def test_a_task_that_names_nothing_draws_and_changes_nothing() -> None:
    network, state = foreign(), torch.get_rng_state()
    tap(network, "task 'a'", IMAGE.shape, {})
    assert torch.equal(torch.get_rng_state(), state)
    assert "_dfkd_taps" not in vars(network)


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        (
            {"head": ("clasifier.2",)},
            "task 'a': head: the network has no module 'clasifier.2'; did you mean 'classifier.2'? "
            "(it has features, features.0, features.1, ",
        ),
        ({"stages": ("body",)}, "stages: the network has no module 'body' (it has features, features.0, "),
        (
            {"stages": ("features.5", "features.2")},
            "name them in the order of the forward pass: features.2, features.5",
        ),
        ({"stages": ("features.2", "classifier.0")}, "stages: 'classifier.0' gives (1, 32), not a map (N, C, h, w)"),
        ({"layers": ("unused",)}, "layers: a forward pass goes through 'unused' 0 times, not once"),
        ({"head": ("features.2",)}, "task 'a': head: 'features.2' gives (1, "),
        ({"head": ("classifier.0",)}, "head: 'classifier.0' gives (1, 32), not the logits (1, 10)"),
        ({"head": ("drop",)}, "head: a forward pass goes through 'drop' 2 times, not once"),
    ],
)
def test_a_wrong_place_is_named(places: dict[str, tuple[str, ...]], sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        tap_foreign(**places)
    assert sentence in str(raised.value)


# ---- methods on them -----------------------------------------------------------------------------------------------


def test_features_groups_and_layers_of_both_networks_are_those_places() -> None:
    teacher, student = tap_foreign(), tap_foreign()
    with trial(steps=2, teacher=teacher, student=student) as (s, context):
        opt = s.keep("opt", SGD(s.student.parameters(), 0.1))
        seen: list[Tensor] = []
        for _ in s.steps("train"):
            images = s.noise(4, *IMAGE.shape)
            out = s.teacher(images, features=True, groups=True, layers=True, pooled="stages")
            assert out.features.shape == (4, 32)
            assert [tuple(group.shape[1:]) for group in out.groups] == [(3, 14, 14), (6, 5, 5)]
            assert [len(group) for group in out.layers] == [2, 1]
            assert s.student_features(images)[1].shape == (4, 32)
            s.student_step(opt, images, lambda b: seen.append(b.groups[1]) or b.groups[0].mean(), groups=True)
        assert [tuple(each.shape[1:]) for each in seen] == [(6, 5, 5)] * 2
        assert context.meter.student_images == 2 * (4 + 4)


def test_without_them_the_refusal_says_how_to_name_them() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10))
    for question in ({"groups": True}, {"layers": True}):
        with trial(teacher=plain) as (s, _), pytest.raises(Unsupported, match="`taps:` of the task can name them"):
            s.teacher(s.noise(2, *IMAGE.shape), **question)  # type: ignore[arg-type]


# ---- tasks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_networks.py").write_text(NETWORK)
    return tmp_path


def test_places_are_a_part_of_the_tasks_identity(own: Path) -> None:
    plain = TaskSpec.model_validate(TASK)
    both = TaskSpec.model_validate({**TASK, "taps": {"teacher": NAMED, "student": NAMED}})
    one = TaskSpec.model_validate({**TASK, "taps": {"student": NAMED}})
    assert len({plain.sha, both.sha, one.sha}) == 3
    assert TaskSpec.model_validate({**TASK, "taps": {}}).sha == plain.sha
    assert TaskSpec.model_validate_json(both.model_dump_json()) == both


def test_a_registered_network_whose_layers_the_task_names_has_layers() -> None:
    card = find_methods()["dfa"]
    values = get_task("digits/lenet5-half").model_dump(mode="json")
    values |= {"name": "mine", "student": "alexnet-half", "image": {**values["image"], "size": 32}}
    assert "names none" in why_unsupported(card, TaskSpec.model_validate(values))
    values["taps"] = {"student": {"layers": ["body.0"]}}
    assert why_unsupported(card, TaskSpec.model_validate(values)) == ""


def study(folder: Path, taps: object) -> Path:
    file = folder / "study.yaml"
    file.write_text(
        json.dumps(
            {
                "name": "own",
                "tasks": [{**TASK, "taps": taps}],
                "methods": [{"zskt": {"batch": 16, "width": 8}}],
                "budget": {"steps": 22},
                "points": 1,
            }
        )
    )
    return file


def test_a_wrong_place_in_a_study_is_told_before_anything_is_trained(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"teacher": NAMED, "student": {"stages": ["features.2", "features.9"]}}
    assert answer(["run", str(study(own, wrong)), "--executor", "inline"]) == 2
    said = capsys.readouterr().err
    assert "task 'own/foreign', taps of the student: stages: the network has no module 'features.9'; did you" in said
    for taps, sentence in (
        ({"studnet": NAMED}, "unknown key 'studnet'; did you mean 'student'?"),
        (NAMED, "unknown key 'head'; allowed: student, teacher"),
        ({"student": {"stage": ["features.2"]}}, "unknown key 'stage'; did you mean 'stages'?"),
    ):
        assert answer(["run", str(study(own, taps)), "--executor", "inline"]) == 2
        assert f"study.yaml, line 1: {sentence}" in capsys.readouterr().err


@pytest.mark.slow
def test_a_method_on_groups_runs_on_somebody_elses_network(own: Path) -> None:
    """In this process and in one of its own, with the same bits. The teacher is the digits' own, trained already."""
    file = study(own, {"teacher": {"stages": ["body.2", "body.5"]}, "student": NAMED})
    file.write_text(file.read_text().replace("own_networks.py:teacher", "lenet5"))
    scores = []
    for isolation in ("none", "process"):
        run_study(file, results=own / isolation, isolation=isolation)
        (record,) = load_records(own / isolation)
        assert record.status == "ok", record.reason
        scores.append((record.id, record.scores, record.meter.gmacs))
    assert scores[0] == scores[1]
