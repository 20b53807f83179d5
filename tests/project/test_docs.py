"""The documentation is true: its code runs, its commands exist, its links lead somewhere, and nothing is left out."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib.util
import inspect
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from record_builder import make_demo
from typer.main import get_command

from bench import Access, Session
from bench.cli.app import app
from bench.data import Split
from bench.execution.contract.battery import BUDGETS
from bench.harness.session import session_for
from bench.records import CurvePoint, MeterReading, Record, TrialIdentity
from bench.records.schema import Status
from bench.records.selection import RULES
from bench.spec.budget import UNITS, Budget, Meter
from bench.spec.expand import expand
from bench.spec.method import Data
from bench.spec.method_loader import load_method
from bench.spec.method_registry import ENTRY_POINTS, find_methods, read_cards
from bench.spec.study import Study, load_study
from bench.utils.user_code import BUILT_IN
from bench.utils.yaml import plain, read_yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("reports/**/*.md")])
BY_HAND = [page for page in PAGES if "reports" not in page.relative_to(ROOT).parts]
EXAMPLE = ROOT / "tests" / "contract" / "good" / "one_hot.py"
OUTSIDE = {
    "pip",
    "ray",
    "source",
    "sudo",
    "pre-commit",
    "git",
    "cp",
    "cd",
}  # commands in the documentation that are not the project's
REST = {"name": "rest", "tasks": "[digits/lenet5-half]", "methods": "[noise]", "budget": "{steps: 1}"}


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(*kinds: str) -> list[Block]:
    found = []
    for page in BY_HAND:
        lines = page.read_text(encoding="utf-8").splitlines()
        start = None
        for number, line in enumerate(lines, start=1):
            if line.startswith("```") and start is None:
                start = number
            elif line.startswith("```") and start is not None:
                kind = lines[start - 1].removeprefix("```")
                found.append(Block(page, start, kind, "\n".join(lines[start : number - 1]) + "\n"))
                start = None
        assert start is None, f"{page}: the block of line {start} has no end"
    return [block for block in found if not kinds or block.kind in kinds]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ---- code ----------------------------------------------------------------------------------------------------------


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {block.kind for block in blocks()} == {"python", "yaml", "toml", "console", "text"}


def need_extras(block: Block) -> None:
    """Skip where a block imports a package of an extra that is not installed."""
    if re.search(r"^(?:from|import) torchdistill\b", block.text, flags=re.MULTILINE):
        pytest.importorskip("torchdistill", reason="the extra `torchdistill` is not installed")


def methods_of(kind: bool) -> list[Block]:
    return [block for block in blocks("python") if ("@method(" in block.text) is kind]


@pytest.mark.parametrize("block", methods_of(True), ids=str)
def test_a_method_of_the_documentation_is_read_and_runs(
    block: Block, tmp_path: Path, make_context: Callable[..., Any]
) -> None:
    import torch

    need_extras(block)
    file = tmp_path / "my_method.py"
    file.write_text(block.text, encoding="utf-8")
    (card,) = read_cards(file)
    method = load_method(card)
    images = torch.randint(256, (40, 1, 32, 32), dtype=torch.uint8)
    train = Split(images, torch.arange(40) % 10) if card.data is Data.TRAIN else None
    context = make_context(access=card.access, data=card.data, real=train, budget=Budget(steps=12))
    before = {name: value.clone() for name, value in context.student.state_dict().items()}
    with context:
        context.clock.start()
        method.run(session_for(context.image, 10), method.make_options(card.quick))
    assert context.meter.steps == 12
    assert context.used == card.access
    assert any(bool((value != before[name]).any()) for name, value in context.student.state_dict().items())


@pytest.mark.parametrize("page", ["README.md", "docs/writing-a-method.md"])
def test_the_twenty_line_method_is_the_one_that_passes_the_contract(page: str) -> None:
    _, _, code = EXAMPLE.read_text(encoding="utf-8").partition('"""\n\n')
    found = [block.text for block in blocks("python") if block.page == ROOT / page and '"one_hot"' in block.text]
    assert found == [code]


@pytest.mark.parametrize("block", methods_of(False), ids=str)
def test_other_code_of_the_documentation_runs_where_the_reader_would_run_it(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_extras(block)
    make_demo(tmp_path / "runs" / "demo", seeds=1)
    golden = tmp_path / "tests" / "unit" / "records" / "golden"
    golden.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, str(block), "exec"), {"__name__": "documentation"})
    for written in golden.iterdir():
        assert json.loads(written.read_text()) == json.loads(
            (ROOT / "tests/unit/records/golden" / written.name).read_text()
        )


