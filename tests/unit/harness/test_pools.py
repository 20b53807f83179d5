"""Methods on other real images: what the Session gives them, where a pool comes from, what is measured of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from method_fixtures import CPU, IMAGE, lenet, run, same_weights, trial
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from bench import Access, Data, Session, StudentBatch
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.leaderboard import cells
from bench.data import Split, load_pool
from bench.data.batches import RealImages
from bench.errors import AccessDenied, DataLeak, MethodError, Unsupported, UserError
from bench.execution.run_study import run_study
from bench.harness.pool import measured_names, near_duplicates
from bench.models import classifier_bias
from bench.records import load_record
from bench.spec.expand import expand
from bench.spec.study import load_study
from bench.spec.trial import Trial
from methods.kd_pool import kd_related, kd_unrelated

STUDY = """
name: other
tasks: [digits/lenet5-half]
methods: [kd_unrelated: {{batch: 8}}]
budget: {{steps: 3}}
points: 1
{more}
"""


def numbered(count: int) -> Split:
    """Images that are their own place everywhere."""
    places = torch.arange(count)
    return Split(places.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, *IMAGE.shape), places)


def places_of(images: torch.Tensor) -> list[int]:
    mean, std = torch.tensor(IMAGE.mean).view(1, -1, 1, 1), torch.tensor(IMAGE.std).view(1, -1, 1, 1)
    return [round(float(value)) for value in ((images * std + mean) * 255)[:, 0, 0, 0]]


# ---- the Session -----------------------------------------------------------------------------------------------------


def test_a_pools_images_come_with_their_places_and_are_counted() -> None:
    with trial(steps=4, data=Data.POOL, train=numbered(10)) as (s, context):
        assert s.pool_size == 10
        images, places = s.images(20)
        assert places_of(images) == places.tolist()
        assert sorted(places.tolist()) == sorted([*range(10), *range(10)])
        assert context.meter.real_images == 20


def test_a_survey_sees_the_whole_pool_once_a_round_whatever_was_chosen() -> None:
    with trial(steps=4, data=Data.POOL, train=numbered(10)) as (s, context):
        s.choose(torch.tensor([3]))
        rounds = [s.survey(4) for _ in range(6)]
        assert [len(places) for _, places in rounds] == [4, 4, 2, 4, 4, 2]
        seen = [place for images, _ in rounds for place in places_of(images)]
        assert seen == torch.cat([places for _, places in rounds]).tolist()
        assert sorted(seen[:10]) == list(range(10))
        assert seen[:10] == seen[10:]
        assert context.meter.real_images == 20


def test_only_chosen_images_are_given_from_then_on() -> None:
    with trial(steps=4, data=Data.POOL, train=numbered(10)) as (s, _):
        s.images(3)
        s.choose(torch.tensor([2, 5, 7]))
        assert sorted(s.images(6)[1].tolist()) == [2, 2, 5, 5, 7, 7]
        s.choose(torch.arange(10))
        assert sorted(s.images(10)[1].tolist()) == list(range(10))


def test_a_choice_and_a_survey_go_on_where_they_were_stopped() -> None:
    with trial(steps=9, data=Data.POOL, train=numbered(40)) as (s, context):
        s.choose(torch.arange(5, 30))
        s.images(7)
        s.survey(11)
        state = context.real.state()
        wanted = s.images(50)[1], s.survey(20)[1]
    with trial(steps=9, data=Data.POOL, train=numbered(40)) as (s, context):
        context.real.restore(state)
        assert torch.equal(s.images(50)[1], wanted[0])
        assert torch.equal(s.survey(20)[1], wanted[1])


@pytest.mark.parametrize("places", [torch.tensor([], dtype=torch.int64), torch.tensor([0.0]), torch.tensor([[1]])])
def test_a_choice_is_a_list_of_places(places: torch.Tensor) -> None:
    with trial(steps=4, data=Data.POOL, train=numbered(10)) as (s, _), pytest.raises(MethodError, match="int64 places"):
        s.choose(places)


@pytest.mark.parametrize("data", [Data.NONE, Data.TRAIN])
def test_a_pool_is_for_those_who_declare_it(data: Data) -> None:
    with trial(steps=4, data=data, train=numbered(10)) as (s, _):
        for use in (lambda: s.pool_size, lambda: s.survey(4), lambda: s.choose(torch.tensor([1]))):
            with pytest.raises(DataLeak, match=rf"declares Data\.{data.name}"):
                use()


def test_the_students_features_are_what_its_head_is_given() -> None:
    with trial(steps=4) as (s, context):
        images = s.noise(6, *IMAGE.shape)
        logits, features = s.student_features(images)
        assert context.meter.student_images == 6  # one forward pass
        torch.testing.assert_close(logits, s.student(images))
        torch.testing.assert_close(s.student_head(features), logits)


def classified(s: Session, features: Tensor) -> Tensor:
    """What the student's classifier makes of features; as a part of the student it is not called by itself."""
    return F.linear(features, s.student_classifier.weight, s.student_classifier.bias)


