"""Tasks that score on another data set than the teacher's: its teacher, its scores, its pools, its refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_task import own_place
from PIL import Image

from bench.analysis.report import render
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.leaderboard import facts
from bench.data import Dataset, load, load_source
from bench.errors import UserError
from bench.execution import run_trial
from bench.execution.executors import Work
from bench.execution.plan import plan_study
from bench.execution.prepare import PreparedTrial, prepare
from bench.execution.run_study import run_study
from bench.execution.transport import MANIFEST, open_order, write_order
from bench.harness.evaluation import answers_of_all, score_network
from bench.harness.teachers.cache import get_teacher, import_teacher
from bench.harness.teachers.passport import passports
from bench.records import Record, load_records
from bench.spec.task import TaskSpec, get_task, read_tasks, tasks
from bench.spec.teacher_key import teacher_key, teacher_keys

TASK = """\
- name: bright-to-digits
  data: {images: bright}
  test: digits
  image: {channels: 1, size: 16, mean: [0.5], std: [0.3]}
  teacher: {network: net.py:build, recipe: quick}
  student: net.py:build
  pools: {related: digits}
"""
NETWORK = """\
from torch import nn


def build(image, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(image.channels * image.size**2, classes))
"""
STUDY = """\
name: domains
tasks: [there.yaml]
methods: [kd_related: {batch: 16}, kd: {batch: 16}]
budget: {steps: 4}
points: 1
selection: [last]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task whose teacher learns inverted, coloured digits, with a cache of its own; the current folder."""
    here = own_place(tmp_path, monkeypatch)
    digits = load("digits", size=16)
    for split, source, count in (("train", digits.train, 12), ("test", digits.test, 4)):
        for label in range(10):
            folder = here / "bright" / split / str(label)
            folder.mkdir(parents=True)
            for number, image in enumerate(source.images[source.labels == label][:count]):
                pixels = np.stack([255 - image[0].numpy()] * 3, axis=2)
                Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    for name, text in {"net.py": NETWORK, "there.yaml": TASK, "domains.yaml": STUDY}.items():
        (here / name).write_text(text, encoding="utf-8")
    return here


def run(name: str = "domains.yaml", isolation: str = "none") -> dict[str, Record]:
    summary = run_study(Path(name), results=Path("results"), executor="inline", isolation=isolation)
    assert {each.record.reason for each in summary.outcomes} == {""}
    return {record.trial.method: record for record in load_records(Path("results"))}


def dataset_of(task: TaskSpec) -> Dataset:
    return load_source(task.source, size=task.stored_size)


def test_the_teacher_learns_one_set_and_all_are_scored_on_the_other(place: Path) -> None:
    record = run()["kd_related"]
    task = get_task("bright-to-digits")
    dataset = dataset_of(task)
    assert dataset.home is not None
    assert len(dataset.train.labels) == 120
    assert len(dataset.test.labels) == 355
    assert len(dataset.home.test.labels) == 40
    assert torch.equal(dataset.test.images, load("digits", size=16).test.images)
    teacher = get_teacher(task, teacher_key(task), dataset)
    (passport,) = passports()
    assert record.teacher is not None
    own, there = (
        score_network(teacher.network, test, task.image, dataset.classes)[0]
        for test in (dataset.home.test, dataset.test)
    )
    assert (passport["score"], record.teacher.score) == (own, there)
    assert own != there
    assert passport["data_fingerprint"] == dataset.home.fingerprint
    assert record.provenance["data"] == {"fingerprint": dataset.fingerprint, "altered": [], "test": "digits"}
    assert record.pool is not None
    assert (record.pool.images, record.meter.real_images) == (1442, 64)
    (group,) = group_records(load_records(Path("results")))
    assert "Score: accuracy on the test images of digits, another set than the teacher's" in facts(group)
    render(Path("results"), place / "out")
    said = "on the test images of digits, another set than the teacher's"
    text = (place / "out" / "tasks" / "bright-to-digits.html").read_text()
    assert f"All scores are {said.replace(chr(39), '&#39;')}." in text
    (page,) = (place / "out" / "trials").glob(f"{record.id}*.html")
    assert f"accuracy {said.replace(chr(39), '&#39;')}" in page.read_text()
    assert "imported" not in text


def test_the_teacher_is_that_of_the_task_without_another_domain(place: Path) -> None:
    run()
    (place / "here.yaml").write_text(TASK.replace("bright-to-digits", "bright").replace("  test: digits\n", ""))
    (place / "same.yaml").write_text(STUDY.replace("there.yaml", "here.yaml"))
    before = passports()
    record = run("same.yaml")["kd"]
    assert passports() == before
    assert record.teacher is not None
    assert record.teacher.score == before[0]["score"]
    assert "test" not in record.provenance["data"]
    one, other = get_task("bright"), get_task("bright-to-digits")
    assert one.sha != other.sha
    assert TaskSpec.model_validate(other.model_dump(mode="json")) == other


@pytest.mark.parametrize("several", [False, True])
def test_a_trial_asks_each_teacher_about_a_test_image_once(
    place: Path, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    """The same pass gives what the student is compared with, each teacher's score there, and that of all together."""
    if several:
        one = "teacher: {network: net.py:build, recipe: quick}"
        two = "teachers: [{network: net.py:build, recipe: quick}, {network: net.py:build, recipe: quick, seed: 1}]"
        (place / "there.yaml").write_text(TASK.replace(one, two))
    (task,) = read_tasks(place / "there.yaml")
    dataset = dataset_of(task)
    keys = teacher_keys(task)
    teachers = [get_teacher(task, key, dataset) for key in keys]
    expected = [score_network(each.network, dataset.test, task.image, dataset.classes)[0] for each in teachers]
    asked = [0] * len(keys)

    def counted(*args: Any, **kwargs: Any) -> PreparedTrial:
        prepared = prepare(*args, **kwargs)
        for number, teacher in enumerate(prepared.teachers):

            def count(_: torch.nn.Module, given: tuple[torch.Tensor, ...], number: int = number) -> None:
                asked[number] += len(given[0])

            teacher.network.register_forward_pre_hook(count)
        return prepared

    monkeypatch.setattr(run_trial, "prepare", counted)
    (place / "domains.yaml").write_text(STUDY.replace("kd_related: {batch: 16}, kd: {batch: 16}", "scratch"))
    record = run()["scratch"]  # a method that asks no teacher
    assert asked == [355] * len(keys)
    found = record.ensemble.teachers if record.ensemble else [record.teacher]
    assert [each.score for each in found if each] == expected
    if several:
        *_, together = answers_of_all([each.network for each in teachers], dataset.test.images, task.image)
        assert record.ensemble is not None
        assert record.ensemble.score == (together == dataset.test.labels).double().mean().item()


