"""The terms of methods that make images against the student, as they compute them, in NumPy and double precision.

As in test_method_terms.py: what a method logs of its first steps, from the images that teacher and student were asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import lenet
from scipy.special import log_softmax, softmax
from term_fixtures import answers, assert_terms, begin, confidence, kl, norm_inputs, statistics, teacher_network
from torch import nn

from bench.models import stages
from bench.spec.method import Method
from methods.cmi import cmi
from methods.common.contrastive import InstanceHead
from methods.ddad import ddad
from methods.dfq import dfq
from methods.fast_dfkd import fast_dfkd
from methods.pre_dfkd import pre_dfkd
from methods.ssd_kd import ssd_kd
from methods.zskt import zskt

GENERATOR = {"batch": 12, "latent": 6, "width": 4, "student_steps": 1}
STILL = {"lr_generator": 1e-15, "lr_student": 1e-15}
PRE: dict[str, Any] = {"batch": 12, "batch_memory": 4, "batch_fit": 7, "latent": 6, "width": 4, "student_steps": 2}
INVERSION = {"batch_synthesis": 12, "iterations": 2, "latent": 6, "width": 4}


pytestmark = pytest.mark.usefixtures("_double")


def kin() -> nn.Module:
    """A student that predicts as the teacher does on some images only, and is less sure."""
    network = teacher_network(norm=True)
    stream = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        parameter.requires_grad_().data.add_(0.05 * torch.randn(parameter.shape, generator=stream))
    return network


def kl_each(teacher: np.ndarray, student: np.ndarray, tau: float = 1.0) -> np.ndarray:
    difference = log_softmax(teacher / tau, 1) - log_softmax(student / tau, 1)
    return np.asarray(tau**2 * (softmax(teacher / tau, 1) * difference).sum(1))


def balance(logits: np.ndarray, log: np.ufunc = np.log) -> float:
    mean = softmax(logits, 1).mean(0)
    return float((mean * log(mean)).sum())


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_softmax(logits, 1)[np.arange(len(logits)), labels].mean())


def agreement(teacher: np.ndarray, student: np.ndarray) -> float:
    """L_adv, of images of which some are agreed upon and some are not."""
    same = teacher.argmax(1) == student.argmax(1)
    assert 0 < same.sum() < len(same)
    return float(-(kl_each(teacher, student) * same).mean())


# ---- a generator that goes on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", [0.0, 250.0])
def test_zskt(attention: float) -> None:
    _, logs, (first, second) = begin(zskt.declared, {**GENERATOR, "attention": attention, "temperature": 2.0, **STILL})
    teacher, student, wanted = teacher_network(), lenet(2, "lenet5-half"), {}
    for name, images in (("difference", first), ("matching", second)):
        wanted[name] = kl(answers(teacher, images), answers(student, images), 2.0) / 10
    if attention:
        for theirs, own in zip(attended(teacher, second), attended(student, second), strict=True):
            wanted["matching"] += attention * ((own - theirs) ** 2).mean()
    assert_terms(logs, wanted)


def attended(network: nn.Module, images: torch.Tensor) -> list[np.ndarray]:
    """Of each stage, the mean square over channels, as one vector of unit length for each image."""
    maps: list[np.ndarray] = []
    for stage in stages(network):
        stage.register_forward_hook(lambda *call: maps.append((np.asarray(call[2]) ** 2).mean(1).reshape(12, -1)))
    answers(network, images)
    return [each / np.linalg.norm(each, axis=1, keepdims=True) for each in maps]


def test_dfq() -> None:
    _, logs, (made, learnt) = begin(dfq.declared, {**GENERATOR, "temperature": 2.0}, norm=True, steps=2)
    teacher, student = teacher_network(norm=True), lenet(2, "lenet5bn-half")
    logits = answers(teacher, made)
    assert_terms(
        logs,
        {
            "one_hot": confidence(logits),
            "balance": balance(logits),
            "divergence": kl(logits, answers(student.eval(), made), 2.0),
            "statistics": statistics(teacher, made),
            "distillation": kl(answers(teacher, learnt), answers(student.train(), learnt), 2.0),
        },
    )


@pytest.mark.parametrize("kind", ["mae", "mse", "kl"])
def test_ddad(kind: str) -> None:
    options = {**GENERATOR, "discrepancy": kind, "lr_student": 1e-15, **({"temperature": 3.0} if kind == "kl" else {})}
    _, logs, (learnt, made) = begin(ddad.declared, options, norm=True, steps=2)
    teacher, student, wanted = teacher_network(norm=True), lenet(2, "lenet5bn-half").train(), {}
    for name, images in (("imitation", learnt), ("difference", made)):
        t, s = answers(teacher, images), answers(student, images)
        wanted[name] = {"mae": np.abs(s - t).mean(), "mse": ((s - t) ** 2).mean(), "kl": kl(t, s, 3.0)}[kind]
    logits = answers(teacher, made)
    terms = {"one_hot": confidence(logits), "balance": balance(logits), "statistics": statistics(teacher, made)}
    assert_terms(logs, {**wanted, **terms})


@pytest.mark.parametrize("clamped", [False, True])
def test_pre_dfkds_novel_images(clamped: bool) -> None:
    _, logs, (images,) = begin(pre_dfkd.declared, {**PRE, "clamped": clamped})
    teacher, student = teacher_network(), lenet(2, "lenet5-half")
    logits = answers(teacher, images)
    p, q = softmax(logits / 3, 1), softmax(answers(student, images) / 3, 1)
    m = (p + q) / 2
    if clamped:
        p, q, m = (np.clip(each, 0.01, 0.99) for each in (p, q, m))
        apart = (m * (2 * np.log(m) - np.log(p) - np.log(q))).mean() / 2
    else:
        apart = (p * np.log(p / m) + q * np.log(q / m)).sum() / 2 / len(p)
    wanted = {"one_hot": confidence(logits), "balance": balance(logits, np.log10), "disagreement": 1 - apart}
    wanted["activation"] = -np.abs(answers(teacher.body, images)).mean()
    assert_terms(logs, wanted)


def test_pre_dfkds_student_and_memory() -> None:
    """In the second round's first student step: novel and replayed images; then part of them, and a new replay."""
    _, before, _ = begin(pre_dfkd.declared, {**PRE, "lr_student": 1e-15}, steps=4)
    _, logs, heard = begin(pre_dfkd.declared, {**PRE, "lr_student": 1e-15}, steps=5)
    teacher, student = teacher_network(), lenet(2, "lenet5-half")
    *_, both, _, replayed, again = heard
    assert [len(each) for each in (both, replayed, again)] == [12 + 4, 4, 7 + 4]
    u = torch.cat([both[:7], replayed])
    recalled = np.abs(np.asarray(u - again)).mean() + np.abs(answers(teacher, u) - answers(teacher, again)).mean()
    imitated = np.abs(answers(teacher, both) - answers(student, both)).mean()
    for name, last in (("memory", recalled), ("imitation", imitated)):  # logs are means over 2 and over 3 steps
        assert 3 * logs[name] - 2 * before[name] == pytest.approx(last, rel=1e-4)


