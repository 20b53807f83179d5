"""Numbers from papers: quoted with their source and with everything needed to compare with them. They are data, in the
tasks' YAML files; where they come from is in ``bench/papers.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from pydantic import Field, model_validator

from bench.errors import UserError, nearest
from bench.utils.paths import PACKAGE
from bench.utils.yaml import Strict, Whole, read_yaml, validate

PAPERS = PACKAGE / "papers.yaml"
UNCHECKED = "not checked against the paper"

Quantity = Literal["best", "last", "unknown"]


class Paper(Strict):
    """A source of quoted numbers, and what holds for all of them."""

    title: str = Field(min_length=1)
    place: str = Field(min_length=1, description="where the numbers were read")
    unit: Literal["percent", "share"] = Field(description="how the source prints scores and deviations")
    quantity: Quantity = Field(description="the best epoch on the test set, or the last")
    runs: Whole | None = Field(default=None, ge=1, description="behind a number; None: not known")
    teacher_images: Mapping[str, Whole] = Field(default={}, description="of a method's own count, by its name")
    forms: Mapping[str, str] = Field(default={}, description="how what was run differs from the suite's method")


class PublishedScore(Strict):
    """A number from a paper, never mixed with measured ones. All shares are of 1, whatever the source prints."""

    score: float = Field(ge=0, le=1, description="share")
    source: str = Field(default="", description="where it was read; of a known paper it need not be said")
    method: str = ""
    paper: str = Field(default="", description="a name in bench/papers.yaml, or one of your own with its source")
    deviation: float | None = Field(default=None, ge=0, le=1, description="share: what the source gives after +-")
    quantity: Quantity | None = Field(default=None, description="where it is not that of the paper's other numbers")
    runs: Whole | None = Field(default=None, ge=1, description="behind the number, likewise")
    teacher: float | None = Field(default=None, ge=0, le=1, description="share: its teacher's score, likewise")
    teacher_images: Whole | None = Field(default=None, ge=1, description="asked of the teacher, likewise")
    pool: str = Field(default="", description="the other real images that it was measured with")
    options: Mapping[str, Any] = Field(default={}, description="of the method, where they are not its paper's")
    form: str = Field(default="", description="how what was run differs from the suite's method, likewise")
    checked: bool = Field(default=True, description="whether it was read in a table that is open to all")
    note: str = Field(default="", description="what tells it from the source's other numbers")

    @model_validator(mode="before")
    @classmethod
    def _cited(cls, values: Any) -> Any:
        """The source in words, from the paper's name."""
        if not isinstance(values, Mapping) or values.get("source"):
            return values
        name = values.get("paper")
        if not name:
            raise ValueError("a quoted number needs its `source`, or the name of a known `paper`")
        if name not in papers():
            raise ValueError(f"paper: {name!r} is not known{nearest(str(name), papers())}; name its `source`")
        words = [values["note"]] if values.get("note") else []
        words += [] if values.get("checked", True) else [UNCHECKED]
        place = papers()[name].place
        return {**values, "source": f"{place} ({'; '.join(map(str, words))})" if words else place}


class Published(Strict):
    """What papers say of a task."""

    teacher: PublishedScore | None = None
    teachers: Mapping[str, float] = Field(default={}, description="share: the score of each paper's teacher")
    methods: tuple[PublishedScore, ...] = ()

    def of(self, quote: PublishedScore) -> Quoted:
        """A number with what its paper says of all of its numbers."""
        own = self.teacher.score if self.teacher and self.teacher.paper == quote.paper else None
        return Quoted(quote, papers().get(quote.paper), self.teachers.get(quote.paper, own))


class Quoted:
    """A quoted number with what is to be known of it: the row's own word comes before its paper's."""

    def __init__(self, quote: PublishedScore, paper: Paper | None, teacher: float | None) -> None:
        self.quote = quote
        self.quantity: Quantity = quote.quantity or (paper.quantity if paper else "unknown")
        self.runs = quote.runs or (paper.runs if paper else None)
        self.teacher = quote.teacher if quote.teacher is not None else teacher
        self.form = quote.form or (paper.forms.get(quote.method, "") if paper else "")
        self.teacher_images = quote.teacher_images or (paper.teacher_images.get(quote.method) if paper else None)


@cache
def papers() -> Mapping[str, Paper]:
    """All sources of quoted numbers, by name."""
    data = read_yaml(PAPERS)
    return {str(name): validate(Paper, data, PAPERS, at=[name]) for name in data}


def get_paper(name: str) -> Paper:
    """A source by its name.

    Raises:
        UserError: it is not known; the sentence has the nearest name.
    """
    if name not in papers():
        raise UserError(f"unknown paper {name!r}{nearest(name, papers())}")
    return papers()[name]
