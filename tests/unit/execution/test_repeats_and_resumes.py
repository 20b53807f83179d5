"""What the newer methods are made of, in one small method: turns, codes and optimisers that restart, a meta-learned
generator, a student in evaluation mode, pools in 8 bits, priorities, groups. It is metered and resumes to the bit."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from method_fixtures import IMAGE, lenet
from torch import nn

from bench.errors import UserError
from bench.execution.contract import run_battery
from bench.records import load_record, open_results
from bench.spec.method_registry import find_methods, read_cards
from bench.spec.requirements import default_task, why_unsupported
from bench.spec.task import get_task

SOURCE = textwrap.dedent('''
    """A method of all parts."""

    from dataclasses import dataclass

    import torch
    from torch.nn import functional as F
    from torch.optim import SGD, Adam

    from bench import Access, Data, Session, cmi_generator, method, option
    from methods.common.contrastive import InstanceHead, contrast
    from methods.common.losses import adversarial_agreement, attention_distance, batch_norm_distance, kl_rows
    from methods.common.meta import BatchNormAverage, GradientSum, copy_weights, normal_weights
    from methods.common.pixels import PixelSpace
    from methods.common.pools import FeatureBank, ImagePool
    from methods.common.priors import jitter
    from methods.common.rounds import evaluating, restart, turn
    from methods.common.views import crop_and_flip, resized_crop_and_flip


    @dataclass(frozen=True)
    class Options:
        batch: int = option(32, "images", low=2)
        inner: int = option(2, "iterations of the inner loop", low=1)
        student_steps: int = option(3, "student steps a round", low=1)
        batch_norm: float = option(1.0, "weight of the statistics", low=0)
        attention: float = option(10.0, "weight of the attention", low=0)
        temperature: float = option(4.0, "temperature", above=0)
        pool_mib: float = option(0.5, "limit of the pool", above=0, unit="MiB")


    @method("parts", title="Parts", paper="none", data=Data.NONE, access=Access.BATCH_NORM, batch_norm={NEEDS})
    def parts(s: Session, o: Options) -> None:
        """All parts."""
        space = PixelSpace.of(s)
        meta = s.keep("meta", cmi_generator(8, s.task.image, 8))
        inner = s.keep("inner", cmi_generator(8, s.task.image, 8))
        normal_weights(meta, s.generator("weights"))
        head = s.keep("head", InstanceHead(s.teacher.pooled_size("batch_norm"), 16))
        codes = s.keep("codes", torch.zeros(o.batch, 8, requires_grad=True))
        labels = s.keep("labels", torch.zeros(o.batch, dtype=torch.int64))
        opt_inner = s.keep("opt_inner", Adam([{"params": inner.parameters()}, {"params": [codes], "lr": 0.05}], 0.01))
        opt_meta = s.keep("opt_meta", Adam(meta.parameters(), 0.01))
        opt_head = s.keep("opt_head", Adam(head.parameters(), 0.01))
        opt_s = s.keep("opt_s", SGD(s.student.parameters(), 0.05, momentum=0.9))
        total = s.keep("total", GradientSum(meta))
        average = s.keep("average", BatchNormAverage())
        pool = s.keep("pool", ImagePool(96, space, ring=True, limit_mib=o.pool_mib))
        bank = s.keep("bank", FeatureBank(40))
        priority = s.keep("priority", torch.zeros(96))
        at = s.keep("at", {})
        for _ in s.steps("train"):
            part, index = turn(at, make=o.inner, learn=o.student_steps if len(pool) > o.batch else 0)
            if part == "make":
                if index == 0:
                    copy_weights(meta, inner)
                    codes.data.copy_(s.noise(*codes.shape))
                    labels.random_(s.task.classes, generator=s.generator("labels"))
                    restart(opt_inner)
                pixels = space.pixels(inner(codes))
                seen = space.normalise(crop_and_flip(pixels, s.generator("views")))
                seen = jitter(seen, 1, s.generator("jitter", host=True))
                near = space.normalise(resized_crop_and_flip(pixels, s.generator("views")))
                out = s.teacher(seen, batch_norm=True, pooled="batch_norm")
                local = s.teacher(near, pooled="batch_norm").pooled
                with evaluating(s.student):
                    adversarial = adversarial_agreement(out.logits, s.student(seen))
                distance = batch_norm_distance(average.blend(out.batch_norm))
                cr = contrast(head, local, out.pooled, bank.sample(16, s.generator("bank", host=True)))
                loss = F.cross_entropy(out.logits, labels) + o.batch_norm * distance + adversarial + cr
                s.update(opt_inner, loss, clip=5.0)
                total.add(inner)
                cr = contrast(head, local.detach(), out.pooled.detach())
                s.update(opt_head, cr)
                if index == o.inner - 1:
                    s.apply(opt_meta, total.take())
                    average.update(out.batch_norm)
                    pool.add(space.normalise(pixels))
                    bank.add(local, out.pooled)
                    priority.fill_(1.0)
            else:
                chance = priority[: len(pool)]
                places = torch.multinomial(chance + 0.1, o.batch, True, generator=s.generator("priority"))

                def imitation(batch):
                    each = kl_rows(batch.teacher, batch.student, o.temperature)
                    places, *groups = batch.rows
                    priority[places] = each.detach()
                    return each.mean() + o.attention * attention_distance(groups, batch.groups)

                images = pool.take(places)
                with torch.no_grad():
                    out = s.teacher(images, groups=True)
                rows = (places, *out.groups)
                loss = s.student_step(opt_s, images, imitation, logits=out.logits, rows=rows, groups=True, clip=5.0)
                s.log(loss=loss)
''')


def write(folder: Path, needs: str = '"batch_norm"') -> Path:
    file = folder / "parts.py"
    file.write_text(SOURCE.replace("{NEEDS}", needs), encoding="utf-8")
    return file


PARTS = ("runs", "trains the student", "access", "gradients", "resumes")


@pytest.mark.parametrize("only", [PARTS, pytest.param(None, marks=pytest.mark.slow)])
def test_such_a_method_holds_the_contract(tmp_path: Path, only: tuple[str, ...] | None) -> None:
    file = write(tmp_path)
    (card,) = read_cards(file)
    findings = run_battery(card, method_files=(file,), only=only)
    assert [finding for finding in findings if not finding.ok] == []
    assert len(findings) == (13 if only is None else len(only))


# ---- networks without batch norm -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "options", "reason"),
    [
        ("False", {}, ""),
        ("True", {"batch_norm": 0.0}, "parts needs batch-norm statistics, and the teacher of"),
        ('"batch_norm"', {}, "parts needs batch-norm statistics with batch_norm above 0, and the teacher of"),
        ('"batch_norm"', {"batch_norm": 0.0}, ""),
    ],
)
def test_a_task_without_batch_norm_is_left_out_by_plan(tmp_path: Path, needs: str, options: dict, reason: str) -> None:
    (card,) = read_cards(write(tmp_path, needs))
    found = why_unsupported(card, get_task("digits/lenet5-half"), options)
    assert found == (f"{reason} digits/lenet5-half has no batch norm" if reason else "")
    assert why_unsupported(card, get_task("digits/lenet5bn-half"), options) == ""
    assert default_task(card) == ("digits/lenet5-half" if needs == "False" else "digits/lenet5bn-half")


def test_a_check_on_such_a_task_says_where_to_check(tmp_path: Path) -> None:
    (card,) = read_cards(write(tmp_path))
    with pytest.raises(UserError, match=r"digits/lenet5-half has no batch norm; try --task digits/lenet5bn-half"):
        run_battery(card, task="digits/lenet5-half")


def test_of_ones_own_network_the_first_question_tells(tmp_path: Path) -> None:
    """Nothing says before the teacher is built that it has no batch norm: the trial ends with the same status."""
    from bench.execution.run_trial import Setting, run_trial
    from bench.spec.study import SUITE
    from bench.spec.teacher_key import teacher_key
    from bench.spec.trial import Trial

    file = write(tmp_path, "False")
    (card,) = read_cards(file)
    task = get_task("digits/lenet5-half")
    results = open_results(tmp_path / "out", create=True)
    trial = Trial(
        suite=SUITE, task=task.name, task_sha=task.sha, teacher=teacher_key(task), method=card.name,
        method_sha=card.sha, options=card.defaults(), budget={"steps": 5}, seed=0, points=1, selection=("last",),
        study="own", method_files=(file,),
    )  # fmt: skip
    run_trial(trial, Setting(results))
    record = load_record(results / "trials" / trial.id)
    assert (record.status, record.scores) == ("unsupported", {})
    assert record.reason == "LeNet has no batch norm, and the method needs its statistics"


def test_the_pair_for_methods_on_batch_norm_is_as_small_as_the_papers() -> None:
    teacher, student = lenet(1, "lenet5bn"), lenet(1, "lenet5bn-half")
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (teacher, student)]
    assert sizes == [61_990, 15_880]
    assert sum(isinstance(module, nn.BatchNorm2d) for module in teacher.modules()) == 3
    assert IMAGE.size == get_task("digits/lenet5bn-half").image.size


def test_the_first_trial_counts_for_the_check_that_looks_at_it_first() -> None:
    told: list[str] = []
    findings = run_battery(find_methods()["noise"], only={"runs", "access"}, doing=told.append)
    runs, access = (finding.seconds for finding in findings)
    assert runs > 20 * access
    assert told == ["reading the data, loading the teacher", "runs", "access"]