# ---- one inversion call after the other ------------------------------------------------------------------------------


def test_cmi() -> None:
    options = {**INVERSION, "head": 5, "lr_generator": 1e-15}
    context, logs, (view, local_view) = begin(cmi.declared, options, norm=True, student=kin())
    teacher, labels = teacher_network(norm=True), np.asarray(context.kept["labels"])
    logits = answers(teacher, view)
    head = context.kept["head"]
    local, global_ = (
        np.concatenate([x.mean((2, 3)) for _, x in norm_inputs(teacher, images)], 1) for images in (local_view, view)
    )
    similar = projected(head, local) @ projected(head, global_).T / 0.1
    contrast = (np.log(np.exp(similar).sum(1)) - np.diag(similar)).mean()
    terms = {"batch_norm": statistics(teacher, view), "contrast": contrast}
    adversarial = agreement(logits, answers(kin(), view))
    total = terms["batch_norm"] + cross_entropy(logits, labels) + 0.5 * adversarial + 0.8 * contrast
    assert_terms(logs, {**terms, "inversion": total})


def projected(head: InstanceHead, features: np.ndarray) -> np.ndarray:
    w1, b1, w2, b2 = (np.asarray(parameter.detach()) for parameter in head.parameters())
    found = np.maximum(features @ w1.T + b1, 0) @ w2.T + b2
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def test_fast_dfkd() -> None:
    """The last of two calls: the statistics are a tenth of the batch's and nine of the call before's."""
    options = {
        **INVERSION,
        "iterations": 1,
        "warm_up": 0,
        "student_steps": 1,
        "batch": 12,
        "lr_student": 1e-15,
        "eight_bit": False,
    }
    _, before, _ = begin(fast_dfkd.declared, options, norm=True, student=kin(), steps=2)
    context, logs, (earlier, _, view) = begin(fast_dfkd.declared, options, norm=True, student=kin(), steps=3)
    teacher, labels = teacher_network(norm=True), np.asarray(context.kept["labels"])
    distance = 0.0
    for (layer, past), (_, now) in zip(norm_inputs(teacher, earlier), norm_inputs(teacher, view), strict=True):
        means, variances = ([0.1 * x for x in (f(now), 9 * f(past))] for f in (mean, var))
        distance += np.linalg.norm(sum(means) - np.asarray(layer.running_mean))
        distance += np.linalg.norm(sum(variances) - np.asarray(layer.running_var))
    logits = answers(teacher, view)
    student = context.student.eval()  # as it was, but for running statistics
    total = 10 * distance + 0.4 * cross_entropy(logits, labels) + 1.1 * agreement(logits, answers(student, view))
    assert 2 * logs["batch_norm"] - before["batch_norm"] == pytest.approx(distance, rel=1e-4)
    assert 2 * logs["inversion"] - before["inversion"] == pytest.approx(total, rel=1e-4)


