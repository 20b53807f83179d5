"""The figures: anytime curves and contact sheets. Drawn without pyplot, so that nothing is left between two calls."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from bench.analysis.report.figures.layout import SteadyLayout
from bench.analysis.report.figures.looks import (
    GREY_LOOK,
    MARKS,
    OUT,
    count_tick,
    grey_handle,
    label_text,
    marks_apart,
    standing_out,
)
from bench.analysis.report.sections.anytime import never_asks, score_key
from bench.analysis.report.sections.groups import CEILING, FLOOR, CurvesOf, Group, Row, metric_word
from bench.analysis.stats import half_widths
from bench.records import Record, read_sheets

# Okabe and Ito's colours and some of Paul Tol's: distinguishable with every common kind of colour blindness.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#44AA99", "#332288", "#999933"]
BASELINES = {FLOOR: "#8A8A8A", CEILING: "#333333", "scratch": "#A67C52"}
VARIANTS = ["-", "-.", (0, (6, 1.5)), (0, (3, 1, 1, 1, 1, 1))]
DOTTED = [(0, (1, 1.1)), (0, (1, 2.4)), (0, (1, 1.1, 3, 1.1))]
DPI = 160  # of files, and of what is drawn as pixels inside an SVG
LINES = 24  # of a figure; most of them grey
INK, FAINT = "#333333", "#DDDDDD"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "legend.frameon": False,
    "svg.hashsalt": "dfkd",  # else the names inside an SVG are drawn by chance
    "pdf.fonttype": 42,  # TrueType: conferences refuse Type 3
}


@dataclass(frozen=True)
class Line:
    """One row's curve on one axis; x in that axis' unit, y and the band in percent."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


AXES = {
    "teacher_images": "Teacher images",
    "student_images": "Student images",
    "seconds": "Seconds, scoring not counted",
}
Layout = Literal["wide", "narrow"]  # of a paper and of a wide screen; of a phone


def colours_of(methods: Iterable[str]) -> dict[str, str]:
    """A colour per method that depends on its name, so that it is the same in every figure of every report.

    Where two names would fall on one colour, the later one in the alphabet takes the next that fewer have.
    """
    colours = dict(BASELINES)
    uses = Counter(colours.values())
    for method in sorted(set(methods) - set(BASELINES)):
        start = int(hashlib.sha256(method.encode()).hexdigest(), 16) % len(PALETTE)
        order = PALETTE[start:] + PALETTE[:start]
        colours[method] = min(order, key=lambda colour: uses[colour])
        uses[colours[method]] += 1
    return colours


