"""The leaderboard as text: the cells that all its forms share, and the CSV with the plain numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence

from bench.analysis.report.sections import anytime
from bench.analysis.report.sections.groups import Group, Row, Table, measured_on, metric_word, tables_of
from bench.analysis.report.sections.spread import share_words, spread_note
from bench.analysis.stats import ENOUGH
from bench.records import Record, TeacherFacts
from bench.records.comparable import AGREEMENT, SYNTHETIC_AGREEMENT
from bench.records.verified import verified
from bench.spec.budget import in_words
from bench.spec.task import tasks
from bench.utils.memory_format import CONTIGUOUS
from bench.utils.text import cut

COLUMNS = {
    "rank": "Rank",
    "method": "Method",
    "data": "Real data",
    "score": "Score, %",
    "oracle": "Oracle, %",
    "gap": "Gap",
    "normalised": "Normalised",
    "agreement": "Agreement, %",
    "teacher_images": "Teacher images",
    "student_images": "Student images",
    "real_images": "Real images",
    "seconds": "Seconds",
    "gmacs": "GMACs",
    "memory": "Memory, MiB",
    "seeds": "Seeds",
}
MEANINGS = {
    "Score": "test score of the student that the data-free selection rule picked: mean over seeds, in brackets its "
    f"95 % interval (Student's t of the log-odds; from {ENOUGH} seeds on the BCa bootstrap); of two seeds both scores",
    "Oracle": "the best test score during training, chosen with the test images",
    "Gap": "oracle minus score, in percentage points: what choosing without the test images costs",
    "Normalised": "the score's position between noise (0) and kd (1) under the same budget",
    "Agreement": "share of the test images on which student and teacher predict the same class",
    "Teacher images": "images passed forward through the teacher",
    "Student images": "images passed forward through the student",
    "Real images": "real images given to the method, from the training set or the named pool",
    "Seconds": "time of the distillation; scoring is not counted",
    "GMACs": "10⁹ multiply-adds, forward and backward, of all networks",
    "Memory": "largest memory in use",
    "Seeds": "finished seeds / all seeds; the means are over the finished ones; verified: the trial ran "
    "again (dfkd verify), with the same result",
}
UNLABELLED = {AGREEMENT: "Agreement, %", SYNTHETIC_AGREEMENT: "Synthetic agreement, %"}  # in the place of the score
DATA = {"none": "none", "pool": "pool", "train": "training set"}
NEED = {"none": "data-free methods", "pool": "methods on other real images", "train": "methods on the training images"}
ABSENT = "—"


def columns(metric: str) -> dict[str, str]:
    """The heads of a group's table: without labels the score is the agreement, and bears its name."""
    if metric not in UNLABELLED:
        return COLUMNS
    return {name: title for name, title in COLUMNS.items() if name != "agreement"} | {"score": UNLABELLED[metric]}


