"""Trials on a user's own images: identity, teacher, refusals, guard."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from own_task import write_flat, write_images, write_own_task
from record_builder import make_record

from bench.analysis.report.pages.html import trial_html
from bench.analysis.report.pages.markdown import group_markdown
from bench.analysis.report.pages.task import repeat_words
from bench.analysis.report.pages.trial import chosen, trial_pages
from bench.analysis.report.sections.grouping import group_records, read_groups
from bench.analysis.report.sections.leaderboard import cells, columns, named_score
from bench.analysis.report.sections.overall import task_sets
from bench.analysis.report.sections.study import StudyWords
from bench.cli import answer
from bench.data.own_images import OwnImages
from bench.errors import UserError
from bench.execution.executors import Work
from bench.execution.run_study import Summary, run_study
from bench.execution.transport import open_order, write_order
from bench.records import load_records
from bench.records.comparable import AGREEMENTS, comparable
from bench.records.merge import merge
from bench.spec.custom_tasks import kept_task, register_saved_tasks
from bench.spec.expand import expand
from bench.spec.rerun import study_of
from bench.spec.study import load_study
from bench.spec.task import TaskSpec, add_tasks, get_task, read_tasks, tasks
from bench.spec.trial import Trial

TEACHERS = "teachers: {mine: KEY}\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an own task with a cache of its own; the current folder."""
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return write_own_task(tmp_path / "here")


def imported(capsys: pytest.CaptureFixture[str]) -> str:
    assert answer(["teacher", "import", "teacher.pth", "--task", "mine", "--tasks", "mine.yaml"]) == 0
    return capsys.readouterr().out.splitlines()[0]


def run(place: Path) -> Summary:
    return run_study(place / "own.yaml", results=place / "results", executor="inline", isolation="none")


def use(place: Path, key: str) -> None:
    file = place / "own.yaml"
    file.write_text(file.read_text() + TEACHERS.replace("KEY", key), encoding="utf-8")


def test_a_folder_and_a_pth_become_records(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = imported(capsys)
    assert key.startswith("net.py-build-folder-")
    use(place, key)
    assert run(place).statuses == {"ok": 2}
    noise, scratch = sorted(load_records(place / "results"), key=lambda record: record.trial.method)
    assert noise.metric == "accuracy"
    assert noise.teacher is not None
    assert (noise.teacher.score, noise.trial.teacher) == (1.0, key)
    assert scratch.meter.real_images == 8
    assert len(noise.provenance["data"]["fingerprint"]) == 64
    assert str(place) not in json.dumps(noise.trial.model_dump(mode="json"))


def test_the_place_of_the_folder_is_no_part_of_a_trial(place: Path, tmp_path: Path) -> None:
    before = [trial.id for trial in expand(load_study(place / "own.yaml"))]
    tasks().pop("mine")
    (place / "images").rename(tmp_path / "moved")
    (place / "mine.yaml").write_text((place / "mine.yaml").read_text().replace("images: images", "images: ../moved"))
    assert [trial.id for trial in expand(load_study(place / "own.yaml"))] == before
    tasks().pop("mine")
    write_images(tmp_path / "moved" / "test", count=1, first=500)
    after = [trial.id for trial in expand(load_study(place / "own.yaml"))]
    assert not set(after) & set(before)


def test_a_mistake_in_the_folder_is_told_with_the_line_of_the_task(place: Path) -> None:
    text = (place / "mine.yaml").read_text()
    for wrong, said in (
        ("{images: imagse}", "line 2: data: no such folder: {place}/imagse; did you mean 'images'?"),
        ("{imags: images}", "line 2: data: unknown key 'imags'; did you mean 'images'?"),
        ("[images]", "line 2: data: must be text, not ['images']"),
    ):
        (place / "mine.yaml").write_text(text.replace("{images: images}", wrong))
        with pytest.raises(UserError) as error:
            read_tasks(place / "mine.yaml")
        assert str(error.value) == f"{place}/mine.yaml, {said.format(place=place)}"
    (place / "mine.yaml").write_text(
        text.replace("channels: 1", "channels: 2").replace("[0.5]", "[0.5, 0.5]").replace("[0.25]", "[1, 1]")
    )
    with pytest.raises(UserError, match="images of a folder have 1 or 3 channels, not 2"):
        read_tasks(place / "mine.yaml")


def test_what_is_found_out_cannot_be_written(place: Path) -> None:
    (task,) = read_tasks(place / "mine.yaml")
    written = task.model_dump(mode="json", exclude_defaults=True)
    assert TaskSpec.model_validate(written) == task
    with pytest.raises(ValueError, match="own: is found out, and not written"):
        TaskSpec.model_validate(written | {"data": "digits"})


def test_without_training_images_methods_that_need_them_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "images" / "train").rename(place / "unused")
    with pytest.raises(
        UserError, match=r"task 'mine' has no training images, .*: import it \(`dfkd teacher import FILE"
    ):
        expand(load_study(place / "own.yaml"))
    key = imported(capsys)
    use(place, key)
    assert answer(["teacher", "train", "mine", "--tasks", "mine.yaml"]) == 2
    assert "task 'mine' has no training images, so its teacher cannot be trained" in capsys.readouterr().err
    assert run(place).statuses == {"ok": 1, "unsupported": 1}
    reasons = {record.trial.method: record.reason for record in load_records(place / "results")}
    assert reasons == {"noise": "", "scratch": "scratch needs real training images, and mine has none"}
    assert answer(["score", "results", "--metrics", "nearest_training_distance,class_balance"]) == 1
    (record,) = [record for record in load_records(place / "results") if record.status == "ok"]
    found = record.image_metrics["nearest_training_distance"]
    assert (found.status, found.note) == ("unavailable", "the task has no training images to compare with")
    assert study_of(record)["teachers"] == {"mine": key}


