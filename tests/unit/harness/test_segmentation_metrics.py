"""Segmentation scores: one confusion matrix over all pixels, void left out, against a slow loop and scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score
from torch import Tensor, nn

from bench.data.batches import normalise
from bench.data.image_spec import ImageSpec
from bench.data.source import VOID, Split
from bench.harness import evaluation
from bench.harness.evaluation import (
    Judge,
    answers,
    confusion,
    intersection_over_union,
    mean_iou,
    pixel_accuracy,
    predict,
    score_answers,
    score_network,
)
from bench.spec.metric_names import METRICS

CPU = torch.device("cpu")
CLASSES = ("road", "tree", "car", "sky")
IMAGE = ImageSpec(channels=3, size=16, mean=(0.5,) * 3, std=(0.25,) * 3)


def labelled(shape: tuple[int, ...] = (5, 12, 9), seed: int = 0, void: float = 0.15) -> tuple[Tensor, Tensor]:
    """Labels with void pixels, and answers that are right more often than not."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, shape, generator=stream)
    right = torch.rand(shape, generator=stream) < 0.6
    found = torch.where(right, labels, torch.randint(4, shape, generator=stream))
    labels[torch.rand(shape, generator=stream) < void] = VOID
    return found.to(torch.uint8), labels.to(torch.uint8)


def slow(found: Tensor, labels: Tensor, classes: int) -> tuple[np.ndarray, list[float | None], float, float]:
    """(confusion matrix, IoU of each class, their mean, pixel accuracy), counted pixel by pixel."""
    matrix = np.zeros((classes, classes), np.int64)
    for true, given in zip(labels.flatten().tolist(), found.flatten().tolist(), strict=True):
        if true != VOID:
            matrix[true, given] += 1
    values: list[float | None] = []
    for k in range(classes):
        both = matrix[k, k]
        either = matrix[k].sum() + matrix[:, k].sum() - both
        values.append(float(both / either) if either else None)
    present = [value for value in values if value is not None]
    return matrix, values, sum(present) / len(present), float(np.trace(matrix) / matrix.sum())


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_those_of_a_slow_loop(seed: int) -> None:
    found, labels = labelled(seed=seed)
    matrix, values, mean, accuracy = slow(found, labels, 4)
    ours = confusion(found, labels, 4)
    assert ours.dtype == torch.int64
    np.testing.assert_array_equal(ours, matrix)
    assert intersection_over_union(ours) == pytest.approx(values)
    assert mean_iou(ours) == pytest.approx(mean)
    assert pixel_accuracy(ours) == pytest.approx(accuracy)


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_scikit_learns(seed: int) -> None:
    found, labels = labelled(seed=seed)
    counted = labels != VOID
    true, given = labels[counted].numpy(), found[counted].numpy()
    ours = confusion(found, labels, 4)
    np.testing.assert_array_equal(ours, confusion_matrix(true, given, labels=range(4)))
    assert intersection_over_union(ours) == pytest.approx(list(jaccard_score(true, given, average=None)))
    assert mean_iou(ours) == pytest.approx(jaccard_score(true, given, average="macro"))
    assert pixel_accuracy(ours) == pytest.approx(accuracy_score(true, given))


def test_rows_are_the_true_classes() -> None:
    matrix = confusion(torch.tensor([1, 1, 0]), torch.tensor([0, 0, 0]).to(torch.uint8), 2)
    assert matrix.tolist() == [[1, 2], [0, 0]]


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64])
def test_many_classes_do_not_overflow_a_byte(kind: torch.dtype) -> None:
    labels = torch.arange(101).to(torch.uint8)
    assert torch.equal(confusion(labels.to(kind), labels, 101), torch.eye(101, dtype=torch.int64))


