"""The names of metrics, and which are right; what each means is declared in :mod:`bench.spec.metric_declarations`.

The leaderboard, the figures and the regression gate read the declarations; nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bench.errors import UserError, nearest
from bench.spec.metric_declarations import METRICS, Metric

__all__ = ["METRICS", "Metric", "extractor_of", "image_metrics", "metric_of", "needs_student"]

INCEPTION = "inception"
RANDOM = "-random"  # ends the name of an extractor with random weights: nothing to download, nothing to publish
FEATURE_EXTRACTORS = (INCEPTION, f"{INCEPTION}{RANDOM}", "teacher", "vgg16", f"vgg16{RANDOM}")  # and those of OPEN
PERCEPTUAL = tuple(f"{net}{ending}" for net in ("alex", "vgg16", "squeeze") for ending in ("", RANDOM))
OPEN = re.compile(r"lenet5-\w+|torchvision/\w+|[\w./-]+:\w+")
OPEN_WORDS = "lenet5-DATASET, torchvision/NETWORK or MODULE:FUNCTION"
ALIASES = {
    **{name: f"{name}[{INCEPTION}]" for name in ("is", "fid", "kid")},  # what the field means by them
    **{name: f"{name}[alex]" for name in ("lpips", "lpips_all")},
}
PROTOCOLS = {"rdskd_protocol": ("rdskd_is[inception]", "rdskd_fid[inception]", "rdskd_lpips[alex]")}
_OPEN_KINDS = ("EXTRACTOR", "NETWORK", "CLASS")
_FAMILIES = {name.partition("[")[0]: name for name, metric in METRICS.items() if metric.kind == "image"}


def metric_of(name: str) -> Metric | None:
    """The declaration of a metric as a record names it: ``fd[teacher]`` is declared as ``fd[EXTRACTOR]``.

    >>> metric_of("fd[teacher]").name
    'fd[EXTRACTOR]'
    """
    if name in METRICS:
        return METRICS[name]
    family = name.partition("[")[0]
    return next((METRICS[each] for each in (f"{family}[{kind}]" for kind in _OPEN_KINDS) if each in METRICS), None)


def extractor_of(name: str) -> str:
    """What stands in a metric's brackets; empty where it has none.

    >>> extractor_of("fd[teacher]")
    'teacher'
    """
    return name.partition("[")[2].removesuffix("]")


def needs_student(name: str) -> bool:
    """Whether an image metric is one of the images and of the student that was trained on them.

    >>> needs_student("distillation_loss"), needs_student("confidence")
    (True, False)
    """
    metric = metric_of(name)
    return metric is not None and "the student" in metric.needs


def image_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """The metrics that a user's names stand for, each once: ``fid`` is ``fid[inception]``, a protocol all of its own.

    Raises:
        UserError: one is not known, or is one of Inception's with another extractor; the message has the nearest name.
    """
    found: dict[str, None] = {}
    for name in names:
        for each in PROTOCOLS.get(name, (ALIASES.get(name, name),)):
            _check(each)
            found[each] = None
    return tuple(found)


def _check(name: str) -> None:
    family, bracket, rest = name.partition("[")
    if family not in _FAMILIES:
        raise UserError(f"unknown image metric {name!r}{nearest(family, [*_FAMILIES, *PROTOCOLS])}")
    declared, chosen = extractor_of(_FAMILIES[family]), rest.removesuffix("]")
    if bracket and not rest.endswith("]"):
        raise UserError(f"image metric {name!r} lacks its closing bracket")
    if not declared and bracket:
        raise UserError(f"{name!r}: {family} takes no extractor; write it without brackets")
    if not declared:
        return
    if not chosen:
        example = {"NETWORK": "alex", INCEPTION: INCEPTION}.get(declared, "teacher")
        raise UserError(f"image metric {name!r} needs an extractor, such as {family}[{example}]")
    twin = family.replace("fd", "fid") if declared == "EXTRACTOR" else family.replace("fid", "fd")
    if twin in _FAMILIES and twin != family and (chosen == INCEPTION) != (declared == INCEPTION):
        raise UserError(f"{name!r}: the name fid is reserved for Inception; this is {twin}[{chosen}]")
    if declared == "NETWORK" and chosen not in PERCEPTUAL:
        raise UserError(f"{name!r}: unknown network {chosen!r}{nearest(chosen, PERCEPTUAL)}")
    if declared != "NETWORK" and chosen not in FEATURE_EXTRACTORS and not OPEN.fullmatch(chosen):
        raise UserError(
            f"{name!r}: unknown extractor {chosen!r}{nearest(chosen, FEATURE_EXTRACTORS)} (or {OPEN_WORDS})"
        )
