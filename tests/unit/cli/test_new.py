"""``dfkd new``: what it writes works, nothing is overwritten, and a mistake is one sentence."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from bench.cli import answer
from bench.execution.contract import CHECKS
from bench.harness.teachers.cache import check_taps
from bench.spec.expand import expand
from bench.spec.method import Access, Data
from bench.spec.method_parser import static_cards
from bench.spec.method_registry import read_cards
from bench.spec.study import load_study
from bench.spec.task import get_task, read_tasks


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def new(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Run the verb; returns the commands that it names as next ones."""
    capsys.readouterr()
    assert answer(["new", *words]) == 0
    return re.findall(r"^  dfkd (.+?)  +# ", capsys.readouterr().out, flags=re.MULTILINE)


def test_the_card_of_a_new_method_is_read_without_running_it(capsys: pytest.CaptureFixture[str]) -> None:
    new(capsys, "method", "my_way")
    file = Path("my_way.py")
    (static,) = static_cards(ast.parse(file.read_text()), file.resolve(), None)
    (card,) = read_cards(file)
    assert (static.name, static.title, card.data, card.access) == ("my_way", "My way", Data.NONE, Access.GRADIENTS)
    assert len(card.specs) == 5


@pytest.mark.slow
def test_a_new_method_passes_the_battery(capsys: pytest.CaptureFixture[str]) -> None:
    check, *_ = new(capsys, "method", "mine")
    assert answer(shlex.split(check)) == 0
    assert f"all {len(CHECKS)} checks passed" in capsys.readouterr().out


def test_a_new_task_is_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    listed, trained, study = new(capsys, "task", "my.task-1")
    assert answer([*shlex.split(listed), "--json"]) == 0
    assert "my.task-1" in {task["name"] for task in json.loads(capsys.readouterr().out)}
    assert get_task("my.task-1").student == "lenet5-half"
    assert trained == "teacher train my.task-1 --tasks my.task-1.yaml"
    assert answer(shlex.split(study)) == 0
    assert load_study(Path("my.task-1_study.yaml")).tasks == ("my.task-1",)


