"""A half-done study on its way to another folder: it goes on there with the same bits; a bad one does nothing."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import answer
from bench.errors import UserError
from bench.execution.carry import MANIFEST, unpack
from bench.execution.progress import Progress
from bench.execution.run_study import Silence, run_study
from bench.harness.teachers import training
from bench.harness.teachers.passport import passport_text
from bench.records import load_records
from bench.spec.trial import Trial
from bench.utils.paths import teacher_folder
from bench.utils.stopping import Stopped, listening

NETWORK = """
from layers import middle
from torch import nn

def network(image, classes):
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), *middle(), nn.Linear(64 * image.channels, classes))
"""
TASKS = """
- name: own
  data: digits
  image: {channels: 1, size: 32, mean: [0.3], std: [0.25]}
  teacher: {network: lenet5, recipe: quick, seed: 3}
  student: networks/student.py:network
"""
METHOD = '''
import os
import torch
from beside import RATE
from bench import Access, Data, Session, method

@method("mine", title="Mine", paper="none", data=Data.NONE, access=Access.LOGITS)
def mine(s: Session) -> None:
    """Trains on noise."""
    opt = s.keep("opt", torch.optim.SGD(s.student.parameters(), RATE, momentum=0.9))
    for _ in s.steps("train"):
        s.distill(opt, s.noise(4, *s.task.image.shape))
'''
STUDY = """
name: carried
tasks: [../tasks.yaml]
methods: [../methods/mine.py]
seeds: [0, 1, 2]
budget: {steps: 60}
points: 3
selection: [last, teacher_agreement]
"""
Change = Callable[[dict[str, bytes]], None]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study of one's own method, task and network, each in files of their own."""
    folder = tmp_path / "project"
    files = {
        "studies/carried.yaml": STUDY,
        "tasks.yaml": TASKS,
        "methods/mine.py": METHOD,
        "methods/beside.py": "RATE = 0.1\n",
        "networks/student.py": NETWORK,
        "networks/layers.py": "from torch import nn\n\ndef middle():\n    return [nn.Dropout(0.1)]\n",
        "networks/unrelated.py": "",
        "extra.py": METHOD.replace("mine", "extra").replace("from beside import RATE", "RATE = 0.05"),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    return folder


class StopsAtSecond(Silence):
    """One trial ends, the next is stopped on the way, the third has not begun."""

    def __init__(self) -> None:
        self.ended_count = 0

    def update(self, trial: Trial, progress: object) -> None:
        del trial
        if self.ended_count and isinstance(progress, Progress) and progress.share > 0:
            os.kill(os.getpid(), signal.SIGTERM)

    def ended(self, trial: Trial, record: object) -> None:
        del trial, record
        self.ended_count += 1


def half_done(results: Path, extra: tuple[Path, ...] = ()) -> None:
    with pytest.raises(Stopped):
        run_study(
            Path("studies/carried.yaml"),
            results=results,
            executor="inline",
            isolation="none",
            method_files=extra,
            audience=StopsAtSecond(),
        )


def students(results: Path) -> dict[str, bytes]:
    return {
        record.id: (results / "trials" / record.id / "student.safetensors").read_bytes()
        for record in load_records(results)
    }


def test_it_goes_on_in_another_folder_with_the_same_bits(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = (Path("extra.py"),)
    run_study(
        Path("studies/carried.yaml"),
        results=tmp_path / "whole",
        executor="inline",
        isolation="none",
        method_files=extra,
    )
    half_done(tmp_path / "half", extra)
    pack = ["pack", "studies/carried.yaml", str(tmp_path / "p.tar"), "--results", str(tmp_path / "half")]
    assert answer([*pack, "--method", "extra.py", "--device", "cpu"]) == 2
    assert "5 of 6 trials are not finished; add --unfinished" in capsys.readouterr().err
    assert answer([*pack, "--method", "extra.py", "--unfinished"]) == 0
    assert "of them with a checkpoint" in capsys.readouterr().out
    with tarfile.open(tmp_path / "p.tar") as tar:
        names = tar.getnames()
    assert "files/networks/layers.py" in names
    assert "files/methods/beside.py" in names
    assert "files/networks/unrelated.py" not in names
    assert not [name for name in names if "order.json" in name or ".lock" in name]
    shutil.rmtree(project)  # nothing is taken from there any more
    shutil.rmtree(tmp_path / "half")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "other cache"))
    assert answer(["unpack", "p.tar", "there"]) == 0
    said = capsys.readouterr().out
    stamps = {file: file.read_bytes() for file in tmp_path.glob("there/results/trials/*/record.json")}
    assert len(stamps) == 1
    assert len(list(tmp_path.glob("there/results/work/*/checkpoint.pt"))) == 1
    place, command = said.partition("next: cd ")[2].strip().split(" && ")
    monkeypatch.chdir(place)
    monkeypatch.setattr(training, "train", None)  # the teacher came with it
    words = [*shlex.split(command)[1:], "--executor", "inline", "--isolation", "none", "--quiet"]
    assert answer(words) == 0, capsys.readouterr().err
    assert "1 of them before this run" in capsys.readouterr().out
    assert students(tmp_path / "there/results") == students(tmp_path / "whole")
    assert sum(record.resumed for record in load_records(tmp_path / "there/results")) == 1
    assert {file: file.read_bytes() for file in stamps} == stamps


