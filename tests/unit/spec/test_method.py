"""What ``@method`` accepts, what it makes of it, and what it refuses."""

from __future__ import annotations

import types
from dataclasses import FrozenInstanceError, dataclass
from typing import TYPE_CHECKING, Any

import pytest

from bench.errors import UserError
from bench.spec.method import Access, Data, Method, NoOptions, as_plain, declared_in, method
from bench.spec.options import option

if TYPE_CHECKING:
    from bench.harness.session import Session


@dataclass(frozen=True)
class Options:
    batch: int = option(8, "images per step", low=1)
    scales: tuple[float, ...] = option((1.0,), "scales")


FACTS: dict[str, Any] = {"title": "M", "paper": "P", "data": Data.NONE, "access": Access.LOGITS}


def declare(function: Any, name: Any = "m", **facts: Any) -> Method:
    declared: Method = method(name, **FACTS | facts)(function).declared
    return declared


def run(s: Session, o: Options) -> None:  # Session is known to type checkers alone, as in many method files
    """One line."""


def test_a_declared_function_stays_a_function_and_carries_its_method() -> None:
    declared = declare(run, presets={"cifar10": {"batch": 1024}}, quick={"batch": 2})
    assert run.declared is declared  # type: ignore[attr-defined]
    assert declared.run is run
    assert (declared.name, declared.title, declared.data, declared.access) == ("m", "M", Data.NONE, Access.LOGITS)
    assert declared.options is Options
    assert [spec.name for spec in declared.specs] == ["batch", "scales"]
    assert declared.file.name == "test_method.py"


def test_options_are_made_from_a_studys_values() -> None:
    made = declare(run).make_options({"scales": [1, 2]})
    assert made == Options(batch=8, scales=(1.0, 2.0))
    assert as_plain(made) == {"batch": 8, "scales": (1.0, 2.0)}
    with pytest.raises(FrozenInstanceError):
        made.batch = 3
    with pytest.raises(UserError, match="method 'm' has no option 'bacth'; did you mean 'batch'"):
        declare(run).make_options({"bacth": 3})


def test_a_method_may_do_without_options() -> None:
    seen = []
    declared = declare(lambda s: seen.append(s))
    assert declared.options is NoOptions
    declared.run("session", declared.make_options({}))
    assert seen == ["session"]
    assert declared.specs == ()
    assert as_plain(declared.make_options({})) == {}


@pytest.mark.parametrize("name", ["", "My", "my-method", "1st", "my method", "méthode", "m.py", None, 3])
def test_names_are_lower_case_words(name: Any) -> None:
    with pytest.raises(UserError, match="a method's name consists of lower-case letters"):
        declare(run, name)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"data": "none"}, "data must be one of Data.NONE, Data.POOL, Data.TRAIN, not 'none'"),
        ({"data": Data.POOL}, "pool must be one of"),
        ({"pool": "related"}, "pool"),
        ({"data": Data.POOL, "pool": "relatd"}, "did you mean 'related'"),
        ({"access": 2}, "access must be one of Access.NONE, Access.LABELS"),
        ({"access": Data.NONE}, "access must be one of"),
        ({"title": None}, "title must be text, not None"),
        ({"paper": ("a",)}, "paper must be text"),
        ({"presets": {"batch": 3}}, "presets must be options by data set or task"),
        ({"presets": [3]}, "presets must be options by data set or task"),
        ({"presets": {"cifar10": {"bacht": 3}}}, "(preset 'cifar10') has no option 'bacht'; did you mean 'batch'?"),
        ({"presets": {"cifar10": {"batch": 0}}}, "option 'batch' must be at least 1"),
        ({"anchors": 1}, "anchors must be 0 or at least 2, not 1"),
        ({"anchors": True}, "anchors must be 0 or at least 2, not True"),
        ({"anchors": 4, "access": Access.NONE}, "anchors need Access.LABELS or more, not Access.NONE"),
        ({"layers": 1}, "layers must be True or False, not 1"),
        ({"layers": True, "access": Access.LOGITS}, "layers need Access.FEATURES or more, not Access.LOGITS"),
        ({"quick": [3]}, "quick must be {option: value}"),
        ({"quick": {"batch": 0}}, "option 'batch' must be at least 1"),
        ({"quick": {"lr": 0}}, "(quick) has no option 'lr'"),
    ],
)
def test_wrong_facts_are_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        declare(run, **facts)
    assert message in str(error.value)


def test_functions_of_another_shape_are_refused() -> None:
    def none() -> None: ...
    def three(s: object, o: Options, more: int) -> None: ...
    def keywords(s: object, *, o: Options) -> None: ...
    def many(s: object, *o: Options) -> None: ...

    for function in (none, three, keywords, many):
        with pytest.raises(UserError, match=f"{function.__name__!r} must take"):
            declare(function)

    def bare(s: object, o) -> None: ...  # type: ignore[no-untyped-def]
    def union(s: object, o: Options | None) -> None: ...

    for function in (bare, union):
        with pytest.raises(UserError, match="annotate"):
            declare(function)

    def number(s: object, o: int) -> None: ...

    with pytest.raises(UserError, match="int must be a frozen dataclass"):
        declare(number)

    def positional(s: object, o: Options, /) -> None: ...

    assert declare(positional).options is Options


def test_a_module_declares_its_own_methods_once() -> None:
    module = types.ModuleType("mine")

    def made_in(name: str) -> Any:
        def function(s: object) -> None: ...

        function.__module__ = name
        return method("m", **FACTS)(function)

    own = made_in("mine")
    vars(module).update(own=own, alias=own, imported=made_in("theirs"), wild=WildObject(), kind=WildObject)
    assert declared_in(module) == [own.declared]


class WildObject:
    """Like a library's lazy object: it has whatever attribute it is asked for."""

    def __getattr__(self, name: str) -> str:
        return name

    def __call__(self) -> None: ...


def test_access_levels_are_ordered_and_named() -> None:
    assert [level.label for level in sorted(Access)] == [
        "none", "labels", "logits", "gradients", "features", "batch-norm", "parameters",
    ]  # fmt: skip
