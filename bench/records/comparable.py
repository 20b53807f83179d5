"""Which records may be compared: one place that says so, for every ranking, test and table."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from bench.records.frame import short_text
from bench.records.schema import Record

# What a score is where no test image has a label; such scores and accuracies are never compared.
AGREEMENT = "agreement"  # with the teacher, on the user's test images
SYNTHETIC_AGREEMENT = "synthetic_agreement"  # on made ones, where there are none
AGREEMENTS = (AGREEMENT, SYNTHETIC_AGREEMENT)


class Comparable(NamedTuple):
    """What records that may be compared share; those that differ in any of these are never ranked together.

    The first five are what a comparison is about; the others are the rules under which a score was measured.
    """

    task: str
    budget: str  # canonical, see ``short_text``
    suite: str
    headline: str  # the selection rule
    device: str  # its kind: cuda:1 is cuda
    precision: str
    points: int
    metric: str
    task_sha: str
    teacher: str  # sha256 of the weights, of several teachers the hash of theirs; empty when none was loaded
    fingerprint: str  # of the data set at the task's size; empty as for the teacher


class Loaded(NamedTuple):
    """What a trial was really given, known once it has been loaded."""

    teacher: str = ""  # sha256 of its weights; of several teachers, the hash of theirs
    fingerprint: str = ""  # of the data set: altered files may hold other images


def loaded(record: Record) -> Loaded:
    """What a record's trial was given; empty where it ended before."""
    if record.teacher is None:
        return Loaded()
    return Loaded(teacher_weights(record), str(record.provenance.get("data", {}).get("fingerprint", "")))


def teacher_weights(record: Record) -> str:
    """The sha256 of the teacher's weights, or of those of all of several teachers; empty where none was loaded."""
    if record.ensemble is not None:
        sums = " ".join(teacher.sha256 for teacher in record.ensemble.teachers)
        return hashlib.sha256(sums.encode()).hexdigest()
    return record.teacher.sha256 if record.teacher else ""


def comparable(record: Record, given: Loaded | None = None) -> Comparable:
    """The key of a record: two records may be compared if, and only if, theirs are equal.

    Args:
        record: any record.
        given: the teacher and the images to file it under; by default those which were really used.
    """
    trial = record.trial
    used = loaded(record) if given is None else given
    return Comparable(
        task=trial.task,
        budget=short_text(trial.budget),
        suite=trial.suite,
        headline=record.headline,
        device=trial.device.split(":")[0],
        precision=trial.precision,
        points=trial.points,
        metric=record.metric,
        task_sha=trial.task_sha,
        teacher=used.teacher,
        fingerprint=used.fingerprint,
    )
