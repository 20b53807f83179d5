"""The extractor ``vgg16`` beside torch-fidelity's network, both from one file with random weights."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch

from bench import data
from bench.metrics import weights
from bench.metrics.embedding import embed, rgb
from bench.metrics.imagenet import library, random_weights, vgg16
from bench.utils.torchvision_compat import torchvision


@pytest.mark.slow
def test_features_are_those_of_torch_fidelity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / weights.FILES["vgg16"].file
    with torch.device("meta"):
        network = torchvision().models.vgg16()
    torch.save(random_weights(network), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(weights, "FILES", {"vgg16": dataclasses.replace(weights.FILES["vgg16"], digest=digest)})
    images = data.load("digits", size=32).test.images[:3]
    features, logits = embed(vgg16("vgg16", tmp_path, torch.device("cpu")), images)
    reference = library("torch_fidelity").FeatureExtractorVGG16(
        "reference", ["fc2_relu"], feature_extractor_weights_path=str(file)
    )
    with torch.no_grad():
        (wanted,) = reference(rgb(images))
    relative = ((features - wanted).abs().max() / wanted.abs().max()).item()
    print(f"relative difference {relative:.1e}")
    assert logits is None
    assert features.shape == (3, 4096)
    assert relative <= 1e-6
