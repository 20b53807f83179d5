"""The panel "Does image quality matter?" in words: a table and sentences that Markdown and the page share."""

from __future__ import annotations

from bench.analysis.report.sections.groups import Group
from bench.analysis.report.sections.image_metrics import UNRELIABLE, number
from bench.analysis.report.sections.quality import FEWEST, BestImages, Correlation, Quality, best_is_best, qualities

TITLE = "Does image quality matter?"
ABSENT = "—"
HEAD = [
    "Metric",
    "Trials",
    "Rank correlation with the score",
    "Better images, better student?",
    "Data-free trials",
    "Rank correlation, data-free",
    "Better images, better student? (data-free)",
    "BestImages value",
    "BestImages student?",
]


def drawable(found: list[Quality]) -> list[Quality]:
    """Those of which a scatter plot shows something."""
    return [quality for quality in found if quality.all_trials.rho is not None]


def quality_table(group: Group) -> list[list[str]]:
    """A head and one line a metric; empty where there are no image metrics, or too little of all of them."""
    found = qualities(group)
    if not drawable(found):
        return []
    best = {each.column: each for each in best_is_best(group)}
    lines = []
    for quality in found:
        better = quality.column.metric.higher_is_better if quality.column.metric else None
        each = best.get(quality.column)
        lines.append(
            [
                quality.column.head,
                _trials(quality),
                correlation_words(quality.all_trials),
                quality.all_trials.better_with_better(better) or ABSENT,
                str(quality.data_free.trials),
                correlation_words(quality.data_free),
                quality.data_free.better_with_better(better) or ABSENT,
                f"{each.winner.label}, {_value(each)}" if each else ABSENT,
                ("yes" if each.same else f"no: {each.student.label}") if each else ABSENT,
            ]
        )
    return [HEAD, *lines]


def sentences(group: Group) -> list[str]:
    """What was found, in sentences, and how little it may mean; empty where there are no image metrics."""
    found = qualities(group)
    if not found:
        return []
    said = []
    lacking = [quality.column.title for quality in found if quality.all_trials.rho is None]
    if lacking:
        said.append(
            f"Too few measurements for a correlation, which needs {FEWEST} trials with different values and different "
            f"scores: {', '.join(lacking)}."
        )
    if best := best_is_best(group):
        same, total = sum(each.same for each in best), len(best)
        of = f"{same} of {total} metrics" if total > 1 else f"{same} of 1 metric"
        said.append(f"In {of} the data-free method with the best value has the best student.")
        said += [best_sentence(each) for each in best]
    if len(lacking) < len(found):
        said += _caution(found)
    return said


def best_sentence(best: BestImages) -> str:
    """``The best fd[teacher] (dafl, 12.3) is not the best student (zskd, 96.3 %): 0.9 points.``"""
    share = f"{100 * best.student.score[0]:.1f} %" if best.student.score else ABSENT
    start = f"The best {best.column.title} ({best.winner.label}, {_value(best)})"
    if best.same:
        return f"{start} is the best student ({share})."
    points = f"{best.points:.1f}" if best.points >= 0.05 else "less than 0.1"
    chance = ", within the intervals over seeds" if best.within_intervals else ""
    return f"{start} is not the best student ({best.student.label}, {share}): {points} points{chance}."


def correlation_words(correlation: Correlation) -> str:
    """``-0.83 [-0.95, -0.52]``"""
    if correlation.rho is None:
        return ABSENT
    if correlation.low is None or correlation.high is None:
        return f"{correlation.rho:z.2f} (no interval)"
    return f"{correlation.rho:z.2f} [{correlation.low:z.2f}, {correlation.high:z.2f}]"


def quality_caption(group: Group) -> str:
    """What the scatter plots' marks mean; only what this group's figure really shows."""
    points = [point for quality in drawable(qualities(group)) for point in quality.points]
    needs = {point.row.data for point in points}
    parts = ["One mark per trial. Above each plot: the rank correlation with its 95 % interval, and the trials (n)."]
    parts += ["Squares: trained on real images."] if "train" in needs else []
    parts += ["Diamonds: on other real images."] if "pool" in needs else []
    parts += ["Hollow: the metric's value is unreliable."] if not all(point.reliable for point in points) else []
    return " ".join(parts)


def _caution(found: list[Quality]) -> list[str]:
    trials = max(quality.all_trials.trials for quality in found)
    rows = max(len({id(point.row) for point in quality.points}) for quality in found)
    who = "method" if rows == 1 else "methods"
    cautions = [
        f"A correlation over few trials of few methods ({trials} trials of {rows} {who} here) is weak evidence. Seeds "
        "of one method are not independent of each other, so the 95 % intervals are too narrow; and what correlates "
        "with a better student need not be its cause."
    ]
    if len(found) > 1:
        cautions.append(f"Of {len(found)} metrics, one or another may have an interval without 0 by chance alone.")
    return cautions


def _trials(quality: Quality) -> str:
    trials = str(quality.all_trials.trials)
    return f"{trials} ({quality.unreliable} unreliable)" if quality.unreliable else trials


def _value(best: BestImages) -> str:
    return f"{number(best.value)}{'' if best.reliable else UNRELIABLE}"
