"""What is said of a command line that cannot be parsed: one sentence, as of any other mistake."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from bench.errors import nearest
from bench.utils.text import shown
from bench.utils.yaml import sentence


def usage_sentence(error: Any) -> str:
    """The sentence for typer's ``UsageError``: what is wrong, what is allowed, and where the help is."""
    context = error.ctx
    said = _said(error, context)
    if context is None or "did you mean" in said or "allowed:" in said:
        return said
    return f"{said}; see `{context.command_path} --help`"


def _said(error: Any, context: Any) -> str:
    wrong = error.__cause__
    if isinstance(wrong, ValidationError):
        first = wrong.errors()[0]
        named = error.param.get_error_hint().replace("'", "")  # as the help names it
        return f"{named} {sentence(first, quote=False)}"
    if hasattr(error, "option_name") and hasattr(error, "possibilities"):
        known = [name for each in context.command.get_params(context) for name in each.opts] if context else []
        return f"no such option: {shown(error.option_name)}{nearest(error.option_name, known)}"
    text = shown(error.format_message()).rstrip(".")
    if found := re.fullmatch(r"Got unexpected extra arguments? ?(?:\(s\) )?\((.*)\)|Got unexpected.*\((.*)\)", text):
        return f"unexpected argument: {found[1] or found[2]}"
    text = re.sub(r"[.!] (Did you mean|Allowed)", lambda hint: f"; {hint[1][0].lower()}{hint[1][1:]}", text)
    return text[:1].lower() + text[1:]
