"""The places in a network that a task names for it: its head, its stages, its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

KEPT = "_dfkd_taps"  # an attribute of its own, so that no property of the network's class is in the way
HOW = '`taps:` of the task can name them (docs/studies.md, "Somebody else\'s network")'
SHOWN = 12  # modules that an error names


def tap(network: nn.Module, where: str, image_shape: tuple[int, int, int], places: Mapping[str, Sequence[str]]) -> None:
    """Note the modules at some places; :func:`bench.models.head`, ``stages`` and ``layers`` find them from then on.

    The network's own parameters, buffers and names stay as they are, and so does its state_dict.

    Args:
        network: any network that takes images.
        where: what an error begins with.
        image_shape: (C, H, W) of the images, to try the places with one image without storage.
        places: names of modules as ``named_modules()`` has them, by ``head`` (one), ``stages`` and ``layers``.

    Raises:
        UserError: there is no such module, a forward pass does not come by it exactly once, the places are not in the
            order of the forward pass, a stage or a layer makes no map (N, C, h, w), or a head gives no logits.
    """
    if not any(places.values()):
        return
    modules = {name: module for name, module in network.named_modules(remove_duplicate=False) if name}
    for kind, names in places.items():
        for name in names:
            if name not in modules:
                first = ", ".join(list(modules)[:SHOWN]) + (", ..." if len(modules) > SHOWN else "")
                hint = nearest(name, modules)
                hint = hint if "did you mean" in hint else ""
                raise UserError(f"{where}: {kind}: the network has no module {name!r}{hint} (it has {first})")
    seen, logits = _seen(network, image_shape, {name for names in places.values() for name in names})
    order = {name: number for number, (name, _) in enumerate(seen)}
    for kind, names in places.items():
        for name in names:
            times = sum(name == each for each, _ in seen)
            if times != 1:
                raise UserError(f"{where}: {kind}: a forward pass goes through {name!r} {times} times, not once")
        if (wanted := sorted(names, key=order.__getitem__)) != list(names):
            raise UserError(f"{where}: {kind}: name them in the order of the forward pass: {', '.join(wanted)}")
        for name in names:
            shape = dict(seen)[name]
            if kind == "head":
                if logits and shape[1:2] != logits[1:2]:
                    raise UserError(f"{where}: head: {name!r} gives {shape or 'no tensor'}, not the logits {logits}")
            elif len(shape) != 4:
                raise UserError(f"{where}: {kind}: {name!r} gives {shape or 'no tensor'}, not a map (N, C, h, w)")
    network.__dict__[KEPT] = {kind: {name: modules[name] for name in names} for kind, names in places.items()}


def tapped(network: nn.Module, kind: str) -> dict[str, nn.Module]:
    """The modules that a task names, by name, in the order of the forward pass; empty where it names none."""
    kept: dict[str, dict[str, nn.Module]] = getattr(network, KEPT, {})
    return kept.get(kind, {})


def _seen(
    network: nn.Module, image_shape: tuple[int, int, int], names: set[str]
) -> tuple[list[tuple[str, tuple[int, ...]]], tuple[int, ...]]:
    """The calls of the modules of these names in a forward pass, in order, and the shape of the logits.

    A call is a name and the shape of the output. A shape is empty where there is no tensor.
    """
    import torch

    from bench.models.cost import bare_copy

    ghost = bare_copy(network).to("meta").eval()
    calls: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str, output: Tensor | object) -> None:
        calls.append((name, tuple(output.shape) if isinstance(output, torch.Tensor) else ()))

    for name, module in ghost.named_modules(remove_duplicate=False):
        if name in names:
            module.register_forward_hook(lambda _, __, output, name=name: note(name, output))
    with torch.no_grad():
        output = ghost(torch.empty(1, *image_shape, device="meta"))
    return calls, tuple(output.shape) if isinstance(output, torch.Tensor) else ()
