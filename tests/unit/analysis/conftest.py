"""What all tests of reports share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.analysis.report.figures.curves import STYLE


@pytest.fixture(scope="session", autouse=True)
def pdf_fonts() -> Iterator[int]:
    """The kind of fonts that PDF figures embed. Tests draw with Type 3, which takes less time."""
    own = STYLE["pdf.fonttype"]
    STYLE["pdf.fonttype"] = 3
    yield own
    STYLE["pdf.fonttype"] = own
