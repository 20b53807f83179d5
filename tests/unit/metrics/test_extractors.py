"""Extractors: the right network behind each name, the same features however it is asked, and clear words otherwise."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from extractor_fixtures import complaint, metric_context, pictures
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.batches import normalise
from bench.errors import Unavailable
from bench.harness.teachers.cache import load_teacher
from bench.metrics.embedding import Extractor, embed, grey, resized, rgb
from bench.metrics.extractors import get_extractor
from bench.models.taps import tap
from bench.spec.task import TaskSpec, get_task
from bench.spec.teacher_key import teacher_key
from bench.utils.paths import teacher_folder

# ---- embedding a set -----------------------------------------------------------------------------------------------


def sums(batch: int = 2) -> Extractor:
    """An extractor that says how it was called: features are sums and batch sizes."""

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        assert not torch.is_grad_enabled()
        product = images.flatten(1).float() @ torch.ones(images[0].numel(), 1)
        return product, torch.full((len(images), 1), len(images), dtype=torch.float64)

    return Extractor("sums", "", "", batch, run)


def test_a_set_goes_through_batch_by_batch() -> None:
    images = pictures(5)
    features, sizes = embed(sums(), images)
    assert features.flatten().tolist() == images.flatten(1).sum(1).tolist()
    assert sizes is not None
    assert sizes.flatten().tolist() == [2, 2, 2, 2, 1]
    assert features.dtype == sizes.dtype == torch.float32
    assert not features.requires_grad


def test_the_callers_mixed_precision_changes_nothing() -> None:
    wanted = embed(sums(), pictures())[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(embed(sums(), pictures())[0], wanted)


@pytest.mark.parametrize(
    "images",
    [pictures().float(), pictures()[0], pictures()[:0], pictures(channels=4), torch.zeros(2, dtype=torch.uint8)],
)
def test_what_is_no_set_of_images_is_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"images must be uint8 \(N, C, H, W\) with 1 or 3 channels"):
        embed(sums(), images)


def test_images_are_made_to_fit() -> None:
    images = pictures(2, channels=3, size=8).float()
    red, green, blue = images.unbind(1)
    assert torch.allclose(grey(images)[:, 0], 0.299 * red + 0.587 * green + 0.114 * blue)
    assert torch.equal(grey(images[:, :1]), images[:, :1])
    assert torch.equal(rgb(images[:, :1])[:, 2], images[:, 0])
    assert torch.equal(resized(images, 8), images)
    wanted = F.interpolate(images, (4, 4), mode="bilinear", antialias=True, align_corners=False)
    assert torch.equal(resized(images, 4), wanted)


# ---- the teacher ---------------------------------------------------------------------------------------------------


def test_the_teachers_features_are_the_input_of_its_head() -> None:
    around, images = metric_context(), pictures()
    extractor = get_extractor("teacher", around)
    features, logits = embed(extractor, images)
    given = normalise(images, around.task.image)
    assert torch.equal(features, around.teacher.body(given))  # type: ignore[operator]
    assert logits is not None
    assert torch.equal(logits, around.teacher(given))
    assert not around.teacher._modules["head"]._forward_pre_hooks  # type: ignore[union-attr]
    assert extractor.preprocessing == "(x / 255 - (0.3051)) / (0.3238)"


def test_a_segmentation_teachers_features_are_averaged_over_positions() -> None:
    around = metric_context("shapes/unet-small")
    size = around.task.image.size
    seen: list[Tensor] = []
    head = next(module for module in reversed(list(around.teacher.modules())) if isinstance(module, nn.Conv2d))
    hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    features, logits = embed(get_extractor("teacher", around), pictures(2, channels=3, size=size))
    hook.remove()
    assert logits is None
    assert torch.allclose(features, seen[0].mean((2, 3)), atol=1e-6)


def test_identity_is_of_weights_and_preprocessing() -> None:
    around = metric_context()
    first = get_extractor("teacher", around).identity
    assert get_extractor("teacher", metric_context(classes=3)).identity == first
    image = around.task.image.model_copy(update={"mean": (0.5,)})
    changed = [
        metric_context(teacher_sha="abd"),
        metric_context("mnist/lenet5-half"),
        metric_context(task=around.task.model_copy(update={"image": image})),
    ]
    assert first not in {get_extractor("teacher", each).identity for each in changed}
    assert len(first) == 64
    deeper = copy.deepcopy(around.teacher)
    tap(
        deeper, "task", around.task.image.shape, {"head": ("head.2",)}
    )  # a task that names another head: other features
    assert get_extractor("teacher", dataclasses.replace(around, teacher=deeper)).identity != first


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_features_do_not_depend_on_the_batch(batch: int) -> None:
    extractor = get_extractor("teacher", metric_context())
    wanted = embed(extractor, pictures(7))
    found = embed(dataclasses.replace(extractor, batch=batch), pictures(7))
    for one, other in zip(found, wanted, strict=True):
        assert one is not None
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]


# ---- LeNet-5 of a data set -----------------------------------------------------------------------------------------


def test_a_lenet5_that_is_not_trained_is_told_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    assert complaint("lenet5-mnist").endswith("run `dfkd teacher train mnist/lenet5-half`")
    assert "no built-in task has a LeNet-5 for the data set 'mnis'; did you mean 'mnist'?" in complaint("lenet5-mnis")
    assert "allowed: digits, fashion_mnist, mnist" in complaint("lenet5-cifar10")


def put_teacher(task: TaskSpec) -> str:
    """An untrained teacher in the cache, as if it had been trained; returns the hash of its weights."""
    folder = teacher_folder() / teacher_key(task)
    folder.mkdir(parents=True)
    network = metric_context(task.name).teacher
    save_file(network.state_dict(), folder / "weights.safetensors")
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    passport = {"schema": 1, "key": folder.name, "network": task.teacher.network, "data": task.data, "score": 0.1}
    passport |= {"image": task.image.model_dump(mode="json"), "sha256": digest, "recipe": "none", "seed": 0}
    (folder / "passport.json").write_text(json.dumps(passport), encoding="utf-8")
    return digest


def test_a_lenet5_sees_what_the_teacher_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    task = get_task("digits/lenet5-half")
    digest = put_teacher(task)
    teacher = load_teacher(teacher_folder() / teacher_key(task), task, 10)
    around = metric_context(teacher=teacher.network, teacher_sha=digest)
    extractor, images = get_extractor("lenet5-digits", around), pictures()
    for one, other in zip(embed(extractor, images), embed(get_extractor("teacher", around), images), strict=True):
        assert one is not None
        assert torch.equal(one, other)  # type: ignore[arg-type]
    colours = pictures(3, channels=3, size=48)
    given = normalise(resized(grey(colours.float()), 32), task.image)
    features, logits = embed(extractor, colours)
    assert features.shape == (3, 120)
    assert torch.allclose(logits, teacher.network(given), atol=1e-6)  # type: ignore[arg-type]
    assert "resized to 32x32" in extractor.preprocessing


# ---- one's own -----------------------------------------------------------------------------------------------------

OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.linear = nn.Linear(inputs, 4)

    def forward(self, images):
        assert not self.training and images.min() >= 0 and images.max() <= 1
        return {answer}

def mine(image):
    return Net(image.channels * image.size**2)
"""


