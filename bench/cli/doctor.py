"""``dfkd doctor``."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import out
from bench.cli.settings import DataFolder, Json

if TYPE_CHECKING:
    from bench.execution.doctor import Fact

HOW = {  # in one line for all of a group that is missing
    "data sets": "`dfkd data status NAME` says how to get one",
    "teachers": "`dfkd run` trains those that it needs",
    "weights": "`dfkd weights fetch NAME`, for image metrics",
}


def doctor(
    data: DataFolder = None,
    everything: Annotated[
        bool, typer.Option("--all", help="A line for each item, with the command that gets what is missing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what is broken and how to fix it, what is missing, and what is available. Missing items are optional."""
    from bench.execution.doctor import examine

    facts = list(examine(data))
    if as_json:
        return out.print_json([dataclasses.asdict(fact) for fact in facts])
    if everything:
        _print_all(facts)
    else:
        _print_short(facts)
    broken = [fact for fact in facts if not fact.ok and not fact.absent]
    absent = sum(fact.absent for fact in facts)
    found = f"{len(broken)} broken" if broken else "nothing is broken"
    more = "" if everything or not absent else "; `dfkd doctor --all` says how to get each"
    return out.say(f"\n{found}, {absent} missing{more}")


def _print_all(facts: Iterable[Fact]) -> None:
    group = ""
    for fact in facts:
        if fact.group != group:
            out.say(("\n" if group else "") + fact.group)
            group = fact.group
        out.say(f"  {'✓' if fact.ok else '-' if fact.absent else '✗'} {fact.name}: {fact.value}")
        if not fact.ok:
            out.say(f"      {'to get it' if fact.absent else 'to fix it'}: {fact.fix}")


def _print_short(facts: Sequence[Fact]) -> None:
    """What is broken, line by line; of the rest, a paragraph for each group."""
    broken = [fact for fact in facts if not fact.ok and not fact.absent]
    if broken:
        out.say("broken")
    for fact in broken:
        out.say(f"  ✗ {fact.group}, {fact.name}: {fact.value}")
        out.say(f"      to fix it: {fact.fix}")
    absent = [fact for fact in facts if fact.absent]
    if absent:
        out.say(("\n" if broken else "") + "missing")
    for group in dict.fromkeys(fact.group for fact in absent):
        names = [fact.name for fact in absent if fact.group == group]
        shown = names if group != "teachers" else [f"{len(names)} of {_all(facts, group)}"]
        _paragraph(group, f"{', '.join(shown)} ({HOW[group]})")
    out.say(("\n" if broken or absent else "") + "available")
    for group in dict.fromkeys(fact.group for fact in facts):
        there = [f"{fact.name} {_brief(fact)}".rstrip() for fact in facts if fact.ok and fact.group == group]
        if there:
            _paragraph(group, ", ".join(there))


def _all(facts: Iterable[Fact], group: str) -> int:
    return sum(fact.group == group for fact in facts)


def _brief(fact: Fact) -> str:
    if fact.group == "teachers":
        return fact.value.rpartition("test score ")[2]
    return "" if fact.value.startswith("complete") else fact.value


def _paragraph(name: str, text: str) -> None:
    width, indent = out.console().width, " " * 13
    lines = textwrap.wrap(text, width, initial_indent=f"  {name:<11}", subsequent_indent=indent, break_on_hyphens=False)
    out.say("\n".join(lines))
