"""Print the table of docs/reproducing.md: published against measured, of all published studies.

``python tests/support/reproducing_table.py`` after a study was published or has changed.
"""

from __future__ import annotations

from pathlib import Path

from bench.analysis.report.sections import against
from bench.analysis.report.sections.grouping import read_groups
from bench.spec.custom_tasks import published_of_kept
from bench.utils.markdown import titled

RESULTS = Path(__file__).parents[2] / "results"


def table() -> str:
    """The Markdown table of every published archive that is a study."""
    studies = {
        file.parent.relative_to(RESULTS).as_posix(): [
            each for group in read_groups(file, published_of_kept(file)) for each in against.facts_of(group)
        ]
        for file in sorted(RESULTS.rglob("records.parquet"))
    }
    return "\n".join(titled("", against.over_all(studies))[3:]) + "\n"


if __name__ == "__main__":
    print(table(), end="")
