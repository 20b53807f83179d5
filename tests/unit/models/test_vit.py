"""Vision transformers: DeiT's numbers, torch's own encoder layer, and what methods ask of every network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from network_cost import macs
from torch import Tensor, nn

from bench.data.image_spec import ImageSpec
from bench.execution import prepare
from bench.execution.contract import run_battery
from bench.models import build, has_batch_norm, layers, stages
from bench.models.cost import MultiplyAdds
from bench.models.vit import Attention, Block, VisionTransformer
from bench.spec.method_registry import find_methods
from bench.spec.task import Recipe, get_task, recipes, tasks

RGB = ImageSpec(channels=3, size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
LARGE = RGB.model_copy(update={"size": 224})
KINDS = ("weight", "bias")


def deit_tiny() -> VisionTransformer:
    """At the paper's size: patches of 16x16 on 224x224 pixels."""
    return VisionTransformer(LARGE, 1000, width=192, depth=12, heads=3, patch=16)


def test_deit_tiny_has_the_papers_size_but_for_its_class_token() -> None:
    with torch.device("meta"):
        network = deit_tiny()
    token_and_its_place = 2 * 192
    assert sum(each.numel() for each in network.parameters()) + token_and_its_place == 5_717_416
    assert round(macs(network, LARGE.shape) / 1e9, 2) == 1.25  # 1.26 with the token


def test_the_multiply_adds_are_those_of_the_products_attention_among_them() -> None:
    length, width, depth = 64, 128, 6
    linear = length * (4 + 8) * width**2  # queries, keys, values, projection; the perceptron's two
    attention = 2 * length**2 * width  # weights, and sums by them
    expected = length * 48 * width + depth * (linear + attention) + 10 * width
    assert macs(build("vit-mini", RGB, 10), RGB.shape) == expected


@pytest.mark.parametrize("mode", ["training", "evaluation", "inference"])
def test_the_same_multiply_adds_are_counted_in_every_mode(mode: str) -> None:
    torch.manual_seed(0)
    network = build("vit-mini", RGB, 10).train(mode == "training")
    with MultiplyAdds() as counted, torch.inference_mode(mode == "inference"):
        network(torch.randn(2, *RGB.shape))
    assert counted.total == 2 * macs(network, RGB.shape)


def test_a_block_computes_what_torchs_encoder_layer_does() -> None:
    torch.manual_seed(0)
    block = Block(24, 3).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    theirs = nn.TransformerEncoderLayer(24, 3, 96, dropout=0, activation="gelu", batch_first=True, norm_first=True)
    names = {
        "norm1": "norm1",
        "norm2": "norm2",
        "attn.proj": "self_attn.out_proj",
        "mlp.0": "linear1",
        "mlp.2": "linear2",
    }
    state = {f"{new}.{kind}": block.state_dict()[f"{old}.{kind}"] for old, new in names.items() for kind in KINDS}
    state |= {f"self_attn.in_proj_{kind}": block.state_dict()[f"attn.qkv.{kind}"] for kind in KINDS}
    theirs = theirs.double()
    theirs.load_state_dict(state)
    theirs.norm1.eps = theirs.norm2.eps = 1e-6
    maps = torch.randn(2, 24, 4, 5, dtype=torch.float64)
    found = block(maps)
    expected = theirs(maps.flatten(2).transpose(1, 2))
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected)
    assert found.shape == maps.shape


def test_the_whole_network_written_out() -> None:
    """Patches by reshaping, each with its own position; the mean of the normed patches; the classifier."""
    torch.manual_seed(0)
    network = VisionTransformer(RGB, 7, width=12, depth=3, heads=2).double()
    images = torch.randn(2, *RGB.shape, dtype=torch.float64)
    patches = images.reshape(2, 3, 8, 4, 8, 4).permute(0, 2, 4, 1, 3, 5).reshape(2, 64, 48)
    tokens = patches @ network.patches.weight.flatten(1).T + network.patches.bias
    tokens = tokens + network.positions.flatten(2).transpose(1, 2)
    for block in network.blocks:
        tokens = tokens + attended(block.attn, block.norm1(tokens))
        tokens = tokens + block.mlp(block.norm2(tokens))
    features = network.norm(tokens).mean(1)
    torch.testing.assert_close(network(images), features @ network.linear.weight.T)  # the bias begins at 0


