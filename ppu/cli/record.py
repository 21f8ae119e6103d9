"""``ppu record``: keep a conversation with an instrument, for tests and questions."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppu.cli.log_lines import set_up_logging
from ppu.cli.options import LabOption, TargetName, TargetOption, VerboseOption
from ppu.core.errors import ConfigurationError, NotFoundError, PPUError, nearest

if TYPE_CHECKING:
    from ppu.cell.lab import OpenLab
    from ppu.devices.instrument import LabDevice
    from ppu.transports.recording import Recorder


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(
        epilog="Example: ppu record balance --target hardware --lab my-lab.yaml"
    )(record)


def record(
    device: Annotated[str, typer.Argument(help="Name of a device of the lab.")],
    lab: LabOption = "a-lab",
    target: TargetOption = TargetName.HARDWARE,
    out: Annotated[
        Path | None, typer.Option(help="File to write; DEVICE.jsonl by default.")
    ] = None,
    signal: Annotated[
        list[str] | None,
        typer.Option(help="Read this signal only; repeatable. All by default."),
    ] = None,
    verbose: VerboseOption = False,
) -> None:
    """Record what an instrument answers while it is connected and read.

    Nothing is changed on it. The file holds no path and no address of this machine;
    ppu.testing.replay serves it to the driver again.
    """
    from ppu.cell.open_lab import open_lab
    from ppu.core.labfile import load_lab
    from ppu.core.registry import find_lab
    from ppu.transports.recording import Recorder

    set_up_logging(verbose=verbose)
    file = load_lab(find_lab(lab))
    if device not in file.devices:
        raise NotFoundError(
            f"there is no device '{device}'; {nearest(device, file.devices)}"
        )
    path = Path(f"{device}.jsonl") if out is None else out
    if path.exists():
        raise ConfigurationError(f"{path} exists already; name another with --out")
    opened = open_lab(lab, target.value, only=(device,))
    with opened.closing(), Recorder(device) as recorder:
        opened.connect()
        for name in _signals(opened.devices[device], signal or []):
            _read(opened, recorder, device, name)
        recording = recorder.recording(
            file.devices[device],
            opened.devices[device].facts.wire,
            _connection(opened, device),
        )
    try:
        recording.save(path)
    except OSError as exc:
        raise ConfigurationError(f"--out {path}: {exc.strerror}") from exc
    sys.stdout.write(
        f"{path}: {len(recording.exchanges)} exchanges, "
        f"{len(recording.readings)} readings\n"
    )


def _signals(device: LabDevice, wanted: list[str]) -> list[str]:
    """Return the names of the signals to read."""
    names = device.signal_names()
    for name in wanted:
        if name not in names:
            raise NotFoundError(
                f"--signal {name}: there is no such signal; {nearest(name, names)}"
            )
    return wanted or names


def _connection(lab: OpenLab, device: str) -> Mapping[str, Any]:
    """Return what leads to the instrument."""
    if lab.bench is not None:
        return lab.bench.connections[device]
    return lab.file.devices[device].hardware or {}


def _read(lab: OpenLab, recorder: Recorder, device: str, signal: str) -> None:
    """Read one signal and record what it said; what cannot be read says why."""
    instrument = lab.devices[device]
    try:
        reading = lab.read(device, signal)
    except PPUError as exc:
        value, quality, message = None, "invalid", str(exc)
    else:
        value, quality = reading["value"], reading["quality"]
        message = reading.get("message", "")
    recorder.note_reading(
        signal,
        value,
        lab.host.loop.time(),
        units=instrument.units_of(signal),
        quality=quality,
        message=message,
    )
