"""The schema of ``record.json`` and of a line of ``curve.jsonl``, field by field."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from bench.records.foreign import CHECKSUM, FILES, ID, checksum_of
from bench.utils.memory_format import CONTIGUOUS

SCHEMA: Literal[1] = 1

Status = Literal[
    "ok", "diverged", "out_of_memory", "crashed", "timed_out", "leaked", "denied", "missing_data", "unsupported"
]
Limit = Literal["seconds", "steps", "teacher_images", "student_images", "gmacs"]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Checksum = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
SEALS = (FILES, CHECKSUM)  # keys of a record that say nothing of the trial


def trial_id(identity: Mapping[str, Any]) -> str:
    """Sixteen hex digits that change whenever anything changes that can change a trial's outcome.

    >>> trial_id({"seed": 0, "task": "digits"}) == trial_id({"task": "digits", "seed": 0})
    True
    """
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def writable(value: Any) -> Any:
    """As ``without_nan``; and NULs and halves of surrogate pairs, which not every program can read, are written out."""
    if isinstance(value, str):
        return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {writable(key): writable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [writable(item) for item in value]
    return value


def without_nan(value: Any) -> Any:
    """The same value with every NaN and infinity replaced by None, which JSON can say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrialIdentity(_Part):
    """Everything that can change the outcome of a trial; its hash is the trial's id."""

    suite: str = Field(description="version of the suite's rules; different versions are never ranked together")
    task: str
    task_sha: str = Field(description="hash of the task's definition: data set, geometry, networks")
    teacher: str = Field(description="key of the teacher's recipe")
    method: str
    method_sha: str = Field(description="hash of the method's code, by the rule of identity_rule")
    options: dict[str, Any] = Field(description="every option of the method, defaults included")
    budget: dict[Limit, int | float] = Field(description="the limits; the first one used up ends the trial")
    seed: int
    device: str = Field(description="cpu, cuda or another kind of device")
    threads: int
    precision: str
    deterministic: bool
    altered_data: bool = Field(description="whether data files other than the official ones were allowed")
    points: Count = Field(description="how many times the student was scored during training")
    selection: list[str] = Field(description="the selection rules that were followed")
    teachers: list[str] = Field(
        default_factory=list,
        description="keys of the teachers of a task with several, `teacher` first; absent where there is one",
    )
    pool: str = Field(
        default="", description="the other real images of a method that needs them; absent if there are none"
    )
    memory_format: str = Field(
        default=CONTIGUOUS,
        description="channels_last where images, maps and weights lay in memory so; absent where they did not",
    )
    identity_rule: int = Field(
        default=1, ge=1, description="version of the rule by which code is hashed; absent for the first"
    )

    @model_serializer(mode="wrap")
    def _as_first_written(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Records from before there were several teachers, pools, memory formats and versions of the rule keep ids."""
        values: dict[str, Any] = serialise(self)
        if not self.teachers:
            values.pop("teachers", None)
        if not self.pool:
            values.pop("pool", None)
        if self.memory_format == CONTIGUOUS:
            values.pop("memory_format", None)
        if self.identity_rule == 1:
            values.pop("identity_rule", None)
        return values

    @property
    def teacher_keys(self) -> tuple[str, ...]:
        """The keys of all its teachers, ``teacher`` first."""
        return tuple(self.teachers) or (self.teacher,)


class MethodFacts(_Part):
    """What the method's file declared."""

    title: str
    paper: str
    data: Literal["none", "pool", "train"] = Field(description="the real images that it needs")
    access: str = Field(description="its access to the teacher")


class TeacherFacts(_Part):
    """The passport of the teacher that was really used."""

    sha256: str = Field(description="hash of the weights")
    network: str
    recipe: str
    seed: int | None = Field(description="null for an imported teacher")
    score: Share = Field(description="on the test images, in the task's metric")


class TeacherUsed(TeacherFacts):
    """One of several teachers, and what was asked of it and its trainable copies: a part of the meter."""

    images: Count = Field(description="images through it, forward")
    backward: Count = Field(description="images through it, backward")
    gmacs: Amount = Field(description="10^9 multiply-adds, forward and backward")


class EnsembleFacts(_Part):
    """The teachers of a task with several."""

    score: Share = Field(
        description="of the mean of their softmax, on the test images, in the task's metric: what they reach together"
    )
    teachers: list[TeacherUsed] = Field(description="all of them, in the task's order; the first is also `teacher`")


class ImageMetric(_Part):
    """One property of the images that the student was trained on, and everything that it depends on."""

    value: float | None = Field(description="null when it could not be measured; the note says why")
    status: Literal["ok", "unreliable", "unavailable", "failed"] = Field(
        description="unreliable: too few images for the value to mean much; unavailable: something is missing or the "
        "images do not allow it; failed: an error in the suite"
    )
    images: Count = Field(description="number of synthetic images it was measured on")
    note: str = ""
    spread: Amount | None = Field(default=None, description="standard deviation over splits or subsets")
    pairs: Count | None = Field(default=None, description="number of image pairs that a diversity averages over")
    real_images: Count | None = Field(default=None, description="number of training images they were compared with")
    dimension: Count | None = Field(default=None, description="of the extractor's features")
    extractor: str = Field(default="", description="hash of the extractor's weights and code; empty if it needs none")
    preprocessing: str = Field(default="", description="how the images were preprocessed for the extractor")


class PoolFacts(_Part):
    """The other real images that a method was given, and how far they lie from the task's own."""

    name: str
    images: Count = Field(description="how many there are")
    fingerprint: str = Field(description="sha256 over their shape and bytes, at the task's size")
    altered: list[str] = Field(default_factory=list, description="files of the data set that are not the official ones")
    skipped: dict[str, Count] = Field(
        default_factory=dict, description="images of the folder that were left out, by ending: their type is not read"
    )
    near_duplicates: Count = Field(description="pool images that are nearly identical to a test image")
    image_metrics: dict[str, ImageMetric] = Field(
        default_factory=dict, description="the study's image metrics, of an even sample of the whole pool"
    )


class MeterReading(_Part):
    """What the harness counted, evaluation excluded."""

    seconds: Amount
    steps: Count = Field(description="passes through the method's loops")
    optimizer_steps: Count
    teacher_images: Count = Field(description="images through the teacher, forward")
    teacher_backward: Count = Field(description="images through the teacher, backward")
    student_images: Count = Field(description="images through the student, forward")
    student_backward: Count = Field(description="images through the student, backward")
    synthesised_images: Count
    real_images: Count = Field(description="real images given to the method, from the training set or its pool")
    gmacs: Amount = Field(description="10^9 multiply-adds, forward and backward, all networks")
    peak_memory_mib: Amount | None = Field(description="null if the system does not report it")
    evaluation_seconds: Amount = Field(description="spent on scoring; not part of seconds")


class ImageFacts(_Part):
    """The images kept in images.safetensors."""

    count: Count
    clipped: Share = Field(description="share of the values outside the displayable range")
    different: Count | None = Field(
        default=None,
        description="how many different images these are; null in older records, where up to a quarter are copies that "
        "stood in for held-out images",
    )


class Record(_Part):
    """``record.json``: everything known about one finished trial."""

    version: Literal[1] = Field(default=SCHEMA, alias="schema", description="version of this schema")
    id: str = Field(pattern=f"^{ID.pattern}$", description="start of the SHA-256 of `trial` as canonical JSON")
    study: str
    status: Status
    reason: str = Field(default="", description="one sentence when the status is not ok")
    trial: TrialIdentity
    method: MethodFacts
    teacher: TeacherFacts | None = Field(
        description="null when the trial ended before a teacher was loaded; of a task with several, the first"
    )
    ensemble: EnsembleFacts | None = Field(
        default=None,
        description="the teachers of a task with several, each with what was asked of it; absent where there is one",
    )
    metric: str = Field(description="the metric of a score, e.g. accuracy")
    headline: str = Field(description="selection rule of the headline score; data-free")
    scores: dict[str, Share] = Field(description="test score by selection rule; empty when not ok")
    test_metrics: dict[str, Share | None] = Field(
        default_factory=dict,
        description="further measurements of the headline student on the test images: for segmentation "
        "pixel_accuracy and iou[CLASS], null for a class that neither labels nor answers have",
    )
    agreement: Share | None = Field(
        description="share of test images on which the headline student and the teacher, the first of several, agree; "
        "null when not ok"
    )
    image_metrics: dict[str, ImageMetric]
    pool: PoolFacts | None = Field(default=None, description="null for methods without a pool")
    meter: MeterReading
    stopped_by: str = Field(description="the limit that ended it, `method` when it returned early, else the status")
    images: ImageFacts
    resumed: Count = Field(description="how many times the trial resumed from a checkpoint")
    provenance: dict[str, Any] = Field(description="commit, versions, hardware; keys may be added")
    files: dict[str, Checksum] = Field(
        default_factory=dict,
        description="SHA-256 of the files beside the record, by name: curve.jsonl and those of student and images; "
        "absent in older records",
    )
    checksum: Checksum | None = Field(
        default=None,
        description="SHA-256 of all the other keys as JSON with sorted keys and no spaces; absent in older records",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if self.id != trial_id(self.trial.model_dump(mode="json")):
            raise ValueError("the id is not the hash of the trial")
        if self.trial.teachers and self.trial.teachers[0] != self.trial.teacher:
            raise ValueError("the first of the trial's teachers is not its teacher")
        if self.status == "ok" and self.headline not in self.scores:
            raise ValueError(f"there is no score for the headline rule {self.headline!r}")
        if self.status != "ok" and (self.scores or self.agreement is not None):
            raise ValueError(f"a trial with status {self.status!r} has no score")
        return self

    @model_serializer(mode="wrap")
    def _as_first_written(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Records from before there were checksums, and several teachers, stay as they are."""
        values: dict[str, Any] = serialise(self)
        for name in (*SEALS, "ensemble"):
            if not values.get(name):
                values.pop(name, None)
        return values

    def __eq__(self, other: object) -> bool:
        """Whether two records say the same; a checksum says nothing of its own."""
        if not isinstance(other, Record):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in type(self).model_fields if name not in SEALS)

    __hash__ = None  # type: ignore[assignment]  # what is in it has none either


class CurvePoint(_Part):
    """One line of ``curve.jsonl``: the student's score on the way, and what had been spent by then."""

    progress: Share = Field(description="share of the budget used up")
    seconds: Amount
    steps: Count
    teacher_images: Count
    student_images: Count
    gmacs: Amount
    score: Share | None = Field(description="of the current weights; null when they are not finite")
    score_ema: Share | None = Field(default=None, description="of the averaged weights")
    agreement: Share | None = Field(default=None, description="with the teacher, on the test images")
    agreement_ema: Share | None = Field(default=None, description="of the averaged weights with the teacher")
    held_out_agreement: Share | None = Field(
        default=None, description="with the teacher, on synthetic images that were held out from training"
    )
    details: dict[str, Share | None] = Field(
        default_factory=dict, description="further test metrics of the current weights, as in a record's test_metrics"
    )
    details_ema: dict[str, Share | None] = Field(default_factory=dict, description="of the averaged weights")
    logs: dict[str, float | None] = Field(
        default_factory=dict, description="the method's own scalars; null when not finite"
    )


def sealed(record: Record, files: Mapping[str, str] | None = None) -> Record:
    """The same record with its checksum, as it is written.

    Args:
        record: any record.
        files: the checksums of the files beside it, by name; by default those that the record has.
    """
    held = record.files if files is None else dict(sorted(files.items()))
    plain = writable(record.model_copy(update={FILES: held}).model_dump(mode="json", by_alias=True))
    return record.model_copy(update={FILES: held, CHECKSUM: checksum_of(plain)})


def as_json(record: Record) -> str:
    """The text of ``record.json``."""
    plain = writable(record.model_dump(mode="json", by_alias=True))
    return json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
