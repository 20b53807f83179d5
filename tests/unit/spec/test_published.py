"""Quoted numbers: each has a source and a unit, and what is needed to compare with it; wrong ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bench.errors import UserError
from bench.spec.method_registry import find_methods
from bench.spec.options import check_values
from bench.spec.presets import preset
from bench.spec.published import PAPERS, UNCHECKED, Published, PublishedScore, get_paper, papers
from bench.spec.task import TaskSpec, read_tasks, tasks

QUOTES = [
    (task, quote)
    for task in tasks().values()
    for quote in filter(None, (task.published.teacher, *task.published.methods))
]
NAMES = [f"{task.name} {quote.method or 'teacher'} {quote.paper} {quote.note}".strip() for task, quote in QUOTES]


def is_printed(share: float, unit: str) -> bool:
    """Whether a share may stand in a table: `98.20` in percent, `.983` as a share."""
    digits = {"percent": 4, "share": 3}[unit]
    return round(share, digits) == share


@pytest.mark.parametrize(("task", "quote"), QUOTES, ids=NAMES)
def test_every_quoted_number_has_a_source_and_is_what_its_unit_allows(task: TaskSpec, quote: PublishedScore) -> None:
    paper = get_paper(quote.paper)
    assert paper.place in quote.source
    assert "+-" not in quote.source, "the deviation has a field of its own"
    assert (UNCHECKED in quote.source) == (not quote.checked)
    assert 0 < quote.score <= 1
    assert is_printed(quote.score, paper.unit), f"{quote.score} is no number of a table in {paper.unit}"
    if quote.deviation is not None:
        assert is_printed(quote.deviation, paper.unit)
        assert quote.deviation < 0.05, "a deviation of five points: read in the wrong unit?"
    known = task.published.of(quote)
    assert known.quantity in ("best", "last", "unknown")
    assert known.teacher is None or 0.3 < known.teacher <= 1
    assert quote is task.published.teacher or quote.method in find_methods()


@pytest.mark.parametrize(("task", "quote"), QUOTES, ids=NAMES)
def test_the_options_of_a_quoted_number_are_the_methods(task: TaskSpec, quote: PublishedScore) -> None:
    if not quote.options:
        return
    card = find_methods()[quote.method]
    given = check_values(card.specs, quote.options, quote.source)
    plain = {**card.defaults(), **preset(card, task, "paper")}
    assert all(plain[name] != value for name, value in given.items())


def test_every_source_is_quoted_and_says_what_it_reports() -> None:
    assert {quote.paper for _, quote in QUOTES} == set(papers())
    text = PAPERS.read_text(encoding="utf-8")
    assert all(word in text for word in ("`unit`", "`quantity`", "`runs`", "`teacher_images`", "`forms`"))


def found(task: str, method: str, paper: str) -> list[tuple[float, float | None, bool]]:
    return [
        (quote.score, quote.deviation, quote.checked)
        for quote in tasks()[task].published.methods
        if (quote.method, quote.paper) == (method, paper)
    ]


@pytest.mark.parametrize(
    ("task", "method", "paper", "wanted"),
    [
        ("mnist/lenet5-half", "dfad", "dfad", (0.983, 0.002, True)),
        ("cifar100/resnet18", "noise", "dfad", (0.015, 0.001, True)),
        ("svhn/wrn16-1", "zskt", "zskt", (0.9437, None, True)),
        ("cifar10/resnet18", "dafl", "mmrazor", (0.9327, None, True)),
        ("cifar10/resnet18", "zskt", "mmrazor", (0.9305, None, True)),
        ("cifar10/resnet18", "deepinversion", "deepinversion", (0.9143, None, False)),
        ("fashion_mnist/lenet5-half", "zskd", "zskd", (0.7962, None, False)),
    ],
)
def test_numbers_that_were_once_quoted_wrongly(task: str, method: str, paper: str, wanted: Any) -> None:
    assert found(task, method, paper) == [wanted]


def test_the_deepinv_rows_of_fast_datafree_belong_to_adi() -> None:
    rows = [(quote.method, task.name) for task, quote in QUOTES if quote.note == "DeepInv-2k"]
    assert len(rows) == 10
    assert {method for method, _ in rows} == {"adi"}
    assert not [task.name for task, quote in QUOTES if quote.method == "deepinversion" and quote.checked]


def test_what_a_row_says_comes_before_what_its_paper_says() -> None:
    quote = {"method": "zskt", "score": 0.9, "paper": "zskt"}
    published = Published.model_validate(
        {
            "teachers": {"zskt": 0.95},
            "methods": [quote, {**quote, "quantity": "best", "runs": 5, "teacher": 0.9, "teacher_images": 7}],
        }
    )
    first, second = map(published.of, published.methods)
    assert (first.quantity, first.runs, first.teacher, first.teacher_images) == ("last", 3, 0.95, None)
    assert (second.quantity, second.runs, second.teacher, second.teacher_images) == ("best", 5, 0.9, 7)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"score": 98.2, "source": "a paper"}, "score: must be at most 1, not 98.2"),
        ({"score": 0.9}, "a quoted number needs its `source`"),
        ({"score": 0.9, "paper": "dalf"}, "'dalf' is not known; did you mean 'dafl'"),
        ({"score": 0.9, "paper": "dafl", "deviation": 2}, "deviation: must be at most 1, not 2"),
        ({"score": 0.9, "paper": "dafl", "quantity": "mean"}, "'best', 'last' or 'unknown'"),
        ({"score": 0.9, "paper": "dafl", "runs": 0}, "runs: must be at least 1, not 0"),
    ],
)
def test_a_wrong_quotation_says_what_is_wrong(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Published.model_validate({"teacher": wrong})
    words = ", ".join(f"{name}: {value}" for name, value in wrong.items())
    file = tmp_path / "tasks.yaml"
    file.write_text(
        "- name: own/task\n  data: digits\n  image: {channels: 1, size: 32, mean: [0.3], std: [0.3]}\n"
        "  teacher: {network: lenet5, recipe: digits}\n  student: lenet5-half\n"
        f"  published: {{teacher: {{{words}}}}}\n"
    )
    with pytest.raises(UserError, match=rf"tasks.yaml, line \d: .*{message}"):
        read_tasks(file)


def test_a_source_of_ones_own_needs_no_entry() -> None:
    quote = PublishedScore(score=0.5, source="Our report", paper="ours")
    assert (quote.source, quote.checked) == ("Our report", True)
    assert Published(methods=(quote,)).of(quote).quantity == "unknown"


def test_an_unknown_paper_gets_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown paper 'rdksd'; did you mean 'rdskd'"):
        get_paper("rdksd")
    with pytest.raises(UserError, match="unknown paper 'resnet'; allowed: adadfkd, cudfkd, "):
        get_paper("resnet")