def comma_separated(groups: Sequence[Group], measured: Mapping[str, anytime.AnytimeOf] | None = None) -> str:
    """One line per row of every table; scores and agreement are shares, everything is a mean over seeds.

    ``measured`` holds what the curves say, by the group's name: areas are shares too, the rest are medians and counts.
    """
    facts_of_key = ["task", "budget", "suite", "headline", "device", "precision", "points", "metric", "task_sha"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    before = ["teacher_sha", "fingerprint", "ranking", "rank", "method", "label", "data"]
    writer.writerow(
        [*facts_of_key, *before, *NUMBERS, "seeds_ok", "seeds", "verified", "not_the_same", *anytime.COLUMNS]
    )
    for group in groups:
        for table in tables_of(group):
            for rank, row in [*table.ranked, *((None, row) for row in table.reference)]:
                start = [*group.key, table.need, rank, row.method, row.label, row.data]
                of_curve = (measured or {}).get(group.name, {}).get(row.records[0].id)
                spent = _plain(anytime.anytime_numbers(of_curve).values())
                writer.writerow(
                    [
                        *start,
                        *_plain(numbers_of(group, row).values()),
                        len(row.ok),
                        len(row.records),
                        *verified_of(row),
                        *spent,
                    ]
                )
    return out.getvalue()


def numbers_of(group: Group, row: Row) -> dict[str, float | None]:
    """The plain numbers of a row by column of the CSV: means over seeds; scores and agreement are shares."""
    mean, low, high = row.score[:3] if row.score else (None, None, None)
    place = group.normalised_interval(row)
    of_place = place[:3] if place else (group.normalised(row), None, None)
    values = [mean, low, high, _oracle(row), _gap(row), *of_place, _agreement(row)]
    return dict(zip(NUMBERS, [*values, *(row.mean(get) for get in METER.values())], strict=True))


def _plain(values: Iterable[float | None]) -> list[str]:
    return ["" if value is None else f"{value:.6g}" for value in values]


def cells(group: Group, rank: int | None, row: Row, reference: bool) -> dict[str, str]:
    """The text of one row's cells, by column."""
    normalised = group.normalised(row)
    texts = {
        "rank": "ref" if reference else ABSENT if rank is None else str(rank),
        "method": row.label,
        "data": real_data(row),
        "score": score_words(row),
        "oracle": _percent(_oracle(row)),
        "gap": ABSENT if (gap := _gap(row)) is None else f"{100 * gap:+.1f}",
        "normalised": ABSENT if normalised is None else f"{normalised:.2f}",
        "agreement": _percent(_agreement(row)),
        "seeds": seeds_words(row),
    }
    for name, get in METER.items():
        value = row.mean(get)
        texts[name] = ABSENT if value is None else f"{value:,.{DECIMALS.get(name, 0)}f}"
    return {name: texts[name] for name in columns(group.key.metric)}


def real_data(row: Row) -> str:
    """The real images of a row's trials, in a word; of a pool its name."""
    pool = row.records[0].trial.pool
    return f"{DATA[row.data]}: {pool}" if pool else DATA[row.data]


def budget_words(group: Group) -> str:
    """The budget in words: ``40,000 teacher images``."""
    return in_words(group.rows[0].records[0].trial.budget)


def facts(group: Group) -> list[str]:
    """What all rows of the group share: the table's heading."""
    key, teacher = group.key, group.teacher
    who = "Teacher: never loaded"
    if teacher:
        who = f"Teacher: {_teacher(teacher, key.metric)}"
    if group.ensemble:
        each = ", ".join(_teacher(one, key.metric) for one in group.ensemble.teachers)
        who = f"Teachers: {each}; together (mean of softmax) {100 * group.ensemble.score:.1f} %"
    return [
        who,
        f"Budget: {budget_words(group)}",
        f"Selection rule: {key.headline}",
        f"Suite {key.suite}",
        f"Score: {metric_word(key.metric)} {measured_on(key.metric, group.rows[0].records[0].provenance)}",
        f"{key.device}, {key.precision}, scored {key.points} times during training, task definition {key.task_sha[:7]}",
    ]


def _teacher(teacher: TeacherFacts, metric: str) -> str:
    score = "" if metric in UNLABELLED else f"{metric_word(metric)} {100 * teacher.score:.1f} %, "
    return f"{teacher.network} ({score}sha256 {teacher.sha256[:12]})"


def teacher_words(group: Group) -> str:
    """The teacher's test score, ``, 97.2 %``; empty where no test image has a label, or no teacher was loaded."""
    known = group.teacher is not None and group.key.metric not in UNLABELLED
    return f", {100 * group.teacher.score:.1f} %" if known and group.teacher else ""


def teacher_line(group: Group) -> str:
    """The teacher in short, ``lenet5, 97.2 % (d8b6c598)``; empty where none was loaded.

    Without a score where no test image has a label. Of several: their networks, and the score that they reach together.
    """
    teacher, ensemble = group.teacher, group.ensemble
    if teacher is None:
        return ""
    if ensemble is not None:
        networks = " + ".join(each.network for each in ensemble.teachers)
        return f"{networks}, together {100 * ensemble.score:.1f} % ({group.key.teacher[:8]})"
    return f"{teacher.network}{teacher_words(group)} ({teacher.sha256[:8]})"


def notes(group: Group) -> list[str]:
    """What a reader must know to read the group's tables right."""
    counts = {len(row.ok) for row in group.rows}
    found = []
    if 1 in counts:
        found.append("One seed: there is no interval, and chance cannot be assessed.")
    if said := spread_note(counts):
        found.insert(0, said)
    if 2 in counts:
        found.append("Two seeds: both scores are shown; they are too few to tell methods apart.")
    if said := images_note(group):
        found.append(said)
    if reason := group.why_not_normalised:
        found.append(reason)
    if any(len(row.ok) < len(row.records) for row in group.rows):
        found.append(
            "Some trials failed: they have no score, the means are over the others, and the next run retries them."
        )
    if wrong := [record.id for row in group.rows for record in row.ok if verified(record) is False]:
        found.append(f"Run again, these trials were not what their records say: {', '.join(wrong)}.")
    if len({record.trial.memory_format for row in group.rows for record in row.records}) > 1:
        found.append(
            "Memory formats differ: of one trial other bits, and no systematic difference of scores; seconds do."
        )
    found += [f"Not run: {reason}." for reason in group.unsupported]
    return [*found, _origin(group)]


def title_of(table: Table) -> str:
    """What is ranked in this table, and what is not."""
    rest = "; the others are references" if table.reference else ""
    return f"Ranking of {NEED[table.need]}{rest}"


def failure(row: Row, record: Record) -> list[str]:
    """One line of the list of failures; the log's path is relative to the results folder."""
    log = f"trials/{record.id}/log.txt"
    return [record.id, row.label, str(record.trial.seed), record.status, cut(record.reason) or "not given", log]


def method_facts(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Name, and what it is and needs, of every method that has a row."""
    found = {
        (record.trial.method, record.method.title, record.method.paper, record.method.data, record.method.access)
        for group in groups
        for row in (*group.rows, *group.left_out)
        for record in row.records
    }
    return [
        (name, f"{title}. {paper.rstrip('.')}. Real data: {DATA[data]}; teacher access: {access}.")
        for name, title, paper, data, access in sorted(found)
    ]


METER: dict[str, Callable[[Record], float | None]] = {
    "teacher_images": lambda record: float(record.meter.teacher_images),
    "student_images": lambda record: float(record.meter.student_images),
    "real_images": lambda record: float(record.meter.real_images),
    "seconds": lambda record: record.meter.seconds,
    "gmacs": lambda record: record.meter.gmacs,
    "memory": lambda record: record.meter.peak_memory_mib,
}
NUMBERS = (
    *("score", "score_low", "score_high", "oracle", "gap"),
    *("normalised", "normalised_low", "normalised_high", "agreement"),
    *("teacher_images", "student_images", "real_images", "seconds", "gmacs", "peak_memory_mib"),
)
DECIMALS = {"seconds": 1, "gmacs": 1}


def _origin(group: Group) -> str:
    """Which code, versions and machines the numbers come from."""
    origins = [record.provenance for row in group.rows for record in row.records]

    def of(name: str) -> str:
        return ", ".join(sorted({str(origin[name]) for origin in origins if origin.get(name)})) or "unknown"

    commits = {str(origin["commit"])[:10] for origin in origins if origin.get("commit")}
    dirty = " (with uncommitted changes)" if any(origin.get("dirty") for origin in origins) else ""
    torches = sorted({str((origin.get("versions") or {}).get("torch", "unknown")) for origin in origins})
    threads = sorted({record.trial.threads for row in group.rows for record in row.records})
    code = f"commit {', '.join(sorted(commits)) or 'unknown'}{dirty}, dfkd {of('suite')}, torch {', '.join(torches)}"
    formats = sorted({record.trial.memory_format for row in group.rows for record in row.records})
    order = "" if formats == [CONTIGUOUS] else f"; memory format: {', '.join(formats)}"
    return f"Measured at {code}, on {of('device')}; threads: {', '.join(map(str, threads))}{order}."


def seeds_words(row: Row) -> str:
    """How many seeds finished, and of how many where not all did; what running them again showed."""
    seeds = f"{len(row.ok)}/{len(row.records)}" if len(row.ok) < len(row.records) else str(len(row.ok))
    good, bad = verified_of(row)
    marks = [f"{number} {word}" for number, word in ((good, "verified"), (bad, "not the same")) if number]
    return f"{seeds} ({', '.join(marks)})" if marks else seeds


def verified_of(row: Row) -> tuple[int, int]:
    """How many of a row's trials ran again as recorded (`dfkd verify`), and how many otherwise."""
    told = [verified(record) for record in row.ok]
    return told.count(True), told.count(False)


def normalised_words(group: Group, row: Row) -> str:
    """The normalised score with its 95 % interval: ``0.82 (0.71 to 0.90)``."""
    value, found = group.normalised(row), group.normalised_interval(row)
    if value is None:
        return ABSENT
    if found is None or found.low is None or found.high is None:
        return f"{value:.2f}"
    return f"{value:.2f} ({found.low:.2f} to {found.high:.2f})"


def score_words(row: Row) -> str:
    """Mean and interval in percent, ``91.0 (88.2 to 93.2)``; of two seeds both scores, ``91.0 (90.2, 91.8)``."""
    return ABSENT if row.score is None else share_words(row.score, row.scores)


def named_score(row: Row) -> str:
    """As :func:`score_words`, for tables of several tasks: ``91.0 agreement`` where the score is no score of labels."""
    metric = row.records[0].metric
    said = score_words(row)
    return f"{said} {metric_word(metric)}" if metric in UNLABELLED and row.score else said


def images_note(group: Group) -> str:
    """How far the best score would be off on other test images; empty where their number is not known."""
    best = max((row.score.value for row in group.rows if row.score), default=None)
    task = tasks().get(group.key.task)
    altered = any((record.provenance.get("data") or {}).get("altered") for row in group.rows for record in row.ok)
    images = task.test_images if task and group.key.metric == "accuracy" and not altered else None
    if images is None or best is None:
        return ""
    from scipy.stats import binomtest

    ends = binomtest(round(best * images), images).proportion_ci(method="wilson")
    return (
        f"The test set has {images:,} images. Its own error is not in the intervals: a student that has "
        f"{100 * best:.1f} % here may be at {100 * ends.low:.1f} to {100 * ends.high:.1f} % on as many others "
        "(Wilson, 95 %). All rows share these images."
    )


def _oracle(row: Row) -> float | None:
    return row.mean(lambda record: record.scores.get("oracle"))


def _gap(row: Row) -> float | None:
    oracle = _oracle(row)
    return oracle - row.score[0] if oracle is not None and row.score else None


def _agreement(row: Row) -> float | None:
    return row.mean(lambda record: record.agreement)


def _percent(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.1f}"
