"""Tasks with several teachers: all are trained, each is asked and counted, with the same bits everywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from own_task import NETWORK, own_place, write_own_task

from bench.analysis.record_text import sections
from bench.analysis.report import render
from bench.analysis.report.sections.grouping import group_records
from bench.analysis.report.sections.leaderboard import facts
from bench.cli import answer
from bench.data.batches import normalise
from bench.errors import UserError
from bench.execution.carry import pack, unpack
from bench.execution.contract import run_battery
from bench.execution.executors import Work
from bench.execution.plan import plan_study
from bench.execution.run_study import Silence, run_study
from bench.execution.run_trial import Setting, run_trial
from bench.execution.status import Interrupted
from bench.execution.transport import open_order, write_order
from bench.execution.verify import verify
from bench.harness.evaluation import answers, answers_of_all
from bench.harness.teachers.cache import cached_teacher
from bench.harness.teachers.passport import passports
from bench.harness.teachers.progress import TrainingProgress
from bench.models import build
from bench.records import Record, as_json, comparable, load_frame, load_records, read_students
from bench.records.query import query
from bench.spec.expand import expand
from bench.spec.method_registry import read_cards
from bench.spec.rerun import study_of
from bench.spec.study import load_study
from bench.spec.task import TaskSpec, get_task, read_tasks, tasks
from bench.spec.teacher_key import teacher_keys
from bench.spec.trial import Trial
from bench.utils.confinement import available, why_not

SECOND = """

