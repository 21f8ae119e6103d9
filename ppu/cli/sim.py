"""``ppu sim``: serve a lab's simulated instruments in a process of their own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppu.cli.log_lines import set_up_logging
from ppu.cli.options import SeedOption, path_option, read_pace, read_port
from ppu.core.errors import ConfigurationError, nearest
from ppu.core.notices import tell
from ppu.core.stopping import on_stop_signal

if TYPE_CHECKING:
    from ppu.core.labfile import LabFile
    from ppu.core.labtime import LabTimeLoop
    from ppu.twin.bench import Bench
    from ppu.twin.control import ControlSocket


_HELP = """Serve simulated instruments until SIGINT, SIGTERM or SIGHUP.

To see how your own software bears faults, tell them to the control socket, whose
address is printed, as one line of JSON each; one line answers:

\b
  echo '{"device": "balance", "fault": "drop", "for_s": 10}' | nc -N 127.0.0.1 PORT

{"faults": "balance"} lists the faults that this device knows and what hit so far,
{"device": "balance", "clear": true} ends them, {"incidents": true} tells what went
physically wrong, and {"truth": true} where containers really are and when what cannot
be undone was done. Times are lab seconds from now: at_s, every_s, for_s. The
command `ppu fault` does the same. Faults may also stand in the lab file, under
devices.NAME.twin.faults.

