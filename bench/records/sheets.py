"""Contact sheets: the images that a student was trained on, as a trial leaves them and small enough for an archive."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.errors import UserError
from bench.records.foreign import is_there
from bench.utils.text import shown

if TYPE_CHECKING:
    from PIL.Image import Image

Sheets = Literal["best", "all", "none"]
SHEETS: dict[str, str] = {
    "best": "one of each task and method, its first images, as a small WebP",
    "all": "those of all trials, as they are",
    "none": "none",
}
NAMES = ("images.png", "images.webp")  # of a trial's sheet: as the trial left it, or as an archive kept it
SIDE = 5  # images of a small sheet in a row, and rows
PIXELS = 60_000  # of a small sheet: of large images it shows fewer than 5 x 5
QUALITY = 40
MOST = 50_000_000  # pixels of a sheet


def sheet_of(trial: Path) -> Path | None:
    """The file of a trial's contact sheet; None where there is none."""
    return next((file for name in NAMES if is_there(file := trial / name)), None)


def kind_of(sheet: bytes) -> Literal["png", "webp"]:
    """What a sheet is, told by its first bytes."""
    return "webp" if sheet[:4] == b"RIFF" else "png"


def name_of(sheet: bytes) -> str:
    """The name that a sheet has in a trial's folder."""
    return f"images.{kind_of(sheet)}"


def small_sheet(sheet: bytes) -> bytes:
    """The first images of a contact sheet as WebP; the same bytes give the same bytes, and a WebP is left as it is.

    It is cut between two images and not made smaller: a pixel stays a pixel. Of images of 32 x 32 it shows 5 x 5.
    """
    if kind_of(sheet) == "webp":
        return sheet
    from PIL import Image

    try:
        with Image.open(io.BytesIO(sheet), formats=["png"]) as file:
            if file.width * file.height > MOST:
                raise ValueError(f"it has {file.width:,} x {file.height:,} pixels")
            picture = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"a contact sheet cannot be read as an image: {shown(str(error))}") from None
    out = io.BytesIO()
    picture.crop((0, 0, *_cut(picture))).save(out, "webp", quality=QUALITY, method=6)
    return out.getvalue()


def _cut(picture: Image) -> tuple[int, int]:
    """Width and height of the first images of a sheet, with the white lines around them."""
    import numpy as np

    white = (np.asarray(picture) == 255).all(axis=2)
    across, down = _line_ends(white.all(axis=0)), _line_ends(white.all(axis=1))
    for count in range(SIDE, 1, -1):
        width, height = across[min(count, len(across) - 1)], down[min(count, len(down) - 1)]
        if width * height <= PIXELS:
            return width, height
    return across[min(1, len(across) - 1)], down[min(1, len(down) - 1)]


def _line_ends(white: object) -> list[int]:
    """Where each run of white lines ends, the first at the sheet's edge; the sheet's end where there are no runs.

    >>> _line_ends([True, False, False, True, True, False, True])
    [1, 5, 7]
    >>> _line_ends([False, False])
    [0, 2]
    """
    import numpy as np

    lines = np.asarray(white, dtype=bool)
    ends = [int(place) + 1 for place in np.flatnonzero(lines[:-1] & ~lines[1:])]
    start = [] if len(lines) and lines[0] else [0]
    return [*start, *ends, len(lines)]
