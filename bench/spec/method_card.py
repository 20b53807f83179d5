"""What a study and a table need to know about a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.spec.method import Access, Data
from bench.spec.options import OptionSpec, Value, check_value
from bench.utils.code_identity import RULE, RULES


@dataclass(frozen=True)
class MethodCard:
    """What a study and a table need to know about a method; ``module`` and ``file`` say where it runs from."""

    name: str
    title: str
    paper: str
    doc: str
    data: Data
    access: Access
    specs: tuple[OptionSpec, ...]
    presets: Mapping[str, Mapping[str, Value]]
    quick: Mapping[str, Value]
    segmentation: bool
    batch_norm: bool | str
    pool: str
    anchors: int
    layers: bool
    file: Path
    module: str | None  # None: a file outside every package

    @property
    def sha(self) -> str:
        """Hash of what the method's file, and what it uses of other project modules, mean: by the present rule."""
        return RULES[RULE](self.file)

    def sha_by(self, rule: int) -> str | None:
        """The hash that a record of this rule would have of the installed code; None for a rule that is not known."""
        return RULES[rule](self.file) if rule in RULES else None

    def needs_batch_norm(self, options: Mapping[str, Value]) -> bool:
        """Whether the teacher must have batch-norm layers under these options (those left out have their defaults)."""
        if isinstance(self.batch_norm, str):
            return bool({**self.defaults(), **options}[self.batch_norm])
        return self.batch_norm

    def conditions(self) -> list[tuple[str, str]]:
        """What a task must have for it, beyond data and access: name and words of each."""
        where = f" where {self.batch_norm} is not 0" if isinstance(self.batch_norm, str) else ""
        found = [("batch norm", f"the teacher must have it{where}")] if self.batch_norm else []
        found += [("anchors", f"{self.anchors} points of the teacher's training must be known")] if self.anchors else []
        return found + ([("layers", "both networks must name them")] if self.layers else [])

    def defaults(self) -> dict[str, Value]:
        """Every option at its default, in the option's own type: an int that stands for a float is that float."""
        return {spec.name: check_value(spec, spec.default) for spec in self.specs}
