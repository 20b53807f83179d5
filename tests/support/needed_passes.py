"""The forward and backward passes that each algorithm cannot do without, read from the methods' descriptions.

They are derived from the algorithms, not from what the code calls, so that a needless pass of the code shows: against
them the number of passes is tested, and the time of a step measured. One entry a method, a function of its options that
gives the passes of each kind of step:

- ``generator``: images are improved (by a generator or on themselves); the student's weights stay.
- ``student``: the student's weights move, and no generator's.
- ``both``: one step of the method's loop does both.

A pass is one forward pass of a network over a number of images and the backward pass that follows: none, to its input
alone (``INPUT``: a frozen network that images are improved against), or to its weights (``WEIGHTS``; in a generator
that includes the way to its codes, in a student that learns from given images nothing goes to the input).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

NOTHING, INPUT, WEIGHTS = "nothing", "input", "weights"
SELECTED = 0  # a count that depends on the images


class Pass(NamedTuple):
    """A forward pass over ``count`` inputs, and where its backward pass leads."""

    network: str  # "teacher", "student", or the name under which a method keeps it
    count: int
    to: str = NOTHING
    training: bool = True  # the mode, where it has one; the teacher is always in evaluation mode


Passes = Mapping[str, Sequence[Pass]]


def _student_step(count: int) -> list[Pass]:
    """Images that are there already: the teacher answers, the student learns."""
    return [Pass("teacher", count), Pass("student", count, WEIGHTS)]


def _adversarial(count: int, generator: str = "generator", training: bool = True) -> list[Pass]:
    """A generator learns through teacher and student."""
    return [
        Pass(generator, count, WEIGHTS),
        Pass("teacher", count, INPUT),
        Pass("student", count, INPUT, training),
    ]


def noise(o: Any) -> Passes:
    fresh = [Pass("generator", o.batch)] if o.kind == "generator" else []
    return {"student": [*fresh, *_student_step(o.batch)]}


def kd(o: Any) -> Passes:
    return {"student": _student_step(o.batch)}


def scratch(o: Any) -> Passes:
    return {"student": [Pass("student", o.batch, WEIGHTS)]}


def prokt(o: Any) -> Passes:
    """The teacher is a copy that learns, held to the student's answers; then the student follows its new answers.

    The answers that are followed are those of evaluation mode.
    """
    return {
        "both": [
            Pass("student", o.batch, training=False),
            Pass("teacher", o.batch, WEIGHTS),
            Pass("teacher", o.batch),
            Pass("student", o.batch, WEIGHTS),
        ]
    }


def dfa(o: Any) -> Passes:
    """A search step is one of the mixture and one of the weights, on a batch each; then the student follows.

    ``search I``: of the I-th layer group (the networks here have three). Each of its two steps needs the teacher's
    maps, the student's up to the group's end, and the student from there on; the last is a whole pass here, as the
    student is called whole. The mixture's step ends at the maps that are put into the student, not at its input.
    """

    def search(group: int) -> list[Pass]:
        mixture = [
            *(Pass("teacher", o.batch), Pass("student", o.batch), Pass("student", o.batch)),
            *(Pass(f"to_teacher_{group}", o.batch), Pass(f"to_student_{group}", o.batch, INPUT)),
        ]
        weights = [
            *(Pass("teacher", o.batch), Pass("student", o.batch, WEIGHTS), Pass("student", o.batch, WEIGHTS)),
            *(Pass(f"{connector}_{group}", o.batch, WEIGHTS) for connector in ("to_teacher", "to_student")),
        ]
        return mixture + weights

    adapted = [Pass(f"to_teacher_{group}", o.batch, WEIGHTS) for group in range(3)]
    return {
        **{f"search {group}": search(group) for group in range(3)},
        "student": [*_student_step(o.batch), *adapted],
    }


def dfnd(o: Any) -> Passes:
    """The teacher looks over the pool once; the noise layer learns from the answers of the student's step.

    ``survey``: a batch of the pool is judged.
    """
    return {"survey": [Pass("teacher", o.batch)], "student": _student_step(o.batch)}


def kd3(o: Any) -> Passes:
    """The teacher's answers to the pool are kept, the student is asked again; contrast needs mixed images as well.

    ``first survey``: of a batch that the teacher has not seen; ``survey``: of one that it has.
    """
    asked = Pass("student", o.batch, training=False)
    contrast = [Pass("student", o.batch, WEIGHTS)] if o.contrast else []
    return {
        "first survey": [Pass("teacher", o.batch), asked],
        "survey": [asked],
        "student": [*_student_step(o.batch), Pass("adapter", o.batch, WEIGHTS), *contrast],
    }


def dafl(o: Any) -> Passes:
    """One batch serves both networks: L_oh, L_ie, L_a and the student's loss are of the same T(x)."""
    return {
        "both": [
            Pass("generator", o.batch, WEIGHTS),
            Pass("teacher", o.batch, INPUT),
            Pass("student", o.batch, WEIGHTS),
        ]
    }


