"""What a method file declares: ``@method`` and its two scales, the data it needs and the teacher access it uses."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

from bench.errors import UserError, nearest
from bench.spec.options import OptionSpec, Value, check_spec, check_values, specs_of


class Data(Enum):
    """The real images that a method needs.

    Attributes:
        NONE: none; the method is data-free in the strict sense.
        POOL: other real images, without labels.
        TRAIN: the task's own training images and labels.
    """

    NONE = "none"
    POOL = "pool"
    TRAIN = "train"


POOLS = ("related", "unrelated", "wild")  # the roles of a task's pools


class Access(IntEnum):
    """How far into the teacher a method looks. Each level includes those before it.

    Attributes:
        NONE: the teacher is never asked.
        LABELS: the predicted classes.
        LOGITS: the logits, without a gradient.
        GRADIENTS: the logits, with the gradient to the images.
        FEATURES: maps and features inside the network, such as the input of the head.
        BATCH_NORM: statistics at the batch-norm layers.
        PARAMETERS: the weights themselves.
    """

    NONE = 0
    LABELS = 1
    LOGITS = 2
    GRADIENTS = 3
    FEATURES = 4
    BATCH_NORM = 5
    PARAMETERS = 6

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True)
class Method:
    """One distillation algorithm, ready to run."""

    name: str
    title: str
    paper: str
    data: Data
    access: Access
    run: Callable[[Any, Any], None]
    options: type
    presets: Mapping[str, Mapping[str, Value]]
    quick: Mapping[str, Value]
    segmentation: bool
    batch_norm: bool | str
    pool: str
    anchors: int
    layers: bool
    file: Path

    @property
    def specs(self) -> tuple[OptionSpec, ...]:
        return specs_of(self.options)

    def make_options(self, values: Mapping[str, Any]) -> Any:
        """The options dataclass with ``values`` instead of the defaults."""
        return self.options(**check_values(self.specs, values, f"method {self.name!r}"))


Runner = typing.TypeVar("Runner", bound=Callable[..., None])


def method(
    name: str,
    *,
    title: str,
    paper: str,
    data: Data,
    access: Access,
    presets: Mapping[str, Mapping[str, Value]] | None = None,
    quick: Mapping[str, Value] | None = None,
    segmentation: bool = False,
    batch_norm: bool | str = False,
    pool: str = "",
    anchors: int = 0,
    layers: bool = False,
) -> Callable[[Runner], Runner]:
    """Declare a function ``f(session, options)`` to be a distillation method.

    The second argument is annotated with the method's options, a frozen dataclass of ``option`` fields. A method
    without options is a function ``f(session)``.

    Args:
        name: the name in studies; lower-case letters, digits and underscores.
        title: the name in tables.
        paper: authors, title, venue and year.
        data: the real images that it needs.
        access: how far into the teacher it looks. The harness denies more than that.
        presets: the paper's settings for data sets or tasks other than those of the defaults:
            ``{"cifar10": {"batch": 1024}}``. Those of a task go before those of its data set.
        quick: settings with which forty steps pass through every part of the method, for ``dfkd check``.
        segmentation: it also takes networks that answer for every pixel, with logits (N, classes, H, W). Without it
            trials of such tasks are ``unsupported``.
        batch_norm: True where it always needs the statistics of the teacher's batch-norm layers; the name of an option
            where it needs them if that option is not 0. Where the teacher has no such layer its trials are
            ``unsupported``.
        pool: with ``Data.POOL``, the task's pool to draw from: "related" (of the same kind as the training images),
            "unrelated", or "wild" (images of all kinds, as a web search finds them). A study may name others.
        anchors: the number of evenly spaced points of the teacher's training at which it asks the teacher, at least 2;
            the last is the trained teacher. Where the teacher's training is not known its trials are ``unsupported``.
        layers: it needs the maps of both networks' layers. Where a network names none its trials are ``unsupported``.

    Returns:
        A decorator that leaves the function as it is.

    Raises:
        UserError: the declaration is not usable; the message says what is allowed.
    """

    def declare(function: Runner) -> Runner:
        options = _options_type(function)
        specs = specs_of(options)
        check_declared(
            name,
            title,
            paper,
            data,
            access,
            specs,
            presets or {},
            quick or {},
            segmentation,
            batch_norm,
            pool,
            anchors,
            layers,
        )
        declared = Method(
            name=name,
            title=title,
            paper=paper,
            data=data,
            access=access,
            run=function if options is not NoOptions else _without_options(function),
            options=options,
            presets=presets or {},
            quick=quick or {},
            segmentation=segmentation,
            batch_norm=batch_norm,
            pool=pool,
            anchors=anchors,
            layers=layers,
            file=Path(inspect.getsourcefile(function) or "").resolve(),
        )
        function.declared = declared  # type: ignore[attr-defined]
        return function

    return declare


def check_declared(
    name: Any,
    title: Any,
    paper: Any,
    data: Any,
    access: Any,
    specs: tuple[OptionSpec, ...],
    presets: Any,
    quick: Any,
    segmentation: Any,
    batch_norm: Any = False,
    pool: Any = "",
    anchors: Any = 0,
    layers: Any = False,
) -> None:
    """Check everything that a method declares; a method file may contain anything."""
    if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(f"a method's name consists of lower-case letters, digits and underscores, not {name!r}")
    for key, text in (("title", title), ("paper", paper)):
        if not isinstance(text, str):
            raise UserError(f"method {name!r}: {key} must be text, not {text!r}")
    for key, scale, value in (("data", Data, data), ("access", Access, access)):
        if not isinstance(value, scale):
            members = ", ".join(f"{scale.__name__}.{member.name}" for member in scale)
            raise UserError(f"method {name!r}: {key} must be one of {members}, not {value!r}")
    for spec in specs:
        check_spec(spec, specs)
    if not isinstance(presets, Mapping) or not all(isinstance(values, Mapping) for values in presets.values()):
        raise UserError(f"method {name!r}: presets must be options by data set or task, {{name: {{option: value}}}}")
    for of, values in presets.items():
        check_values(specs, values, f"method {name!r} (preset {of!r})")
    if not isinstance(segmentation, bool):
        raise UserError(f"method {name!r}: segmentation must be True or False, not {segmentation!r}")
    names = [spec.name for spec in specs]
    if not isinstance(batch_norm, bool | str) or (isinstance(batch_norm, str) and batch_norm not in names):
        hint = nearest(batch_norm, names) if isinstance(batch_norm, str) else ""
        raise UserError(
            f"method {name!r}: batch_norm must be True, False or the name of an option, not {batch_norm!r}{hint}"
        )
    if batch_norm and access < Access.BATCH_NORM:
        raise UserError(f"method {name!r}: batch_norm needs Access.BATCH_NORM, not Access.{access.name}")
    if data is Data.POOL and pool not in POOLS:
        hint = nearest(pool, POOLS) if isinstance(pool, str) else ""
        hint = hint if "did you mean" in hint else ""
        raise UserError(f"method {name!r}: with Data.POOL, pool must be one of {', '.join(POOLS)}, not {pool!r}{hint}")
    if data is not Data.POOL and pool != "":
        raise UserError(f"method {name!r}: pool={pool!r} needs Data.POOL, not Data.{data.name}")
    if isinstance(anchors, bool) or not isinstance(anchors, int) or anchors < 0 or anchors == 1:
        raise UserError(f"method {name!r}: anchors must be 0 or at least 2, not {anchors!r}")
    if anchors and access < Access.LABELS:
        raise UserError(f"method {name!r}: anchors need Access.LABELS or more, not Access.{access.name}")
    if not isinstance(layers, bool):
        raise UserError(f"method {name!r}: layers must be True or False, not {layers!r}")
    if layers and access < Access.FEATURES:
        raise UserError(f"method {name!r}: layers need Access.FEATURES or more, not Access.{access.name}")
    if not isinstance(quick, Mapping):
        raise UserError(f"method {name!r}: quick must be {{option: value}}, not {quick!r}")
    check_values(specs, quick, f"method {name!r} (quick)")


def _options_type(function: Callable[..., None]) -> type:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise UserError(f"method function {function.__name__!r} must be a plain function, without async and yield")
    parameters = list(inspect.signature(function).parameters.values())
    positional = all(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters)
    if len(parameters) not in (1, 2) or not positional:
        raise UserError(f"method function {function.__name__!r} must take (session) or (session, options)")
    if len(parameters) == 1:
        return NoOptions
    options = parameters[1].annotation
    if isinstance(options, str):  # this one alone: the Session may be imported for type checkers only
        options = eval(options, inspect.unwrap(function).__globals__)
    if not isinstance(options, type) or options is inspect.Parameter.empty:
        raise UserError(f"annotate the second parameter of {function.__name__!r} with its options dataclass")
    return options


def _without_options(function: Callable[..., None]) -> Callable[[Any, Any], None]:
    @functools.wraps(function)
    def run(session: Any, _: Any) -> None:
        function(session)

    return run


@dataclass(frozen=True)
class NoOptions:
    """For a method without hyper-parameters."""


def declared_in(module: Any) -> list[Method]:
    """The methods that a module declares itself (those it merely imports are left out)."""
    found = {
        id(value): value.declared  # once, though it may have two names there
        for value in vars(module).values()
        if isinstance(getattr(value, "declared", None), Method) and value.__module__ == module.__name__
    }
    return list(found.values())


def as_plain(options: Any) -> dict[str, Value]:
    """An options dataclass as a plain dictionary, for identities and records."""
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
