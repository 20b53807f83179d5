"""Where each page of a report lies, relative to the report's folder."""

from __future__ import annotations

import base64
import hashlib
import re

from bench.records.sheets import kind_of

INDEX = "index.html"


def slug(name: str) -> str:
    """A file name for any name: the name itself where that is safe, else what is safe of it and a hash.

    >>> slug("mnist/lenet5-half"), slug("dafl")
    ('mnist-lenet5-half', 'dafl')
    >>> slug("<script>")
    'script-5b63e5b2'
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")
    if plain == name.replace("/", "-") and name.count("/") < 2 and plain.lower() == plain and len(plain) < 100:
        return plain
    return f"{plain[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def method_page(method: str) -> str:
    return f"methods/{slug(method)}.html"


def task_page(task: str) -> str:
    return f"tasks/{slug(task)}.html"


def trial_page(name: str) -> str:
    return f"trials/{name}.html"


def sheet_file(trial: str, sheet: bytes) -> str:
    """The file of a trial's contact sheet: one, whichever pages show it."""
    return f"images/{trial}.{kind_of(sheet)}"


def embedded(content: bytes, kind: str) -> str:
    """A file as the address that stands for its content."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