def test_void_pixels_do_not_count_whatever_the_answer() -> None:
    found, labels = labelled(void=0.3)
    changed = torch.where(labels == VOID, 3 - found, found)
    assert torch.equal(confusion(found, labels, 4), confusion(changed, labels, 4))
    assert int(confusion(found, labels, 4).sum()) == int((labels != VOID).sum())


def test_a_class_that_is_in_neither_has_no_iou_and_is_left_out_of_the_mean() -> None:
    labels, found = torch.tensor([0, 0, 1, 1]).to(torch.uint8), torch.tensor([0, 0, 1, 0]).to(torch.uint8)
    matrix = confusion(found, labels, 3)
    assert intersection_over_union(matrix) == [2 / 3, 1 / 2, None]
    assert mean_iou(matrix) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_that_is_missing_in_the_answers_counts_as_zero() -> None:
    labels, found = torch.tensor([0, 0, 1, 2]).to(torch.uint8), torch.tensor([0, 0, 1, 1]).to(torch.uint8)
    matrix = confusion(found, labels, 3)
    assert intersection_over_union(matrix) == [1.0, 0.5, 0.0]
    assert mean_iou(matrix) == 0.5
    swapped = confusion(labels, found, 3)  # so does one that only the answers have
    assert intersection_over_union(swapped) == [1.0, 0.5, 0.0]


def test_no_pixel_that_counts_gives_zero_and_no_error() -> None:
    void = torch.full((2, 3, 3), VOID, dtype=torch.uint8)
    matrix = confusion(torch.zeros_like(void), void, 3)
    assert intersection_over_union(matrix) == [None, None, None]
    assert (mean_iou(matrix), pixel_accuracy(matrix)) == (0.0, 0.0)


def test_the_score_is_over_all_pixels_of_the_set_not_a_mean_over_images() -> None:
    labels = torch.zeros(2, 2, 2, dtype=torch.uint8)
    labels[1] = 1
    labels[1, 0, 0] = VOID
    found = torch.zeros_like(labels)
    score, details = score_answers(found, labels, ("a", "b"))
    assert score == pytest.approx((4 / 7 + 0) / 2)
    assert details == {"pixel_accuracy": pytest.approx(4 / 7), "iou[a]": pytest.approx(4 / 7), "iou[b]": 0.0}


# ---- the judge -------------------------------------------------------------------------------------------------------