def test_penultimate_features_are_what_the_classifier_is_given() -> None:
    with trial(steps=4) as (s, context):
        images = s.noise(6, *IMAGE.shape)
        logits, features = s.student_features(images, penultimate=True)
        assert features.shape == (6, 42)  # not the 60 that go into the head of two layers
        torch.testing.assert_close(classified(s, features), logits)
        out = s.teacher(images, penultimate=True)
        weight, bias = s.teacher.classifier_weight, s.teacher.classifier_bias
        torch.testing.assert_close(out.penultimate @ weight.T + bias, out.logits)
        assert (context.meter.student_images, context.meter.teacher_images) == (6, 6)  # one forward pass each
        with pytest.raises(AttributeError, match="penultimate=True"):
            _ = s.teacher(images).penultimate


def test_a_loss_gets_the_penultimate_features_of_the_images_that_are_trained_on() -> None:
    with trial(steps=4) as (s, context):
        opt = s.keep("opt", SGD(s.student.parameters(), 0.1))
        images, called = s.noise(40, *IMAGE.shape), []

        def loss(batch: StudentBatch) -> Tensor:
            torch.testing.assert_close(classified(s, batch.penultimate), batch.student)
            torch.testing.assert_close(s.teacher(images[batch.rows]).logits, batch.teacher)
            called.append(batch.rows)
            return batch.student.square().mean()

        s.student_step(opt, images, loss, rows=torch.arange(40), penultimate=True)
        assert called[0].tolist() == [*range(8, 16), *range(8, 40)]  # the first eight are held out
        assert context.meter.student_images == 40
        s.student_step(opt, images, lambda batch: batch.penultimate.square().mean(), penultimate=True)


@pytest.mark.parametrize("penultimate", [True, False])
def test_a_backward_pass_counts_once_wherever_the_loss_begins(penultimate: bool) -> None:
    losses: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda logits, features: logits.square().mean(),
        lambda logits, features: features.square().mean(),
        lambda logits, features: logits.square().mean() + features.square().mean(),
    ]
    spent = []
    for loss in losses:
        with trial(steps=4) as (s, context):
            opt = s.keep("opt", SGD(s.student.parameters(), 0.1))
            pairs = [s.student_features(s.noise(6, *IMAGE.shape), penultimate=penultimate) for _ in range(2)]
            s.update(opt, sum(loss(*pair) for pair in pairs))  # two passes, one backward through both
            assert context.meter.student_backward == 12
            spent.append(context.meter.macs)
    assert len(set(spent)) == 1


def test_a_network_without_a_linear_classifier_is_left_out_by_plan() -> None:
    with trial(steps=4, student=nn.Conv2d(1, 10, 1)) as (s, _), pytest.raises(Unsupported, match="Conv2d"):
        _ = s.student_classifier


