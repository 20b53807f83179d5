"""Studies: what a file says, what it expands to, and what a user is told of each mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.spec.expand import expand
from bench.spec.method_registry import find_methods
from bench.spec.study import LoadedStudy, Study, find_study, load_study, study_files
from bench.spec.task import get_task, tasks
from bench.spec.trial import Trial

EXAMPLE = """\
name: demo
tasks: [digits/lenet5-half]
methods:
  - noise
  - dafl
  - zskd: {temperature: 20, beta: [0.1, 1.0]}     # a list is a grid axis where the option is a scalar
seeds: [0, 1]
budget: {seconds: 20}
"""
METHOD = """\
from bench import Access, Data, method

@method({name!r}, title="T", paper="P", data=Data.NONE, access=Access.LOGITS)
def run(s) -> None: ...
"""

Load = Callable[..., LoadedStudy]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "study.yaml"


@pytest.fixture
def load(file: Path) -> Load:
    def load(text: str, *method_files: Path) -> LoadedStudy:
        file.write_text(text, encoding="utf-8")
        return load_study(file, method_files)

    return load


def with_methods(*entries: str, more: str = "") -> str:
    listed = "".join(f"  - {entry}\n" for entry in entries)
    return f"name: s\ntasks: [digits/lenet5-half]\nmethods:\n{listed}budget: {{steps: 10}}\n{more}"


def values(trials: list[Trial], *names: str) -> list[Any]:
    return [tuple(trial.options[name] for name in names) if names[1:] else trial.options[names[0]] for trial in trials]


def test_the_example_expands_by_method_then_cell_then_seed(load: Load) -> None:
    trials = expand(load(EXAMPLE))
    assert [(trial.method, trial.options.get("beta"), trial.seed) for trial in trials] == [
        ("noise", None, 0), ("noise", None, 1),
        ("dafl", None, 0), ("dafl", None, 1),
        ("zskd", 0.1, 0), ("zskd", 0.1, 1),
        ("zskd", 1.0, 0), ("zskd", 1.0, 1),
    ]  # fmt: skip
    last = trials[-1]
    assert (last.study, last.label) == ("demo", "zskd (temperature=20, beta=1)")
    assert (last.budget, last.device, last.points) == ({"seconds": 20.0}, "cpu", 20)
    assert last.options == {**find_methods()["zskd"].defaults(), "beta": 1.0, "temperature": 20.0}
    assert len({trial.id for trial in trials}) == len(trials)


def test_tasks_come_first(load: Load) -> None:
    text = EXAMPLE.replace("[digits/lenet5-half]", "[mnist/lenet5-half, digits/lenet5-half]")
    assert [trial.task.partition("/")[0] for trial in expand(load(text))] == ["mnist"] * 8 + ["digits"] * 8


def test_a_list_is_one_value_where_the_option_is_a_list(load: Load) -> None:
    assert values(expand(load(with_methods("zskd: {betas: [1.0, 0.2]}"))), "betas") == [(1.0, 0.2)]
    assert values(expand(load(with_methods("zskd: {betas: [[1.0], [0.1]]}"))), "betas") == [(1.0,), (0.1,)]
    assert values(expand(load(with_methods("zskd: {betas: [[1, 0.1], 3]}"))), "betas") == [(1.0, 0.1), (3.0,)]
    assert values(expand(load(with_methods("zskd: {beta: [null, 0.1]}"))), "beta") == [None, 0.1]


def test_axes_multiply_in_the_order_they_are_written(load: Load) -> None:
    trials = expand(load(with_methods("kd: {batch: [8, 4], optimizer: [sgd, adam]}")))
    assert values(trials, "batch", "optimizer") == [(8, "sgd"), (8, "adam"), (4, "sgd"), (4, "adam")]


@pytest.mark.parametrize(
    "written", ["1e-3", "0.001", "1.0E-3", "[0.001]", "&name 0.001"]
)  # fmt: skip
def test_numbers_are_those_of_yaml_1_2(load: Load, written: str) -> None:
    text = with_methods(f"kd: {{lr_student: {written}, batch: 1_28}}").replace("steps: 10", "steps: 4e4")
    (trial,) = expand(load(text))
    assert (trial.options["lr_student"], trial.options["batch"], trial.budget) == (0.001, 128, {"steps": 40000})
    (plain,) = expand(load(with_methods("kd: {batch: 128}").replace("10", "40_000")))
    assert trial.id == plain.id


def test_studies_win_over_settings_and_settings_over_papers(load: Load) -> None:
    def options(more: str, task: str = "digits", written: str = "{}") -> tuple[Any, ...]:
        text = with_methods(f"zskd: {written}", more=more).replace("digits", task)
        (trial,) = expand(load(text))
        return tuple(trial.options[name] for name in ("impressions", "iterations", "batch_student"))

    assert options("") == options("settings: paper") == (24_000, 1500, 512)
    assert options("", "fashion_mnist") == (48_000, 1500, 512)
    small = get_task("fashion_mnist/lenet5-half").settings["small"]["zskd"]
    iterations, batch = small["iterations"], small["batch_student"]
    assert (iterations, batch) != (1500, 512)
    assert options("settings: small", "fashion_mnist") == (48_000, iterations, batch)
    assert options("settings: small", "fashion_mnist", "{iterations: 7, impressions: 9}") == (9, 7, batch)


def test_the_papers_options_for_a_task_go_before_those_for_its_data_set(load: Load, tmp_path: Path) -> None:
    method = (
        METHOD.format(name="mine")
        .replace("def run(s)", "def run(s, o: Options)")
        .replace(
            "access=Access.LOGITS",
            'access=Access.LOGITS, presets={"cifar10": {"a": 1, "b": 1}, "cifar10/wrn16-1": {"b": 2}}',
        )
    )
    options = "\n@dataclass(frozen=True)\nclass Options:\n    a: int = option(0, 'a')\n    b: int = option(0, 'b')\n"
    source = "from dataclasses import dataclass\n" + method.replace(" method\n", " method, option\n" + options)
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    listed = "[digits/lenet5-half, cifar10/resnet18, cifar10/wrn16-1]"
    found = expand(load(with_methods("mine.py").replace("[digits/lenet5-half]", listed)))
    assert [trial.options for trial in found] == [{"a": 0, "b": 0}, {"a": 1, "b": 1}, {"a": 1, "b": 2}]


def test_the_built_in_presets_are_for_data_sets_and_tasks_that_there_are() -> None:
    known = {name for task in tasks().values() for name in (task.name, task.data)}
    assert {name for card in find_methods().values() for name in card.presets} <= known


def test_equal_trials_are_run_once(load: Load) -> None:
    trials = expand(load(with_methods("zskd", "zskd: {temperature: [5, 20.0]}", "kd: {temperature: 1}", "kd")))
    assert [trial.label for trial in trials] == ["zskd", "zskd (temperature=5)", "kd (temperature=1)"]
    assert len({trial.id for trial in trials}) == 3


def test_ids_depend_on_the_trial_and_not_on_its_study(load: Load, tmp_path: Path) -> None:
    base = {trial.id for trial in expand(load(EXAMPLE))}
    other = EXAMPLE.replace("name: demo", "name: other").replace("temperature: 20, beta: [0.1, 1.0]", "beta: [1, 0.1]")
    more = "image_metrics: [confidence]\ntimeout: 60\ndescription: x\nsettings: paper\npoints: 20\n"
    assert {trial.id for trial in expand(load(other + more))} == base
    mine = tmp_path / "mine.py"
    mine.write_text(METHOD.format(name="mine"))
    assert {trial.id for trial in expand(load(EXAMPLE, mine)) if trial.method != "mine"} == base
    for change in ("threads: 2", "precision: bfloat16", "points: 5", "selection: [last]", "deterministic: false",
                   "teachers: {digits/lenet5-half: lenet5-1234}", "settings: small"):  # fmt: skip
        assert not {trial.id for trial in expand(load(EXAMPLE + change + "\n"))} & base, change
    assert not {trial.id for trial in expand(load(EXAMPLE), device="cuda")} & base


def test_another_process_finds_the_same_ids_without_torch(file: Path, load: Load) -> None:
    trials = expand(load(EXAMPLE))
    code = (
        "import json, pathlib, sys; from bench.spec.expand import expand; from bench.spec.study import load_study\n"
        "trials = expand(load_study(pathlib.Path(sys.argv[1])))\n"
        "print(json.dumps([[t.id for t in trials], sorted({'torch', 'pandas', 'numpy'} & sys.modules.keys())]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [[trial.id for trial in trials], []]


def test_methods_come_from_files_of_the_study_and_of_the_command_line(load: Load, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(METHOD.format(name="first") + METHOD.partition("\n")[2].format(name="second"))
    (tmp_path / "two.py").write_text(METHOD.format(name="third"))
    loaded = load(with_methods("one.py", "kd", "noise"), tmp_path / "two.py")
    assert [trial.method for trial in expand(loaded)] == ["first", "second", "kd", "noise", "third"]
    assert set(loaded.method_files) == {tmp_path / "one.py", tmp_path / "two.py"}
    named = load(with_methods("third", "noise"), tmp_path / "two.py")
    assert [trial.method for trial in expand(named)] == ["third", "noise"]  # named in the study: not added again


MISTAKES = [
    ("tasks: [digits/lenet5-haf]", 2, "unknown task 'digits/lenet5-haf'; did you mean 'digits/lenet5-half'?"),
    ("tasks: []", 2, "tasks: must not be empty"),
    ("tasks: digits/lenet5-half", 2, "tasks: must be a list, not 'digits/lenet5-half'"),
    ("name: a/b", 1, "name: must consist of letters, digits, '_', '.' and '-', and begin with a letter or digit, not"),
    ("name: ..", 1, "name: must consist of letters, digits"),
    ("name: 3", 1, "name: must be text, not 3"),
    ("seeds: [0,\n 1,\n 0]", 9, "seeds: 0 is repeated"),
    ("seeds: [0, true]", 7, "seeds.1: must be a number, not True"),
    ("seeds: ['1']", 7, "seeds.0: must be a number, not '1'"),
    ("seeds: [-1]", 7, "seeds.0: must be at least 0, not -1"),
    ("seeds: [0.5]", 7, "seeds.0: must be a whole number, not 0.5"),
    ("seeds: 2", 7, "seeds: must be a list, not 2"),
    ("seeds: []", 7, "seeds: must not be empty"),
    ("budget: {seconds: -20}", 8, "budget 'seconds' must be a positive number, not -20"),
    ("budget:\n  steps: 3\n  second: 3", 10, "unknown budget 'second'; did you mean 'seconds'?"),
    ("budget: {}", 8, "a budget needs at least one limit"),
    ("budget: 20", 8, "budget: must be keys with values, not 20"),
    ("budget:", 8, "budget: must be keys with values, not None"),
    ("selection:\n- last\n- emaa", 11, "selection.1: must be 'last', 'ema', 'teacher_agreement' or 'oracle', not"),
    ("selection: [oracle, last]", 9, "the headline rule (the first) must be data-free: last, ema, teacher_agreement"),
    ("selection: [last, last]", 9, "selection: 'last' is repeated"),
    ("image_metrics: [class_balance, confidense]", 9, "unknown image metric 'confidense'; did you mean 'confidence'?"),
    ("settings: smal", 9, "unknown settings 'smal'; did you mean 'small'?"),
    ("teachers: {mnist/lenet5-half: x}", 9, "teachers: this study has no task 'mnist/lenet5-half'"),
    ("precision: float23", 9, "did you mean 'float32'?"),
    ("deterministic: no", 9, "deterministic: must be true or false, not 'no'"),
    ("points: 0", 9, "points: must be at least 1, not 0"),
    ("points: true", 9, "points: must be a number, not True"),
    ("threads: 1.5", 9, "threads: must be a whole number, not 1.5"),
    ("timeout: .inf", 9, "timeout: must be finite, not inf"),
    ("timeout: 0", 9, "timeout: must be above 0, not 0"),
    ("timeout: 2001-01-01", 9, "timeout: must be a number, not '2001-01-01'"),
    ("threads: 100000", 9, "threads: must be at most 1024, not 100000"),
    ("budget: {steps: 99999999999999999999}", 8, "budget 'steps' must be below 9.22337e+18, not 1e+20"),
    ("budget: {steps: 2001-01-01}", 8, "budget 'steps' must be a positive number, not '2001-01-01'"),
    (
        "pools: {digits/lenet5-half: {wlid: photos}}",
        9,
        "pools.digits/lenet5-half.wlid: must be 'related', 'unrelated' or 'wild', not 'wlid'; did you mean 'wild'?",
    ),
    ("method: [dafl]", 9, "unknown key 'method'; did you mean 'methods'?"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "number", "message"), MISTAKES, ids=[line for line, _, _ in MISTAKES])
def test_a_mistake_is_named_with_file_and_line(load: Load, file: Path, line: str, number: int, message: str) -> None:
    lines = {old.partition(":")[0]: old for old in EXAMPLE.splitlines()}
    lines[line.partition(":")[0]] = line  # in the place of the line with its key, or at the end
    with pytest.raises(UserError) as error:
        load("\n".join(lines.values()))
    assert str(error.value).startswith(f"{file}, line {number}: ")
    assert message in str(error.value)


ENTRIES = [
    ("dalf", "unknown method 'dalf'; did you mean 'dafl'?"),
    ("dalf: {batch: 3}", "unknown method 'dalf'; did you mean 'dafl'?"),
    ("dafl: {bacht: 3}", "dafl has no option 'bacht'; did you mean 'batch'?"),
    ("dafl: {batch: 1}", "option 'batch' must be at least 2, not 1"),
    ("dafl: {batch: [2, 1]}", "option 'batch' must be at least 2, not 1"),
    ("dafl: {optimizer: smd}", "option 'optimizer' must be adam | sgd, not 'smd'; did you mean 'sgd'?"),
    ("dafl: {batch: []}", "the grid of option 'batch' is empty"),
    ("dafl: {one_hot: [1, 2, 1.0]}", "the grid of option 'one_hot' repeats a value"),
    ("zskd: {betas: []}", "option 'betas' must not be an empty list"),
    ("zskd: {betas: [[1.0], []]}", "option 'betas' must not be an empty list"),
    ("zskd: {betas: [[1.0], [1]]}", "the grid of option 'betas' repeats a value"),
    ("dafl: {batch: {}}", "option 'batch' must be int, not {}"),
    ("dafl: {batch: 99999999999999999999}", "option 'batch' must be below 9.22337e+18, not 99999999999999999999"),
    ("dafl: {batch: {form: 2, to: 4}}", "the range of option 'batch': unknown key 'form'; did you mean 'from'?"),
    ("dafl: {batch: {from: a, to: 4}}", "the range of option 'batch': from: must be a number, not 'a'"),
    ("{dafl: {}, kd: {}}", "an entry names one method, not 2 (dafl, kd)"),
    ("{}", "an entry names one method, not 0"),
    ("", "must be a method's name, or its name with options, not None"),
    ("3", "must be a method's name, or its name with options, not 3"),
    ("[dafl]", "must be a method's name, or its name with options, not ['dafl']"),
    ("dafl: [batch, 3]", "the options of 'dafl' must be keys with values, not ['batch', 3]"),
    ("dafl: 3", "the options of 'dafl' must be keys with values, not 3"),
    ("noise", "'noise' is named twice with the same options"),
    ("gone.py", "no such method file"),
]


@pytest.mark.parametrize(("entry", "message"), ENTRIES, ids=[entry for entry, _ in ENTRIES])
def test_a_mistake_in_a_method_is_named_with_its_line(load: Load, file: Path, entry: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load(with_methods("noise", "kd: {batch: 4}", entry))
    assert str(error.value).startswith(f"{file}, line 6: ")
    assert message in str(error.value)


def test_a_mistake_among_many_options_has_the_options_line(load: Load, file: Path) -> None:
    with pytest.raises(UserError) as error:
        load(with_methods("dafl:\n      batch: 4\n      one_hot: 1\n      latnt: 3"))
    assert str(error.value) == f"{file}, line 7: dafl has no option 'latnt'; did you mean 'latent'?"
    with pytest.raises(UserError, match="line 5: option 'batch' must be at least 2"):
        load(with_methods("kd: &shared {temperature: 2}", "dafl: {<<: *shared, batch: 0}"))


def test_missing_keys_and_other_files(load: Load) -> None:
    lines = {"name": "s", "tasks": "[digits/lenet5-half]", "methods": "[kd]", "budget": "{steps: 1}"}
    for missing in lines:
        with pytest.raises(UserError, match=f"the key '{missing}' is missing"):
            load("\n".join(f"{key}: {value}" for key, value in lines.items() if key != missing))
    for text, message in (("", "is empty; a study needs"), ("# x\n", "is empty"), ("- name: x\n", "not a list")):
        with pytest.raises(UserError, match=message):
            load(text)


def test_the_schema_describes_every_key() -> None:
    schema = json.loads(json.dumps(Study.model_json_schema()))
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["name", "tasks", "methods", "budget"]
    assert schema["properties"].keys() == Study.model_fields.keys()
    assert all(part["description"] for part in schema["properties"].values())
    assert schema["properties"]["seeds"]["items"]["type"] == "integer"
    assert "steps" in schema["properties"]["budget"]["properties"]
    assert {kind["type"] for kind in schema["properties"]["methods"]["items"]["anyOf"]} == {"string", "object"}


@pytest.mark.parametrize("name", study_files())
def test_every_study_of_the_suite_expands(name: str) -> None:
    assert expand(load_study(find_study(name)))


def test_a_study_is_found_by_path_or_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # a folder of results, perhaps: it does not hide the suite's own study
    assert find_study("demo") == study_files()["demo"]
    (tmp_path / "mine.yaml").touch()
    assert find_study("mine.yaml") == Path("mine.yaml")
    for name, hint in (("dmeo", "; did you mean 'demo'?"), ("dmeo.yaml", "; did you mean 'demo'?"), ("a/b.yaml", "")):
        with pytest.raises(UserError) as error:
            find_study(name)
        assert str(error.value) == f"no such study file: {name}{hint}"
    with pytest.raises(UserError, match=r"no such study file: qqq; allowed: .*demo"):
        find_study("qqq")


# ---- budgets of single methods ---------------------------------------------------------------------------------------


def test_a_method_may_have_a_budget_of_its_own(load: Load) -> None:
    more = "budgets: {digits/lenet5-half: {steps: 20}}\nmethod_budgets: {dafl: {teacher_images: 4e3}}\n"
    found = {trial.method: dict(trial.budget) for trial in expand(load(with_methods("noise", "dafl", more=more)))}
    assert found == {"noise": {"steps": 20}, "dafl": {"teacher_images": 4000}}


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ("{dalf: {steps: 3}}", r"line 7: method_budgets: this study has no method 'dalf'; did you mean 'dafl'"),
        ("{dafl: {step: 3}}", r"line 7: unknown budget 'step'; did you mean 'steps'"),
        ("{dafl: {}}", r"line 7: a budget needs at least one limit"),
        ("{dafl: {steps: 0}}", r"line 7: budget 'steps' must be a positive number, not 0"),
    ],
)
def test_a_wrong_budget_of_a_method_is_refused_with_its_line(load: Load, budgets: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(with_methods("noise", "dafl", more=f"method_budgets: {budgets}\n"))
