"""Teachers: trained once, the same bytes every time, imported with care."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.data import Dataset, load
from bench.errors import UserError
from bench.harness.teachers import cache as teacher_cache
from bench.harness.teachers.cache import (
    get_teacher,
    import_teacher,
    load_teacher,
    passports,
    read_passport,
    train_teacher,
)
from bench.harness.teachers.passport import passport_text
from bench.models import build
from bench.spec.task import TeacherSpec, get_task
from bench.spec.teacher_key import teacher_key
from bench.utils.paths import teacher_folder

TASK = get_task("digits/lenet5-half")
QUICK = TeacherSpec(network="lenet5", recipe="quick")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", size=32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def _trained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quick teacher, trained once for the tests of what comes after training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFKD_CACHE", str(tmp_path_factory.mktemp("trained")))
        return train_teacher(TASK, QUICK, digits)


@pytest.fixture
def _cached(_trained: Path, _own_cache: None) -> None:
    """This test's cache has the quick teacher."""
    shutil.copytree(_trained, teacher_folder() / _trained.name)


def test_same_recipe_and_seed_give_the_same_bytes(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = (train_teacher(TASK, QUICK, digits) / "weights.safetensors").read_bytes()
    torch.manual_seed(123)  # whatever the process did before
    torch.rand(5)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "other"))
    second = (train_teacher(TASK, QUICK, digits) / "weights.safetensors").read_bytes()
    third = train_teacher(TASK, TeacherSpec(network="lenet5", recipe="quick", seed=1), digits)
    assert first == second
    assert first != (third / "weights.safetensors").read_bytes()


def test_training_leaves_the_callers_random_state_alone(digits: Dataset) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    train_teacher(TASK, QUICK, digits)
    assert torch.equal(torch.rand(3), wanted)


def test_the_passport_says_it_all(digits: Dataset) -> None:
    folder = train_teacher(TASK, QUICK, digits)
    passport = read_passport(folder)
    assert passport["key"] == folder.name == teacher_key(TASK, QUICK)
    assert passport["network"] == "lenet5"
    assert passport["recipe"] == "quick"
    assert passport["recipe_content"]["epochs"] == 2
    assert passport["data"] == "digits"
    assert passport["data_fingerprint"] == digits.fingerprint
    assert 0.2 < passport["score"] <= 1
    assert passport["provenance"]["versions"]["torch"] == version("torch")
    assert [entry["key"] for entry in passports()] == [folder.name]


def test_a_cached_teacher_is_not_trained_again(digits: Dataset) -> None:
    folder = train_teacher(TASK, QUICK, digits)
    stamp = (folder / "weights.safetensors").stat().st_mtime_ns
    calls: list[int] = []
    train_teacher(TASK, QUICK, digits, lambda done, _: calls.append(done))
    assert not calls
    assert (folder / "weights.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.usefixtures("_cached")
def test_a_process_waits_for_another_that_trains_the_same_teacher(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train_teacher(TASK, QUICK, digits)
    elsewhere = tmp_path / "cache" / "trained"
    shutil.move(trained, elsewhere)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained a second time")

    monkeypatch.setattr(teacher_cache, "train", never)
    hold = (
        "import sys; from filelock import FileLock; l = FileLock(sys.argv[1]); l.acquire(); print(flush=True); input()"
    )
    command = [sys.executable, "-c", hold, str(trained.with_name(f".{trained.name}.lock"))]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
        ThreadPoolExecutor() as pool,
    ):
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()  # it has the lock: it trains
        mine = pool.submit(train_teacher, TASK, QUICK, digits)
        with pytest.raises(TimeoutError):
            mine.result(timeout=0.3)
        shutil.move(elsewhere, trained)
        other.stdin.write(b"\n")
        other.stdin.flush()
        assert mine.result(timeout=60) == trained


@pytest.mark.usefixtures("_cached")
def test_a_loaded_teacher_is_frozen(digits: Dataset) -> None:
    teacher = load_teacher(train_teacher(TASK, QUICK, digits), TASK, 10)
    assert not teacher.network.training
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())


@pytest.mark.usefixtures("_cached")
def test_altered_weights_are_refused(digits: Dataset) -> None:
    folder = train_teacher(TASK, QUICK, digits)
    weights = load_file(folder / "weights.safetensors")
    weights["head.2.bias"] += 1
    save_file(weights, folder / "weights.safetensors")
    with pytest.raises(UserError, match=r"sha256 is .* the passport says .* delete"):
        load_teacher(folder, TASK, 10)


