"""How typer behaves in all verbs: plain help, no decorated tracebacks, and errors that say what is allowed."""

from __future__ import annotations

import difflib
from typing import Any, TypedDict

from typer.core import TyperGroup


class _Plain(TypedDict):
    rich_markup_mode: None
    pretty_exceptions_enable: bool


PLAIN: _Plain = {"rich_markup_mode": None, "pretty_exceptions_enable": False}


class Group(TyperGroup):
    """A verb with verbs of its own: an unknown one is answered with the nearest, or else with all."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        unknown = name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing
        if unknown and not difflib.get_close_matches(name, list(self.commands)):  # typer names the nearest itself
            ctx.fail(f"No such command {name!r}. Allowed: {', '.join(self.commands)}.")
        return super().resolve_command(ctx, args)
