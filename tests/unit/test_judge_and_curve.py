"""Scoring: exact, without a trace in the student, and chosen by stated rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.optim import SGD

from bench.budget import Budget
from bench.capture import to_pixels
from bench.curve import Curve
from bench.data import Split
from bench.desk import Desk
from bench.judge import Judge, predict, score_network
from bench.real import normalise
from bench.session import session_for

MakeDesk = Callable[..., Desk]


def random_split(desk: Desk, count: int = 2500) -> Split:
    images = torch.randint(256, (count, *desk.image.shape), dtype=torch.uint8)
    return Split(images, torch.randint(10, (count,)))


def test_scores_are_shares_of_the_test_images(make_desk: MakeDesk) -> None:
    with make_desk() as desk:
        split = random_split(desk)
        judge = Judge(desk.student, desk._teacher.network, split, desk.image, desk.device)
        verdict = judge.test(desk.student.state_dict())
        classes = desk.student.eval()(normalise(split.images, desk.image)).argmax(1)
        teacher = desk._teacher.network(normalise(split.images, desk.image)).argmax(1)
    assert verdict.score == pytest.approx(float((classes == split.labels).double().mean()))
    assert verdict.agreement == pytest.approx(float((classes == teacher).double().mean()))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_held_out_images_of_half_precision_are_judged(make_desk: MakeDesk, kind: torch.dtype) -> None:
    with make_desk() as desk:
        judge = Judge(desk.student, desk._teacher.network, random_split(desk, 20), desk.image, desk.device)
        images = torch.randn(20, *desk.image.shape).to(kind)
        labels = predict(desk.student.eval(), images.float())
        assert judge.agreement_on(desk.student.state_dict(), images, labels) == 1.0


def test_accuracy_of_a_perfect_and_a_wrong_network(make_desk: MakeDesk) -> None:
    with make_desk() as desk:
        images = torch.randint(256, (1500, *desk.image.shape), dtype=torch.uint8)
        labels = predict(desk._teacher.network, normalise(images, desk.image))
        assert score_network(desk._teacher.network, Split(images, labels), desk.image, "0123456789") == (1.0, {})
        assert score_network(desk._teacher.network, Split(images, (labels + 1) % 10), desk.image, "0123456789") == (
            0.0,
            {},
        )


def test_judging_leaves_the_student_its_mode_and_counts_nothing(make_desk: MakeDesk) -> None:
    with make_desk() as desk:
        judge = Judge(desk.student, desk._teacher.network, random_split(desk, 50), desk.image, desk.device)
        desk.clock.start()
        before = vars(desk.meter).copy()
        judge.test(desk.student.state_dict())
        desk.clock.stop()
        assert desk.student.training
        after = vars(desk.meter).copy()
    assert {**after, "seconds": 0} == {**before, "seconds": 0}


def test_curve_picks_by_each_rule(make_desk: MakeDesk, tmp_path: Path) -> None:
    with make_desk(budget=Budget(steps=12)) as desk:
        session = session_for(desk.image, 10)
        opt = session.keep("opt", SGD(session.student.parameters(), 0.5))
        judge = Judge(desk.student, desk._teacher.network, random_split(desk, 400), desk.image, desk.device)
        curve = Curve(desk, judge, 6, tmp_path, keep_students=True)
        desk.after_step = lambda: curve.evaluate() if curve.due() else None
        curve.begin()
        weights = [curve_weights(desk)]
        for _ in session.steps("train"):
            session.distill(opt, session.noise(64, *desk.image.shape))
            if desk.meter.steps % 2 == 1:  # after this step a point is due
                weights.append(curve_weights(desk))
        curve.close()
        chosen = curve.select(["last", "ema", "teacher_agreement", "oracle"])
        held = desk.capture.held_out
        images, labels = held.column("images"), held.column("labels")
        assert images is not None
        assert labels is not None
        agreements = [judge.agreement_on(each, images, labels) for each in weights]
    scores = [row["score"] for row in curve.rows]
    assert [row["steps"] for row in curve.rows] == [0, 2, 4, 6, 8, 10, 12]
    assert chosen["last"].score == scores[-1]
    assert chosen["ema"].score == curve.rows[-1]["score_ema"]
    assert chosen["oracle"].score == max(scores)
    assert [row["held_out_agreement"] for row in curve.rows] == agreements
    best = max(range(7), key=lambda index: (agreements[index], index))
    assert chosen["teacher_agreement"].point == best
    assert chosen["teacher_agreement"].score == scores[best]


def curve_weights(desk: Desk) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in desk.student.state_dict().items()}


def test_a_long_step_is_scored_once(make_desk: MakeDesk, tmp_path: Path) -> None:
    with make_desk(budget=Budget(student_images=100)) as desk:
        judge = Judge(desk.student, desk._teacher.network, random_split(desk, 20), desk.image, desk.device)
        curve = Curve(desk, judge, 20, tmp_path, keep_students=False)
        desk.clock.start()
        curve.begin()
        desk.after_step = lambda: curve.evaluate() if curve.due() else None
        for _ in session_for(desk.image, 10).steps("train"):
            with torch.no_grad():
                desk.student(torch.randn(60, *desk.image.shape))
        curve.close()
    assert [row["student_images"] for row in curve.rows] == [0, 60, 120]
    assert curve.rows[-1]["progress"] == 1.0


def test_contact_sheets_show_what_was_captured(make_desk: MakeDesk) -> None:
    with make_desk() as desk:
        pixels = torch.rand(8, *desk.image.shape)
        desk.capture.take(0, (pixels - desk.image.mean[0]) / desk.image.std[0])
        stored = desk.capture.training.column("images")
    assert stored is not None
    assert int((stored.float() - pixels * 255).abs().max().round()) <= 1
    geometry = desk.image.model_copy(update={"mean": (0.5,), "std": (0.25,)})
    torch.testing.assert_close(to_pixels((pixels - 0.5) / 0.25, geometry), pixels)