@pytest.mark.usefixtures("_cached")
def test_a_damaged_or_newer_passport_is_named(digits: Dataset) -> None:
    folder = train_teacher(TASK, QUICK, digits)
    file = folder / "passport.json"
    good = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**good, "schema": 99}), encoding="utf-8")
    with pytest.raises(UserError, match="version 99; this version of the suite reads up to 1"):
        load_teacher(folder, TASK, 10)
    file.write_text(json.dumps({**good, "score": 0.999}), encoding="utf-8")
    with pytest.raises(UserError, match="has changed since it was written; delete"):
        load_teacher(folder, TASK, 10)
    file.write_bytes(passport_text({**good, "score": 0.999}))  # as somebody who may do so writes it
    load_teacher(folder, TASK, 10)
    file.write_text(json.dumps({name: good[name] for name in good if name != "checksum"}), encoding="utf-8")
    load_teacher(folder, TASK, 10)  # one of an earlier version
    file.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is not a passport"):
        load_teacher(folder, TASK, 10)


@pytest.mark.usefixtures("_cached")
def test_a_teacher_for_other_data_or_geometry_is_refused(digits: Dataset) -> None:
    folder = train_teacher(TASK, QUICK, digits)
    with pytest.raises(UserError, match="made for 'digits', the task uses 'mnist'"):
        load_teacher(folder, get_task("mnist/lenet5-half"), 10)
    other = TASK.model_copy(update={"image": TASK.image.model_copy(update={"mean": (0.5,)})})
    with pytest.raises(UserError, match="another size or normalisation"):
        load_teacher(folder, other, 10)


@pytest.mark.usefixtures("_cached")
def test_an_unknown_teacher_is_an_error_with_the_nearest_name(digits: Dataset) -> None:
    folder = train_teacher(TASK, QUICK, digits)
    with pytest.raises(UserError, match=f"did you mean '{folder.name}'"):
        get_teacher(TASK, folder.name[:-1], digits)


def trained_weights(digits: Dataset) -> dict[str, torch.Tensor]:
    return load_file(train_teacher(TASK, QUICK, digits) / "weights.safetensors")


Weights = dict[str, torch.Tensor]


def prefixed(prefix: str) -> Callable[[Weights], object]:
    return lambda weights: {prefix + name: value for name, value in weights.items()}


def profiled(weights: Weights) -> object:
    modules = {name.rpartition(".")[0] for name in weights}
    counts = {f"{module}.{each}": torch.zeros(1) for module in modules for each in ("total_ops", "total_params")}
    return {**weights, **counts, "total_ops": torch.zeros(1), "total_params": torch.zeros(1)}


