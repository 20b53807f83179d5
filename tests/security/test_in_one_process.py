"""In one process: what a method may not see it does not see, and nothing that it changes reaches the next trial.

Python cannot hold code that sets out to break it; these are the ways that honest-looking code takes.
"""

from __future__ import annotations

import gc
import io
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import IMAGE, lenet, trial
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from bench import Access, Session
from bench.errors import AccessDenied, DataLeak, UserError
from bench.execution.run_trial import Setting, run_trial
from bench.harness.process_state import ProcessState
from bench.harness.sealed import sealed
from bench.records import Record, open_results, read_curve
from bench.spec.method_registry import read_cards
from bench.spec.study import SUITE
from bench.spec.task import get_task
from bench.spec.teacher_key import teacher_key
from bench.spec.trial import Trial
from bench.utils import data_guard


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *IMAGE.shape, generator=torch.Generator().manual_seed(seed))


# ---- whole trials ---------------------------------------------------------------------------------------------------

METHOD = """
import os, threading, functools
from dataclasses import dataclass
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from sklearn.datasets import load_digits
from bench import Access, Data, Session, method, option
AT_IMPORT


@dataclass(frozen=True)
class Options:
    batch: int = option(32, "images", low=1)

    def __post_init__(self):
        AT_OPTIONS


@method("mine", title="Mine", paper="none", data=Data.NONE, access=Access.LOGITS)
def mine(s: Session, o: Options) -> None:
    BEFORE
    opt = s.keep("opt", SGD(s.student.parameters(), 0.05))
    for _ in s.steps("train"):
        s.distill(opt, s.noise(32, *s.task.image.shape))
        STEP
    AFTER
"""


def play(
    folder: Path,
    *,
    task: str = "digits/lenet5-half",
    setting: dict[str, Any] | None = None,
    steps: int = 3,
    **code: str,
) -> Record:
    """A trial of the method above with code in its places, by their names in lower case."""
    text = METHOD
    for place in ("AT_IMPORT", "AT_OPTIONS", "BEFORE", "STEP", "AFTER"):
        lines = code.get(place.lower(), "" if place == "AT_IMPORT" else "pass").split("\n")
        indent = {"AT_IMPORT": 0, "AT_OPTIONS": 8, "BEFORE": 4, "STEP": 8, "AFTER": 4}[place]
        text = text.replace(place, ("\n" + " " * indent).join(lines))
    (folder / "mine.py").write_text(text, encoding="utf-8")
    of = get_task(task)
    chosen = Trial(
        suite=SUITE,
        task=of.name,
        task_sha=of.sha,
        teacher=teacher_key(of),
        method="mine",
        method_sha=read_cards(folder / "mine.py")[0].sha,
        options={"batch": 32},
        budget={"steps": steps},
        seed=0,
        points=steps,
        selection=("last",),
        study="test",
        method_files=(folder / "mine.py",),
    )
    results = open_results(folder / "results", create=True)
    record = run_trial(chosen, Setting(results, **(setting or {})))
    play.curve = read_curve(results / "trials" / record.id)  # type: ignore[attr-defined]
    return record


HOOK = """
def peek(*_):
    try:
        load_digits()
    except BaseException:
        pass
{}"""

LEAKS: dict[str, dict[str, str]] = {
    "while it is imported": {"at_import": "load_digits()"},
    "caught while it is imported": {"at_import": "try:\n    load_digits()\nexcept BaseException:\n    pass"},
    "in its options": {"at_options": "load_digits()"},
    "in its loop": {"step": "load_digits()"},
    "after its loop": {"after": "load_digits()"},
    "in a hook on the student's state": {
        "before": HOOK.format("s.student.register_state_dict_post_hook(peek)"),
    },
    "in a hook that has no code of its own": {
        "before": "from sklearn.datasets import _base\n"
        "s.student.register_state_dict_pre_hook(functools.partial(lambda f, *_: f(), load_digits))",
    },
    "in the state of a kept thing": {
        "before": HOOK.format("class Kept:\n    def state_dict(self):\n        peek()\n        return {}\n")
        + "\n    def load_state_dict(self, state):\n        pass\ns.keep('mine', Kept())",
    },
    "in a thread": {
        "step": "def read():\n    try:\n        load_digits()\n    except BaseException:\n        pass\n"
        "t = threading.Thread(target=read); t.start(); t.join()",
    },
}


