"""A simulated balance whose cell is frozen shows the past, whoever looks."""

from __future__ import annotations

import pytest

from ppu.core.labfile import LabFile
from ppu_simulators.instruments.mettler_sics import SimulatedMettlerSics
from ppu_simulators.world import World

LAB = LabFile.model_validate(
    {
        "lab": "bench",
        "schema_version": 1,
        "devices": {
            "balance": {
                "driver": "ppu_drivers.mettler_sics:MettlerSics",
                "slots": ["balance.pan"],
                "twin": {
                    "faults": [{"fault": "sensor frozen", "at_s": 100, "for_s": 100}]
                },
            }
        },
        "locations": {
            "balance.pan": {"holds": "crucible", "inside": "balance"},
            "rack": {"holds": "crucible"},
        },
        "containers": {
            "crucible_01": {
                "kind": "crucible",
                "at": "balance.pan",
                "capacity_ml": 20,
                "tare_g": 18.2,
            }
        },
    }
)


class Pan:
    """A balance that freezes from 100 to 200 s; the pan is emptied at 150 s."""

    def __init__(self) -> None:
        self.world = World(LAB, 1)
        entry = LAB.devices["balance"]
        self.simulated = SimulatedMettlerSics("balance", entry, self.world, "B0")

    def ask(self, command: str, time: float) -> str:
        """Return the answer to a command at lab time *time*."""
        (answer,) = self.simulated.receive(f"{command}\r\n".encode(), time)
        return answer.at(time + answer.delay_s).decode().strip()

    def empty(self, time: float) -> None:
        """Take the crucible off."""
        self.world.containers["crucible_01"].at = "rack"


@pytest.mark.parametrize("looks", [(99.0,), (140.0,), (20.0, 120.0, 130.0, 140.0)])
def test_balance_shows_the_last_weight_when_its_cell_is_frozen(
    looks: tuple[float, ...],
) -> None:
    """What stood there when it froze is shown, to the last digit, and as stable."""
    pan, other = Pan(), Pan()
    expected = other.ask("SI", 100.0)
    for time in looks:
        pan.ask("SI", time)
    pan.empty(150.0)

    assert pan.ask("SI", 151.0) == expected
    assert pan.ask("S", 160.0) == expected
    assert expected.startswith("S S    18.20")


def test_balance_shows_what_is_there_when_its_cell_works_again() -> None:
    """After the window the empty pan weighs nothing."""
    pan = Pan()
    pan.ask("SI", 120.0)
    pan.empty(150.0)
    pan.ask("SI", 160.0)

    assert abs(float(pan.ask("S", 210.0).split()[2])) < 0.001


def test_balance_tares_when_its_cell_is_frozen() -> None:
    """Only the cell is stuck: taring still subtracts, which hides it the better."""
    pan = Pan()
    pan.ask("T", 120.0)

    assert pan.ask("S", 130.0).split()[:3] == ["S", "S", "0.0000"]
