"""Numbers are filed under their commit and found again by every name of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commit_history import commit_file, new_repository, run_git, write_records
from record_builder import make_record

from bench.analysis.regression.filing import (
    file_runs,
    label,
    lighten,
    open_filed,
    place_for,
    read_runs,
    tracked_commits,
)
from bench.analysis.regression.speed import read_run
from bench.cli import answer
from bench.errors import UserError
from bench.records import load_records, open_results, write_trial
from bench.utils.git import Commit, resolve

GOOD = [0.90, 0.91, 0.89, 0.92, 0.90]
WORSE = [0.85, 0.861, 0.838, 0.869, 0.851]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = new_repository(tmp_path / "repo")
    for number, scores in enumerate((GOOD, WORSE)):
        head = commit_file(made, "method.py", f"a = {number}\n", f"Commit {number}")
        label(write_records(made / "results" / "tracked" / head.sha, {"dafl": scores}), head)
        run_git(made, "tag", f"v{number}")
    monkeypatch.chdir(made)
    return made


def test_a_clean_tree_is_filed_under_its_commit_and_a_changed_one_apart(root: Path) -> None:
    tracked, head = root / "results" / "tracked", resolve(root, "HEAD")
    assert place_for(root, tracked, dirty=False) == (tracked / head.sha, head)
    (root / "new.py").write_text("b = 1\n")
    with pytest.raises(UserError, match=r"differs from its commit .* in new.py: .*--dirty"):
        place_for(root, tracked, dirty=False)
    first, _ = place_for(root, tracked, dirty=True)
    assert first.name.startswith(f"{head.sha}-dirty-")
    (root / "new.py").write_text("b = 2\n")
    assert place_for(root, tracked, dirty=True)[0] != first


def test_code_of_another_checkout_is_not_filed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = new_repository(tmp_path / "suite")
    commit_file(made, "bench/__init__.py", "", "The suite, at some commit of its own")
    monkeypatch.chdir(made)
    assert answer(["track", "regression"]) == 2
    said = capsys.readouterr().err
    assert "the code that runs is that of" in said
    assert f"PYTHONPATH={made}" in said
    assert not (made / "results").exists()


def test_the_same_numbers_by_every_name(root: Path) -> None:
    sha = resolve(root, "v0").sha
    for name in ("v0", "HEAD~1", sha, sha[:8], f"results/tracked/{sha}"):
        found = open_filed(name)
        assert found.commit is not None
        assert found.commit.sha == sha
        assert len(found.records) == 5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v3", "no folder 'v3', and .* no commit, tag or branch 'v3'; allowed: both, main, v0, v1"),
        ("results/tracked/none", "no folder 'results/tracked/none'"),
        ("results", "is not a results folder"),
        ("v1", "nothing is stored under .*Commit 1.*; the latest stored commit: .*Commit 0"),
        ("both", "'both' is both a folder and a commit; write ./both"),
    ],
)
def test_what_cannot_be_found_is_told(root: Path, name: str, said: str) -> None:
    (root / "results" / "tracked" / resolve(root, "v1").sha / "results.json").unlink()
    (root / "both").mkdir()
    run_git(root, "tag", "both")
    with pytest.raises(UserError, match=said):
        open_filed(name)


def test_a_students_hash_takes_its_place_and_nothing_else_changes(tmp_path: Path) -> None:
    folder = open_results(tmp_path / "filed", create=True)
    student, picture = tmp_path / "student", tmp_path / "picture"
    student.write_bytes(b"weights")
    picture.write_bytes(b"pixels")
    record = make_record("dafl")
    trial = write_trial(folder, record, [], {"student.safetensors": student, "images.png": picture, "log.txt": picture})
    before = open_filed(str(folder)).bits
    for _ in range(2):
        lighten(folder)
        assert sorted(file.name for file in trial.iterdir()) == ["bits.json", "curve.jsonl", "log.txt", "record.json"]
        assert open_filed(str(folder)).bits == before == {record.id: before[record.id]}
    assert load_records(folder) == [record]


def test_the_command_line_says_better_worse_and_exits_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["compare", "v0", "v1"]) == 1
    text = capsys.readouterr().out
    assert text.splitlines()[-1] == "Regression. Scores: 1 worse. Other numbers: 1 worse, 10 same (all identical)."
    assert "v0, " in text
    assert answer(["compare", "v1", "v0"]) == 0
    assert "No regression. Scores: 1 better. Other numbers: 1 better" in capsys.readouterr().out
    assert answer(["compare", "v0", "v0"]) == 0
    assert "No regression. Scores: 1 same (all identical)" in capsys.readouterr().out
    assert answer(["compare", "v0", "v1", "--metric", "class_balance"]) == 0
    assert answer(["compare", "v0", "v1", "--smallest", "accuracy=0.2"]) == 0


def test_what_is_undecided_says_so_and_what_it_would_take(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_records(root / "other", {"dafl": [0.95, 0.86, 0.93, 0.88, 0.91]})
    assert answer(["compare", "v0", "./other"]) == 3
    text = capsys.readouterr().out
    assert text.splitlines()[-1].startswith("Undecided. Scores: 1 undecided.")
    assert "dafl, accuracy  a loss of" in text
    assert "would have been found in 80 % of cases; about" in text
    assert answer(["compare", "v0", "./other", "--undecided", "ok"]) == 0
    assert answer(["compare", "v0", "./other", "--markdown"]) == 3
    text = capsys.readouterr().out
    assert "### What remains undecided" in text
    assert "No regression" not in text


def test_a_cell_that_was_not_compared_is_under_no_green_headline(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(root / "more", {"dafl": GOOD, "kd": GOOD})
    assert answer(["compare", "v0", "./more"]) == 3
    assert "Undecided. Not compared: 1. Scores: 1 same (all identical)." in capsys.readouterr().out


def test_markdown_and_json_hold_the_same_verdicts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["compare", "v0", "v1", "--json"]) == 1
    first, *rest = json.loads(capsys.readouterr().out)
    assert first["regression"] is True
    assert first["outcome"] == "regression"
    assert first["head"] == resolve(root, "v1").sha
    worse = {row["metric"]: row for row in rest if row.get("verdict") == "worse"}
    assert set(worse) == {"accuracy", "agreement"}
    assert worse["accuracy"]["adjusted"] < 0.01
    assert worse["accuracy"]["higher_is_better"] is True
    assert answer(["compare", "v0", "v1", "--markdown"]) == 1
    text = capsys.readouterr().out
    assert text.startswith("## Regression. Scores: 1 worse.")
    assert text.index("### What moved") < text.index("| worse |")
    assert text.count("| worse |") == 2
    assert "<details>" not in text  # nothing is left to fold away
    assert "- 10 other numbers are identical." in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "v0"], "missing argument 'HEAD'"),
        (["compare", "v0", "v9"], "allowed: main, v0, v1"),
        (["compare", "v0", "v1", "--alpha", "1"], "--alpha must be between 0 and 1"),
        (["compare", "v0", "v1", "--metric", "acuracy"], "did you mean 'accuracy'?"),
        (["compare", "v0", "v1", "--metric", "time"], "nothing of v0 and v1 can be compared"),
        (["compare", "v0", "v1", "--json", "--markdown"], "choose one"),
        (["compare", "v0", "v1", "--undecided", "no"], "--undecided must be fail or ok"),
        (["compare", "v0", "v1", "--score", "emma"], "unknown selection rule 'emma'; did you mean 'ema'?"),
        (["compare", "v0", "v1", "--renamed", "dafl"], "write OLD=NEW"),
        (["compare", "v0", "v1", "--repo", "/"], "not in a git checkout"),
    ],
)
def test_mistakes_are_one_sentence(
    root: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_summary_shows_what_somebody_wrote_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, scores in (("a", GOOD), ("b", WORSE)):
        write_records(tmp_path / name, {"<b>|x": scores})
    assert answer(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--markdown"]) == 1
    assert "| &lt;b&gt;\\|x |" in capsys.readouterr().out


# ---- speed ---------------------------------------------------------------------------------------------------------


def speed_file(
    file: Path, seconds: float, machine: float = 1.0, drift: float = 1.0, commit: str = "unversioned"
) -> Path:
    """What pytest-benchmark writes, as far as it is read, on a machine that is ``machine`` times as slow."""
    times = {"test_calibration[first]": 0.01, "test_calibration[last]": 0.01 * drift, "test_dafl": seconds}
    content = {
        "machine_info": {"node": "secret-host", "cpu": {"brand_raw": "A CPU", "count": 2}},
        "commit_info": {"id": commit},
        "benchmarks": [
            {
                "fullname": f"tests/benchmarks/test_x.py::{name}",
                "stats": {"min": machine * time, "data": [machine * time]},
            }
            for name, time in times.items()
        ],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize(
    ("factor", "machine", "verdict"),
    [(1.3, 1.0, "worse"), (1.3, 0.5, "worse"), (0.7, 2.0, "better"), (1.0, 3.0, "same")],
)
def test_speed_is_judged_over_the_calibration_whatever_the_machine(
    tmp_path: Path, factor: float, machine: float, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, scale, slow in (("a", 1.0, 1.0), ("b", factor, machine)):
        write_records(tmp_path / name, {"dafl": GOOD})
        for run, jitter in enumerate((1.0, 1.01, 0.99)):
            speed_file(tmp_path / name / "speed" / f"{run}.json", 0.2 * scale * jitter, slow * jitter**2)
    code = answer(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json", "--metric", "time"])
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["what"] == "number"]
    assert row["verdict"] == verdict
    assert row["head"] / row["base"] == pytest.approx(factor)
    assert code == (verdict == "worse")


def test_unsteady_and_too_few_runs_decide_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seconds in (("a", 0.1), ("b", 0.5)):
        write_records(tmp_path / name, {"dafl": GOOD})
        for run in range(3):
            drift = 1.3 if run == 2 else 1.0
            speed_file(tmp_path / name / "speed" / f"{run}.json", seconds, drift=drift)
    assert answer(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--metric", "time"]) == 3
    text = capsys.readouterr().out
    assert "undecided" in text
    assert "2 and 2 steady runs; the test needs 3 of each" in text
    assert "Left out: 1 of 3 benchmark runs of base" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "is not a file of `pytest --benchmark-json`"),
        ("[]", "must contain a JSON object"),
        ('{"benchmarks": [{"fullname": "a.py::test_a", "stats": {"min": 1}}]}', "no benchmark 'test_calibration'"),
        ('{"benchmarks": [{"fullname": "a.py::test_calibration", "stats": {"min": 0}}]}', "must be above 0"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "speed.json"
    file.write_text(content)
    with pytest.raises(UserError, match=said):
        read_runs([file], Commit("a" * 40, "", ""))


def test_a_run_of_another_commit_is_refused(tmp_path: Path) -> None:
    file = speed_file(tmp_path / "speed.json", 0.1, commit="b" * 40)
    with pytest.raises(UserError, match="measured at commit bbbbbbbbb, not at aaaaaaaaa"):
        read_runs([file], Commit("a" * 40, "", ""))
    assert len(read_runs([file], Commit("b" * 40, "", ""))) == 1


def test_a_run_of_a_changed_tree_is_refused_as_the_tree_is(tmp_path: Path) -> None:
    file = speed_file(tmp_path / "run.json", 1.0)
    content = json.loads(file.read_text())
    content["commit_info"] = {"id": "b" * 40, "dirty": True}
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"run\.json was measured on a changed tree .*--dirty"):
        read_runs([file], Commit("b" * 40, "", ""))
    assert len(read_runs([file], Commit("b" * 40, "", ""), dirty=True)) == 1


@pytest.mark.parametrize("machine", [None, "x", [], {"cpu": "x"}, {"cpu": None}, {}])
@pytest.mark.parametrize("about", [None, {}, {"id": None}])
def test_a_run_that_knows_little_of_its_machine_is_filed(tmp_path: Path, machine: object, about: object) -> None:
    file = speed_file(tmp_path / "run.json", 1.0)
    content = json.loads(file.read_text()) | {"machine_info": machine, "commit_info": about}
    file.write_text(json.dumps(content))
    runs = read_runs([file], Commit("b" * 40, "", ""))
    file_runs(tmp_path / "filed", runs)
    (kept,) = (tmp_path / "filed" / "speed").iterdir()
    assert read_run(kept).ratios == runs[0].ratios


def test_only_clean_commits_are_in_the_history(root: Path) -> None:
    write_records(root / "results" / "tracked" / f"{'a' * 40}-dirty-01234567", {"dafl": GOOD})
    assert set(tracked_commits(root / "results" / "tracked")) == {resolve(root, name).sha for name in ("v0", "v1")}