def test_a_copy_of_the_teacher_can_be_trained_and_the_teacher_stays() -> None:
    with trial(steps=4) as (s, context):
        copy = s.keep("copy", s.teacher.copy())
        assert same_weights(copy, context._teachers[0].network)
        opt = s.keep("opt", SGD(copy.parameters(), 0.1))
        images = s.noise(6, *IMAGE.shape)
        before = context.meter.teacher_images
        s.update(opt, copy(images).square().mean())
        assert context.meter.teacher_images == before + 6
        assert context.meter.teacher_backward == 6
        assert not same_weights(copy, context._teachers[0].network)
        assert torch.equal(s.teacher.classifier_bias, classifier_bias(context._teachers[0].network))


def test_a_copy_needs_the_access_of_parameters() -> None:
    with trial(steps=4, access=Access.BATCH_NORM) as (s, _):
        for use in (s.teacher.copy, lambda: s.teacher.classifier_bias):
            with pytest.raises(AccessDenied):
                use()


def test_distillation_on_a_pool_is_the_divergence_alone() -> None:
    expected, teacher, real = lenet(2, "lenet5-half"), lenet(1).eval(), RealImages(numbered(40), IMAGE, 0, CPU)
    optimizer = SGD(expected.parameters(), 0.05, momentum=0.9)
    for _ in range(3):
        images, _ = real.take(16)
        with torch.no_grad():
            soft = F.softmax(teacher(images) / 4, 1)
        loss = 16 * (soft * (soft.log() - F.log_softmax(expected(images) / 4, 1))).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    settings = {"batch": 16, "optimizer": "sgd", "lr_student": 0.05, "temperature": 4.0}
    for declared in (kd_related.declared, kd_unrelated.declared):
        context = run(declared, settings, steps=3, student=lenet(2, "lenet5-half"), train=numbered(40))
        assert same_weights(context.student, expected, 1e-6)


# ---- where a trial's pool comes from ---------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return tmp_path / "study.yaml"


def expanded(study: Path, more: str = "") -> Trial:
    study.write_text(STUDY.format(more=more))
    (found,) = expand(load_study(study))
    return found


def test_of_a_pool_nothing_is_measured_that_is_about_a_trials_steps_or_its_student() -> None:
    names = ("confidence", "distillation_loss", "rdskd_is[teacher]", "fd[teacher]", "distillation_loss_variance")
    assert measured_names(names) == ("confidence", "fd[teacher]")


def test_a_trial_has_its_tasks_pool_of_the_methods_role(study: Path) -> None:
    found = expanded(study)
    assert (found.pool, found.pool_path) == ("photos", None)


def test_a_study_may_name_another_pool_and_it_is_another_trial(study: Path) -> None:
    found = expanded(study, "pools: {digits/lenet5-half: {unrelated: fashion_mnist}}")
    assert found.pool == "fashion_mnist"
    assert found.id != expanded(study).id
    other_role = expanded(study, "pools: {digits/lenet5-half: {wild: fashion_mnist}}")
    assert other_role.id == expanded(study).id


