"""Tasks of a user's own: written out in a study, in a file that it names, or in one on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cli import answer
from bench.data.image_spec import Augmentation
from bench.errors import UserError
from bench.execution.run_study import run_study
from bench.spec.custom_tasks import published_of_kept, register_saved_tasks, save_tasks
from bench.spec.expand import expand
from bench.spec.study import LoadedStudy, load_study
from bench.spec.task import TaskSpec, add_tasks, get_task, read_tasks, recipes, tasks
from bench.spec.teacher_key import quick_teachers, teacher_key
from bench.spec.trial import Trial

TASK = """\
- name: mine
  data: digits
  image: {channels: 1, size: 32, mean: [0.3], std: [0.3]}
  teacher: {network: lenet5, recipe: digits, quick: quick}
  student: lenet5-half
"""
STUDY = """\
name: s
methods: [noise: {batch: 4}]
budget: {steps: 2}
points: 1
tasks:
"""
WRITTEN = "".join(f"  {line}\n" for line in TASK.splitlines())


def load(folder: Path, text: str) -> LoadedStudy:
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return load_study(folder / "study.yaml")


# ---- where a task may stand ------------------------------------------------------------------------------------------


def test_a_task_may_be_written_out_in_a_study(tmp_path: Path) -> None:
    loaded = load(tmp_path, STUDY + "  - digits/lenet5-half\n" + WRITTEN)
    assert loaded.tasks == ("digits/lenet5-half", "mine")
    builtin, own = expand(loaded)
    task = get_task("mine")
    assert (own.task, own.task_sha, own.teacher) == ("mine", task.sha, teacher_key(task))
    assert task.image.mean == (0.3,)
    assert not task.built_in
    assert builtin.own_task is None
    assert own.own_task == task.model_dump(mode="json")


def test_a_study_names_a_file_of_tasks_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "studies"
    (folder / "tasks").mkdir(parents=True)
    second = TASK.replace("name: mine", "name: second").replace("0.3", "0.4")
    (folder / "tasks" / "mine.yaml").write_text(TASK + second, encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # the file is beside the study, not where the user is
    loaded = load(folder, STUDY + "  - tasks/mine.yaml\n  - digits/lenet5-half\n")
    assert loaded.tasks == ("mine", "second", "digits/lenet5-half")
    assert [trial.own_task is None for trial in expand(loaded)] == [False, False, True]
    again = load(folder, STUDY + f"  - {folder / 'tasks' / 'mine.yaml'}\n")  # the same once more is no mistake
    assert again.tasks == ("mine", "second")


def test_a_task_file_may_stand_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(TASK, encoding="utf-8")
    assert answer(["list", "tasks", "--tasks", str(file), "--json"]) == 0
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["name"] == "mine"]
    assert (row["data"], row["recipe"], row["quick"], row["image"]) == ("digits", "digits", "quick", [1, 32, 32])
    assert answer(["list", "tasks", "--tasks", str(tmp_path / "gone.yaml")]) == 2
    assert f"no such file: {tmp_path / 'gone.yaml'}" in capsys.readouterr().err


def test_a_teacher_of_a_task_on_the_command_line_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "mine.yaml"
    file.write_text(TASK, encoding="utf-8")
    assert answer(["teacher", "train", "mine", "--quick"]) == 2
    assert "unknown task 'mine'" in capsys.readouterr().err
    assert answer(["teacher", "train", "mine", "--quick", "--tasks", str(file)]) == 0
    assert "to use it, add to a study: teacher: quick" in capsys.readouterr().out
    assert (
        tmp_path / "cache" / "teachers" / teacher_key(get_task("mine"), quick_teachers(get_task("mine"))[0])
    ).is_dir()


# ---- mistakes --------------------------------------------------------------------------------------------------------

# what is changed, the line of the task (1: its first, for what concerns the whole of it) and what is said
MISTAKES = {
    "data set": (("data: digits", "data: digit"), 1, "unknown data set 'digit'; did you mean 'digits'?"),
    "recipe": (("recipe: digits", "recipe: digts"), 4, "unknown teacher recipe 'digts'; did you mean 'digits'?"),
    "quick": (("quick: quick", "quick: quik"), 4, "unknown teacher recipe 'quik'; did you mean 'quick'?"),
    "unlabelled": (("data: digits", "data: pool"), 1, "data: 'pool' has no labels; a task needs a labelled data set"),
    "resize": (
        ("student: lenet5-half", "student: lenet5-half\n    resize: 40"),
        1,
        "resize: only segmentation networks accept images larger than those they train on",
    ),
    "network": (
        ("student: lenet5-half", "student: lenet6-half"),
        1,
        "unknown network 'lenet6-half'; did you mean 'lenet5-half'?",
    ),
    "key": (("student: ", "studnet: "), 5, "unknown key 'studnet'; did you mean 'student'?"),
    "deep key": (("quick: quick", "qick: quick"), 4, "unknown key 'qick'; did you mean 'quick'?"),
    "missing": (("    student: lenet5-half\n", ""), 1, "the key 'student' is missing"),
    "value": (("size: 32", "size: 3"), 3, "image.size: must be at least 4, not 3"),
    "name": (("name: mine", "name: ''"), 1, "name: must not be empty"),
    "augment": (
        ("student: lenet5-half", "student: lenet5-half\n    augment: {pad: -1}"),
        6,
        "augment.pad: must be at least 0, not -1",
    ),
}


@pytest.mark.parametrize("place", ["study", "file"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_file_and_line(tmp_path: Path, mistake: str, place: str) -> None:
    (old, new), line, message = MISTAKES[mistake]
    assert old in WRITTEN
    written = WRITTEN.replace(old, new)
    with pytest.raises(UserError) as error:
        if place == "study":
            load(tmp_path, STUDY + written)
        else:
            own = "".join(line.removeprefix("  ") for line in written.splitlines(keepends=True))
            (tmp_path / "mine.yaml").write_text(own, encoding="utf-8")
            load(tmp_path, STUDY + "  - mine.yaml\n")
    if place == "study":
        lines = {line + 5, 6} if "recipe" in message else {line + 5}  # the line of the whole task will do
        places = {f"{tmp_path / 'study.yaml'}, line {each}: " for each in lines}
    else:
        places = {f"{tmp_path / 'study.yaml'}, line 6: {tmp_path / 'mine.yaml'}, line {line}: "}
    assert any(str(error.value).startswith(each) for each in places)
    assert str(error.value).endswith(message)
    assert "mine" not in tasks()


def test_a_name_that_another_task_has_is_refused_with_its_line(tmp_path: Path) -> None:
    for text in (
        WRITTEN.replace("name: mine", "name: digits/lenet5-half"),  # the suite's own
        WRITTEN + WRITTEN.replace("0.3", "0.5"),
    ):
        with pytest.raises(UserError) as error:
            load(tmp_path, STUDY + text)
        line = 6 if "digits/lenet5-half" in text else 11
        assert str(error.value).startswith(f"{tmp_path / 'study.yaml'}, line {line}: a task ")
        assert str(error.value).endswith(" already exists; give yours another name")


def test_a_task_that_is_named_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, STUDY + WRITTEN + WRITTEN)
    assert str(error.value) == f"{tmp_path / 'study.yaml'}, line 11: task 'mine' is named twice"
    (tmp_path / "mine.yaml").write_text(TASK, encoding="utf-8")
    with pytest.raises(UserError, match="line 11: task 'mine' is named twice"):
        load(tmp_path, STUDY + WRITTEN + "  - mine.yaml\n")
    (tmp_path / "mine.yaml").write_text(TASK + TASK, encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.yaml, line 6: two tasks are named 'mine'"):
        load(tmp_path, STUDY + "  - mine.yaml\n")


def test_a_file_of_tasks_that_is_not_there_or_is_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"study\.yaml, line 6: no such file: {tmp_path / 'gone.yaml'}"):
        load(tmp_path, STUDY + "  - gone.yaml\n")
    with pytest.raises(UserError, match=r"line 6: .*study\.yaml: expected a list of tasks"):
        load(tmp_path, STUDY + "  - study.yaml\n")
    with pytest.raises(UserError, match="must be a task's name, a YAML file with tasks, or a task written out, not 3"):
        load(tmp_path, STUDY + "  - 3\n")


# ---- running ---------------------------------------------------------------------------------------------------------


def test_another_process_learns_of_the_task_from_its_trial(tmp_path: Path) -> None:
    augmented = WRITTEN + "    augment: {pad: 2, flip: true}\n"
    (trial,) = expand(load(tmp_path, STUDY + augmented))
    task = tasks().pop("mine")
    again = Trial.from_json(json.loads(json.dumps(trial.to_json())))
    assert again == trial
    assert again.id == trial.id
    assert get_task("mine") == task
    assert task.augment == Augmentation(pad=2, flip=True)
    assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial  # known already: nothing happens


def test_the_task_written_out_is_no_part_of_a_trials_identity(tmp_path: Path) -> None:
    (trial,) = expand(load(tmp_path, STUDY + WRITTEN))
    assert "own_task" not in trial.identity()
    (named,) = expand(load(tmp_path, STUDY + "  - mine\n"))  # known by now
    assert named.id == trial.id


@pytest.mark.slow
def test_a_trial_of_an_own_task_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY + WRITTEN + "teacher: quick\n", encoding="utf-8")
    summary = run_study(file, results=tmp_path / "out", executor="processes", device="cpu")
    assert summary.statuses == {"ok": 1}
    (outcome,) = summary.outcomes
    assert outcome.record.trial.task == "mine"
    assert outcome.record.trial.task_sha == get_task("mine").sha
    assert outcome.record.teacher is not None
    assert outcome.record.teacher.recipe == "quick"


# ---- hashes ----------------------------------------------------------------------------------------------------------


def test_the_suites_own_tasks_keep_their_hashes() -> None:
    """Records of earlier versions stay comparable."""
    assert get_task("mnist/lenet5-half").sha == "6733d2ecece13bf9"
    assert get_task("digits/lenet5-half").sha == "186d0cb13a60df63"


def own(folder: Path, **changes: Any) -> TaskSpec:
    (folder / "mine.yaml").write_text(TASK, encoding="utf-8")
    (task,) = read_tasks(folder / "mine.yaml")
    return TaskSpec.model_validate({**task.model_dump(), **changes})


def test_a_tasks_hash_changes_with_resize_and_augmentation(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"augment": {"pad": 2}},
        {"augment": {"flip": True}},
        {"augment": {"pad": 2, "flip": True}},
    ]
    assert len({own(tmp_path, **change).sha for change in changes}) == len(changes)
    shapes = get_task("shapes/unet-small")
    assert shapes.model_copy(update={"resize": 96}).sha != shapes.sha


NETWORK = """
from torch import nn