def attended(layer: Attention, tokens: Tensor) -> Tensor:
    """A head, an image and a token at a time."""
    width = tokens.shape[-1] // layer.heads
    q, k, v = layer.qkv(tokens).chunk(3, -1)
    result = torch.empty_like(tokens)
    for image in range(len(tokens)):
        for head in range(layer.heads):
            part = slice(head * width, (head + 1) * width)
            for token in range(tokens.shape[1]):
                shares = (k[image, :, part] @ q[image, token, part] / width**0.5).softmax(0)
                result[image, token, part] = shares @ v[image, :, part]
    return layer.proj(result)


def test_weights_are_drawn_as_in_deit_and_from_the_global_random_state() -> None:
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(build("vit-mini", RGB, 10).state_dict())
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    for name, value in drawn[0].items():
        if "norm" in name or name.endswith("bias"):
            continue
        assert not torch.equal(value, drawn[2][name])
        if name != "patches.weight":
            assert 0.017 < float(value.std()) < 0.023, name
    assert all(not value.any() for name, value in drawn[0].items() if "bias" in name and "patches" not in name)


def test_answers_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)
    small = RGB.model_copy(update={"size": 8})
    network = VisionTransformer(small, 2, width=4, depth=3, heads=2).double()
    images = torch.randn(1, *small.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(network, images)


@pytest.mark.parametrize(("name", "depth", "width"), [("vit-tiny", 12, 192), ("vit-mini", 6, 128)])
def test_three_stages_and_all_blocks_make_maps(name: str, depth: int, width: int) -> None:
    with torch.device("meta"):
        network = build(name, RGB, 10)
    assert len(layers(network)) == depth
    assert stages(network) == [layers(network)[index - 1] for index in (depth // 3, 2 * depth // 3, depth)]
    shapes: list[tuple[int, ...]] = []
    for stage in stages(network):
        stage.register_forward_hook(lambda *call: shapes.append(tuple(call[2].shape)))
    network(torch.zeros(2, *RGB.shape, device="meta"))
    assert shapes == [(2, width, 8, 8)] * 3
    assert has_batch_norm(name) is False


# ---- a task ----------------------------------------------------------------------------------------------------------


SMALL = """
from bench.models.vit import VisionTransformer

def small(image, classes):
    return VisionTransformer(image, classes, width=16, depth=3, heads=2, patch=8)
"""


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Small vision transformers on the digits; the teacher is trained for an epoch by the large ones' recipe."""
    monkeypatch.setenv("DFKD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small.py").write_text(SMALL, encoding="utf-8")
    task, network = get_task("digits/lenet5-half"), f"{tmp_path / 'small.py'}:small"
    teacher = task.teacher.model_copy(update={"network": network, "recipe": "moment"})
    task = task.model_copy(update={"name": "moment", "teacher": teacher, "student": network})
    moment = recipes()["vit-cifar"].model_dump() | {"epochs": 1, "mixed": False}
    monkeypatch.setitem(recipes(), "moment", Recipe.model_validate(moment))  # type: ignore[index]
    monkeypatch.setitem(tasks(), "moment", task)  # type: ignore[index]
    prepare._dataset.cache_clear()
    yield "moment"
    prepare._dataset.cache_clear()


@pytest.mark.parametrize("name", ["dafl", pytest.param("zskt", marks=pytest.mark.slow)])
def test_a_method_holds_the_contract_on_vision_transformers(tiny: str, name: str) -> None:
    """`zskt` compares the maps of the stages as well."""
    card = find_methods()[name]
    few = replace(card, quick={**card.quick, "batch": 8})
    parts = ("runs", "trains the student", "access", "gradients", "resumes")
    findings = run_battery(few, task=tiny, only=parts, isolation="none")
    assert [finding.name for finding in findings] == list(parts)
    assert not [finding for finding in findings if not finding.ok]


@pytest.mark.parametrize("name", [name for name in tasks() if "vit" in name])
def test_the_tasks_build_their_networks(name: str) -> None:
    task = get_task(name)
    with torch.device("meta"):
        for network in (task.teacher.network, task.student):
            answer = build(network, task.image, task.classes)(torch.zeros(1, *task.image.shape, device="meta"))
            assert answer.shape == (1, task.classes)
