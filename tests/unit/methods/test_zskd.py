"""ZSKD against paper and code: class similarities, Dirichlet targets, Data Impressions, the student's loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_fixtures import Listening, digits, digits_teacher, lenet, run, same_weights
from torch.distributions import Dirichlet
from torch.nn import functional as F

from bench.harness.trial_context import TrialContext
from bench.spec.task import get_task
from bench.utils.rng import Streams, seed_everything
from methods.zskd import Options, concentrations, zskd

CPU = torch.device("cpu")
WEIGHT = np.random.default_rng(0).normal(size=(5, 12))


def alphas(weight: np.ndarray, betas: tuple[float, ...]) -> np.ndarray:
    """alpha = beta * (row of cosines, min-max scaled to [0, 1]) + 1e-4, class by class."""
    rows = []
    for k in range(len(weight)):
        cosines = [a @ weight[k] / np.sqrt((a @ a) * (weight[k] @ weight[k])) for a in weight]
        unit = (np.array(cosines) - min(cosines)) / (max(cosines) - min(cosines))
        rows += [beta * unit + 1e-4 for beta in betas]
    return np.array(rows)


# ---- concentrations --------------------------------------------------------------------------------------------------


def test_concentrations_are_scaled_rows_of_cosines() -> None:
    found = concentrations(torch.tensor(WEIGHT), Options(betas=(1.0, 0.1)))
    np.testing.assert_allclose(found, alphas(WEIGHT, (1.0, 0.1)), rtol=1e-9)


def test_concentrations_do_not_depend_on_the_templates_length() -> None:
    longer = torch.tensor(WEIGHT) * torch.tensor([[1.0], [10.0], [0.1], [3.0], [7.0]])
    torch.testing.assert_close(concentrations(longer, Options()), concentrations(torch.tensor(WEIGHT), Options()))


def test_orthogonal_templates_give_the_identity_and_the_floor() -> None:
    weight = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    expected = torch.eye(4, dtype=torch.float64) + 1e-4
    torch.testing.assert_close(concentrations(weight, Options(beta=1.0)), expected)


def test_one_beta_stands_in_for_the_list() -> None:
    weight = torch.tensor(WEIGHT)
    assert torch.equal(concentrations(weight, Options(beta=0.3)), concentrations(weight, Options(betas=(0.3,))))


def test_the_reference_codes_rescaling_cancels_beta() -> None:
    """Global min-max, one file as it is and one divided by 10, each row min-max rescaled again, plus 1e-4."""
    unit = WEIGHT / np.sqrt((WEIGHT**2).sum(1, keepdims=True))
    gram = unit @ unit.T
    whole = (gram - gram.min()) / (gram.max() - gram.min())
    files = [whole, whole / 10]
    rows = [(f - f.min(1, keepdims=True)) / (f.max(1, keepdims=True) - f.min(1, keepdims=True)) + 1e-4 for f in files]
    found = concentrations(torch.tensor(WEIGHT), Options(betas=(1.0, 0.1), scale_cancels=True))
    np.testing.assert_allclose(found[0::2], rows[0], rtol=1e-9)
    np.testing.assert_allclose(found[1::2], rows[1], rtol=1e-9)
    torch.testing.assert_close(found[0::2], found[1::2])
    torch.testing.assert_close(found, concentrations(torch.tensor(WEIGHT), Options(betas=(1.0, 1.0))))


def test_targets_have_the_dirichlets_mean() -> None:
    alpha = concentrations(torch.tensor(WEIGHT), Options())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = Dirichlet(alpha).sample((20_000,)).mean(0)
    np.testing.assert_allclose(drawn, alpha / alpha.sum(1, keepdim=True), atol=0.015)


@pytest.mark.parametrize(("beta", "share"), [(0.01, 0.85), (0.1, 0.3), (100.0, 0.0)])
def test_a_small_beta_gives_nearly_one_hot_targets(beta: float, share: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = Dirichlet(concentrations(torch.tensor(WEIGHT), Options(beta=beta))).sample((2000,))
    confident = (drawn.max(-1).values > 0.99).double().mean().item()
    assert confident >= share if share else confident == 0
    assert torch.isfinite(drawn).all()


# ---- impressions, step by step ---------------------------------------------------------------------------------------

TINY = {"iterations": 3, "batch": 20, "impressions": 40, "batch_student": 16, "share": 0.6}


def test_impressions_follow_the_papers_loop() -> None:
    """Two batches of three Adam updates, written out a second time."""
    teacher = Listening(lenet(1).eval())
    context = run(zskd.declared, {**TINY, "lr_images": 0.05}, steps=10, teacher=teacher)
    network, stream = lenet(1).eval().requires_grad_(False), Streams(0, CPU)["uniform"]
    weight = list(network.parameters())[-2].double().numpy()
    alpha = torch.tensor(alphas(weight, (1.0, 0.1)))
    made = []
    with torch.random.fork_rng():
        seed_everything(0)
        for batch in range(2):
            targets = Dirichlet(alpha).sample().float()
            x = torch.rand(20, 1, 32, 32, generator=stream).requires_grad_()
            optimizer = torch.optim.Adam([x], lr=0.05)
            for update in range(3):
                normalised = (x - 0.3) / 0.25
                torch.testing.assert_close(teacher.heard[3 * batch + update], normalised.detach(), rtol=1e-4, atol=1e-3)
                loss = -(targets * F.log_softmax(network(normalised) / 20, 1)).sum(1).mean()
                (x.grad,) = torch.autograd.grad(loss, x)
                optimizer.step()
                with torch.no_grad():
                    x.copy_((x - x.min()) / (x.max() - x.min()))
            made.append(x.detach().clone())
    pool = context.kept["pool"].state_dict()["parts"]
    torch.testing.assert_close(torch.cat(pool), torch.cat(made), rtol=0, atol=2e-3)


def test_classes_and_scales_take_equal_turns() -> None:
    context = run(zskd.declared, {**TINY, "iterations": 1, "impressions": 20}, steps=2)
    weight = list(lenet(1).parameters())[-2]
    alpha = concentrations(weight, Options())
    with torch.random.fork_rng():
        seed_everything(0)
        expected = Dirichlet(alpha).sample().float()
    torch.testing.assert_close(context.kept["targets"], expected)


def test_batches_of_one_class_take_the_classes_and_scales_in_turn() -> None:
    weight = list(lenet(1).parameters())[-2]
    alpha = concentrations(weight, Options())
    options = {**TINY, "one_class": True, "iterations": 1, "impressions": 60, "share": 0.9}
    with torch.random.fork_rng():
        seed_everything(0)
        expected = [Dirichlet(alpha[[row] * 20]).sample().float() for row in range(3)]
    for steps in (1, 2, 3):
        context = run(zskd.declared, {**options, "share": 0.99}, steps=steps)
        torch.testing.assert_close(context.kept["targets"], expected[steps - 1])


def test_half_of_the_targets_are_drawn_at_each_scale() -> None:
    """Of ZSKD's two betas the small one gives targets that are nearly one class, the large one mixtures."""
    options = {**TINY, "iterations": 1, "batch": 400, "impressions": 400, "betas": (5.0, 0.02)}
    targets = run(zskd.declared, options, steps=2).kept["targets"]
    largest = targets.max(1).values
    assert largest[1::2].median() > 0.99
    assert largest[0::2].median() < 0.7
    assert (largest > 0.95).double().mean().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_targets_entropy_is_logged_in_nats(beta: float) -> None:
    """Once a batch, so that the mean is over targets: here of the two batches that the pool holds."""
    logs = run(zskd.declared, {**TINY, "beta": beta}, steps=10).take_logs()
    alpha = concentrations(list(lenet(1).parameters())[-2], Options(beta=beta)).repeat(2, 1)
    with torch.random.fork_rng():
        seed_everything(0)
        drawn = torch.cat([Dirichlet(alpha).sample().float() for _ in range(2)]).double().numpy()
    expected = -np.where(drawn > 0, drawn * np.log(np.maximum(drawn, 1e-300)), 0).sum(1).mean()
    assert logs["target_entropy"] == pytest.approx(expected, rel=1e-4)
    assert (logs["target_entropy"] < 0.6) == (beta < 1)