def small(image, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(image.size ** 2, classes))
"""


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_tasks_hash_changes_with_the_code_of_a_network_of_ones_own(tmp_path: Path, role: str) -> None:
    file = tmp_path / "networks.py"
    file.write_text(NETWORK, encoding="utf-8")
    name = f"{file}:small"
    change: dict[str, Any] = (
        {"student": name} if role == "student" else {"teacher": {"network": name, "recipe": "quick"}}
    )
    task = own(tmp_path, **change)
    sha, key = task.sha, teacher_key(task)
    assert task.sha == sha
    file.write_text(NETWORK.replace("nn.Flatten()", "nn.Flatten(), nn.Dropout(0.1)"), encoding="utf-8")
    assert task.sha != sha
    assert (teacher_key(task) != key) == (role == "teacher")


# ---- quick teachers in a study ---------------------------------------------------------------------------------------


def test_a_study_may_ask_for_the_quick_teachers(tmp_path: Path) -> None:
    text = STUDY + "  - mnist/lenet5-half\n" + WRITTEN
    paper, quick = (expand(load(tmp_path, text + more)) for more in ("teacher: paper\n", "teacher: quick\n"))
    for name, slow, fast in zip(("mnist/lenet5-half", "mine"), paper, quick, strict=True):
        task = get_task(name)
        assert (slow.task, slow.teacher) == (name, teacher_key(task))
        assert (fast.task, fast.teacher) == (name, teacher_key(task, quick_teachers(task)[0]))
        assert slow.teacher != fast.teacher
        assert slow.id != fast.id
    assert [trial.teacher for trial in expand(load(tmp_path, text))] == [trial.teacher for trial in paper]


def test_a_teacher_that_the_study_names_goes_before_the_quick_one(tmp_path: Path) -> None:
    more = "teacher: quick\nteachers: {mine: some-key}\n"
    (trial,) = expand(load(tmp_path, STUDY + WRITTEN + more))
    assert trial.teacher == "some-key"


def test_a_task_without_a_quick_teacher_is_named_with_the_line(tmp_path: Path) -> None:
    text = STUDY + "  - digits/lenet5-half\n  - cifar10/resnet18\nteacher: quick\n"
    with pytest.raises(UserError) as error:
        load(tmp_path, text)
    place = f"{tmp_path / 'study.yaml'}, line 8: "
    assert str(error.value).startswith(f"{place}task 'cifar10/resnet18' has no quick teacher")
    named = load(tmp_path, text + "teachers: {cifar10/resnet18: some-key}\n")  # then it needs none
    assert [trial.teacher for trial in expand(named)][1] == "some-key"
    with pytest.raises(
        UserError, match="line 8: teacher: must be 'paper' or 'quick', not 'quik'; did you mean 'quick'"
    ):
        load(tmp_path, text.replace("teacher: quick", "teacher: quik"))


def test_altered_data_makes_another_quick_teacher(tmp_path: Path) -> None:
    loaded = load(tmp_path, STUDY + WRITTEN + "teacher: quick\n")
    (trial,) = expand(loaded, altered_data=True)
    assert trial.teacher == teacher_key(get_task("mine"), quick_teachers(get_task("mine"))[0], True)


# ---- the registry ----------------------------------------------------------------------------------------------------


def test_a_task_is_added_once_and_the_suites_own_stay(tmp_path: Path) -> None:
    before, task = dict(tasks()), own(tmp_path)
    add_tasks([task])
    add_tasks([task])
    assert tasks() == {**before, "mine": task}
    with pytest.raises(UserError, match="a task 'mine' already exists"):
        add_tasks([own(tmp_path, augment={"flip": True})])
    assert get_task("mine") == task
    assert get_task("digits/lenet5-half").built_in
    assert get_task("digits/lenet5-half").teacher.quick in recipes()


# ---- beside the records ----------------------------------------------------------------------------------------------


def test_own_tasks_are_kept_beside_the_records_and_known_again(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    save_tasks(results, [])
    assert not (results / "tasks.json").exists()
    task = own(tmp_path)
    quoted = {"teacher": {"score": 0.9, "source": "a paper"}}
    save_tasks(results, [task.model_dump(mode="json")])
    save_tasks(results, [task.model_dump(mode="json") | {"published": quoted}])  # a later run's stands in its place
    assert list(published_of_kept(results)) == [task.name]
    found = published_of_kept(results)[task.name].teacher
    assert found is not None
    assert found.score == 0.9
    assert task.name not in tasks()
    register_saved_tasks(results)
    assert tasks()[task.name].sha == task.sha


@pytest.mark.parametrize("content", ["{", "{}", "[1]", '[{"data": "digits"}]'])
def test_a_damaged_file_of_own_tasks_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "tasks.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"tasks\.json"):
        register_saved_tasks(tmp_path)
