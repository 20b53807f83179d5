"""How image metrics are named: the extractor is part of the name, and `fid` is Inception's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import UserError
from bench.spec.metric_names import METRICS, extractor_of, image_metrics, metric_of
from bench.utils.yaml import read_yaml


def test_short_names_stand_for_whole_ones_and_nothing_comes_twice() -> None:
    assert image_metrics(["fid", "lpips", "fid[inception]", "fd[teacher]", "kid"]) == (
        "fid[inception]",
        "lpips[alex]",
        "fd[teacher]",
        "kid[inception]",
    )


def test_rdskds_protocol_is_three_metrics() -> None:
    assert image_metrics(["rdskd_protocol"]) == ("rdskd_is[inception]", "rdskd_fid[inception]", "rdskd_lpips[alex]")


@pytest.mark.parametrize(
    "name",
    [
        "class_balance",
        "kid[inception]",
        "fd[inception-random]",
        "fd[lenet5-mnist]",
        "precision[torchvision/resnet18]",
        "coverage[my.module:embed]",
        "fd[folder/own.py:embed]",
        "lpips_all[squeeze-random]",
    ],
)
def test_names_that_are_right_stay_as_they_are(name: str) -> None:
    assert image_metrics([name]) == (name,)
    assert metric_of(name) is not None


BAD = {
    "fd": r"image metric 'fd' needs an extractor, such as fd\[teacher\]",
    "lpips[]": r"image metric 'lpips\[\]' needs an extractor, such as lpips\[alex\]",
    "kid[teacher": r"image metric 'kid\[teacher' lacks its closing bracket",
    "fid[teacher]": r"the name fid is reserved for Inception; this is fd\[teacher\]",
    "fd_infinity[inception]": r"this is fid_infinity\[inception\]",
    "rdskd_fd[inception]": r"this is rdskd_fid\[inception\]",
    "kid[techer]": "unknown extractor 'techer'; did you mean 'teacher'",
    "lpips[vgg]": "unknown network 'vgg'; did you mean 'vgg16'",
    "lpips[teacher]": "unknown network 'teacher'; allowed: alex, ",
    "confidence[teacher]": "confidence takes no extractor; write it without brackets",
    "confidense": "unknown image metric 'confidense'; did you mean 'confidence'",
    "accuracy": "unknown image metric 'accuracy'",
    "iou[road]": "unknown image metric",
}


@pytest.mark.parametrize(("name", "message"), BAD.items(), ids=BAD)
def test_names_that_are_wrong_are_told_with_what_is_allowed(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        image_metrics([name])


def test_a_recorded_name_finds_its_declaration() -> None:
    assert metric_of("fd[teacher]") is METRICS["fd[EXTRACTOR]"]
    assert metric_of("fid[inception]") is METRICS["fid[inception]"]
    assert metric_of("iou[road]") is METRICS["iou[CLASS]"]
    assert metric_of("lpips[alex]") is METRICS["lpips[NETWORK]"]
    assert metric_of("of another version[teacher]") is None
    assert (extractor_of("fd[teacher]"), extractor_of("confidence")) == ("teacher", "")


def test_unquoted_brackets_in_a_yaml_list_are_explained(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("image_metrics: [confidence, fd[teacher]]\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 1: .*inside \[\.\.\.\], quote text that has brackets"):
        read_yaml(file)
