"""Devices of a lab file: what one entry names elsewhere in it must be there."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ppu.core.errors import ConfigurationError
from ppu.core.labfile import load_lab
from ppu.core.registry import find_lab
from ppu.devices.build import build_devices, check_devices
from ppu.devices.instrument import LabDevice

Content = dict[str, Any]


@pytest.fixture(scope="module")
def cell() -> Content:
    """The content of the bundled lab, which has every kind of reference."""
    content: Content = yaml.safe_load(find_lab("a-lab").read_text())
    settings = content["devices"]["robot_arm"]["settings"]
    settings["programs"] = dict(list(settings["programs"].items())[:2])
    return content


def set_setting(device: str, *keys: str, value: str) -> Callable[[Content], None]:
    """Return what sets one setting of a device."""

    def change(content: Content) -> None:
        inner = content["devices"][device]["settings"]
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


def misspell_destination(content: Content) -> None:
    """Let a program of the arm lead to a place that is not."""
    programs = content["devices"]["robot_arm"]["settings"]["programs"]
    programs["rack_1.1 -> balance.pam"] = programs.pop("rack_1.1 -> balance.pan")


def misspell_origin(content: Content) -> None:
    """Let a program of the arm come from a place that is not."""
    programs = content["devices"]["robot_arm"]["settings"]["programs"]
    programs["rack_1.I -> balance.pan"] = programs.pop("rack_1.1 -> balance.pan")


def misspell_stations(content: Content) -> None:
    """Let both tasks of the arm happen where nothing is."""
    for task in content["devices"]["robot_arm"]["settings"]["tasks"].values():
        task["station"] = "bench.crucibl"


def double(device: str) -> Callable[[Content], None]:
    """Return what adds a second device that is the same as *device*."""

    def change(content: Content) -> None:
        devices = content["devices"]
        devices["second"] = copy.deepcopy(devices[device])

    return change


def leave_unused(device: str) -> Callable[[Content], None]:
    """Return what lets *device* provide nothing."""

    def change(content: Content) -> None:
        del content["devices"][device]["provides"]

    return change


FAULTS: list[tuple[Callable[[Content], None], str, str]] = [
    (
        set_setting("door_1", "encloses", value="furnace_l"),
        "encloses: furnace_l",
        "door_1.settings.encloses: unknown device 'furnace_l'; did you mean 'furnace_",
    ),
    (
        set_setting("door_1", "encloses", value="gripper"),
        "encloses: gripper",
        "no location is inside 'gripper'; known are: balance, diffractometer, ",
    ),
    (
        set_setting("gripper", "hand_of", value="robot_am"),
        "hand_of: robot_am",
        "gripper.settings.hand_of: unknown device 'robot_am'; did you mean 'robot_arm'",
    ),
    (
        set_setting("gripper", "hand_of", value="balance"),
        "hand_of: balance",
        "'balance' does not provide Transporter; known are: robot_arm",
    ),
    (
        set_setting("gas_2", "supplies", value="balance"),
        "supplies: balance",
        "'balance' does not provide Furnace; known are: furnace_1, furnace_2",
    ),
    (misspell_destination, "balance.pam:", "'balance.pam'; did you mean 'balance.pan'"),
    (
        misspell_origin,
        "rack_1.I ->",
        "unknown location 'rack_1.I'; did you mean 'rack_1.",
    ),
    (
        misspell_stations,
        "station: bench.crucibl",
        "tasks.grind.station: unknown location 'bench.crucibl'; did you mean",
    ),
    (
        set_setting("robot_arm", "tasks", "mount_powder", "holder_station", value="x"),
        "holder_station: x",
        "mount_powder.holder_station: unknown location 'x'",
    ),
    (
        double("door_1"),
        "encloses: furnace_1",
        "second.settings.encloses: 'furnace_1' has a door already, 'door_1'",
    ),
    (
        double("gripper"),
        "hand_of: robot_arm",
        "second.settings.hand_of: 'robot_arm' has a gripper already, 'gripper'",
    ),
    (leave_unused("door_1"), "  door_1:", "say provides: [Door]"),
    (leave_unused("gripper"), "  gripper:", "say provides: [Gripper]"),
    (leave_unused("gas_2"), "  gas_2:", "say provides: [GasFlow]"),
]


@pytest.mark.parametrize(("change", "at", "text"), FAULTS)
def test_lab_is_refused_with_line_and_hint_when_a_reference_leads_nowhere(
    cell: Content,
    tmp_path: Path,
    change: Callable[[Content], None],
    at: str,
    text: str,
) -> None:
    """Who misspells what a device belongs to learns so before anything moves."""
    content = copy.deepcopy(cell)
    change(content)
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    lines = path.read_text().splitlines()
    with pytest.raises(ConfigurationError) as caught:
        check_devices(load_lab(path), path)
    told = str(caught.value)

    assert text in told
    assert any(
        at in line
        for number, line in enumerate(lines, 1)
        if f"lab.yaml line {number}, column " in told
    )


def test_devices_are_not_made_when_a_reference_leads_nowhere(
    cell: Content, tmp_path: Path
) -> None:
    """What the check of a lab file refuses is never connected, either."""
    content = copy.deepcopy(cell)
    set_setting("door_1", "encloses", value="oven")(content)
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigurationError, match="unknown device 'oven'"):
        build_devices(load_lab(path), path)


def test_devices_are_made_when_every_reference_leads_somewhere(
    cell: Content, tmp_path: Path
) -> None:
    """Two gas lines into one furnace and a door of the other furnace are no faults."""
    content = copy.deepcopy(cell)
    double("gas_2")(content)
    set_setting("door_1", "encloses", value="furnace_2")(content)
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump(content))
    lab = load_lab(path)
    check_devices(lab, path)
    devices: dict[str, LabDevice] = build_devices(lab, path)

    assert devices.keys() == content["devices"].keys()


def test_devices_are_made_when_what_they_name_is_not_to_be_made(
    cell: Content, tmp_path: Path
) -> None:
    """A reference leads into the lab file, whichever devices are wanted now."""
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump(cell))

    assert build_devices(load_lab(path), path, only=("gripper",)).keys() == {"gripper"}


def test_references_are_not_followed_when_the_lab_is_an_excerpt(
    cell: Content, tmp_path: Path
) -> None:
    """One device of a lab can be made from its entry alone."""
    content = {"lab": "part", "schema_version": 1}
    gripper = {**cell["devices"]["gripper"], "provides": []}
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump({**content, "devices": {"gripper": gripper}}))
    devices = build_devices(load_lab(path), path, is_excerpt=True)

    assert devices.keys() == {"gripper"}


@pytest.mark.parametrize("key", ["on_abort", "on_orphan", "on_hold"])
def test_state_is_refused_when_the_driver_does_not_know_it(
    cell: Content, tmp_path: Path, key: str
) -> None:
    """The error names key, line and the nearest state there is."""
    content = copy.deepcopy(cell)
    content["devices"]["furnace_1"][key] = "ramp_dwn"
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigurationError) as caught:
        check_devices(load_lab(path), path)
    line = 1 + path.read_text().splitlines().index(f"    {key}: ramp_dwn")

    assert f"lab.yaml line {line}, column " in str(caught.value)
    assert (
        f"devices.furnace_1.{key}: 'ramp_dwn' is no state of Eurotherm3216; "
        "did you mean 'ramp_down'?"
    ) in str(caught.value)


@pytest.mark.parametrize("key", ["on_abort", "on_orphan", "on_hold"])
def test_state_is_refused_when_the_device_goes_to_none(
    cell: Content, tmp_path: Path, key: str
) -> None:
    """A device without states has none that a lab file could name."""
    content = copy.deepcopy(cell)
    content["devices"]["balance"][key] = "off"
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigurationError, match=f"{key}: 'off' is no state of Mettl"):
        build_devices(load_lab(path), path)
