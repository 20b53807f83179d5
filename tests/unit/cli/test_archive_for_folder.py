"""Every command that reads results says the same of an archive as of the folder that it was made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commit_history import commit_file, new_repository, write_records
from record_builder import add, make_demo, make_record

from bench.analysis.regression.filing import TRACKED, filed_place, label, open_filed, tracked_commits, unpack_filed
from bench.cli import answer
from bench.cli.app import HELP
from bench.records import load_records
from bench.records.archive import write_archive
from bench.spec.custom_tasks import save_tasks

TRIAL = make_record("dafl", 0).id
GOOD, WORSE = [0.90, 0.91, 0.89, 0.92, 0.90], [0.85, 0.861, 0.838, 0.869, 0.851]
BITS = {"dafl": "same"}
# Commands of which the results, {demo}, {first} or {second}, are a folder once and an archive once.
READING = {
    "report": ["report", "--results", "{demo}", "--out", "out"],
    "site": ["site", "{demo}", "--out", "out"],
    "summary": ["site", "{demo}", "--out", "out", "--summary"],
    "show": ["show", TRIAL, "--results", "{demo}", "--json"],
    "query": ["query", "select * exclude (results) from trials order by id", "--csv", "--results", "{demo}"],
    "query curves": ["query", "select * from curves order by id, point", "--csv", "--results", "{demo}"],
    "query metrics": ["query", "select * from metrics order by all", "--json", "--results", "{demo}"],
    "merge": ["merge", "{demo}", "--out", "out"],
    "archive": ["archive", "{demo}", "out/new.parquet", "--sheets", "none"],
    "compare": ["compare", "{first}", "{second}"],
    "compare in JSON": ["compare", "{first}", "{second}", "--json"],
    "compare commits": ["compare", "HEAD~1", "HEAD", "--tracked", "{tracked}", "--markdown"],
    "history": ["history", "--tracked", "{tracked}", "--json"],
    "history page": ["history", "--tracked", "{tracked}", "--out", "out/page.html"],
    "bisect": ["bisect", TRIAL, "--good", "HEAD~7", "--number", "accuracy", "--tracked", "{tracked}"],
}
NOT_READING = {
    *("run", "search", "track", "score", "verify", "list", "check", "teacher", "data", "weights", "doctor"),
    *("plan", "status", "cancel", "retry", "reproduce", "submit", "pack", "unpack", "new", "distill"),
}


@pytest.fixture(scope="module")
def _built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path], dict[str, Path]]:
    """A folder with a repository, and in it the same results as folders and as archives."""
    top = tmp_path_factory.mktemp("built")
    root = new_repository(top / "repo")
    demo = make_demo(top / "folders" / "demo")
    add(demo, make_record("dafl", 9, "diverged"))
    (demo / "study.yaml").write_text("name: demo\ndescription: A question.\n")
    save_tasks(demo, [{"name": "own/task", "published": {}}])
    folders = {"demo": demo, "tracked": top / "folders" / "tracked"}
    for number, (name, scores) in enumerate({"first": GOOD, "second": WORSE}.items()):
        head = commit_file(root, "method.py", f"a = {number}\n", f"Commit {number}")
        folders[name] = write_records(folders["tracked"] / head.sha, {"dafl": scores, "kd": GOOD}, BITS)
        label(folders[name], head)
        speed = {"benchmarks": [{"fullname": f"a.py::test_{n}", "stats": {"min": 0.1}} for n in ("calibration", "a")]}
        for run in range(3):
            (folders[name] / "speed").mkdir(exist_ok=True)
            (folders[name] / "speed" / f"{run}.json").write_text(json.dumps(speed))
    archives = {"demo": top / "archives" / "demo.parquet", "tracked": top / "archives" / "tracked"}
    archives |= {name: archives["tracked"] / f"{folders[name].name}.parquet" for name in ("first", "second")}
    for name in ("demo", "first", "second"):
        write_archive(folders[name], archives[name], "all")
    return top, folders, archives


@pytest.fixture
def places(
    _built: tuple[Path, dict[str, Path], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, str], dict[str, str]]:
    """A copy of the results as folders and as archives, in a repository that is the current folder."""
    top, *both = _built
    shutil.copytree(top, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path / "repo")
    folders, archives = ({name: str(tmp_path / path.relative_to(top)) for name, path in each.items()} for each in both)
    return folders, archives


def run(command: list[str], places: dict[str, str], said: Callable[[], str]) -> tuple[int, str, dict[str, bytes]]:
    """Exit code, what was printed without the names of the places, and the files that were written."""
    code = answer([word.format(**places) for word in command])
    text = said()
    for name, place in sorted(places.items(), key=lambda each: -len(each[1])):
        text = text.replace(place, name)
    written = {
        str(file.relative_to("out")): file.read_bytes()
        for file in Path("out").rglob("*")
        if file.is_file() and file.name != ".made.json"  # in which the archive's own hash stands
    }
    for file in sorted(Path("out").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    if Path("out").exists():
        Path("out").rmdir()
    return code, text, written


# A site's pages are those of a report.
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.slow] * (each in ("site", "summary"))) for each in READING]
)
def test_an_archive_is_read_like_its_folder(
    name: str, places: tuple[dict[str, str], dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> str:
        captured = capsys.readouterr()
        return captured.out + captured.err

    folder, archive = (run(READING[name], each, said) for each in places)
    if name == "archive":  # the same rows; a folder's columns are known to be never empty, which Parquet writes down
        assert (folder[0], archive[0]) == (0, 0)
        return
    assert archive == folder
    assert folder[1] or folder[2]


def test_no_command_is_forgotten() -> None:
    verbs = {command[0] for command in READING.values()}
    assert set(HELP) == verbs | NOT_READING


@pytest.mark.parametrize(("command", "extra"), [("run", []), ("run", ["--dry-run"]), ("search", [])])
def test_what_writes_refuses_an_archive(
    command: str, extra: list[str], places: tuple[dict[str, str], dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    study = Path("study.yaml")
    lr = "{from: 0.001, to: 0.1, scale: log}" if command == "search" else "0.01"
    selection = "selection: [teacher_agreement]\n" if command == "search" else ""
    study.write_text(
        f"name: s\ntasks: [digits/lenet5-half]\nmethods: [noise: {{lr_student: {lr}}}]\nseeds: [0]\n"
        f"budget: {{steps: 1}}\n{selection}"
    )
    published = Path("results/demo/records.parquet")
    write_archive(Path(places[0]["demo"]), published)
    for place in (places[1]["demo"], str(published), str(published.parent)):
        before = sorted(published.parent.iterdir())
        assert answer([command, str(study), "--results", place, *extra]) == 2
        assert "is an archive, which is only read; choose another folder" in capsys.readouterr().err
        assert sorted(published.parent.iterdir()) == before


def test_image_metrics_need_the_folder(
    places: tuple[dict[str, str], dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["score", places[1]["demo"]], ["score", TRIAL, "--results", places[1]["demo"]]):
        assert answer([*command, "--metrics", "confidence"]) == 2
        assert "archives do not hold the images that image metrics are measured on" in capsys.readouterr().err


def test_published_archives_are_found_where_nobody_names_any(
    places: tuple[dict[str, str], dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    write_archive(Path(places[0]["demo"]), Path("results/demo/records.parquet"))
    write_archive(Path(places[0]["demo"]), Path("results/copy.parquet"))  # by its name, nobody's
    first = Path(places[0]["first"])
    write_archive(first, TRACKED / f"{first.name}.parquet")
    assert answer(["query", "select results, count(*) from trials group by all order by 1", "--csv"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines == ["results/demo/records.parquet,11", f"results/tracked/{first.name}.parquet,10"]
    assert answer(["report", "--results", "results/demo"]) == 0  # the folder stands for its archive
    assert "results/demo/report/index.html" in capsys.readouterr().out
    assert answer(["query", "select count(*) from trials", "--csv", "--results", "results/demo"]) == 0


def test_what_is_filed_as_an_archive_goes_on_as_a_folder(places: tuple[dict[str, str], dict[str, str]]) -> None:
    first = Path(places[1]["first"])
    folder = first.with_suffix("")
    before = open_filed(str(first))
    assert tracked_commits(first.parent)[folder.name] == first
    unpack_filed(folder)
    assert filed_place(folder) == folder
    after = open_filed(str(folder))
    assert (after.commit, after.records, after.bits) == (before.commit, before.records, before.bits)
    assert [run.ratios for run in after.runs] == [run.ratios for run in before.runs]
    unpack_filed(folder)  # nothing is left to do
    assert load_records(folder) == load_records(first)
