"""One tar file of checked content: what carries studies, orders and teachers from one machine to another.

Its first member is a manifest with size and checksum of every other. It may come from anybody: no name, size or content
of it is believed.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import Field

from bench.errors import UserError
from bench.harness.teachers.passport import read_passport
from bench.records.folder import writing
from bench.records.foreign import brief, refuse_links, sha256_of
from bench.spec.study import YAML
from bench.utils.paths import anchor_folder, teacher_folder
from bench.utils.text import shown
from bench.utils.yaml import Strict

LARGEST = 2**24  # bytes of the manifest
_KEY = r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}"
_ID = "[0-9a-f]{16}"
_PLACES = tuple(
    re.compile(pattern)
    for pattern in (
        r"results/(results\.json|study\.yaml|tasks\.json)",
        rf"results/trials/{_ID}/[A-Za-z0-9][A-Za-z0-9._-]{{0,100}}",
        rf"results/work/{_ID}/(checkpoint\.pt|log\.txt|points/\d{{5}}\.safetensors)",
        rf"teachers/{_KEY}/(anchors-\d+/)?(passport\.json|weights\.safetensors|\d\d+\.safetensors)",
        rf"teachers/\.{_KEY}\.work/((training/)?checkpoint\.pt|\d\d+\.safetensors)",
    )
)
_CODE = (".py", *YAML)  # what lies in files/


class PackedFile(Strict):
    size: int = Field(ge=0, strict=True)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Listing(Protocol):
    """What the manifest of any package has."""

    @property
    def files(self) -> Mapping[str, PackedFile]: ...


M = TypeVar("M", bound=Listing)


def entries_of(content: Mapping[str, Path | bytes]) -> dict[str, dict[str, Any]]:
    """Size and checksum of each file, as a manifest lists them."""
    entries = {}
    for name, source in content.items():
        assert isinstance(source, Path)
        entries[name] = {"size": source.stat().st_size, "sha256": sha256_of(source)}
    return entries


def write_tar(target: Path, content: Mapping[str, Path | bytes]) -> None:
    """Write a new tar file of these members, in this order, whole or not at all."""
    part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
                for name, source in content.items():
                    member = tarfile.TarInfo(name)
                    member.mode = 0o644
                    if isinstance(source, bytes):
                        member.size = len(source)
                        tar.addfile(member, io.BytesIO(source))
                    else:
                        member.size = source.stat().st_size
                        with source.open("rb") as file:
                            tar.addfile(member, file)
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def extract(file: Path, part: Path, manifest_of: Callable[[tarfile.TarInfo, Any, Path], M]) -> M:
    """Write the files of a package below ``part``: those that its manifest names, each where such a file belongs.

    Args:
        file: what :func:`write_tar` wrote.
        part: a folder that exists.
        manifest_of: reads and checks its first member, given that, its content and ``file``.

    Raises:
        UserError: it is damaged, or holds other files than its manifest says.
    """
    manifest: M | None = None
    seen: set[str] = set()
    try:
        with file.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                    raise UserError(
                        f"{file} holds {brief(member.name)}, which is not a plain file; nothing was unpacked"
                    )
                content = tar.extractfile(member)
                assert content is not None
                if manifest is None:
                    manifest = manifest_of(member, content, file)
                    continue
                if member.name in seen or member.name not in manifest.files:
                    what = "twice" if member.name in seen else "that its list does not name"
                    raise UserError(f"{file} holds {brief(member.name)} {what}; nothing was unpacked")
                seen.add(member.name)
                place = part / member.name
                place.parent.mkdir(parents=True, exist_ok=True)
                digest = hashlib.sha256()
                with place.open("xb") as out:
                    while block := content.read(2**20):
                        digest.update(block)
                        out.write(block)
                entry = manifest.files[member.name]
                if member.size != entry.size or digest.hexdigest() != entry.sha256:
                    raise UserError(f"{file}: {member.name} has changed since it was packed; nothing was unpacked")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"{file} is not a package of `dfkd pack`: {shown(str(error))}") from None
    except FileExistsError as error:
        raise UserError(f"{file}: {brief(str(error.filename))} is a file and a folder; nothing was unpacked") from None
    except OSError as error:
        raise UserError(f"cannot unpack {file}: {error.strerror or error}") from None
    if manifest is None:
        raise UserError(f"{file} is not a package of `dfkd pack`: it is empty")
    if missing := sorted(manifest.files.keys() - seen):
        raise UserError(f"{file} lacks {missing[0]}; nothing was unpacked")
    return manifest


def check_names(names: Iterable[str], where: str = "") -> None:
    """Raise UserError for a name that has no place in a package."""
    for name in names:
        parts = name.split("/")
        plain = name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)
        code = parts[0] == "files" and len(parts) > 1 and Path(name).suffix in _CODE
        if not plain or not (code or any(place.fullmatch(name) for place in _PLACES)):
            raise UserError(f"{where}{brief(name)} has no place in a package; nothing was written")


def teacher_files(keys: Iterable[str], training: bool = True) -> dict[str, Path | bytes]:
    """The teachers of the trials with their anchors, and with ``training`` the trainings that are not finished."""
    found: dict[str, Path | bytes] = {}
    top = teacher_folder()
    for key in sorted(keys):
        folders = [top / key] if (top / key / "passport.json").is_file() else []
        if training:
            folders += sorted(top.glob(f".{key}.work")) + sorted(top.glob(f".{key}.anchors-*.work"))
        for folder in folders:
            refuse_links(folder)
            for file in sorted(each for each in folder.rglob("*") if each.is_file()):
                name = f"teachers/{file.relative_to(top).as_posix()}"
                if any(place.fullmatch(name) for place in _PLACES):  # no half-written file
                    found[name] = file
    return found


def new_teachers(folder: Path, file: Path) -> list[Path]:
    """The unpacked teachers and trainings that the cache does not have.

    Raises:
        UserError: one is damaged, or the cache has another under its key.
    """
    new = []
    for source in sorted(folder.glob("*")) if folder.is_dir() else []:
        there = teacher_folder() / source.name
        if source.name.startswith("."):  # a training; its checkpoint is checked when it is read
            key = source.name[1:].removesuffix(".work")
            if not there.exists() and not (teacher_folder() / key / "passport.json").exists():
                new.append(source)
            continue
        passport = read_passport(source)
        weights = source / "weights.safetensors"
        if passport["key"] != source.name or not weights.is_file() or sha256_of(weights) != passport["sha256"]:
            raise UserError(f"{file}: the teacher {source.name} is damaged; nothing was unpacked")
        if not (there / "passport.json").exists():
            new.append(source)
        elif read_passport(there)["sha256"] != passport["sha256"]:
            raise UserError(
                f"the cache has another teacher {source.name}: {there}; its trials would go on with other weights. Set "
                "DFKD_CACHE to another folder"
            )
        else:
            _add_anchors(source, there)
    return new


def keep_teachers(new: Iterable[Path]) -> None:
    """Copy unpacked teachers into the cache, each whole or not at all."""
    with writing(teacher_folder()):
        for source in new:
            place = teacher_folder() / source.name
            teacher_folder().mkdir(parents=True, exist_ok=True)
            part = place.with_name(f".{source.name}.{os.getpid()}.tmp")
            shutil.copytree(source, part)
            try:
                part.rename(place)
            except OSError:  # another process was faster, with the same content
                shutil.rmtree(part, ignore_errors=True)
                if not place.exists():
                    raise


def _add_anchors(source: Path, there: Path) -> None:
    for anchors in sorted(source.glob("anchors-*")):
        place = anchor_folder(there.name, int(anchors.name.rpartition("-")[2]))
        if not place.exists():
            part = place.with_name(f".{place.name}.{os.getpid()}.tmp")
            shutil.copytree(anchors, part)
            part.rename(place)