@contextmanager
def style() -> Iterator[None]:
    """Our own look, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph ")  # of a name that the font lacks is drawn as a box
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        matplotlib.rcParams["text.parse_math"] = False  # a dollar sign in somebody's name is a dollar sign
        yield


def to_bytes(figure: Figure, kind: str, transparent: bool = False) -> bytes:
    """The figure as ``png``, ``svg`` or ``pdf``; the same figure gives the same bytes."""
    if (engine := figure.get_layout_engine()) is not None:  # once: savefig would go through the whole figure twice
        figure.set_dpi(DPI)
        engine.execute(figure)
        figure.set_layout_engine(None)
    if kind == "svg":
        out = io.BytesIO()
        figure.savefig(out, format="svg", dpi=DPI, metadata={"Date": None, "Creator": None}, transparent=transparent)
        return out.getvalue()
    if kind == "pdf":
        out = io.BytesIO()
        unsaid = {"CreationDate": None, "Creator": None, "Producer": None}
        figure.savefig(out, format="pdf", dpi=DPI, metadata=unsaid)
        return out.getvalue()
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)  # as savefig has it, without a file to be read again
    canvas.draw()  # type: ignore[no-untyped-call]
    # Kept in git: no alpha, and no colour where all is grey.
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels).convert("RGB")
    red, green, blue = image.split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        image = red
    small = io.BytesIO()
    image.save(small, format="png", compress_level=6)
    return small.getvalue()


def small_png(figure: bytes, colours: int) -> bytes:
    """A PNG with so many colours at most, a third to a half as large: what is kept in git.

    With 256 the colours of lines stay what they were, to two steps of 255. The same PNG gives the same bytes.
    """
    with Image.open(io.BytesIO(figure)) as file:
        picture = file.convert("RGB").quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    out = io.BytesIO()
    picture.save(out, format="png", optimize=True)
    return min(figure, out.getvalue(), key=len)


def draw_curves(group: Group, curves: CurvesOf, colours: Mapping[str, str], layout: Layout = "wide") -> Figure:
    """Score against what was spent: in teacher images, in student images and in seconds.

    Args:
        group: rows that may be compared; those where every seed failed are left out.
        curves: of the group.
        colours: by method.
        layout: for a wide screen and for files, or for a narrow screen.
    """
    rows = drawn_rows(group)
    score = score_key(group.key.headline)
    looks = looks_of(rows, colours)
    columns = 1 if layout == "narrow" else 3
    out = [row for row in rows if row.label in looks]
    legend = 0.2 * -(-(len(out) + (len(rows) > len(out))) // columns) + 0.1
    width, height = (4.2, 9.6 + legend) if layout == "narrow" else (9.6, 3.6 + legend)
    room = (0, legend / height, 1, 1 - legend / height)
    figure = Figure(figsize=(width, height), layout=SteadyLayout(wspace=0.05, rect=room))
    axes = figure.subplots(*((3, 1) if layout == "narrow" else (1, 3)), sharey=True, squeeze=False).ravel()
    for axis, (spent, label) in zip(axes, AXES.items(), strict=True):
        for row in rows:
            if spent == "teacher_images" and never_asks(row):
                continue
            line = line_of([curves[record.id] for record in row.ok], spent, score)
            if line is not None:
                _draw(axis, line, looks.get(row.label))
        _finish(axis, group, label)
    for axis in axes if layout == "narrow" else axes[:1]:
        axis.set_ylabel(f"Test {metric_word(group.key.metric)}, %")
    words = [legend_words(row) for row in out]
    handles = [Line2D([], [], **looks[row.label], label=text) for row, (text, _) in zip(out, words, strict=True)]
    if len(out) < len(rows):
        handles.append(grey_handle(len(rows) - len(out)))
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 0}
    entries = figure.legend(handles=handles, ncols=columns, handlelength=2.8, fontsize=9, **place)
    for entry, (_, mathematics) in zip(entries.get_texts(), words, strict=False):
        entry.set_parse_math(mathematics)
    return figure


def caption(group: Group) -> str:
    """What the lines and bands of the curves mean; only what this group's figure really shows."""
    rows = drawn_rows(group)
    counts = {len(row.ok) for row in rows}
    bands = ["95 % t-interval over seeds"] if max(counts) > 2 else []
    bands += ["range of the two seeds"] if 2 in counts else []
    parts = ["Line: mean over seeds."] if bands else ["One seed: no band."]
    if bands:
        one = " (none for one seed)" if 1 in counts else ""
        parts.append(f"Band: {', or '.join(bands)}{one}.")
    if group.teacher:
        parts.append(f"Dashed: {group.dashed}.")
    if any(row.data == "train" for row in rows):
        parts.append("Dotted: trained on real images.")
    if len(rows) > OUT:
        parts.append(
            f"In colour: the baselines and the best others, data-free ones first, {OUT} together; the rest is grey."
        )
    if any(map(never_asks, rows)):
        parts.append("† never queries the teacher, so it has no curve over teacher images.")
    if group.key.headline not in ("last", "ema"):
        parts.append("The curves show the last student, not the selected one.")
    if (count := sum(bool(row.ok) for row in group.rows)) > len(rows):
        parts.append(f"{len(rows)} of {count} rows: the best, and the baselines.")
    return " ".join(parts)


def drawn_rows(group: Group) -> list[Row]:
    """The rows that are drawn: the ``LINES`` best, data-free ones before others, and the baselines; the best first."""
    well = [row for row in group.rows if row.ok]
    kept = {id(row) for row in sorted(well, key=lambda row: row.data != "none")[:LINES]}
    return [row for row in well if id(row) in kept or row.method in BASELINES]


def first_sheets(group: Group, results: Path) -> list[tuple[Row, Record, bytes]]:
    """For each row that has one, the contact sheet, a PNG or a WebP, of the first seed that went well and has one.

    An archive may hold one sheet of a task and method: then one row of the method has it, or none.
    """
    rows = [row for row in group.rows if row.ok]
    sheets = read_sheets(results, [row.ok[0].id for row in rows])
    others = [record.id for row in rows if row.ok[0].id not in sheets for record in row.ok[1:]]
    sheets |= read_sheets(results, others) if others else {}
    first = [(row, next((record for record in row.ok if record.id in sheets), None)) for row in rows]
    return [(row, record, sheets[record.id]) for row, record in first if record is not None]