def test_a_transfer_set_beyond_its_limit_is_stored_in_8_bits() -> None:
    kinds = []
    for limit in (40 * 4096 / 2**20, 40 * 4096 / 2**20 - 1e-6):
        pool = run(zskd.declared, {**TINY, "pool_mib": limit}, steps=10).kept["pool"]
        part = pool.state_dict()["parts"][0]
        kinds.append(part.dtype)
        sampled = pool.sample(40, torch.Generator().manual_seed(0))
        assert sampled.dtype == torch.float32
        assert sampled.min() >= 0
        assert sampled.max() == 1  # pixels, whatever they are stored in
    assert kinds == [torch.float32, torch.uint8]


@pytest.mark.parametrize("rescale", [True, False])
def test_rescaling_keeps_the_batch_between_zero_and_one(rescale: bool) -> None:
    context = run(zskd.declared, {**TINY, "lr_images": 0.5, "rescale": rescale}, steps=10)
    first = context.kept["pool"].state_dict()["parts"][0][:20]
    assert (first.min() == 0 and first.max() == 1) == rescale
    assert rescale or first.max() > 1


@pytest.mark.parametrize("warm", [True, False])
def test_a_warm_start_goes_on_from_the_last_batchs_images(warm: bool) -> None:
    options = {**TINY, "iterations": 1, "lr_images": 1e-9, "rescale": False, "warm_start": warm}
    pool = torch.cat(run(zskd.declared, options, steps=10).kept["pool"].state_dict()["parts"])
    close = (pool[:20] - pool[20:40]).abs().max() < 1e-6
    assert bool(close) == warm