@pytest.mark.parametrize("way", LEAKS)
def test_real_data_is_out_of_reach_from_the_import_to_the_end(tmp_path: Path, way: str) -> None:
    record = play(tmp_path, setting={"checkpoint_seconds": 0.0}, **LEAKS[way])
    said = "real images come from s.images(batch), for a method that declares Data.TRAIN or Data.POOL"
    assert (record.status, record.reason) == ("leaked", f"the method opened real data: digits.csv.gz; {said}")
    assert record.scores == {}


def test_a_thread_sees_nothing_while_the_harness_works(tmp_path: Path) -> None:
    """It tries all the time: while the student is scored and saved, too."""
    record = play(
        tmp_path,
        setting={"checkpoint_seconds": 0.0},
        before="seen = []\nstop = threading.Event()\n"
        "def read():\n"
        "    while not stop.is_set():\n"
        "        try:\n            seen.append(load_digits())\n        except BaseException:\n            pass\n"
        "t = threading.Thread(target=read); t.start()",
        after="stop.set(); t.join(); assert not seen",
    )
    assert record.status == "leaked"


def test_a_computed_declaration_is_read_behind_the_fence(tmp_path: Path) -> None:
    text = METHOD.replace("AT_IMPORT", "load_digits()\nNAME = 'mi' + 'ne'").replace('@method("mine"', "@method(NAME")
    for place in ("AT_OPTIONS", "BEFORE", "STEP", "AFTER"):
        text = text.replace(place, "pass")
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"while it is imported, the method opened real data: digits\.csv\.gz"):
        read_cards(tmp_path / "mine.py")


REPLACED = {
    "torch.Tensor.argmax": "torch.Tensor.argmax = lambda self, *a, **k: torch.zeros(len(self), dtype=torch.int64)",
    "bench.models.lenet.LeNet.forward": "type(s.student).forward = lambda self, x: x.flatten(1)[:, :10]",
    "torch.nn.functional.conv2d": "real = F.conv2d\nF.conv2d = lambda *a, **k: real(*a, **k)",
    "torch.no_grad": "torch.no_grad = torch.enable_grad",
    "bench.harness.evaluation.score_answers": "import bench.harness.evaluation as e\n"
    "e.score_answers = lambda *a: (1.0, {})",
}


@pytest.mark.parametrize("name", REPLACED)
def test_functions_that_scores_rest_on_are_not_replaced(tmp_path: Path, name: str) -> None:
    owner, _, attribute = name.rpartition(".")
    record = play(tmp_path, step=REPLACED[name])
    assert record.status == "denied"
    assert "replaced" in record.reason
    assert name in record.reason or "that the teacher passes through" in record.reason
    record = play(tmp_path, after="pass")  # and the next trial has them back
    assert record.status == "ok"
    del owner, attribute


