"""Lab files: every fault at once, each with its line and the nearest known word."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.errors import ConfigurationError
from ppu.core.labfile import LabFile, limit_pair, load_lab

TEXT = """\
lab: tiny
schema_version: 1
devices:
  furnace: {driver: "a:B", provides: [Furnace], slots: [furnace.slot]}
locations:
  rack: {holds: crucible}
  furnace.slot: {holds: crucible, inside: furnace}
containers:
  cup: {kind: crucible, at: rack, capacity_ml: 20, tare_g: 18}
stock:
  CaCO3: {at: furnace.head, mass_g: 5, purity: 0.9, bulk_density_g_per_ml: 1}
"""


def refusal_of(tmp_path: Path, text: str) -> str:
    """Return why *text* is refused as a lab file."""
    path = tmp_path / "lab.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_lab(path)
    return str(caught.value)


def test_lab_file_is_read_when_it_is_in_order(tmp_path: Path) -> None:
    """Entries are found by name, with defaults where nothing is said."""
    path = tmp_path / "lab.yaml"
    path.write_text(TEXT)
    lab = load_lab(path)

    assert lab.containers["cup"].at == "rack"
    assert lab.devices["furnace"].serial_number == "unset"
    assert lab.seed == 0


@pytest.mark.parametrize(
    ("right", "wrong", "line", "hint"),
    [
        ("lab: tiny", "lab: tiny\nseeed: 3", 2, "seeed: unknown key; did you mean"),
        ("lab: tiny", "lab: '*'", 1, "should match pattern"),
        ("lab: tiny\n", "", 1, "lab: is missing"),
        ("schema_version: 1", "schema_version: 2", 2, "schema_version: "),
        ("provides: [Furnace]", "provides: [Furnance]", 4, "did you mean 'Furnace'?"),
        ("slots: [furnace.slot]", "slots: [furnace.slt]", 4, "'furnace.slot'?"),
        ("slots: [furnace.slot]", "slots: []", 4, "needs at least one location"),
        (
            "slots: [furnace.slot]",
            "slots: [furnace.slot, furnace.slot]",
            4,
            "'furnace.slot' is a slot of 'furnace' already",
        ),
        (
            "slots: [furnace.slot]",
            "slots: [furnace.slot, rack]",
            4,
            "locations.rack should say inside: furnace",
        ),
        (
            "slots: [furnace.slot]}",
            "slots: [furnace.slot]}\n  oven: {driver: 'a:B', slots: [furnace.slot]}",
            5,
            "oven.slots: 'furnace.slot' is a slot of 'furnace' already",
        ),
        (
            "slots: [furnace.slot]}",
            "}\n  oven: {driver: 'a:B', slots: [furnace.slot]}",
            5,
            "locations.furnace.slot should say inside: oven, not furnace",
        ),
        (
            "rack: {holds: crucible}",
            "rack: {holds: crucible, inside: furnace}",
            6,
            "'rack' is not among the slots of 'furnace'; add it to devices.furnace.",
        ),
        ("rack: {holds", "floor: {holds", 6, "locations.floor: this name is reserved"),
        ("slots:", "slot:", 4, "slot: unknown key; did you mean 'slots'?"),
        ("inside: furnace", "inside: furnce", 7, "did you mean 'furnace'?"),
        ("at: rack", "at: rock", 9, "did you mean 'rack'?"),
        ("kind: crucible", "kind: vial", 9, "holds a crucible, not a vial"),
        ("tare_g: 18", "tare_g: -1", 9, "given was -1"),
        ("tare_g: 18", "tare_g: .nan", 9, "should be a number such as 750"),
        ("at: furnace.head", "at: robot.head", 11, "unknown device 'robot'"),
        ("purity: 0.9", "purity: 90", 11, "given was 90"),
        (
            "lab: tiny",
            "lab: tiny\nsimulated_bench: {epoch: .nan, pace: 1, nonces: {}}",
            2,
            "given was '.nan'",
        ),
    ],
)
def test_lab_file_is_refused_with_line_and_hint(
    tmp_path: Path, right: str, wrong: str, line: int, hint: str
) -> None:
    """A person is led to the line, and told what would be right there."""
    assert right in TEXT
    told = refusal_of(tmp_path, TEXT.replace(right, wrong, 1))

    assert hint in told
    if "is missing" not in hint:
        assert f"lab.yaml line {line}, column " in told


def test_lab_file_tells_all_faults_at_once(tmp_path: Path) -> None:
    """Nobody has to correct one fault to learn of the next."""
    text = TEXT.replace("purity: 0.9", "purity: 90").replace("tare_g: 18", "tare: 18")
    told = refusal_of(tmp_path, text)

    assert len(told.splitlines()) == 3
    assert "tare: unknown key; did you mean 'tare_g'?" in told
    assert "tare_g: is missing" in told


def test_lab_file_is_refused_when_a_key_stands_twice(tmp_path: Path) -> None:
    """YAML would silently take the last one."""
    text = TEXT.replace("containers:", "  rack: {holds: holder}\ncontainers:")
    told = refusal_of(tmp_path, text)

    assert "line 8, column 3: 'rack' stands here twice, first on line 6" in told


def test_lab_file_is_refused_when_two_containers_share_a_place(
    tmp_path: Path,
) -> None:
    """One container per location."""
    cup = "  cup: {kind: crucible, at: rack, capacity_ml: 20, tare_g: 18}\n"
    told = refusal_of(tmp_path, TEXT.replace(cup, cup + cup.replace("cup:", "mug:")))

    assert "containers.mug.at: 'rack' is taken by 'cup'" in told


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"lab: [", "line 1, column 7: not YAML"),
        (b"- a list", "a lab file is a mapping"),
        (b"", "a lab file is a mapping"),
        (b"lab: \xff", "no text in UTF-8"),
        (b"lab: !!python/object:os.system x\n", "line 1, column 6: 'x': the tag "),
        (b"lab: !!set {a, b}\n", "line 1, column 6: the tag tag:yaml.org,2002:set"),
        (b"lab: {[a]: b}\n", "line 1, column 7: a key should be text"),
        (b'lab: "\\e[2J"\n', "has the character U+001B at place 1"),
        (b"lab: &a [*a]\n", "line 1, column 6: an alias of what it stands in"),
        (b"lab: " + b"[" * 5000, "too deeply nested"),
    ],
)
def test_lab_file_is_refused_when_it_is_no_mapping(
    tmp_path: Path, content: bytes, text: str
) -> None:
    """What is no YAML mapping is told as such, never as a traceback."""
    path = tmp_path / "lab.yaml"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match=re.escape(text)):
        load_lab(path)


def test_lab_file_is_refused_when_there_is_none(tmp_path: Path) -> None:
    """A path that leads nowhere is named."""
    with pytest.raises(ConfigurationError, match=r"cannot read .*nowhere.yaml"):
        load_lab(tmp_path / "nowhere.yaml")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    key=st.sampled_from(list(LabFile.model_fields)),
    value=values,
)
@settings(max_examples=60)
def test_any_yaml_is_a_lab_or_a_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    """Whatever stands under a key, the answer is a lab or a fault of the file."""
    content = yaml.safe_load(TEXT)
    content[key] = value
    path = tmp_path_factory.mktemp("any") / "lab.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    told = str(path)
    try:
        load_lab(path)
    except ConfigurationError as exc:
        told = str(exc)

    assert str(path) in told


@pytest.mark.parametrize(
    "value", [[1], [1, 2, 3], [2, 1], ["0", "1"], [0, float("inf")], [True, 2], 5]
)
def test_limit_pair_refuses_what_is_not_two_ascending_numbers(value: Any) -> None:
    """Limits are [low, high], finite and in order."""
    with pytest.raises(ValueError, match="low"):
        limit_pair(value)


def test_limit_pair_is_taken_as_it_is() -> None:
    """Equal limits are allowed: they fix a value."""
    assert limit_pair([1, 1]) == (1.0, 1.0)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a b",
            "cup from rack",
            "../cup",
            "a/b",
            "a\\b",
            "=cmd",
            "+a",
            "-a",
            "@a",
            "..",
        ),
        *(
            "a\x1b[2J",
            "a\nb",
            "\u202ea",
            "a\u00a0b",
            "",
            " a",
            "a ",
            "a,b",
            "a;b",
            "a:b",
        ),
        *("<img>", "a&b", "a'b", 'a"b', "$a$", "`a`", "a|b", "a*", "_a", "x" * 201),
    ],
)
def test_name_in_a_lab_file_is_a_part_of_anything(tmp_path: Path, name: str) -> None:
    """Of a path, a sentence to a person, a wire's line, a page, a cell of a sheet."""
    right = {
        "devices": "furnace: {driver",
        "locations": "rack: {holds",
        "containers": "cup: {kind",
        "stock": "CaCO3: {at",
    }
    for start in right.values():
        rest = start.partition(":")[2]
        told = refusal_of(tmp_path, TEXT.replace(start, f"{json.dumps(name)}:{rest}"))

        assert "lab.yaml line " in told
        assert told.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "name", ["cup_1", "rack.1-a", "BaCO3", "Tiegel_ä", "钛", "Ti(O)+"]
)
def test_name_in_any_script_is_one(tmp_path: Path, name: str) -> None:
    """Letters of all languages are letters."""
    path = tmp_path / "lab.yaml"
    path.write_text(TEXT.replace("cup: {kind", f"{name}: {{kind"), encoding="utf-8")

    assert list(load_lab(path).containers) == [name]
