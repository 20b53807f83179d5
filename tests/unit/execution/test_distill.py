"""``dfkd distill``: one command from a teacher's weights to a student, its record and a page."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from own_task import write_flat, write_own_task

from bench.cli import answer
from bench.data.image_spec import ImageSpec
from bench.errors import UserError
from bench.execution.distill import ANY_SIZE, parse_budget
from bench.models import build
from bench.records import load_records

COMMAND = [
    *("distill", "teacher.pth", "--network", "net.py:build", "--student", "net.py:build", "--method", "noise"),
    *("--budget", "steps=3", "--size", "8", "--mean", "0.5", "--std", "0.25", "--set", "batch=4", "--out", "out"),
    *("--executor", "inline", "--isolation", "none", "--device", "cpu"),
]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A teacher, its network and some images; the current folder."""
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_own_task(tmp_path / "here", train=False)
    write_flat(tmp_path / "here" / "flat", 5, 0)
    return write_flat(tmp_path / "here" / "flat", 5, 1).parent


def distil(*changes: str) -> int:
    return answer([*COMMAND, *changes])


def test_it_ends_with_a_student_a_record_and_one_page(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distil("--images", "flat") == 0
    said = capsys.readouterr().out
    assert "% agreement with the teacher on the test images, which have no labels" in said
    assert "next: dfkd run out/study.yaml --results out/results" in said
    (record,) = load_records(place / "out" / "results")
    assert json.loads((place / "out" / "record.json").read_text())["id"] == record.id
    student = (place / "out" / "student.safetensors").read_bytes()
    assert student == (place / "out" / "results" / "trials" / record.id / "student.safetensors").read_bytes()
    page = (place / "out" / "index.html").read_text()
    score = f"<b>{100 * record.scores['last']:.1f} %</b> agreement with the teacher"
    assert score in page
    assert 'src="data:image/png;base64,' in page
    assert "teacher images" in page
    assert 'href="../' not in page
    assert "It is the only seed of its row." in page
    assert ": code of the task&#39;s author; it must be there." in page
    assert "was imported: import the same weights first." in page
    assert record.trial.options["batch"] == 4
    (place / "out" / "student.safetensors").unlink()
    written = place / "out" / "results" / "trials" / record.id / "record.json"
    before = written.stat().st_mtime_ns
    assert distil("--images", "flat") == 0  # the same command runs nothing again
    assert written.stat().st_mtime_ns == before
    assert (place / "out" / "student.safetensors").read_bytes() == student


def test_one_goes_on_with_the_study_that_it_wrote(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distil("--images", "images") == 0
    assert "% accuracy on the test images, after" in capsys.readouterr().out
    study = place / "out" / "study.yaml"
    study.write_text(study.read_text().replace("seeds: [0]", "seeds: [0, 1]"))
    run = ["run", "out/study.yaml", "--results", "out/results", "--executor", "inline", "--isolation", "none"]
    assert answer(run) == 0
    assert "2 of 2 trials ok (1 of them before this run)" in capsys.readouterr().out
    assert distil("--images", "images") == 2  # what the user has changed is not overwritten
    assert "out/study.yaml says something else than this command ('seeds: [0, 1]')" in capsys.readouterr().err


def test_without_images_the_agreement_is_on_made_ones(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distil() == 0
    assert "agreement with the teacher on made images, which proves little" in capsys.readouterr().out
    assert '"classes": 2' in (place / "out" / "task.yaml").read_text()
    assert "synthetic agreement with the teacher on made images" in (place / "out" / "index.html").read_text()


def test_a_stopped_distillation_goes_on_by_the_same_command(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopping = """
import os, signal
from torch.optim import SGD
from bench import Access, Data, Session, method

@method("stops", title="Stops", paper="none", data=Data.NONE, access=Access.LOGITS)
def stops(s: Session) -> None:
    opt = s.keep("opt", SGD(s.student.parameters(), 0.05))
    for step in s.steps("train"):
        if os.environ.get("STOP_ONCE") and s.progress > 0.5:
            del os.environ["STOP_ONCE"]
            os.kill(os.getpid(), signal.SIGTERM)
        s.distill(opt, s.noise(4, *s.task.image.shape))
"""
    (place / "stops.py").write_text(stopping)
    command = [word for word in COMMAND if word not in ("--set", "batch=4")]
    command = ["stops.py" if word == "noise" else "steps=8" if word == "steps=3" else word for word in command]
    os.environ["STOP_ONCE"] = "1"
    try:
        assert answer(command) == 75
    finally:
        os.environ.pop("STOP_ONCE", None)
    assert "the same command continues" in capsys.readouterr().out
    assert not (place / "out" / "student.safetensors").exists()
    assert answer(command) == 0
    (record,) = load_records(place / "out" / "results")
    assert (record.resumed, record.meter.steps) == (1, 8)
    assert '"methods"' not in (place / "out" / "study.yaml").read_text()
    assert 'methods: ["../stops.py"]' in (place / "out" / "study.yaml").read_text()


def test_a_failed_trial_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "breaks.py").write_text(
        "from bench import Access, Data, Session, method\n\n"
        '@method("breaks", title="Breaks", paper="none", data=Data.NONE, access=Access.LOGITS)\n'
        "def breaks(s: Session) -> None:\n    raise ValueError('no')\n"
    )
    command = ["breaks.py" if word == "noise" else word for word in COMMAND if word not in ("--set", "batch=4")]
    assert answer(command) == 1
    assert "no student: crashed: ValueError: no" in capsys.readouterr().out
    assert not (place / "out" / "index.html").exists()


def test_every_bad_input_is_one_sentence_and_nothing_is_written(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "two.py").write_text("x = 1\n")
    colours = "from torch import nn\n\ndef build(image, classes):\n    return nn.Conv2d(3, classes, 8)\n"
    (place / "colours.py").write_text(colours)
    (place / "full").mkdir()
    (place / "full" / "other.txt").write_text("")
    (place / "broken.pth").write_bytes(b"no")
    cases: list[tuple[list[str], str]] = [
        (
            ["--budget", "soon"],
            "--budget must be a duration such as 9m, 90s or 1h30m, or UNIT=NUMBER of seconds",
        ),
        (["--budget", "step=3"], "--budget step=3: unknown budget 'step'; did you mean 'steps'?"),
        (["--budget", "steps=x"], "--budget steps=x: steps must be a positive number, not 'x'"),
        (["--budget", "steps=0.5"], "budget 'steps' must be a whole number, not 0.5"),
        (["--method", "nois"], "unknown method 'nois'; did you mean 'noise'?"),
        (["--method", "two.py"], "two.py: no method found"),
        (["--network", "net.py:built"], "net.py has no function 'built'; did you mean 'build'?"),
        (["--network", "lenet6"], "unknown network 'lenet6'; did you mean 'lenet5'"),
        (["--student", "lenet6"], "unknown network 'lenet6'; did you mean 'lenet5'"),
        (["--mean", "a"], "--mean must be numbers with commas between them, one for each channel, not a"),
        (["--mean", "1,2"], "--mean has 2 numbers, and the images have --channels 1"),
        (["--std", "0"], "--std must be above 0, and all numbers of --mean and --std finite"),
        (["--mean", "nan"], "--std must be above 0, and all numbers of --mean and --std finite"),
        (["--std", "inf", "--classes", "2"], "finite"),
        (["--seed", "99999999999999999999"], "--seed must be below 9.22337e+18, not 99999999999999999999"),
        (["--threads", "5000"], "--threads must be at most 1024, not 5000"),
        (["--executor", "inlin"], "unknown executor 'inlin'; did you mean 'inline'?"),
        (["--isolation", "non"], "unknown isolation 'non'; did you mean 'none'?"),
        (["--network", "net.py"], "unknown network 'net.py'; name a function of it: net.py:FUNCTION"),
        (["--network", "nte.py:build"], "no such file: nte.py; did you mean the file 'net.py'?"),
        (["--set", "batch=4", "--set", "batch=8"], "--set batch=8: the option 'batch' is set twice"),
        (["--images", "imagse"], "no such folder: "),
        (
            ["--images", "flat", "--classes", "3"],
            "does not fit Sequential: 1.weight has shape (2, 64), the network needs (3, 64)",
        ),
        (["--images", "images", "--classes", "3"], "classes: 3, and "),
        (["--size", "9"], "1.weight has shape (2, 64), the network needs (2, 81)"),
        (["--network", "colours.py:build"], "does not take 1x8x8 images: "),
        (["--network", "colours.py:build", "--classes", "2"], "; --channels and --size say what images there are"),
        (["--student", "colours.py:build"], "; --channels and --size say what images there are"),
        (
            ["--student", "lenet5-half"],
            "LeNet-5 takes 32x32 images, not 8x8; --channels and --size say what images there are, "
            "and resnet18 takes images of any size",
        ),
        (["--student", "torchvision/resnet18"], "3 channels, not 1; --channels and --size say what images there are"),
        (["--method", "deepinversion"], "deepinversion needs batch-norm statistics, and the teacher of "),
        (["--method", "kd"], "kd needs real training images, and teacher/net.py-build has none"),
        (["--method", "rco"], "rco needs real training images"),
        (["--method", "dfnd"], "dfnd needs the wild pool"),
        (["--set", "batch"], "--set batch: write NAME=VALUE, an option of noise"),
        (["--set", "bacht=3"], "has no option 'bacht'; did you mean 'batch'?"),
        (["--set", "batch=0"], "option 'batch' must be at least"),
        (["--out", "full"], "full exists and is no folder of `dfkd distill`; choose another --out"),
        (["--device", "gpu"], "unknown device 'gpu'"),
    ]
    for changes, sentence in cases:
        words = [word for word in COMMAND if word not in ("--set", "batch=4")]
        assert answer([*words, *changes]) == 2, changes
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        assert sentence in said, changes
        assert not (place / "out").exists()
    for file, sentence in (
        ("gone.pth", "no such checkpoint: gone.pth"),
        ("broken.pth", "cannot be read as a checkpoint"),
        ("brokne.pth", "no such checkpoint: brokne.pth; did you mean the file 'broken.pth'?"),
        ("full", "full is a folder; name a checkpoint"),
    ):
        assert answer(["distill", file, *COMMAND[2:]]) == 2
        assert sentence in capsys.readouterr().err
    assert [file.name for file in (place / "full").iterdir()] == ["other.txt"]


@pytest.mark.parametrize(("channels", "size"), [(1, 4), (1, 28), (3, 33), (4, 64)])
def test_the_student_that_is_offered_takes_images_of_any_size(channels: int, size: int) -> None:
    image = ImageSpec(channels=channels, size=size, mean=(0.5,) * channels, std=(0.5,) * channels)
    assert build(ANY_SIZE, image, 7).eval()(torch.zeros(2, *image.shape)).shape == (2, 7)


def test_budgets_are_times_or_what_studies_have() -> None:
    assert parse_budget("90s") == {"seconds": 90.0}
    assert parse_budget("teacher_images=4e4") == {"teacher_images": 40000}
    assert parse_budget("gmacs=0.5, steps=7") == {"gmacs": 0.5, "steps": 7}
    with pytest.raises(UserError, match="budget 'seconds' must be a positive number, not -1"):
        parse_budget("seconds=-1")


@pytest.mark.slow
def test_the_student_is_exported_where_the_exporter_is_installed(place: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    onnx = pytest.importorskip("onnx")
    import numpy as np
    import torch
    from onnx.reference import ReferenceEvaluator
    from safetensors.torch import load_file

    assert distil("--images", "flat") == 0
    images = torch.randn(3, 1, 8, 8)
    weights = load_file(place / "out" / "student.safetensors")
    expected = images.flatten(1) @ weights["1.weight"].T + weights["1.bias"]
    (found,) = ReferenceEvaluator(onnx.load(place / "out" / "student.onnx")).run(None, {"images": images.numpy()})
    assert np.allclose(found, expected.numpy(), atol=1e-5)


def test_without_the_exporter_a_sentence_says_what_to_install(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.execution.distill.EXPORTER", ("onnx_that_nobody_has",))
    assert distil("--images", "flat") == 0
    said = capsys.readouterr().out
    assert (
        "student.onnx was not written: torch's exporter needs onnx_that_nobody_has (pip install 'dfkd-bench[onnx]')"
        in said
    )
    assert not (place / "out" / "student.onnx").exists()
