"""Things that are easily taken for a tensor or a network: using them so is an error that says what to write."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.errors import MethodError, nearest

_OPERATORS = (
    *("add", "sub", "mul", "matmul", "truediv", "pow", "radd", "rsub", "rmul", "rmatmul", "rtruediv", "rpow"),
    *("neg", "abs", "lt", "le", "gt", "ge", "getitem", "iter", "len", "float", "int", "array"),
)


class NoTensor:
    """Base of what holds tensors and is none: functions, methods and operators of tensors name the attribute to use."""

    _use: ClassVar[str] = ".logits, or another part that was asked for"

    @classmethod
    def __torch_function__(cls, function: Callable[..., Any], *_: Any) -> NoReturn:
        raise TypeError(f"{_name(function)}: {cls.__name__} {_is_none(cls)}")

    if not TYPE_CHECKING:  # for type checkers it has what it has

        def __getattr__(self, name: str) -> Any:
            own = _own(self, name)
            help = f"; it {_is_none(type(self))}" if hasattr(Tensor, name) else nearest(name, own)
            raise AttributeError(f"{type(self).__name__} has no {name!r}{help}")


def _refusing(operator: str) -> Callable[..., NoReturn]:
    def refuse(self: NoTensor, *_: Any) -> NoReturn:
        raise TypeError(f"{operator}: {type(self).__name__} {_is_none(type(self))}")

    return refuse


for _each in _OPERATORS:
    setattr(NoTensor, f"__{_each}__", _refusing(f"__{_each}__"))


class NoModule:
    """Base of what is called like a network and is none: what every script does with one says what holds here."""

    _answer: ClassVar[type]  # what a call gives

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            own = _own(self, name)
            if hasattr(nn.Module, name):
                help = (
                    "; it is no module, but frozen, in evaluation mode and on s.device already: ask it with "
                    "s.teacher(images), train a copy of it with s.teacher.copy()"
                )
            elif not name.startswith("_") and hasattr(self._answer, name):
                help = f"; ask about images: s.teacher(images).{name}"
            else:
                help = nearest(name, own)
            raise AttributeError(f"s.teacher has no {name!r}{help}")


class Named:
    """Base of what has a few attributes only: an unknown one is answered with the nearest, or with all."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            own = _own(self, name)
            close = difflib.get_close_matches(name, own, n=1, cutoff=0.65)
            help = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(own)}"
            raise AttributeError(f"{type(self).__name__} has no {name!r}{help}")


def must_be_tensor(value: Any, what: str) -> None:
    """Raise MethodError unless a value is a tensor."""
    if not isinstance(value, Tensor):
        hint = f"; it {_is_none(type(value))}" if isinstance(value, NoTensor) else ""
        raise MethodError(f"{what} takes a tensor, not {type(value).__name__}{hint}")


def must_be_optimizer(value: Any, what: str) -> None:
    """Raise MethodError unless a value is an optimiser, or looks like one."""
    if not hasattr(value, "param_groups"):
        raise MethodError(f"{what} takes an optimiser first, not {type(value).__name__}")


def _is_none(kind: type[NoTensor]) -> str:
    return f"is no tensor: use {kind._use}"


def _own(thing: Any, name: str) -> list[str]:
    """The public attributes of a thing; where ``name`` is one and raises an error of its own, that error."""
    if hasattr(type(thing), name):
        object.__getattribute__(thing, name)
    return sorted({each for each in (*dir(type(thing)), *vars(thing)) if not each.startswith("_")})


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "this function")
    if getattr(functional, name, None) is function:  # one of the suite's stands there now and then; torch knows its own
        return f"{functional.__name__}.{name}"
    return str(torch.overrides.resolve_name(function) or name)