def own(tmp_path: Path, answer: str = "self.linear(images.flatten(1))", source: str = OWN) -> str:
    file = tmp_path / "mine.py"
    file.write_text(source.replace("{answer}", answer), encoding="utf-8")
    return f"{file}:mine"


def test_an_extractor_of_ones_own(tmp_path: Path) -> None:
    extractor = get_extractor(own(tmp_path), metric_context())
    features, logits = embed(extractor, pictures())
    assert features.shape == (5, 4)
    assert logits is None
    both = get_extractor(own(tmp_path, "(self.linear(images.flatten(1)), images.flatten(1)[:, :3])"), metric_context())
    again, logits = embed(both, pictures())
    assert torch.equal(again, features)  # weights that it draws are the same each time
    assert logits is not None
    assert torch.equal(logits, pictures().flatten(1)[:, :3] / 255)
    assert both.identity != extractor.identity


def test_its_weights_are_part_of_its_identity(tmp_path: Path) -> None:
    """Weights that it loads from a file beside it, for example."""
    scale = tmp_path / "scale.txt"
    lines = [
        "    import pathlib",
        "    net = Net(1024)",
        f"    scale = float(pathlib.Path({str(scale)!r}).read_text())",
    ]
    lines += ["    net.linear.weight.data.fill_(scale)", "    return net"]
    source = "\n".join([OWN.partition("    return Net(")[0], *lines])
    identities = []
    for value in ("1", "1", "2"):
        scale.write_text(value, encoding="utf-8")
        identities.append(get_extractor(own(tmp_path, source=source), metric_context()).identity)
    assert identities[0] == identities[1] != identities[2]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("1 / 0", "fails with ZeroDivisionError: division by zero"),
        ("images", r"gives features float32 \(5, 1, 32, 32\) for 5 images, not floats \(5, D\)"),
        ("images.flatten(1).long()", r"gives features int64 \(5, 1024\)"),
        ("images.flatten(1)[1:]", r"gives features float32 \(4, 1024\)"),
        ("'text'", "gives features of type str, not a tensor"),
        ("(images.flatten(1), 3)", "gives logits of type int, not a tensor"),
    ],
)
def test_what_goes_wrong_in_it_is_told_with_its_file(answer: str, words: str, tmp_path: Path) -> None:
    extractor = get_extractor(own(tmp_path, answer), metric_context())
    with pytest.raises(Unavailable, match=rf"mine\.py {words}"):
        embed(extractor, pictures())


def test_what_is_wrong_with_its_function_is_told(tmp_path: Path) -> None:
    assert "no such file: nowhere.py" in complaint("nowhere.py:mine")
    assert "module 'no_such_module' cannot be imported" in complaint("no_such_module:mine")
    name = own(tmp_path)
    assert "has no function 'mime'; did you mean 'mine'?" in complaint(name.removesuffix("mine") + "mime")
    assert "fails with ZeroDivisionError" in complaint(own(tmp_path, source="def mine(image): return 1 / 0"))
    assert "gives int, not a torch.nn.Module" in complaint(own(tmp_path, source="def mine(image): return 1"))
    said = complaint(own(tmp_path, source="import nothing_of_this_name"))
    assert "mine.py, line 1: importing it fails with ModuleNotFoundError" in said


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    assert complaint("inceptoin").startswith("unknown extractor 'inceptoin'; did you mean 'inception'?")
    assert "lenet5-DATASET" in complaint("nothing")
