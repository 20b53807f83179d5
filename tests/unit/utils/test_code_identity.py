"""What a method's hash counts and what it does not: the meaning of its code, on every version of Python."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from bench.utils import code_identity
from bench.utils.code_identity import RULE, RULES, code_hash
from bench.utils.paths import ROOT
from bench.utils.user_code import BUILT_IN, source_hash

FILES = sorted(file.relative_to(BUILT_IN).as_posix() for file in BUILT_IN.rglob("*.py"))
METHODS = [name for name in FILES if "@method(" in (BUILT_IN / name).read_text(encoding="utf-8")]
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file into the test's folder; its text may be indented as a whole."""

    def _write(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return _write


def hash_of(write: Write, text: str, **files: str) -> str:
    """The hash of a method with these modules beside it."""
    for name, content in files.items():
        write(content, f"{name}.py")
    return code_hash(write(text, "mine.py"))


# --- every file of methods/, changed in ways that mean nothing, and in one number


@pytest.fixture(scope="module")
def original() -> dict[str, str]:
    return {name: code_hash(BUILT_IN / name) for name in METHODS}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests: files that stay as they are need to be read once only."""
    return tmp_path_factory.mktemp("copies") / "methods"


@pytest.fixture
def copies(shelf: Path) -> Path:
    """A copy of ``methods/`` to change."""
    for name in FILES:
        (shelf / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(BUILT_IN / name, shelf / name)
    return shelf


def hashes(folder: Path, names: list[str]) -> dict[str, str]:
    return {name: code_hash(folder / name, methods=folder) for name in names}


def with_words(text: str) -> str:
    """Comments, docstrings, spaces and blank lines everywhere; imports and their names the other way round."""
    tree = ast.parse(text)
    lines = text.splitlines()
    imports = [
        node
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", "") != "__future__"
    ]
    turned = []
    for node in reversed(imports):
        node.names.reverse()
        turned.append(ast.unparse(node))
    for place, node in enumerate(imports):
        lines[node.lineno - 1] = turned[place]
        for line in range(node.lineno, node.end_lineno or 0):
            lines[line] = ""
    before: dict[int, list[str]] = {}
    inside_strings = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant | ast.JoinedStr)
        for line in range(node.lineno, node.end_lineno or 0)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = node.body[0]
            indent = " " * first.col_offset
            if first.lineno > node.lineno:
                before.setdefault(first.lineno, []).append(f'{indent}"""Words about {node.name}."""')
        elif isinstance(node, ast.stmt) and node.lineno not in inside_strings:
            before.setdefault(node.lineno, []).extend(["", " " * node.col_offset + "# a comment"])
    shown = []
    for number, line in enumerate(lines, 1):
        if not lines[number - 1].startswith("else") and not line.lstrip().startswith(("elif", "@")):
            shown += before.get(number, [])
        shown.append(line if number in inside_strings or line.endswith("\\") else f"{line}   # and another")
    return "\n".join(shown) + "\n"


class _Retyped(ast.NodeTransformer):
    """Other annotations, where there are any and where there are none; a class's fields keep having one."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None if node.returns else ast.Name("object", ast.Load())
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
            argument.annotation = None if argument.annotation else ast.Constant("whatever")
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Name("object", ast.Load())
        return node


def test_words_and_the_order_of_imports_change_no_id(copies: Path, original: dict[str, str]) -> None:
    for name in FILES:
        text = (copies / name).read_text(encoding="utf-8")
        changed = with_words(text)
        assert changed != text or not text
        (copies / name).write_text(changed, encoding="utf-8")
    assert hashes(copies, METHODS) == original


def test_formatting_and_annotations_change_no_id(copies: Path, original: dict[str, str]) -> None:
    for name in FILES:
        tree = _Retyped().visit(ast.parse((copies / name).read_bytes()))
        (copies / name).write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
    assert hashes(copies, METHODS) == original


def numbers(node: ast.AST) -> Iterator[ast.Constant]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and type(each.value) in (int, float) and each.lineno == each.end_lineno:
            yield each


def with_another(text: str, number: ast.Constant) -> str:
    lines = text.encode().splitlines(keepends=True)
    line = lines[number.lineno - 1]
    changed = str(number.value + 1).encode()  # type: ignore[operator]
    lines[number.lineno - 1] = line[: number.col_offset] + changed + line[number.end_col_offset :]
    return b"".join(lines).decode()


@pytest.mark.parametrize("name", METHODS)
def test_one_number_of_a_method_changes_its_id(copies: Path, original: dict[str, str], name: str) -> None:
    """The first and the last number of each method file, be it an option's default, a preset or a factor."""
    text = (copies / name).read_text(encoding="utf-8")
    found = list(numbers(ast.parse(text)))
    for number in (found[0], max(found, key=lambda each: each.lineno)):
        (copies / name).write_text(with_another(text, number), encoding="utf-8")
        assert hashes(copies, [name])[name] != original[name]


class _Untyped(ast.NodeTransformer):
    """Without annotations: they reach nothing, and their numbers do not count."""

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant("")
        return node


@pytest.fixture(scope="module")
def reached() -> dict[str, set[tuple[str, str]]]:
    """The definitions (file and name) that each method reaches, by the plainest means: names in code, file by file."""
    trees = {name: _Untyped().visit(ast.parse((BUILT_IN / name).read_bytes())) for name in FILES}
    defined: dict[tuple[str, str], ast.stmt] = {}
    origin: dict[tuple[str, str], tuple[str, str]] = {}
    for file, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined[file, node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
                defined |= {(file, name): node for name in names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("methods."):
                source = (node.module or "").removeprefix("methods.").replace(".", "/") + ".py"
                origin |= {(file, alias.asname or alias.name): (source, alias.name) for alias in node.names}

    def used(file: str, node: ast.AST) -> set[tuple[str, str]]:
        names = {(file, each.id) for each in ast.walk(node) if isinstance(each, ast.Name)}
        return {origin.get(each, each) for each in names} & defined.keys()

    uses = {key: used(key[0], node) for key, node in defined.items()}
    found: dict[str, set[tuple[str, str]]] = {}
    for method in METHODS:
        found[method] = set()
        waiting = used(method, trees[method])
        while waiting:
            key = waiting.pop()
            if key not in found[method]:
                found[method].add(key)
                waiting |= uses[key]
    return found


def shared_numbers() -> dict[str, dict[str, ast.Constant]]:
    """By shared module, the first number of each of its functions and classes."""
    found: dict[str, dict[str, ast.Constant]] = {}
    for name in (each for each in FILES if each not in METHODS):
        for node in _Untyped().visit(ast.parse((BUILT_IN / name).read_bytes())).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (number := next(numbers(node), None)):
                found.setdefault(name, {})[node.name] = number
    return found


@pytest.mark.parametrize("name", shared_numbers())
def test_one_number_of_a_shared_definition_changes_the_ids_of_the_methods_that_reach_it(
    copies: Path, original: dict[str, str], reached: dict[str, set[tuple[str, str]]], name: str
) -> None:
    """And of no other: of each module that definition is changed which the fewest methods reach."""
    found = shared_numbers()[name]
    users = {each: {method for method in METHODS if (name, each) in reached[method]} for each in found}
    definition = min(users, key=lambda each: (len(users[each]) or len(METHODS), each))
    text = (copies / name).read_text(encoding="utf-8")
    (copies / name).write_text(with_another(text, found[definition]), encoding="utf-8")
    near = [method for method in METHODS if any(file == name for file, _ in reached[method])]
    asked = sorted({*near, *METHODS[:2]})
    assert {method for method, value in hashes(copies, asked).items() if value != original[method]} == users[definition]


# --- code that tries to break the rule

HELPER = "def loss(x):\n    return x * 4\n\n\ndef unused(x):\n    return x\n"
USES = "import helper\n\ndef mine(s, o):\n    return helper.loss(2) * 3\n"


def test_what_is_not_reached_in_a_shared_module_does_not_count(write: Write) -> None:
    first = hash_of(write, USES, helper=HELPER)
    assert hash_of(write, USES, helper=HELPER.replace("return x\n", "return x + 1\n")) == first
    assert hash_of(write, USES, helper="import math\nimport json as j\n\nTABLE = {1: 2}\n" + HELPER) == first
    assert hash_of(write, USES, helper=HELPER.replace("4", "5")) != first


@pytest.mark.parametrize(
    "text",
    [
        "import helper as h\ndef mine(s, o):\n    return h.loss(2) * 3\n",
        USES,
        "from helper import loss as other_name, unused\ndef mine(s, o):\n    return other_name(2) * 3\n",
        "def mine(s, o):\n    return other_name(2) * 3\nfrom helper import loss as other_name\n",
        "from package import loss\ndef mine(s, o):\n    return loss(2) * 3\n",
        "from package import again\ndef mine(s, o):\n    return again(2) * 3\n",
        "from package.deep import helper\ndef mine(s, o):\n    return helper.loss(2) * 3\n",
        "import package.deep.helper\ndef mine(s, o):\n    return package.deep.helper.loss(2) * 3\n",
        "import package.deep.helper as h\ndef mine(s, o):\n    return h.loss(2) * 3\n",
    ],
)
def test_where_a_helper_lies_and_how_it_is_imported_does_not_matter(write: Write, text: str) -> None:
    one = hash_of(write, "from helper import loss\ndef mine(s, o):\n    return loss(2) * 3\n", helper=HELPER)
    write(
        "from package.deep.helper import loss as loss\nfrom .deep.helper import loss as again\n", "package/__init__.py"
    )
    write("", "package/deep/__init__.py")
    write(HELPER, "package/deep/helper.py")
    assert hash_of(write, text) == one
    write(HELPER.replace("4", "5"), "package/deep/helper.py")
    assert (hash_of(write, text) == one) == ("package" not in text)


def test_two_helpers_of_one_name_are_told_apart(write: Write) -> None:
    text = "from {} import f as one\nfrom {} import f as two\nX = one(1) - two(1)\n"
    files = {"a": "def f(x):\n    return 1\n", "b": "def f(x):\n    return 2\n"}
    assert hash_of(write, text.format("a", "b"), **files) != hash_of(write, text.format("b", "a"), **files)


SIDE = "A = 1\nB = 2\ndef f(x):\n    return A\ndef g(x):\n    return B\n"


@pytest.mark.parametrize(
    "text",
    [
        "from side import *\nX = 1\n",
        "import side\nX = getattr(side, 'f')\n",
        "import side\nY = [side]\n",
        "from side import made_later\n\nX = made_later\n",
        "import side\nX = side.made_later\n",
        "import importlib\nX = importlib.import_module('side').f\n",
        "from importlib import import_module\nX = import_module('side').f\n",
        "X = __import__('side').g\n",
        "from inner import look\nX = look('f')\n",
        "from side import f as own, g\nX = globals()['own']\n",
        "from starred import h\nX = h()\n",
        "from package import f\n\nX = f\n",
    ],
)
def test_a_module_that_is_not_used_by_names_alone_counts_whole(write: Write, text: str) -> None:
    write("from side import f, g\ndef look(name):\n    return globals()[name]\n", "inner.py")
    write("from side import *\ndef h():\n    return g(1)\n", "starred.py")
    write("def __getattr__(name):\n    import side\n    return getattr(side, name)\n", "package/__init__.py")
    first = hash_of(write, text, side=SIDE)
    for changed in (SIDE.replace("1", "7"), SIDE.replace("2", "7")):
        assert hash_of(write, text, side=changed) != first
    assert hash_of(write, text, side="# words\n" + SIDE.replace("def g", "\n\ndef g")) == first


def test_helpers_that_need_each_other_in_circles(write: Write) -> None:
    a = "import b\ndef even(n):\n    return n == 0 or b.odd(n - 1)\n"
    b = "import a\nimport mine\ndef odd(n):\n    return n != mine.ZERO and a.even(n - 1)\n"
    text = "import a\nZERO = 0\ndef run(s):\n    return a.even(s)\n"
    first = hash_of(write, text, a=a, b=b)
    assert hash_of(write, text, a=a, b=b.replace("1", "2")) != first
    assert hash_of(write, text, a=a, b=b) == first
    assert hash_of(write, text.replace("0", "1"), a=a, b=b) != first
    loop = {"a": "from b import x\n", "b": "from a import x\n"}
    assert hash_of(write, "from a import x\nprint(x)\n", **loop) != hash_of(write, "from a import y\nprint(y)\n")


DATACLASS = "from dataclasses import dataclass\nfrom typing import ClassVar\n@dataclass\nclass A:\n"
DISPATCH = "from functools import singledispatch\n@singledispatch\ndef f(x): return 0\n@f.register\n"
COUNTS = {
    "decorator": ("@helper.twice\ndef f(x):\n    return x\n", "@helper.thrice\ndef f(x):\n    return x\n"),
    "order of decorators": ("@a\n@b\ndef f(): 1()\n", "@b\n@a\ndef f(): 1()\n"),
    "default": ("def f(x=1):\n    return x\n", "def f(x=2):\n    return x\n"),
    "keyword default": ("def f(*, x, y=1):\n    return x\n", "def f(*, x=1, y):\n    return x\n"),
    "kind of argument": ("def f(x, /, y):\n    return x\n", "def f(x, y):\n    return x\n"),
    "base": ("class A(dict): x = 1\n", "class A(list): x = 1\n"),
    "metaclass": ("class A(metaclass=M): x = 1\n", "class A(metaclass=N): x = 1\n"),
    "class attribute": ("class A:\n    x = 1\n", "class A:\n    x = 2\n"),
    "field of a dataclass": (f"{DATACLASS}    x: int = 1\n", f"{DATACLASS}    x = 1\n"),
    "order of fields": (f"{DATACLASS}    x: int\n    y: int\n", f"{DATACLASS}    y: int\n    x: int\n"),
    "class variable": (f"{DATACLASS}    x: int = 1\n", f"{DATACLASS}    x: ClassVar[int] = 1\n"),
    "type of a number": ("X = 1\n", "X = 1.0\n"),
    "true and one": ("X = True\n", "X = 1\n"),
    "text and bytes": ("X = 'a'\n", "X = b'a'\n"),
    "text and number": ("X = '1'\n", "X = 1\n"),
    "text and hexadecimal": ("X = '0x1'\n", "X = 1\n"),
    "empty text": ("X = ''\n", "X = None\n"),
    "sign of zero": ("X = 0.0\n", "X = -0.0\n"),
    "operator": ("X = a < b\n", "X = a <= b\n"),
    "order of statements": ("a()\nb()\n", "b()\na()\n"),
    "grouping": ("X = a - (b - c)\n", "X = a - b - c\n"),
    "branch": ("if a:\n    b()\nc()\n", "if a:\n    b()\n    c()\n"),
    "else of a loop": ("for a in b:\n    c()\nelse:\n    d()\n", "for a in b:\n    c()\nd()\n"),
    "f-string": ("X = f'{a:>3}'\n", "X = f'{a:>4}'\n"),
    "text of an f-string": ("X = f'a{a}'\n", "X = f'{a}a'\n"),
    "conversion": ("X = f'{a!r}'\n", "X = f'{a!s}'\n"),
    "library": ("from torch.nn import ReLU as R\nX = R\n", "from torch.nn import GELU as R\nX = R\n"),
    "slice": ("X = a[1:]\n", "X = a[:1]\n"),
    "unpacking": ("X = {**a, 'b': 1}\n", "X = {'b': 1, **a}\n"),
    "matched constant": ("match a:\n    case None:\n        b()\n", "match a:\n    case True:\n        b()\n"),
    "a return": ("def f():\n    return\n", "def f():\n    return 0\n"),
    "async": ("async def f(a):\n    for x in a: x()\n", "async def f(a):\n    async for x in a: x()\n"),
    "asynchronous comprehension": (
        "async def f(a):\n    return [x for x in a]\n",
        "async def f(a):\n    return [x async for x in a]\n",
    ),
    "comprehension": ("X = [x for x in a]\n", "X = {x for x in a}\n"),
    "global": ("def f():\n    global X\n    X = 1\n", "def f():\n    X = 1\n"),
    "option's limit": (
        "from bench import option\nX = option(1, 'words', low=0)\n",
        "from bench import option\nX = option(1, 'words', low=1)\n",
    ),
    "words of another's function": (
        "from lib import option\nX = option(1, 'words')\n",
        "from lib import option\nX = option(1, 'other')\n",
    ),
    "conditional definition": (
        "if a:\n    def f(): return 1\nelse:\n    def f(): return 2\n",
        "if a:\n    def f(): return 2\nelse:\n    def f(): return 1\n",
    ),
    "conditional import": (
        "try:\n    from torch import f\nexcept ImportError:\n    f = None\n",
        "try:\n    from numpy import f\nexcept ImportError:\n    f = None\n",
    ),
    "types that choose a function": (f"{DISPATCH}def _(x: int): return 1\n", f"{DISPATCH}def _(x: str): return 1\n"),
    "types of a library's model": (
        "from pydantic import BaseModel\nclass A(BaseModel):\n    x: int = 1\n",
        "from pydantic import BaseModel\nclass A(BaseModel):\n    x: float = 1\n",
    ),
    "not type checking": (
        "from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    X = 1\n",
        "from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    X = 2\n",
    ),
    "an own name TYPE_CHECKING": (
        "TYPE_CHECKING = a\nif TYPE_CHECKING: b()\n",
        "TYPE_CHECKING = a\nif TYPE_CHECKING: c()\n",
    ),
    "lone surrogate": ("X = '\\ud800'\n", "X = '\\ud801'\n"),
    "a huge number": (f"X = 0x1{'0' * 5000}\n", f"X = 0x2{'0' * 5000}\n"),
    "ends of texts": ("X = ['a', 'b']\n", "X = ['a, b']\n"),
}


@pytest.mark.parametrize("what", COUNTS)
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_what_can_change_an_outcome_counts(write: Write, what: str, shared: bool) -> None:
    helper = "def twice(f):\n    return f\ndef thrice(f):\n    return f * 3\n"
    found = []
    for text in COUNTS[what]:
        used = [
            name for name in "fAX" if re.search(rf"(def|class) {name}\b|^{name} =|import {name}\b", text, re.MULTILINE)
        ]
        use = f"from part import {', '.join(used)}\nY = {used}\n".replace("'", "") if used else "import part\n"
        found.append(
            hash_of(write, use if shared else f"import helper\n{text}", helper=helper, part=f"import helper\n{text}")
        )
    assert found[0] != found[1]


SAME = {
    "docstring": ("def f():\n    return 1\n", "def f():\n    'Words.'\n    return 1\n"),
    "pass and dots": ("class A(b): pass\n", "class A(b):\n    'Words.'\n    ...\n"),
    "annotations": ("def f(x, *y): return x\n", "def f(x: 'A', *y: str) -> A: return x\n"),
    "annotated assignment": (
        "def f():\n    x = 1\n    return x\n",
        "def f():\n    x: int\n    x: int = 1\n    return x\n",
    ),
    "annotated constant": ("X = 1\n", "X: int = 1\n"),
    "type of a field": (f"{DATACLASS}    x: int = 1\n", f"{DATACLASS}    x: 'float' = 1\n"),
    "annotated attribute": ("class A:\n    x = 1\n", "class A:\n    x: int = 1\n"),
    "numbers written otherwise": ("X = 1000 + 0.5 + 255\n", "X = 1_000 + .5e0 + 0xff\n"),
    "texts written otherwise": ("X = 'ab' + u'c'\n", 'X = "a" "b" + "c"\n'),
    "brackets": ("X = a + b * c\nif a: b()\n", "X = (a\n     + (b * c))\nif (a):\n    b()\n"),
    "unused imports": ("X = 1\n", "import json, os.path as p\nfrom torch import nn\nX = 1\n"),
    "future": ("X = 1\n", "from __future__ import annotations\nX = 1\n"),
    "type checking": (
        "X = 1\n",
        "from typing import TYPE_CHECKING\nimport typing as t\nif TYPE_CHECKING:\n    import helper\n"
        "if t.TYPE_CHECKING:\n    Y = 2\nelse:\n    X = 1\n",
    ),
    "being a program": ("X = 1\n", "X = 1\nif __name__ == '__main__':\n    print(X)\n"),
    "names used in annotations alone": ("def f(x): return 1\n", "from helper import T\ndef f(x: T): return 1\n"),
    "an alias of a library": ("import torch.nn as n\nX = n.ReLU\n", "import torch.nn as m\nX = m.ReLU\n"),
    "imports in a function": (
        "def f():\n    import a\n    from b import c\n    return a.x(c)\n",
        "def f():\n    from b import c\n    import a\n    return a.x(c)\n",
    ),
    "words of options and methods": (
        "from bench import method, option\n"
        "@method('a', title='T', paper='P', data=D)\ndef f(s): return option(1, 'w')\n",
        "import bench\nfrom bench import method, option\n"
        "@method('a', title='TT', paper='PP', data=D)\ndef f(s): return option(1, doc='other', unit='steps')\n",
    ),
    "where the suite keeps a name": (
        "from bench import option\nX = option(1, 'words')\n",
        "from bench.spec.options import option as o\nX = o(1, 'words')\n",
    ),
}


@pytest.mark.parametrize("what", SAME)
def test_what_cannot_change_an_outcome_does_not_count(write: Write, what: str) -> None:
    first, second = (hash_of(write, text, helper="T = 1\n") for text in SAME[what])
    assert first == second


SHADOWS = [
    "def run(s):\n    def loss(x):\n        return x\n    return loss(s)\n",
    "def run(loss):\n    return loss(1)\n",
    "def run(s):\n    return [loss for loss in s]\n",
    "def run(s):\n    return (lambda loss: loss)(s)\n",
    "def run(s):\n    for loss in s:\n        print(loss)\n",
    "def run(s):\n    with s as loss:\n        return (lambda: loss)()\n",
    "def run(s):\n    match s:\n        case [1, *loss]:\n            return loss\n",
    "def run(s):\n    if loss := s:\n        return loss\n",
    "def run(s):\n    [loss := x for x in s]\n    return loss\n",
    "def run(s):\n    try:\n        s()\n    except OSError as loss:\n        print(loss)\n",
    "def run(s):\n    loss = 1\n    def inner():\n        nonlocal loss\n        loss = 2\n    return loss\n",
]
REACHES = [
    "def run(s):\n    class A:\n        loss = 1\n        def f(self):\n            return loss\n    return A\n",
    "class A:\n    loss = loss\n",
    "def run(s):\n    def inner(loss):\n        return loss\n    return inner(loss)\n",
    "def run(s):\n    return [x for loss in loss(s) for x in loss]\n",
    "def run(s, f=loss):\n    return f\n",
    "class A(loss):\n    x = 1\n",
    "def run(s):\n    global loss\n    return loss(1)\n",
    "def run(s):\n    return f'{s:{loss(2)}}'\n",
    "def run(s):\n    return lambda x=loss: x\n",
    "def run(s):\n    import helper\n    return helper.loss\n",
    "def run(s):\n    try:\n        from helper import loss\n    except OSError:\n        loss = 0\n    return loss\n",
]


@pytest.mark.parametrize(
    ("hidden", "text"), [*((True, text) for text in SHADOWS), *((False, text) for text in REACHES)]
)
def test_a_name_is_followed_where_it_is_the_modules_and_not_where_it_is_hidden(
    write: Write, hidden: bool, text: str
) -> None:
    first, second = (
        hash_of(write, f"from helper import loss\n{text}", helper=HELPER.replace("4", number)) for number in "45"
    )
    assert (first == second) == hidden


EFFECTS = [
    "import torch\ntorch.set_num_threads({})\n",
    "TABLE = {{}}\ndef loss(x): return TABLE\nTABLE['a'] = {}\n",
    "def register(f): return f\n@register\ndef other(x): return {}\n",
    "def put(x): return x\nOLD = put({})\n",
    "for each in range({}): print(each)\n",
    "class A:\n    def __init_subclass__(cls): print(cls)\nclass B(A):\n    x = {}\n",
    "class A:\n    print({})\n",
    "from deep import *\nX = {}\nX += {}\n",
    "try:\n    import fast\nexcept ImportError:\n    FAST = {}\n",
    "def f(x=print({})): return x\n",
    "(lambda x: print(x))({})\n",
    "X = (lambda x: print(x))({})\n",
]


@pytest.mark.parametrize("effect", EFFECTS)
def test_what_a_module_does_on_import_counts_though_nothing_of_it_is_used(write: Write, effect: str) -> None:
    write("Y = 1\n", "deep.py")
    for text in ("import helper\nX = 1\n", "import between\nX = 1\n", "def run(s):\n    import helper\n"):
        first, second = (
            hash_of(write, text, between="from helper import f\n", helper=effect.format(*[number] * 2))
            for number in "12"
        )
        assert first != second


def test_a_name_made_by_several_statements_counts_with_all_of_them(write: Write) -> None:
    text = "from helper import f\nX = f\n"
    twice = "def f(x):\n    return {}\nf = wrap(f, {})\ndef setup():\n    global f\n    f = {}\n"
    found = {hash_of(write, text, helper=twice.format(*each)) for each in [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)]}
    assert len(found) == 4


def test_an_import_that_is_replaced_later_counts(write: Write) -> None:
    text = "from helper import loss\ndef loss2(x): return loss(x)\nloss = wrap(loss)\n"
    first, second = (hash_of(write, text, helper=HELPER.replace("4", number)) for number in "45")
    assert first != second
    assert hash_of(write, text.replace("loss = wrap(loss)\n", ""), helper=HELPER) != first


def test_all_of_a_module_counts_where_it_is_starred(write: Write) -> None:
    text = "from helper import *\nX = f(1)\n"
    both = "def f(x): return 1\ndef g(x): return 2\n"
    assert hash_of(write, text, helper=f"__all__ = ['f']\n{both}") != hash_of(
        write, text, helper=f"__all__ = []\n{both}"
    )
    two = "from {} import *\nfrom {} import *\nX = f(1)\n"
    files = {"a": "def f(x): return 1\n", "b": "def f(x): return 2\n"}
    assert hash_of(write, two.format("a", "b"), **files) != hash_of(write, two.format("b", "a"), **files)


@pytest.mark.parametrize(
    "content",
    [
        b"def broken(:\n",
        b"x = '\xff'\n",
        b"x = 1\x00\n",
        b"x = " + b"(" * 5000 + b")" * 5000,
        b"x = " + b"-" * 5000 + b"1",
        b"x = " + b" + ".join([b"1"] * 3000),
        b"if a: b\n" + b"elif a: b\n" * 500,
        b"x = " + b"[" * 150 + b"]" * 150,
    ],
    ids=["syntax", "not UTF-8", "zero byte", "brackets", "signs", "sum", "branches", "nested"],
)
def test_what_cannot_be_read_counts_by_its_bytes(tmp_path: Path, write: Write, content: bytes) -> None:
    for text in ("import helper\nX = helper.f\n", "from helper import f\nX = f\n", "import helper\nX = 1\n", None):
        files = [tmp_path / "helper.py"]
        files += [write(text, "mine.py")] if text else []
        found = []
        for addition in (b"", b"", b"# words\n"):
            files[0].write_bytes(content + b"\n" + addition)
            found.append(code_hash(files[-1]))
        assert found[0] == found[1] != found[2]


def test_a_coding_line_is_obeyed(tmp_path: Path) -> None:
    latin, plain = tmp_path / "latin.py", tmp_path / "plain.py"
    latin.write_bytes("# coding: latin-1\nX = 'ä'\n".encode("latin-1"))
    plain.write_bytes("X = 'ä'\n".encode())
    assert code_hash(latin) == code_hash(plain)


def test_a_strange_escape_gives_no_warning_and_counts_as_code(write: Write) -> None:
    assert hash_of(write, "X = '\\d'\n") == hash_of(write, "X = '\\d'  # words\n")


def test_code_below_the_limit_of_nesting_is_read_even_from_deep_within_a_program(write: Write) -> None:
    text = f"X = {'f(' * 90}{')' * 90}\n" + "".join(f"{' ' * n}if a:\n" for n in range(90)) + " " * 90 + "b()\n"

    def deep(levels: int) -> str:
        return deep(levels - 1) if levels else hash_of(write, text)

    assert deep(0) == deep(300) == hash_of(write, text + "# words\n")


def test_a_file_that_changed_is_read_again(write: Write) -> None:
    """Even one of the same size, within a tick of the file system's clock."""
    assert len({hash_of(write, f"X = {number}\n") for number in range(10)}) == 10


def test_relative_imports_and_packages(write: Write) -> None:
    files = {
        "__init__.py": "",
        "losses.py": "def f(x): return 1\n",
        "methods/__init__.py": "",
        "methods/near.py": "Y = 1\n",
        "methods/mine.py": "from ..losses import f\nfrom . import near\nX = f(near.Y)\n",
    }
    for name, text in files.items():
        write(text, f"plugin/{name}")
    file = write("", "plugin.txt").with_name("plugin") / "methods" / "mine.py"
    first = code_hash(file)
    for name, text in {
        "losses.py": "def f(x): return 2\n",
        "methods/near.py": "Y = 2\n",
        "__init__.py": "f()\n",
    }.items():
        write(text, f"plugin/{name}")
        assert code_hash(file) != first, name
        write(files[name], f"plugin/{name}")
    assert code_hash(file) == first


def test_a_file_in_the_folder_of_the_libraries_does_not_take_them_for_its_own(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import library_of_mine\nX = library_of_mine.f(1)\n"
    monkeypatch.setattr(code_identity, "_libraries", lambda: frozenset([tmp_path.resolve()]))
    first = hash_of(write, text, library_of_mine="def f(x): return 1\n")
    assert hash_of(write, text, library_of_mine="def f(x): return 2\n") == first


# --- versions of the rule, and of Python


def test_each_rule_has_its_own_hash_and_the_latest_is_used(write: Write) -> None:
    file = write("X = 1\n", "mine.py")
    assert max(RULES) == RULE
    assert RULES[1](file) == source_hash(file) != RULES[RULE](file) == code_hash(file)


TORTURE = r'''
import math
from functools import partial
async def f(a, /, b: int = 1, *c, d, e=2, **g):
    async with a as (b, c), d:
        async for x in b:
            yield x
    await d
    return
def g(x, y=f"{1!r:>{2}}{'a' 'b'}", *, z=None):
    "Words."
    s = f"a{{b}}{x=}{x = !s:^{y}.{z}}" "c" f'{x:%Y-%m-%d}' f"{x:}" f""
    t = f"""
    {x
      + 1}"""
    u = rf"\d{x}\\" + b"".decode() + f"\N{EM DASH}{x}\n"
    l = [a for a in x if a] and {k: v for k, v in y for k in v if k if v} or {*x, 1} or (i for i in z)
    match x:
        case {"a": [1, *rest], **others} if rest: pass
        case A(b, c=1.5) | None | -1 | "x": ...
        case [str() as q, _]: return q
        case a.b: del x[1:2, ..., ::3], y.z
        case _: raise E from None
    try: assert x, "m"
    except* E as e: w = 1
    while (n := x) < y <= z is not None not in s:
        if a if b else c: break
        elif not a: continue
    else: h = lambda *a, k=1, **b: (yield)
    x @= y; x **= 2; x //= 3 >> 1; a, *b = c; x = y = 1e400, -0.0, 1j, 10**9, 0x7f, b"\x00", "\ud800", True, ...
    return x[0](*a, k=1, **b)
@partial(f, 1)
class A(B, metaclass=M, **k):
    x: int
    y: "ClassVar[int]" = 1
    def __init__(self): super().__init__(); self.x: int = 1
'''
HASHES = """
import json, sys
from pathlib import Path
from bench.utils.code_identity import code_hash
print(json.dumps([code_hash(Path(file)) for file in sys.argv[1:]]))
"""


def interpreters() -> list[Path]:
    """The versions of Python that can be found here, one of each."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = []
    for version in ("3.11", "3.12", "3.13"):
        places = [*sorted(pyenv.glob(f"{version}.*/bin/python")), shutil.which(f"python{version}")]
        found += [Path(place) for place in places if place][:1]
    return found


@pytest.mark.slow
@pytest.mark.skipif(len(interpreters()) < 2, reason="fewer than two versions of Python are installed")
def test_every_version_of_python_gives_the_same_hashes(write: Write) -> None:
    files = [write(TORTURE, "torture.py"), *(BUILT_IN / name for name in FILES)]
    assert ast.parse(TORTURE)
    here = [code_hash(file) for file in files]
    for python in interpreters():
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [python, "-c", HASHES, *files], env=environment, capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == here, python
