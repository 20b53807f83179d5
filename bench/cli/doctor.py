"""``dfkd doctor``."""

from __future__ import annotations

import dataclasses

from bench.cli import out
from bench.cli.settings import DataFolder, Json


def doctor(data: DataFolder = None, as_json: Json = False) -> None:
    """Show what there is to work with, and for each thing that is missing how to fix it."""
    from bench.execution.doctor import examine

    facts = examine(data)
    if as_json:
        return out.print_json([dataclasses.asdict(fact) for fact in facts])
    group, missing = "", 0
    for fact in facts:
        if fact.group != group:
            out.say(("\n" if group else "") + fact.group)
            group = fact.group
        out.say(f"  {'✓' if fact.ok else '✗'} {fact.name}: {fact.value}")
        if not fact.ok:
            missing += 1
            out.say(f"      to fix it: {fact.fix}")
    return out.say(f"\n{out.count(missing, 'problem')} found" if missing else "\nno problems found")
