"""The identity of a method's code: a hash of its file and of what it imports from beside it."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

BUILT_IN = Path(__file__).resolve().parents[2] / "methods"


def source_hash(file: Path) -> str:
    """Hash of a method file and of the modules that it imports from its own folder, its own package or ``methods``,
    and they in turn. Where the files lie and libraries do not count."""
    contents: dict[Path, bytes] = {}
    waiting = [file.resolve()]
    while waiting:
        current = waiting.pop()
        if current not in contents:
            contents[current] = current.read_bytes()
            waiting += _imported(current, contents[current])
    parts = sorted(path.name.encode() + hashlib.sha256(content).digest() for path, content in contents.items())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _imported(file: Path, source: bytes) -> list[Path]:
    """The files behind a file's imports, as far as they belong to the method."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    top = file.parent  # the folder that holds the file's outermost package
    while (top / "__init__.py").exists():
        top = top.parent
    found: list[Path] = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [".".join(filter(None, (node.module, name))) for name in names]
        for name in names:
            first = name.partition(".")[0]
            if isinstance(node, ast.ImportFrom) and node.level:
                found += _modules(file.parents[min(node.level, len(file.parents)) - 1], name)
            elif first == "methods":
                found += _modules(BUILT_IN.parent, name)
            elif first == file.relative_to(top).parts[0]:
                found += _modules(top, name)
            elif first != "bench":  # the suite's own version stands for it
                found += _modules(file.parent, name)
    return found


def _modules(folder: Path, name: str) -> list[Path]:
    """The files that ``import name`` runs where ``folder`` is searched: the packages on the way and the module."""
    found = []
    for part in name.split("."):
        found += [path.resolve() for path in (folder / f"{part}.py", folder / part / "__init__.py") if path.is_file()]
        folder /= part
    return found