@pytest.mark.usefixtures("project")
def test_a_teacher_in_training_is_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)
    seen: list[float] = []

    class StopsTheTeacher(Silence):
        stop = True

        def teacher(self, task: str, progress: training.TrainingProgress) -> None:
            del task
            seen.append(progress.epoch)
            if self.stop and progress.epoch > 0.5:
                os.kill(os.getpid(), signal.SIGTERM)

    file = Path("studies/carried.yaml")
    audience = StopsTheTeacher()
    with pytest.raises(Stopped):
        run_study(file, results=tmp_path / "half", executor="inline", isolation="none", audience=audience)
    at = seen[-1]
    assert (
        answer(["pack", str(file), str(tmp_path / "p.tar"), "--results", str(tmp_path / "half"), "--unfinished"]) == 0
    )
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "other cache"))
    package = unpack(tmp_path / "p.tar", tmp_path / "there")
    assert len(package.training) == 1
    seen.clear()
    audience.stop = False
    monkeypatch.chdir(package.folder)
    with listening():
        run_study(file, results=tmp_path / "there/results", audience=audience)
    assert seen[0] == at


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        found = {}
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            found[member.name] = content.read()
    return found


def rewrite(file: Path, content: dict[str, bytes], more: tuple[tarfile.TarInfo, ...] = ()) -> None:
    with tarfile.open(file, "w") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in more:
            tar.addfile(member)


def listed(content: dict[str, bytes], name: str, data: bytes) -> None:
    """Put a file into a package, and into its list."""
    import hashlib

    values = json.loads(content[MANIFEST])
    values["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    content[MANIFEST] = json.dumps(values).encode()
    content[name] = data


def set_in_manifest(key: str, value: object) -> Change:
    def change(content: dict[str, bytes]) -> None:
        content[MANIFEST] = json.dumps({**json.loads(content[MANIFEST]), key: value}).encode()

    return change


def first(content: dict[str, bytes], beginning: str) -> str:
    return next(name for name in content if name.startswith(beginning))


def changed_bit(beginning: str) -> Change:
    def change(content: dict[str, bytes]) -> None:
        name = first(content, beginning)
        content[name] = content[name][:-1] + bytes([content[name][-1] ^ 1])

    return change


def swapped_teacher(content: dict[str, bytes]) -> None:
    listed(content, next(n for n in content if n.endswith("/weights.safetensors")), b"other weights")


def changed_record(content: dict[str, bytes]) -> None:
    name = next(name for name in content if name.endswith("record.json"))
    listed(content, name, content[name].replace(b'"carried"', b'"changed"'))


BAD: dict[str, tuple[Change, str]] = {
    "climbs out": (lambda c: listed(c, "files/../../evil.py", b""), "has no place in a package"),
    "absolute": (lambda c: listed(c, "/tmp/evil.py", b""), "has no place in a package"),
    "beside the places": (lambda c: listed(c, "results/evil.py", b""), "has no place in a package"),
    "no code": (lambda c: listed(c, "files/.bashrc", b""), "has no place in a package"),
    "no id": (lambda c: listed(c, "results/work/../../x/checkpoint.pt", b""), "has no place in a package"),
    "another file of the cache": (lambda c: listed(c, "teachers/x/evil.so", b""), "has no place in a package"),
    "control characters": (lambda c: listed(c, "files/a\x1b[31m.py", b""), "has no place in a package"),
    "backslash": (lambda c: listed(c, "files/..\\..\\a.py", b""), "has no place in a package"),
    "not listed": (lambda c: c.update({"files/more.py": b""}), "that its list does not name"),
    "missing": (lambda c: c.pop(first(c, "files/")) and None, "lacks"),
    "a changed method": (changed_bit("files/methods/mine.py"), "has changed since it was packed"),
    "a changed checkpoint": (changed_bit("results/work/"), "has changed since it was packed"),
    "another teacher in its place": (swapped_teacher, "the teacher .* is damaged"),
    "a changed record": (changed_record, "checksum does not fit"),
    "another version": (set_in_manifest("schema", 2), "has version 2"),
    "other rules": (set_in_manifest("suite", "9.9.0"), "with other rules"),
    "a study outside": (set_in_manifest("study", "../../../../etc/passwd"), "is not in it"),
    "a method outside": (set_in_manifest("methods", ["../../x.py"]), "is not in it"),
    "a number for a name": (set_in_manifest("study", 3), "'study' is missing or wrong"),
    "no list": (lambda c: c.pop(MANIFEST) and None, "does not begin with package.json"),
}


@pytest.fixture
def package(project: Path, tmp_path: Path) -> Path:
    del project
    half_done(tmp_path / "half")
    file = tmp_path / "p.tar"
    results = ["--results", str(tmp_path / "half")]
    assert answer(["pack", "studies/carried.yaml", str(file), *results, "--unfinished"]) == 0
    return file


def test_a_bad_package_is_refused_and_nothing_is_written(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = members(package)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "other cache"))
    before = sorted(tmp_path.iterdir())
    for name, (change, said) in BAD.items():
        content = dict(good)
        change(content)
        rewrite(package, content)
        with pytest.raises(UserError, match=said) as error:
            unpack(package, tmp_path / "there")
        assert "\x1b" not in str(error.value), name
        assert sorted(tmp_path.iterdir()) == before, name
        assert not teacher_folder().exists(), name
    rewrite(package, good)
    assert unpack(package, tmp_path / "there").unfinished


