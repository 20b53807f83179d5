"""The executor `ray` on a cluster that is none: options, lost workers, stops. None of this needs Ray."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
from test_executors import trial
from test_stopping_studies import content, study

from bench.cli import answer
from bench.errors import UserError
from bench.execution import ray_connection
from bench.execution.executors import EXECUTORS, get_executor
from bench.execution.executors import ray as executor
from bench.execution.executors.ray import Ray
from bench.execution.progress import Progress
from bench.execution.ray_cluster import Key, Mailbox, News, Outcome
from bench.execution.ray_connection import ClusterLost, RayConnection, connected
from bench.execution.ray_worker import work
from bench.execution.run_study import Silence, run_study
from bench.records import load_records
from bench.spec.trial import Trial
from bench.utils import stopping
from bench.utils.stopping import Stopped, ask

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems spawn their workers, which takes long")


def test_options_have_types() -> None:
    found = get_executor("ray:address=head:6380,cpus=2,gpus=0.25,memory=8G,retries=0")
    assert isinstance(found, Ray)
    assert (found.address, found.retries) == ("head:6380", 0)
    assert found.needs(trial()) == {"CPU": 2.0, "GPU": 0.25, "memory": 8 * 2.0**30}
    assert Ray().needs(trial(threads=3)) == {"CPU": 3.0}
    assert Ray().needs(trial(device="cuda")) == {"CPU": 2.0, "GPU": 1.0}
    assert Ray(memory="512").needs(trial())["memory"] == 512.0


def test_where_ray_is_not_installed_a_sentence_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "ray" in EXECUTORS
    monkeypatch.setattr(executor, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    study(tmp_path)
    assert answer(["run", "study.yaml", "--results", "results", "--executor", "ray"]) == 2
    said = capsys.readouterr().err
    assert "pip install 'dfkd-bench[ray]'" in said
    assert "Traceback" not in said
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid", "127.0.0.1:99999"])
def test_an_address_where_nobody_answers_is_told_at_once(address: str) -> None:
    with pytest.raises(UserError, match=r"nothing answers at .*`ray start --head` prints it"), \
            connected(address, 1.0):  # fmt: skip
        pass


class Queue:
    """Stands in for a connection to Ray: tasks run one after the other in this process, with the real worker's code.

    ``fate`` is asked before a task runs, and after: what it returns is what has become of it.
    """

    def __init__(self, fate: Callable[[Key, bool], Outcome | None] = lambda key, ran: None) -> None:
        self.fate = fate
        self.mailbox = Mailbox()
        self.tasks: list[Key] = []
        self.orders: dict[Key, bytes] = {}
        self.outcomes: dict[Key, Outcome] = {}
        self.ran: list[Key] = []
        self.forgotten: list[Key] = []
        self.names: dict[Key, str] = {}
        self.tell = types.SimpleNamespace(remote=self.mailbox.tell)

    def check_fits(self, needs: Mapping[str, float]) -> None:
        assert needs == {"CPU": 1.0}

    def slots(self, needs: Mapping[str, float]) -> int:
        return len(needs)

    def submit(self, order: bytes, key: Key, needs: Mapping[str, float], name: str) -> None:
        assert needs == {"CPU": 1.0}
        self.orders[key], self.names[key] = order, name
        self.tasks.append(key)

    def ended(self, seconds: float) -> list[Key]:
        if seconds and self.tasks:
            key = self.tasks.pop(0)
            self.ran.append(key)
            outcome = self.fate(key, False) or self._work(key)
            self.outcomes[key] = self.fate(key, True) or outcome
            return [key]
        return []

    def _work(self, key: Key) -> Outcome:
        drivers = stopping._listening[:]  # a worker is another process, where nobody has asked for anything
        stopping._listening.clear()
        try:
            return Outcome(*work([self.orders[key]], key, self, 0))
        finally:
            stopping._listening[:] = drivers

    def news(self, stop: bool) -> dict[Key, News]:
        return self.mailbox.read(stop)

    def forget(self, key: Key) -> None:
        self.tasks.remove(key)
        self.forgotten.append(key)

    def outcome(self, key: Key) -> Outcome:
        return self.outcomes.pop(key)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Queue], None]:
    """Have the executor find this queue instead of a cluster."""
    module = types.ModuleType("ray")
    module.get = lambda value: value  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", module)
    monkeypatch.setattr(executor, "find_spec", lambda name: module)

    def use(queue: Queue) -> None:
        @contextlib.contextmanager
        def connected(address: str, cpus: float) -> Iterator[Queue]:
            assert address == "local"
            yield queue

        monkeypatch.setattr(executor, "connected", connected)

    return use


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, list[object]]]:
    folder = tmp_path_factory.mktemp("whole")
    run_study(study(folder), results=folder / "results", executor="inline", isolation="none")
    return content(folder / "results")


def run(folder: Path, queue: str = "ray", **more: Any) -> Any:
    return run_study(
        study(folder), results=folder / "results", executor=queue, isolation="none", checkpoint_seconds=0.0, **more
    )


def test_trials_travel_and_give_the_bits_of_an_undisturbed_run(
    on: Callable[[Queue], None], whole: dict[str, object], tmp_path: Path
) -> None:
    queue = Queue()
    on(queue)
    before = Path.cwd()
    assert run(tmp_path).statuses == {"ok": 2}
    assert content(tmp_path / "results") == whole
    assert Path.cwd() == before
    assert not list((tmp_path / "results" / "work").iterdir())
    assert sorted(queue.names.values()) == ["dfkd patient seed 0", "dfkd patient seed 1"]


def test_a_lost_trial_goes_on_from_its_last_checkpoint(
    on: Callable[[Queue], None], whole: dict[str, object], tmp_path: Path
) -> None:
    """The worker has sent checkpoints, and is lost with its record."""
    lost: list[Key] = []

    def fate(key: Key, ran: bool) -> Outcome | None:
        if ran and key[1] == 1:
            lost.append(key)
            return Outcome(lost="the node died")
        return None

    queue = Queue(fate)
    on(queue)
    assert run(tmp_path).statuses == {"ok": 2}
    assert len(lost) == 2
    assert content(tmp_path / "results") == whole
    assert [record.resumed for record in load_records(tmp_path / "results")] == [1, 1]
    assert max(attempt for _, attempt in queue.ran) == 2


@pytest.mark.parametrize(("out_of_memory", "status"), [(False, "crashed"), (True, "out_of_memory")])
def test_a_trial_that_is_lost_again_and_again_is_given_up(
    on: Callable[[Queue], None], tmp_path: Path, out_of_memory: bool, status: str
) -> None:
    first: list[str] = []

    def fate(key: Key, ran: bool) -> Outcome | None:
        first.append(key[0])
        return Outcome(lost="the node died", out_of_memory=out_of_memory) if key[0] == first[0] else None

    queue = Queue(fate)
    on(queue)
    summary = run(tmp_path, "ray:retries=2")
    assert summary.statuses == {"ok": 1, status: 1}
    (failure,) = summary.failures
    assert failure.record.reason == "its Ray worker was lost 3 times, at last: the node died"
    assert not list((tmp_path / "results" / "work").iterdir())


def test_what_an_attempt_says_that_was_given_up_is_not_heard(
    on: Callable[[Queue], None], whole: dict[str, object], tmp_path: Path
) -> None:
    def fate(key: Key, ran: bool) -> Outcome | None:
        if not ran and key[1] == 2:
            queue.mailbox.tell((key[0], 1), {"state": "of a zombie"}, b"what it saved")
        return Outcome(lost="the node died") if key[1] == 1 else None

    queue = Queue(fate)
    on(queue)
    assert run(tmp_path).statuses == {"ok": 2}
    assert content(tmp_path / "results") == whole


def test_a_worker_that_cannot_work_ends_the_run_in_its_words(on: Callable[[Queue], None], tmp_path: Path) -> None:
    on(Queue(lambda key, ran: Outcome(refusal="the order is of version 1, and this worker has 2")))
    with pytest.raises(UserError, match="a Ray worker cannot work here: the order is of version 1, and this worker"):
        run(tmp_path)


def test_a_worker_of_another_version_names_both(
    on: Callable[[Queue], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench._version import __version__
    from bench.execution import transport

    def fate(key: Key, ran: bool) -> None:
        monkeypatch.setattr(transport, "__version__", "9.9.9")

    on(Queue(fate))
    with pytest.raises(UserError, match=rf"cannot work here: .*{__version__}.*9\.9\.9"):
        run(tmp_path)


class Asks(Silence):
    """Wants the run to stop when a trial is queued, or when it has made some steps."""

    def __init__(self, state: str) -> None:
        self.state = state

    def update(self, trial: Trial, progress: object) -> None:
        del trial
        assert isinstance(progress, Progress)
        if progress.state == self.state:
            ask("a test")


def test_a_stop_saves_what_runs_and_begins_nothing(
    on: Callable[[Queue], None], whole: dict[str, object], tmp_path: Path
) -> None:
    queue = Queue()
    on(queue)
    with pytest.raises(Stopped, match="a test") as stop:
        run(tmp_path, audience=Asks("queued"))
    assert stop.value.late == 0
    assert not queue.ran or len(queue.ran) + len(queue.forgotten) == 2
    assert queue.forgotten
    assert run(tmp_path).statuses == {"ok": 2}
    assert content(tmp_path / "results") == whole


def test_a_trial_that_is_told_to_stop_sends_its_checkpoint(
    on: Callable[[Queue], None], whole: dict[str, object], tmp_path: Path
) -> None:
    queue = Queue()

    def tell(key: Key, progress: dict[str, Any], saved: bytes = b"") -> bool:
        queue.mailbox.tell(key, progress, saved)
        return progress["share"] > 0.3

    queue.tell = types.SimpleNamespace(remote=tell)
    on(queue)
    assert run(tmp_path, "ray:retries=9").statuses == {"ok": 2}  # each attempt is stopped on the way, and goes on
    assert content(tmp_path / "results") == whole
    assert min(record.resumed for record in load_records(tmp_path / "results")) >= 1


class Lost(Queue):
    """A cluster that is gone after some looks."""

    looks = 0

    def news(self, stop: bool) -> dict[Key, News]:
        self.looks += 1
        if self.looks > 3 or stop:
            raise ClusterLost("the connection to the Ray cluster is lost")
        return super().news(stop)


def test_a_cluster_that_is_lost_ends_the_run_and_nothing_else(
    on: Callable[[Queue], None], whole: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on(Lost(lambda key, ran: Outcome(lost="the node died") if key[1] == 1 else None))
    with pytest.raises(UserError, match="is lost"):
        run(tmp_path, "ray:retries=9")
    on(Queue())
    assert run(tmp_path).statuses == {"ok": 2}
    assert content(tmp_path / "results") == whole


def test_a_cluster_that_is_lost_while_the_run_stops_leaves_a_stop(
    on: Callable[[Queue], None], whole: dict[str, object], tmp_path: Path
) -> None:
    on(Lost())
    with pytest.raises(Stopped, match="a test") as stop:
        run(tmp_path, audience=Asks("queued"))
    assert stop.value.late == 0  # what had not begun is not late
    on(Queue())
    assert run(tmp_path).statuses == {"ok": 2}
    assert content(tmp_path / "results") == whole


@pytest.mark.parametrize(
    ("becomes", "said"),
    [
        ("os._exit(1)", r"is lost: Ray ended the process that was connected \(exit code 1\); what was saved is kept"),
        ("os.kill(os.getpid(), 9)", r"is lost: .*\(signal SIGKILL\); what was saved is kept"),
        ("raise ConnectionError('no token')", "no connection to the Ray cluster local: no token"),
        ("raise SystemExit", "is lost: SystemExit"),
    ],
)
def test_whatever_ray_does_to_the_process_that_is_connected_the_driver_stays(
    becomes: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray.py").write_text(
        f"import os\n\ndef init(**options):\n    {becomes}\n\ndef shutdown():\n    pass\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=said), connected("local", 1.0):
        pass


def test_a_cluster_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_connection, "ANSWER_SECONDS", 0.1)
    ours, theirs = Pipe()
    with subprocess.Popen(["sleep", "60"]) as helper, ours, theirs:
        try:
            with pytest.raises(ClusterLost, match="cluster head:1 is lost: it has not answered"):
                RayConnection("head:1", helper, ours).news(stop=False)
        finally:
            helper.kill()
