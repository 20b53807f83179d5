"""From images to a record's image metrics: every number says what it depends on, and every trouble has a status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scene_fixtures import around, dataset_of, images_of, noise, scored
from torch import Tensor

from bench.errors import Unavailable
from bench.metrics import featured, scoring
from bench.metrics.frechet import frechet_distance, moments
from bench.metrics.kernel import kernel_distance, kernel_distance_of_subsets
from bench.metrics.neighbours import density_coverage, precision_recall
from bench.metrics.scoring import score_images
from bench.records.schema import ImageMetric
from bench.spec.metric_names import METRICS, metric_of
from bench.utils.paths import cache_folder

FAMILIES = ("is", "is_splits", "fd", "fd_infinity", "kid", "kid_subsets", "precision", "recall", "density", "coverage")
OF_TEACHER = tuple(f"{family}[teacher]" for family in FAMILIES)
EVERY = (
    "class_balance",
    "confidence",
    "distillation_loss",
    "distillation_loss_variance",
    "intra_class_pixel_std",
    "nearest_training_distance",
    *OF_TEACHER,
    "rdskd_is[teacher]",
    "rdskd_fd[teacher]",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference statistics of one test are not there for the next."""
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))


def pixels(images: Tensor) -> Tensor:
    """The features of the fixture's teacher: the input of its last layer."""
    return images.flatten(1).float() / 255 - 0.5


def test_every_declared_image_metric_can_be_measured() -> None:
    families = {metric.name.partition("[")[0] for metric in METRICS.values() if metric.kind == "image"}
    assert families == {*scoring.PLAIN, *scoring.THROUGH}


def test_all_metrics_of_ordinary_images_are_there_and_within_their_bounds() -> None:
    found = scored(EVERY, noise(320))  # twenty for each of the sixteen dimensions
    for name, entry in found.items():
        ImageMetric.model_validate(entry)
        metric = metric_of(name)
        assert metric is not None
        assert entry["status"] == ("unreliable" if name.startswith("rdskd") else "ok"), (name, entry["note"])
        assert metric.low is None or entry["value"] >= metric.low - 1e-9
        assert metric.high is None or entry["value"] <= metric.high + 1e-9


def test_values_are_those_of_the_formulae_on_the_extractors_features() -> None:
    images, real = noise(80), noise(60, 99)
    found = scored(OF_TEACHER, images, real)
    a, b = pixels(images), pixels(real)
    subsets, spread = kernel_distance_of_subsets(a, b)
    expected = {
        "fd[teacher]": frechet_distance(moments(a), moments(b)),
        "kid[teacher]": kernel_distance(a, b),
        "kid_subsets[teacher]": subsets,
        "precision[teacher]": precision_recall(a, b)[0],
        "recall[teacher]": precision_recall(a, b)[1],
        "density[teacher]": density_coverage(a, b)[0],
        "coverage[teacher]": density_coverage(a, b)[1],
    }
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value, rel=1e-5, abs=1e-9), name
    assert found["kid_subsets[teacher]"]["spread"] == pytest.approx(spread, rel=1e-5)


def test_a_value_says_what_it_was_measured_on() -> None:
    found = scored(("fd[teacher]", "is[teacher]", "confidence"), noise(80))
    distance = found["fd[teacher]"]
    assert (distance["images"], distance["real_images"], distance["dimension"]) == (80, 60, 16)
    assert distance["extractor"]
    assert distance["preprocessing"]
    assert (found["is[teacher]"]["dimension"], found["is[teacher]"]["extractor"]) == (2, distance["extractor"])
    assert "dimension" not in found["confidence"]


def test_too_few_images_for_the_dimensions_are_said_aloud() -> None:
    found = scored(("fd[teacher]", "kid[teacher]"), noise(31))
    assert found["fd[teacher]"]["status"] == "unreliable"
    assert "31 images for 16 dimensions" in found["fd[teacher]"]["note"]
    assert found["kid[teacher]"]["status"] == "ok"
    straight = scored(("fd_infinity[teacher]",), noise(319))["fd_infinity[teacher]"]
    assert straight["status"] == "unreliable"
    assert "below 20 per dimension the line is not straight" in straight["note"]
    few_real = scored(("fd[teacher]",), noise(80), noise(20, 5))["fd[teacher]"]
    assert "20 training images for 16 dimensions" in few_real["note"]


