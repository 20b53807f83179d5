"""Options that inherit: read without running any file, equal to what Python makes of them, clear in their errors."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.spec import method_registry
from bench.spec.confined_cards import card_from
from bench.spec.literals import NotStaticError
from bench.spec.method_card import MethodCard
from bench.spec.method_loader import load_method
from bench.spec.method_parser import static_cards
from bench.spec.method_registry import find_methods, read_cards
from bench.utils.user_code import BUILT_IN

HEAD = "from dataclasses import dataclass\nfrom typing import Literal\nfrom bench import Access, Data, method, option\n"
FROZEN = "@dataclass(frozen=True)\n"
METHOD = '''
@method("mine", title="Mine", paper="P", data=Data.NONE, access=Access.LOGITS)
def run(s, o: Options) -> None:
    """What it does."""
'''
BASE = FROZEN + 'class Base:\n    lr: float = option(0.1, "the rate", unit="1", above=0, high=1, when={"kind": "a"})\n'
KIND = '    kind: Literal["a", "b"] = option("a", "the kind")\n'

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes a method file, or one beside it; modules that were imported from there are forgotten afterwards."""

    def write(text: str, name: str = "mine.py") -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("near", "bases", "pack", "installed_bases"):
            del sys.modules[name]


def read(file: Path, monkeypatch: pytest.MonkeyPatch) -> MethodCard:
    """The card of a file that must be readable without importing anything."""
    with monkeypatch.context() as patch:
        patch.setattr(method_registry, "computed_cards", lambda *_: pytest.fail("the file was imported"))
        (card,) = read_cards(file)
    return card


def imported(card: MethodCard) -> MethodCard:
    return card_from(load_method(card), card.file, card.module)


def names(card: MethodCard) -> list[str]:
    return [spec.name for spec in card.specs]


def of(*classes: str) -> str:
    return HEAD + "\n".join([*classes, METHOD])


CHILD = FROZEN + "class Options(Base):\n"
STATIC = {
    "its own come first": of(BASE + KIND, CHILD + '    size: int = option(3, "the size", low=1)\n'),
    "nothing of its own": of(BASE + KIND, CHILD + '    """As the base."""\n'),
    "a default in one line": of(BASE + KIND, CHILD + "    lr: float = 0.5\n"),
    "a narrower type": of(BASE + KIND, CHILD + '    kind: Literal["a"] = "a"\n'),
    "another type": of(BASE + KIND, CHILD + "    lr: float | None = None\n"),
    "all of it again": of(BASE + KIND, CHILD + '    lr: float = option(2.0, "another rate")\n'),
    "twice": of(BASE + KIND, CHILD.replace("Options", "Middle") + "    lr: float = 0.3\n")
    + CHILD.replace("Base", "Middle").replace("Options", "Unused") + "    lr: float = 0.4\n",
    "through a class between": of(
        BASE + KIND, CHILD.replace("Options", "Middle") + "    lr: float = 0.3\n",
        CHILD.replace("Base", "Middle") + "    size: int = 3\n",
    ),
    "several bases": of(
        BASE + KIND, FROZEN + 'class Other:\n    lr: float = option(0.2, "other", low=0)\n    far: bool = False\n',
        CHILD.replace("Base", "Other, Base") + "    far: bool = True\n",
    ),
    "a value before the base that says what it is": of(
        BASE + KIND, FROZEN + "class Small:\n    lr: float = 0.01\n", CHILD.replace("Base", "Small, Base")
        + "    pass\n",
    ),
    "a diamond": of(
        BASE + KIND, CHILD.replace("Options", "Left") + "    lr: float = 0.2\n    left: int = 1\n",
        CHILD.replace("Options", "Right") + "    right: int = 1\n",
        CHILD.replace("Base", "Left, Right") + '    kind: Literal["a", "b"] = "b"\n',
    ),
    "a diamond that says again what its ways differ in": of(
        BASE + KIND, CHILD.replace("Options", "Left") + "    left: int = 1\n",
        CHILD.replace("Options", "Right") + "    lr: float = 0.2\n",
        CHILD.replace("Base", "Left, Right") + "    lr: float = 0.3\n",
    ),
    "a method of the class": of(
        BASE + KIND + "    def twice(self): return 2 * self.lr\n", CHILD + "    lr: float = 0.2\n",
    ),
}  # fmt: skip
STATIC["twice"] = STATIC["twice"].replace("o: Options", "o: Middle")


