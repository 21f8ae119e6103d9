# ruff: noqa: RUF001 - digits of other scripts are what this is about
"""Numbers are plain decimals; what two readers would read differently is none."""

import json
import math
from decimal import Decimal
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from ppu.core.errors import ConfigurationError
from ppu.core.numbers import (
    MOST_INTEGER,
    NUMBER,
    NotPlainError,
    integer_option,
    number_option,
    read_integer,
    read_number,
    read_scalar,
)
from ppu.core.validation import MOST_DEEP, UnfitError, fill, takes_only_text
from ppu.core.yaml_document import (
    MOST_COPIED,
    YamlDocument,
    read_json,
    read_text,
    read_value,
    to_yaml,
)

NOT_PLAIN = [
    *("0750", "00", "-01", "0x10", "0X1F", "0o7", "0b1", "1_000", "1,5", "1.000,5"),
    *(".5", "5.", "-.5", "1.e3", "1e", "e5", "1e5.0", "1 000", " 750", "750 ", "+-1"),
    *("1:30", "190:20:30", "2030-01-01", "nan", "NaN", ".nan", "inf", "-inf", ".inf"),
    *("Infinity", "yes", "no", "on", "off", "~", "True", "FALSE", "Null", "", "--1"),
    *(
        "٧٥٠",
        "７５０",
        "७५०",
        "7\u00a050",
        "\u00a0750",
        "750\n",
        "1\u202f000",
        "½",
        "−5",
    ),
    *("750degC", "750 # was 800", "1e5 ", "0.1.2", "#7", "=7"),
]
"""What is a number to some reader, or looks like one."""

plain = st.from_regex(
    r"[-+]?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][-+]?[0-9]{1,4})?", fullmatch=True
)
any_text = st.text(max_size=12) | st.text(
    "0123456789+-.eE_,:x \u0660\uff17", max_size=9
)


class Recipe(BaseModel):
    """A model as an author of a protocol writes it."""

    model_config = ConfigDict(extra="forbid")

    mass_g: float = 1.0
    n_runs: int = 1
    is_milled: bool = False
    hold_s: float | None = Field(default=None, gt=0)
    masses: tuple[float, ...] = ()
    note: str = ""
    level: float | Literal["auto"] = "auto"


@pytest.mark.parametrize("text", NOT_PLAIN)
def test_text_that_is_no_plain_decimal_is_no_number_anywhere(text: str) -> None:
    """It is text where anything may stand, and a fault where a number must."""
    for read in (read_number, read_integer, integer_option(), number_option()):
        with pytest.raises(NotPlainError, match="should be"):
            read(text)
    with pytest.raises(UnfitError):
        fill(Recipe, {"mass_g": text})

    assert read_scalar(text) == text


@given(any_text)
def test_text_is_read_as_number_by_one_grammar_only(text: str) -> None:
    """Python's own readers, which know more, never have a say."""
    try:
        read = read_scalar(text)
    except NotPlainError:
        assert NUMBER.fullmatch(text)
        return

    is_number = isinstance(read, int | float) and not isinstance(read, bool)
    assert is_number == (NUMBER.fullmatch(text) is not None)


@given(plain)
def test_plain_decimal_means_what_it_says(text: str) -> None:
    """As exactly as a double can; what it cannot hold is refused, not rounded away."""
    try:
        number = read_number(text)
    except NotPlainError:
        exact = Decimal(text)
        if exact == int(exact) and "e" not in text.lower() and "." not in text:
            assert abs(exact) > MOST_INTEGER
            return
        assert abs(exact) > Decimal("1.7e308") or abs(exact) < Decimal("1e-307")
        return

    assert number == float(Decimal(text))
    assert math.isfinite(number)
    assert (number == 0) == (Decimal(text) == 0)


@given(plain)
def test_every_door_reads_a_plain_decimal_alike(text: str) -> None:
    """YAML, one value of an option, and JSON as far as it has the form."""
    try:
        number = read_scalar(text)
    except NotPlainError:
        for read in (
            lambda: YamlDocument(f"a: {text}", "it"),
            lambda: read_value(text, "it"),
        ):
            with pytest.raises(ConfigurationError, match=r"64 bits|for a number"):
                read()
        return

    assert YamlDocument(f"a: {text}", "it").content == {"a": number}
    assert read_value(text, "it") == number
    if not text.startswith("+"):
        assert read_json(text, "it") == number


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0750", "write 750 if"),
        ("1_000", "write 1000 if"),
        ("1,5", "write 1.5 if"),
        (".5", "write 0.5 if"),
        ("5.", "write 5 if"),
        ("٧٥٠", "write 750 if"),
        ("７５０", "write 750 if"),
        ("\u00a0750", "write 750 if"),
        ("1e400", "too large"),
        ("1e-400", "too small"),
        ("0x10", "such as 750"),
        ("9" * 5000, "64 bits"),
    ],
)
def test_fault_names_the_plain_form(text: str, told: str) -> None:
    """A person reads what to write instead."""
    with pytest.raises(NotPlainError, match=told):
        read_number(text)


@pytest.mark.parametrize("text", [str(MOST_INTEGER + 1), "9" * 5000, f"-{10**30}"])
def test_whole_number_beyond_64_bits_is_refused(text: str) -> None:
    """No store and no other program would keep it."""
    for read in (read_integer, read_scalar):
        with pytest.raises(NotPlainError, match="64 bits"):
            read(text)
    with pytest.raises(ConfigurationError, match="64 bits"):
        read_json(text, "it")


