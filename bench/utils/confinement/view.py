"""What a confined process may see: code, and nothing that could hold real images or weights.

The standard library, the packages that the suite itself needs without the data inside them, the suite, the method's own
files, the code of further packages that these import, shared libraries, and a few facts about the machine.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from bench.utils.paths import ROOT
from bench.utils.user_code import BUILT_IN, imports_of, own_files

# Packages that the suite's requirements bring, by the name of their folder or file; a test imports what they are for.
PACKAGES = (
    *(
        "torch",
        "torchgen",
        "functorch",
        "torchvision",
        "numpy",
        "scipy",
        "sklearn",
        "PIL",
        "matplotlib",
        "mpl_toolkits",
    ),
    *("pandas", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection", "ruamel"),
    *("safetensors", "lpips", "torch_fidelity", "jinja2", "markupsafe", "filelock", "platformdirs", "psutil", "fsspec"),
    *("sympy", "mpmath", "networkx", "joblib", "threadpoolctl", "tqdm", "packaging", "dateutil", "six", "pytz"),
    *("cycler", "contourpy", "kiwisolver", "pyparsing", "fontTools", "duckdb", "narwhals", "setuptools", "yaml"),
    *("triton", "nvidia", "cuda", "_ruamel_yaml", "pylab", "opt_einsum", "ml_dtypes", "optree", "_yaml"),
    *("rich", "pygments", "markdown_it", "mdurl", "typer", "click", "shellingham", "annotated_doc", "colorama"),
)
# Folders in them with real images, tables of real data, or weights of networks.
DATA = (
    *("sklearn/datasets/data", "sklearn/datasets/images", "sklearn/datasets/descr", "sklearn/datasets/tests"),
    *("matplotlib/mpl-data/sample_data", "matplotlib/tests", "mpl_toolkits/axes_grid1/tests"),
    *("lpips/weights", "torch_fidelity/weights", "scipy/datasets", "networkx/generators/atlas.dat.gz"),
)
CODE = (".py", ".pyc", ".so", ".pyi")
MANY = 20_000  # files of a further package that are looked at
_MACHINE = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu", "/sys/devices/system/node")
_SYSTEM = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/usr/share/zoneinfo")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


@dataclass(frozen=True)
class View:
    """Absolute paths without links in them.

    ``readable`` are files, and folders with everything below; of ``listable`` folders the names can be read alone;
    ``devices`` can be read and written; ``writable`` is the one folder for new files.
    """

    readable: tuple[Path, ...]
    listable: tuple[Path, ...]
    devices: tuple[Path, ...]
    writable: Path


def view_of(method: Path | None, scratch: Path, *, more: Iterable[Path] = ()) -> View:
    """What the process of a method may see.

    Args:
        method: its file; None for none.
        scratch: its own empty folder.
        more: further files of code: those of a task's networks.
    """
    readable, listable = (list(paths) for paths in _base(tuple(sys.path)))
    for file in filter(None, (method, *more)):
        seen, folders = _of_method(file.resolve())
        readable += seen
        listable += folders
    return View(
        readable=tuple(dict.fromkeys(readable)),
        listable=tuple(dict.fromkeys((*listable, scratch.resolve()))),
        devices=tuple(Path(name) for name in _DEVICES),
        writable=scratch.resolve(),
    )


@cache
def look_around() -> None:
    """Find out what every such process may see, and what the built-in methods import: once, before any fork."""
    _base(tuple(sys.path))
    for file in BUILT_IN.rglob("*.py"):
        imports_of(file.read_bytes())


@cache
def _base(path: tuple[str, ...]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """What every such process may read, and which folders it may list; ``path`` is ``sys.path``."""
    readable: list[Path] = [Path(name) for name in (*_MACHINE, *_SYSTEM)]
    listable: list[Path] = []
    for folder in _standard_library():
        _split(
            folder, {Path("site-packages"), Path("dist-packages"), Path("test"), Path("idlelib")}, readable, listable
        )
    for folder in _package_folders(path):
        listable.append(folder)
        readable += folder.glob("*.dist-info/METADATA")
        readable += folder.glob("*.dist-info/entry_points.txt")
        readable += folder.glob("*.libs")
        readable += folder.glob("*.so")
        for name in PACKAGES:
            inside = {Path(each).relative_to(name) for each in DATA if Path(each).parts[0] == name}
            if (folder / name).is_dir():
                _split(folder / name, inside, readable, listable)
            elif (folder / f"{name}.py").is_file():
                readable.append(folder / f"{name}.py")
    readable += [ROOT / "bench", ROOT / "methods"]
    listable.append(ROOT)
    readable += _shared_libraries()
    return tuple(path.resolve() for path in readable), tuple(path.resolve() for path in listable)


def _split(folder: Path, without: set[Path], readable: list[Path], listable: list[Path]) -> None:
    """A folder without some of the things below it, named relative to it."""
    if Path() in without:
        listable.append(folder)
        readable += folder.glob("__init__.py")  # so that it is the data that is missing, not the package
        return
    if not without:
        readable.append(folder)
        return
    listable.append(folder)
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        inside = {Path(*path.parts[1:]) for path in without if path.parts[0] == entry.name}
        if inside and entry.is_dir():
            _split(folder / entry.name, inside, readable, listable)
        elif not inside:
            readable.append(folder / entry.name)


def _standard_library() -> list[Path]:
    paths = sysconfig.get_paths()
    return list(dict.fromkeys(Path(paths[name]).resolve() for name in ("stdlib", "platstdlib")))


def _package_folders(path: Iterable[str]) -> list[Path]:
    """Where installed packages are: on the path of this process, or known to the interpreter."""
    known = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else []), *path]
    names = ("site-packages", "dist-packages")
    found = [Path(name).resolve() for name in known if Path(name).name in names and Path(name).is_dir()]
    return list(dict.fromkeys(found))


def _shared_libraries() -> Iterator[Path]:
    """Where the loader finds what a late import links to."""
    architecture = sysconfig.get_config_var("MULTIARCH") or ""
    for parent in (Path("/lib"), Path("/usr/lib"), Path("/usr/local/lib")):
        if architecture and (parent / architecture).is_dir():
            yield parent / architecture
        if parent.is_dir():
            yield from parent.glob("*.so*")
    for parent in (Path("/lib64"), Path("/usr/lib64"), Path("/usr/local/lib64")):
        if parent.is_dir():
            yield from (path for path in parent.iterdir() if ".so" in path.name or path.name == "glibc-hwcaps")
    for parent in (Path(sys.base_prefix) / "lib", Path(sys.prefix) / "lib"):
        yield from parent.glob("*.so*")


def _of_method(file: Path) -> tuple[list[Path], list[Path]]:
    """A method's own files, the packages around them, and the code of further packages that they import."""
    contents = own_files(file)
    readable, listable = list(contents), [path.parent for path in contents]
    for path in contents:
        folder = path.parent
        while (folder / "__init__.py").is_file():
            readable.append(folder / "__init__.py")
            folder = folder.parent
            listable.append(folder)
    for name in sorted(_imports(contents.values())):
        seen, folders = _package_code(name)
        readable += seen
        listable += folders
    return readable, listable


