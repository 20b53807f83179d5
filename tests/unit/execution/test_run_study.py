"""A study from its file to its records: nothing twice, failures tried again, nothing half-written."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from pathlib import Path

import idx_files
import pytest
from filelock import FileLock

from bench import data
from bench.errors import UserError
from bench.execution import run_study as campaign
from bench.execution.executors import Executor, Watcher, Work
from bench.execution.plan import Plan, default_workers, idle_sweeps, plan_study
from bench.execution.progress import Progress
from bench.execution.run_study import Summary, run_study
from bench.harness.teachers.cache import import_teacher
from bench.harness.teachers.passport import passports
from bench.harness.teachers.progress import TrainingProgress
from bench.records import Record, load_record
from bench.spec.task import get_task, tasks
from bench.spec.teacher_key import teacher_key
from bench.spec.trial import Trial
from bench.utils import hardware
from bench.utils.paths import anchor_folder

STUDY = """
name: tiny
tasks: [digits/lenet5-half]
methods: {methods}
seeds: {seeds}
budget: {{steps: 3}}
points: 1
"""
FLAKY = '''
from pathlib import Path
from bench import Access, Data, Session, method
import torch

@method("flaky", title="Flaky", paper="none", data=Data.NONE, access=Access.LOGITS)
def flaky(s: Session) -> None:
    """Fails as long as a file says so."""
    optimizer = s.keep("optimizer", torch.optim.SGD(s.student.parameters(), 0.01))
    for _ in s.steps("train"):
        if Path({file!r}).exists():
            raise RuntimeError("as it was told")
        s.distill(optimizer, s.noise(4, *s.task.image.shape))
'''


class Notebook:
    """Writes down all that it is told."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.teachers: list[tuple[str, float, int]] = []
        self.ended_ids: list[str] = []

    def planned(self, plan: Plan, workers: int) -> None:
        del workers
        self.plans.append(plan)

    def teacher(self, task: str, progress: TrainingProgress) -> None:
        self.teachers.append((task, progress.epoch, progress.epochs))

    def update(self, trial: Trial, progress: Progress) -> None:
        pass

    def ended(self, trial: Trial, record: Record) -> None:
        assert record.id == trial.id
        self.ended_ids.append(trial.id)


HERE = "isolation: none\n"  # another process does not know of a task that a test has changed


def study(folder: Path, methods: str = "[noise: {batch: 4}]", seeds: str = "[0, 1]", extra: str = "") -> Path:
    file = folder / "study.yaml"
    file.write_text(STUDY.format(methods=methods, seeds=seeds) + extra, encoding="utf-8")
    return file


