"""The registry of methods: built in, installed, and in the user's own files."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from bench.errors import UserError, nearest, nearest_file, require_file
from bench.spec.confined_cards import computed_cards
from bench.spec.literals import NotStaticError
from bench.spec.method_card import MethodCard
from bench.spec.method_parser import declares_method, static_cards
from bench.spec.trial import Trial
from bench.utils.user_code import BUILT_IN

ENTRY_POINTS = "dfkd.methods"


def find_methods(files: Iterable[Path] = ()) -> dict[str, MethodCard]:
    """All methods: built in, from installed packages' entry points, and from the given files, by name.

    Raises:
        UserError: a file cannot be read, has a syntax error or no method, or two methods share a name.
    """
    cards = dict(_installed_methods())
    for file in files:
        _register(cards, read_cards(file), str(file))
    return cards


def _register(cards: dict[str, MethodCard], found: Iterable[MethodCard], origin: str) -> None:
    for card in found:
        other = cards.get(card.name)
        if other is not None and other.file != card.file:
            raise UserError(f"{origin}: the name {card.name!r} is taken by {other.file}; give the method another name")
        cards[card.name] = card


@cache
def built_in_methods() -> Mapping[str, MethodCard]:
    """The suite's own, read once: all of them take a third of a second."""
    cards: dict[str, MethodCard] = {}
    for file in sorted(BUILT_IN.glob("*.py")):
        if declares_method(file.read_bytes()):
            _register(cards, read_cards(file, f"methods.{file.stem}"), str(file))
    return cards


@cache
def _installed_methods() -> Mapping[str, MethodCard]:
    cards = dict(built_in_methods())
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        origin = f"entry point {entry.name!r} ({ENTRY_POINTS})"
        try:
            spec = importlib.util.find_spec(entry.module)  # runs the packages around the module, but not the module
        except Exception as error:
            raise UserError(
                f"{origin}: locating {entry.module!r} fails with {type(error).__name__}: {error}"
            ) from error
        if spec is None or spec.origin is None:
            raise UserError(f"{origin} names {entry.module!r}, which is not installed")
        _register(cards, read_cards(Path(spec.origin), entry.module), origin)
    return cards


def get_card(name: str, cards: Mapping[str, MethodCard]) -> MethodCard:
    """The method of a name. Raises UserError with the nearest name, or the file that was meant."""
    if name not in cards:
        raise UserError(f"unknown method {name!r}{nearest_file(name, '.py') or nearest(name, cards)}")
    return cards[name]


def read_cards(file: Path, module: str | None = None) -> list[MethodCard]:
    """The methods that a file declares.

    Raises:
        UserError: no such file, a syntax error (with its line), a wrong declaration, or no method in it.
    """
    file = file.resolve()
    require_file(file, "method file", ".py")
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise UserError(f"{file}{line}: not valid Python: {getattr(error, 'msg', error)}") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    try:
        cards = static_cards(tree, file, module)
    except NotStaticError:
        cards = []
    if not cards:
        cards = computed_cards(file, module)
    if not cards:
        raise UserError(f"{file}: no method found; decorate a function with @method(...), see docs/writing-a-method.md")
    names = [card.name for card in cards]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{file}: two methods are named {name!r}")
    return cards


def card_of(trial: Trial) -> MethodCard:
    """The card of a trial's method. That no other method has its name was seen when the study was planned."""
    if not trial.method_files and trial.method in built_in_methods():
        return built_in_methods()[trial.method]
    return get_card(trial.method, find_methods(trial.method_files))
