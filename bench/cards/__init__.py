"""The registry of methods: what each file declares, read without running it.

A method file imports torch, which takes seconds; listing methods and checking a study must not. So a card is read from
the file's syntax tree (:mod:`bench.cards.static`). A file that computes its declaration is imported instead: slower,
the same answer.
"""

from bench.cards.card import MethodCard
from bench.cards.loading import load_method
from bench.cards.registry import ENTRY_POINTS, find_methods, get_card, read_cards
from bench.cards.source import BUILT_IN, source_hash

__all__ = [
    "BUILT_IN",
    "ENTRY_POINTS",
    "MethodCard",
    "find_methods",
    "get_card",
    "load_method",
    "read_cards",
    "source_hash",
]