STATES = {
    "default dtype": "torch.set_default_dtype(torch.float64)",
    "default device": "torch.set_default_device('meta')",
    "gradients": "torch._C._set_grad_enabled(False)",
    "autocast": "torch.autocast('cpu', torch.bfloat16).__enter__()",
    "determinism": "torch.use_deterministic_algorithms(False)",
    "mkldnn": "torch.backends.mkldnn.set_flags(False)",
    "precision": "torch.set_float32_matmul_precision('medium')",
    "threads": "torch.set_num_threads(3)",
    "seeds": "torch.manual_seed(9); np.random.seed(9); __import__('random').seed(9)",
    "module hooks": "nn.modules.module.register_module_forward_hook(lambda module, args, answer: answer * 2)",
    "optimiser hooks": "from torch.optim.optimizer import register_optimizer_step_pre_hook as r\nr(lambda *_: 1 / 0)",
    "function mode": "from torch.overrides import BaseTorchFunctionMode\nBaseTorchFunctionMode().__enter__()",
    "saved tensors": "torch.autograd.graph.saved_tensors_hooks(lambda t: t * 0, lambda t: t).__enter__()",
    "patched torch": "F.relu = lambda x, inplace=False: x",
    "patched class": "nn.Linear.forward = lambda self, x: F.linear(x, self.weight * 2, self.bias)",
    "new method": "torch.Tensor.softmax = lambda self, *a: self",
    "builtins": "import builtins\nbuiltins.len = lambda x: 1",
    "environment": "os.environ['DFKD_CACHE'] = '/nowhere'; os.environ['DFKD_DATA'] = '/nowhere'",
    "working directory": "os.chdir('/')",
    "warnings": "import warnings\nwarnings.simplefilter('ignore')",
    "signals": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "numpy": "np.seterr(all='raise')",
    "output": "import sys, io\nsys.stdout = io.StringIO()",
}


