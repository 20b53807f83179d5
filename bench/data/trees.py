"""What data sets of many image files have in common: decoding one file, and the states of the parts and of wrong files.

A file that cannot be used is a MalformedError while it is looked at; :func:`usable` makes a UserError of it that names
the file, and :func:`state_of` a state. Pillow and torch are imported where they are needed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bench.data.source import FileStatus, MalformedError, State
from bench.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

T = TypeVar("T")

ORIENTATION = 0x0112  # the EXIF tag
QUARTER_TURNS = {5, 6, 7, 8}  # its values under which width and height change places
SPREAD = {"L;1": 255, "L;2": 85, "L;4": 17}  # what Pillow multiplies grey of few bits by
SHOWN = 5  # wrong files of one part that are named, before they are only counted


def header(path: Path) -> tuple[int, int]:
    """(width, height) in pixels as :func:`picture` has them, from the file's header alone. Raises MalformedError."""
    with _opened(path) as image:
        width, height = image.size
        # Asked of a PNG, Pillow would decode all of it to see whether EXIF follows the pixels; a TIFF it turns itself.
        turned = "exif" in image.info and image.format != "TIFF" and image.getexif().get(ORIENTATION) in QUARTER_TURNS
        return (height, width) if turned else (width, height)


def picture(path: Path, *, turn: bool = True) -> NDArray[np.uint8]:
    """The image as a viewer shows it, as RGB (H, W, 3): turned as its EXIF says, transparency on white.

    Of a file with several images (GIF, TIFF) it is the first. Without ``turn`` the EXIF is not looked at. Raises
    MalformedError.
    """
    import numpy as np
    from PIL import Image, ImageOps

    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):
            raise MalformedError("corrupted", f"mode {image.mode}, expected 8 bits per channel")
        upright = ImageOps.exif_transpose(image) if turn else image
        if upright.has_transparency_data:
            colours = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", colours.size, (255, 255, 255, 255)), colours)
        return np.asarray(upright.convert("RGB"))


def mask(path: Path, values: int, palettes: Palettes | None = None) -> NDArray[np.uint8]:
    """The labels (H, W) of an image with one channel or a palette, all below ``values``: the numbers that it stores.

    Grey of 1, 2 or 4 bits is read as stored, not spread over 0 to 255; of a palette it is the index. With ``palettes``
    the colours must agree with those of the set's other masks. Raises MalformedError.
    """
    import numpy as np

    with _opened(path) as image:
        if image.mode not in ("L", "P", "1"):
            raise MalformedError("corrupted", f"not a label image: mode {image.mode}, expected one 8-bit channel")
        spread = SPREAD.get(_raw_mode(image), 1)  # asked before the pixels are read, which forgets it
        labels = np.asarray(image).astype(np.uint8) // spread
        colours = image.getpalette("RGB") if image.mode == "P" else None
    if (largest := int(labels.max())) >= values:
        raise MalformedError("corrupted", f"a label of {largest}, the largest allowed is {values - 1}")
    if palettes is not None and colours is not None:
        palettes.check(path, colours, np.unique(labels).tolist())
    return labels


class Palettes:
    """The colours that the masks of one set give to their labels: a label has one colour in all of them."""

    def __init__(self) -> None:
        self._colours: dict[int, tuple[tuple[int, ...], Path]] = {}

    def check(self, path: Path, palette: Sequence[int], used: Sequence[int]) -> None:
        """Raise MalformedError if a label that the mask uses has another colour in a mask seen before."""
        for label in used:
            colour = tuple(palette[3 * label : 3 * label + 3])
            first, other = self._colours.setdefault(label, (colour, path))
            if first != colour:
                sentence = f"label {label} has the colour {colour}, and {first} in {other}: their palettes differ"
                raise MalformedError("corrupted", sentence)


def _raw_mode(image: Image) -> str:
    """How the file stores its pixels, where Pillow knows it: as in ``L;4``."""
    tiles = getattr(image, "tile", None) or [("", None, 0, "")]
    arguments = tiles[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def squares(paths: Sequence[Path], size: int, channels: int) -> Tensor:
    """uint8 (N, channels, size, size): the shorter sides resized, and the middle kept. UserError names a bad file."""
    import torch

    result = torch.empty(len(paths), channels, size, size, dtype=torch.uint8)
    for index, path in enumerate(paths):
        with usable(path):
            pixels = picture(path)
        result[index] = square_of(torch.from_numpy(pixels.copy()).movedim(2, 0)[None], size, channels)[0]
    return result


def square_of(images: Tensor, size: int, channels: int) -> Tensor:
    """uint8 (N, channels, size, size) from uint8 (N, 1 or 3, H, W), with 1 or 3 ``channels``."""
    from bench.data.images import grey, square

    if channels == 1 and images.shape[1] == 3:
        images = grey(images)
    return square(images, size).expand(-1, channels, -1, -1).contiguous()


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise MalformedError("missing", "missing") from None
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        raise MalformedError("truncated" if empty else "corrupted", "empty" if empty else "no image") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if "truncated" in reason.lower() or isinstance(error, EOFError):
            raise MalformedError("truncated", "truncated: the image ends early") from None
        raise MalformedError("corrupted", f"cannot be read: {reason}") from None


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Makes the MalformedError of one file a UserError that names it."""
    try:
        yield
    except MalformedError as error:
        raise UserError(f"{path}: {error}") from None


def part(path: Path, root: Path, altered: Sequence[str], sentence: str) -> FileStatus:
    """The state of a part that is there: altered for these reasons, or else ok with ``sentence`` to tell of it."""
    name = path.relative_to(root.parent).as_posix()
    if altered:
        return FileStatus(name, path, "altered", None, None, None, None, f"{path}: altered: {'; '.join(altered)}")
    return FileStatus(name, path, "ok", None, None, None, None, f"{path}: {sentence}")


def wrong(path: Path, root: Path, state: State, sentence: str) -> FileStatus:
    """The state of one file, or folder, that cannot be used."""
    there = path if state != "missing" else None
    name = path.relative_to(root.parent).as_posix()
    return FileStatus(name, there, state, None, None, None, None, f"{path}: {sentence}")


def shortened(statuses: Sequence[FileStatus]) -> list[FileStatus]:
    """The wrong files of one part: the first five, and one line that counts the others."""
    shown, others = list(statuses[:SHOWN]), statuses[SHOWN:]
    if others:
        states = {each.state for each in statuses}
        state: State = states.pop() if len(states) == 1 else "corrupted"
        more = f"and {len(others):,} more such files"
        shown.append(FileStatus(more, None, state, None, None, None, None, more))
    return shown


def some(things: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    more = f" and {len(things) - 3:,} more" if len(things) > 3 else ""
    return f"{', '.join(things[:3])}{more}"


def names_in(folder: Path) -> frozenset[str]:
    """The names in a folder, or none where there is no folder: one look instead of one per file."""
    try:
        return frozenset(each.name for each in folder.iterdir())
    except OSError:
        return frozenset()