@pytest.mark.parametrize("key", ["data", "augment", "taps"])
def test_what_a_new_task_has_as_a_comment_is_valid_too(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    new(capsys, "task", "own")
    file = Path("own.yaml")
    written = file.read_text()
    if key == "data":
        Image.new("L", (8, 8)).save(folder_of("my_images/test/a") / "1.png")
        Image.new("L", (8, 8)).save(folder_of("my_images/test/b") / "1.png")
        written = re.sub(r"^  data: .*\n", "", written, flags=re.MULTILINE)
    changed = written.replace(f"  # {key}:", f"  {key}:")
    assert changed != written
    file.write_text(changed)
    (task,) = read_tasks(file)
    if key == "taps":
        check_taps(task, 10)


def folder_of(name: str) -> Path:
    folder = Path(name)
    folder.mkdir(parents=True)
    return folder


@pytest.mark.slow
def test_what_is_new_runs_together(capsys: pytest.CaptureFixture[str]) -> None:
    """One trial of each method, a short one; the teacher is that of the suite's own digits, and cached."""
    _, among_others, study = new(capsys, "method", "mine")
    new(capsys, "task", "my_task")
    assert answer([*shlex.split(among_others), "--dry-run"]) == 0
    assert answer([*shlex.split(study), "--tasks", "my_task.yaml"]) == 0
    file = Path("mine_study.yaml")
    loaded = load_study(file)
    assert (loaded.tasks, list(dict(loaded.entries))) == (("my_task",), ["noise", "kd", "mine"])
    assert loaded.study.settings == "small"
    short = file.read_text().replace("20_000", "200").replace("[0, 1]", "[0]").replace("points: 10", "points: 1")
    file.write_text(short)
    assert answer(["run", str(file), "--executor", "inline"]) == 0, capsys.readouterr()
    records = [json.loads(each.read_text()) for each in Path("runs/mine_study").rglob("record.json")]
    assert {(record["trial"]["method"], record["status"]) for record in records} == {
        ("noise", "ok"),
        ("kd", "ok"),
        ("mine", "ok"),
    }


def test_a_new_study_has_trials_of_the_suites_own_methods(capsys: pytest.CaptureFixture[str]) -> None:
    dry, run, report = new(capsys, "study", "first")
    assert answer(shlex.split(dry)) == 0
    assert (run, report) == ("run first.yaml", "report --results runs/first")
    loaded = load_study(Path("first.yaml"))
    assert {trial.method for trial in expand(loaded)} == {"noise", "kd", "dafl"}


def test_a_study_names_files_by_paths_from_its_own_folder(capsys: pytest.CaptureFixture[str]) -> None:
    new(capsys, "method", "mine")
    new(capsys, "task", "own")
    folder = Path("with space, [and more]")
    folder.mkdir()
    for name in ("mine.py", "own.yaml"):
        Path(name).rename(folder / name)
    new(capsys, "study", "s", "--method", str(folder / "mine.py"), "--tasks", str(folder.resolve() / "own.yaml"))
    loaded = load_study(Path("s.yaml"))
    assert loaded.tasks == ("own",)
    assert loaded.method_files == ((folder / "mine.py").resolve(),)


def test_tasks_without_small_settings_get_the_papers(capsys: pytest.CaptureFixture[str]) -> None:
    new(capsys, "task", "own")
    file = Path("own.yaml")
    file.write_text(file.read_text().partition("  settings:")[0])
    new(capsys, "study", "s", "--tasks", "own.yaml")
    assert load_study(Path("s.yaml")).study.settings == "paper"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "method My-Way",
            "lower-case letters, digits and underscores, and begins with a letter, not 'My-Way'; did you",
        ),
        ("method My-Way", "did you mean 'my_way'?"),
        ("method 1", "and begins with a letter, not '1'"),
        ("method ''", "and begins with a letter, not ''"),
        ("method ../mine", "did you mean 'mine'?"),
        ("method new.py", "leave out the ending: 'new'"),
        ("method lambda", "cannot be named 'lambda': that means something else in Python; try 'my_lambda'"),
        ("method random", "cannot be named 'random'"),
        ("method torch", "cannot be named 'torch'"),
        ("method image_generator", "cannot be named 'image_generator'"),
        ("method dafl", "the name 'dafl' is taken by "),
        (f"method {'a' * 101}", "is too long: a name has at most 100 characters"),
        ("task digits/mine", "a task's name consists of letters, digits, '_', '.' and '-', and begins with a letter"),
        ("task digits/mine", "did you mean 'digits-mine'?"),
        ("task mine.yaml", "leave out the ending: 'mine'"),
        ("task null", "that is no text in YAML"),
        ("study demo", "the suite has a study 'demo'"),
        ("study 'a\nb'", "did you mean 'a-b'?"),
        (
            "study s --method taken",
            "taken is no method file: it does not end in .py; did you mean the file 'taken.py'?",
        ),
        ("study s --method no.py", "no such method file: "),
        ("study s --tasks taken.py", "taken.py is no file of tasks: it does not end in .yaml or .yml"),
        ("study s --tasks no.yaml", "no such file: no.yaml"),
        ("method taken", "taken.py already exists, and nothing is overwritten; choose another name"),
        ("study there", "there.yaml already exists"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    words: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken.py").write_text("mine")
    Path("there.yaml").symlink_to("nowhere.yaml")
    assert answer(["new", *shlex.split(words)]) == 2
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)
    assert sentence in written.err
    assert sorted(path.name for path in Path().iterdir()) == ["taken.py", "there.yaml"]
    assert Path("taken.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("new metod x", "dfkd: no such command 'metod'; did you mean 'method'?"),
        ("new paper x", "dfkd: no such command 'paper'; allowed: method, task, study"),
        ("list qqqq", "dfkd: no such command 'qqqq'; allowed: tasks, methods, metrics, studies"),
        ("new method", "dfkd: missing argument 'NAME'; see `dfkd new method --help`"),
    ],
)
def test_an_unknown_kind_is_answered_with_the_nearest_or_all(
    words: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(words.split()) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        assert answer(["new", "task", "mine"]) == 2
    finally:
        os.chdir(tmp_path)
    assert capsys.readouterr().err == "dfkd: mine.yaml: No such file or directory\n"