def workflows(kind: bool) -> list[Block]:
    return [block for block in blocks("yaml") if ("\njobs:\n" in block.text) is kind]


@pytest.mark.parametrize("block", workflows(True), ids=str)
def test_a_workflow_of_the_documentation_names_studies_and_commands_that_exist(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "workflow.yaml"
    file.write_text(block.text, encoding="utf-8")
    jobs = plain(read_yaml(file))["jobs"]
    lines = [
        line.strip() for job in jobs.values() for step in job["steps"] for line in step.get("run", "").splitlines()
    ]
    commands = [re.split(r" (?:>>|\|\|) ", line)[0] for line in lines if line.startswith("dfkd ")]
    assert {command.split()[1] for command in commands} == {"track", "compare"}
    for command in commands:
        verb, rest = descend(shlex.split(command)[1:])
        verb.make_context(verb.name, rest)
        assert all((ROOT / word).is_file() for word in rest if word.endswith(".yaml"))


@pytest.mark.parametrize("block", workflows(False), ids=str)
def test_a_study_of_the_documentation_expands(block: Block, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path / "my_method.py")
    given = set(re.findall(r"^(\w+):", block.text, flags=re.MULTILINE))
    rest = "".join(f"{key}: {value}\n" for key, value in REST.items() if key not in given)
    file = tmp_path / "study.yaml"
    file.write_text(rest + block.text, encoding="utf-8")
    assert expand(load_study(file))


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_a_package_of_the_documentation_uses_the_group_that_is_looked_at(block: Block) -> None:
    assert list(tomllib.loads(block.text)["project"]["entry-points"]) == [ENTRY_POINTS]


# ---- commands ------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    """(where, command) for each line of a console block."""
    for block in blocks("console"):
        for number, line in enumerate(block.text.splitlines(), start=block.line + 1):
            yield f"{block.page.name}:{number}", line.removeprefix("$ ")


COMMANDS = list(commands())
QUOTED = sorted({found for page in BY_HAND for found in re.findall(r"`(dfkd [^`]+)`", prose(page))})


@pytest.mark.parametrize("command", [text for _, text in COMMANDS], ids=[where for where, _ in COMMANDS])
def test_a_command_of_the_documentation_would_be_understood(command: str) -> None:
    program, *words = shlex.split(command.partition(" > ")[0], comments=True)
    if program == "dfkd":
        verb, rest = descend(words)
        verb.make_context(verb.name, rest)  # complains about unknown options, missing and superfluous arguments
    elif program == "make":
        targets = set(re.findall(r"^([\w-]+):", text_of("Makefile"), flags=re.MULTILINE))
        assert {word for word in words if "=" not in word} <= targets
    elif program == "python" and words[0].startswith("tests/"):
        script = text_of(words[0])
        assert all(f'"{word}"' in script for word in words if word.startswith("--"))
    else:
        assert program in OUTSIDE


@pytest.mark.parametrize("command", QUOTED)
def test_a_command_in_a_sentence_exists(command: str) -> None:
    _, *words = shlex.split(" ".join(command.split()))
    verb, rest = descend(words)
    known = {name for parameter in verb.params for name in parameter.opts} | {"--help"}
    assert {word for word in rest if word.startswith("-")} <= known


def descend(words: list[str]) -> tuple[Any, list[str]]:
    """The command that a line's words name, and the words that are left for it."""
    command: Any = get_command(app)
    words = list(words)
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    return command, words


def test_every_command_is_documented() -> None:
    quoted = " ".join([*QUOTED, *(text for _, text in COMMANDS)])
    for name, command in get_command(app).commands.items():
        assert f"dfkd {name}" in quoted
        for inner in getattr(command, "commands", {}):
            if name in ("list", "teacher"):
                assert f"dfkd {name} {inner}" in quoted


# ---- links ---------------------------------------------------------------------------------------------------------


def links() -> Iterator[tuple[Path, str, str]]:
    for page in PAGES:
        words = re.sub(r"`[^`]*`", lambda code: "" if "](" in code[0] else code[0], prose(page))
        for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", words):
            yield page, text, target


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for _, _, target in [each for each in links() if each[0] == page]:
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_relative_to(ROOT), f"{target} leads out of the project"
        assert there.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(there), f"{target}: there is no such heading"


def test_named_tests_exist() -> None:
    named = [(page, text.strip("`"), target) for page, text, target in links() if text.startswith("`test_")]
    assert len(named) > 10
    for page, name, target in named:
        source = (page.parent / target).read_text(encoding="utf-8")
        assert f"\ndef {name}(" in source, f"{page.name}: {target} has no {name}"


def test_every_line_of_the_threats_names_its_test() -> None:
    rows = [line for line in text_of("docs/threats.md").splitlines() if line.startswith("| ")]
    lines = [line for line in rows if not line.startswith(("| a method would", "| open ", "|---"))]
    assert len(lines) > 20
    assert [line for line in lines if "[`test_" not in line] == ["| **The kernel** is trusted. | | |"]


def test_readme_has_the_demos_leaderboard() -> None:
    shown = text_of("README.md").split("<!-- demo:leaderboard -->\n")[1].split("\n<!-- /demo:leaderboard -->")[0]
    assert shown.startswith("| Rank | Method |")
    assert shown in text_of("reports/demo/leaderboard.md")


WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four twenty-five"
)


