"""Submissions: made of a finished study, verified by somebody else, and refused where they are not what they say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import answer
from bench.execution import verify as verify_module
from bench.execution.submit import code_of, submission_of
from bench.records import load_record, load_records
from bench.records.archive import files_beside, write_archive
from bench.records.folder import replace_record
from bench.records.verified import verified

METHOD = '''
"""A method of somebody's own, with a module beside it."""
import torch
from bench import Access, Data, Session, method

from helpers import RATE


@method("mine", title="Mine", paper="none", data=Data.NONE, access=Access.LOGITS)
def mine(s: Session) -> None:
    opt = s.keep("opt", torch.optim.SGD(s.student.parameters(), RATE))
    for _ in s.steps("train"):
        s.distill(opt, s.noise(8, *s.task.image.shape))
'''
STUDY = """
name: small
tasks: [digits/lenet5-half]
methods: [mine.py, noise: {batch: 8}]
seeds: [0, 1]
budget: {steps: 3}
points: 1
selection: [last]
"""

SUBMIT = ["submit", "study.yaml", "--by", "A Lab"]
isolated = pytest.mark.skipif(
    verify_module.isolated("auto", "cpu").way is None, reason="methods cannot be isolated here"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder with a study of four trials that has run."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "mine.py").write_text(METHOD, encoding="utf-8")
    (folder / "helpers.py").write_text("RATE = 0.05\n", encoding="utf-8")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert answer(["run", "study.yaml", "--executor", "inline", "--isolation", "none"]) == 0
    return folder


@pytest.fixture
def lab(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "lab"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def submission(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive, alone in a folder of somebody else."""
    file = tmp_path / "received.parquet"
    assert answer([*SUBMIT, "--link", "https://lab.example/mine", "--out", str(file)]) == 0
    shutil.rmtree(lab)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return file


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert answer(arguments) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("lab")
def test_a_finished_study_is_packed_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(SUBMIT) == 0
    file = Path("results/submissions/small/records.parquet")
    said = capsys.readouterr().out
    assert "4 trials, 4 of them successful" in said
    assert "with the code of mine" in said
    assert f"dfkd verify {file}" in said
    assert {record.id for record in load_records(file)} == {record.id for record in load_records(Path("runs/small"))}
    held = files_beside(file)
    assert held["methods/mine/mine.py"] == METHOD
    assert held["methods/mine/helpers.py"] == "RATE = 0.05\n"
    assert held["study.yaml"] == STUDY
    told = submission_of(file)
    assert told is not None
    assert (told.by, told.methods) == ("A Lab", ("mine/mine.py",))


@isolated
def test_somebody_else_verifies_it_without_the_method_file(
    submission: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(["verify", str(submission), "--all", "--executor", "inline"]) == 0
    assert "verified 4 of 4 trials" in capsys.readouterr().out
    for record in load_records(submission):
        assert record.provenance["verified"]["outcome"] == "same bits"
        assert "seccomp" in record.provenance["verified"]["isolation"]
    assert submission_of(submission) is not None  # what it held beside the records is still there
    assert answer(["report", "--results", str(submission), "--out", "page", "--trial-pages", "0"]) == 0
    assert Path("page/leaderboard.md").read_text(encoding="utf-8").count("2 (2 verified)") == 2


@isolated
def test_a_better_score_than_the_true_one_is_found(submission: Path, tmp_path: Path) -> None:
    """Forged with checksums that fit: only running it again tells."""
    folder = tmp_path / "unpacked"
    assert answer(["merge", str(submission), "--out", str(folder)]) == 0
    forged = next(trial for trial in (folder / "trials").iterdir() if load_record(trial).trial.method == "mine")
    replace_record(forged, load_record(forged).model_copy(update={"scores": {"last": 0.999}}))
    file = tmp_path / "forged.parquet"
    write_archive(folder, file)
    assert answer(["verify", str(file), "--trial", forged.name, "--executor", "inline"]) == 1
    found = {record.id: verified(record) for record in load_records(file)}
    assert found[forged.name] is False
    assert list(found.values()).count(None) == 3


def repacked(submission: Path, tmp_path: Path, change: Callable[[Path], object]) -> Path:
    """The submission again, after a change of its unpacked folder."""
    folder = tmp_path / "unpacked"
    assert answer(["merge", str(submission), "--out", str(folder)]) == 0
    change(folder)
    write_archive(folder, tmp_path / "changed.parquet")
    return tmp_path / "changed.parquet"


@isolated
def test_code_that_is_not_the_one_that_ran_is_told(
    submission: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = repacked(
        submission, tmp_path, lambda folder: (folder / "methods/mine/helpers.py").write_text("RATE = 0.06\n")
    )
    mine = next(record.id for record in load_records(file) if record.trial.method == "mine")
    assert answer(["verify", str(file), "--trial", mine, "--executor", "inline"]) == 3
    assert "the method mine has other code here" in " ".join(capsys.readouterr().out.split())
    assert {verified(record) for record in load_records(file)} == {None}


def _says(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        said = json.loads((folder / "submission.json").read_text()) | changes
        (folder / "submission.json").write_text(json.dumps(said))

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_says(methods=["../../mine.py"]), "there is no file methods/'../../mine.py'"),
        (_says(methods=["other.py"]), "there is no file methods/'other.py'"),
        (_says(by=""), "'by' is missing or wrong"),
        (_says(rank=1), "'rank' is missing or wrong"),
        (lambda folder: (folder / "submission.json").write_text("[]"), "must contain a JSON object"),
        (lambda folder: (folder / "methods/mine/mine.py").write_text("def (:"), "methods/mine/mine.py is no Python"),
        (lambda folder: (folder / "methods/mine/mine.py").unlink(), "there is no file methods/'mine/mine.py'"),
        (lambda folder: (folder / "methods/mine/big.py").write_text(f"x = '{'x' * 2**20}'"), "more than 1 MiB"),
    ],
)
def test_a_submission_that_is_not_whole_is_refused(
    submission: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], object],
    sentence: str,
) -> None:
    file = repacked(submission, tmp_path, change)
    assert sentence in refused(["verify", str(file), "--executor", "inline"], capsys)


def test_code_goes_below_its_folder_and_is_not_run(submission: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    file = repacked(
        submission,
        tmp_path,
        lambda folder: (folder / "methods/mine/mine.py").write_text(f"open({str(ran)!r}, 'w')\n"),
    )
    (entry,) = code_of(file, tmp_path / "code")
    assert entry == tmp_path / "code/mine/mine.py"
    assert not ran.exists()


@pytest.mark.usefixtures("lab")
def test_what_cannot_be_verified_is_not_packed(capsys: pytest.CaptureFixture[str]) -> None:
    results = Path("runs/small/trials")
    trials = sorted(results.iterdir(), key=lambda trial: load_record(trial).trial.method)  # mine, mine, noise, noise
    shutil.rmtree(trials[3])
    (trials[2] / "student.safetensors").unlink()
    said = refused(SUBMIT, capsys)
    assert "1 of 4 trials of the study have no record in runs/small (noise" in said
    assert f"the student of trial {trials[2].name} is gone" in said
    assert not Path("results").exists()


@pytest.mark.usefixtures("lab")
def test_changed_code_is_another_trial(capsys: pytest.CaptureFixture[str]) -> None:
    Path("helpers.py").write_text("RATE = 0.06\n")
    assert "2 of 4 trials of the study have no record in runs/small (mine seed 0" in refused(SUBMIT, capsys)


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["submit", "study.yaml"], "missing option '--by'"),
        (["submit", "study.yaml", "--by", " "], "--by must not be empty"),
        (["submit", "study.yaml", "--by", "x" * 201], "--by must have at most 200 characters, not xxx"),
        ([*SUBMIT, "--link", "javascript:alert(1)"], "--link must be an address that begins with https://"),
        ([*SUBMIT, "--out", "small.zip"], "parquet"),
        ([*SUBMIT, "--out", "study.yaml"], "study.yaml already exists"),
        (["submit", "stdy.yaml", "--by", "A"], "did you mean the file 'study.yaml'?"),
        ([*SUBMIT, "--results", "nowhere"], "have no record in nowhere"),
    ],
)
def test_mistakes_are_sentences(capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str) -> None:
    assert sentence in refused(arguments, capsys)
    assert not Path("results").exists()


@pytest.mark.usefixtures("lab")
def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(SUBMIT) == 0
    assert "exists" in refused(SUBMIT, capsys)


def test_a_network_that_the_judge_would_run_is_no_part_of_a_submission(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("net.py").write_text(
        "from bench.models import build\n\n\ndef own(image, classes):\n"
        "    return build('lenet5-half', image, classes)\n"
    )
    own = "{name: digits/own, data: digits, image: {channels: 1, size: 32, mean: [0.3], std: [0.3]}, "
    own += "teacher: {network: lenet5, recipe: quick}, student: 'net.py:own'}"
    Path("own.yaml").write_text(f"- {own}\n")
    Path("study.yaml").write_text(STUDY.replace("[digits/lenet5-half]", "[own.yaml]").replace("mine.py, ", ""))
    assert answer(["run", "study.yaml", "--executor", "inline", "--isolation", "none", "--results", "own"]) == 0
    said = refused([*SUBMIT, "--results", "own"], capsys)
    assert "the task digits/own has a network of its own, net.py:own" in said
