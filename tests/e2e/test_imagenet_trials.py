"""A study on ImageNet's folders as a user runs it: processes of their own, no training images, an imported teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tree_files import write_image

from bench import data
from bench.cli import answer
from bench.data.batches import normalise
from bench.data.wnids import IMAGENET
from bench.models import build
from bench.records import load_records
from bench.spec.task import read_tasks

TASKS = """\
- name: small
  data: imagenet
  image: {channels: 3, size: 32, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
  teacher: {network: torchvision/resnet18}
  student: torchvision/mobilenet_v2
"""
STUDY = """\
name: s
tasks: [tasks.yaml]
methods: [noise: {batch: 4}, kd: {batch: 4}]
budget: {steps: 2}
points: 1
"""


@pytest.mark.slow
def test_a_study_without_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each of the thousand classes there is one image, where officially there are fifty."""
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DFKD_DATA", raising=False)
    place = tmp_path / "data"
    for number, name in enumerate(IMAGENET):
        write_image(place / "imagenet" / "val" / name / "ILSVRC2012_val_00000001.JPEG", 40, 36, seed=number)
    (tmp_path / "tasks.yaml").write_text(TASKS)
    (task,) = read_tasks(tmp_path / "tasks.yaml")
    test = data.load("imagenet", size=32, folder=place, allow_altered=True).test
    torch.manual_seed(0)
    network = build(task.teacher.network, task.image, task.classes).eval()
    seen: list[torch.Tensor] = []
    network.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    with torch.no_grad():
        network(normalise(test.images, task.image))
        found = torch.linalg.lstsq(seen[0].double(), torch.eye(1000, dtype=torch.float64), driver="gelsd").solution
        network.fc.weight.copy_(found.T)  # type: ignore[union-attr,operator]
    torch.save(network.state_dict(), tmp_path / "teacher.pth")
    options = ["--data", str(place), "--allow-altered"]
    imported = ["teacher", "import", str(tmp_path / "teacher.pth"), "--task", "small"]
    assert answer([*imported, "--tasks", str(tmp_path / "tasks.yaml"), *options]) == 0
    key = next(path.name for path in (tmp_path / "cache" / "teachers").iterdir() if path.is_dir())
    (tmp_path / "study.yaml").write_text(STUDY + f"teachers: {{small: {key}}}\n")
    results = tmp_path / "out"
    assert answer(["run", str(tmp_path / "study.yaml"), "--results", str(results), *options]) == 1
    records = {record.trial.method: record for record in load_records(results)}
    assert {name: record.status for name, record in records.items()} == {"noise": "ok", "kd": "missing_data"}
    facts = records["noise"].provenance
    assert facts["data"]["altered"] == ["imagenet/val"]
    again = data.load("imagenet", size=32, folder=place, allow_altered=True)
    assert facts["data"]["fingerprint"] == again.fingerprint
    assert records["kd"].reason.startswith("kd needs real training images, and imagenet has none here; ask for")
