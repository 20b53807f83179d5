"""Help and lists answer at once: nothing heavy is imported for them. Counted in modules, not in seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "torchvision", "pandas", "matplotlib", "scipy", "sklearn", "numpy")
LIGHT = [
    ["--version"],
    ["--help"],
    *(
        [verb, "--help"]
        for verb in ("run", "list", "show", "report", "check", "teacher", "data", "weights", "doctor", "new")
    ),
    *(["list", what] for what in ("tasks", "methods", "metrics", "studies")),
    *(["list", what, "--json"] for what in ("tasks", "methods", "metrics", "studies")),
    ["list", "methods", "dafl"],
    ["list", "studies", "--schema"],
    ["teacher", "list"],
    ["data", "status", "digits"],
    ["data", "path"],
    ["weights", "status"],
    ["weights", "verify"],
    ["run", "no such study"],
    ["run", "demo", "--dry-run", "--device", "cpu"],
    ["show", "abc"],
]
PROGRAM = """
import contextlib, io, json, sys
from bench.cli import answer

found = {}
for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        answer(command)
    found[" ".join(command)] = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
print(json.dumps(found))
"""


def test_nothing_heavy_is_imported_to_answer(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, json.dumps(LIGHT), json.dumps(HEAVY)]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": root}, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found) == len(LIGHT)
    assert {command: names for command, names in found.items() if names} == {}


def test_help_imports_no_verb(tmp_path: Path) -> None:
    """Of the verbs' modules, and of what they need, nothing; a verb's own help imports that verb alone."""
    verbs = ("bench.cli.run", "bench.cli.report", "bench.cli.bisect", "bench.spec", "bench.execution", "pydantic")
    root = str(Path(__file__).parents[2])
    for commands, expected in ([["--help"], ["--version"]], []), ([["unpack", "--help"]], ["bench.spec", "pydantic"]):
        command = [sys.executable, "-c", PROGRAM, json.dumps(commands), json.dumps(verbs)]
        done = subprocess.run(
            command, cwd=tmp_path, env={"PYTHONPATH": root}, capture_output=True, text=True, check=True
        )
        for names in json.loads(done.stdout).values():
            assert [name for name in names if name in ("bench.cli.bisect", *expected)] == expected
            assert expected or not names
