"""Data-free knowledge distillation, measured honestly.

A method file needs only the names below; everything else in this package is internal to the harness.
They are imported on first use, because the command line must answer without loading torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bench._version import __version__ as __version__

if TYPE_CHECKING:
    from bench.errors import Unsupported
    from bench.harness.losses import kl_divergence
    from bench.harness.session import BatchNormStatistics, Session, StudentBatch, TeacherOutput
    from bench.harness.torchdistill_losses import torchdistill_criterion, torchdistill_group_loss
    from bench.models.generators import cmi_generator, dcgan_generator, image_generator, zskt_generator
    from bench.spec.method import Access, Data, method
    from bench.spec.options import option

_WHERE = {
    "Access": "bench.spec.method",
    "BatchNormStatistics": "bench.harness.session",
    "Data": "bench.spec.method",
    "Session": "bench.harness.session",
    "StudentBatch": "bench.harness.session",
    "TeacherOutput": "bench.harness.session",
    "Unsupported": "bench.errors",
    "cmi_generator": "bench.models.generators",
    "dcgan_generator": "bench.models.generators",
    "image_generator": "bench.models.generators",
    "kl_divergence": "bench.harness.losses",
    "method": "bench.spec.method",
    "option": "bench.spec.options",
    "torchdistill_criterion": "bench.harness.torchdistill_losses",
    "torchdistill_group_loss": "bench.harness.torchdistill_losses",
    "zskt_generator": "bench.models.generators",
}

__all__ = [
    "Access",
    "BatchNormStatistics",
    "Data",
    "Session",
    "StudentBatch",
    "TeacherOutput",
    "Unsupported",
    "cmi_generator",
    "dcgan_generator",
    "image_generator",
    "kl_divergence",
    "method",
    "option",
    "torchdistill_criterion",
    "torchdistill_group_loss",
    "zskt_generator",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
