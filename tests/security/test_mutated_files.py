"""Files that anybody may have damaged, a random change at a time: a reader takes them, or says one sentence, in time.

Some hundred changes of each kind of file always run, ten thousand with the slow tests.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from record_builder import add, make_record, make_sheet

from bench.analysis.regression.filing import read_filed
from bench.analysis.regression.speed import read_run
from bench.data.pool import load_pool
from bench.errors import UserError
from bench.execution.executors.worker import read_order
from bench.execution.progress import read_progress
from bench.harness.checkpoint import load_trial, save_checkpoint
from bench.harness.teachers.passport import read_passport
from bench.records import load_curves, load_frame, load_records, open_results
from bench.records.archive import check_archive, write_archive
from bench.records.folder import load_record, read_curve
from bench.records.query import query
from bench.records.sheets import small_sheet
from bench.spec.custom_tasks import published_of_kept
from bench.spec.study import load_study
from bench.spec.task import read_tasks
from bench.spec.trial import IDENTITY, Trial

QUICK, MANY = 200, 10_000
SLOWEST = 5.0  # seconds of the processor for one file: a loaded machine is no failure
PIECES = [
    b"\0", b"\xff\xfe", b"\x1b[2J", b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"Infinity", b"9" * 30,
    b"9" * 5000,     b"[" * 200, b"{" * 200, b'{"a":' * 150, b"]", b"}", b",", b":", b'"', b"\n", b"\r", b" ",
    b"\t", b'"../../x"', b"'",     b"\\u0000", b"\\ud800", b"&a [*a]", b"*a", b"!!python/name:os.system",
    b"<<: *a", b"- ", b"? ", b"|", b">", b"%", b"@",     "é\u202e\u2028".encode(), b"1.5", b"{}", b"[]", b'""',
    b"[[1]]", b"2000-99-99", b"0x7f", b"1_000", b"~",
]  # fmt: skip


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one to four random changes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        length = rng.choice([1, 1, 2, 8, 64, 512])
        kind = rng.randrange(7)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[place : place + length]
        elif kind == 2:
            data[place:place] = rng.choice(PIECES)
        elif kind == 3:
            data[place : place + length] = rng.choice(PIECES)
        elif kind == 4:
            data[place:place] = data[place : place + length]
        elif kind == 5 and rng.random() < 0.2:
            del data[place:]
        else:
            data[place : place + 4] = rng.randbytes(4)
    return bytes(data)


# Each makes a sound file in a folder, and gives its content and what reads another content in its place.
Reader = Callable[[bytes], object]


def _file(path: Path, read: Callable[[], object]) -> tuple[bytes, Reader]:
    def reader(content: bytes) -> object:
        path.write_bytes(content)
        return read()

    return path.read_bytes(), reader


def _results(folder: Path) -> Path:
    results = open_results(folder / "results", create=True)
    add(results, make_record("dafl", 0))
    return results


def a_study(folder: Path) -> tuple[bytes, Reader]:
    file = folder / "study.yaml"
    file.write_text(
        "name: mine\ndescription: &d A study.\ntasks: [digits/lenet5-half]\nmethods:\n  - noise\n"
        "  - kd: {lr_student: [0.1, 0.2]}\n"
        "seeds: [0, 1]\nbudget: {steps: 20}\nimage_metrics: [class_balance]\npoints: 4\nselection: [last, ema]\n"
    )
    return _file(file, lambda: load_study(file))


def tasks(folder: Path) -> tuple[bytes, Reader]:
    file = folder / "tasks.yaml"
    file.write_text(
        "- name: own/lenet\n  data: digits\n  image: {channels: 1, size: 32, mean: [0.5], std: [0.5]}\n"
        "  augment: {flip: true}\n  teacher: {network: lenet5, recipe: digits}\n  student: lenet5-half\n"
        "  published: {teacher: {score: 0.97, source: 'A'}}\n"
    )
    return _file(file, lambda: read_tasks(file))


def a_record(folder: Path) -> tuple[bytes, Reader]:
    trial = next((_results(folder) / "trials").iterdir())
    return _file(trial / "record.json", lambda: load_record(trial))


def a_record_without_checksum(folder: Path) -> tuple[bytes, Reader]:
    results = _results(folder)
    file = next((results / "trials").iterdir()) / "record.json"
    value = json.loads(file.read_text())
    del value["checksum"], value["files"]
    file.write_text(json.dumps(value))
    return _file(file, lambda: (load_frame(results), query([results], "select * from trials")))


def a_curve(folder: Path) -> tuple[bytes, Reader]:
    trial = next((_results(folder) / "trials").iterdir())
    return _file(trial / "curve.jsonl", lambda: read_curve(trial, {}))


def an_archive(folder: Path) -> tuple[bytes, Reader]:
    results = _results(folder)
    (results / "study.yaml").write_text("name: demo\n")
    file = folder / "a.parquet"
    write_archive(results, file)

    def read() -> None:
        check_archive(file)
        load_records(file)
        load_curves(file)

    return _file(file, read)


def a_checkpoint(folder: Path) -> tuple[bytes, Reader]:
    context = {"phases": ["train"], "kept": {"w": torch.ones(3)}}
    save_checkpoint(folder, "id", {"context": context, "curve": {"rows": [], "evaluated": [0, 0]}, "resumed": 0})
    file = folder / "checkpoint.pt"
    whole = file.read_bytes()

    def read(content: bytes) -> None:
        file.write_bytes(content)
        said: list[str] = []
        assert load_trial(folder, "id", said.append) is not None or len(said) == 1
        # and one whose checksum was made again
        file.write_bytes(content[:-32] + hashlib.sha256(content[:-32]).digest())
        load_trial(folder, "id", said.append)

    return whole, read


def an_order(folder: Path) -> tuple[bytes, Reader]:
    identity = make_record("dafl", 0).trial.model_dump(mode="json")
    values = {name: identity[name] for name in IDENTITY if name in identity}
    trial = Trial(**values | {"selection": tuple(identity["selection"])})
    order = {"trial": trial.to_json(), "results": "x", "data_folder": None, "weights": None}
    order |= {"checkpoint_seconds": 30.0, "gpu": None, "isolation": "auto"}
    work = folder / trial.id
    work.mkdir()
    (work / "order.json").write_text(json.dumps(order))
    assert read_order(work)[0].id == trial.id
    return _file(work / "order.json", lambda: read_order(work))


def progress(folder: Path) -> tuple[bytes, Reader]:
    file = folder / "progress.json"
    file.write_text('{"state": "running", "share": 0.25, "score": 0.5, "seconds": 12.5}')
    return _file(file, lambda: read_progress(folder))


def a_benchmark(folder: Path) -> tuple[bytes, Reader]:
    file = folder / "speed.json"
    stats = {"min": 0.1, "median": 0.2, "mean": 0.2, "rounds": 5}
    found = [{"fullname": f"a.py::test_{name}", "stats": stats} for name in ("calibration", "step[dafl]")]
    file.write_text(json.dumps({"benchmarks": found, "commit_info": {"id": "0" * 40, "dirty": False}}))
    return _file(file, lambda: read_run(file))


def own_tasks(folder: Path) -> tuple[bytes, Reader]:
    results = _results(folder)
    (results / "tasks.json").write_text(
        '[{"name": "own/task", "published": {"teacher": {"score": 0.97, "source": "A"}}}]'
    )
    return _file(results / "tasks.json", lambda: _published(results))


def _published(results: Path) -> None:
    published_of_kept(results)


def a_label(folder: Path) -> tuple[bytes, Reader]:
    results = _results(folder)
    (results / "tracked.json").write_text(
        json.dumps({"commit": "0" * 40, "date": "2026-01-01", "subject": "A subject"})
    )
    return _file(results / "tracked.json", lambda: read_filed("x", results))


def a_passport(folder: Path) -> tuple[bytes, Reader]:
    names = ("key", "network", "data", "image", "sha256", "score", "recipe", "seed")
    (folder / "passport.json").write_text(json.dumps({"schema": 1} | dict.fromkeys(names, "x")))
    return _file(folder / "passport.json", lambda: read_passport(folder))


def a_sheet(folder: Path) -> tuple[bytes, Reader]:
    return make_sheet(folder / "images.png").read_bytes(), small_sheet


def a_pool(folder: Path) -> tuple[bytes, Reader]:
    file = folder / "pool.npy"
    np.save(file, np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8))
    return _file(file, lambda: load_pool(str(file), size=8, channels=1))


KINDS = [
    a_study, tasks, a_record, a_record_without_checksum, a_curve, an_archive, a_checkpoint, an_order, progress,
    a_benchmark, own_tasks, a_label, a_passport, a_sheet, a_pool,
]  # fmt: skip


def try_all(kind: Callable[[Path], tuple[bytes, Reader]], folder: Path, count: int) -> dict[str, float]:
    """Read so many changed files; what was read, what was refused, and the longest time for one."""
    content, read = kind(folder)
    read(content)
    rng = random.Random(kind.__name__)
    found = {"read": 0.0, "refused": 0.0, "slowest": 0.0}
    for number in range(count):
        changed = mutated(content, rng)
        began = time.process_time()
        try:
            read(changed)
            found["read"] += 1
        except UserError:
            found["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"change {number} of {kind.__name__}: {type(error).__name__}: {error}") from error
        spent = time.process_time() - began
        assert spent < SLOWEST, (number, spent)
        found["slowest"] = max(found["slowest"], spent)
    return found


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_some_changes_of_every_kind_of_file(
    kind: Callable[[Path], tuple[bytes, Reader]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    assert try_all(kind, tmp_path, QUICK // (4 if kind is an_archive else 1))["refused"] > 0 or kind in (
        a_checkpoint,  # one that cannot be used costs the work in it
        progress,  # and what cannot be read is not shown
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_ten_thousand_changes_of_every_kind_of_file(
    kind: Callable[[Path], tuple[bytes, Reader]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    print(kind.__name__, try_all(kind, tmp_path, MANY))