def test_images_that_are_all_the_same_are_measured_and_doubted() -> None:
    found = scored(EVERY, torch.full((40, 1, 4, 4), 7, dtype=torch.uint8))
    for name, entry in found.items():
        assert entry["status"] in ("unreliable", "unavailable"), name
        assert entry["status"] == "unavailable" or "all 40 images are the same" in entry["note"]
    assert found["is[teacher]"]["value"] == pytest.approx(1.0)
    assert found["recall[teacher]"]["value"] == 0.0


def test_one_class_alone_is_measured() -> None:
    images = noise(60)
    images[:, 0, 0, 0] = 255
    found = scored(("class_balance", "is[teacher]", "fd[teacher]", "intra_class_pixel_std"), images)
    assert found["class_balance"]["value"] == 0.0
    assert found["is[teacher]"]["value"] == pytest.approx(1.0)
    assert found["intra_class_pixel_std"]["note"] == "over 1 of 2 classes"


BAD: dict[str, tuple[Tensor, str]] = {
    "one image": (noise(1), "fewer than two images"),
    "none": (noise(2)[:0], "fewer than two images"),
    "NaN": (torch.full((9, 1, 4, 4), float("nan")), "the images are float32; they must be bytes"),
    "wrong range": (torch.full((9, 1, 4, 4), 300.0), "the images are float32; they must be bytes"),
    "too many numbers": (torch.zeros(9, 1, 4, 4, dtype=torch.int64), "the images are int64"),
    "another size": (torch.zeros(9, 1, 8, 8, dtype=torch.uint8), r"the task's are (N, 1, 4, 4)"),
    "no batch": (torch.zeros(4, 4, dtype=torch.uint8), r"the images have shape (4, 4)"),
}


@pytest.mark.parametrize(("images", "reason"), BAD.values(), ids=BAD)
def test_images_that_nothing_can_be_measured_on_give_a_status(images: Tensor, reason: str) -> None:
    for name, entry in scored(EVERY, images).items():
        assert (entry["value"], entry["status"]) == (None, "unavailable"), name
        assert reason in entry["note"]


def test_features_that_are_not_numbers_are_told_and_harm_no_other_metric() -> None:
    teacher = around().teacher
    with torch.no_grad():
        teacher.head.weight.fill_(float("nan"))
    found = scored(("is[teacher]", "fd[teacher]", "confidence"), noise(60), teacher=teacher)
    assert found["is[teacher]"]["status"] == found["confidence"]["status"] == "unavailable"
    assert found["fd[teacher]"]["status"] == "ok"  # its features come before the broken layer


def test_missing_weights_make_a_metric_unavailable_and_say_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("DFKD_WEIGHTS", raising=False)
    found = scored(("fid[inception]", "lpips[alex]", "fd[teacher]"), noise(60), weights=tmp_path / "mine")
    for name, file in (("fid[inception]", "weights-inception-2015-12-05-6726825d.pth"), ("lpips[alex]", "alexnet")):
        assert found[name]["status"] == "unavailable"
        assert file in found[name]["note"]
        assert str(tmp_path / "mine") in found[name]["note"]
        assert "dfkd weights fetch" in found[name]["note"]
    assert found["fd[teacher]"]["status"] == "ok"


def test_an_error_of_the_suites_own_is_a_status_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any) -> float:
        raise RuntimeError("it broke\nin two lines")

    monkeypatch.setattr(featured, "kernel_distance", broken)
    found = scored(("kid[teacher]", "fd[teacher]"), noise(60))
    assert (found["kid[teacher]"]["status"], found["kid[teacher]"]["note"]) == ("failed", "RuntimeError: it broke")
    assert found["fd[teacher]"]["status"] == "ok"


def test_what_cannot_be_had_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*given: Any) -> float:
        raise Unavailable("it is not here")

    monkeypatch.setattr(featured, "kernel_distance", absent)
    found = scored(("kid[teacher]",), noise(60))["kid[teacher]"]
    assert (found["value"], found["status"], found["note"]) == (None, "unavailable", "it is not here")


