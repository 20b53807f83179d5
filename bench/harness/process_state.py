"""What a method may change of the process: found when it is scored and when it ends, and undone."""

from __future__ import annotations

import contextlib
import operator
import os
import signal
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim import optimizer as _optimizer
from torch.utils import _python_dispatch

from bench.utils.stopping import SIGNALS


def _set_autocast(device: str, was: tuple[bool, torch.dtype]) -> None:
    on, dtype = was
    torch.set_autocast_enabled(device, on)
    torch.set_autocast_dtype(device, dtype)
    torch.clear_autocast_cache()


def _nesting() -> int:
    """How many autocasts torch takes to be open: while there is one, it keeps what it has cast, also stale weights."""
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def _set_nesting(wanted: int) -> None:
    while _nesting() > wanted:
        torch.autocast_decrement_nesting()
    while _nesting() < wanted:
        torch.autocast_increment_nesting()


_SWITCHES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "gradients": (torch.is_grad_enabled, torch._C._set_grad_enabled),
    "autograd's threads": (torch.autograd.is_multithreading_enabled, torch._C._set_multithreading_enabled),
    "anomaly detection": (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    "deterministic algorithms": (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    "the precision of products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "mkldnn": (
        lambda: torch._C._get_mkldnn_enabled(),
        lambda value: torch._C._set_mkldnn_enabled(value),
    ),
    "cudnn": (
        lambda: (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        lambda value: torch.backends.cudnn.set_flags(*value),
    ),
    "open autocasts": (_nesting, _set_nesting),
    "autocast": (
        lambda: tuple((torch.is_autocast_enabled(each), torch.get_autocast_dtype(each)) for each in ("cpu", "cuda")),
        lambda value: any(map(_set_autocast, ("cpu", "cuda"), value)),
    ),
    "autocast's cache": (torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    "NumPy's error state": (np.geterr, lambda value: np.seterr(**value)),
    "the recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "the working directory": (os.getcwd, os.chdir),
}

# modules and classes whose functions are compared: what the harness and its numbers rest on
_WATCHED = ("torch", "torch.functional", "torch._tensor", "torch.random", "numpy", "builtins", "os", "posix", "io")
_WATCHED_BELOW = ("torch.nn.", "torch.optim.", "torch.autograd.", "torch.utils.data.", "bench.", "safetensors.")
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType, type, staticmethod, classmethod)
_CODE += (property, types.WrapperDescriptorType, types.GetSetDescriptorType)  # type: ignore[assignment]

_PASSED = frozenset(
    {
        "torch.nn.functional",
        "torch.nn.modules.module.Module",
        "torch.nn.modules.conv.Conv2d",
        "torch.nn.modules.linear.Linear",
        "torch.nn.modules.batchnorm._BatchNorm",
        "torch._tensor.Tensor",
    }
)

# where a method may leave something that works on the next trial
_SHARED: tuple[tuple[str, Any], ...] = (
    *(
        (f"torch's {name.strip('_').replace('_', ' ')}", value)
        for name, value in vars(nn.modules.module).items()
        if name.startswith("_global_") and isinstance(value, dict)
    ),
    ("torch's hooks on optimisers", _optimizer._global_optimizer_pre_hooks),
    ("torch's hooks on optimisers", _optimizer._global_optimizer_post_hooks),
)


class ProcessState:
    """The state of the process as it was when this was made."""

    def __init__(self) -> None:
        _wrap_steps()
        self._switches = {name: read() for name, (read, _) in _SWITCHES.items()}
        self._shared = [(name, owner, dict(owner)) for name, owner in _SHARED]
        self._code = [(name, owner, _code_of(owner)) for name, owner in _owners()]
        self._device = torch.get_default_device()
        self._modes = torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()
        self._environment = dict(os.environ)
        self._path = list(sys.path)
        self._warnings = list(warnings.filters)
        self._threads = set(threading.enumerate())
        self._signals = {each: signal.getsignal(each) for each in (*SIGNALS, signal.SIGALRM)}
        self._streams = sys.stdout, sys.stderr
        self._quick = [(name, owner) for name, owner, _ in self._code if name in _PASSED]
        self._ids: list[list[int]] = [[] for _ in self._quick]

    def replaced(self) -> list[str]:
        """Functions, classes and methods of torch, NumPy, Python or the suite that are others now."""
        found = []
        for name, owner, known in self._code:
            values = vars(owner)
            if not all(map(operator.is_, map(values.get, known), known.values())):
                found += [f"{name}.{key}" for key, value in known.items() if values.get(key) is not value]
            if isinstance(owner, type) and name.startswith("torch"):  # a new one hides an inherited one
                found += [f"{name}.{key}" for key in _code_of(owner).keys() - known.keys()]
        return found

    def looks_untouched(self) -> bool:
        """Whether the functions that a network passes through are torch's own; quick enough for every question."""
        now = [list(map(id, vars(owner).values())) for _, owner in self._quick]
        if now == self._ids:
            return True
        names = tuple(f"{name}." for name, _ in self._quick)
        if any(each.startswith(names) for each in self.replaced()):
            return False
        self._ids = now
        return True

    @contextlib.contextmanager
    def own_switches(self) -> Iterator[None]:
        """Inside, torch's switches are as they were."""
        now = {name: read() for name, (read, _) in _SWITCHES.items()}
        changed = [name for name, value in now.items() if value != self._switches[name]]
        for name in changed:
            _SWITCHES[name][1](self._switches[name])
        try:
            yield
        finally:
            for name in changed:
                _SWITCHES[name][1](now[name])

    def undo(self) -> tuple[list[str], list[str]]:
        """Put everything back: what was changed, and what of it lasts, so that the process is not to be used again."""
        changed, lasting = [], []
        for name, owner, known in self._code:
            values = vars(owner)
            if isinstance(owner, type) and name.startswith("torch"):
                for key in _code_of(owner).keys() - known.keys():
                    changed.append(f"{name}.{key}")
                    delattr(owner, key)
            for key, value in known.items():
                if values.get(key) is not value:
                    changed.append(f"{name}.{key}")
                    with contextlib.suppress(Exception):
                        setattr(owner, key, value)
                    if values.get(key) is not value:
                        lasting.append(f"{name}.{key}")
        for name, shared, known in self._shared:
            if list(shared.items()) != list(known.items()):
                changed.append(name)
                shared.clear()
                shared.update(known)
        functions, dispatches = self._modes
        while torch._C._len_torch_function_stack() > functions:
            changed.append("a function mode")
            torch._C._pop_torch_function_stack()
        while torch._C._len_torch_dispatch_stack() > dispatches:
            changed.append("a dispatch mode")
            _python_dispatch._pop_mode()
        while torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
            changed.append("hooks on saved tensors")
            torch._C._autograd._pop_saved_tensors_default_hooks()
        if torch.get_default_device() != self._device:
            changed.append("the default device")
            torch.set_default_device(None if self._device.type == "cpu" else self._device)
        for name, (read, write) in _SWITCHES.items():
            try:
                differs = read() != self._switches[name]
            except OSError:  # the working directory is gone
                differs = True
            if differs:
                changed.append(name)
                write(self._switches[name])
        if torch.is_inference_mode_enabled():
            lasting.append("inference mode")
        if dict(os.environ) != self._environment:
            changed.append("environment variables")
            os.environ.clear()
            os.environ.update(self._environment)
        for number, handler in self._signals.items():
            if threading.current_thread() is threading.main_thread() and signal.getsignal(number) is not handler:
                changed.append(f"the handler of {number.name}")
                signal.signal(number, handler)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if list(sys.path) != self._path:
            changed.append("sys.path")
            sys.path[:] = self._path
        if warnings.filters != self._warnings:
            warnings.filters[:] = self._warnings  # type: ignore[index]
            warnings._filters_mutated_lock_held() if hasattr(warnings, "_filters_mutated_lock_held") else None
        if (sys.stdout, sys.stderr) != self._streams:
            changed.append("sys.stdout or sys.stderr")
            sys.stdout, sys.stderr = self._streams
        left = [thread.name for thread in threading.enumerate() if thread not in self._threads]
        if left:
            lasting.append(f"{len(left)} threads")
        return changed + lasting, lasting


def _owners() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, module in list(sys.modules.items()):
        if module is None or not (name in _WATCHED or name.startswith(_WATCHED_BELOW)):
            continue
        found.append((name, module))
        found += [
            (f"{name}.{key}", value)
            for key, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == name
        ]
    return found


def _wrap_steps() -> None:
    """What torch does to a class of optimisers when its first one is made."""
    for kind in vars(torch.optim).values():
        if isinstance(kind, type) and issubclass(kind, Optimizer) and not hasattr(kind.step, "hooked"):
            kind.step = Optimizer.profile_hook_step(kind.step)  # type: ignore[method-assign,assignment]
            kind.step.hooked = True  # type: ignore[attr-defined]


def _code_of(owner: Any) -> dict[str, Any]:
    code = {key: value for key, value in vars(owner).items() if isinstance(value, _CODE)}
    if owner is nn.Module:
        del code["__call__"]  # the counter's place, which it watches itself
    if owner is torch:
        del code["Storage"]  # follows the default dtype
    return code
