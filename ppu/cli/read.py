"""``ppu read``: the first thing done at a bench."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppu.cli.log_lines import set_up_logging
from ppu.cli.options import (
    LabOption,
    TargetName,
    TargetOption,
    VerboseOption,
    read_pace,
)
from ppu.core.errors import ConfigurationError, NotFoundError, PPUError, nearest
from ppu.core.numbers import integer_option

if TYPE_CHECKING:
    from ppu.cell.lab import OpenLab


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(epilog="Example: ppu read furnace_1.process_value --watch")(read)


def read(
    what: Annotated[
        str | None, typer.Argument(help="DEVICE or DEVICE.SIGNAL; all by default.")
    ] = None,
    lab: LabOption = "a-lab",
    target: TargetOption = TargetName.HARDWARE,
    pace: Annotated[str | None, typer.Option(help="See `ppu run --help`.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Read again every second.")
    ] = False,
    count: Annotated[
        int | None,
        typer.Option(
            parser=integer_option(1), help="With --watch: stop after so many."
        ),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object for each reading.")
    ] = False,
    verbose: VerboseOption = False,
) -> None:
    """Read signals: value, unit, quality and age. Nothing is changed."""
    from ppu.cell.open_lab import open_lab
    from ppu.core.labfile import load_lab
    from ppu.core.registry import find_lab

    set_up_logging(verbose=verbose)
    device, dot, signal = (what or "").partition(".")
    if what is not None and not (device and (signal or not dot)):
        raise ConfigurationError(
            f"'{what}' should look like DEVICE or DEVICE.SIGNAL, such as "
            "furnace_1.process_value"
        )
    if device:
        devices = load_lab(find_lab(lab)).devices
        if device not in devices:
            raise NotFoundError(
                f"there is no device '{device}'; {nearest(device, devices)}"
            )
    speed: Any = read_pace(pace)
    opened = open_lab(lab, target.value, pace=speed, only=(device,) if device else ())
    n_left = count if watch else 1
    with opened:
        names = _signals(opened, device, signal)
        while n_left is None or n_left > 0:
            for name, key in names:
                _show(_read_one(opened, name, key), as_json=json_)
            sys.stdout.flush()
            if n_left is not None:
                n_left -= 1
            if n_left != 0:
                opened.host.call(_wait_a_second())


async def _wait_a_second() -> None:
    import asyncio

    await asyncio.sleep(1.0)


def _signals(lab: OpenLab, device: str, signal: str) -> list[tuple[str, str]]:
    """Return the names of the signals to read."""
    names = []
    for name in lab:
        signals = lab.devices[name].signal_names()
        if signal and signal not in signals:
            raise NotFoundError(
                f"{device} has no signal '{signal}'; {nearest(signal, signals)}"
            )
        names += [(name, key) for key in signals if not signal or key == signal]
    return names


def _read_one(lab: OpenLab, device: str, signal: str) -> dict[str, Any]:
    """Return one reading; what cannot be read says why."""
    described: dict[str, Any] = {"device": device, "signal": signal}
    try:
        reading = lab.read(device, signal)
    except PPUError as exc:
        return {**described, "value": None, "quality": "invalid", "message": str(exc)}
    age = lab.host.loop.stamp() - reading["timestamp"]
    value = reading["value"]
    return {
        **described,
        "value": getattr(value, "value", value),
        "units": lab.devices[device].units_of(signal),
        "quality": reading["quality"],
        "age_s": age,
        "message": reading.get("message", ""),
    }


def _show(reading: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(reading, default=str) + "\n")
        return
    name = f"{reading['device']}.{reading['signal']}"
    if reading["value"] is None:
        sys.stdout.write(f"{name:34} {'-':>12}  invalid  {reading['message']}\n")
        return
    value = reading["value"]
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    if len(shown) > 40:
        shown = shown[:37] + "..."
    sys.stdout.write(
        f"{name:34} {shown:>12} {reading['units']:8} {reading['quality']:8} "
        f"{reading['age_s']:.1f} s {reading['message']}\n"
    )
