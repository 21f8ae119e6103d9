"""What authors of drivers and simulators test them with.

Importing this needs the extra ``ppu-lab[testing]``. The fixtures of
:mod:`ppu.testing.plugin` are there in every pytest run once PPU is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppu.testing.codecs import check_codec
    from ppu.testing.devices import DeviceContract
    from ppu.testing.simulators import HttpCall, SimulatorContract
    from ppu.testing.stage import InstrumentContract, Stage
    from ppu.testing.tapes import Replay, replay
    from ppu.testing.transports import TransportContract, TransportRig

__all__ = [
    "DeviceContract",
    "HttpCall",
    "InstrumentContract",
    "Replay",
    "SimulatorContract",
    "Stage",
    "TransportContract",
    "TransportRig",
    "check_codec",
    "replay",
]

_MODULES = {
    "DeviceContract": "devices",
    "HttpCall": "simulators",
    "InstrumentContract": "stage",
    "Replay": "tapes",
    "SimulatorContract": "simulators",
    "Stage": "stage",
    "TransportContract": "transports",
    "TransportRig": "transports",
    "check_codec": "codecs",
    "replay": "tapes",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: pytest loads this package in every run."""
    if name not in _MODULES:
        raise AttributeError(f"module 'ppu.testing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ppu.testing.{_MODULES[name]}"), name)
