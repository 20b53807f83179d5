"""Method cards: read without running the file, equal to what running it gives, and clear about every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.spec import method_registry
from bench.spec.confined_cards import card_from
from bench.spec.method import Access, Data
from bench.spec.method_loader import load_method
from bench.spec.method_registry import find_methods, get_card, read_cards
from bench.spec.options import OptionSpec
from bench.utils.user_code import import_module, source_hash

ROOT = Path(__file__).parents[3]
HEAD = "from dataclasses import dataclass\nfrom typing import *\nfrom bench import Access, Data, method, option\n\n\n"
OPTIONS = "@dataclass(frozen=True)\nclass Options:\n    "
DECLARED = '@method("mine", title="Mine", paper="P", data=Data.NONE, access=Access.LOGITS)\n'
FUNCTION = 'def run(s, o: Options) -> None:\n    """What it does."""\n'
WITHOUT = "def run(s) -> None: ...\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "mine.py") -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return write


def with_option(line: str, declared: str = DECLARED) -> str:
    return HEAD + OPTIONS + line + "\n\n" + declared + FUNCTION


@pytest.mark.parametrize("name", find_methods())
def test_a_card_that_was_read_equals_one_that_was_imported(name: str) -> None:
    card = find_methods()[name]
    method = load_method(card)
    assert card.doc
    assert card == card_from(method, card.file, card.module)
    assert card.defaults() == {spec.name: spec.default for spec in method.specs}
    assert method.make_options(card.defaults()) == method.options()


@pytest.mark.parametrize("needs", ["False", "True", '"x"'])
def test_what_is_declared_of_batch_norm_is_read_and_asked(write: Write, needs: str) -> None:
    declared = DECLARED.replace("LOGITS)", f"BATCH_NORM, batch_norm={needs})")
    file = write(with_option('x: float = option(0.5, "x", low=0)', declared))
    (card,) = read_cards(file)
    method = load_method(card)
    assert card == card_from(method, card.file, card.module)
    assert card.batch_norm == method.batch_norm
    assert card.needs_batch_norm({}) == (needs != "False")
    assert card.needs_batch_norm({"x": 0.0}) == (needs == "True")


def test_reading_cards_runs_no_method_file_and_no_torch() -> None:
    code = (
        "import json, sys; from bench.spec.method_registry import find_methods; found = sorted(find_methods())\n"
        "print(json.dumps([found, [m for m in sys.modules if m.split('.')[0] in ('torch', 'methods', 'numpy')]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == [sorted(find_methods()), []]


def test_a_file_that_would_fail_is_read_all_the_same(write: Write) -> None:
    (card,) = read_cards(write("import no_such_module\n" + with_option('x: float = option(1, "doc", above=0)')))
    assert (card.name, card.data, card.access, card.doc) == ("mine", Data.NONE, Access.LOGITS, "What it does.")
    assert card.specs == (OptionSpec("x", float, 1, "doc", above=0),)
    assert repr(card.defaults()) == "{'x': 1.0}"  # as a study that writes 1 or 1.0 has it
    for _ in range(2):  # the failure leaves nothing behind
        with pytest.raises(UserError, match=r"mine\.py, line 1: importing it fails with ModuleNotFoundError"):
            load_method(card)


@pytest.mark.parametrize(
    "line",
    [
        'x: int = option(3, "doc", unit="images", low=1, high=9)',
        "x: int = 3",
        'x: float | None = option(None, doc="doc", when={"y": True})\n    y: bool = True',
        'x: Literal["a", "b"] = option("a", "doc")',
        'x: tuple[float, ...] = option((1.0, 2.0), "doc", above=-1)',
        'x: tuple[int, ...] | None = option(default=(-1,), doc="doc")',
        '"""A text."""\n    x: str = "a"\n\n    def twice(self): return 2 * self.x',
    ],
)
def test_every_kind_of_option_is_read_as_it_is_run(write: Write, line: str) -> None:
    (read,) = read_cards(write(with_option(line)))
    assert f"dfkd_method_mine_{read.sha[:8]}" not in sys.modules
    assert read == card_from(load_method(read), read.file, None)


COMPUTED = {
    "a constant": "BATCH = 3\n" + with_option('x: int = option(BATCH, "doc")'),
    "a quoted annotation": with_option('x: "int" = option(3, "doc")'),
    "an inherited option": with_option("x: int = 3\n\n" + OPTIONS.replace("s:", "s(Base):") + "pass").replace(
        "Options:", "Base:", 1
    ),
    "an alias": with_option("x: int = 3").replace(", method,", ", method as m,").replace("@method", "@m"),
    "arguments in a dictionary": with_option("x: int = 3", '@method("mine", **FACTS)\n').replace(
        OPTIONS, 'FACTS = {"title": "Mine", "paper": "P", "data": Data.NONE, "access": Access.LOGITS}\n' + OPTIONS
    ),
    "a call in place of a decorator": with_option("x: int = 3", "") + DECLARED[1:-1] + "(run)\n",
    "keyword-only options": with_option("x: int = 3").replace("frozen=True", "frozen=True, kw_only=True"),
}  # fmt: skip


@pytest.mark.usefixtures("_read_here_and_confined")
@pytest.mark.parametrize("text", COMPUTED.values(), ids=COMPUTED)
def test_a_declaration_that_is_computed_is_read_by_running_it(write: Write, text: str) -> None:
    (card,) = read_cards(write(text))
    assert (card.name, card.title, card.doc, card.defaults()) == ("mine", "Mine", "What it does.", {"x": 3})
    assert card.specs[0].type is int


def test_methods_in_branches_are_not_overlooked(write: Write) -> None:
    branch = "if True:\n" + textwrap.indent(DECLARED.replace("mine", "other") + WITHOUT.replace("run", "go"), "    ")
    assert {card.name for card in read_cards(write(HEAD + DECLARED + WITHOUT + branch))} == {"mine", "other"}


def declared(old: str, new: str) -> str:
    return with_option("x: int = 1", DECLARED.replace(old, new))


MISTAKES = [
    (HEAD + "def run(:\n", 6, "not valid Python: invalid syntax"),
    ("x = 1\0\n", None, "not valid Python: source code string cannot contain null bytes"),
    (HEAD, None, "no method found; decorate a function with @method(...)"),
    (with_option('x: float = option(1, "x", lo=3)'), 8, "option() has no argument 'lo'; did you mean 'low'?"),
    (with_option("x: float = option(1)"), 8, "option(): missing a required argument: 'doc'"),
    (with_option('x: float = option(1, "x", low=3)'), 8, "option 'x' must be at least 3, not 1"),
    (with_option("x: int = 1.5"), 8, "option 'x' must be int, not 1.5"),
    (with_option('x: tuple[int, ...] = option([1], "x")'), 8, "use a tuple, not [1]"),
    (with_option('x: int = option(1, "x", low="1")'), 8, "a limit must be a number, not '1'"),
    (with_option('x: int = option(1, "x", when={"y": 1})'), 8, "has no option 'y'"),
    (with_option("x: list[int] = 1"), 10, "option 'x': the type 'list' is not supported"),
    (with_option("x: int"), 10, "option 'x' of Options has no fixed default"),
    (with_option('x = option(1, "x")'), 6, "'x' is a field but has no type annotation"),
    (declared("", "").replace("(frozen=True)", ""), 10, "Options must be a frozen dataclass"),
    (declared("", "").replace("@dataclass(frozen=True)", ""), 10, "Options must be a frozen dataclass"),
    (declared("title", "titel"), 10, "method() has no argument 'titel'; did you mean 'title'?"),
    (declared('paper="P", ', ""), 10, "method(): missing a required argument: 'paper'"),
    (declared("LOGITS", "LOGIT"), 10, "Access has no LOGIT; did you mean 'LOGITS'?"),
    (declared("Access.LOGITS", "'logits'"), 10, "access must be one of Access.NONE, "),
    (declared('"mine"', '"my-method"'), 10, "a method's name consists of"),
    (declared(")", ', presets={"cifar10": {"y": 1}})'), 10, "method 'mine' (preset 'cifar10') has no option 'y'"),
    (declared(")", ', quick={"x": "a"})'), 10, "option 'x' must be int, not 'a'"),
    (declared(")", ", batch_norm=1)"), 10, "batch_norm must be True, False or the name of an option, not 1"),
    (declared(")", ', batch_norm="y")'), 10, "the name of an option, not 'y'; allowed: x"),
    (declared(")", ', batch_norm="x")'), 10, "method 'mine': batch_norm needs Access.BATCH_NORM, not Access.LOGITS"),
    (
        declared("", "").replace("o: Options", "o"),
        10,
        "annotate the second parameter of 'run' with its options dataclass",
    ),
    (declared("", "").replace("o: Options", "o: Options, p"), 10, "'run' must take (session) or (session, options)"),
    (HEAD + DECLARED + WITHOUT.replace("def ", "async def "), 6, "'run' must be a plain function, without async and"),
    (HEAD + DECLARED + WITHOUT.replace("...", "yield"), 6, "'run' must be a plain function, without async and yield"),
    (declared(")", ', pool="wlid")').replace("Data.NONE", "Data.POOL"), 10, "not 'wlid'; did you mean 'wild'?"),
    (HEAD + DECLARED + WITHOUT + DECLARED + WITHOUT, None, "two methods are named 'mine'"),
    (HEAD + DECLARED.replace("mine", "dafl") + WITHOUT, None, "the name 'dafl' is taken by"),
    ("X = 1 / 0\n" + with_option('x: int = option(X, "x")'), 1, "fails with ZeroDivisionError: division by zero"),
    ("raise SystemExit(3)\n", 1, "importing it fails with SystemExit: 3"),
]


@pytest.mark.usefixtures("_read_here_and_confined")
@pytest.mark.parametrize(("text", "line", "message"), MISTAKES, ids=[message for _, _, message in MISTAKES])
def test_a_mistake_is_named_with_file_and_line(write: Write, text: str, line: int | None, message: str) -> None:
    file = write(text)
    with pytest.raises(UserError) as error:
        find_methods([file])
    assert str(error.value).startswith(f"{file}, line {line}: " if line else f"{file}: ")
    assert message in str(error.value)


def test_files_that_are_none(tmp_path: Path, write: Write) -> None:
    for file, message in ((tmp_path / "gone.py", "no such method file"), (tmp_path, "is a folder; name a method file")):
        with pytest.raises(UserError, match=message):
            read_cards(file)
    latin = write("")
    latin.write_bytes("x = 'é'\n".encode("latin-1"))
    with pytest.raises(UserError, match="not valid Python"):
        read_cards(latin)
    latin.write_bytes(b"\xef\xbb\xbf" + (HEAD + DECLARED + WITHOUT).encode())  # as some editors save it
    assert read_cards(latin)[0].name == "mine"


def test_names_are_unique_over_files_but_a_file_may_be_named_twice(write: Write) -> None:
    one, two = write(HEAD + DECLARED + WITHOUT), write(HEAD + DECLARED + WITHOUT, "two.py")
    assert find_methods([one, one])["mine"].file == one
    with pytest.raises(
        UserError, match=r"two\.py: the name 'mine' is taken by .*mine\.py; give the method another name"
    ):
        find_methods([one, two])
    dafl = ROOT / "methods" / "dafl.py"
    assert find_methods([dafl])["dafl"].sha == find_methods()["dafl"].sha


def test_unknown_method_gets_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^unknown method 'dalf'; did you mean 'dafl'\?$"):
        get_card("dalf", find_methods())


def install(site: Path, *entries: str) -> None:
    """A distribution with entry points, as pip would leave it."""
    facts = site / "plugin-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("\n".join([f"[{method_registry.ENTRY_POINTS}]", *entries, ""]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages; what is installed is searched again, and forgotten afterwards."""
    monkeypatch.setattr(method_registry, "_installed_methods", method_registry._installed_methods.__wrapped__)
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield tmp_path / "site"
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugin"]:
        del sys.modules[name]