@pytest.mark.parametrize(
    ("kind", "link"), [(tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, MANIFEST), (tarfile.FIFOTYPE, "")]
)
def test_links_and_pipes_are_refused(package: Path, tmp_path: Path, kind: bytes, link: str) -> None:
    content = members(package)
    listed(content, "files/link.py", b"")
    del content["files/link.py"]
    member = tarfile.TarInfo("files/link.py")
    member.type, member.linkname = kind, link
    rewrite(package, content, (member,))
    with pytest.raises(UserError, match="not a plain file"):
        unpack(package, tmp_path / "there")
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("content", [b"", b"no tar", b"\0" * 20_480, b"\x1f\x8b\x08" + b"\0" * 600])
def test_what_is_no_package_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.tar").write_bytes(content)
    with pytest.raises(UserError, match="not a package of `dfkd pack`"):
        unpack(tmp_path / "p.tar", tmp_path / "there")
    with pytest.raises(UserError, match="cannot unpack"):
        unpack(tmp_path / "absent.tar", tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_truncated_package_is_refused(package: Path, tmp_path: Path) -> None:
    package.write_bytes(package.read_bytes()[: package.stat().st_size // 2])
    with pytest.raises(UserError):
        unpack(package, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_cache_with_another_teacher_is_left_alone(package: Path, tmp_path: Path) -> None:
    (teacher,) = (each for each in teacher_folder().iterdir() if (each / "passport.json").exists())
    passport = json.loads((teacher / "passport.json").read_text(encoding="utf-8"))
    (teacher / "passport.json").write_bytes(passport_text({**passport, "sha256": "0" * 64}))
    with pytest.raises(UserError, match="the cache has another teacher"):
        unpack(package, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    (teacher / "passport.json").write_text(json.dumps(passport), encoding="utf-8")
    assert unpack(package, tmp_path / "there").teachers == (teacher.name,)
    with pytest.raises(UserError, match="exists"):
        unpack(package, tmp_path / "there")


def test_a_study_that_names_files_by_absolute_paths_is_refused(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "studies/carried.yaml").write_text(
        STUDY.replace("../methods/mine.py", str(project / "methods/mine.py")), encoding="utf-8"
    )
    half_done(tmp_path / "half")
    results = ["--results", str(tmp_path / "half")]
    assert answer(["pack", "studies/carried.yaml", str(tmp_path / "p.tar"), *results, "--unfinished"]) == 2
    assert "by an absolute path" in capsys.readouterr().err
    assert not (tmp_path / "p.tar").exists()


def test_what_cannot_be_packed_is_said(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del project
    study = ["pack", "studies/carried.yaml"]
    for more, said in (
        (
            [str(tmp_path / "p.tar"), "--unfinished", "--results", str(tmp_path / "none")],
            "nothing of this study has run",
        ),
        ([str(tmp_path / "p.zip"), "--unfinished"], "ends in .tar"),
        ([str(tmp_path), "--unfinished"], "ends in .tar"),
    ):
        assert answer([*study, *more]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "p.tar").exists()
