"""Making safe: every device is tried, whatever happens to the others."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from ppu.cell.lab import OpenLab
from ppu.cell.making_safe import make_safe
from ppu.core.capabilities import GasRequest
from ppu.core.errors import LinkBroken

OpenTwin = Callable[..., OpenLab]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LinkBroken("furnace_1: the cable is out"), "the cable is out"),
        (ZeroDivisionError("x"), r"its driver failed \(ZeroDivisionError: x\)"),
        (KeyError("state"), r"its driver failed \(KeyError: 'state'\)"),
    ],
)
def test_other_devices_are_made_safe_when_one_fails_in_any_way(
    open_twin: OpenTwin,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    told: str,
) -> None:
    """A broken cable or a driver's mistake at the furnace leaves no gas flowing."""
    lab: Any = open_twin(links="memory")
    furnace, gas = lab.devices["furnace_1"], lab.devices["gas_2"]
    lab.host.call(_let_flow(gas))

    async def fail() -> str:
        raise error

    monkeypatch.setattr(furnace, "go_to_abort_state", fail)
    made = lab.host.call(make_safe({"furnace_1": furnace, "gas_2": gas}))

    assert list(made.unsafe) == ["furnace_1"]
    assert re.search(told, made.unsafe["furnace_1"])
    assert lab.read("gas_2", "setpoint")["value"] == 0.0


async def _let_flow(gas: Any) -> None:
    await gas.set(GasRequest("O2", 100.0))