def test_nothing_that_a_method_changes_reaches_the_next_trial(tmp_path: Path) -> None:
    def fresh(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        return folder

    play(fresh("clean"), steps=1)
    wanted = [(row["score"], row["agreement"]) for row in play.curve]  # type: ignore[attr-defined]
    state = ProcessState()
    for name, code in STATES.items():
        play(fresh(name), steps=1, after=code)
        assert state.replaced() == [], name
        changed, lasting = state.undo()
        assert (changed, lasting) == ([], []), name
    assert play(fresh("last"), steps=1).status == "ok"
    assert [(row["score"], row["agreement"]) for row in play.curve] == wanted  # type: ignore[attr-defined]


def test_an_autocast_that_was_left_open_keeps_no_stale_weights(tmp_path: Path) -> None:
    """While torch takes one to be open, it casts a weight once and never again, whatever the optimiser did."""
    play(tmp_path, after=STATES["autocast"])
    weight = torch.ones(2, 2, requires_grad=True)
    seen = []
    for value in (1.0, 2.0):
        with torch.no_grad():
            weight.fill_(value)
        with torch.autocast("cpu", torch.bfloat16):
            seen.append((torch.ones(2, 2) @ weight).max().item())
    assert seen == [2.0, 4.0]


def test_what_cannot_be_undone_is_told(tmp_path: Path) -> None:
    setting: dict[str, Any] = {"lasting": []}
    record = play(
        tmp_path,
        setting=setting,
        after="import builtins\nbuiltins.stop_it = threading.Event()\n"
        "threading.Thread(target=builtins.stop_it.wait, daemon=True).start()",
    )
    assert record.status == "ok"
    assert setting["lasting"] == ["1 threads"]
    import builtins

    builtins.stop_it.set()  # type: ignore[attr-defined]


def test_a_thread_that_stays_stays_behind_the_fence(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "real.bin"
    file.write_bytes(b"x")
    go, seen = threading.Event(), []

    def read() -> None:
        go.wait()
        try:
            seen.append(file.read_bytes())
        except DataLeak as error:
            seen.append(error)

    with data_guard.fenced([tmp_path / "data"], []):
        thread = threading.Thread(target=read)
        thread.start()
    assert file.read_bytes() == b"x"  # the harness goes on
    go.set()
    thread.join()
    assert isinstance(seen[0], DataLeak)
    with data_guard.fenced([], []):
        pass  # nobody is left now
    assert not data_guard._fence.active


# ---- the fence: ways to a file or out of the machine ----------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "around" / "data"
    folder.mkdir(parents=True)
    np.save(folder / "real.npy", np.zeros(3))
    torch.save(torch.zeros(3), folder / "real.pt")
    return folder


def _dir_fd(data: Path, start: Path) -> Any:
    descriptor = os.open(start, os.O_RDONLY)
    return os.open(data.relative_to(start) / "real.npy", os.O_RDONLY, dir_fd=descriptor)


def _hard_link(data: Path) -> None:
    os.link(data / "real.npy", data.parent / "mine.npy")


def _thread(data: Path) -> None:
    raised: list[BaseException] = []

    def read() -> None:
        try:
            (data / "real.npy").read_bytes()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    raise raised[0]


OPENINGS: dict[str, Callable[[Path], Any]] = {
    "a folder's descriptor": lambda data: _dir_fd(data, data),
    "the folder above": lambda data: _dir_fd(data, data.parent),
    "the root": lambda data: _dir_fd(data, Path("/")),
    "a hard link": _hard_link,
    "another name": lambda data: (data / "real.npy").rename(data.parent / "mine.npy"),
    "a file put there": lambda data: (data.parent / "x").write_bytes(b"") or (data.parent / "x").rename(data / "x"),
    "dots": lambda data: Path(f"{data.parent}/../around/./data/real.npy").read_bytes(),
    "bytes": lambda data: io.FileIO(os.fsencode(data / "real.npy")).close(),
    "a link in /proc": lambda data: Path(f"/proc/self/root{data}/real.npy").read_bytes(),
    "os.open": lambda data: os.open(data / "real.npy", os.O_RDONLY),
    "a memory map": lambda data: np.memmap(data / "real.npy", mode="r"),
    "torch's compiled reader": lambda data: torch.from_file(str(data / "real.npy"), size=3),
    "a mapped checkpoint": lambda data: torch.load(data / "real.pt", mmap=True, weights_only=True),
    "a data base": lambda data: __import__("sqlite3").connect(data / "real.npy"),
    "the process's memory": lambda _: Path("/proc/self/mem").open("rb").close(),
    "a thread": _thread,
}


@pytest.mark.parametrize("way", OPENINGS)
def test_no_other_way_to_a_file(data: Path, way: str) -> None:
    with pytest.raises(DataLeak), data_guard.fenced([data], []):
        OPENINGS[way](data)


LINES: dict[str, Callable[[], Any]] = {
    "UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
    "listening": lambda: socket.create_server(("127.0.0.1", 0)),
    "a Unix socket": lambda: socket.socket(socket.AF_UNIX).connect("/nowhere"),
    "a look-up": lambda: socket.getaddrinfo("localhost", 80),
}


@pytest.mark.parametrize("way", LINES)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_no_line_out_of_the_machine(way: str) -> None:
    with pytest.raises(DataLeak, match="network"), data_guard.fenced([], []):
        LINES[way]()
    gc.collect()


def test_no_other_program_and_no_raw_system_call() -> None:
    import ctypes
    import subprocess

    with data_guard.fenced([], []):
        for start in (
            lambda: subprocess.run(["/bin/true"], check=True),
            lambda: os.system("true"),
            lambda: os.posix_spawn("/bin/true", ["true"], {}),
            lambda: ctypes.CDLL(None).open,
            lambda: ctypes.CDLL(None).syscall,
        ):
            with pytest.raises(PermissionError):
                start()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("search", [gc.get_objects, lambda: gc.get_referrers(IMAGE)])
def test_the_memory_of_the_process_is_not_searched(search: Callable[[], Any]) -> None:
    with pytest.raises(AccessDenied, match="memory"), data_guard.fenced([], []):
        search()


def test_only_the_named_file_is_spared_and_only_here(data: Path) -> None:
    with data_guard.fenced([data], []):
        with data_guard.lifted(data / "real.npy"):
            (data / "real.npy").read_bytes()
            with pytest.raises(DataLeak):
                (data / "real.pt").read_bytes()
            with pytest.raises(DataLeak):
                _thread(data)
        data_guard._fence.caught = None


# ---- answers lead nowhere -------------------------------------------------------------------------------------------


def _reachable(roots: list[Any]) -> list[Any]:
    """Everything that attributes, containers, closures and graphs lead to; a module's globals are not followed."""
    seen: dict[int, Any] = {}
    waiting = list(roots)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, ModuleType | type):
            continue
        seen[id(thing)] = thing
        if callable(thing) and hasattr(thing, "__globals__"):
            waiting += [cell.cell_contents for cell in thing.__closure__ or ()]
            continue
        waiting += gc.get_referents(thing)
        if isinstance(thing, Tensor) and thing.grad_fn is not None:
            waiting.append(thing.grad_fn)
        elif isinstance(thing, torch.autograd.graph.Node):
            waiting += [parent for parent, _ in thing.next_functions if parent is not None]
            saved = [getattr(thing, name) for name in dir(thing) if name.startswith("_saved")]
            saved += getattr(thing, "saved_tensors", ())
            for each in saved:  # a new object at every look
                seen[id(each)] = each
    return list(seen.values())


@pytest.mark.parametrize("wants", [False, True])
def test_nothing_in_an_answer_leads_to_the_teachers_weights(wants: bool) -> None:
    teacher = lenet(1, "lenet5bn")
    weights = {value.data_ptr() for value in teacher.state_dict().values()}
    with trial(steps=1, teacher=teacher) as (s, _):
        x = images(4).requires_grad_(wants)
        out = s.teacher(x, features=True, batch_norm=True, pooled="stages", groups=True, penultimate=True, layers=True)
        roots = [out, vars(out), out.batch_norm]
        if wants:
            (slope,) = torch.autograd.grad(out.logits.softmax(1)[:, 0].sum(), x, create_graph=True)
            roots.append(slope)
        found = _reachable(roots)
        assert len(found) > 30
        assert not any(isinstance(each, nn.Module) for each in found)
        assert not [each.shape for each in found if isinstance(each, Tensor) and each.data_ptr() in weights]


def test_labels_are_all_that_is_in_an_answer_of_labels() -> None:
    with trial(steps=1, access=Access.LABELS) as (s, _):
        out = s.teacher(images(4))
        tensors = [each for each in _reachable([out, vars(out)]) if isinstance(each, Tensor)]
        assert all(each.dtype == torch.int64 or not each.numel() for each in tensors)
        assert out.labels.shape == (4,)


class _Watching(TorchFunctionMode):
    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.extend(args)
        return func(*args, **(kwargs or {}))


class _Dispatching(TorchDispatchMode):
    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.extend(args)
        return func(*args, **(kwargs or {}))


class _Spy(Tensor):
    seen: list[Any] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.extend(args)
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize(
    "way", ["function mode", "dispatch mode", "global hook", "global pre-hook", "saved tensors", "subclass"]
)
def test_nobody_watches_while_the_teacher_works(way: str) -> None:
    teacher = lenet(1)
    weights = {value.data_ptr() for value in teacher.parameters()}
    seen: list[Any] = []

    def ask(s: Session, x: Tensor) -> None:
        out = s.teacher(x.requires_grad_()).logits
        (slope,) = torch.autograd.grad(out.softmax(1)[:, 0].sum(), x, create_graph=True)
        slope.square().sum().backward()

    with trial(steps=1, teacher=teacher) as (s, _):
        x = images(2)
        if way == "function mode":
            with _Watching(seen):
                ask(s, x)
        elif way == "dispatch mode":
            with _Dispatching(seen):
                ask(s, x)
        elif way == "saved tensors":
            with torch.autograd.graph.saved_tensors_hooks(lambda each: seen.append(each) or each, lambda each: each):
                ask(s, x)
        elif way == "subclass":
            ask(s, x.as_subclass(_Spy))
            seen += _Spy.seen
        else:
            register = {
                "global hook": nn.modules.module.register_module_forward_hook,
                "global pre-hook": nn.modules.module.register_module_forward_pre_hook,
            }[way]
            handle = register(lambda module, *_: seen.extend([module, *module.parameters()]))  # type: ignore[operator]
            ask(s, x)
            handle.remove()
    assert not any(isinstance(each, nn.Module) for each in seen)
    assert not [each.shape for each in seen if isinstance(each, Tensor) and each.data_ptr() in weights]


def test_a_replaced_function_stops_the_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del tmp_path
    from bench.harness.trial_context import Hooks

    state = ProcessState()
    with trial(steps=1, hooks=Hooks(untouched=state.looks_untouched)) as (s, _):
        s.teacher(images(2))
        real = F.conv2d
        with monkeypatch.context() as patch:
            patch.setattr(F, "conv2d", lambda *args: real(*args))
            with pytest.raises(AccessDenied, match="replaced"):
                s.teacher(images(2))
        s.teacher(images(2))


# ---- the same bits as without the seal ------------------------------------------------------------------------------

Ask = Callable[[Tensor], tuple[Tensor, Tensor]]


def _first(ask: Ask, x: Tensor) -> None:
    a, b = ask(x)
    (a.square().sum() + b.exp().mean()).backward()


def _twice(ask: Ask, x: Tensor) -> None:
    a, b = ask(x)
    a.sum().backward(retain_graph=True)
    b.exp().sum().backward()


def _second(ask: Ask, x: Tensor) -> None:
    (slope,) = torch.autograd.grad(ask(x)[0].softmax(1)[:, 0].sum(), x, create_graph=True)
    slope.square().sum().backward()


def _third(ask: Ask, x: Tensor) -> None:
    (slope,) = torch.autograd.grad(ask(x)[0].softmax(1)[:, 0].sum(), x, create_graph=True)
    (curve,) = torch.autograd.grad(slope.square().sum(), x, create_graph=True)
    curve.pow(3).sum().backward()


def _mixed(ask: Ask, x: Tensor) -> None:
    a, b = ask(x)
    (slope,) = torch.autograd.grad(a.softmax(1)[:, 0].sum(), x, create_graph=True)
    (slope.square().sum() + b.sum()).backward()


def _in_place(ask: Ask, x: Tensor) -> None:
    a, _ = ask(x)
    a.div_(3).exp().sum().backward()


def _checkpointed(ask: Ask, x: Tensor) -> None:
    checkpoint(lambda y: ask(y * 2)[0].exp(), x, use_reentrant=False).sum().backward()


def _functional(ask: Ask, x: Tensor) -> None:
    x.grad = torch.func.grad(lambda y: ask(y)[0].softmax(1)[:, 0].sum())(x.detach())


def _functional_twice(ask: Ask, x: Tensor) -> None:
    def slope(y: Tensor) -> Tensor:
        return torch.func.grad(lambda z: ask(z)[0].softmax(1)[:, 0].sum())(y).square().sum()

    x.grad = torch.func.grad(slope)(x.detach())


@pytest.mark.parametrize("network", ["lenet5", "lenet5bn", "lenet5bn-half"])
@pytest.mark.parametrize(
    "use",
    [_first, _twice, _second, _third, _mixed, _in_place, _checkpointed, _functional, _functional_twice],
)
def test_gradients_of_every_kind_have_the_bits_of_the_open_network(
    network: str, use: Callable[[Ask, Tensor], None]
) -> None:
    teacher = lenet(1, network).eval().requires_grad_(False)

    def work(x: Tensor) -> tuple[Tensor, Tensor]:
        inner = teacher.body(x)
        return teacher.head(inner), inner

    found = []
    for ask in (work, lambda x: sealed(work, x, lambda: None)):
        x = images(4).requires_grad_()
        use(ask, x)  # type: ignore[arg-type]
        found.append(x.grad)
    assert found[0] is not None
    assert torch.equal(found[0], found[1])  # type: ignore[arg-type]


def test_a_graph_is_freed_as_torch_frees_it() -> None:
    teacher = lenet(1).requires_grad_(False)
    from bench.harness import sealed as module

    (answer,) = sealed(lambda x: (teacher(x),), images(2).requires_grad_(), lambda: None)
    assert len(module._graphs) == 1
    answer.sum().backward()
    assert len(module._graphs) == 0
    with pytest.raises(RuntimeError, match="a second time"):
        answer.sum().backward()
    (answer,) = sealed(lambda x: (teacher(x),), images(2).requires_grad_(), lambda: None)
    del answer
    gc.collect()
    assert len(module._graphs) == 0
