"""Trials in a memory format: what lies in it, that it is only an order, and that it survives all of a trial."""

from __future__ import annotations

import copy
import io
import os
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam

from bench import image_generator
from bench.harness.isolation.channel import Channel, Kind, Message, shared_memory
from bench.harness.session import session_for
from bench.harness.trial_context import TrialContext
from bench.utils.memory_format import is_channels_last, laid_out, lay_out

MakeContext = Callable[..., TrialContext]
SHAPES = [(4, 3, 8, 8), (4, 1, 8, 8), (1, 1, 1, 1), (6, 1, 5, 5), (5, 7, 1, 1), (1, 3, 4, 6)]


def images(shape: tuple[int, ...]) -> Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_strides_are_exact_even_where_two_formats_are_one(shape: tuple[int, int, int, int]) -> None:
    value = laid_out(images(shape), "channels_last")
    _, c, h, w = shape
    assert value.stride() == (c * h * w, 1, w * c, c)
    assert torch.equal(value, images(shape))
    assert is_channels_last(value)
    assert is_channels_last(value.clone())
    assert is_channels_last(torch.zeros_like(value))  # an optimiser's averages
    assert laid_out(value, "channels_last") is value


def test_contiguous_leaves_a_tensor_as_it_is() -> None:
    crossed = images((4, 3, 8, 8)).transpose(2, 3)
    assert laid_out(crossed, "contiguous") is crossed
    line = images((4, 3))
    assert laid_out(line, "channels_last") is line


def test_a_network_keeps_its_parameters_and_a_copy_its_format() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv3d(2, 2, 1), nn.Conv2d(4, 4, 1))
    before = [id(each) for each in network.parameters()]
    values = [each.detach().clone() for each in network.parameters()]
    assert lay_out(network, "channels_last") is network
    assert [id(each) for each in network.parameters()] == before
    assert all(torch.equal(now, then) for now, then in zip(network.parameters(), values, strict=True))
    saved = io.BytesIO()
    torch.save(network.state_dict(), saved)
    saved.seek(0)
    for state in (network.state_dict(), copy.deepcopy(network).state_dict(), torch.load(saved)):
        assert [is_channels_last(value) for value in state.values() if value.ndim == 4] == [True, True]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tensor_has_the_same_strides_on_the_other_side_of_a_channel(shape: tuple[int, int, int, int]) -> None:
    memory = shared_memory()
    (there_in, here_out), (here_in, there_out) = os.pipe(), os.pipe()
    here, there = Channel(memory, here_in, here_out, judge=True), Channel(memory, there_in, there_out, judge=False)
    sent = [laid_out(images(shape), "channels_last"), images(shape)]
    thread = threading.Thread(target=here.send, args=(Message(Kind.GOOD, tensors=sent),))
    thread.start()
    found = there.receive().tensors
    thread.join()
    for side in (here, there):
        side.close()
    os.close(memory)
    for before, after in zip(sent, found, strict=True):
        assert torch.equal(before, after)
        assert before.stride() == after.stride()
        assert after._base is None  # autograd adds up gradients otherwise where one is a view, in other strides


def test_all_networks_of_a_trial_lie_in_its_format(make_context: MakeContext) -> None:
    with make_context(memory_format="channels_last") as context:
        context.clock.start()
        s = session_for(context.image, 10)
        generator = s.keep("generator", image_generator(8, context.image, 4))
        networks = [context.student, context.average, generator, s.teacher.copy()]
        for network in networks:
            weights = [each for each in network.parameters() if each.ndim == 4]
            assert weights
            assert all(is_channels_last(each) for each in weights)
        optimizer = s.keep("opt", Adam(generator.parameters()))
        for _ in s.steps("train"):
            s.update(optimizer, generator(s.noise(4, 8)).square().mean() + s.student(generator(s.noise(4, 8))).mean())
            break
        for parameter, state in optimizer.state.items():
            assert state["exp_avg"].stride() == parameter.stride()
        state = context.state()
        kept = state["kept"]["opt"]["state"]
        assert all(
            each["exp_avg"].stride() == p.stride()
            for each, p in zip(kept.values(), generator.parameters(), strict=True)
        )


def test_the_networks_of_a_contiguous_trial_are_as_they_were_built(make_context: MakeContext) -> None:
    with make_context() as context:
        assert all(each.is_contiguous() for each in context.student.parameters())
        generator = session_for(context.image, 10).keep("generator", image_generator(8, context.image, 4))
        assert not any(is_channels_last(each) for each in generator.parameters())
