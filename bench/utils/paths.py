"""Where the suite is installed, and where it caches: the user's cache folder, or ``DFKD_CACHE``."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent  # of the checkout, or of the installed packages


def cache_folder() -> Path:
    """``$DFKD_CACHE``, or the system's cache folder for the user."""
    chosen = os.environ.get("DFKD_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("dfkd"))


def teacher_folder() -> Path:
    """Where trained and imported teachers lie, one folder each."""
    return cache_folder() / "teachers"


def anchor_folder(key: str, count: int) -> Path:
    """Where a teacher's ``count`` anchors lie: in the teacher's own folder."""
    return teacher_folder() / key / f"anchors-{count}"
