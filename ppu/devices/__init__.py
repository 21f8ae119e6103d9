"""Instruments as devices: what a driver is made of.

Drivers import from here and, for furnaces with a programmer of their own, from
:mod:`ppu.devices.firing`: the modules behind may be divided anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppu.devices.address import Address, InvalidReading, Measured
    from ppu.devices.build import build_devices, check_devices, driver_class
    from ppu.devices.classic import ClassicInstrument
    from ppu.devices.display import Display, DisplayedHolding, DisplayMaster
    from ppu.devices.http import JsonField
    from ppu.devices.instrument import (
        DriverFacts,
        Identity,
        Instrument,
        LabDevice,
        NoLimits,
        NoSettings,
        Reference,
    )
    from ppu.devices.line import Query
    from ppu.devices.modbus import Holding
    from ppu.devices.readings import Quality
    from ppu.devices.signals import SignalR, SignalRW, execute, record, write

__all__ = [
    "Address",
    "ClassicInstrument",
    "Display",
    "DisplayMaster",
    "DisplayedHolding",
    "DriverFacts",
    "Holding",
    "Identity",
    "Instrument",
    "InvalidReading",
    "JsonField",
    "LabDevice",
    "Measured",
    "NoLimits",
    "NoSettings",
    "Quality",
    "Query",
    "Reference",
    "SignalR",
    "SignalRW",
    "build_devices",
    "check_devices",
    "driver_class",
    "execute",
    "record",
    "write",
]

_MODULES = {
    "Address": "address",
    "ClassicInstrument": "classic",
    "Display": "display",
    "DisplayMaster": "display",
    "DisplayedHolding": "display",
    "DriverFacts": "instrument",
    "Holding": "modbus",
    "Identity": "instrument",
    "Instrument": "instrument",
    "InvalidReading": "address",
    "JsonField": "http",
    "LabDevice": "instrument",
    "Measured": "address",
    "NoLimits": "instrument",
    "NoSettings": "instrument",
    "Quality": "readings",
    "Query": "line",
    "Reference": "instrument",
    "build_devices": "build",
    "check_devices": "build",
    "SignalR": "signals",
    "SignalRW": "signals",
    "driver_class": "build",
    "execute": "signals",
    "record": "signals",
    "write": "signals",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: no driver needs every wire's library."""
    if name not in _MODULES:
        raise AttributeError(f"module 'ppu.devices' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ppu.devices.{_MODULES[name]}"), name)