# -- models ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("mass_g", value) for value in (True, False, "750", "0750", "x", [1], None)),
        *(("n_runs", value) for value in (True, "3", "0x3", 1.5, "٣", [1], None)),
        *(("is_milled", value) for value in (1, 0, "true", "yes", "on", 1.0, None)),
        *(("hold_s", value) for value in (True, "1e3", "1:30", -1)),
        *(("masses", value) for value in ([1, "2"], [True], ["0750"], 5)),
        *(("mass_g", value) for value in (math.nan, math.inf, 10**30)),
        *(
            ("note", value)
            for value in (5, True, "a\x1b[2J", "a\nb", "\u202eb", "\udcff")
        ),
    ],
)
def test_model_takes_numbers_for_numbers_only(name: str, value: Any) -> None:
    """Pydantic alone would take many of these for something near."""
    with pytest.raises(UnfitError) as caught:
        fill(Recipe, {name: value})

    ((place, text),) = caught.value.faults
    assert place[0] == name
    assert text.startswith(name)


def test_model_takes_what_it_should() -> None:
    """Whole numbers for numbers, tuples for lists, nothing where it may be."""
    given_ = {"mass_g": 2, "n_runs": 3.0, "masses": (1, 2.5), "hold_s": None}
    recipe = fill(Recipe, {**given_, "level": 0.5, "is_milled": True})

    assert (recipe.mass_g, recipe.n_runs, recipe.masses) == (2.0, 3, (1.0, 2.5))
    assert (recipe.level, recipe.hold_s, recipe.is_milled) == (0.5, None, True)


def test_model_tells_all_faults_at_once() -> None:
    """Those of pydantic's and ours, each once."""
    wrong = {"mass_g": "0750", "n_runs": True, "hold_s": -1, "nots": 1, "note": "\x07"}
    with pytest.raises(UnfitError) as caught:
        fill(Recipe, wrong)

    assert {place[0] for place, _ in caught.value.faults} == set(wrong)


def test_fields_of_text_are_known() -> None:
    """There ``12`` is a name, not a number."""
    assert takes_only_text(str)
    assert takes_only_text(str | None)
    assert takes_only_text(Literal["a", "b"])
    assert not takes_only_text(float)
    assert not takes_only_text(tuple[str, ...])
    assert read_value("012", "it", is_text=True) == "012"
    assert read_value("12", "it", is_text=True) == "12"


# -- documents ---------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-MOST_INTEGER, MOST_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([text for text in NOT_PLAIN if text.isprintable()])
    | st.text(max_size=8).filter(str.isprintable)
)
content = st.dictionaries(
    st.text(min_size=1, max_size=5).filter(str.isprintable),
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=6),
    max_size=4,
)


@given(content)
def test_what_is_written_as_yaml_is_read_as_it_was(data: dict[str, Any]) -> None:
    """Text that looks like a number stays text, whoever wrote it."""
    assert YamlDocument(to_yaml(data), "it").content == data


@given(content)
def test_json_is_read_as_yaml_is(data: dict[str, Any]) -> None:
    """A recipe means the same in either."""
    text = json.dumps(data)

    assert read_json(text, "it") == data
    assert YamlDocument(text, "it").content == data


@given(st.sampled_from(NOT_PLAIN) | any_text)
def test_cell_or_option_is_a_value_or_a_clear_fault(text: str) -> None:
    """Whatever somebody types."""
    try:
        read_value(text, "--set x")
    except ConfigurationError as exc:
        assert "--set x" in str(exc)  # noqa: PT017 - most texts are fine


def test_aliases_are_bounded() -> None:
    """Nine lines of YAML may mean a billion values."""
    laugh = 'a: &a ["lol"]\n' + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    few = f"a: &a [1, 2]\nb: [{', '.join(['*a'] * (MOST_COPIED // 3))}]\n"
    with pytest.raises(ConfigurationError, match="aliases repeat more than 100"):
        YamlDocument(laugh, "it")

    assert len(YamlDocument(few, "it").content["b"]) == 33


@pytest.mark.parametrize("opening", ["[", '{"a": ', "- "])
def test_what_is_nested_too_deeply_is_refused(opening: str) -> None:
    """In words, however deep it is."""
    closing = {"[": "]", "{": "}"}.get(opening[0], "")
    for depth in (MOST_DEEP + 1, 300, 20_000):
        text = opening * depth + "1" + closing * depth
        with pytest.raises(ConfigurationError, match="too deeply nested"):
            YamlDocument(text, "it")
    deep: Any = 1
    for _ in range(MOST_DEEP + 1):
        deep = [deep]
    with pytest.raises(UnfitError, match="is nested more than"):
        fill(Recipe, {"masses": deep})


def test_text_of_a_spreadsheet_is_read_as_it_is_marked() -> None:
    """UTF-8 with and without a mark, and UTF-16; anything else is named."""
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert read_text("a;µ".encode(encoding), "it") == "a;µ"
    with pytest.raises(ConfigurationError, match="spreadsheets call 'CSV UTF-8'"):
        read_text("a;µ".encode("cp1252"), "it")


def test_other_readers_differ() -> None:
    """The reason of all this: what PyYAML and Python make of the same characters."""
    assert yaml.safe_load("0750") == 488
    assert yaml.safe_load("1:30") == 90
    assert float("1_000") == 1000.0
    assert Recipe.model_validate({"mass_g": "0750"}).mass_g == 750.0
    assert Recipe.model_validate({"mass_g": True}).mass_g == 1.0


@given(plain)
def test_what_is_written_well_is_never_proposed_instead_of_itself(text: str) -> None:
    """A number that is refused for its size is not told to be written as it is."""
    readers: list[Any] = [read_number, read_integer, read_scalar]
    assert not any("if that is meant" in _refusal(read, text) for read in readers)


def _refusal(read: Any, text: str) -> str:
    try:
        read(text)
    except NotPlainError as exc:
        return str(exc)
    return ""