def pixelwise(seed: int) -> nn.Module:
    """A network that answers for every pixel, with batch norm so that its mode makes a difference."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1))


def dense_split(count: int = 7, height: int = 16, width: int = 16) -> Split:
    stream = torch.Generator().manual_seed(3)
    images = torch.randint(256, (count, 3, height, width), generator=stream, dtype=torch.uint8)
    return Split(images, labelled((count, height, width))[1])


def slow_answers(network: nn.Module, split: Split) -> Tensor:
    network = network.eval()
    with torch.no_grad():
        logits = [network((image[None].double() / 255 - 0.5).float() / 0.25)[0] for image in split.images]
    return torch.stack([each.max(0).indices for each in logits])


def judge_of(
    student: nn.Module, teacher: nn.Module, split: Split, image: ImageSpec = IMAGE, classes: Sequence[str] = CLASSES
) -> Judge:
    return Judge(student, answers(teacher, split.images, image), split, image, CPU, classes)


@pytest.mark.parametrize("size", [(16, 16), (24, 20)])
@pytest.mark.parametrize("pixels", [10**6, 1000, 1])
def test_the_judge_scores_whole_images_of_any_size(
    size: tuple[int, int], pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "PIXELS", pixels)  # one batch of all images, some, or an image at a time
    split, student, teacher = dense_split(7, *size), pixelwise(1).train(), pixelwise(2).eval()
    verdict = judge_of(student, teacher, split).test(student.state_dict())
    assert student.training
    ours, theirs = slow_answers(student, split), slow_answers(teacher, split)
    _, values, mean, accuracy = slow(ours, split.labels, 4)
    assert verdict.score == pytest.approx(mean)
    assert list(verdict.details) == ["pixel_accuracy", "iou[road]", "iou[tree]", "iou[car]", "iou[sky]"]
    assert list(verdict.details.values()) == pytest.approx([accuracy, *values])
    counted = split.labels != VOID
    assert verdict.agreement == pytest.approx(float((ours == theirs)[counted].double().mean()))


def test_agreement_leaves_void_pixels_out() -> None:
    split, student, teacher = dense_split(), pixelwise(1), pixelwise(2).eval()
    same = slow_answers(student, split) == slow_answers(teacher, split)
    for agreed in (True, False):
        labels = torch.where(same == agreed, 1, VOID).to(torch.uint8)
        verdict = judge_of(student, teacher, Split(split.images, labels)).test(student.state_dict())
        assert verdict.agreement == float(agreed)


@pytest.mark.parametrize("many", [2, 31, 32, 200])
def test_the_judges_one_count_says_what_matrix_and_agreement_say(many: int) -> None:
    """Also where the triples of three classes no longer fit the smallest types."""
    image = IMAGE.model_copy(update={"size": 8})
    stream = torch.Generator().manual_seed(many)
    labels = torch.randint(many, (3, 8, 8), generator=stream).to(torch.uint8)
    labels[0, :2] = VOID
    split = Split(torch.randint(256, (3, 3, 8, 8), generator=stream, dtype=torch.uint8), labels)
    student, teacher = (nn.Conv2d(3, many, 1).eval() for _ in range(2))
    verdict = judge_of(student, teacher, split, image, [str(k) for k in range(many)]).test(student.state_dict())
    ours, theirs = (answers(network, split.images, image) for network in (student, teacher))
    score, details = score_answers(ours, labels, [str(k) for k in range(many)])
    assert (verdict.score, dict(verdict.details)) == (score, details)
    assert verdict.agreement == (ours == theirs)[labels != VOID].double().mean().item()


def test_a_perfect_student_scores_one_and_has_no_iou_for_absent_classes() -> None:
    split, network = dense_split(), pixelwise(1).eval()
    labels = slow_answers(network, split)
    labels[labels == 2] = VOID
    score, details = score_network(network, Split(split.images, labels.to(torch.uint8)), IMAGE, (*CLASSES, "boat"))
    present = {f"iou[{CLASSES[k]}]" for k in labels.unique().tolist() if k != VOID}
    assert score == 1.0
    assert details["pixel_accuracy"] == 1.0
    assert {name for name, value in details.items() if value is None} == {"iou[car]", "iou[boat]"}
    assert all(details[name] == 1.0 for name in present)


def test_answers_are_classes_for_every_pixel() -> None:
    split, network = dense_split(), pixelwise(1).eval()
    expected = slow_answers(network, split)
    images = normalise(split.images, IMAGE)
    assert torch.equal(predict(network, images), expected)
    with torch.autocast("cpu", torch.bfloat16):  # a trial in half precision is scored in full
        assert torch.equal(predict(network, images), expected)
    found = answers(network, split.images, IMAGE)
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), expected)
    scored = judge_of(network, pixelwise(2).eval(), split)
    assert torch.equal(scored.answers(network.state_dict(), split.images).long(), expected)


def test_agreement_on_held_out_images_is_over_their_pixels() -> None:
    split, student, teacher = dense_split(), pixelwise(1), pixelwise(2).eval()
    images = normalise(split.images, IMAGE)
    labels = predict(teacher, images)
    expected = (slow_answers(student, split) == labels).double().mean().item()
    scored = judge_of(student, teacher, split)
    assert 0 < expected < 1
    assert scored.agreement_on(student.state_dict(), images, labels) == pytest.approx(expected)
    assert scored.agreement_on(teacher.state_dict(), images, labels) == 1.0


def test_every_score_is_explained_to_the_user() -> None:
    assert {"miou", "pixel_accuracy", "iou[CLASS]"} <= METRICS.keys()
