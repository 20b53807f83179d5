"""What docs/threats.md says is open is open: when one of these fails, the page promises too little."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.spec.task import add_tasks, get_task, read_tasks
from bench.utils.confinement import namespaces
from bench.utils.confinement.confine import LARGEST_FILE


def test_a_method_can_report_less_than_it_does(attempt: Callable[..., object]) -> None:
    lies = "from bench.harness.trial_context import current\ncurrent().meter.student_images = 0"
    honest, lying = attempt().record, attempt(lies, budget={"steps": 1}).record
    assert honest.meter.student_images == 64
    assert lying.status == "ok"
    assert lying.meter.student_images <= 32  # the last step's
    assert lying.meter.teacher_images == 32  # but these the judge has counted
    assert "student_images" in lying.provenance["isolation"]["reported_by_method"]


def test_a_file_can_hold_images(attempt: Callable[..., object]) -> None:
    ran = attempt("s.log(got=float(len(IMAGES)))", top=f"IMAGES = bytes.fromhex('{bytes(range(256)).hex()}')")
    assert ran.record.status == "ok"
    assert ran.got == 256


def test_one_step_can_train_many_times(attempt: Callable[..., object]) -> None:
    code = "for _ in range(20):\n    s.update(opt, F.cross_entropy(s.student(x), s.teacher(x).labels))"
    record = attempt(code, budget={"steps": 2}).record
    assert record.status == "ok"
    assert record.meter.steps == 2
    assert record.meter.optimizer_steps == 42
    assert record.meter.teacher_images == 42 * 32  # all of it is counted


def test_names_of_files_can_be_seen(attempt: Callable[..., object], secret: Path) -> None:
    ran = attempt("s.log(got=float(os.stat(SECRET).st_size))", how="landlock")
    assert ran.got == secret.stat().st_size


@pytest.mark.skipif(not namespaces.there(), reason="this user may not make namespaces")
def test_namespaces_hide_them(attempt: Callable[..., object]) -> None:
    assert attempt("s.log(got=float(gave(lambda: os.stat(SECRET).st_size)))", how="namespaces").got == 0


def test_a_tasks_network_is_run_by_the_judge(attempt: Callable[..., object], tmp_path: Path, teacher: Path) -> None:
    """With the judge's rights; the same code in the method's process may not write."""
    places = tmp_path / "built_in"
    (tmp_path / "net.py").write_text(
        "import os\nfrom bench.models import build\n\n\n"
        "def mine(image, classes):\n"
        "    try:\n"
        f"        with open({str(places)!r}, 'a') as file:\n"
        "            file.write(f'{os.getpid()} ')\n"
        "    except OSError:\n"
        "        print('MAY NOT WRITE')\n"
        "    return build('lenet5-half', image, classes)\n",
        encoding="utf-8",
    )
    own = get_task("digits/lenet5-half").model_dump(mode="json", exclude_unset=True)
    (tmp_path / "tasks.json").write_text(
        json.dumps([own | {"name": "digits/own", "student": f"{tmp_path / 'net.py'}:mine"}]), encoding="utf-8"
    )
    add_tasks(read_tasks(tmp_path / "tasks.json"))
    ran = attempt(task_name="digits/own")
    assert ran.record.status == "ok", ran.record.reason
    assert set(places.read_text(encoding="utf-8").split()) == {str(os.getpid())}
    assert "MAY NOT WRITE" in ran.log


def test_a_package_of_entry_points_is_run_by_the_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from bench.spec import method_registry

    package = tmp_path / "entry_points_here"
    package.mkdir()
    (package / "__init__.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n", encoding="utf-8"
    )
    (package / "mine.py").write_text(
        "from bench import Access, Data, Session, method\n\n\n"
        "@method('mine', title='Mine', paper='none', data=Data.NONE, access=Access.LABELS)\n"
        "def mine(s: Session) -> None:\n    pass\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("mine", "entry_points_here.mine", method_registry.ENTRY_POINTS)
    monkeypatch.setattr(method_registry.importlib.metadata, "entry_points", lambda **_: [point])
    try:
        method_registry._installed_methods.__wrapped__()  # not the one that is kept
        assert (tmp_path / "ran").exists()
    finally:
        for name in ("entry_points_here", "entry_points_here.mine"):
            sys.modules.pop(name, None)


def test_the_largest_file_is_limited(attempt: Callable[..., object]) -> None:
    code = f"""
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    file = os.open(os.environ["HOME"] + "/large", os.O_CREAT | os.O_WRONLY)
    os.lseek(file, {LARGEST_FILE}, os.SEEK_SET)
    s.log(got=float(gave(lambda: os.write(file, b"x"))))
    """
    ran = attempt(code)
    assert ran.record.status == "ok"
    assert ran.got == 0


def test_without_isolation_the_guard_can_be_taken_down(attempt: Callable[..., object]) -> None:
    code = "from bench.utils import data_guard\ndata_guard._fence.active = False\n"
    ran = attempt(code + "s.log(got=float(gave(lambda: Path(TEACHER).read_bytes())))", how=None)
    assert ran.got == 1, (ran.record.reason, ran.log)
    assert ran.record.provenance["isolation"]["mode"] == "none"