def _imports(sources: Iterable[bytes]) -> set[str]:
    """The outermost names of the modules that files import, without those that every method may import anyway."""
    found: set[str] = set()
    for node in (each for source in sources for each in imports_of(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found - set(PACKAGES) - sys.stdlib_module_names - {"bench", "methods"}


@cache
def _package_code(name: str) -> tuple[list[Path], list[Path]]:
    """The code of an installed package and of what it requires, without any other file in it."""
    readable: list[Path] = []
    listable: list[Path] = []
    places = [str(folder) for folder in _package_folders(sys.path)]
    for each in _with_requirements(name):
        for place in (*places, *_places_of(each)):
            path = Path(place) / each
            if path.is_dir():
                listable.append(path)
                found = [file for file in islice(path.rglob("*"), 10 * MANY) if file.suffix in CODE][:MANY]
                readable += [file.resolve() for file in found]
                listable.append(path.parent)
            elif path.with_suffix(".py").is_file():
                readable.append(path.with_suffix(".py"))
                listable.append(path.parent)
    return readable, listable


def _places_of(name: str) -> list[str]:
    """The folders around a module that is importable from elsewhere: of PYTHONPATH, or installed for editing."""
    try:
        spec = importlib.util.find_spec(name)  # of an outermost name: nothing is run
    except (ImportError, ValueError):
        return []
    found = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or [])]
    paths = [Path(each).resolve() for each in found if Path(each).is_absolute()]
    return list(dict.fromkeys(str(path.parent) for path in paths if path.name in (name, f"{name}.py")))


def _with_requirements(name: str) -> set[str]:
    """The importable names of a package and of the distributions that it requires."""
    by_name = importlib.metadata.packages_distributions()
    names: dict[str, list[str]] = {}
    for top, distributions in by_name.items():
        for distribution in distributions:
            names.setdefault(_normal(distribution), []).append(top)
    found: set[str] = set()
    waiting = [_normal(each) for each in by_name.get(name, [])]
    seen: set[str] = set()
    while waiting:
        current = waiting.pop()
        if current in seen or current not in names:
            continue
        seen.add(current)
        found |= set(names[current])
        requires = importlib.metadata.requires(current) or []
        waiting += [_normal(_distribution(each)) for each in requires if "extra ==" not in each]
    return (found | {name}) - set(PACKAGES)


def _distribution(requirement: str) -> str:
    end = next((place for place, letter in enumerate(requirement) if letter in " ;<>=!~[("), len(requirement))
    return requirement[:end]


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
