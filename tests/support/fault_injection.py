"""Faults at random moments of a study, and what became of its records: ``python fault_injection.py SEED COUNT FOLDER``.

The study is run by forks of one process that has imported everything, so that an injection costs milliseconds. After
each, every record that had been finished must be there with the same bytes, and no trial may be there twice; in the end
the study completes with the bits of an undisturbed run. What is printed is a JSON object of counts by kind of fault, of
which some are injected on the executor `processes`.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_kinds import MORE, Way, fork_workers, wait_for_children

METHOD = '''
import torch
from bench import Access, Data, Session, method

@method("tiny", title="Tiny", paper="none", data=Data.NONE, access=Access.LOGITS)
def tiny(s: Session) -> None:
    """Trains on a little noise."""
    opt = s.keep("opt", torch.optim.SGD(s.student.parameters(), 0.1, momentum=0.9))
    for _ in s.steps("train"):
        s.distill(opt, s.noise(4, *s.task.image.shape))
'''
STUDY = """
name: faults
tasks: [digits/lenet5-half]
methods: [./tiny.py]
seeds: [0, 1]
budget: {steps: 6}
points: 1
selection: [last]
isolation: none
"""
TRIALS = 2
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES)
WAYS = ("cut", "empty", "flip")
DAMAGED = ("record.json", "curve.jsonl", "student.safetensors")
Content = dict[str, tuple[bytes, str]]


@dataclass
class Counts:
    """Of one kind of fault; ``told`` are those that a run or a reader named as an error."""

    injected: int = 0
    lost: int = 0
    doubled: int = 0
    told: int = 0
    notes: list[str] = field(default_factory=list)


class Harness:
    """A results folder that faults are injected into, again and again."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.counts: dict[str, Counts] = {}
        self.results = folder / "results"
        self.finished: dict[str, bytes] = {}
        self.merging = 0.0  # seconds of a merge, once there was one
        self.trained: tuple[dict[str, bytes], Content, float] | None = None  # see fault_kinds.Training
        self.executor = "inline"  # of the runs of the fault that is injected
        self._ways: dict[str, list[str]] = {}
        self._number = 0
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tiny.py").write_text(METHOD, encoding="utf-8")
        (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
        assert self._drive(self.folder / "whole", self.folder / "study.yaml", "inline") == 0
        # That was here: forks find everything imported and loaded.
        began = time.monotonic()
        assert self.run(self.results) == 0
        self.seconds = time.monotonic() - began
        self.whole = content(self.folder / "whole")
        assert content(self.results) == self.whole
        self.afresh()
        assert len(self.whole) == TRIALS

    # ---- runs --------------------------------------------------------------------------------------------------------

    def start(
        self,
        results: Path,
        before: Callable[[], None] = lambda: None,
        *,
        study: Path | None = None,
        executor: str | None = None,
    ) -> int:
        """A driver in a process of its own, which calls ``before`` first."""
        file, how = study or self.folder / "study.yaml", executor or self.executor

        def drive() -> int:
            before()
            return self._drive(results, file, how)

        return self.fork(drive)

    def fork(self, work: Callable[[], int]) -> int:
        """Work in a process of its own; its exit code is what ``work`` returns."""
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            os.setsid()
            log = os.open(self.folder / "driver.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = work()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def _drive(self, results: Path, study: Path, executor: str) -> int:
        from bench.errors import UserError
        from bench.execution.run_study import run_study

        try:
            summary = run_study(study, results=results, executor=executor, workers=2, checkpoint_seconds=0.0)
        except UserError as error:
            print("told:", error, file=sys.stderr, flush=True)
            return 2
        return 1 if summary.failures else 0

    def run(self, results: Path, before: Callable[[], None] = lambda: None, **how: Any) -> int:
        return exit_code(self.start(results, before, **how))

    @staticmethod
    def exit_code(pid: int) -> int:
        return exit_code(pid)

    @staticmethod
    def content(results: Path) -> Content:
        return content(results)

    def refusal(self, most: int) -> Callable[[], None]:
        return self._refusal(most)

    def next_way(self, ways: Mapping[str, Way], executor: str) -> str:
        """One of the ways that an executor bears, each once before any comes again."""
        left = self._ways.setdefault(executor, [])
        if not left:
            left += [name for name, way in ways.items() if executor in way.executors]
            self.random.shuffle(left)
        return left.pop()

    def wait_for_all(self, kind: str) -> None:
        """Until nothing runs any more that drivers have left behind."""
        for name in wait_for_children():
            self.counts[kind].lost += 1
            self.counts[kind].notes.append(f"a process did not end: {name}")

    # ---- what is checked ---------------------------------------------------------------------------------------------

    def check(self, kind: str) -> None:
        """Compare what is there now with what was finished before."""
        counts = self.counts[kind]
        now = {
            file.parent.name: file.read_bytes()
            for file in self.results.glob("trials/*/record.json")
            if not file.parent.name.startswith(".") and json.loads(file.read_bytes() or b"{}").get("status") == "ok"
        }
        for name, record in self.finished.items():
            if name not in now:
                counts.lost += 1
                counts.notes.append(f"{name} is gone")
            elif now[name] != record:
                counts.doubled += 1
                counts.notes.append(f"{name} was made twice")
        self.finished = now

    def complete(self, kind: str) -> None:
        """Run to the end without a fault; the bits must be those of an undisturbed run."""
        for _ in range(3):
            if self.run(self.results) == 0:
                break
        self.check(kind)
        if content(self.results) != self.whole:
            self.counts[kind].lost += 1
            self.counts[kind].notes.append("the study did not complete with the same bits")
        self.afresh()

    def afresh(self) -> None:
        wait_for_children()
        shutil.rmtree(self.results, ignore_errors=True)
        self.finished = {}

    # ---- faults ------------------------------------------------------------------------------------------------------

    def inject(self, kind: str) -> None:
        """One fault of a kind, at a random moment or place; a kind may name its executor."""
        self.counts.setdefault(kind, Counts()).injected += 1
        name, _, executor = kind.partition(" on ")
        self.executor = executor or "inline"
        if name in MORE:
            MORE[name](self, kind, self.executor)
        else:
            fault: Callable[[str], None] = getattr(self, f"_{name}")
            fault(kind)
        self._number += 1
        print(f"{self._number} {kind}", file=sys.stderr, flush=True)

    def _kill(self, kind: str) -> None:
        """``kill -9`` at any moment of a run."""
        pid = self.start(self.results)
        time.sleep(self.random.uniform(0, 1.1 * self.seconds))
        os.kill(pid, signal.SIGKILL)
        exit_code(pid)
        self.check(kind)
        if self._number % 4 == 3 or len(self.finished) == TRIALS:
            self.complete(kind)

    def _refused_write(self, kind: str) -> None:
        """The system refuses one write, rename or sync, as a full disk or a folder that is read-only does."""
        self.counts[kind].told += self.run(self.results, self._refusal(60)) == 2
        self.check(kind)
        if self._number % 3 == 2 or len(self.finished) == TRIALS:
            self.complete(kind)

    def _refusal(self, most: int) -> Callable[[], None]:
        """Has the system refuse one of the next ``most`` writes of this process, opened files included."""
        number, reason = self.random.randrange(1, most), self.random.choice(REFUSALS)

        def before() -> None:
            seen = [0]

            def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
                def call(*arguments: Any, **more: Any) -> Any:
                    seen[0] += 1
                    if seen[0] == number:
                        raise OSError(reason, os.strerror(reason), str(arguments[0]))
                    return real(*arguments, **more)

                return call

            def opening(file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
                return (real_open if set(mode) <= set("rbt") else refused_open)(file, mode, *arguments, **more)

            real_open, refused_open = io.open, refusing(io.open)
            for place, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (os, "mkdir"), (shutil, "copyfile")):
                setattr(place, name, refusing(getattr(place, name)))
            for module in (io, builtins):  # pathlib takes the one, everybody else the other
                module.open = opening  # type: ignore[attr-defined]

        return before

    def _full_disk(self, kind: str) -> None:
        """No file may be larger than some bytes: the system itself refuses."""
        limit = int(10 ** self.random.uniform(1.5, 5.2))

        def before() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        self.counts[kind].told += self.run(self.results, before) == 2
        self.check(kind)
        if self._number % 3 == 2 or len(self.finished) == TRIALS:
            self.complete(kind)

    def _clock(self, kind: str) -> None:
        """The system's clock jumps by up to months, either way."""
        jump, after = self.random.uniform(-1e7, 1e7), self.random.randrange(40)

        def before() -> None:
            real, calls = time.time, [0]

            def jumping() -> float:
                calls[0] += 1
                return real() + (jump if calls[0] > after else 0.0)

            time.time = jumping

        if self.run(self.results, before) != 0:
            self.counts[kind].notes.append(f"a jump of {jump:.0f} s ended the run")
            self.counts[kind].lost += 1
        self.check(kind)
        self.complete(kind)

    def _two_drivers(self, kind: str) -> None:
        """Two runs in one folder at the same moment: one works, the other is told, or comes when all is done."""
        codes = [exit_code(pid) for pid in [self.start(self.results), self.start(self.results)]]
        self.counts[kind].told += codes.count(2)
        if sorted(codes) not in ([0, 2], [0, 0]):
            self.counts[kind].notes.append(f"exit codes {codes}")
            self.counts[kind].lost += 1
        self.check(kind)
        self.complete(kind)

    def _checkpoint(self, kind: str) -> None:
        """A checkpoint is cut, emptied or has a bit flipped; its trial starts again."""
        for _ in range(20):
            pid = self.start(self.results)
            time.sleep(self.random.uniform(0.3, 1.0) * self.seconds)
            os.kill(pid, signal.SIGKILL)
            exit_code(pid)
            if found := sorted(self.results.glob("work/*/checkpoint.pt")):
                damage(found[0], self.random)
                break
            self.check(kind)
            if len(self.finished) == TRIALS:
                self.afresh()
        self.check(kind)
        self.complete(kind)

    def _finished(self, kind: str) -> None:
        """A file of a finished trial is damaged: whoever reads it says so; without it, the trial runs again."""
        from bench.errors import UserError
        from bench.records import load_record, read_curve
        from bench.records.folder import check_beside
        from bench.records.foreign import sha256_of

        self.run(self.results)
        self.check(kind)
        trial = self.random.choice(sorted((self.results / "trials").iterdir()))
        name = self.random.choice(DAMAGED)
        damage(trial / name, self.random)
        try:
            load_record(trial)
            read_curve(trial)
            check_beside(trial, "student.safetensors", sha256_of(trial / "student.safetensors"))
            self.counts[kind].lost += 1
            self.counts[kind].notes.append(f"{name} was damaged, and nobody noticed")
        except UserError:
            self.counts[kind].told += 1
        if name == "record.json" and self.run(self.results) != 2:
            self.counts[kind].notes.append("a run went on over a damaged record")
            self.counts[kind].lost += 1
        shutil.rmtree(trial)
        self.finished.pop(trial.name, None)
        self.complete(kind)

    def _merge(self, kind: str) -> None:
        """``kill -9``, or a write that is refused, while parts are merged: they are as before, and merge afterwards."""
        from bench.errors import UserError
        from bench.records.merge import merge

        parts, out = self._parts(), self.folder / "merged"
        before = [files_of(part) for part in parts]

        def work(refusing: Callable[[], None] = lambda: None) -> int:
            refusing()
            try:
                merge(parts, out)
            except UserError:
                return 2
            return 0

        if self.random.random() < 0.5:
            pid = self.fork(work)
            time.sleep(self.random.uniform(0, 1.1 * self.merging))
            os.kill(pid, signal.SIGKILL)
            exit_code(pid)
        else:
            self.counts[kind].told += exit_code(self.fork(lambda: work(self._refusal(30)))) == 2
        if out.exists() and content(out) != self.whole:
            self.counts[kind].lost += 1
            self.counts[kind].notes.append("half of a merge was there")
        if not out.exists():
            began = time.monotonic()
            if exit_code(self.fork(work)) != 0:
                self.counts[kind].lost += 1
                self.counts[kind].notes.append("the parts could not be merged afterwards")
            self.merging = self.merging or time.monotonic() - began
        if content(out) != self.whole or [files_of(part) for part in parts] != before:
            self.counts[kind].lost += 1
            self.counts[kind].notes.append("the merge or its parts have changed")
        shutil.rmtree(out, ignore_errors=True)

    def _parts(self) -> list[Path]:
        """Two results folders, each with one of the trials."""
        parts = [self.folder / f"part{number}" for number in range(TRIALS)]
        for number, part in enumerate(parts):
            if not part.exists():
                shutil.copytree(self.folder / "whole", part)
                for other in sorted({*(part / "trials").iterdir()} - {sorted((part / "trials").iterdir())[number]}):
                    shutil.rmtree(other)
        return parts

    def _decoded(self, kind: str) -> None:
        """A file in the cache of decoded images is damaged, or was half written: the images are decoded again."""
        import torch

        from bench.data import decoded
        from bench.data.folders import decoded_folder

        images = {"images": torch.arange(3072, dtype=torch.uint8).reshape(1, 3, 32, 32)}

        def read() -> Any:
            return decoded.cached("faults", self.folder, [self.folder / "study.yaml"], 32, lambda: images)["images"]

        read()
        (file,) = decoded_folder().glob("faults-32-*.safetensors")
        damage(file, self.random)
        if not torch.equal(read(), images["images"]):
            self.counts[kind].lost += 1
            self.counts[kind].notes.append("damaged images were used")

    def _teacher(self, kind: str) -> None:
        """A file of the cached teacher is damaged: the run says so, and begins nothing."""
        teacher = next((Path(os.environ["DFKD_CACHE"]) / "teachers").glob("*/passport.json")).parent
        file = teacher / self.random.choice(("passport.json", "weights.safetensors"))
        kept = file.read_bytes()
        try:
            damage(file, self.random, WAYS)
            if self.run(self.results) == 2:
                self.counts[kind].told += 1
            else:
                self.counts[kind].lost += 1
                self.counts[kind].notes.append(f"{file.name} was damaged, and the study ran")
        finally:
            file.write_bytes(kept)
        self.check(kind)
        self.complete(kind)


KINDS = {  # and how many of a hundred; those of 1 take long, and are not among the 60 of `make test`
    "kill": 17,
    "kill on processes": 8,
    "refused_write": 14,
    "refused_write on processes": 4,
    "full_disk": 5,
    "full_disk on processes": 2,
    "clock": 4,
    "two_drivers": 4,
    "two_drivers on processes": 2,
    "checkpoint": 5,
    "checkpoint on processes": 2,
    "finished": 5,
    "teacher": 3,
    "merge": 4,
    "decoded": 2,
    "worker on processes": 3,
    "memory": 2,
    "memory on processes": 2,
    "method": 3,
    "method on processes": 3,
    "training": 2,
    "training on processes": 1,
    "same_teacher": 1,
    "same_teacher on processes": 2,
}


def damage(file: Path, dice: random.Random, ways: Sequence[str] = WAYS) -> None:
    """Cut the file short, empty it, or flip one of its bits."""
    whole = bytearray(file.read_bytes())
    way = dice.choice(ways)
    if way == "flip" and whole:
        whole[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
    file.write_bytes({"cut": whole[: dice.randrange(max(1, len(whole)))], "empty": b"", "flip": bytes(whole)}[way])


def content(results: Path) -> Content:
    """Students, and curves without times, of the trials that ended well."""
    from bench.records import load_records, read_curve

    found: Content = {}
    for record in load_records(results) if (results / "results.json").exists() else []:
        folder = results / "trials" / record.id
        if record.status == "ok":
            curve = [{key: value for key, value in row.items() if key != "seconds"} for row in read_curve(folder)]
            found[record.id] = ((folder / "student.safetensors").read_bytes(), json.dumps(curve))
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def schedule(count: int, dice: random.Random) -> Sequence[str]:
    """Kinds of faults in their shares, in a random order; the rest are kills."""
    chosen = [kind for kind, share in KINDS.items() for _ in range(count * share // 100)]
    chosen = (chosen + ["kill"] * count)[:count]
    dice.shuffle(chosen)
    return chosen


def main() -> None:
    seed, count, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    import torch

    import bench.execution.executors.inline  # all that a driver imports
    import bench.metrics.scoring  # noqa: F401

    torch.set_num_threads(1)
    fork_workers()
    harness = Harness(folder, seed)
    for kind in schedule(count, harness.random):
        harness.inject(kind)
    total = Counter({name: sum(getattr(each, name) for each in harness.counts.values())
                     for name in ("injected", "lost", "doubled", "told")})  # fmt: skip
    print(json.dumps({"total": dict(total), "kinds": {kind: vars(each) for kind, each in harness.counts.items()}}))


if __name__ == "__main__":
    main()
