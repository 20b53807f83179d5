"""Scoring: exact, without a trace in the student, and chosen by stated rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.optim import SGD

from bench.data import Split
from bench.data.batches import normalise
from bench.harness.evaluation import Judge, answers, predict, score_network
from bench.harness.image_sample import to_pixels
from bench.harness.learning_curve import Curve
from bench.harness.session import session_for
from bench.harness.trial_context import TrialContext
from bench.spec.budget import Budget

MakeContext = Callable[..., TrialContext]


def random_split(context: TrialContext, count: int = 2500) -> Split:
    images = torch.randint(256, (count, *context.image.shape), dtype=torch.uint8)
    return Split(images, torch.randint(10, (count,)))


def judge_of(context: TrialContext, split: Split) -> Judge:
    teachers = answers(context._teachers[0].network, split.images, context.image)
    return Judge(context.student, teachers, split, context.image, context.device)


def test_scores_are_shares_of_the_test_images(make_context: MakeContext) -> None:
    with make_context() as context:
        split = random_split(context)
        judge = judge_of(context, split)
        verdict = judge.test(context.student.state_dict())
        classes = context.student.eval()(normalise(split.images, context.image)).argmax(1)
        teacher = context._teachers[0].network(normalise(split.images, context.image)).argmax(1)
    assert verdict.score == pytest.approx(float((classes == split.labels).double().mean()))
    assert verdict.agreement == pytest.approx(float((classes == teacher).double().mean()))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_held_out_images_of_half_precision_are_judged(make_context: MakeContext, kind: torch.dtype) -> None:
    with make_context() as context:
        judge = judge_of(context, random_split(context, 20))
        images = torch.randn(20, *context.image.shape).to(kind)
        labels = predict(context.student.eval(), images.float())
        assert judge.agreement_on(context.student.state_dict(), images, labels) == 1.0


def test_accuracy_of_a_perfect_and_a_wrong_network(make_context: MakeContext) -> None:
    with make_context() as context:
        images = torch.randint(256, (1500, *context.image.shape), dtype=torch.uint8)
        labels = predict(context._teachers[0].network, normalise(images, context.image))
        assert score_network(context._teachers[0].network, Split(images, labels), context.image, "0123456789") == (
            1.0,
            {},
        )
        assert score_network(
            context._teachers[0].network, Split(images, (labels + 1) % 10), context.image, "0123456789"
        ) == (
            0.0,
            {},
        )


def test_judging_leaves_the_student_its_mode_and_counts_nothing(make_context: MakeContext) -> None:
    with make_context() as context:
        judge = judge_of(context, random_split(context, 50))
        context.clock.start()
        context.clock.stop()
        before = vars(context.meter).copy()
        judge.test(context.student.state_dict())
        assert context.student.training
        after = vars(context.meter).copy()
    assert {**after, "seconds": 0} == {**before, "seconds": 0}


def test_curve_picks_by_each_rule(make_context: MakeContext, tmp_path: Path) -> None:
    with make_context(budget=Budget(steps=12)) as context:
        session = session_for(context.image, 10)
        opt = session.keep("opt", SGD(session.student.parameters(), 0.5))
        judge = judge_of(context, random_split(context, 400))
        curve = Curve(context, judge, 6, tmp_path, keep_students=True)
        context.hooks.after_step = lambda: curve.evaluate() if curve.due() else None
        curve.begin()
        weights = [curve_weights(context)]
        for _ in session.steps("train"):
            session.distill(opt, session.noise(64, *context.image.shape))
            if context.meter.steps % 2 == 1:  # after this step a point is due
                weights.append(curve_weights(context))
        curve.close()
        chosen = curve.select(["last", "ema", "teacher_agreement", "oracle"])
        held = context.capture.held_out
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


@pytest.mark.parametrize("averages", [False, True])
def test_the_average_is_scored_at_the_end_or_at_each_point(
    make_context: MakeContext, tmp_path: Path, averages: bool
) -> None:
    with make_context(budget=Budget(steps=12)) as context:
        session = session_for(context.image, 10)
        opt = session.keep("opt", SGD(session.student.parameters(), 0.5))
        split = random_split(context, 400)
        judge = judge_of(context, split)
        curve = Curve(context, judge, 3, tmp_path, keep_students=False, averages=averages)
        context.hooks.after_step = lambda: curve.evaluate() if curve.due() else None
        curve.begin()
        for _ in session.steps("train"):
            session.distill(opt, session.noise(64, *context.image.shape))
        curve.close()
        last = judge.test(context.weights()[1])
    taken = [row["score_ema"] is not None for row in curve.rows]
    assert taken == ([True] * 4 if averages else [False, False, False, True])
    assert [row["agreement_ema"] is not None for row in curve.rows] == taken
    assert curve.rows[-1]["score_ema"] == last.score
    assert curve.select(["ema"])["ema"].agreement == last.agreement


def curve_weights(context: TrialContext) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in context.student.state_dict().items()}


def test_a_long_step_is_scored_once(make_context: MakeContext, tmp_path: Path) -> None:
    with make_context(budget=Budget(student_images=100)) as context:
        judge = judge_of(context, random_split(context, 20))
        curve = Curve(context, judge, 20, tmp_path, keep_students=False)
        curve.begin()

        def after_step() -> None:
            context.clock.stop()  # as the runner does
            if curve.due():
                curve.evaluate()
            context.clock.start()

        context.hooks.after_step = after_step
        context.clock.start()
        for _ in session_for(context.image, 10).steps("train"):
            with torch.no_grad():
                context.student(torch.randn(60, *context.image.shape))
        context.clock.stop()
        curve.close()
    assert [row["student_images"] for row in curve.rows] == [0, 60, 120]
    assert curve.rows[-1]["progress"] == 1.0


def test_contact_sheets_show_what_was_captured(make_context: MakeContext) -> None:
    with make_context() as context:
        pixels = torch.rand(8, *context.image.shape)
        context.capture.take(0, (pixels - context.image.mean[0]) / context.image.std[0])
        stored = context.capture.training.column("images")
    assert stored is not None
    assert int((stored.float() - pixels * 255).abs().max().round()) <= 1
    geometry = context.image.model_copy(update={"mean": (0.5,), "std": (0.25,)})
    torch.testing.assert_close(to_pixels((pixels - 0.5) / 0.25, geometry), pixels)