def dfad(o: Any) -> Passes:
    """Every imitation step has fresh images, and so has the generation step."""
    imitation = [Pass("generator", o.batch), *_student_step(o.batch)]
    return {"both": imitation * o.student_steps + _adversarial(o.batch)}


def zskd(o: Any) -> Passes:
    return {"generator": [Pass("teacher", o.batch, INPUT)], "student": _student_step(o.batch_student)}


def rdskd(o: Any) -> Passes:
    """The codes' two halves are one batch; phase 2 freezes the generator, in evaluation mode."""
    return {
        "generator": [Pass("generator", o.batch, WEIGHTS), Pass("teacher", o.batch, INPUT)],
        "student": [Pass("generator", o.batch_student, training=False), *_student_step(o.batch_student)],
    }


def deepdream(o: Any) -> Passes:
    """Images learn against the teacher; the student's views of them are new each time, and so are their labels."""
    return {"generator": [Pass("teacher", o.batch, INPUT)], "student": _student_step(o.batch_student)}


def adi(o: Any) -> Passes:
    """With competition images are also made against the student, in evaluation mode; the first ones are not."""
    competing = [Pass("student", o.batch, INPUT, training=False)] if o.competition else []
    return {
        "first images": [Pass("teacher", o.batch, INPUT)],
        "generator": [Pass("teacher", o.batch, INPUT), *competing],
        "student": _student_step(o.batch_student),
    }


def zskt(o: Any) -> Passes:
    """All student steps on one batch of images, which the teacher sees once."""
    return {
        "both": [
            *_adversarial(o.batch) * o.generator_steps,
            Pass("generator", o.batch),
            Pass("teacher", o.batch),
            *[Pass("student", o.batch, WEIGHTS)] * o.student_steps,
        ]
    }


def dfq(o: Any) -> Passes:
    fresh = Pass("generator", o.batch, training=o.sampling == "train")
    return {"generator": _adversarial(o.batch, training=False), "student": [fresh, *_student_step(o.batch)]}


def ddad(o: Any) -> Passes:
    return {"generator": _adversarial(o.batch), "student": [Pass("generator", o.batch), *_student_step(o.batch)]}


def pre_dfkd(o: Any) -> Passes:
    """A replay improves its codes once; the teacher's answer to the student's novel images serves the memory as well.

    ``first fit``: a student step of the first round with a memory update, which then has no replay of its own; ``fit``:
    of a later round; ``student``: a student step without.
    """
    fitted = min(o.batch_fit, o.batch)

    def replay(training: bool) -> list[Pass]:
        return [
            Pass("memory", o.batch_memory, INPUT, training),
            Pass("teacher", o.batch_memory, INPUT),
            Pass("memory", o.batch_memory, training=training),
        ]

    student = [Pass("generator", o.batch), *replay(training=False), *_student_step(o.batch + o.batch_memory)]

    def fit(count: int) -> list[Pass]:
        return [Pass("encoder", count, WEIGHTS), Pass("memory", count, WEIGHTS), Pass("teacher", count, INPUT)]

    return {
        "generator": _adversarial(o.batch),
        "first fit": [*student, *fit(fitted)],
        "fit": [*student, *replay(training=True), Pass("teacher", o.batch_memory), *fit(fitted + o.batch_memory)],
        "student": student,
    }


def cmi(o: Any) -> Passes:
    """The contrast needs a second view of the images, and its head one pass over each side, only one of which learns.

    ``bank``: how many features of earlier images come along (0 in the first synthesis call).
    """
    size, bank = o.batch_synthesis, o.bank_sample
    contrast = [
        Pass("teacher", size, INPUT),
        Pass("head", size + bank),
        Pass("head", size + bank, WEIGHTS),
    ]
    return {
        "generator": [*_adversarial(size, training=False), *(contrast if o.contrast else [])],
        "student": _student_step(o.batch),
    }


def fast_dfkd(o: Any) -> Passes:
    """What is trained is a copy of the generator; the generator itself takes the copy's gradients, without a pass.

    ``warm-up``: a generator step before the student begins, without the adversarial term.
    """
    network = "generator" if o.meta == "none" else "inner"
    adversarial = _adversarial(o.batch_synthesis, network, training=False)
    return {
        "warm-up": adversarial[:2],
        "generator": adversarial,
        "student": _student_step(o.batch),
    }