def test_readme_counts_the_methods_by_the_data_that_they_need() -> None:
    references = {"noise", "scratch", "kd"}
    cards = [card for name, card in find_methods().items() if card.file.parent == BUILT_IN and name not in references]
    free, pool, train = (sum(card.data is data for card in cards) for data in (Data.NONE, Data.POOL, Data.TRAIN))
    said = " ".join(text_of("README.md").split())
    words = dict(enumerate(WORDS.split(), start=1))
    assert f"The suite has {words[free]} data-free methods, {words[pool]} that distil with other real images" in said
    assert f"{words[train]} that use the training images, and three references" in said
    assert f"| **methods** | {len(cards) + len(references)} |" in text_of("docs/comparison.md")


# ---- nothing is left out -------------------------------------------------------------------------------------------


def described(names: Any, page: str) -> set[str]:
    """Those of ``names`` that a page does not write as code."""
    text = text_of(page)
    return {name for name in names if not re.search(rf"`([^`\n]*[^\w`])?{re.escape(name)}([^\w`][^`\n]*)?`", text)}


def test_every_key_of_a_study_is_described() -> None:
    assert not described([*Study.model_fields, *UNITS, *RULES], "docs/studies.md")


def test_every_field_of_a_record_is_described() -> None:
    models = (Record, TrialIdentity, MeterReading, CurvePoint)
    names = {field.alias or name for model in models for name, field in model.model_fields.items()}
    assert not described([*names, *Status.__args__], "docs/records.md")


def test_every_counter_and_every_rule_is_described() -> None:
    assert not described([*Meter().as_record(), *RULES], "docs/rules.md")


def test_everything_a_method_can_use_is_described() -> None:
    session = {name for name, _ in inspect.getmembers(Session) if not name.startswith("_")} | {"task", "teacher"}
    names = [f"s.{name}" for name in sorted(session)] + [f"Access.{level.name}" for level in Access]
    text = text_of("docs/writing-a-method.md")
    assert not [name for name in names if not re.search(rf"{re.escape(name)}\b", text)]


@functools.cache
def texts_of_the_harness() -> tuple[str, ...]:
    """Every text in the harness's code; of an f-string, what is between the values."""
    nodes = [
        node for file in (ROOT / "bench" / "harness").rglob("*.py") for node in ast.walk(ast.parse(file.read_text()))
    ]
    return tuple(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def is_said(message: str) -> bool:
    """Whether the harness says a message: its words, without the names and numbers of the example."""
    example = (
        r"from \d+ to [\d,]+|'[^']*'|-?\d[\d,.]*|\.\.\.|\([A-Z]\w*\)|\(N, .*?\)|\w+=|s\.images\(batch\)|"
        r"(?<=part of )the student|\w+$"
    )
    parts = re.split(example, message)
    words = [part.strip(" ()") for part in parts]
    return all(any(each in text for text in texts_of_the_harness()) for each in words)


def test_every_check_and_its_message_is_explained() -> None:
    spec = importlib.util.spec_from_file_location("broken", ROOT / "tests" / "contract" / "test_broken_methods.py")
    assert spec is not None
    assert spec.loader is not None
    broken = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(broken)
    page = "docs/writing-a-method.md"
    text = text_of(page)
    assert not [message for _, _, message in broken.BROKEN.values() if message not in text]
    assert not described([f"budget in {unit}" for unit in BUDGETS], page)
    rows = re.findall(
        r"^\| `(.+?)` \| ", text.partition("Errors of the Session itself")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert len(rows) > 15
    assert not [row for row in rows if not is_said(row)]
    battery = inspect.getsource(importlib.import_module("bench.execution.contract.battery"))
    assert not described(re.findall(r'note\("([\w ]+)"', battery), page)
