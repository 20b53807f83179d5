"""What becomes of a trial whose method loads data early, goes on too long, dies, or works while it is judged."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bench.data.folders import sklearn_data
from bench.errors import UserError
from bench.execution import isolation
from bench.execution.isolation import isolated

LOADS = "from sklearn.datasets import load_digits\n"


def test_data_loaded_on_import_is_a_leak(attempt: Callable[..., object]) -> None:
    ran = attempt(top=f"{LOADS}DIGITS = load_digits()")
    assert ran.record.status == "leaked"
    assert "real data" in ran.record.reason


def test_data_loaded_in_a_thread_of_the_import_is_not_seen(attempt: Callable[..., object]) -> None:
    top = f"{LOADS}SEEN = []\nthreading.Thread(target=lambda: SEEN.append(load_digits())).start()"
    ran = attempt("s.log(got=float(len(SEEN)))", top=top)
    assert ran.got == 0


def test_results_below_a_folder_of_modules_are_no_leak(
    attempt: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """importlib.metadata reads every entry of sys.path, as an archive where it may not list it."""
    monkeypatch.syspath_prepend(tmp_path)
    for how in ("landlock", None):
        ran = attempt(top="import importlib.metadata\nimportlib.metadata.version('torch')", how=how)
        assert ran.record.status == "ok", ran.record.reason


def test_data_loaded_by_options_is_a_leak(attempt: Callable[..., object]) -> None:
    top = f"""
from dataclasses import dataclass
from bench import option
{LOADS}
@dataclass(frozen=True)
class Options:
    batch: int = option(32, "images", low=1)

    def __post_init__(self) -> None:
        load_digits()


@method("with_options", title="t", paper="none", data=Data.NONE, access=Access.LABELS)
def with_options(s: Session, o: Options) -> None:
    pass
