"""A method in a process of its own leaves the same bits as in the harness's: student, scores, counts, also resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
from method_kinds import one_of_each_kind

from bench.execution.contract.short_trials import POINTS, Play, Stage, counts
from bench.spec.method_registry import find_methods
from bench.spec.requirements import default_task
from bench.utils.confinement import available, why_not

QUICK = ("dafl",)  # with a generator and gradients through the teacher: all that passes between the two processes
METHODS = tuple(find_methods())
KINDS = tuple(sorted({"dafl", *one_of_each_kind(find_methods().values()).values()}))


def outcome(play: Play) -> dict[str, object]:
    record = play.record
    assert record.status == "ok", record.reason
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in play.curve]
    return {
        "student": play.student,
        "scores": record.scores,
        "agreement": record.agreement,
        "images": record.images,
        "counts": counts(record),
        "curve": rows,
        "access": play.used,
        "parameters": play.parameters,
    }


def _of_the_whole(play: Play) -> dict[str, object]:
    """Without what was seen of the last part alone: a resumed trial does not repeat finished loops."""
    return {name: value for name, value in outcome(play).items() if name not in ("access", "parameters")}


@pytest.mark.skipif(available() is None, reason=why_not())
@pytest.mark.parametrize(
    ("name", "memory_format"),
    [
        *(pytest.param(each, "channels_last", marks=() if each in QUICK else pytest.mark.slow) for each in METHODS),
        # other kernels, the same code: one method of each kind tells
        *(pytest.param(each, "contiguous", marks=pytest.mark.slow) for each in KINDS),
    ],
)
def test_both_modes_give_the_same_bits(name: str, memory_format: str, tmp_path: Path) -> None:
    card = find_methods()[name]
    stages = {
        mode: Stage(card, default_task(card), (), tmp_path / mode, isolation=mode, memory_format=memory_format)
        for mode in ("none", "process")
    }
    here = stages["none"].play(points=POINTS)
    there = stages["process"].play(points=POINTS)
    assert outcome(there) == outcome(here)
    assert there.record.provenance["isolation"]["mode"] == "process"
    assert here.record.provenance["isolation"]["mode"] == "none"
    stops = tuple(round(here.record.meter.steps * share) for share in (0.15, 0.45, 0.8))
    resumed = stages["process"].play(points=POINTS, stops=stops)
    assert resumed.record.resumed == len(stops)
    assert _of_the_whole(resumed) == _of_the_whole(here)
    if memory_format == "channels_last":
        again = stages["none"].play(points=POINTS, stops=stops)
        assert again.record.resumed == len(stops)
        assert _of_the_whole(again) == _of_the_whole(here)


# with three channels, and maps that have places: what LeNet on grey images cannot tell apart
@pytest.mark.skipif(available() is None, reason=why_not())
@pytest.mark.slow
@pytest.mark.parametrize("name", ["dfad", "kd"])
def test_both_modes_give_the_same_bits_in_channels_last_for_segmentation(name: str, tmp_path: Path) -> None:
    card = find_methods()[name]
    stages = {
        mode: Stage(card, "shapes/unet-small", (), tmp_path / mode, isolation=mode, memory_format="channels_last")
        for mode in ("none", "process")
    }
    budget = {"steps": 3}
    here = stages["none"].play(points=2, budget=budget)
    assert outcome(stages["process"].play(points=2, budget=budget)) == outcome(here)
    assert _of_the_whole(stages["process"].play(points=2, budget=budget, stops=(2,))) == _of_the_whole(here)
