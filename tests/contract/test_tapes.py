"""Recorded conversations: drivers still understand what was answered then.

A recording is made by ``ppu record DEVICE --lab tests/contract/lab.yaml --target twin
--out tests/data/tapes/DEVICE.jsonl``.
"""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ppu.core.errors import ConfigurationError, ReplyTimeout
from ppu.core.labtime import running_loop
from ppu.devices.instrument import Instrument
from ppu.testing import Replay, Stage
from ppu.testing import replay as read_tape
from ppu.testing.stage import InstrumentContract
from ppu.transports.recording import Recorder, load_recording

Play = Callable[[Coroutine[Any, Any, Any]], Any]

TAPES = sorted((Path(__file__).parents[1] / "data" / "tapes").glob("*.jsonl"))
LAB = Path(__file__).with_name("lab.yaml")


class Balance(InstrumentContract):
    """The balance of the contract lab."""

    lab = LAB
    device = "balance"
    reading = "present_mass"


def tape_of(device: str) -> Path:
    """Return the recording of *device*."""
    (path,) = [path for path in TAPES if path.stem == device]
    return path


@pytest.mark.parametrize("path", TAPES, ids=lambda path: path.stem)
def test_driver_reads_what_it_read_when_it_was_recorded(
    play: Play, replay: Callable[[Path], Replay], path: Path
) -> None:
    """Every value is the same, and nothing is asked that was not asked then."""
    tape = replay(path)

    play(tape.check())

    assert tape.recording.exchanges


def test_tapes_cover_serial_tcp_and_http() -> None:
    """One conversation of each kind of wire is kept."""
    kept = {load_recording(path).head.transport for path in TAPES}

    assert kept == {"serial", "tcp", "http"}


@pytest.mark.parametrize("path", TAPES, ids=lambda path: path.stem)
def test_tape_holds_no_place_of_the_machine(path: Path) -> None:
    """Recordings can be given away: no path and no address is in them."""
    text = path.read_text()

    assert "/tmp" not in text  # noqa: S108 - it is looked for
    assert "127.0.0.1" not in text
    assert "nowhere" not in text


def test_replay_keeps_what_was_never_recorded(
    play: Play, replay: Callable[[Path], Replay]
) -> None:
    """A request that is not on the tape gets silence, and is named."""
    tape = replay(tape_of("balance"))

    async def tare() -> None:
        device: Any = tape.make_device()
        await device.connect_link()
        try:
            with pytest.raises(ReplyTimeout):
                await device.tare.trigger()
        finally:
            await device.disconnect()

    play(tare())

    assert tape.unknown == [b"T\r\n"]


def test_replay_says_so_when_an_http_request_was_never_recorded(
    play: Play, replay: Callable[[Path], Replay]
) -> None:
    """The same holds where requests are whole messages."""
    tape = replay(tape_of("dosing_robot"))

    async def ask() -> None:
        device: Any = tape.make_device()
        try:
            with pytest.raises(ReplyTimeout):
                await device._client.post("/PotsLoaded", {"quadrant": 1})
        finally:
            await device.disconnect()

    play(ask())

    assert tape.unknown == [b'POST /PotsLoaded {"quadrant": 1}']


def test_check_fails_when_the_driver_understands_something_else(
    play: Play, tmp_path: Path
) -> None:
    """A tape whose answer was changed is noticed: the value is another."""
    text = tape_of("balance").read_text()
    recorded = load_recording(tape_of("balance"))
    (weight,) = [e for e in recorded.exchanges if e.sent == b"SI\r\n"]
    other = weight.received.replace(b"0.0", b"1.0")
    path = tmp_path / "balance.jsonl"
    path.write_text(text.replace(weight.received.hex(), other.hex()))

    async def check() -> None:
        async with read_tape(path) as tape:
            await tape.check()

    with pytest.raises(AssertionError, match="present_mass"):
        play(check())


def test_answer_takes_as_long_as_it_took_then(
    play: Play, replay: Callable[[Path], Replay]
) -> None:
    """Lab time goes by as it went by when it was recorded."""
    tape = replay(tape_of("balance"))
    wanted = sum(e.lasted_s for e in tape.recording.exchanges[:3])

    async def connect() -> float:
        device = tape.make_device()
        begun = running_loop().time()
        await device.connect_link()
        lasted = running_loop().time() - begun
        await device.disconnect()
        return lasted

    assert play(connect()) == pytest.approx(wanted, abs=1e-4)


def test_recorder_keeps_what_went_over_the_wire(play: Play, tmp_path: Path) -> None:
    """What was recorded, written and read again is what a replay serves."""

    async def make() -> Path:
        async with Stage(Balance(), tmp_path) as stage:
            device: Instrument = stage.device
            with Recorder("balance") as recorder:
                await device.connect_link()
                value = await stage.look()
                recorder.note_reading(
                    "present_mass", value, stage.loop.time(), quality="good"
                )
            await stage.look()  # not recorded any more
            recording = recorder.recording(
                stage.file.devices["balance"], "mt-sics", stage.connection
            )
        path = tmp_path / "tape.jsonl"
        recording.save(path)
        assert load_recording(path) == recording
        assert [e.sent for e in recording.exchanges] == [
            b"I4\r\n",
            b"I3\r\n",
            b"I2\r\n",
            b"SI\r\n",
        ]
        async with read_tape(path) as tape:
            await tape.check()
        return path

    assert "port" not in load_recording(play(make())).head.connection


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("{}\n", "line 1: no line of a recording"),
        ("not json\n", "line 1: no line of a recording"),
    ],
)
def test_file_is_refused_when_it_is_no_recording(
    tmp_path: Path, text: str, reason: str
) -> None:
    """An error names the file and the line."""
    path = tmp_path / "tape.jsonl"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=reason):
        load_recording(path)
