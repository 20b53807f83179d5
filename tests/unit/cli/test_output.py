"""What the command line writes: words for numbers, tables, brackets left alone, JSON and nothing else."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.cli import answer, out
from bench.data import NAMES
from bench.spec.budget import in_words
from bench.spec.study import study_files
from bench.spec.task import tasks

METHOD = '''
from bench import Access, Data, Session, method

@method("mine", title="[red]Mine[/red]", paper="[1] Me, 2026", data=Data.NONE, access=Access.LOGITS)
def mine(s: Session) -> None:
    """What [it] does."""
    for _ in s.steps("train"):
        pass
'''


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert answer([*arguments, "--json"]) == 0
    printed: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert isinstance(printed, list)
    assert all(isinstance(row, dict) for row in printed)
    return printed


def test_every_list_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert {row["name"] for row in rows(capsys, "list", "tasks")} == set(tasks())
    assert {row["name"] for row in rows(capsys, "list", "studies")} == set(study_files())
    assert {row["name"] for row in rows(capsys, "list", "methods")} >= {"noise", "scratch", "kd", "dafl", "zskd"}
    assert {row["name"] for row in rows(capsys, "list", "metrics")} >= {"accuracy", "class_balance", "seconds"}
    assert {row["name"] for row in rows(capsys, "data", "status")} == set(NAMES)


def test_a_study_is_listed_with_the_budgets_of_all_its_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["list", "studies"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for budget in ("24,000 steps", "240,000 steps"):  # DAFL's paper: MNIST, CIFAR
        assert re.search(rf"(?<!\d){budget}", text)


def test_a_method_is_listed_with_every_fact_of_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows(capsys, "list", "methods", "dafl")
    option = {each["name"]: each for each in row["options"]}["batch"]
    assert option.keys() == {"name", "type", "default", "unit", "above", "low", "high", "when", "doc"}
    assert (option["type"], option["default"], option["unit"]) == ("int", 512, "images")
    assert answer(["list", "methods", "dafl"]) == 0
    assert "images of one generator or student step" in capsys.readouterr().out


def test_a_method_file_is_listed_and_brackets_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my [method].py"
    file.write_text(METHOD, encoding="utf-8")
    assert answer(["list", "methods", "--method", str(file)]) == 0
    text = capsys.readouterr().out
    assert "[red]Mine[/red]" in text
    for arguments in (["mine", "--method", str(file)], [str(file)]):
        assert answer(["list", "methods", *arguments]) == 0
        text = capsys.readouterr().out
        assert "paper           [1] Me, 2026" in text
        assert f"file            {file}" in text


def test_tables_end_their_lines_without_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("tasks", "methods", "metrics", "studies"):
        assert answer(["list", name]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines == [line.rstrip() for line in lines]
        assert all(character.isprintable() for line in lines for character in line)


def test_the_schema_is_that_of_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["list", "studies", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["required"]) == {"name", "tasks", "methods", "budget"}
    assert not schema["additionalProperties"]


@pytest.mark.parametrize("command", [[], ["run"], ["list"], ["show"], ["report"], ["check"], ["teacher"], ["data"]])
def test_help_is_there(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert answer([*command, "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: dfkd")


@pytest.mark.parametrize("command", ["list", "new", "teacher", "data", "weights"])
def test_the_help_of_a_group_says_whole_sentences(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer([command, "--help"]) == 0
    _, _, commands = capsys.readouterr().out.partition("Commands:")
    assert commands
    assert "..." not in commands


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dfkd ")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(["rnu"], "run"), (["run", "demo", "--dry-rnu"], "--dry-run"), (["list", "method"], "methods")],
)
def test_a_wrong_verb_or_option_is_a_short_usage_error(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert hint in written.err
    assert written.err.startswith("dfkd: ")
    assert written.err.count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7261, "2 h 1 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert out.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**40, "3072.0 GiB")]
)
def test_sizes(count: int, words: str) -> None:
    assert out.size(count) == words


def test_budgets_in_words() -> None:
    assert in_words({"seconds": 2.5}) == "2.5 seconds"
    assert in_words({"gmacs": 10, "steps": 1000}) == "1,000 steps, 10 GMACs"


@pytest.mark.parametrize("columns", [40, 80])
def test_no_line_of_a_table_is_wider_than_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names stay whole, so that they can be copied; only what is longer than a line itself is broken."""
    monkeypatch.setenv("COLUMNS", str(columns))
    for name, known in (("tasks", set(tasks())), ("methods", {"deepinversion", "kd_unrelated"}), ("studies", set())):
        assert answer(["list", name]) == 0
        text = capsys.readouterr().out
        table = text.rpartition("\n\n")[0].splitlines()
        assert max(map(len, table)) <= columns
        assert known <= {line.split()[0] for line in table if line.strip()}


def test_methods_are_one_row_each_at_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    count = len(rows(capsys, "list", "methods"))
    assert answer(["list", "methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "method"
    assert len(lines) == count + 3  # the columns' names, a blank line, and where there is more


def test_a_sentence_is_not_squeezed_into_a_narrow_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = out.table("name", "kind", "meaning")
    made.add_row("a" * 20, "b" * 20, "a sentence of several words")
    monkeypatch.setenv("COLUMNS", "60")
    out.show(made)
    assert capsys.readouterr().out == f"{'a' * 20}\n  kind: {'b' * 20}; meaning: a sentence of several\n  words\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("name", "value", "bold", "redraws"),
    [("NO_COLOR", "1", False, True), ("NO_COLOR", "", True, True), ("TERM", "dumb", False, False)],
)
def test_a_terminal_gets_what_it_can_show(
    name: str, value: str, bold: bool, redraws: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    assert answer(["list", "methods"]) == 0
    assert ("\x1b[1m" in terminal.getvalue()) == bold
    assert out.redraws() == redraws


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("run dem", "demo"),
        ("check zsk", "zskd zskt"),
        ("list methods zsk", "zskd zskt"),
        ("teacher train digits/", "digits/lenet5-half digits/lenet5bn-half"),
        ("data fetch mn", "mnist"),
        ("check no_such", ""),
    ],
)
def test_a_shell_completes_names(
    line: str, found: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_DFKD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"dfkd {line}")
    monkeypatch.setenv("COMP_CWORD", str(len(line.split())))
    assert answer([]) == 0
    assert capsys.readouterr().out.split() == found.split()
