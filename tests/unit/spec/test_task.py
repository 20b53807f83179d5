"""Tasks, recipes and teacher keys: the built-in ones hold together, and wrong ones are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import data
from bench.data.image_spec import ImageSpec
from bench.errors import UserError
from bench.models import NETWORKS
from bench.spec import task
from bench.spec.method_registry import find_methods
from bench.spec.presets import preset
from bench.spec.published import Published
from bench.spec.task import TaskSpec, TeacherSpec, get_recipe, get_task, read_tasks, recipes, tasks
from bench.spec.teacher_key import teacher_key

DIGITS = get_task("digits/lenet5-half")
DIGITS_KEY = teacher_key(DIGITS)  # with the suite's own recipes


@pytest.mark.parametrize("spec", tasks().values(), ids=tasks())
def test_a_built_in_task_names_things_that_exist(spec: TaskSpec) -> None:
    assert spec.data in data.NAMES
    assert all(name in NETWORKS or name.startswith("torchvision/") for name in (spec.teacher.network, spec.student))
    assert {spec.teacher.recipe, spec.teacher.quick or spec.teacher.recipe} - {""} <= recipes().keys()
    assert spec.name.startswith(f"{spec.data}/")


@pytest.mark.parametrize("spec", tasks().values(), ids=tasks())
def test_a_built_in_tasks_settings_are_options_of_methods(spec: TaskSpec) -> None:
    cards = find_methods()
    for settings, by_method in spec.settings.items():
        assert by_method.keys() <= cards.keys()
        for name, values in by_method.items():
            assert preset(cards[name], spec, settings).keys() >= values.keys()


def test_settings_with_a_wrong_option_say_where() -> None:
    card = find_methods()["dafl"]
    for wrong, message in (
        (
            {"bacht": 3},
            "dafl (task 'digits/lenet5-half', settings 'small') has no option 'bacht'; did you mean 'batch'",
        ),
        ({"batch": 0}, "dafl (task 'digits/lenet5-half', settings 'small'): option 'batch' must be at least 2"),
    ):
        spec = DIGITS.model_copy(update={"settings": {"small": {"dafl": wrong}}})
        with pytest.raises(UserError) as error:
            preset(card, spec, "small")
        assert message in str(error.value)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown task 'digits/lenet5-hlaf'; did you mean 'digits/lenet5-half'"):
        get_task("digits/lenet5-hlaf")
    with pytest.raises(UserError, match="unknown teacher recipe 'digit'; did you mean 'digits'"):
        get_recipe("digit")


CHANGES: dict[str, dict[str, Any]] = {
    "data": {"data": "mnist"},
    "size": {"image": DIGITS.image.model_copy(update={"size": 28})},
    "mean": {"image": DIGITS.image.model_copy(update={"mean": (0.5,)})},
    "student": {"student": "lenet5"},
    "network": {"teacher": DIGITS.teacher.model_copy(update={"network": "lenet5-half"})},
}
NO_CHANGES: dict[str, dict[str, Any]] = {
    "name": {"name": "other"},
    "settings": {"settings": {}},
    "published": {"published": Published.model_validate({"teacher": {"score": 0.5, "source": "x"}})},
    "recipe": {"teacher": TeacherSpec(network="lenet5", recipe="quick", seed=7)},  # the teacher's key tells these
}


def test_a_tasks_hash_changes_with_what_can_change_an_outcome() -> None:
    shas = [DIGITS.model_copy(update=change).sha for change in CHANGES.values()]
    assert len({DIGITS.sha, *shas}) == len(CHANGES) + 1
    for change in NO_CHANGES.values():
        assert DIGITS.model_copy(update=change).sha == DIGITS.sha


def test_a_teachers_key_changes_with_all_that_its_training_depends_on() -> None:
    key = teacher_key(DIGITS)
    assert key.startswith("lenet5-")
    others = [teacher_key(DIGITS.model_copy(update=CHANGES[name])) for name in ("data", "size", "mean", "network")]
    others += [teacher_key(DIGITS, DIGITS.teacher.model_copy(update={"seed": 1}))]
    others += [teacher_key(DIGITS, DIGITS.teacher.model_copy(update={"recipe": "quick"}))]
    assert len({key, *others}) == len(others) + 1
    for change in ("name", "settings", "published"):
        assert teacher_key(DIGITS.model_copy(update=NO_CHANGES[change])) == key
    assert teacher_key(DIGITS.model_copy(update=CHANGES["student"])) == key
    assert teacher_key(DIGITS, DIGITS.teacher) == key


@pytest.fixture
def my_recipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setattr(task, "RECIPES", tmp_path / "recipes.yaml")
    recipes.cache_clear()
    yield tmp_path / "recipes.yaml"
    recipes.cache_clear()


def test_a_recipes_content_counts_and_not_its_name(my_recipes: Path) -> None:
    content = "{optimizer: adam, lr: 0.002, batch: 64, epochs: 40, schedule: cosine}"
    same = content.replace("0.002", "2e-3").replace("batch: 64, epochs: 40", "epochs: 40, batch: 64")
    my_recipes.write_text(f"one: {content}\ntwo: {same}\nthree: {content.replace('64', '65')}\n")
    key, two, three = (teacher_key(DIGITS, TeacherSpec(network="lenet5", recipe=name)) for name in recipes())
    assert key == two == DIGITS_KEY
    assert three != key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {optimizer: adam, lr: 0, batch: 1, epochs: 1}", "line 1: lr: must be above 0, not 0"),
        ("a: {optimizer: adma, lr: 1, batch: 1, epochs: 1}", "did you mean 'adam'"),
        ("\na: {optimizer: adam, lr: 1, batch: 1, epoch: 1}", "line 2: unknown key 'epoch'; did you mean 'epochs'"),
        ("a: 3", "line 1: expected keys and values, not 3"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_line(my_recipes: Path, text: str, message: str) -> None:
    my_recipes.write_text(text)
    with pytest.raises(UserError) as error:
        recipes()
    assert message in str(error.value)


TASK = """\
- name: mine
  data: digits
  image: {channels: 1, size: 32, mean: [0.5], std: [0.5]}
  teacher: {network: lenet5, recipe: digits}
  student: lenet5-half
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TASK.replace("mean: [0.5]", "mean: [0.5, 0.5]"), "line 3: image: mean and std need one number per channel"),
        (
            TASK.replace("std: [0.5]", "std: [0]"),
            "line 3: image: mean and std need one number per channel, std above 0",
        ),
        (TASK.replace("size: 32", "size: 3"), "line 3: image.size: must be at least 4, not 3"),
        (TASK.replace("std: [0.5]", "std: [.nan]"), "line 3: image.std.0: must be finite, not nan"),
        (TASK.replace("mean: [0.5]", "mean: [.inf]"), "line 3: image.mean.0: must be finite, not inf"),
        (TASK.replace("recipe", "receipt"), "line 4: unknown key 'receipt'; did you mean 'recipe'"),
        (
            TASK + "  published: {teacher: {score: 0.9, source: ''}}\n",
            "line 6: published.teacher: a quoted number needs its `source`",
        ),
        (TASK + TASK, "line 6: two tasks are named 'mine'"),
        (TASK.replace("- ", "  ", 1), "expected a list of tasks"),
        ("", "expected a list of tasks"),
    ],
)
def test_a_wrong_task_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        read_tasks(tmp_path / "mine.yaml")
    assert message in str(error.value)


def test_geometry_is_channels_height_width() -> None:
    assert ImageSpec(channels=3, size=32, mean=(0, 0, 0), std=(1, 1, 1)).shape == (3, 32, 32)