def test_installed_packages_bring_methods(site: Path, write: Write) -> None:
    other = DECLARED.replace("mine", "other")
    install(site, "mine = plugin.methods:run", "other = plugin.methods:go")  # two of one module
    write("", "site/plugin/__init__.py")
    write(HEAD + DECLARED + WITHOUT + other + WITHOUT.replace("run", "go"), "site/plugin/methods.py")
    found = find_methods()
    assert {"mine", "other", "dafl"} <= found.keys()
    assert "plugin.methods" not in sys.modules
    assert load_method(found["other"]).run.__name__ == "go"
    assert sys.modules["plugin.methods"].__file__ == str(found["mine"].file)
    file = write(HEAD + DECLARED + WITHOUT)
    with pytest.raises(UserError, match=r"mine\.py: the name 'mine' is taken by .*plugin"):
        find_methods([file])


@pytest.mark.parametrize(
    ("entry", "package", "message"),
    [
        ("a = plugin_gone", "", "'a' .dfkd.methods. names 'plugin_gone', which is not installed"),
        ("a = plugin_gone.methods", "", "locating 'plugin_gone.methods' fails with ModuleNotFoundError"),
        ("a = plugin.methods", "1 / 0", "locating 'plugin.methods' fails with ZeroDivisionError"),
        ("a = plugin.methods", "", "entry point 'a' .dfkd.methods.: the name 'dafl' is taken by .*methods/dafl.py"),
    ],
)
def test_a_broken_package_is_named(site: Path, write: Write, entry: str, package: str, message: str) -> None:
    install(site, entry)
    write(package, "site/plugin/__init__.py")
    write(HEAD + DECLARED.replace("mine", "dafl") + WITHOUT, "site/plugin/methods.py")
    with pytest.raises(UserError, match=message):
        find_methods()