@pytest.mark.parametrize("text", STATIC.values(), ids=STATIC)
def test_what_is_read_is_what_python_makes_of_it(write: Write, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    card = read(write(text), monkeypatch)
    assert card == imported(card)
    method = load_method(card)
    assert method.make_options({}) == method.make_options(card.defaults())


def test_a_value_changes_the_default_and_nothing_else(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    card = read(write(STATIC["a default in one line"]), monkeypatch)
    (spec,) = (spec for spec in card.specs if spec.name == "lr")
    assert (spec.default, spec.doc, spec.unit, spec.above, spec.high) == (0.5, "the rate", "1", 0, 1)
    assert spec.when == {"kind": "a"}
    card = read(write(STATIC["all of it again"], "again.py"), monkeypatch)
    (spec,) = (spec for spec in card.specs if spec.name == "lr")
    assert (spec.default, spec.doc, spec.unit, spec.above, spec.when) == (2.0, "another rate", "", None, {})


def test_a_methods_own_options_come_first_then_those_of_its_bases_in_turn(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(read(write(STATIC["its own come first"]), monkeypatch)) == ["size", "lr", "kind"]
    assert names(read(write(STATIC["a diamond"], "b.py"), monkeypatch)) == ["left", "right", "lr", "kind"]
    assert names(read(write(STATIC["several bases"], "c.py"), monkeypatch)) == ["far", "lr", "kind"]


WHOLE = HEAD + BASE + KIND
BESIDE = {
    "a neighbour": ("from bases import Base\n", {"bases.py": WHOLE}),
    "under another name": ("from bases import Root as Base\n", {"bases.py": WHOLE.replace("Base", "Root")}),
    "a neighbour's neighbour": ("from near import Base\n", {"near.py": "from bases import Base\n", "bases.py": WHOLE}),
    "a package": ("from pack.bases import Base\n", {"pack/__init__.py": "", "pack/bases.py": WHOLE}),
    "what a package gives on": (
        "from pack import Base\n", {"pack/__init__.py": "from .bases import Base\n", "pack/bases.py": WHOLE}
    ),
    "a folder": ("from pack.bases import Base\n", {"pack/bases.py": WHOLE}),
    "one level up": (
        "from pack.sub.near import Base\n",
        {"pack/__init__.py": "", "pack/sub/__init__.py": "", "pack/sub/near.py": "from ..bases import Base\n",
         "pack/bases.py": WHOLE},
    ),
    "half here and half there": (
        "from near import Kind\n" + BASE.replace("Base:", "Base(Kind):"),
        {"near.py": HEAD + FROZEN + "class Kind:\n" + KIND},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("how", "files"), BESIDE.values(), ids=BESIDE)
def test_a_base_in_another_file_is_read_there(
    write: Write, monkeypatch: pytest.MonkeyPatch, how: str, files: dict[str, str]
) -> None:
    for name, text in files.items():
        write(text, name)
    file = write(of(how, CHILD + "    lr: float = 0.5\n"))
    card = read(file, monkeypatch)
    assert names(card) == ["lr", "kind"]
    before = card.sha
    assert card == imported(card)
    holder = next(name for name, text in files.items() if "option(" in text)
    other = "option(0.25," if "lr:" in files[holder] else "option('b',"
    write(re.sub(r"option\([^,]+,", other, files[holder], count=1), holder)
    assert card.sha != before  # the base is a part of the method, wherever it stands


def test_the_built_in_bases_are_there_for_files_of_ones_own(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(
        of("from methods.common.options import CosineOptions as Base", CHILD + "    lr_student: float = 0.01\n")
    )
    card = read(file, monkeypatch)
    assert card == imported(card)
    assert card.defaults()["lr_student"] == 0.01
    assert {"optimizer", "momentum", "schedule"} < card.defaults().keys()


def test_every_built_in_method_is_read_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for file in {card.file for card in find_methods().values() if card.file.parent == BUILT_IN}:
        with monkeypatch.context() as patch:
            patch.setattr(method_registry, "computed_cards", lambda *_: pytest.fail("a method was imported"))
            assert read_cards(file, f"methods.{file.stem}")


COMPUTED = {
    "a base that is made": of(
        BASE.replace(FROZEN, "") + KIND + "Base = dataclass(frozen=True)(Base)\n", CHILD + "    lr: float = 0.5\n"
    ),
    "a base in a branch": of("if True:\n    from bases import Base\n", CHILD + "    lr: float = 0.5\n"),
    "a base of a module": of("import bases\n", CHILD.replace("Base", "bases.Base") + "    lr: float = 0.5\n"),
    "a base of all names": of("from bases import *\n", CHILD + "    lr: float = 0.5\n"),
    "a class that changes those that inherit it": of(
        BASE + KIND + "    def __init_subclass__(cls): pass\n", CHILD + "    lr: float = 0.5\n"
    ),
    "a plain class of functions": of(
        BASE + KIND, "class Functions:\n    def twice(self): return 2\n",
        CHILD.replace("Base", "Functions, Base") + "    lr: float = 0.5\n",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("_read_here_and_confined")
@pytest.mark.parametrize("text", COMPUTED.values(), ids=COMPUTED)
def test_what_cannot_be_read_is_imported(write: Write, text: str) -> None:
    write(HEAD + BASE + KIND, "bases.py")
    file = write(text)
    with pytest.raises(NotStaticError):
        static(file)
    (card,) = read_cards(file)
    assert card.defaults() == {"lr": 0.5, "kind": "a"}
    assert next(spec.doc for spec in card.specs if spec.name == "lr") == "the rate"


def static(file: Path) -> list[MethodCard]:
    return static_cards(ast.parse(file.read_bytes()), file, None)


@pytest.mark.slow
def test_a_base_of_an_installed_package_is_imported(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(HEAD + BASE + KIND, "site/installed_bases/options.py")
    write("", "site/installed_bases/__init__.py")
    monkeypatch.syspath_prepend(tmp_path / "site")
    file = write(of("from installed_bases.options import Base\n", CHILD + "    lr: float = 0.5\n"), "own/mine.py")
    with pytest.raises(NotStaticError):
        static(file)
    (card,) = read_cards(file)
    assert card.defaults() == {"lr": 0.5, "kind": "a"}
    write(
        HEAD + BASE.replace("0.1", "0.2") + KIND, "own/installed_bases/options.py"
    )  # a folder without __init__ comes last
    (card,) = read_cards(write(file.read_text() + "\n", "own/mine.py"))
    assert card == imported(card)


def test_a_neighbour_that_has_the_name_of_another_module_is_not_taken_for_it(write: Write) -> None:
    write(HEAD + BASE + KIND, "json.py")
    file = write(of("from json import Base\n", CHILD + "    lr: float = 0.5\n"))
    with pytest.raises(UserError, match=r"mine\.py, line 4: importing it fails with ImportError"):
        read_cards(file)


def mistake(write: Write, text: str) -> str:
    with pytest.raises(UserError) as error:
        read_cards(write(text))
    return str(error.value)


WRONG = [
    (CHILD + "    lr: float = 2.0\n", "mine.py, line {own}: option 'lr' must be at most 1, not 2.0"),
    (CHILD + "    lr: float = 'x'\n", "mine.py, line {own}: option 'lr' must be float, not 'x'"),
    (CHILD + "    lr = 0.2\n", "mine.py, line {own}: option 'lr' needs its type in Options as well"),
    (CHILD + '    kind: Literal["b"] = "b"\n', "bases.py, line 6: option 'kind' must be b, not 'a'"),
    ("class Options(Base):\n    lr: float = 0.2\n", "mine.py, line 9: Options must be a frozen dataclass"),
    (CHILD.replace("Base", "Base, Base") + "    pass\n", ": importing it fails with TypeError: duplicate base class"),
]


@pytest.mark.usefixtures("_read_here_and_confined")
@pytest.mark.parametrize(("child", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_mistake_is_named_with_the_file_and_the_line_of_the_option(write: Write, child: str, message: str) -> None:
    write(HEAD + BASE + KIND, "bases.py")
    found = mistake(write, of("from bases import Base", child))
    assert message.format(own=7) in found


MISLEADING = {
    "a base that is no dataclass": (
        "class Base:\n    size: int = 3\n", CHILD, "Base, a base of Options, must be a frozen dataclass",
    ),
    "a class between that is no dataclass": (
        BASE + KIND + "class Middle(Base):\n    lr: float = 0.2\n", CHILD.replace("Base", "Middle"),
        "Middle, a base of Options, must be a frozen dataclass",
    ),
    "a value without a type in a class between": (
        BASE + KIND + CHILD.replace("Options", "Middle") + "    lr = 0.2\n", CHILD.replace("Base", "Middle"),
        "option 'lr' needs its type in Middle as well, or its default stays as it was: lr: TYPE = VALUE",
    ),
    "a default that Python's dataclasses lose": (
        STATIC["a diamond that says again what its ways differ in"].partition(CHILD.replace("Base", "Left, Right"))[0]
        .removeprefix(HEAD), CHILD.replace("Base", "Left, Right"),
        "option 'lr': Options inherits it by several ways, and its default in Right would be lost; declare it in",
    ),
    "an order that does not exist": (
        BASE + KIND + CHILD.replace("Options", "Middle") + "    pass\n", CHILD.replace("Base", "Base, Middle"),
        "Cannot create a consistent method resolution",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("bases", "child", "message"), MISLEADING.values(), ids=MISLEADING)
def test_what_would_not_do_what_it_says_is_refused(write: Write, bases: str, child: str, message: str) -> None:
    found = mistake(write, of(bases, child + "    pass\n"))
    assert message in found
    assert "mine.py, line " in found


def test_a_mistake_in_a_base_is_named_there(write: Write) -> None:
    base = write(HEAD + BASE + KIND.replace('option("a"', 'option("c"'), "bases.py")
    found = mistake(write, of("from bases import Base", CHILD + "    lr: float = 0.5\n"))
    assert found.startswith(f"{base}, line 7: option 'kind' must be a | b, not 'c'")
    write(HEAD + BASE.replace("above=0", "abov=0"), "bases.py")
    found = mistake(write, of("from bases import Base", CHILD + "    lr: float = 0.5\n"))
    assert found.startswith(f"{base}, line 6: option() has no argument 'abov'; did you mean 'above'?")