def test_a_pool_of_ones_own_is_known_by_its_content_and_not_by_its_path(study: Path, tmp_path: Path) -> None:
    def own(folder: str, value: int) -> Trial:
        (tmp_path / folder).mkdir(exist_ok=True)
        np.save(tmp_path / folder / "mine.npy", np.full((4, 8, 8), value, np.uint8))
        return expanded(study, f"pools: {{digits/lenet5-half: {{unrelated: {folder}/mine.npy}}}}")

    one, elsewhere, other = own("a", 1), own("b", 1), own("c", 2)
    assert one.pool_path == tmp_path / "a" / "mine.npy"
    assert one.pool.startswith("pool@")
    assert one.id == elsewhere.id != other.id


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ("{digits/lenet5-half: {unrelated: fotos}}", "did you mean 'photos'"),
        ("{digits/lenet5-half: {related_to: photos}}", "related_to"),
        ("{digits/lenet5: {unrelated: photos}}", "digits/lenet5"),
    ],
)
def test_a_mistake_in_pools_is_named_with_its_line(study: Path, pools: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        expanded(study, f"pools: {pools}")
    assert str(error.value).startswith(f"{study}, line 7: ")
    assert message in str(error.value)


def test_what_has_no_pool_is_left_out_by_plan(study: Path, tmp_path: Path) -> None:
    task = tmp_path / "task.yaml"
    task.write_text(
        "- name: mine\n  data: digits\n  image: {channels: 1, size: 32, mean: [0.3], std: [0.3]}\n"
        "  teacher: {network: lenet5, recipe: digits, quick: digits}\n  student: lenet5-half\n"
    )
    study.write_text(STUDY.format(more="").replace("digits/lenet5-half", "task.yaml"))
    summary = run_study(study, results=tmp_path / "results", executor="inline")
    record = summary.outcomes[0].record
    assert record.status == "unsupported"
    assert "needs the unrelated pool, and mine names none" in record.reason


def test_a_pool_that_is_not_there_is_missing_data(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_DATA", str(tmp_path / "empty"))
    study.write_text(STUDY.format(more="pools: {digits/lenet5-half: {unrelated: pool}}"))
    summary = run_study(study, results=tmp_path / "results", executor="inline")
    record = summary.outcomes[0].record
    assert record.status == "missing_data"
    assert "pool" in record.reason


# ---- what is measured ------------------------------------------------------------------------------------------------


def test_a_trial_on_a_pool_says_what_it_was_and_how_far_away(study: Path, tmp_path: Path) -> None:
    study.write_text(STUDY.format(more="image_metrics: [class_balance, 'fd[teacher]']\nreal_images: 200"))
    summary = run_study(study, results=tmp_path / "results", executor="inline")
    record = load_record(tmp_path / "results" / "trials" / summary.outcomes[0].record.id)
    pool = load_pool("photos", size=32, channels=1)
    assert record.pool is not None
    assert (record.pool.name, record.pool.images, record.pool.near_duplicates) == ("photos", len(pool.images), 0)
    assert record.pool.fingerprint == pool.fingerprint
    assert record.pool.image_metrics["fd[teacher]"].images == 2048
    assert record.pool.image_metrics["fd[teacher]"].value > 0
    assert record.meter.real_images == 24
    (group,) = group_records([record])
    assert cells(group, 1, group.rows[0], reference=False)["data"] == "pool: photos"


def test_near_duplicates_are_found_whatever_lies_between() -> None:
    stream = torch.Generator().manual_seed(0)
    test = torch.randint(256, (20, 3, 32, 32), generator=stream, dtype=torch.uint8)
    pool = torch.randint(256, (50, 3, 32, 32), generator=stream, dtype=torch.uint8)
    nudge = torch.randint(-8, 9, test[:3].shape, generator=stream)
    pool[[4, 17, 30]] = (test[:3].int() + nudge).clamp(0, 255).to(torch.uint8)
    assert near_duplicates(pool, test) == 3
    assert near_duplicates(pool[:4], test) == 0
    assert near_duplicates(test[:0], test) == 0


def test_the_coarse_look_misses_no_near_duplicate() -> None:
    stream = torch.Generator().manual_seed(1)
    test = torch.randint(256, (12, 1, 16, 16), generator=stream, dtype=torch.uint8)
    shifts = torch.randint(-30, 31, (200, 1, 1, 1), generator=stream)
    pool = (test[torch.arange(200) % 12].int() + shifts).clamp(0, 255).to(torch.uint8)
    distance = ((pool[:, None].float() - test.float()) / 255).square().flatten(2).mean(2).amin(1)
    assert near_duplicates(pool, test) == int((distance <= (10 / 255) ** 2).sum()) > 0


def test_photos_are_patches_of_both_photographs() -> None:
    pool = load_pool("photos", size=32, channels=3)
    assert pool.images.shape == (3038, 3, 32, 32)
    assert pool.fingerprint == load_pool("photos", size=32, channels=3).fingerprint
    assert len({image.numpy().tobytes() for image in pool.images[::50]}) > 50