def test_a_task_without_a_recipe_wants_an_imported_teacher(place: Path) -> None:
    (place / "mine.yaml").write_text((place / "mine.yaml").read_text().replace(", recipe: quick", ""))
    with pytest.raises(UserError, match="task 'mine' names no recipe for its teacher, so it cannot be trained: import"):
        expand(load_study(place / "own.yaml"))


READS = """
from pathlib import Path
from torch.optim import SGD
from bench import Access, Data, Session, method

@method("reads", title="Reads", paper="none", data=Data.NONE, access=Access.LOGITS)
def reads(s: Session) -> None:
    opt = s.keep("opt", SGD(s.student.parameters(), 0.05))
    for _ in s.steps("train"):
        Path(FILE).read_bytes()
        s.distill(opt, s.noise(4, *s.task.image.shape))
"""


@pytest.mark.parametrize("isolation", ["none", pytest.param("auto", marks=pytest.mark.slow)])
def test_the_guard_protects_the_folder(place: Path, isolation: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = place / "images" / "test" / "dark" / "1-100.png"
    assert file.is_file()
    (place / "reads.py").write_text(READS.replace("FILE", repr(str(file))), encoding="utf-8")
    use(place, imported(capsys))
    text = (place / "own.yaml").read_text()
    (place / "own.yaml").write_text(text.replace("[noise: {batch: 4}, scratch: {batch: 4}]", "[reads.py]"))
    summary = run_study(place / "own.yaml", results=place / "results", executor="inline", isolation=isolation)
    (outcome,) = summary.outcomes
    assert outcome.record.status == "leaked"
    assert "real data" in outcome.record.reason


def test_a_results_folder_keeps_the_task_and_where_its_images_were(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use(place, imported(capsys))
    run(place)
    task = get_task("mine")
    tasks().pop("mine")
    kept = kept_task(place / "results", "mine")
    assert kept == task
    register_saved_tasks(place / "results")
    (place / "images").rename(place / "gone")  # the task is known without them
    assert get_task("mine").classes == 2
    assert answer(["score", "results", "--metrics", "confidence"]) == 1
    assert "no such folder" in capsys.readouterr().out


def test_the_same_task_with_its_images_elsewhere_is_the_same(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use(place, imported(capsys))
    run(place)
    tasks().pop("mine")
    (place / "images").rename(tmp_path / "moved")
    register_saved_tasks(place / "results")  # where they were
    (place / "mine.yaml").write_text((place / "mine.yaml").read_text().replace("images: images", "images: ../moved"))
    add_tasks(read_tasks(place / "mine.yaml"))
    assert get_task("mine").images_folder == tmp_path / "moved"
    register_saved_tasks(place / "results")
    assert get_task("mine").images_folder == tmp_path / "moved"
    text = (place / "own.yaml").read_text()
    (place / "own.yaml").write_text(text.replace("budget: {steps: 2}", "budget: {steps: 3}"))
    run_study(place / "own.yaml", results=place / "others", executor="inline", isolation="none")
    merge([place / "results", place / "others"], place / "merged")
    assert len(load_records(place / "merged")) == 4
    other = get_task("mine").model_copy(update={"student": "lenet5"})
    with pytest.raises(UserError, match="a task 'mine' already exists"):
        add_tasks([other])


def test_an_order_carries_the_task_and_the_worker_checks_the_images(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use(place, imported(capsys))
    trials = expand(load_study(place / "own.yaml"))
    write_order(tmp_path / "order.tar", trials, Work(place / "results", None, 30.0, 1))
    tasks().pop("mine")
    order = open_order(tmp_path / "order.tar", tmp_path / "worker", tmp_path / "theirs")
    assert [trial.id for trial in order.trials] == [trial.id for trial in trials]
    write_images(place / "images" / "test", count=1, first=700)
    with pytest.raises(UserError, match="the images are not those of folder@"):
        open_order(tmp_path / "order.tar", tmp_path / "second", tmp_path / "others")


def test_a_home_folder_is_not_named_by_its_user(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place))
    (task,) = read_tasks(place / "mine.yaml")
    assert task.own is not None
    assert task.own.images == "~/images"
    assert task.images_folder == place / "images"
    assert isinstance(task.own, OwnImages)
    trial = expand(load_study(place / "own.yaml"))[0]
    assert str(place) not in json.dumps(trial.to_json()["own_task"])
    assert Trial.from_json(trial.to_json()) == trial


# ---- without labels --------------------------------------------------------------------------------------------------


def rewritten(place: Path, data: str) -> None:
    """The same task with other ``data``, a teacher to import, and one method."""
    file, study = place / "mine.yaml", place / "own.yaml"
    file.write_text(file.read_text().replace("{images: images}", data).replace(", recipe: quick", ""))
    study.write_text(study.read_text().replace(", scratch: {batch: 4}", ""))


@pytest.mark.parametrize(
    ("data", "metric", "head", "said"),
    [
        ("{images: flat, classes: 2}", "agreement", "Agreement, %", "on the test images, which have no labels"),
        (
            "{images: none, classes: 2}",
            "synthetic_agreement",
            "Synthetic agreement, %",
            "made images (there are no test",
        ),
    ],
)
def test_without_labels_the_score_is_agreement_and_is_named_so_everywhere(
    place: Path, data: str, metric: str, head: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_flat(place / "flat", 5, 0)
    write_flat(place / "flat", 5, 1)
    rewritten(place, data)
    use(place, key := imported(capsys))
    assert answer(["teacher", "show", key]) == 0
    assert "test score     none: the test images have no labels" in capsys.readouterr().out
    assert answer(["run", "own.yaml", "--results", "results", "--executor", "inline", "--isolation", "none"]) == 0
    assert f"% {metric.replace('_', ' ')}" in capsys.readouterr().out
    (record,) = load_records(place / "results")
    assert (record.metric, record.teacher is not None and record.teacher.score) == (metric, 1.0)
    assert record.scores["last"] == record.agreement
    group = read_groups(place / "results")[0]
    heads = columns(group.key.metric)
    assert heads["score"] == head
    assert [name for name in heads if name.endswith("agreement")] == []
    assert list(cells(group, 1, group.rows[0], False)) == list(heads)
    table = group_markdown(group)
    assert any(line.startswith(f"| Rank | Method | Real data | {head} | Oracle, % |") for line in table)
    assert said in table[2]
    assert "Teacher: net.py:build (sha256" in table[2]
    assert named_score(group.rows[0]).endswith(metric.replace("_", " "))
    assert repeat_words([group], StudyWords())["caveats"][-1].startswith("Teachers that were imported: net.py-build-")
    (_, page), *_ = trial_pages(chosen([group]), place / "results", ())
    html = trial_html(page)
    assert f"</b> {metric.replace('_', ' ')} with the teacher" in html
    assert said in html
    assert "on the test images</p>" not in html
    assert f">{head}</th>" in html
    assert answer(["show", record.id, "--results", "results"]) == 0
    assert f"scores ({metric} with the teacher on" in capsys.readouterr().out
    assert answer(["query", "select metric, score from trials", "--results", "results", "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"{metric},")


def test_agreement_and_accuracy_are_never_in_one_ranking() -> None:
    known = make_record("dafl", 0)
    for metric in AGREEMENTS:
        other = make_record("dafl", 0).model_copy(update={"metric": metric})
        assert comparable(other) != comparable(known)
    methods = ("noise", "kd", "dafl", "zskd")
    groups = group_records(make_record(method, 0, task=task) for task in ("a", "b") for method in methods)
    assert len(task_sets(groups)) == 1
    for metric in AGREEMENTS:
        assert task_sets([replace(group, key=group.key._replace(metric=metric)) for group in groups]) == []


def test_a_teacher_of_one_answer_is_refused_on_unlabelled_images(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_flat(place / "flat", 5, 0)
    rewritten(place, "{images: flat, classes: 2}")
    assert answer(["teacher", "import", "teacher.pth", "--task", "mine", "--tasks", "mine.yaml"]) == 2
    assert "all of them are '0'" in capsys.readouterr().err
