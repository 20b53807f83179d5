"""Where data sets are looked for, and where real images may lie."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import platformdirs

from bench.utils.paths import cache_folder

FASHION_MNIST_PACKAGE = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist


def search_folders(folder: Path | None = None) -> list[Path]:
    """The data folders in the order in which they are searched, as absolute paths; they need not exist.

    First ``folder`` (the command line's ``--data``), then the environment's ``DFKD_DATA``, then ``data`` in the cache:
    ``DFKD_CACHE`` where that is set, or else the user's cache folder.
    """
    cache = os.environ.get("DFKD_CACHE") or platformdirs.user_cache_dir("dfkd")
    named = (folder, os.environ.get("DFKD_DATA"), Path(cache) / "data")
    return list(dict.fromkeys(Path(each).expanduser().absolute() for each in named if each))


def protected_paths(folder: Path | None = None) -> tuple[Path, ...]:
    """Every folder under which real images may lie: the search folders, where installed packages put some, and the
    cache of decoded images.

    Absolute paths; a folder reached through a symbolic link is there twice, as named and as it really is.
    """
    bundled = sklearn_data()
    folders = [*search_folders(folder), decoded_folder(), FASHION_MNIST_PACKAGE, *([bundled] if bundled else [])]
    return tuple(dict.fromkeys(path for each in folders for path in (each, each.resolve())))


def decoded_folder() -> Path:
    """Where decoded images of sets of many files are kept, as an absolute path; it need not exist."""
    return (cache_folder() / "decoded").absolute()


def sklearn_data() -> Path | None:
    """The folder of scikit-learn's bundled data sets, or None where it is not installed. Does not import it (slow)."""
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).absolute() / "datasets" / "data"
