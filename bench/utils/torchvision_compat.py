"""Makes torchvision importable on a torch build without its compiled operators.

torchvision's wheels are built against the default torch of the same release. Next to a CPU-only build their extension
may not load; torchvision then stops at import, because it describes two operators, ``nms`` and ``qnms``, that nobody
has declared. Declaring them (without an implementation: calling one still fails, clearly) lets the import pass.
"""

from __future__ import annotations

import importlib
from types import ModuleType

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list[object] = []  # torch.library forgets a declaration when its Library object dies


def torchvision() -> ModuleType:
    """Import torchvision, declaring the operators that its compiled extension failed to bring.

    Call this before importing any library that imports torchvision (torchmetrics, lpips, torch-fidelity, timm).
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    declare_operators()
    return importlib.import_module("torchvision")


def declare_operators() -> None:
    """Declare ``torchvision::nms`` and ``torchvision::qnms`` where they are missing."""
    import torch

    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(schema)
            _libraries.append(library)
