"""Every mistake of a user's ends in one clear sentence, exit code 2, and nothing half-written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import answer

GOOD = """
name: mine
tasks: [digits/lenet5-half]
methods:
  - noise: {batch: 4}
seeds: [0]
budget: {steps: 3}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DFKD_DATA", raising=False)
    Path("study.yaml").write_text(GOOD.lstrip(), encoding="utf-8")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence with which a command is refused, having written nothing."""
    before = sorted(Path().rglob("*"))
    assert answer(list(arguments)) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("dfkd: ")
    assert written.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return written.err.removeprefix("dfkd: ").strip()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("name: mine", "name: [mine", "study.yaml, line 2: not valid YAML: "),
        ("noise: {batch: 4}", "noise: {batch: []}", "study.yaml, line 4: the grid of option 'batch' is empty"),
        ("{steps: 3}", "{steps: -3}", "study.yaml, line 6: budget 'steps' must be a positive number, not -3"),
        ("{steps: 3}", "{}", "study.yaml, line 6: a budget needs at least one limit: seconds, steps, "),
        ("{steps: 3}", "{setps: 3}", "study.yaml, line 6: unknown budget 'setps'; did you mean 'steps'?"),
        ("seeds: [0]", "seeds: [0, 1, 0]", "study.yaml, line 5: seeds: 0 is repeated"),
        ("seeds:", "sedes:", "study.yaml, line 5: unknown key 'sedes'; did you mean 'seeds'?"),
        ("noise:", "niose:", "study.yaml, line 4: unknown method 'niose'; did you mean 'noise'?"),
        (
            "digits/",
            "digit/",
            "study.yaml, line 2: unknown task 'digit/lenet5-half'; did you mean 'digits/lenet5-half'?",
        ),
        ("batch:", "bach:", "study.yaml, line 4: noise has no option 'bach'; did you mean 'batch'?"),
        ("batch: 4", "batch: four", "study.yaml, line 4: option 'batch' must be int, not 'four'"),
        ("name: mine\n", "", "study.yaml, line 1: the key 'name' is missing"),
        (GOOD.lstrip(), "", "study.yaml is empty; a study needs name, tasks, methods and budget"),
        (GOOD.lstrip(), "# nothing\n", "study.yaml is empty; a study needs name, tasks, methods and budget"),
        (GOOD.lstrip(), "just text", "study.yaml: expected keys and values, not 'just text'"),
    ],
)
def test_a_mistake_in_a_study(old: str, new: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert old in GOOD
    Path("study.yaml").write_text(GOOD.lstrip().replace(old, new), encoding="utf-8")
    told = refused(capsys, "run", "study.yaml")
    assert told.startswith(sentence.replace(", line 1", "")) or told.startswith(sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "nothing.yaml"], "no such study file: nothing.yaml"),
        (["run", "dmeo"], "no such study file: dmeo; did you mean 'demo'?"),
        (["run", "."], ". is a folder; name a YAML file"),
        (["run", "study.yaml", "--device", "tpu"], "unknown device 'tpu'; this machine has: cpu"),
        (["run", "study.yaml", "--device", "cuda:99"], "there is no device 'cuda:99'; this machine has: cpu"),
        (["run", "study.yaml", "--executor", "inlin"], "unknown executor 'inlin'; did you mean 'inline'?"),
        (["run", "study.yaml", "--results", "study.yaml/out"], "cannot write to study.yaml/out: Not a directory"),
        (["run", "study.yaml", "--method", "gone.py"], "no such method file: "),
        (["list", "methods", "dalf"], "unknown method 'dalf'; did you mean 'dafl'?"),
        (["check", "dalf"], "unknown method 'dalf'; did you mean 'dafl'?"),
        (["check", "dafl", "--task", "digit/lenet5-half"], "unknown task 'digit/lenet5-half'; did you mean"),
        (["check", "gone.py"], "no such method file: "),
        (["check", "folder"], "unknown method 'folder'"),
        (["check", "dafl", "--isolation", "proc"], "unknown isolation 'proc'; did you mean 'process'?"),
        (["run", "study.yaml", "--method", "folder"], "{here}/folder is a folder; name a method file"),
        (["run", "study.yaml", "--workers", "0"], "--workers must be at least 1, not 0; see `dfkd run --help`"),
        (["run", "study.yaml", "--workers", "two"], "--workers must be a whole number, not two; see"),
        (["run", "study.yaml", "--checkpoint-seconds", "nan"], "--checkpoint-seconds must be at least 0, not nan"),
        (["run", "study.yaml", "--quite"], "no such option: --quite; did you mean '--quiet'?"),
        (["run", "study.yaml", "--qqqq"], "no such option: --qqqq; allowed: --allow-altered, "),
        (["run", "study.yaml", "more"], "unexpected argument: more; see `dfkd run --help`"),
        (["run", "study.yaml", "--results"], "option '--results' requires an argument"),
        (["run", "study.yaml", "--dry-run=yes"], "option '--dry-run' does not take a value"),
        (["run"], "missing argument 'STUDY'; see `dfkd run --help`"),
        (["rnu", "study.yaml"], "no such command 'rnu'; did you mean 'run'?"),
        (["run", "study.yaml", "--stop-at", "noon"], "--stop-at must be a time of day such as 14:30 or 14:30:15, not"),
        (["score", "mine", "--images", "1"], "--images must be at least 2, not 1; see `dfkd score --help`"),
        (["plan", "study.yaml", "--detect", "x"], "--detect must be a number, not x; see `dfkd plan --help`"),
        (["report", "--results", "study.yaml"], "study.yaml is neither a results folder nor an archive"),
        (["show", "ab", "--results", "folder/study.yaml"], "folder/study.yaml is neither a results folder nor an"),
        (["report", "--results", "fodler"], "fodler does not exist; did you mean 'folder'?"),
        (["report", "--results", "recrods.parquet"], "recrods.parquet does not exist; did you mean the file 'records"),
        (["report", "--results", "folder"], "folder is not a results folder (it has no results.json); name one"),
        (["status", "records.parquet"], "records.parquet is an archive, and nothing runs in one; name a study or a"),
        (["cancel", "fodler"], "there is no study or results folder fodler; did you mean 'folder'?"),
        (["retry", "study.yaml", "--failed", "--results", "fodler"], "fodler does not exist; did you mean 'folder'?"),
        (["query", "select 1", "--csv", "--json"], "--csv and --json cannot be combined; choose one"),
        (["teacher", "import", "folder", "--task", "digits/lenet5-half"], "folder is a folder; name a checkpoint"),
    ],
)
def test_a_mistake_in_a_command(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder").mkdir()
    Path("folder/study.yaml").touch()
    Path("records.parquet").touch()
    assert refused(capsys, *arguments).startswith(sentence.format(here=Path.cwd()))


def test_no_words_at_all_are_answered_with_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["list"]):
        assert answer(words) == 2
        assert capsys.readouterr().err.startswith("Usage: dfkd ")


UNUSABLE = {
    "def broken(:\n": "own.py, line 1: not valid Python: ",
    "x = 1\n": "own.py: no method found; decorate a function with @method(...)",
    "import nothing_like_this\nx = nothing_like_this.method\n": "own.py, line 1: importing it fails with",
}
TAKING = [["run", "study.yaml", "--method"], ["check"], ["list", "methods", "--method"]]


# A file is read in a process of its own: quickly, each command meets one of them, and each of them one command.
@pytest.mark.parametrize(
    ("command", "source"),
    [
        pytest.param(command, source, marks=[pytest.mark.slow] if row != column else [])
        for row, command in enumerate(TAKING)
        for column, source in enumerate(UNUSABLE)
    ],
)
def test_a_method_file_that_cannot_be_used(command: list[str], source: str, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = UNUSABLE[source]
    Path("own.py").write_text(source, encoding="utf-8")
    assert sentence in refused(capsys, *command, "own.py")


def test_a_folder_with_other_files_is_no_place_for_results(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").touch()
    assert "contains other files" in refused(capsys, "run", "study.yaml", "--results", "mine")


def test_a_truncated_data_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Path("study.yaml")
    study.write_text(study.read_text(encoding="utf-8").replace("digits/", "mnist/"), encoding="utf-8")
    images = tmp_path / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.parent.mkdir(parents=True)
    images.write_bytes(b"\0\0\x08\x03\0\0\xea\x60\0\0\0\x1c\0\0\0\x1c" + b"\0" * 1000)
    told = refused(capsys, "run", "study.yaml", "--data", "data")
    assert f"{images}: truncated" in told
    assert "`dfkd data fetch mnist --data " in told


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "somewhere")

    monkeypatch.setattr("bench.execution.run_study.shutil.copyfile", full)
    assert answer(["run", "study.yaml", "--executor", "inline"]) == 2
    assert "is full; free some space and run the same command again" in capsys.readouterr().err
    monkeypatch.setattr("bench.cli.run.plan_study", full)
    assert answer(["run", "study.yaml", "--dry-run"]) == 2
    assert capsys.readouterr().err == (
        "dfkd: the disk is full (somewhere); free some space and run the same command again\n"
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Cannot allocate memory (os error 12)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
    ids=["Python", "torch", "system"],
)
def test_no_memory(error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("bench.cli.run.plan_study", full)
    assert answer(["run", "study.yaml", "--dry-run"]) == 2
    assert "dfkd: this machine has no memory left" in capsys.readouterr().err


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def forbidden(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", "study.yaml")

    monkeypatch.setattr(Path, "read_text", forbidden)
    assert answer(["run", "study.yaml"]) == 2
    assert "study.yaml" in (told := capsys.readouterr().err)
    assert "Permission denied" in told


def test_a_mistake_in_our_own_code_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bench.cli.run.plan_study", broken)
    with pytest.raises(ZeroDivisionError):
        answer(["run", "study.yaml", "--dry-run"])


def dfkd(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "bench.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": root}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_command_itself_exits_with_2_and_no_traceback() -> None:
    done = dfkd("run", "nothing.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dfkd: no such study file: nothing.yaml\n"


@pytest.mark.parametrize("arguments", [["list", "metrics", "--json"], ["list", "methods"], ["--help"]])
def test_a_reader_that_has_seen_enough_is_no_error(arguments: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141  # as of a program that SIGPIPE ended: not that of a success


@pytest.mark.parametrize(
    ("redirected", "code"),
    [
        ("list methods >&-", 0),
        ("--help >&-", 0),
        ("--version <&- >&- 2>&-", 0),
        ("list methods nope >&- 2>&-", 2),
        ("list methods nope 2>/dev/full", 2),
        ("list methods >/dev/full", 2),
    ],
)
def test_closed_and_full_streams_change_no_exit_code_and_give_no_traceback(redirected: str, code: int) -> None:
    command = f'"{sys.executable}" -m bench {redirected}'
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_file_that_was_meant_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine_too.py").write_text("", encoding="utf-8")
    for arguments in (["list", "methods", "mine_too"], ["check", "mine_too"]):
        assert refused(capsys, *arguments).endswith("; did you mean the file 'mine_too.py'?")
    assert refused(capsys, "run", "study").endswith("no such study file: study; did you mean the file 'study.yaml'?")
    assert refused(capsys, "run", "elsewhere/studies/demo.yaml").endswith("; did you mean 'demo'?")
    assert "added to one with --method" in refused(capsys, "run", "mine_too.py")
    assert "did you mean the file" in refused(capsys, "run", "study.yaml", "--method", "mine_too")
    Path("study.yaml").write_text(GOOD.lstrip().replace("noise: {batch: 4}", "mine_too"), encoding="utf-8")
    assert "line 4: unknown method 'mine_too'; did you mean the file" in refused(capsys, "run", "study.yaml")
    Path("below").mkdir()
    Path("study.yaml").rename("below/study.yaml")
    assert "; did you mean `--method mine_too.py`?" in refused(capsys, "run", "below/study.yaml")
    Path("mine_too.py").unlink()
    assert refused(capsys, "run", "below/study.yaml").endswith("(one of your own: --method FILE)")


def test_a_terminal_without_unicode_gets_an_answer() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "bench.cli", "data", "status", "digits"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stdout.decode("ascii")