FORMS: dict[str, tuple[Callable[[Weights], object], list[str]]] = {
    "plain": (lambda weights: weights, []),
    "wrapped": (lambda weights: {"epoch": 3, "state_dict": weights}, ["taken from 'state_dict'"]),
    "net": (lambda weights: {"net": weights, "acc": 98.2, "epoch": 3}, ["taken from 'net'"]),
    "teacher": (lambda weights: {"student": {"x": torch.ones(2)}, "teacher": weights}, ["taken from 'teacher'"]),
    "twice": (lambda weights: {"a": {"model": weights, "step": 1}}, ["taken from 'a'", "taken from 'model'"]),
    "parallel": (prefixed("module."), ["prefix 'module.' removed"]),
    "compiled": (prefixed("_orig_mod."), ["prefix '_orig_mod.' removed"]),
    "both": (prefixed("module._orig_mod."), ["prefix 'module._orig_mod.' removed"]),
    "own": (prefixed("backbone."), ["prefix 'backbone.' removed"]),
    "profiled": (profiled, ["total_ops, total_params left out"]),
    "all": (
        lambda weights: {"model": prefixed("net.")(profiled(weights)), "best": 1.0},  # type: ignore[arg-type]
        ["taken from 'model'", "total_ops, total_params left out", "prefix 'net.' removed"],
    ),
    "no counters": (
        lambda weights: {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")},
        [],
    ),
}


@pytest.mark.usefixtures("_cached")
@pytest.mark.parametrize("form", ["safetensors", *FORMS])
def test_import_takes_the_forms_that_people_publish(digits: Dataset, tmp_path: Path, form: str) -> None:
    weights = trained_weights(digits)
    file = tmp_path / ("own.safetensors" if form == "safetensors" else "own.pt")
    changes: list[str] = []
    if form == "safetensors":
        save_file(weights, file)
    else:
        make, changes = FORMS[form]
        torch.save(make(weights), file)
    folder = import_teacher(TASK, file, digits)
    assert read_passport(folder)["imported_changes"] == changes
    teacher = get_teacher(TASK, folder.name, digits)
    original = load_teacher(train_teacher(TASK, QUICK, digits), TASK, 10)
    assert teacher.passport["score"] == original.passport["score"]
    assert teacher.passport["recipe"] == "imported"
    assert teacher.passport["imported_from"] == file.name


def test_import_refuses_what_does_not_fit(digits: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "own.pt"

    def refuse(content: object, message: str) -> None:
        torch.save(content, file)
        with pytest.raises(UserError, match=message):
            import_teacher(TASK, file, digits)
        assert not list((tmp_path / "cache" / "teachers").glob("*import*/passport.json"))

    weights = build("lenet5", TASK.image, 10).state_dict()
    refuse(
        {**weights, "head.2.weight": torch.zeros(7, 84)},
        r"head.2.weight has shape \(7, 84\), the network needs \(10, 84\)",
    )
    refuse({name: value for name, value in weights.items() if name != "head.2.bias"}, "missing head.2.bias")
    refuse({**weights, "extra": torch.zeros(1)}, "unknown extra")
    refuse([1, 2], "contains no state_dict")
    refuse(build("lenet5", TASK.image, 10), "cannot be read as a checkpoint of plain tensors")  # a pickled module
    file.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot be read"):
        import_teacher(TASK, file, digits)
    with pytest.raises(UserError, match="no such checkpoint"):
        import_teacher(TASK, tmp_path / "none.pt", digits)
    broken = tmp_path / "half.safetensors"
    broken.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(UserError, match="not a complete safetensors file"):
        import_teacher(TASK, broken, digits)


@pytest.mark.usefixtures("_cached")
def test_a_prefix_that_is_missing_is_added(digits: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "networks.py"
    file.write_text(
        "from torch import nn\nfrom bench.models import build\n\n\nclass Wrapped(nn.Module):\n"
        "    def __init__(self, image, classes):\n        super().__init__()\n"
        "        self.net = build('lenet5', image, classes)\n\n"
        "    def forward(self, x):\n        return self.net(x)\n",
        encoding="utf-8",
    )
    teacher = TASK.teacher.model_copy(update={"network": f"{file}:Wrapped"})
    task = TASK.model_copy(update={"teacher": teacher})
    save_file(trained_weights(digits), tmp_path / "own.safetensors")
    folder = import_teacher(task, tmp_path / "own.safetensors", digits)
    assert read_passport(folder)["imported_changes"] == ["prefix 'net.' added"]


@pytest.mark.usefixtures("_cached")
def test_what_no_training_leaves_behind_is_refused_with_what_was_measured(digits: Dataset, tmp_path: Path) -> None:
    weights = trained_weights(digits)
    name = "head.2.weight"
    broken = weights[name].clone()
    broken[0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    shuffled = weights[name].roll(1, 0)
    bias = weights["head.2.bias"]
    for changed, message in (
        ({name: broken}, rf"3 of 840 values of {name} are NaN or infinite"),
        ({name: torch.zeros(10, 84)}, rf"all 840 values of {name} are 0: not trained"),
        (
            {name: shuffled, "head.2.bias": bias.roll(1, 0)},
            r"355 test images of digits, \d\.\d % are right, chance is 10",
        ),
        ({"head.2.bias": bias + torch.eye(10)[4] * 1e6}, r"355 test images of digits, all of them are '4'"),
    ):
        torch.save({**weights, **changed}, tmp_path / "own.pt")
        with pytest.raises(UserError, match=message):
            import_teacher(TASK, tmp_path / "own.pt", digits)
        assert not list((tmp_path / "cache" / "teachers").glob("*import*/passport.json"))


def test_a_cache_that_cannot_be_written_is_named(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set DFKD_CACHE"):
        train_teacher(TASK, QUICK, digits)


def test_a_network_whose_name_has_slashes_is_imported_into_a_folder_of_the_cache(
    digits: Dataset, tmp_path: Path
) -> None:
    """Its network's name has a slash, and names a folder."""
    file = tmp_path / "networks.py"
    file.write_text(
        "from torch import nn\n\ndef flat(image, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(image.size ** 2, classes))\n",
        encoding="utf-8",
    )
    network = f"{file}:flat"
    task = TASK.model_copy(update={"teacher": TASK.teacher.model_copy(update={"network": network})})
    weights = tmp_path / "mine.safetensors"
    images = digits.train.images.flatten(1).float() / 255
    prototypes = torch.stack([images[digits.train.labels == each].mean(0) for each in range(10)])
    save_file({"1.weight": prototypes, "1.bias": -prototypes.square().sum(1) / 2}, weights)
    folder = import_teacher(task, weights, digits)
    assert folder.parent == teacher_folder()
    assert get_teacher(task, folder.name, digits).passport["network"] == network
