"""Drives the simulated Alicat controller with the ``alicat`` package.

It needs no PPU to import, and PPU does not need ``alicat``: give it an environment of
its own, and the ``ppu`` program to start the bench with::

    python3 -m venv /tmp/alicat
    /tmp/alicat/bin/pip install alicat==0.9.0
    /tmp/alicat/bin/python tests/independent/alicat_client.py .venv/bin/ppu
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LAB = """\
lab: alicat
schema_version: 1
devices:
  old:
    driver: ppu_drivers.alicat_mfc:AlicatMfc
    simulator: ppu_simulators.instruments.alicat_mfc:SimulatedAlicatMfc
    hardware: {transport: serial, port: /dev/nowhere_1, baudrate: 19200}
    settings: {supplies: room, gases: [Ar], full_scale_ml_per_min: 500}
    limits: {flow_ml_per_min: [0, 500]}
    twin: {firmware: 5v12.0-R22}
  new:
    driver: ppu_drivers.alicat_mfc:AlicatMfc
    simulator: ppu_simulators.instruments.alicat_mfc:SimulatedAlicatMfc
    hardware: {transport: serial, port: /dev/nowhere_2, baudrate: 19200}
    settings: {supplies: room, gases: [Ar], full_scale_ml_per_min: 500}
    limits: {flow_ml_per_min: [0, 500]}
    twin: {firmware: 10v20.0-R24}
"""
SETTLING_S = 2.0


def check(what: str, is_so: bool) -> None:
    """Say what was tried, and end at once if it failed."""
    sys.stdout.write(f"{'passed' if is_so else 'FAILED'}: {what}\n")
    if not is_so:
        sys.exit(1)


async def try_controller(port: str, firmware: str) -> None:
    """Do with the controller on *port* what the package can do."""
    alicat: Any = importlib.import_module("alicat")
    is_meter = await alicat.FlowMeter.is_connected(port)
    is_controller = await alicat.FlowController.is_connected(port)
    check("it is a controller, and no meter", is_controller and not is_meter)
    async with alicat.FlowController(port) as controller:
        text = await controller.get_firmware()
        check(f"get_firmware names {firmware}", firmware in text)
        state = await controller.get()
        check("get reads setpoint 0", state["setpoint"] == 0.0)
        check("get reads the room's warmth", 15.0 < state["temperature"] < 30.0)
        check("it controls mass flow", state["control_point"] == "mass flow")
        await controller.set_gas("Ar")
        check("set_gas by name", (await controller.get())["gas"] == "Ar")
        await controller.set_gas(8)
        check("set_gas by number", (await controller.get())["gas"] == "N2")
        await controller.set_flow_rate(123.4)
        await asyncio.sleep(SETTLING_S)
        state = await controller.get()
        check("set_flow_rate is read back", state["setpoint"] == 123.4)
        check("the flow gets there", abs(state["mass_flow"] - 123.4) < 1.0)
        await controller.lock()
        check("lock", await controller.is_locked())
        await controller.unlock()
        check("unlock", not await controller.is_locked())
        # A frame with HLD is longer than this package knows: it is looked at raw.
        await controller.hold()
        line = await controller._write_and_read("A")
        check("hold", line.split()[-1] == "HLD")
        await controller.cancel_hold()
        await controller.set_flow_rate(0.0)
        await asyncio.sleep(SETTLING_S)
        check("flow 0 closes", abs((await controller.get())["mass_flow"]) < 1.0)


def main() -> None:
    """Start a bench of two controllers, and try both."""
    (ppu,) = sys.argv[1:]
    version = importlib.metadata.version("alicat")
    with tempfile.TemporaryDirectory() as folder:
        lab = Path(folder) / "lab.yaml"
        lab.write_text(LAB)
        with subprocess.Popen(  # noqa: S603 - our own command, named by whoever runs this
            [ppu, "sim", str(lab), "--json"], stdout=subprocess.PIPE, text=True
        ) as bench:
            try:
                assert bench.stdout is not None
                devices = json.loads(bench.stdout.readline())["devices"]
                for name, firmware in (("old", "5v12"), ("new", "10v20")):
                    # The package takes anything but /dev/... for a TCP address.
                    port = Path(devices[name]["endpoint"]).resolve()
                    sys.stdout.write(f"alicat {version}, firmware {firmware}, {port}\n")
                    asyncio.run(try_controller(str(port), firmware))
            finally:
                bench.terminate()


if __name__ == "__main__":
    main()