def run(file: Path, results: Path, notebook: Notebook | None = None, method_files: Sequence[Path] = ()) -> Summary:
    return run_study(file, results=results, executor="inline", method_files=method_files, audience=notebook)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def no_executor(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """No trial is really run; the list holds those that would be."""
    seen: list[Trial] = []

    class RunsNone(Executor):
        def __call__(self, trials: Sequence[Trial], work: Work, watcher: Watcher) -> None:
            del watcher
            seen.extend(trials)
            for trial in trials:
                campaign.record_failure(trial, "crashed", "not really run", work.results, Path("no log"))

    monkeypatch.setattr(campaign, "get_executor", lambda name: RunsNone())
    monkeypatch.setattr(campaign, "_train_teachers", lambda *_: None)
    return seen


@pytest.fixture
def no_real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DFKD_DATA", raising=False)


def test_a_study_leaves_records_and_a_copy_of_itself(tmp_path: Path) -> None:
    file, notebook = study(tmp_path), Notebook()
    summary = run(file, tmp_path / "out", notebook)
    assert summary.statuses == {"ok": 2}
    assert summary.failures == []
    assert [outcome.trial.seed for outcome in summary.outcomes] == [0, 1]
    assert notebook.ended_ids == [trial.id for trial in summary.plan.trials]
    assert (tmp_path / "out" / "study.yaml").read_bytes() == file.read_bytes()
    assert not any((tmp_path / "out" / "work").iterdir())


def test_finished_trials_are_not_run_again_and_new_ones_are_added(tmp_path: Path) -> None:
    first = run(study(tmp_path, seeds="[0]"), tmp_path / "out")
    before = first.outcomes[0].record
    notebook = Notebook()
    second = run(study(tmp_path, seeds="[0, 1]"), tmp_path / "out", notebook)
    assert second.kept == 1
    assert second.outcomes[0].record == before
    assert notebook.ended_ids == [second.plan.trials[1].id]


def test_metrics_that_finished_trials_lack_are_counted_and_nothing_is_run_again(tmp_path: Path) -> None:
    run(study(tmp_path, seeds="[0]"), tmp_path / "out")
    more = study(tmp_path, seeds="[0]", extra='image_metrics: [confidence, "kid[teacher]"]\n')
    notebook = Notebook()
    summary = run(more, tmp_path / "out", notebook)
    assert notebook.ended_ids == []
    assert summary.unmeasured == {"confidence": 1, "kid[teacher]": 1}


def test_a_failure_does_not_stop_the_study_and_is_tried_again(tmp_path: Path) -> None:
    switch = tmp_path / "broken"
    switch.touch()
    method = tmp_path / "flaky.py"
    method.write_text(FLAKY.format(file=str(switch)), encoding="utf-8")
    file = study(tmp_path, "[flaky.py, noise: {batch: 4}]", "[0]")
    summary = run(file, tmp_path / "out")
    assert summary.statuses == {"crashed": 1, "ok": 1}
    (failure,) = summary.failures
    assert "as it was told" in failure.record.reason
    assert failure.log is not None
    assert "RuntimeError: as it was told" in failure.log.read_text(encoding="utf-8")
    switch.unlink()
    notebook = Notebook()
    assert run(file, tmp_path / "out", notebook).statuses == {"ok": 2}
    assert notebook.ended_ids == [failure.trial.id]


def test_trials_of_one_id_run_once(tmp_path: Path, no_executor: list[Trial]) -> None:
    file = study(tmp_path, "[noise: {batch: 4}, noise: {batch: [4, 8]}]", "[0]")
    run(file, tmp_path / "out")
    assert [trial.options["batch"] for trial in no_executor] == [4, 8]


def test_a_plan_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = study(tmp_path)
    monkeypatch.chdir(tmp_path)
    plan = plan_study(file, device="cpu")
    assert plan.results == Path("runs/tiny")
    assert len(plan.waiting) == 2
    assert files_below(tmp_path) == {"study.yaml"}


def test_a_method_file_beside_the_study_joins_it(tmp_path: Path) -> None:
    method = tmp_path / "flaky.py"
    method.write_text(FLAKY.format(file=""), encoding="utf-8")
    plan = plan_study(study(tmp_path, seeds="[0]"), device="cpu", method_files=[method])
    assert [trial.method for trial in plan.trials] == ["noise", "flaky"]


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path, no_executor: list[Trial]) -> None:
    file = study(tmp_path)
    run(file, tmp_path / "out")
    no_executor.clear()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(UserError, match=r"another run is using .*out; wait"):
        run(file, tmp_path / "out")
    assert no_executor == []
    run(file, tmp_path / "out")
    assert len(no_executor) == 2


def test_what_a_kill_left_of_a_finished_trial_is_cleared(tmp_path: Path) -> None:
    file = study(tmp_path, seeds="[0]")
    trial = run(file, tmp_path / "out").plan.trials[0]
    left = tmp_path / "out" / "work" / trial.id
    left.mkdir()
    (left / "checkpoint.pt").touch()
    run(file, tmp_path / "out")
    assert not left.exists()


@pytest.mark.usefixtures("no_real_data")
def test_missing_data_is_a_record_and_the_rest_goes_on(tmp_path: Path) -> None:
    file = study(tmp_path, seeds="[0]")
    both = file.read_text(encoding="utf-8").replace("[digits/lenet5-half]", "[mnist/lenet5-half, digits/lenet5-half]")
    file.write_text(both, encoding="utf-8")
    notebook = Notebook()
    summary = run(file, tmp_path / "out", notebook)
    assert [outcome.record.status for outcome in summary.outcomes] == ["missing_data", "ok"]
    assert "`dfkd data fetch mnist`" in summary.failures[0].record.reason
    assert not any(task == "mnist/lenet5-half" for task, _, _ in notebook.teachers)