# ---- the cached reference --------------------------------------------------------------------------------------------


def references() -> list[Path]:
    return sorted((cache_folder() / "references").rglob("*.safetensors"))


def test_reference_statistics_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names, real = ("fd[teacher]", "kid[teacher]", "precision[teacher]", "coverage[teacher]"), noise(60, 99)
    first = scored(names, noise(80), real)
    files = {file: file.stat().st_mtime_ns for file in references()}
    assert sorted(file.stem for file in files) == ["features", "kernel", "moments", "radii3", "radii5"]

    from bench.metrics import reference

    def again(*given: Any) -> Any:
        raise AssertionError("computed twice")

    for name in ("embed", "moments", "kernel_mean", "radii"):
        monkeypatch.setattr(reference, name, again)
    assert scored(names, noise(80), real) == first
    assert {file: file.stat().st_mtime_ns for file in references()} == files


def test_other_data_or_another_extractor_has_a_reference_of_its_own() -> None:
    scored(("fd[teacher]",), noise(80), noise(60, 1))
    scored(("fd[teacher]",), noise(80), noise(60, 2))
    assert len({file.parent for file in references()}) == 2
    scored(("fd[teacher]",), noise(80), noise(60, 2), teacher_sha="cd" * 32)
    assert len({file.parent for file in references()}) == 3
    score_images(("fd[teacher]",), noise(80), dataset_of(noise(60, 2)), around(), real_images=40)
    assert len({file.parent for file in references()}) == 4


@pytest.mark.parametrize("damage", ["altered", "truncated", "no file of its kind"])
def test_an_altered_reference_is_noticed_and_not_used(damage: str) -> None:
    names = ("fd[teacher]", "kid[teacher]", "is[teacher]")
    scored(names, noise(80))
    (file,) = [file for file in references() if file.stem == "moments"]
    content = bytearray(file.read_bytes())
    content[-9] ^= 0xFF
    changed = {"altered": bytes(content), "truncated": bytes(content[:-40]), "no file of its kind": b"moments"}
    file.write_bytes(changed[damage])
    found = scored(names, noise(80))
    assert (found["fd[teacher]"]["value"], found["fd[teacher]"]["status"]) == (None, "unavailable")
    assert str(file.parent) in found["fd[teacher]"]["note"]
    assert "delete" in found["fd[teacher]"]["note"]
    assert found["kid[teacher]"]["status"] == found["is[teacher]"]["status"] == "ok"


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("DFKD_CACHE", str(blocked))
    found = scored(("fd[teacher]", "is[teacher]"), noise(80))
    assert found["fd[teacher]"]["status"] == "unavailable"
    assert str(blocked) in found["fd[teacher]"]["note"]
    assert found["is[teacher]"]["status"] == "ok"


# ---- RDSKD's protocol ------------------------------------------------------------------------------------------------


def test_rdskds_protocol_takes_the_last_five_images_of_a_class_and_five_test_images() -> None:
    images, train, test = noise(80), noise(60, 1), noise(50, 2)
    found = scored(("rdskd_fd[teacher]", "rdskd_is[teacher]"), images, train, test)
    bright, real = images[:, 0, 0, 0] > 127, test[:, 0, 0, 0] > 127
    chosen = torch.cat([images[~bright][-5:], images[bright][-5:]])
    others = torch.cat([test[~real][-5:], test[real][-5:]])
    expected = frechet_distance(moments(pixels(chosen)), moments(pixels(others)))
    entry = found["rdskd_fd[teacher]"]
    assert entry["value"] == pytest.approx(expected, rel=1e-5)
    assert (entry["status"], entry["images"], entry["real_images"]) == ("unreliable", 10, 10)
    for each in found.values():
        assert "RDSKD's protocol" in each["note"]
        assert "to compare with its table only" in each["note"]


def test_rdskds_protocol_without_classes_cannot_be_followed() -> None:
    found = scored(("rdskd_fd[teacher]",), images_of([0, 0, 0]))["rdskd_fd[teacher]"]
    assert found["status"] == "unreliable"  # three images of one class are what it gets
    assert found["images"] == 3
