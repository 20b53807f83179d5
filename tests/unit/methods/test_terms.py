"""Each term of a loss as a method really computes it, from the images of its first step, in NumPy and double precision.

What a method logs, in single precision, is what it minimises. The equations are those of the methods' docstrings.
"""

from __future__ import annotations

import numpy as np
import pytest
from method_fixtures import lenet
from scipy.special import log_softmax, softmax
from term_fixtures import answers, assert_terms, begin, confidence, kl, statistics, teacher_network

from bench.spec.method import Method
from methods.adi import adi
from methods.dafl import dafl
from methods.deepdream import deepdream
from methods.deepinversion import deepinversion
from methods.dfad import dfad
from methods.rdskd import rdskd
from methods.zskd import zskd

GENERATOR = {"batch": 12, "latent": 6, "width": 4}
IMAGES = {"batch": 12, "iterations": 4, "images": 24, "batch_student": 16}


pytestmark = pytest.mark.usefixtures("_double")


def prior(x: np.ndarray, tv: float, l2: float) -> float:
    pairs = [
        (x[..., 1:], x[..., :-1]),
        (x[..., 1:, :], x[..., :-1, :]),
        (x[..., 1:, 1:], x[..., :-1, :-1]),
        (x[..., 1:, :-1], x[..., :-1, 1:]),
    ]
    return float(tv * sum(np.sqrt(((a - b) ** 2).sum()) for a, b in pairs) + l2 * np.sqrt((x**2).sum()))


def test_dafl() -> None:
    _, logs, (images,) = begin(dafl.declared, {**GENERATOR, "temperature": 2.0})
    network = teacher_network()
    logits = answers(network, images)
    mean = softmax(logits, 1).mean(0)
    features = answers(network.body, images)
    assert_terms(
        logs,
        {
            "one_hot": confidence(logits),
            "balance": (mean * np.log10(mean)).sum(),
            "activation": -np.abs(features).mean(),
            "distillation": kl(logits, answers(lenet(2, "lenet5-half"), images), 2.0),
        },
    )


def test_rdskd() -> None:
    _, logs, (images,) = begin(rdskd.declared, GENERATOR)
    logits, x = answers(teacher_network(), images), np.asarray(images)
    p = softmax(logits, 1)
    assert_terms(
        logs,
        {
            "one_hot": confidence(logits),
            "balance": (p.mean(0) * np.log(p.mean(0))).sum(),
            "diversity": np.linalg.norm(p[6:] - p[:6]) / np.linalg.norm((x[6:] - x[:6]).ravel()),
            "clamped": 0.0,
        },
    )


@pytest.mark.parametrize("kind", ["mae", "mse", "kl"])
def test_dfad(kind: str) -> None:
    options = {**GENERATOR, "student_steps": 1, "discrepancy": kind}
    if kind == "kl":
        options["temperature"] = 3.0
    context, logs, (imitated, generated) = begin(dfad.declared, options)
    expected = {}
    for name, student, images in [
        ("imitation", lenet(2, "lenet5-half"), imitated),
        ("difference", context.student, generated),  # as it is after the imitation
    ]:
        t, s = answers(teacher_network(), images), answers(student, images)
        expected[name] = {"mae": np.abs(s - t).mean(), "mse": ((s - t) ** 2).mean(), "kl": kl(t, s, 3.0)}[kind]
    assert_terms(logs, expected)


def test_zskd() -> None:
    context, logs, (images,) = begin(zskd.declared, {"iterations": 4, "batch": 12, "share": 0.99})
    targets, logits = np.asarray(context.kept["targets"]), answers(teacher_network(), images)
    assert targets.sum(1) == pytest.approx(1)
    assert logs["impression"] == pytest.approx(-(targets * log_softmax(logits / 20, 1)).sum(1).mean(), rel=1e-6)


def test_deepdream() -> None:
    _, logs, (images,) = begin(deepdream.declared, {**IMAGES, "tv": 0.02, "l2": 0.03})
    labels = np.arange(12) % 10
    one_hot = -log_softmax(answers(teacher_network(), images), 1)[range(12), labels].mean()
    assert_terms(logs, {"one_hot": one_hot, "prior": prior(np.asarray(images), 0.02, 0.03)})


@pytest.mark.parametrize("method", [deepinversion.declared, adi.declared], ids=["deepinversion", "adi"])
def test_deepinversion_and_adis_first_images(method: Method) -> None:
    _, logs, (images,) = begin(method, {**IMAGES, "tv": 0.02, "l2": 0.03}, norm=True)
    network, labels = teacher_network(norm=True), np.arange(12) % 10
    expected = {
        "one_hot": -log_softmax(answers(network, images), 1)[range(12), labels].mean(),
        "prior": prior(np.asarray(images), 0.02, 0.03),
        "statistics": statistics(network, images),
    }
    assert_terms(logs, expected)