def test_an_imported_teacher_is_scored_at_home(place: Path) -> None:
    (place / "there.yaml").write_text(TASK.replace("recipe: quick", "recipe: digits"))
    (task,) = read_tasks(place / "there.yaml")
    dataset = dataset_of(task)
    assert dataset.home is not None
    torch.save(get_teacher(task, teacher_key(task), dataset).network.state_dict(), "mine.pth")
    import_teacher(task, Path("mine.pth"), dataset)
    first, second = passports()
    assert first["score"] == second["score"]
    assert first["data_fingerprint"] == second["data_fingerprint"] == dataset.home.fingerprint


def test_images_of_the_other_set_get_as_many_channels(place: Path) -> None:
    (place / "there.yaml").write_text(TASK.replace("{channels: 1, size: 16, mean: [0.5], std: [0.3]}",
        "{channels: 3, size: 16, mean: [0.5, 0.5, 0.5], std: [0.3, 0.3, 0.3]}"))  # fmt: skip
    record = run()["kd_related"]
    assert record.status == "ok"
    test = dataset_of(get_task("bright-to-digits")).test.images
    assert test.shape == (355, 3, 16, 16)
    assert torch.equal(test[:, 0], load("digits", size=16).test.images[:, 0])


def test_an_order_checks_both_sets(place: Path, tmp_path: Path) -> None:
    import tarfile

    run()
    plan = plan_study(Path("domains.yaml"), results=Path("results"))
    write_order(tmp_path / "order.tar", plan.trials, Work(place / "results", None, 30.0, 1))
    with tarfile.open(tmp_path / "order.tar") as tar:
        content = tar.extractfile(MANIFEST)
        assert content is not None
        (listed,) = json.loads(content.read())["data"]
    assert (listed["test"], listed["sha256"]) == ("digits", dataset_of(get_task("bright-to-digits")).fingerprint)
    tasks().pop("bright-to-digits")
    assert len(open_order(tmp_path / "order.tar", tmp_path / "order", tmp_path / "worker").trials) == 2


def test_a_missing_set_of_the_two_is_named(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_DATA", str(tmp_path / "nothing"))
    monkeypatch.setattr("bench.data.search_folders", lambda folder: [tmp_path / "nothing"])
    (place / "there.yaml").write_text(TASK.replace("test: digits", "test: mnist"))
    summary = run_study(Path("domains.yaml"), results=Path("results"), executor="inline", isolation="none")
    assert summary.statuses == {"missing_data": 2}
    assert all("MNIST" in each.record.reason for each in summary.outcomes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("test: digits", "test: digit", r"test: 'digit' is not a data set; did you mean 'digits'"),
        ("{images: bright}", "digits", r"test: 'digits' is the task's data set itself; leave it out"),
        (
            "test: digits",
            "test: fashion_mnist",
            r"test: 'fashion_mnist' has other classes \(.*10 in all\) than 'folder@",
        ),
        ("test: digits", "test: photos", r"test: 'photos' has no labels, and 'folder@"),
        ("test: digits", "test: camvid", r"test: 'camvid' is for segmentation, and"),
        (
            "{images: bright}",
            "{images: bright/test}",
            r"test: replaces the test images, and these images have no others",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(place: Path, old: str, new: str, message: str) -> None:
    (place / "other.yaml").write_text(TASK.replace(old, new))
    with pytest.raises(UserError, match=message):
        read_tasks(place / "other.yaml")


@pytest.mark.slow
@pytest.mark.data("mnist")
def test_the_page_about_another_domain_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    section = page.partition("\n## Another domain\n")[2]
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(f"name: domains\npoints: 1\nselection: [last]\n{block}")
    found = run("study.yaml", isolation="auto")
    related, kd, noise = (found[name].scores["last"] for name in ("kd_related", "kd", "noise"))
    teacher = found["kd"].teacher
    assert teacher is not None
    passport = next(each for each in passports() if each["sha256"] == teacher.sha256)
    assert passport["score"] > 0.97 > 0.85 > teacher.score > 0.5  # the other domain is another one
    assert related > kd > noise  # as the page says