def mean(x: np.ndarray) -> np.ndarray:
    return np.asarray(x.mean((0, 2, 3)))


def var(x: np.ndarray) -> np.ndarray:
    return np.asarray(x.var((0, 2, 3)))


@pytest.mark.parametrize("method", [cmi.declared, fast_dfkd.declared], ids=["cmi", "fast_dfkd"])
def test_the_students_loss_of_pools(method: Method) -> None:
    options = {
        **INVERSION,
        "iterations": 1,
        "student_steps": 1,
        "batch": 12,
        "temperature": 5.0,
        "warm_up": 0,
        "eight_bit": False,
    }
    _, logs, heard = begin(method, options, norm=True, steps=2)
    seen, student = heard[-1], lenet(2, "lenet5bn-half").train()
    assert_terms(logs, {"distillation": kl(answers(teacher_network(norm=True), seen), answers(student, seen), 5.0)})


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_ssd_kd(gamma: float) -> None:
    """The buffer is empty at the first update: its classes say nothing yet."""
    options = {**INVERSION, "buffer": 24, "gamma": gamma, "fill_adversarial": True, "share": 0.9}
    context, logs, (view,) = begin(ssd_kd.declared, options, norm=True, student=kin())
    teacher, labels = teacher_network(norm=True), np.asarray(context.kept["labels"])
    logits, own = answers(teacher, view), answers(kin(), view)
    phi = (1 - softmax(logits, 1).max(1)) ** gamma
    same = logits.argmax(1) == own.argmax(1)
    assert 0 < same.sum() < len(same)
    adversarial = (phi * same * kl_each(logits, own)).mean()
    total = 10 * statistics(teacher, view) + 0.4 * cross_entropy(logits, labels) - 1.1 * adversarial
    assert_terms(logs, {"inversion": total, "phi": phi.mean()})