@pytest.fixture
def tiny_task(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A task on a data set of a few images: its official files by name."""
    files = idx_files.tiny_files()
    monkeypatch.setitem(data.SOURCES, "tiny", idx_files.source_of(files))
    task = get_task("mnist/lenet5-half").model_copy(update={"name": "tiny/lenet5-half", "data": "tiny"})
    monkeypatch.setitem(tasks(), "tiny/lenet5-half", task)  # type: ignore[index]
    return files


def tiny_study(folder: Path) -> Path:
    file = study(folder, seeds="[0]")
    file.write_text(file.read_text(encoding="utf-8").replace("digits/", "tiny/"), encoding="utf-8")
    return file


@pytest.mark.usefixtures("no_executor")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda whole: whole[:-1], "truncated"),
        (lambda whole: whole[:-1] + b"\0", "altered"),
        (lambda whole: b"?" + whole[1:], "magic"),
    ],
)
def test_damaged_data_stops_the_study_before_anything_is_written(
    tmp_path: Path, tiny_task: dict[str, bytes], change, sentence: str
) -> None:
    bad = {**tiny_task, idx_files.TEST_IMAGES: change(tiny_task[idx_files.TEST_IMAGES])}
    folder = idx_files.write(tmp_path / "data", bad)
    with pytest.raises(UserError, match=sentence) as error:
        run_study(tiny_study(tmp_path), results=tmp_path / "out", executor="inline", data_folder=folder)
    assert str(folder / idx_files.TEST_IMAGES) in str(error.value)
    assert not (tmp_path / "out").exists()


def test_altered_data_is_used_where_that_is_asked_for(
    tmp_path: Path, tiny_task: dict[str, bytes], no_executor: list[Trial]
) -> None:
    labels = idx_files.labels_file(0, 0, 0, 0)
    folder = idx_files.write(tmp_path / "data", {**tiny_task, idx_files.TEST_LABELS: labels})
    run_study(tiny_study(tmp_path), results=tmp_path / "out", data_folder=folder, allow_altered=True)
    assert [trial.task for trial in no_executor] == ["tiny/lenet5-half"]


def test_a_damaged_file_counts_more_than_a_missing_one(tmp_path: Path, tiny_task: dict[str, bytes]) -> None:
    images = tiny_task[idx_files.TEST_IMAGES]
    folder = idx_files.write(tmp_path / "data", {idx_files.TEST_IMAGES: images[:50]})
    with pytest.raises(UserError, match="truncated"):
        run_study(tiny_study(tmp_path), results=tmp_path / "out", data_folder=folder)
    assert not (tmp_path / "out").exists()


def test_an_altered_teacher_stops_the_study_before_anything_is_written(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(study(tmp_path, seeds="[0]"), tmp_path / "first")  # so that the teacher is there
    key = teacher_key(get_task("digits/lenet5-half"))
    shutil.copytree(cache / "teachers" / key, tmp_path / "cache" / "teachers" / key)
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "cache" / "teachers" / key / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match=r"the passport says .*; delete .* and train or import the teacher again"):
        run(study(tmp_path, seeds="[0]"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_nobody_has_is_an_error(tmp_path: Path) -> None:
    file = study(tmp_path, extra="teachers: {digits/lenet5-half: lenet5-nobody}")
    with pytest.raises(UserError, match="no teacher 'lenet5-nobody'"):
        run(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_teachers_are_trained_once_and_before_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    task = get_task("digits/lenet5-half")
    quick = task.model_copy(update={"teacher": task.teacher.model_copy(update={"recipe": "quick"})})
    monkeypatch.setitem(tasks(), task.name, quick)  # type: ignore[index]
    notebook = Notebook()
    assert run(study(tmp_path, extra=HERE), tmp_path / "out", notebook).statuses == {"ok": 2}
    assert [notebook.teachers[0], notebook.teachers[-1]] == [(task.name, 0, 2), (task.name, 2, 2)]
    assert [passport["key"] for passport in passports()] == [teacher_key(quick)]


def test_anchors_that_a_method_wants_are_made_before_the_trials_with_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    task = get_task("digits/lenet5-half")
    quick = task.model_copy(update={"teacher": task.teacher.model_copy(update={"recipe": "quick"})})
    monkeypatch.setitem(tasks(), task.name, quick)  # type: ignore[index]
    notebook = Notebook()
    run(study(tmp_path, seeds="[0]", extra=HERE), tmp_path / "out")
    assert not anchor_folder(teacher_key(quick), 10).exists(), "nobody wanted them"
    both = study(tmp_path, methods="[noise: {batch: 4}, rco: {batch: 4}]", seeds="[0]", extra=HERE)
    shutil.rmtree(tmp_path / "cache")
    assert run(both, tmp_path / "out", notebook).statuses == {"ok": 2}
    assert [epoch for _, epoch, _ in notebook.teachers].count(0) == 1, "trained once"
    assert len(list(anchor_folder(teacher_key(quick), 10).glob("*.safetensors"))) == 9


def test_a_method_that_follows_the_training_is_left_out_on_an_imported_teacher(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(study(tmp_path, seeds="[0]"), tmp_path / "first")  # so that there is one to import
    task = get_task("digits/lenet5-half")
    weights = cache / "teachers" / teacher_key(task) / "weights.safetensors"
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    key = import_teacher(task, weights, data.load("digits", size=32)).name
    extra = f"teachers: {{digits/lenet5-half: {key}}}"
    file = study(tmp_path, methods="[noise: {batch: 4}, rco]", seeds="[0]", extra=extra)
    summary = run(file, tmp_path / "out")
    assert summary.statuses == {"ok": 1, "unsupported": 1}
    (left_out,) = summary.unsupported
    assert left_out.record.reason.startswith(f"rco follows the teacher's training, and the training of teacher '{key}'")


def test_a_full_disk_is_one_sentence_and_leaves_no_half_written_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, real = study(tmp_path, seeds="[0]"), shutil.copyfile

    def full(source: Path, target: Path) -> None:
        if "trials" in Path(target).parts:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(UserError, match=r"the disk of .*out is full; free some space"):
            run(file, tmp_path / "out")
    assert list((tmp_path / "out" / "trials").iterdir()) == []
    assert run(file, tmp_path / "out").statuses == {"ok": 1}


def test_a_damaged_record_is_left_to_its_owner(tmp_path: Path, no_executor: list[Trial]) -> None:
    file = study(tmp_path, seeds="[0]")
    trial = run(file, tmp_path / "out").plan.trials[0]
    no_executor.clear()
    record = tmp_path / "out" / "trials" / trial.id / "record.json"
    record.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"record\.json is not JSON"):
        run(file, tmp_path / "out")
    assert no_executor == []
    assert record.read_text(encoding="utf-8") == "{"


def test_an_unknown_executor_is_told_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown executor 'proceses'; did you mean 'processes'"):
        run_study(tmp_path / "no.yaml", executor="proceses")


@pytest.mark.parametrize(("cores", "threads", "workers"), [(8, 1, 8), (8, 3, 2), (2, 4, 1)])
def test_workers_by_cores_and_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, workers: int
) -> None:
    monkeypatch.setattr("bench.execution.plan.usable_cores", lambda: cores)
    plan = plan_study(study(tmp_path, extra=f"threads: {threads}"), device="cpu")
    assert default_workers(plan) == workers


@pytest.mark.parametrize(("cores", "threads", "workers"), [(16, 1, 4), (8, 4, 2), (2, 4, 1)])
def test_a_worker_for_each_gpu_as_far_as_the_cores_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, workers: int
) -> None:
    monkeypatch.setattr("bench.execution.plan.usable_cores", lambda: cores)
    monkeypatch.setattr("bench.execution.plan.gpu_count", lambda: 4)
    monkeypatch.setattr(hardware, "gpus", lambda: ["A GPU"] * 4)
    plan = plan_study(study(tmp_path, extra=f"threads: {threads}"), device="cuda")
    assert default_workers(plan) == workers


def test_one_worker_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpus", lambda: ["A GPU", "Another"])
    plan = plan_study(study(tmp_path), device="cuda:1")
    assert default_workers(plan) == 1
    assert (plan.trials[0].device, plan.gpu) == ("cuda", 1)  # which of the GPUs is no part of a trial's identity


def test_a_record_says_what_was_run(tmp_path: Path) -> None:
    summary = run(study(tmp_path, seeds="[0]"), tmp_path / "out")
    trial = summary.plan.trials[0]
    assert load_record(tmp_path / "out" / "trials" / trial.id).trial.model_dump(mode="json") == trial.identity()


@pytest.mark.parametrize(
    ("methods", "idle"),
    [
        ("[scratch: {momentum: [0.1, 0.9]}]", ["momentum"]),
        ("[scratch: {momentum: [0.1, 0.9], optimizer: [adam, sgd]}]", []),
        ("[scratch: {momentum: 0.1}]", []),
        ("[dfad: {temperature: [1, 5]}, scratch]", ["temperature"]),
    ],
)
def test_a_sweep_of_what_is_switched_off_is_told_before_it_runs(tmp_path: Path, methods: str, idle: list[str]) -> None:
    found = idle_sweeps(plan_study(study(tmp_path, methods), device="cpu").trials)
    assert [each.option for each in found] == idle