def draw_sheets(sheets: Sequence[tuple[Row, Record, bytes]], columns: int = 4) -> Figure:
    """Contact sheets side by side, every pixel enlarged by a whole number so that none is blurred."""
    images = []
    for _, _, sheet in sheets:
        with Image.open(io.BytesIO(sheet)) as file:
            images.append(np.asarray(file.convert("RGB")))
    height, width = max(image.shape[0] for image in images), max(image.shape[1] for image in images)
    scale, gap, title = max(1, round(420 / width)), 28, 56
    columns = min(columns, len(images))
    lines = -(-len(images) // columns)
    total_w, total_h = columns * (width * scale + gap) + gap, lines * (height * scale + title) + gap
    figure = Figure(figsize=(total_w / 160, total_h / 160))
    for index, ((row, record, _), image) in enumerate(zip(sheets, images, strict=True)):
        left = gap + (index % columns) * (width * scale + gap)
        top = title + (index // columns) * (height * scale + title)
        h, w = image.shape[0] * scale, image.shape[1] * scale
        axis = figure.add_axes((left / total_w, 1 - (top + h) / total_h, w / total_w, h / total_h))
        axis.imshow(image, interpolation="none", aspect="auto")
        axis.set_axis_off()
        axis.set_title(f"{row.label}, seed {record.trial.seed}", fontsize=9, loc="left", pad=5)
    return figure


def line_of(curves: Sequence[Mapping[str, Sequence[Any]]], x: str, score: str) -> Line | None:
    """Mean and band over seeds: at the mean x of each evaluation, every seed's curve read between its points."""
    points = [
        np.array(
            [(spent, 100 * y) for spent, y in zip(curve[x], curve[score], strict=True) if y is not None], dtype=float
        ).reshape(-1, 2)
        for curve in curves
    ]
    points = [seed for seed in points if len(seed)]
    if not points:
        return None
    grid, values = at_common_places(points)
    mean = values.mean(axis=0)
    if len(points) < 3:
        return Line(grid, mean, values.min(axis=0), values.max(axis=0))
    half = half_widths(values)
    return Line(grid, mean, np.clip(mean - half, 0, 100), np.clip(mean + half, 0, 100))


def at_common_places(seeds: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean x of each evaluation, and every seed's curve read there: (points,) and (seeds, points).

    Args:
        seeds: x and y of each seed's evaluations, (n, 2); n may differ, the shortest decides.
    """
    count = min(len(seed) for seed in seeds)
    grid = np.mean([seed[:count, 0] for seed in seeds], axis=0)
    return grid, np.array([np.interp(grid, seed[:, 0], seed[:, 1]) for seed in seeds])


def _draw(axis: Axes, line: Line, look: Mapping[str, Any] | None) -> None:
    if look is None:
        axis.plot(line.x, line.y, **GREY_LOOK)
        return
    if (line.high > line.low).any():
        axis.fill_between(line.x, line.low, line.high, color=look["color"], alpha=0.16, linewidth=0)
    axis.plot(line.x, line.y, **look, markevery=[-1])


def _finish(axis: Axes, group: Group, label: str) -> None:
    axis.set_xlabel(label)
    axis.set_xlim(left=0)
    axis.set_ylim(top=min(101.5, axis.get_ylim()[1] + 2), bottom=max(0, axis.get_ylim()[0]))
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(count_tick))
    if group.teacher:
        axis.axhline(100 * group.teacher.score, color="#666666", linestyle=(0, (5, 3)), linewidth=1)


def looks_of(rows: Sequence[Row], colours: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The looks of the rows that stand out, by label; the others are grey.

    Colour by method, dotted for what was trained on real images; dashes and marks tell apart what shares a colour.
    """
    of_label = {row.label: row for row in rows}
    first = sorted(rows, key=lambda row: row.data != "none")  # the data-free ones, each kind the best first
    out = standing_out([row.label for row in first], _firsts(rows))
    tints = {label: colours[of_label[label].method] for label in out}
    marks = marks_apart(sorted(out), tints)
    looks = {}
    for label, mark in marks.items():
        styles = DOTTED if of_label[label].data == "train" else VARIANTS
        dashes = styles[MARKS.index(mark) % len(styles)]
        looks[label] = {"color": tints[label], "linestyle": dashes, "linewidth": 1.8, "marker": mark, "markersize": 4.5}
    return looks


def _firsts(rows: Sequence[Row]) -> list[str]:
    """The best row of each baseline."""
    found: dict[str, str] = {}
    for row in rows:
        if row.method in BASELINES:
            found.setdefault(row.method, row.label)
    return list(found.values())


def legend_words(row: Row) -> tuple[str, bool]:
    """A row's label as a legend has it, with a mark where it asks no teacher; whether it is read as mathematics."""
    words, mathematics = label_text(row.label)
    return (f"{words} †" if never_asks(row) else words), mathematics
