"""Mocked devices: ophyd-async's own, which have no instrument."""

from collections.abc import Callable
from typing import Any

import pytest

from ppu.cell.lab import OpenLab
from ppu.core.capabilities import Carry, FiringProfile, GasRequest, Segment
from ppu.core.errors import InterlockError
from ppu.devices import Instrument, build_devices

OpenTwin = Callable[..., OpenLab]

SEGMENTS = FiringProfile((Segment(900.0, 10.0, 3600.0),), 60.0).segments
ACTS: dict[str, tuple[str, Any]] = {
    "furnace_1": ("_write_program", SEGMENTS),
    "furnace_2": ("_write_program", SEGMENTS),
    "gas_2": ("set", GasRequest("O2", 100.0)),
    "robot_arm": ("set", Carry("crucible_01", "rack_1.1", "balance.pan")),
    "door_1": ("set", "open"),
}
"""Operations that use their client, beside signals, by device."""


@pytest.mark.parametrize("name", ACTS)
def test_mock_sends_nothing_where_an_operation_uses_its_client(
    open_twin: OpenTwin, name: str
) -> None:
    """A mocked device neither opens the path to the real one nor sends anything."""
    lab = open_twin(links="memory")
    assert lab.bench is not None
    mocked = build_devices(lab.file, lab.path, lab.bench.connections, (name,))[name]
    assert isinstance(mocked, Instrument)
    verb, value = ACTS[name]

    async def scenario() -> None:
        await mocked.connect(mock=True)
        with pytest.raises(InterlockError, match=f"{name}: it is a mock"):
            await getattr(mocked, verb)(value)
        assert not mocked.link.is_open
        await mocked.disconnect()

    lab.host.call(scenario())

    assert mocked.statistics().n_bytes_sent == 0
