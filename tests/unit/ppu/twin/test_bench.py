"""Faults of a bench: from the lab file, from tests, and over the control socket."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ppu.core.errors import ConfigurationError
from ppu.core.labfile import load_lab
from ppu.core.labtime import running_loop
from ppu.twin.bench import Bench
from ppu.twin.control import ControlSocket

Play = Callable[[Coroutine[Any, Any, Any]], Any]
PAN = "slots: [balance.pan]"


def bench_of(path: Path) -> Bench:
    """Return the balance and the person of a lab."""
    return Bench(load_lab(path), path, seed=1, only=("balance", "operator"))


def broken_lab(small_lab: Path, folder: Path, faults: str) -> Path:
    """Return the small lab with *faults* scripted for the balance."""
    path = folder / "lab.yaml"
    text = small_lab.read_text()
    path.write_text(text.replace(PAN, f"{PAN}\n    twin:\n      faults:\n{faults}"))
    return path


def exists(path: str) -> bool:
    """Return whether *path* leads anywhere."""
    return Path(path).exists()


def test_lab_file_scripts_faults(play: Play, small_lab: Path, tmp_path: Path) -> None:
    """What stands under twin.faults happens to the instrument at its lab time."""
    path = broken_lab(small_lab, tmp_path, "        - {fault: unplug, at_s: 60}\n")

    async def scenario() -> list[bool]:
        bench = bench_of(path)
        await bench.start()
        port = bench.connections["balance"]["port"]
        is_there = []
        for _ in range(2):
            await asyncio.sleep(35.0)
            is_there.append(exists(port))
        await bench.stop()
        return is_there

    assert play(scenario()) == [True, False]


def test_lab_file_is_refused_with_the_line_of_each_wrong_fault(
    small_lab: Path, tmp_path: Path
) -> None:
    """One message names every wrong script, where it stands and what is allowed."""
    path = broken_lab(
        small_lab,
        tmp_path,
        "        - {fault: dorp}\n        - {fault: drop}\n"
        "        - {fault: drop, for_s: 10 s}\n",
    )
    first = path.read_text().splitlines().index("        - {fault: dorp}") + 1
    with pytest.raises(ConfigurationError) as refusal:
        bench_of(path)
    lines = str(refusal.value).splitlines()

    assert (
        f"line {first}, column 11: devices.balance.twin: unknown fault 'dorp'"
        in lines[0]
    )
    assert (
        f"line {first + 2}, column 11: devices.balance.twin: fault 'drop': for_s"
        in lines[1]
    )


def test_bench_injects_from_now_and_clears(play: Play, small_lab: Path) -> None:
    """Lab times of an injected script count from the moment it is told."""

    async def scenario() -> list[tuple[float, str]]:
        bench = bench_of(small_lab)
        await bench.start()
        await asyncio.sleep(100.0)
        bench.inject("balance", {"fault": "unplug", "at_s": 10, "for_s": 5})
        await asyncio.sleep(50.0)
        bench.inject("balance", {"fault": "refuse", "at_s": 10})
        bench.clear("balance")
        await asyncio.sleep(50.0)
        await bench.stop()
        return list(bench.faults_of("balance").log)

    assert play(scenario()) == [(110.0, "unplug")]


@pytest.mark.parametrize(
    ("device", "entry", "text"),
    [
        ("balnce", {"fault": "drop"}, "did you mean 'balance'?"),
        ("balance", {"fault": "dorp"}, "did you mean 'drop'?"),
        ("balance", {"fault": "wrong unit"}, "it carries no Modbus unit"),
    ],
)
def test_bench_refuses_what_it_cannot_inject(
    play: Play, small_lab: Path, device: str, entry: dict[str, Any], text: str
) -> None:
    """The error names what there is."""

    async def scenario() -> None:
        bench_of(small_lab).inject(device, entry)

    with pytest.raises(ConfigurationError) as refusal:
        play(scenario())

    assert text in str(refusal.value)


# -- the control socket ---------------------------------------------------------------


def talk(play: Play, lab: Path, *lines: bytes) -> list[dict[str, Any]]:
    """Return what the control socket of a bench answers to *lines*."""

    async def scenario() -> list[dict[str, Any]]:
        bench = bench_of(lab)
        await bench.start()
        control = ControlSocket(bench)
        host, _, port = (await control.start()).partition(":")
        with running_loop().freezing("talking to the control socket"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"".join(line + b"\n" for line in lines))
            writer.write_eof()
            answers = (await reader.read()).splitlines()
            writer.close()
            await writer.wait_closed()
        await control.stop()
        await bench.stop()
        return [json.loads(answer) for answer in answers]

    answers: list[dict[str, Any]] = play(scenario())
    return answers


def test_control_socket_injects_lists_and_clears(play: Play, small_lab: Path) -> None:
    """Each line is answered by one; what hit is told with its lab time."""
    told = talk(
        play,
        small_lab,
        b'{"device": "balance", "fault": "unplug", "for_s": 10}',
        b'{"faults": "balance"}',
        b'{"device": "balance", "clear": true}',
        b"",
        b'{"incidents": true}',
    )

    assert [answer["ok"] for answer in told] == [True] * 4
    assert told[0]["fault"] == "unplug"
    assert told[1]["hits"] == [{"lab_time_s": 0.0, "fault": "unplug"}]
    assert told[1]["known"]["drop"] == "the answer is lost"
    assert told[3]["incidents"] == []


def test_control_socket_tells_where_containers_really_are_and_what_was_done(
    play: Play, small_lab: Path
) -> None:
    """Whoever plays the person at the bench can look."""

    async def scenario() -> dict[str, Any]:
        bench = bench_of(small_lab)
        bench.world.note_act(3.0, "grind crucible_01")  # type: ignore[attr-defined]  # of the real world
        return ControlSocket(bench).answer(b'{"truth": true}')

    told = play(scenario())

    assert told["ok"] is True
    assert told["containers"] == {"crucible_01": "rack.1", "crucible_04": "rack.2"}
    assert told["acts"] == {"grind crucible_01": [3.0]}


def test_control_socket_lends_hands(play: Play, small_lab: Path) -> None:
    """Whoever plays the person can carry and empty, as far as the world allows."""
    moved, emptied, refused, looked = talk(
        play,
        small_lab,
        b'{"carry": "crucible_01", "to": "balance.pan"}',
        b'{"empty": "crucible_01"}',
        b'{"carry": "crucible_04", "to": "balance.pan"}',
        b'{"truth": true}',
    )

    assert moved["done"] == "crucible_01 was carried to balance.pan"
    assert emptied["done"] == "crucible_01 was emptied and cleaned"
    assert (refused["ok"], "taken by crucible_01" in refused["error"]) == (False, True)
    assert looked["containers"]["crucible_01"] == "balance.pan"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"carry": "crucible_01"}', '{"carry": CONTAINER, "to": LOCATION}'),
        (b'{"empty": 7}', "no container 7"),
        (b'{"refill": "BaO", "mass_g": true}', "mass_g is no number"),
        (b'{"refill": "BaO", "mass_g": 1}', "no BaO in stock"),
        (b"drop the balance", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"[" * 30000, "too deeply nested"),
        (b'"\xff"', "not JSON"),
        (b"{}", '{"incidents": true}'),
        (b'{"fault": "balance"}', "did you mean 'faults'?"),
        (b'{"faults": "balnce"}', "did you mean 'balance'?"),
        (b'{"faults": ["balance"]}', "no device"),
        (b'{"device": {}, "fault": "drop"}', "no device"),
        (b'{"device": "balance"}', "'fault' is missing"),
        (b'{"device": "balance", "fault": {}}', "unknown fault"),
        (b'{"device": "balance", "fault": "drop", "for_s": NaN}', "NaN is no number"),
        (b'{"device": "balance", "fault": "drop", "in_s": 3}', "unknown key 'in_s'"),
        (b'{"device": "balance", "clear": false}', "and nothing else"),
        (b'{"device": "balance", "clear": true, "at_s": 3}', "and nothing else"),
    ],
)
def test_control_socket_answers_what_is_wrong_and_goes_on(
    play: Play, small_lab: Path, line: bytes, text: str
) -> None:
    """A wrong line harms nobody, and says what is allowed."""
    wrong, right = talk(play, small_lab, line, b'{"incidents": true}')

    assert wrong["ok"] is False
    assert text in wrong["error"]
    assert right["ok"] is True


def test_control_socket_ends_a_talk_of_endless_lines(
    play: Play, small_lab: Path
) -> None:
    """A line has a bound, and who exceeds it is told once."""
    (answer,) = talk(play, small_lab, b"x" * 70000, b'{"incidents": true}')

    assert answer == {"ok": False, "error": "a line should have at most 65536 bytes"}


def test_control_socket_names_the_port_that_is_taken(
    play: Play, small_lab: Path
) -> None:
    """Two benches cannot have one port."""

    async def scenario() -> None:
        bench = bench_of(small_lab)
        first = ControlSocket(bench)
        port = int((await first.start()).rpartition(":")[2])
        try:
            await ControlSocket(bench, port).start()
        finally:
            await first.stop()

    with pytest.raises(ConfigurationError, match="cannot listen there"):
        play(scenario())


def test_control_socket_stops_while_somebody_talks(play: Play, small_lab: Path) -> None:
    """A client that stays connected does not keep the bench."""

    async def scenario() -> bytes:
        control = ControlSocket(bench_of(small_lab))
        host, _, port = (await control.start()).partition(":")
        with running_loop().freezing("talking to the control socket"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b'{"incidents": true}\n')
            await reader.readline()
            await control.stop()
            rest = await reader.read()
            writer.close()
            await writer.wait_closed()
        return rest

    assert play(scenario()) == b""