class Deeper(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(width, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.head = nn.Linear(16, classes)

    def forward(self, images):
        return self.head(self.body(images))


def deeper(image, classes):
    return Deeper(image.channels * image.size**2, classes)
"""
TASK = """\
- name: mine
  data: {images: images}
  image: {channels: 1, size: 8, mean: [0.5], std: [0.25]}
  teachers:
    - {network: net.py:build, recipe: quick, seed: 0}
    - {network: net.py:deeper, recipe: quick, seed: 1, quick: quick}
  student: net.py:build
"""
MEAN = '''"""Noise, labelled by the mean of all teachers' logits."""

from dataclasses import dataclass

import torch
from torch.optim import Adam

from bench import Access, Data, Session, method, option


@dataclass(frozen=True)
class Options:
    batch: int = option(4, "images", low=1)


@method("mean_of_all", title="Mean of all teachers", paper="none: an example", data=Data.NONE, access=Access.LOGITS)
def mean_of_all(s: Session, o: Options) -> None:
    """The student follows the mean of the teachers' logits on noise."""
    opt = s.keep("opt", Adam(s.student.parameters(), 0.01))
    for _ in s.steps("train"):
        images = s.noise(o.batch, *s.task.image.shape)
        with torch.no_grad():
            logits = torch.stack([teacher(images).logits for teacher in s.teachers]).mean(0)
        s.distill(opt, images, logits=logits)
'''
ALL = '''"""Everything that can be asked of a teacher, of the second one: gradients, statistics, weights, a copy."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, method, option


@dataclass(frozen=True)
class Options:
    batch: int = option(4, "images", low=1)


@method("ask_all", title="All of the second", paper="none: a test", data=Data.NONE, access=Access.PARAMETERS)
def ask_all(s: Session, o: Options) -> None:
    """Noise is moved by the second teacher's gradient; a copy of it learns beside the student."""
    first, second = s.teachers
    opt = s.keep("opt", Adam(s.student.parameters(), 0.01))
    copy = s.keep("copy", second.copy())
    opt_copy = s.keep("opt_copy", Adam(copy.parameters(), 0.01))
    assert second.classifier_weight.shape == (2, 16)
    assert second.classifier_bias.shape == (2,)
    assert second.pooled_size("batch_norm") == 16
    for _ in s.steps("train"):
        images = s.noise(o.batch, *s.task.image.shape).requires_grad_(True)
        out = second(images, batch_norm=True, features=True)
        (gradient,) = torch.autograd.grad(out.logits.logsumexp(1).sum() + out.batch_norm[0].mean.sum(), images)
        images = (images - gradient).detach()
        s.update(opt_copy, F.cross_entropy(copy(images), first(images).labels))
        s.distill(opt, images, logits=second(images).logits)
        s.log(features=out.features.mean())
'''
STUDY = """\
name: several
tasks: [mine.yaml]
methods: [mean.py, all.py, noise: {batch: 4}]
seeds: [0]
budget: {steps: 6}
points: 2
selection: [last]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a task with two teachers, with a cache of its own; the current folder."""
    here = own_place(tmp_path, monkeypatch)
    write_own_task(here)
    for name, text in {
        "net.py": NETWORK + SECOND, "mine.yaml": TASK, "mean.py": MEAN, "all.py": ALL, "several.yaml": STUDY
    }.items():  # fmt: skip
        (here / name).write_text(text, encoding="utf-8")
    return here


def run(results: str = "results", **around: Any) -> dict[tuple[str, int], Record]:
    around = {"executor": "inline", "isolation": "none", **around}
    summary = run_study(Path("several.yaml"), results=Path(results), **around)
    assert {each.record.reason for each in summary.outcomes} == {""}
    return {(record.trial.method, record.trial.seed): record for record in load_records(Path(results))}


def students(results: str = "results") -> dict[str, str]:
    return dict(read_students(Path(results)))


def trial_of(method: str, seed: int = 0) -> Trial:
    found = plan_study(Path("several.yaml"), results=Path("results")).trials
    return next(trial for trial in found if (trial.method, trial.seed) == (method, seed))


# ---- from the task to the trial --------------------------------------------------------------------------------------


def test_all_teachers_are_trained_and_each_is_asked_and_counted(place: Path) -> None:
    found = run()
    keys = teacher_keys(get_task("mine"))
    assert sorted(passport["key"] for passport in passports()) == sorted(keys)
    record = found["mean_of_all", 0]
    assert (record.trial.teacher, tuple(record.trial.teachers)) == (keys[0], keys)
    assert record.ensemble is not None
    assert record.teacher is not None
    first, second = record.ensemble.teachers
    assert (first.sha256, second.network) == (record.teacher.sha256, "net.py:deeper")
    assert (first.images, second.images) == (24, 24)
    assert record.meter.teacher_images == 48
    assert first.gmacs == pytest.approx(24 * 64 * 2 / 1e9)
    assert second.gmacs == pytest.approx(24 * (64 * 16 + 16 * 2) / 1e9)
    # one forward and a backward pass (two more) of the student's 128 multiply-adds an image
    assert record.meter.gmacs == pytest.approx(first.gmacs + second.gmacs + 3 * 24 * 128 / 1e9)
    # a method for one teacher asks the first, and no other
    assert found["noise", 0].ensemble is not None
    assert [each.images for each in found["noise", 0].ensemble.teachers] == [24, 0]


def test_copies_and_gradients_count_for_their_own_teacher(place: Path) -> None:
    record = run()["ask_all", 0]
    assert record.ensemble is not None
    first, second = record.ensemble.teachers
    assert (first.images, first.backward) == (24, 0)
    assert (second.images, second.backward) == (72, 48)  # twice frozen and once as a copy; a gradient of each
    assert (record.meter.teacher_images, record.meter.teacher_backward) == (96, 48)
    deep = 64 * 16 + 16 * 2
    assert second.gmacs == pytest.approx(24 * deep * (1 + 1 + 1 + 1 + 2) / 1e9)


def test_the_ensemble_is_scored_by_the_mean_of_softmax(place: Path) -> None:
    record = run()["mean_of_all", 0]
    task = get_task("mine")
    dataset = _dataset(task)
    networks = [cached_teacher(task, key, 2).network for key in teacher_keys(task)]  # type: ignore[union-attr]
    *_, together = answers_of_all(networks, dataset.test.images, task.image)
    assert record.ensemble is not None
    assert record.ensemble.score == (together == dataset.test.labels).double().mean().item()


def test_the_mean_of_softmax_is_neither_a_vote_nor_the_mean_of_logits() -> None:
    class Sure(torch.nn.Module):
        def __init__(self, *logits: float) -> None:
            super().__init__()
            self.logits = torch.tensor(logits)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.logits.expand(len(images), -1)

    image = get_task("digits/lenet5-half").image
    pixels = torch.zeros(3, *image.shape, dtype=torch.uint8)
    # probabilities 0.99 / 0.01, twice 0.4 / 0.6: the mean says the first, a vote the second
    networks = [Sure(4.6, 0.0), Sure(0.0, 0.405), Sure(0.0, 0.405)]
    assert answers_of_all(networks, pixels, image)[-1].tolist() == [0, 0, 0]
    # a logit of 20 outweighs 12 twice in a mean of logits; probabilities are at most 1
    networks = [Sure(20.0, 0.0), Sure(0.0, 9.0), Sure(0.0, 9.0)]
    assert answers_of_all(networks, pixels, image)[-1].tolist() == [1, 1, 1]


def test_maps_are_averaged_pixel_by_pixel() -> None:
    image = get_task("shapes/unet-small").image
    torch.manual_seed(0)
    networks = [torch.nn.Conv2d(3, 4, 3, padding=1).eval() for _ in range(3)]
    pixels = torch.randint(256, (2, 3, 20, 24), dtype=torch.uint8)
    with torch.no_grad():
        shares = torch.stack([network(normalise(pixels, image)).softmax(1) for network in networks]).mean(0)
    *alone, found = answers_of_all(networks, pixels, image)
    assert (found.dtype, found.shape) == (torch.uint8, (2, 20, 24))
    assert torch.equal(found.long(), shares.argmax(1))
    assert len(alone) == 3
    assert all(
        torch.equal(each, answers(network, pixels, image)) for each, network in zip(alone, networks, strict=True)
    )


def _dataset(task: TaskSpec) -> Any:
    from bench.data import load_source

    return load_source(task.source, size=task.stored_size)


# ---- the same bits ---------------------------------------------------------------------------------------------------


def _spent(records: Iterable[Record]) -> list[Any]:
    """What a trial is, without the times of a machine."""
    return [
        [r.id, r.scores, r.agreement, r.ensemble, r.meter.gmacs, r.meter.teacher_images, r.meter.teacher_backward]
        for r in records
    ]


def test_both_modes_and_workers_give_the_same(place: Path) -> None:
    if available() is None:
        pytest.skip(why_not())
    here = run("here")
    elsewhere = run("elsewhere", isolation="process", executor="processes", workers=2)
    assert {record.provenance["isolation"]["mode"] for record in elsewhere.values()} == {"process"}
    assert _spent(elsewhere.values()) == _spent(here.values())
    assert students("elsewhere") == students("here") != {}


@pytest.mark.parametrize("mode", ["none", "process"])
def test_a_resumed_trial_is_the_same(place: Path, mode: str) -> None:
    if mode == "process" and available() is None:
        pytest.skip(why_not())
    run("whole")
    trial = trial_of("ask_all")
    Path("again").mkdir()
    way = available() if mode == "process" else None
    steps = iter((False, False, True))
    with pytest.raises(Interrupted):
        run_trial(trial, Setting(Path("again"), stop=lambda: next(steps), isolation=way))
    record = run_trial(trial, Setting(Path("again"), isolation=way))
    assert (record.status, record.resumed) == ("ok", 1)
    whole = next(each for each in load_records(Path("whole")) if each.id == trial.id)
    assert _spent([record]) == _spent([whole])


def test_an_order_and_a_package_carry_all_teachers(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    keys = set(teacher_keys(get_task("mine")))
    plan = plan_study(Path("several.yaml"), results=Path("results"))
    write_order(tmp_path / "order.tar", plan.trials, Work(place / "results", None, 30.0, 1))
    pack(load_study(Path("several.yaml")), Path("several.yaml"), plan, tmp_path / "study.tar")
    tasks().pop("mine")
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "other"))
    order = open_order(tmp_path / "order.tar", tmp_path / "order", tmp_path / "worker")
    assert {trial.teacher_keys for trial in order.trials} == {teacher_keys(get_task("mine"))}
    assert {passport["key"] for passport in passports()} == keys
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "third"))
    assert set(unpack(tmp_path / "study.tar", tmp_path / "there").teachers) == keys
    assert {passport["key"] for passport in passports()} == keys


def test_a_trial_that_is_run_again_by_its_record_is_the_same(place: Path, tmp_path: Path) -> None:
    before = students() if run() else {}
    record = next(each for each in load_records(Path("results")) if each.trial.method == "mean_of_all")
    task = get_task("mine")
    study = study_of(record, task) | {"selection": list(record.trial.selection), "methods": ["mean.py"]}
    study["methods"] = [{"mean.py": record.trial.options}]
    (place / "again.yaml").write_text("\n".join(f"{key}: {json.dumps(value)}" for key, value in study.items()))
    assert "teachers" not in study
    assert [trial.id for trial in expand(load_study(place / "again.yaml"))] == [record.id]
    if available() is not None:
        files = [place / "mean.py", place / "all.py"]
        found = verify(
            place / "results", [record], tmp_path / "verified", total=3, method_files=files, executor="inline"
        )
        assert [each.outcome for each in found] == ["same bits"], found
    assert students() == before


# ---- what else is told -----------------------------------------------------------------------------------------------


def test_reports_name_all_teachers_and_what_they_reach_together(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = list(run().values())
    (group,) = group_records(records)
    assert group.ensemble is not None
    together = f"{100 * group.ensemble.score:.1f} %"
    line = next(line for line in facts(group) if line.startswith("Teachers:"))
    assert "net.py:build (" in line
    assert "net.py:deeper (" in line
    assert line.endswith(f"together (mean of softmax) {together}")
    assert group.dashed.endswith(f"the 2 together, {together}")
    render(place / "results", place / "report")
    assert f"together {together}" in (place / "report" / "index.html").read_text(encoding="utf-8")
    (frame,) = set(load_frame(place / "results")["ensemble_score"])
    assert frame == group.ensemble.score
    assert query([place / "results"], "select distinct ensemble_score from trials").rows == [(frame,)]
    said = {name: value for name, value, _ in sections(records[0])["teacher"].rows}
    assert said["together"] == f"{together} accuracy"
    assert answer(["show", records[0].id, "--results", "results"]) == 0
    assert "asked of teacher 2" in capsys.readouterr().out


def test_an_archive_holds_them_and_an_older_one_without_is_read_beside_it(place: Path) -> None:
    found = {record.id: record for record in run().values()}
    assert answer(["archive", "results", "several.parquet"]) == 0
    assert {record.id: record for record in load_records(Path("several.parquet"))} == found
    older = Path(__file__).parents[3] / "results" / "demo" / "records.parquet"
    asked = query([Path("several.parquet"), older], "select count(*), count(ensemble_score) from trials")
    assert asked.rows == [(3 + len(load_records(older)), 3)]


def test_other_weights_of_a_further_teacher_are_another_ranking(place: Path) -> None:
    record = run()["mean_of_all", 0]
    values = json.loads(as_json(record))
    values["ensemble"]["teachers"][1]["sha256"] = "f" * 64
    other = Record.model_validate(values)
    assert comparable(other) != comparable(record)
    assert comparable(other)._replace(teacher="") == comparable(record)._replace(teacher="")


def test_the_command_trains_all_of_them(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["teacher", "train", "mine", "--tasks", "mine.yaml"]) == 0
    assert {passport["key"] for passport in passports()} == set(teacher_keys(get_task("mine")))
    assert answer(["teacher", "train", "mine", "--tasks", "mine.yaml", "--seed", "3"]) == 2
    assert "has several teachers" in capsys.readouterr().err
    assert answer(["list", "tasks", "--tasks", "mine.yaml", "--json"]) == 0
    listed = next(each for each in json.loads(capsys.readouterr().out) if each["name"] == "mine")
    assert [each["network"] for each in listed["teachers"]] == ["net.py:build", "net.py:deeper"]


def test_each_training_is_told_by_its_number(place: Path) -> None:
    said: dict[str, bool] = {}

    class Watches(Silence):
        def teacher(self, task: str, progress: TrainingProgress) -> None:
            said[task] = progress.done

    run(audience=Watches())
    assert said == {"mine, number 1 of 2 (net.py:build)": True, "mine, number 2 of 2 (net.py:deeper)": True}


def test_imported_teachers_are_named_by_their_keys(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported = TASK.replace(", recipe: quick, seed: 0", "").replace(", recipe: quick, seed: 1, quick: quick", "")
    (place / "mine.yaml").write_text(imported)
    with pytest.raises(UserError, match=r"name its key in the study, `teachers: \{mine: \[KEY, ...\]\}`"):
        expand(load_study(Path("several.yaml")))
    assert answer(["teacher", "import", "teacher.pth", "--task", "mine", "--tasks", "mine.yaml"]) == 2
    assert "say which: --network net.py:build or net.py:deeper" in capsys.readouterr().err
    task = get_task("mine")
    torch.manual_seed(0)
    deep = build("net.py:deeper", task.image, 2).eval()
    with torch.no_grad():  # brighter than the middle is the first class
        deep.body[1].weight.copy_(torch.linspace(0.9, 1.1, 64).repeat(16, 1) / 64)  # type: ignore[index,union-attr,operator]
        deep.body[1].bias.zero_()  # type: ignore[index,union-attr,operator]
        deep.head.weight.copy_(torch.tensor([[1.0], [-1.0]]).expand(2, 16))  # type: ignore[union-attr,operator]
        deep.head.bias.copy_(torch.tensor([-0.1, 0.1]))  # type: ignore[union-attr,operator]
    torch.save(deep.state_dict(), "deep.pth")
    keys = []
    for file, network in (("teacher.pth", "net.py:build"), ("deep.pth", "net.py:deeper")):
        assert answer(["teacher", "import", file, "--task", "mine", "--tasks", "mine.yaml", "--network", network]) == 0
        keys.append(capsys.readouterr().out.splitlines()[0])
    assert keys[1].startswith("net.py-deeper-")
    (place / "several.yaml").write_text(f"{STUDY}teachers: {{mine: [{', '.join(keys)}]}}\n")
    record = run()["mean_of_all", 0]
    assert list(record.trial.teachers) == keys
    assert study_of(record, task)["teachers"] == {"mine": keys}


# ---- tasks and studies -----------------------------------------------------------------------------------------------


def read(place: Path, text: str) -> TaskSpec:
    (place / "other.yaml").write_text(text)
    (task,) = read_tasks(place / "other.yaml")
    return task


def test_a_list_of_one_teacher_is_that_teacher(place: Path) -> None:
    one = TASK.split("    - {network: net.py:deeper")[0] + "  student: net.py:build\n"
    same = one.replace("teachers:\n    - {network: net.py:build", "teacher: {network: net.py:build")
    assert read(place, one) == read(place, same)
    assert read(place, one).sha == read(place, same).sha != read(place, TASK).sha


def test_order_and_number_of_the_teachers_are_part_of_the_task(place: Path) -> None:
    lines = TASK.splitlines()
    lines[4], lines[5] = lines[5], lines[4]
    assert read(place, "\n".join(lines)).sha != read(place, TASK).sha
    task = read(place, TASK)
    assert TaskSpec.model_validate(task.model_dump(mode="json")) == task
    assert TaskSpec.model_validate(task.model_dump(mode="json", exclude_defaults=True)) == task


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  teachers:\n", "  teacher: {network: lenet5}\n  teachers:\n", r"line 4: teacher: and teachers: are both"),
        ("deeper", "build", None),  # another seed: another teacher
        ("deeper, recipe: quick, seed: 1", "build, recipe: quick, seed: 0", r"net.py:build is there twice"),
        ("recipe: quick, seed: 1", "recipe: quik", r"line 4: unknown teacher recipe 'quik'; did you mean 'quick'"),
        ("network: net.py:deeper", "network: resnet81", r"resnet81"),
        ("seed: 1", "sed: 1", r"line 6: unknown key 'sed'; did you mean 'seed'"),
        ("{images: images}", "{images: flat, classes: 2}", r"teachers: without labels a score is the agreement with"),
        ("student:", "taps: {teacher: {head: '1'}}\n  student:", r"taps: teacher: names places in one network"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(place: Path, old: str, new: str, message: str | None) -> None:
    (place / "flat").symlink_to(place / "images" / "test" / "dark")
    assert TASK.count(old) == 1
    if message is None:
        assert len(read(place, TASK.replace(old, new)).teachers) == 2
        return
    with pytest.raises(UserError, match=message):
        read(place, TASK.replace(old, new))


def test_more_than_a_hundred_are_refused(place: Path) -> None:
    many = "".join(f"    - {{network: net.py:build, recipe: quick, seed: {seed}}}\n" for seed in range(101))
    text = TASK.split("    - ")[0] + many + "  student: net.py:build\n"
    with pytest.raises(UserError, match="teachers: 101 of them; 100 are the most"):
        read(place, text)


def test_an_empty_list_is_refused(place: Path) -> None:
    with pytest.raises(UserError, match=r"line 4: teachers: is empty; name at least one"):
        read(
            place,
            TASK[: TASK.index("    - {network: net.py:build")].replace("teachers:", "teachers: []") + "  student: x\n",
        )


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("teachers: {mine: KEY}", r"line 8: task 'mine' takes the keys of its 2 teachers, \[KEY, ...\], not 1"),
        ("teachers: {mine: [KEY, KEY]}", r"line 8: task 'mine' would have the teacher KEY twice"),
        ("teachers: {mine: [KEY, 5]}", r"line 8: teachers.mine: must be the key of a teacher, or a list of keys"),
        ("teacher: quick", r"line 8: task 'mine' has no quick teacher for net.py:build"),
    ],
)
def test_a_study_names_all_or_none(place: Path, named: str, message: str) -> None:
    (place / "several.yaml").write_text(f"{STUDY}{named}\n")
    with pytest.raises(UserError, match=message):
        load_study(Path("several.yaml"))


def test_one_key_is_for_one_teacher(place: Path) -> None:
    text = "name: x\ntasks: [digits/lenet5-half]\nmethods: [noise]\nbudget: {steps: 1}\n"
    (place / "x.yaml").write_text(f"{text}teachers: {{digits/lenet5-half: [a, b]}}\n")
    with pytest.raises(UserError, match=r"line 5: task 'digits/lenet5-half' takes one key, not 2"):
        load_study(Path("x.yaml"))


def test_quick_teachers_are_all_quick(place: Path) -> None:
    (place / "mine.yaml").write_text(TASK.replace("seed: 0", "seed: 0, quick: quick"))
    (place / "several.yaml").write_text(f"{STUDY}teacher: quick\n")
    trial = expand(load_study(Path("several.yaml")))[0]
    assert trial.teachers == teacher_keys(get_task("mine"), quick=True) == teacher_keys(get_task("mine"))


@pytest.mark.slow
def test_the_page_about_several_teachers_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "your-own-task.md").read_text(encoding="utf-8")
    section = page.partition("\n## Several teachers\n")[2]
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE))
    monkeypatch.chdir(tmp_path)
    Path("mean_teacher.py").write_text(blocks["python"], encoding="utf-8")
    rest = "name: several\nmethods: [mean_teacher.py, noise]\nbudget: {steps: 20}\nselection: [last]\n"
    Path("several.yaml").write_text(blocks["yaml"] + rest, encoding="utf-8")
    mean, noise = run()["mean_teacher", 0], run()["noise", 0]
    assert mean.ensemble is not None
    assert min(mean.ensemble.score, *(teacher.score for teacher in mean.ensemble.teachers)) > 0.95
    assert [each.images for each in mean.ensemble.teachers] == [20 * 64, 20 * 64]
    assert mean.meter.teacher_images == 2 * 20 * 64
    assert noise.ensemble is not None
    assert noise.ensemble.teachers[1].images == 0
    files = (Path("mean_teacher.py").resolve(),)
    (card,) = read_cards(files[0])
    findings = run_battery(card, task="digits/two-teachers", method_files=files, only={"runs", "access", "resumes"})
    assert [finding for finding in findings if not finding.ok] == []
