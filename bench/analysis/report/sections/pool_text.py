"""How far the other real images lie from the task's own."""

from __future__ import annotations

from collections.abc import Iterator

from bench.analysis.report.sections.groups import Group
from bench.analysis.report.sections.image_metrics import ABSENT, number
from bench.records import PoolFacts
from bench.spec.metric_names import metric_of

TITLE = "The other real images"
CAPTION = "Share of the pool that the selection keeps, over the budget: mean over seeds, and each seed as a thin line."
NOTE = (
    "Image metrics of an even sample of each pool against the real training images, as for synthetic images. "
    "Near test images: pool images that are nearly identical to a test image."
)


def pool_table(group: Group) -> list[list[str]]:
    """A head and one line per pool: images, near duplicates of test images, image metrics; empty without pools."""
    pools = list(_pools(group))
    if not pools:
        return []
    names = list(dict.fromkeys(name for _, facts in pools for name in facts.image_metrics))
    lines = [
        [
            facts.name,
            ", ".join(labels),
            f"{facts.images:,}",
            f"{facts.near_duplicates:,}",
            *(_value(facts, name) for name in names),
        ]
        for labels, facts in pools
    ]
    return [["Pool", "Methods", "Images", "Near test images", *(_head(name) for name in names)], *lines]


def _pools(group: Group) -> Iterator[tuple[list[str], PoolFacts]]:
    """Each pool once, with the labels of the rows that used it."""
    found: dict[tuple[str, str], tuple[list[str], PoolFacts]] = {}
    for row in group.rows:
        for record in row.ok:
            if record.pool is not None:
                labels, _ = found.setdefault((record.pool.name, record.pool.fingerprint), ([], record.pool))
                if row.label not in labels:
                    labels.append(row.label)
    yield from found.values()


def _head(name: str) -> str:
    metric = metric_of(name)
    return name + {True: " ↑", False: " ↓", None: ""}[metric.higher_is_better if metric else None]


def _value(facts: PoolFacts, name: str) -> str:
    entry = facts.image_metrics.get(name)
    return ABSENT if entry is None or entry.value is None else number(entry.value)
