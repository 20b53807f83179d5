"""Reading YAML: every complaint names the file and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from bench.errors import UserError
from bench.utils.yaml import at_line, line_of, plain, read_yaml, validate, where


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.yaml"


def load(file: Path, text: str) -> Any:
    file.write_text(text, encoding="utf-8")
    return read_yaml(file)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: [1,", 2, "expected the node content"),
        ("a: 1\n\tb: 2\n", 2, r"found character '\t' that cannot start any token"),
        ("a: 1\nb: 2\na: 3\n", 3, 'found duplicate key "a"'),
        ("a: 1\nb: {c: 1, c: 2}\n", 2, 'found duplicate key "c"'),
        ("a: 1\nb: *gone\n", 2, "found undefined alias 'gone'"),
        ("a: 1\n---\nb: 2\n", 2, "it has more than one document"),
        ("a: 'x\n", 2, "found unexpected end of stream"),
        ("a: 1\n b: 2\n", 2, "mapping values are not allowed here"),
        ("a: \0\n", None, "it has a NUL"),
        ("a: 2020-13-45\n", None, "month must be in 1..12"),
    ],
)
def test_broken_yaml_is_one_sentence_with_its_line(file: Path, text: str, line: int | None, message: str) -> None:
    with pytest.raises(UserError) as error:
        load(file, text)
    sentence = str(error.value)
    assert sentence.startswith(f"{file}, line {line}: " if line else f"{file}: ")
    assert message in sentence
    assert "\n" not in sentence


def test_files_that_cannot_be_read_are_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no such file: .*some\.yaml$"):
        read_yaml(file)
    with pytest.raises(UserError, match="is a folder; name a YAML file"):
        read_yaml(tmp_path)
    file.write_bytes("name: Müller\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_yaml(file)
    with pytest.raises(UserError, match="cannot be read: Not a directory"):
        read_yaml(file / "below")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4e4", 4e4),
        ("40_000", 40000),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("-1.5E+3", -1500.0),
        ("0x1F", 31),
        ("010", 10),
        ("yes", "yes"),  # YAML 1.2: only true and false are
        ("True", True),
        ("~", None),
        ("&anchor true", True),
        ("&anchor 3", 3),
        ("'3'", "3"),
        ("[1, [2.0], {a: b}]", [1, [2.0], {"a": "b"}]),
        ("{1: 2, 3.5: 4}", {"1": 2, "3.5": 4}),
        ("# nothing\n", None),
    ],
)
def test_values_are_those_of_yaml_1_2_in_plain_types(file: Path, text: str, value: Any) -> None:
    got = plain(load(file, text))
    assert got == value
    assert type(got) is type(value)
    assert repr(got) == repr(value)


def test_lines_are_known_as_deep_as_the_file_goes(file: Path) -> None:
    data = load(file, "a: 1\nb:\n  - x\n  - c: 2\n    d:\n      - 3\n      - 4\ne: {f: 5,\n    g: 6}\n")
    assert line_of(data, ["a"]) == 1
    assert line_of(data, ["b"]) == 2
    assert line_of(data, ["b", 0]) == 3
    assert line_of(data, ["b", 1, "d"]) == 5
    assert line_of(data, ["b", 1, "d", 1]) == 7
    assert line_of(data, ["e", "g"]) == 9
    assert line_of(data, ["b", 1, "unknown"]) == 4  # the nearest that there is
    assert line_of(data, ["b", 9]) == 2
    assert line_of(data, ["unknown"]) is None
    assert line_of(data, []) is None
    assert where(file, data, ["e"]) == f"{file}, line 8"
    assert where(file, data, []) == str(file)


def test_a_merged_key_has_the_line_of_what_it_was_merged_into(file: Path) -> None:
    data = load(file, "base: &base\n  x: 1\nmine:\n  <<: *base\n  y: 2\n")
    assert plain(data["mine"]) == {"x": 1, "y": 2}
    assert line_of(data, ["mine", "x"]) == 3
    assert line_of(data, ["mine", "y"]) == 5


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = Field(default=4, ge=4, le=64)
    mode: Literal["fast", "exact"] = "fast"


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern="^[a-z]+$")
    part: Part = Part()
    parts: tuple[Part, ...] = ()
    one: Part | None = None
    numbers: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(), max_length=3)
    flag: bool = Field(default=True, strict=True)

    @field_validator("numbers")
    @classmethod
    def _not_thirteen(cls, numbers: tuple[float, ...]) -> tuple[float, ...]:
        if 13 in numbers:
            raise ValueError("Thirteen is unlucky")
        return numbers


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("name: a\nnumbres: []\n", 2, "unknown key 'numbres'; did you mean 'numbers'?"),
        ("\nnmae: a\n", 2, "unknown key 'nmae'; did you mean 'name'?"),
        ("name: a\npart:\n  size: 5\n  mood: fast\n", 4, "unknown key 'mood'; did you mean 'mode'?"),
        ("name: a\nparts:\n  - size: 5\n  - sise: 5\n", 4, "unknown key 'sise'; did you mean 'size'?"),
        ("name: a\none:\n  sise: 5\n", 3, "unknown key 'sise'; did you mean 'size'?"),
        ("part: {}\n", None, "the key 'name' is missing"),
        ("name: A b\n", 1, "name: must match ^[a-z]+$, not 'A b'"),
        ("name: 5\n", 1, "name: must be text, not 5"),
        ("name: a\nnumbers: 5\n", 2, "numbers: must be a list, not 5"),
        ("name: a\nnumbers:\n- 1\n- -2\n", 4, "numbers.1: must be above 0, not -2"),
        ("name: a\nnumbers: [1, 13]\n", 2, "numbers: thirteen is unlucky"),
        ("name: a\nnumbers: [1, 2, 3, 4]\n", 2, "numbers: tuple should have at most 3 items after validation, not 4"),
        ("name: a\npart: {size: 2}\n", 2, "part.size: must be at least 4, not 2"),
        ("name: a\npart: {size: 65}\n", 2, "part.size: must be at most 64, not 65"),
        ("name: a\npart: {size: 4.5}\n", 2, "part.size: must be a whole number, not 4.5"),
        ("name: a\npart: {mode: exat}\n", 2, "part.mode: must be 'fast' or 'exact', not 'exat'; did you mean 'exact'?"),
        ("name: a\npart: {mode: 3}\n", 2, "part.mode: must be 'fast' or 'exact', not 3"),
        ("name: a\npart: 3\n", 2, "part: must be keys with values, not 3"),
        ("name: a\nflag: yes\n", 2, "flag: must be true or false, not 'yes'"),
        ("- name\n", None, "expected keys and values, not a list"),
        ("just text\n", None, "expected keys and values, not 'just text'"),
        ("", None, "expected keys and values, not nothing"),
        ("name: &x [*x]\n", 1, "name: must be text, not [None]"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_line(file: Path, text: str, line: int | None, sentence: str) -> None:
    data = load(file, text)
    with pytest.raises(UserError) as error:
        validate(Whole, data, file)
    assert str(error.value) == (f"{file}, line {line}: " if line else f"{file}: ") + sentence


def test_a_part_of_a_file_is_validated_where_it_lies(file: Path) -> None:
    data = load(file, "- name: a\n- name: b\n  part:\n    size: 8\n- name: c\n  flag: 3\n- 7\n- x: 1\n")
    assert validate(Whole, data, file, at=[1]).part.size == 8
    for index, line, sentence in (
        (2, 6, "flag: must be true or false, not 3"),
        (3, 7, "expected keys and values, not 7"),
        (4, 8, "unknown key 'x'; allowed: flag, name, numbers, one, part, parts"),
    ):
        with pytest.raises(UserError) as error:
            validate(Whole, data, file, at=[index])
        assert str(error.value) == f"{file}, line {line}: {sentence}"


def test_a_check_gets_its_place_in_front(file: Path) -> None:
    data = load(file, "a:\n- 1\n- 2\n")
    assert at_line(file, data, ["a", 1], lambda: 3) == 3

    def fail() -> None:
        raise UserError("no")

    with pytest.raises(UserError, match=r", line 3: no$"):
        at_line(file, data, ["a", 1], fail)