def test_making_impressions_ends_at_their_number_and_the_rest_goes_to_the_student() -> None:
    context = run(zskd.declared, {**TINY, "impressions": 30}, steps=20)
    assert len(context.kept["pool"]) == 30  # the second batch does not fit as a whole
    assert context.meter.student_backward == 16 * (20 - 6)


def test_a_batch_that_the_budget_cuts_short_is_used_as_it_is() -> None:
    context = run(zskd.declared, {**TINY, "iterations": 1000}, steps=10)
    assert len(context.kept["pool"]) == 20
    assert context.meter.student_backward == 16 * 4


def test_the_student_follows_the_teacher_at_the_temperature_squared() -> None:
    """On the impressions as they are: one step of Adam on tau^2 KL, from the images that the teacher labelled."""
    teacher = Listening(lenet(1).eval())
    options = {**TINY, "augmentation": "none", "impressions": 20, "lr_student": 0.01}
    context = run(zskd.declared, options, steps=6, teacher=teacher)
    network, student = lenet(1).eval(), lenet(2, "lenet5-half")
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    distilled = teacher.heard[3:]
    pool = (torch.cat(context.kept["pool"].state_dict()["parts"]) - 0.3) / 0.25
    for images in distilled:
        assert (images[:, None] - pool).abs().amax((2, 3, 4)).min(1).values.max() < 1e-5  # each is one of the pool
        with torch.no_grad():
            soft = F.softmax(network(images) / 20, 1)
        loss = 400 * -(soft * F.log_softmax(student(images) / 20, 1)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert len(distilled) == 3
    assert same_weights(context.student, student, 2e-3)


@pytest.mark.parametrize(
    ("options", "images"),
    [
        ({"augmentation": "none", "expand": True}, 16),
        ({"augmentation": "geometry"}, 16),
        ({"augmentation": "geometry", "expand": True}, 16 * 103),
        ({"augmentation": "geometry+noise", "expand": True}, 16 * 106),
        ({"augmentation": "geometry", "families": ("zoom",), "expand": True}, 16 * 4),
        ({"augmentation": "geometry+noise", "families": ("flip", "shift+rotation"), "expand": True}, 16 * 47),
    ],
)
def test_the_teacher_labels_every_augmented_image_again(options: dict[str, object], images: int) -> None:
    teacher, student = Listening(lenet(1)), Listening(lenet(2, "lenet5-half"))
    run(zskd.declared, {**TINY, **options, "impressions": 20}, steps=4, teacher=teacher, student=student)
    assert [len(batch) for batch in teacher.heard[3:]] == [images]
    assert len(student.heard[0]) == images


# ---- on a real teacher -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impressions() -> tuple[TrialContext, Listening]:
    """100 impressions of the digits' teacher, in 20 updates."""
    teacher = Listening(digits_teacher())
    image = get_task("digits/lenet5-half").image
    options = {"iterations": 20, "batch": 100, "impressions": 100, "lr_images": 0.1, "share": 0.95}
    return run(zskd.declared, options, steps=22, teacher=teacher, image=image), teacher


def test_the_impression_loss_falls(impressions: tuple[TrialContext, Listening]) -> None:
    context, teacher = impressions
    targets = context.kept["targets"]
    with torch.no_grad():
        losses = [
            -(targets * F.log_softmax(teacher.network(images) / 20, 1)).sum(1).mean().item()
            for images in teacher.heard[:20]
        ]
    assert losses[-1] < losses[5] < losses[0] - 0.05
    entropy = -(targets * targets.clamp_min(1e-30).log()).sum(1).mean().item()
    assert losses[-1] > entropy  # the least that a cross-entropy can be


def test_the_teacher_sees_most_impressions_as_their_target(impressions: tuple[TrialContext, Listening]) -> None:
    context, teacher = impressions
    image = get_task("digits/lenet5-half").image
    pool = torch.cat(context.kept["pool"].state_dict()["parts"])
    with torch.no_grad():
        predicted = teacher.network((pool - image.mean[0]) / image.std[0]).argmax(1)
    targets = context.kept["targets"]
    assert (predicted == targets.argmax(1)).double().mean() > 0.9
    assert len(predicted.unique()) == len(digits().classes)


def test_defaults_and_presets_are_the_papers() -> None:
    method = zskd.declared
    shared = {"temperature": 20.0, "betas": (1.0, 0.1), "beta": None, "iterations": 1500, "batch": 100}
    expected = {
        "mnist": {**shared, "impressions": 24_000, "batch_student": 512, "lr_student": 0.01},
        "fashion_mnist": {**shared, "impressions": 48_000, "batch_student": 512, "lr_student": 0.01},
        "cifar10": {
            **shared, "impressions": 40_000, "lr_images": 1e-3, "batch_student": 64, "lr_student": 1e-3,
            "augmentation": "geometry+noise", "expand": True,
        },
    }  # fmt: skip
    assert set(method.presets) == {"fashion_mnist", "cifar10"}
    for data, values in expected.items():
        options = method.make_options(method.presets.get(data, {}))
        assert {name: getattr(options, name) for name in values} == values
        assert options.rescale
        assert not options.warm_start
        assert not options.scale_cancels