A person's hands are there, too: {"carry": "crucible_01", "to": "rack_1.1"},
{"empty": "crucible_01"} and {"refill": "BaCO3", "mass_g": 50}, or `ppu truth`.
"""


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(
        help=_HELP, epilog="Example: ppu sim --pace 600 --write-lab bench.yaml"
    )(sim)


def sim(
    lab: Annotated[str, typer.Argument(help="Lab name or lab file.")] = "a-lab",
    only: Annotated[
        list[str] | None, typer.Option(help="Serve only this device; repeatable.")
    ] = None,
    pace: Annotated[str, typer.Option(help="Lab seconds per wall second.")] = "1",
    seed: SeedOption = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print endpoints as one JSON object.")
    ] = False,
    write_lab: Annotated[
        Path | None,
        typer.Option(
            parser=path_option, help="Write a lab file whose hardware leads here."
        ),
    ] = None,
    play: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PERSON",
            help="Let `ppu person` play this person, instead of a model; repeatable.",
        ),
    ] = None,
    control: Annotated[
        str,
        typer.Option(help="Port of the control socket, or auto for a free one."),
    ] = "auto",
) -> None:
    """Serve simulated instruments until SIGINT, SIGTERM or SIGHUP."""
    from ppu.core.labfile import load_lab
    from ppu.core.labtime import LabTimeLoop
    from ppu.core.registry import find_lab
    from ppu.twin.bench import Bench
    from ppu.twin.control import ControlSocket

    set_up_logging(verbose=False)
    speed = read_pace(pace)
    if not isinstance(speed, float):
        raise ConfigurationError(
            "--pace jump: other programs live in real time; give a number"
        )
    control_port = _read_port(control)
    path = find_lab(lab)
    file = load_lab(path)
    names = tuple(only or ())
    played = tuple(play or ())
    for option, name in [
        *(("--only", n) for n in names),
        *(("--play", n) for n in played),
    ]:
        if name not in file.devices:
            raise ConfigurationError(
                f"{option} {name}: no such device; {nearest(name, file.devices)}"
            )
    nonces = make_nonces(file, names)
    bench = Bench(
        file,
        path,
        file.seed if seed is None else seed,
        nonces=nonces,
        only=names,
        played=played,
    )
    loop = LabTimeLoop(speed)
    try:
        stopped = asyncio.Event()

        def stop(_: signal.Signals) -> None:
            loop.call_soon_threadsafe(stopped.set)

        with (
            on_stop_signal(stop),
            asyncio.Runner(loop_factory=lambda: loop) as runner,
        ):
            runner.run(
                _serve(
                    loop,
                    file,
                    path,
                    bench,
                    nonces,
                    write_lab,
                    ControlSocket(bench, control_port),
                    stopped,
                    as_json=json_,
                )
            )
    finally:
        incidents = bench.world.incidents
        for incident in incidents:
            tell(
                f"incident at {incident.lab_time_s:.0f} s: {incident.device}: "
                f"{incident.kind}: {incident.text}"
            )


def make_nonces(file: LabFile, only: tuple[str, ...]) -> dict[str, str]:
    """Return a fresh number for each device, to tell this bench from any other.

    Four digits, because a Eurotherm's customer id has no more. A serial number that
    the lab file states stays.
    """
    import secrets

    names = [name for name in file.devices if not only or name in only]
    numbers = secrets.SystemRandom().sample(range(1000, 10000), len(names))
    return {
        name: str(number)
        if file.devices[name].serial_number == "unset"
        else file.devices[name].serial_number
        for name, number in zip(names, numbers, strict=True)
    }


async def _serve(
    loop: LabTimeLoop,
    file: LabFile,
    path: Path,
    bench: Bench,
    nonces: dict[str, str],
    write_lab: Path | None,
    control: ControlSocket,
    stopped: asyncio.Event,
    *,
    as_json: bool,
) -> None:
    await bench.start()
    try:
        control_address = await control.start()
        devices = {name: describe(bench, file, name) for name in bench.instruments}
        if write_lab is not None:
            write_bench_lab(write_lab, path, loop, bench, nonces)
        content = {
            "lab": file.lab,
            "pace": loop.pace,
            "epoch": loop.epoch,
            "control": control_address,
            "devices": devices,
        }
        if as_json:
            sys.stdout.write(json.dumps(content) + "\n")
        else:
            sys.stdout.write(f"lab {file.lab} at pace {loop.pace:g}; Ctrl-C ends it\n")
            for name, facts in devices.items():
                settings = ", ".join(f"{k} {v}" for k, v in facts["settings"].items())
                sys.stdout.write(
                    f"  {name:16} {facts['wire']:14} {facts['endpoint']} {settings}\n"
                )
            if write_lab is not None:
                sys.stdout.write(f"lab file for this bench: {write_lab}\n")
            sys.stdout.write(f"faults: ppu fault --control {control_address}\n")
            if bench.played:
                sys.stdout.write(f"people: ppu person --control {control_address}\n")
        sys.stdout.flush()
        await stopped.wait()
    finally:
        await control.stop()
        await bench.stop()


def _read_port(text: str) -> int:
    """Return the port that *text* names, 0 for a free one."""
    if text == "auto":
        return 0
    port = read_port(text)
    if port is None:
        raise ConfigurationError(
            f"--control {text}: give a port from 1 to 65535, or auto"
        )
    return port


def describe(bench: Bench, file: LabFile, name: str) -> dict[str, Any]:
    """Return driver, wire, endpoint and line settings of one device."""
    connection = dict(bench.connections[name])
    transport = connection.pop("transport")
    if transport == "serial":
        endpoint = connection.pop("port")
    elif transport == "http":
        endpoint = connection.pop("url")
    else:
        endpoint = f"{connection.pop('host')}:{connection.pop('port')}"
    return {
        "driver": file.devices[name].driver,
        "wire": bench.instruments[name].wire,
        "endpoint": endpoint,
        "settings": connection,
    }


def drop_what_is_not_served(content: dict[str, Any]) -> None:
    """Remove places, containers and stock of devices that *content* lacks."""
    devices = content["devices"]
    content["locations"] = {
        name: entry
        for name, entry in content.get("locations", {}).items()
        if entry.get("inside") in (None, *devices)
    }
    content["containers"] = {
        name: entry
        for name, entry in content.get("containers", {}).items()
        if entry["at"] in content["locations"]
    }
    content["stock"] = {
        name: entry
        for name, entry in content.get("stock", {}).items()
        if entry["at"].partition(".")[0] in devices
    }


def write_bench_lab(
    target: Path, source: Path, loop: LabTimeLoop, bench: Bench, nonces: dict[str, str]
) -> None:
    """Write the lab file *source* again, its hardware leading to *bench*."""
    from ppu.core.yaml_document import YamlDocument, to_yaml

    content = YamlDocument(source.read_text(encoding="utf-8"), str(source)).content
    served = bench.connections
    content["devices"] = {
        name: {**entry, "hardware": served[name]}
        for name, entry in content["devices"].items()
        if name in served
    }
    drop_what_is_not_served(content)
    content["simulated_bench"] = {
        "epoch": loop.epoch,
        "pace": loop.pace,
        "nonces": nonces,
    }
    temporary = target.with_name(target.name + ".part")
    try:
        temporary.write_text(
            "# Written by `ppu sim --write-lab`; valid while that process runs.\n"
            + to_yaml(content),
            encoding="utf-8",
        )
        temporary.replace(target)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise ConfigurationError(f"--write-lab {target}: {exc.strerror}") from exc