USES = "import json, near\nfrom package import part\nfrom methods.common.losses import imbalance\n"


def test_the_hash_follows_what_the_method_imports_and_nothing_else(write: Write) -> None:
    text = USES + HEAD + DECLARED + WITHOUT
    file = write(text)
    files = {"near.py": "import further\n", "package/part.py": "from . import side\n"}
    files |= dict.fromkeys(("further.py", "package/__init__.py", "package/side.py"), "")
    for name, content in files.items():
        write(content, name)
    write("", "unrelated.py")
    first = source_hash(file)
    for name in files:
        write(files[name] + "\n# changed", name)
        assert source_hash(file) != first, name
        write(files[name], name)
    write("# changed", "unrelated.py")
    write("def broken(:", "package/other.py")
    write("x = 1", "bench.py")  # what is called bench is the suite, whose version counts apart
    assert source_hash(file) == first
    assert source_hash(write(text.replace("imbalance", "imbalance "), "copy.py")) != first
    write("def broken(:", "near.py")
    assert source_hash(file) != first


def test_the_hash_follows_a_packages_own_modules(write: Write) -> None:
    file = write(
        "from plugin.losses import x\nimport other\n" + HEAD + DECLARED + WITHOUT, "site/plugin/methods/mine.py"
    )
    for name in ("plugin/__init__.py", "plugin/methods/__init__.py", "plugin/losses.py", "other.py"):
        write("", f"site/{name}")
    first = source_hash(file)
    write("x = 1", "site/other.py")  # another library
    assert source_hash(file) == first
    write("x = 1", "site/plugin/losses.py")
    assert source_hash(file) != first


def test_the_hash_follows_shared_built_in_modules(tmp_path: Path) -> None:
    for path in (ROOT / "methods").glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert source_hash(tmp_path / "kd.py") == source_hash(ROOT / "methods" / "kd.py")  # wherever it lies
    files = {card.file: card.sha for card in find_methods().values()}  # one file may declare several methods
    assert len(set(files.values())) == len(files)


def test_each_method_file_gets_its_own_neighbours(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "dont_write_bytecode", False
    )  # a neighbour that changes within a second is new all the same
    text = "import helper_of_mine\n" + HEAD + DECLARED + "def run(s):\n    return helper_of_mine.X\n"
    one, two = write(text, "a/mine.py"), write(text, "b/mine.py")
    for value, file in ((1, one), (2, two), (3, one)):
        write(f"X = {value}", f"{file.parent.name}/helper_of_mine.py")
        module = import_module(file, None)
        assert module.run(None) == value
    assert str(one.parent) not in sys.path