def lra(o: Any) -> Passes:
    """The virtual step's two passes learn too: the student's gradient goes through both.

    ``first student``: of a student step that has nothing to remember yet.
    """
    remembered = min(o.batch_memory, o.batch)
    virtual = [Pass("student", o.batch, WEIGHTS), Pass("student", remembered, WEIGHTS)] if o.retention else []
    return {
        "generator": _adversarial(o.batch),
        "first student": [Pass("generator", o.batch), *_student_step(o.batch)],
        "student": [Pass("generator", o.batch), *_student_step(o.batch + remembered), *virtual],
    }


def mad(o: Any) -> Passes:
    """The student follows on a batch of the generator's and one of its average's, in one pass."""
    fresh = [Pass(name, o.batch) for name in ("generator", "average")]
    return {"student": [*fresh, *_student_step(2 * o.batch)], "generator": _adversarial(o.batch)}


def nayer(o: Any) -> Passes:
    """The generator takes labels; ``warm-up``: a generator step before the student begins."""
    adversarial = _adversarial(o.batch_synthesis, training=False)
    return {"warm-up": adversarial[:2], "generator": adversarial, "student": _student_step(o.batch)}


def ta_dfkd(o: Any) -> Passes:
    """``selection``: a batch is judged; the generator's step judges one of its own and goes on with a part of it."""
    judged = Pass("teacher", o.batch)
    return {
        "selection": [Pass("generator", o.batch), judged],
        "student": _student_step(o.batch),
        "generator": [
            *(Pass("generator", o.batch, WEIGHTS), judged),
            *(Pass("teacher", SELECTED, INPUT), Pass("student", SELECTED, INPUT)),
        ],
    }


def cudfkd(o: Any) -> Passes:
    """``warm-up``: a generator step while the adversarial term has no weight; the student's images come evaluated."""
    adversarial = _adversarial(o.batch, training=False)
    fresh = Pass("generator", o.batch, training=False)
    return {"warm-up": adversarial[:2], "generator": adversarial, "student": [fresh, *_student_step(o.batch)]}


def cpsc_dfkd(o: Any) -> Passes:
    """The student's features pass the adapter, where its maps have other channels than the teacher's, as here."""
    return {
        "generator": [*_adversarial(o.batch), Pass("adapter", o.batch, INPUT)],
        "student": [Pass("generator", o.batch), *_student_step(o.batch)],
    }


def csd(o: Any) -> Passes:
    """The auxiliary task sees each image in four turns: through the student in a call, and its features afterwards.

    ``warm-up``: a generator step before the student begins.
    """
    size = o.batch_synthesis
    plain = [Pass("generator", size, WEIGHTS), Pass("teacher", size, INPUT)]
    hard = [Pass("student", 4 * size, INPUT, training=False), Pass("auxiliary", 4 * size, INPUT)]
    task = [Pass("student", 4 * o.batch, training=False), Pass("auxiliary", 4 * o.batch, WEIGHTS)]
    return {
        "warm-up": plain,
        "generator": [*plain, *hard],
        "student": [*_student_step(o.batch), Pass("connector", o.batch, WEIGHTS), *task],
    }


def spaceshipnet(o: Any) -> Passes:
    """The student's images are made from a point inside the generator on. Grad-CAM's gradients end at maps."""
    return {
        "generator": [Pass("generator", o.batch_synthesis, WEIGHTS), Pass("teacher", o.batch_synthesis, INPUT)],
        "student": [Pass("generator", o.batch, training=False), *_student_step(o.batch)],
    }


def adadfkd(o: Any) -> Passes:
    """``warm-up``: the first generator step, with an empty bank and no adversarial weight."""
    return cudfkd(o)


NEEDED: Mapping[str, Callable[[Any], Passes]] = {
    "noise": noise,
    "kd": kd,
    "kd_related": kd,
    "kd_unrelated": kd,
    "scratch": scratch,
    "osakd": scratch,  # the neighbours are found among the outputs that are there
    "sd_dropout": scratch,  # the masked features go through the head alone once more
    "wsl": kd,
    "rco": kd,  # the teacher is asked at one of its anchors
    "prokt": prokt,
    "dfa": dfa,
    "dfnd": dfnd,
    "kd3": kd3,
    "dafl": dafl,
    "dfad": dfad,
    "zskd": zskd,
    "rdskd": rdskd,
    "deepdream": deepdream,
    "deepinversion": deepdream,  # the statistics come with the teacher's own pass
    "adi": adi,
    "zskt": zskt,
    "dfq": dfq,
    "ddad": ddad,
    "pre_dfkd": pre_dfkd,
    "cmi": cmi,
    "fast_dfkd": fast_dfkd,
    "ssd_kd": fast_dfkd,
    "lra": lra,
    "mad": mad,
    "nayer": nayer,
    "ta_dfkd": ta_dfkd,
    "cudfkd": cudfkd,
    "cpsc_dfkd": cpsc_dfkd,
    "csd": csd,
    "spaceshipnet": spaceshipnet,
    "adadfkd": adadfkd,
}
