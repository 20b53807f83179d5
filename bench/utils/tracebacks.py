"""Where in a method an error happened."""

from __future__ import annotations

import traceback
from pathlib import Path


def place(error: BaseException, file: Path) -> str:
    """The line of the method where it happened, however deep below it; else the line that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) == file] or frames
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
