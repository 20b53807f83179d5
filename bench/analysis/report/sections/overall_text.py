"""The index's panel over all tasks, in words and numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from bench.analysis.report.sections.leaderboard import budget_words
from bench.analysis.report.sections.overall import TITLE, TaskSet
from bench.analysis.stats import Interval

HEAD = ["Method", "Interquartile mean", "95 % interval", "Average rank", "First is better, %"]
NEEDS = {
    "none": "Methods that need no real data",
    "pool": "Methods that use other, unlabelled images",
    "train": "Methods that use the training images",
}
NOTES = (
    "Interquartile mean: of the normalised scores (noise 0, kd 1) of all runs, tasks times seeds, the middle half; "
    "interval: over seeds, noise and kd taken as they are; Student's t within tasks, which covers more than "
    "95 %, or from 30 seeds on the bootstrap stratified by task.",
    "First is better: the probability that a run of the top method beats one of this row, on a random "
    "task; 50 means no difference. With more than one seed its 95 % interval is shown (Newcombe's score interval).",
    "Average rank: 1 is the best on every task; by the mean over seeds. Nemenyi's test assumes independent tasks; "
    "tasks that share data are not independent.",
)


def title(block: TaskSet) -> str:
    return f"{NEEDS[block.need]}, {len(block.groups)} tasks"


def overall_table(block: TaskSet) -> list[list[str]]:
    """A head and one line per method, the best interquartile mean first."""
    return [HEAD, *(_line(block, method, found) for method, found in block.means.items())]


def overall_notes(block: TaskSet) -> list[str]:
    """On which tasks, what the tests say, and who is left out and why."""
    tasks = "; ".join(f"{group.key.task} ({budget_words(group)})" for group in block.groups)
    return [f"On {tasks}.", _test(block), *_left_out(block)]


def profile_caption(block: TaskSet) -> str:
    """What the lines and bands of the profiles are."""
    found = next(iter(block.profiles.values()))
    return f"Share of runs with a normalised score above each threshold. {_sentence(found.how)}"


def ranks_caption(block: TaskSet) -> str:
    """What the bars of the rank diagram join."""
    if not block.ranking.nemenyi_can_reject:
        return (
            f"Average ranks, best on the left. {len(block.groups)} tasks are too few for Nemenyi's test: it could tell "
            "no two methods apart, whatever their ranks, and is left out."
        )
    joined = "; ".join(f"{group[0]} to {group[-1]}" for group in block.ranking.groups)
    said = f"Bars connect methods that differ by less: {joined}." if joined else "All methods differ by more."
    return (
        f"Average ranks, best on the left. Critical difference of Nemenyi's test at 5 %: "
        f"{block.ranking.critical_difference:.2f}. {said}"
    )


def figure_path(block: TaskSet, kind: str) -> str:
    """The relative path, without ending, of the figure ``profile`` or ``ranks``."""
    return f"figures/{block.name}-{kind}"


def in_markdown(block: TaskSet) -> tuple[str, list[list[str]], list[str], list[tuple[str, str]]]:
    """Title, table, notes and figures (relative path, alternative text) as ``markdown_page.markdown`` takes them."""
    figures = [
        (f"{figure_path(block, 'profile')}.png", profile_caption(block)),
        (f"{figure_path(block, 'ranks')}.png", ranks_caption(block)),
    ]
    return f"{TITLE}: {title(block)}", overall_table(block), [*overall_notes(block), *NOTES], figures


def overall_csv(blocks: Sequence[TaskSet]) -> str:
    """One line per method of every block; empty where there is no number."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    of_interval = [
        f"{name}{end}" for name in ("interquartile_mean", "first_is_better") for end in ("", "_low", "_high")
    ]
    writer.writerow(["need", "tasks", "method", "average_rank", *of_interval])
    for block in blocks:
        tasks = "|".join(group.key.task for group in block.groups)
        for method, found in block.means.items():
            of_method = [*found[:3], *(block.beaten[method][:3] if method in block.beaten else (None,) * 3)]
            numbers = ["" if value is None else f"{value:.9g}" for value in of_method]
            writer.writerow([block.need, tasks, method, f"{block.ranking.ranks[method]:.9g}", *numbers])
    return out.getvalue()


def _line(block: TaskSet, method: str, found: Interval) -> list[str]:
    beaten = block.beaten.get(method)
    return [
        method,
        f"{found.value:.3f}",
        _between(found, "{:.3f}", 1),
        f"{block.ranking.ranks[method]:.2f}",
        "—" if beaten is None else f"{100 * beaten.value:.0f}{_bracketed(beaten)}",
    ]


def _between(found: Interval, form: str, factor: float) -> str:
    if found.low is None or found.high is None:
        return "—"
    return f"{form.format(factor * found.low)} to {form.format(factor * found.high)}"


def _bracketed(found: Interval) -> str:
    words = _between(found, "{:.0f}", 100)
    return "" if words == "—" else f" ({words})"


def _test(block: TaskSet) -> str:
    ranking = block.ranking
    if ranking.p is None:
        return "Friedman's test needs three methods or more."
    if not ranking.friedman_can_reject:
        return f"{len(block.groups)} tasks are too few for Friedman's test: it could not reject, whatever the ranks."
    p = "p < 0.001" if ranking.p < 0.001 else f"p = {ranking.p:.3f}"
    differ = "do not all have the same rank" if ranking.p < ranking.alpha else "cannot be distinguished by their ranks"
    return f"The methods {differ} (Friedman's test, {p})."


def _left_out(block: TaskSet) -> Sequence[str]:
    if not block.left_out:
        return []
    return ["Left out: " + "; ".join(f"{method} ({why})" for method, why in block.left_out.items()) + "."]


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."