"""
    from bench.spec.method_registry import find_methods

    ran = attempt(top=top.replace('"with_options"', '"other"'), before="Options()")
    assert ran.record.status == "leaked"
    assert "other" in find_methods([Path(ran.file)])


def test_a_leak_that_is_swallowed_gives_nothing_and_is_a_leak_where_it_is_noticed(
    attempt: Callable[..., object],
) -> None:
    ran = attempt(f"{LOADS}s.log(got=float(gave(lambda: load_digits().images.any())))")
    assert ran.got == 0
    file = sklearn_data() / "digits.csv.gz"
    ran = attempt(f"try:\n    open({str(file)!r})\nexcept BaseException:\n    pass")
    assert ran.record.status == "leaked"


def test_a_process_that_ends_early_is_a_record(attempt: Callable[..., object]) -> None:
    for code, words in (("os._exit(0)", "exit code 0"), ("os.kill(os.getpid(), 11)", "SIGSEGV")):
        ran = attempt(code)
        assert ran.record.status == "crashed"
        assert words in ran.record.reason


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of torch's half-made loader
@pytest.mark.parametrize("how", ["landlock", None])
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_loader_has_no_worker_processes(attempt: Callable[..., object], how: str | None, context: str) -> None:
    code = f"""
    images = torch.utils.data.DataLoader(x, batch_size=8, num_workers=1, multiprocessing_context={context!r})
    next(iter(images))
    """
    ran = attempt(code, how=how)
    assert ran.record.status == "crashed"
    assert "starts no other process" in ran.record.reason
    assert "num_workers=0" in ran.record.reason


def test_a_step_does_not_ask_for_ever(attempt: Callable[..., object]) -> None:
    code = "while True:\n    s.teacher(s.noise(2048, *s.task.image.shape)).labels"
    ran = attempt(code, budget={"teacher_images": 4096})
    assert ran.record.status == "denied"
    assert "beyond the budget of 4,096" in ran.record.reason
    assert ran.record.meter.teacher_images <= 4096 + 10_000 + 2048


def test_no_step_goes_on_after_the_budget(attempt: Callable[..., object]) -> None:
    before = "from bench.harness.trial_context import TrialContext\nTrialContext.progress = property(lambda self: 0.0)"
    ran = attempt(before=before, budget={"steps": 3})
    assert ran.record.status == "ok"  # the teacher said no more, and that was the end
    assert ran.record.meter.steps == 3
    assert ran.record.meter.teacher_images == 96
    told = "from bench.harness.isolation.channel import Kind, Message\n"
    told += "from bench.harness.trial_context import current\n"
    told += "while True:\n    current().hooks.after_step()"
    ran = attempt(told, budget={"steps": 3})
    assert ran.record.status == "denied"
    assert "after the budget was spent" in ran.record.reason


def test_a_method_that_hangs_is_stopped_in_time(attempt: Callable[..., object]) -> None:
    started = time.monotonic()
    ran = attempt("time.sleep(600)", timeout=6)
    assert ran.record.status == "timed_out"
    assert time.monotonic() - started < 200


def test_no_thread_works_while_the_student_is_scored(
    attempt: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.harness.learning_curve import Curve

    seen: list[set[str]] = []
    evaluate = Curve.evaluate

    def slow(self: Curve) -> None:
        time.sleep(0.2)  # a signal takes a moment to arrive
        children = psutil.Process().children(recursive=True)
        seen.append({each.status() for each in children if each.cwd().startswith("/tmp/dfkd-method-")})
        evaluate(self)

    monkeypatch.setattr(Curve, "evaluate", slow)
    ran = attempt("threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()")
    assert ran.record.status == "ok"
    assert seen[0] == {psutil.STATUS_STOPPED}


def test_no_process_is_left(attempt: Callable[..., object]) -> None:
    before = len(psutil.Process().children(recursive=True))
    attempt()
    children = len(psutil.Process().children(recursive=True))
    attempt("time.sleep(0)\nos._exit(3)")
    assert len(psutil.Process().children(recursive=True)) == children
    assert children <= before + 1  # the process that methods are forked from


def test_folders_that_a_killed_judge_left_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.harness.isolation.template import SCRATCH
    from bench.utils import scratch

    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: str(tmp_path))
    gone = subprocess.Popen(["true"])
    gone.wait()
    old = time.time() - 2 * scratch.ABANDONED
    names = {f"{gone.pid}-old": old, f"{gone.pid}-new": time.time(), f"{os.getpid()}-old": old, "x-old": old}
    for name, modified in names.items():
        folder = tmp_path / f"{SCRATCH}{name}"
        folder.mkdir()
        os.utime(folder, (modified, modified))
    scratch.clear_abandoned.__wrapped__(SCRATCH)
    kept = {folder.name.removeprefix(SCRATCH) for folder in tmp_path.iterdir()}
    assert kept == names.keys() - {f"{gone.pid}-old"}


def test_the_shared_memory_keeps_its_size(attempt: Callable[..., object]) -> None:
    ran = attempt("s.log(got=float(gave(lambda: os.ftruncate(3, 0) is None)))")
    assert ran.record.status == "ok"
    assert ran.got == 0


def test_absurd_requests_for_real_images_are_refused(attempt: Callable[..., object]) -> None:
    ran = attempt("s.images(-1)", data="TRAIN")
    assert ran.record.status == "crashed"
    assert "not -1" in ran.record.reason


def test_the_record_tells_what_held_the_method_and_whose_word_is_whose(attempt: Callable[..., object]) -> None:
    told = attempt().record.provenance["isolation"]
    assert told["mode"] == "process"
    assert "seccomp" in told["enforced_by"]
    assert told["reported_by_method"] == [
        *("optimizer_steps", "student_images", "student_backward", "synthesised_images", "gmacs")
    ]
    assert told["method_cpu_seconds"] > 0
    assert attempt(how=None).record.provenance["isolation"] == {"mode": "none", "why": isolation.ASKED}


def test_a_machine_that_cannot_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "why_not", lambda: "this kernel has no seccomp")
    assert isolated("auto", "cpu") == isolation.Isolated(None, "this kernel has no seccomp")
    assert isolated("none", "cpu").way is None
    with pytest.raises(UserError, match="cannot be had here: this kernel has no seccomp"):
        isolated("process", "cpu")


def test_on_a_gpu_methods_are_not_isolated() -> None:
    assert "GPU" in isolated("auto", "cuda").why
    with pytest.raises(UserError, match="GPU"):
        isolated("process", "cuda")
    with pytest.raises(UserError, match="did you mean 'process'"):
        isolated("proces", "cpu")


def test_the_environment_is_not_the_judges(attempt: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_SECRET", "x")
    ran = attempt("s.log(got=float(len([n for n in os.environ if 'DFKD' in n])))")
    assert "DFKD_SECRET" in os.environ
    assert ran.got == 0
