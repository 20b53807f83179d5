"""How typer behaves in all verbs: plain help, and no decorated tracebacks."""

from __future__ import annotations

from typing import TypedDict


class _Plain(TypedDict):
    rich_markup_mode: None
    pretty_exceptions_enable: bool


PLAIN: _Plain = {"rich_markup_mode": None, "pretty_exceptions_enable": False}
