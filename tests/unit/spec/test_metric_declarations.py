"""What metrics declare of themselves, and that it is true."""

from __future__ import annotations

import pytest
import torch
from scene_fixtures import scored
from torch import nn

from bench.records import MeterReading
from bench.spec.metric_names import METRICS, metric_of

OF_IMAGES = [name for name, metric in METRICS.items() if metric.kind == "image"]
ON_TEACHER = [
    name.replace("EXTRACTOR", "teacher") for name in OF_IMAGES if "NETWORK" not in name and "inception" not in name
]


def test_every_metric_says_what_it_is() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.doc
        assert metric.unit
        assert metric.low is None or metric.high is None or metric.low < metric.high


def test_every_cost_in_a_record_is_declared_and_less_of_it_is_better() -> None:
    costs = {name: metric.higher_is_better for name, metric in METRICS.items() if metric.kind == "cost"}
    assert costs == dict.fromkeys(MeterReading.model_fields, False)


def extremes() -> dict[str, torch.Tensor]:
    stream = torch.Generator().manual_seed(0)
    pair = torch.stack([torch.zeros(1, 4, 4), torch.full((1, 4, 4), 255)]).to(torch.uint8)
    return {
        "black and white": pair,
        "many of both": pair.repeat(50, 1, 1, 1),
        "all the same": torch.full((9, 1, 4, 4), 7, dtype=torch.uint8),
        "noise": torch.randint(256, (64, 1, 4, 4), generator=stream).to(torch.uint8),
    }


@pytest.mark.parametrize("images", extremes().values(), ids=extremes())
def test_declared_bounds_hold_for_the_strangest_images(images: torch.Tensor) -> None:
    for weight in (0.0, 1.0, 50.0):  # undecided, telling, certain
        with torch.random.fork_rng():
            torch.manual_seed(1)
            layer = nn.Linear(16, 3)
            nn.init.normal_(layer.weight, std=weight)
            nn.init.zeros_(layer.bias)
        teacher = nn.Sequential(nn.Flatten(), layer)
        student = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        scores = scored(ON_TEACHER, images, teacher=teacher, student=student, classes=3)
        assert list(scores) == ON_TEACHER
        for name, score in scores.items():
            metric = metric_of(name)
            assert metric is not None
            assert score["status"] != "failed", (name, score["note"])
            if score["value"] is not None:
                assert metric.low is None or score["value"] >= metric.low - 1e-6, name
                assert metric.high is None or score["value"] <= metric.high + 1e-6, name
