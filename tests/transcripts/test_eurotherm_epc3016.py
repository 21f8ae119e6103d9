"""What a Eurotherm EPC3016 is sent and answers, byte for byte.

Frames follow the Modbus messaging on TCP/IP implementation guide V1.0b (MBAP header)
and the Modbus application protocol specification V1.1b3; registers, scaling and the
use of function 6 follow CederGroupHub/alab_control (furnace_epc_3016: modbus_addr.csv
and furnace_driver.py).
"""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from ppu.core.errors import InstrumentError
from ppu.core.labfile import LabFile
from ppu.devices.signals import execute, write
from ppu.transports.tcp import TcpConnection
from ppu_drivers.eurotherm_epc3016 import (
    EurothermEpc3016,
    EurothermEpc3016Limits,
    EurothermEpc3016Settings,
    ProgramMode,
    Switch,
    TimeUnit,
)
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.modbus import ModbusTcpSlave
from ppu_simulators.fronts.tcp import TcpFront
from ppu_simulators.instruments.eurotherm_epc3016 import SimulatedEurothermEpc3016
from ppu_simulators.world import World

Play = Callable[[Coroutine[Any, Any, Any]], Any]


@dataclass(frozen=True)
class Exchange:
    """One exchange, what it means to the driver, and where it is from."""

    name: str
    source: str
    sent: str
    answered: str
    act: Callable[[EurothermEpc3016], Any]
    meaning: Any
    registers: dict[int, int] | None = None
    """What the controller must hold to give this answer."""
    pv_degc: float | None = None
    """What it must measure."""


EXCHANGES = [
    Exchange(
        "process value 24.2 degC",
        "TCP guide V1.0b §3.1.3; Modbus V1.1b3 §6.3; Loop.Main.PV at 1, 1dp",
        "00 01 00 00 00 06 01 03 00 01 00 01",
        "00 01 00 00 00 05 01 03 02 00 f2",
        lambda driver: driver._master.read_holding(1),
        [242],
        pv_degc=24.2,
    ),
    Exchange(
        "process value -5.0 degC",
        "Modbus V1.1b3 §6.3; Loop.Main.PV at 1, 1dp, signed",
        "00 01 00 00 00 06 01 03 00 01 00 01",
        "00 01 00 00 00 05 01 03 02 ff ce",
        lambda driver: driver._master.read_holding(1),
        [0xFFCE],
        pv_degc=-5.0,
    ),
    Exchange(
        "program is running",
        "from driver code: furnace_driver.py, Programmer.Run.Mode at 23: 2 is run",
        "00 01 00 00 00 06 01 03 00 17 00 01",
        "00 01 00 00 00 05 01 03 02 00 02",
        lambda driver: driver.program_mode.get_value(),
        ProgramMode.RUN,
    ),
    Exchange(
        "program is complete",
        "from driver code: furnace_driver.py, 16 is complete",
        "00 01 00 00 00 06 01 03 00 17 00 01",
        "00 01 00 00 00 05 01 03 02 00 10",
        lambda driver: driver.program_mode.get_value(),
        ProgramMode.COMPLETE,
    ),
    Exchange(
        "start the program",
        "from driver code: 1 to Programmer.Setup.Run at 10573 (0x294d) with function "
        "6; Modbus V1.1b3 §6.6: the answer is the echo",
        "00 01 00 00 00 06 01 06 29 4d 00 01",
        "00 01 00 00 00 06 01 06 29 4d 00 01",
        lambda driver: execute(driver.run_program),
        None,
    ),
    Exchange(
        "reset the program",
        "from driver code: 1 to Programmer.Setup.Reset at 10575 (0x294f)",
        "00 01 00 00 00 06 01 06 29 4f 00 01",
        "00 01 00 00 00 06 01 06 29 4f 00 01",
        lambda driver: execute(driver.reset_program),
        None,
    ),
    Exchange(
        "ramps per minute",
        "from driver code: Program.1.RampUnits at 8330 (0x208a): 1 is minute",
        "00 01 00 00 00 06 01 06 20 8a 00 01",
        "00 01 00 00 00 06 01 06 20 8a 00 01",
        lambda driver: write(driver.ramp_units, TimeUnit.MINUTE),
        None,
    ),
    Exchange(
        "target of the first segment: 900.0 degC",
        "Segment.1.TargetSetpoint at 8337 (0x2091), resolution of the PV",
        "00 01 00 00 00 06 01 06 20 91 23 28",
        "00 01 00 00 00 06 01 06 20 91 23 28",
        lambda driver: driver._master.write_register(8337, 9000),
        None,
    ),
    Exchange(
        "watchdog timeout",
        "Comms.Fixed.Main.WDTimeout at 1169 (0x0491)",
        "00 01 00 00 00 06 01 03 04 91 00 01",
        "00 01 00 00 00 05 01 03 02 00 3c",
        lambda driver: driver.watchdog_timeout.get_value(),
        60,
    ),
    Exchange(
        "watchdog flag is down",
        "Comms.Fixed.Main.WDFlag at 1172 (0x0494)",
        "00 01 00 00 00 06 01 03 04 94 00 01",
        "00 01 00 00 00 05 01 03 02 00 00",
        lambda driver: driver.watchdog_flag.get_value(),
        Switch.OFF,
    ),
    Exchange(
        "firmware version, two characters a register",
        "Instrument.Info.Version at 18432 (0x4800); the next string is at 18435",
        "00 01 00 00 00 06 01 03 48 00 00 03",
        "00 01 00 00 00 09 01 03 06 45 34 2e 31 30 00",
        lambda driver: driver._master.read_holding(18432, 3),
        [0x4534, 0x2E31, 0x3000],
    ),
    Exchange(
        "no such register",
        "Modbus V1.1b3 §7: exception 2, illegal data address",
        "00 01 00 00 00 06 01 03 03 e7 00 01",
        "00 01 00 00 00 03 01 83 02",
        lambda driver: driver._master.read_holding(999),
        InstrumentError("illegal data address", 2),
    ),
    Exchange(
        "setpoint above the limit",
        "Modbus V1.1b3 §7: exception 3; SP1 (24) above Loop.Setpoint.SPHighLimit (111)",
        "00 01 00 00 00 06 01 06 00 18 01 f4",
        "00 01 00 00 00 03 01 86 03",
        lambda driver: driver._master.write_register(24, 500),
        InstrumentError("illegal data value", 3),
        {111: 400},
    ),
]

every_exchange = pytest.mark.parametrize(
    "exchange", EXCHANGES, ids=lambda exchange: exchange.name
)


def lab_file(registers: dict[int, int] | None = None) -> LabFile:
    """Return a lab with one furnace."""
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "furnace": {
                    "driver": "ppu_drivers.eurotherm_epc3016:EurothermEpc3016",
                    "twin": {"registers": registers or {}},
                }
            },
        }
    )


class Recording:
    """Answers one request as it was recorded, and nothing else."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.heard: list[str] = []

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take a request; answer it if it is the recorded one."""
        self.heard.append(data.hex(" "))
        if self.heard[-1] != self._exchange.sent:
            return []
        return [Answer(bytes.fromhex(self._exchange.answered))]


@every_exchange
def test_driver_sends_and_understands_what_was_recorded(
    play: Play, exchange: Exchange
) -> None:
    """The driver's bytes are the recorded ones, and it reads the answer's meaning."""
    recording = Recording(exchange)

    async def talk() -> Any:
        front = TcpFront(recording)
        host, port = await front.start()
        driver = EurothermEpc3016(
            "furnace",
            lab_file().devices["furnace"],
            TcpConnection(transport="tcp", host=host, port=port),
            EurothermEpc3016Settings.model_validate(
                {
                    "time_format": "second",
                    "safety": {
                        "setpoint_high_degc": 1100,
                        "alarm_1_degc": 1150,
                        "watchdog_timeout_s": 60,
                    },
                }
            ),
            EurothermEpc3016Limits(
                temperature_degc=(0.0, 1100.0), ramp_degc_per_min=(0.0, 10.0)
            ),
        )
        driver.link.identify = None
        try:
            await driver.connect_link()
            return await exchange.act(driver)
        except InstrumentError as exc:
            return exc
        finally:
            await driver.disconnect()
            await front.stop()

    found = play(talk())

    assert recording.heard == [exchange.sent]
    if isinstance(exchange.meaning, InstrumentError):
        assert isinstance(found, InstrumentError)
        assert found.code == exchange.meaning.code
        assert str(exchange.meaning) in str(found)
    else:
        assert found == exchange.meaning


@every_exchange
def test_simulator_answers_what_was_recorded(exchange: Exchange) -> None:
    """The simulated controller answers the recorded request byte for byte."""
    lab = lab_file(exchange.registers)
    simulated = SimulatedEurothermEpc3016(
        "furnace", lab.devices["furnace"], World(lab, 1), "1001"
    )
    if exchange.pv_degc is not None:
        simulated.chamber.pv_degc = exchange.pv_degc
    if isinstance(exchange.meaning, ProgramMode):
        codes = dict(zip(ProgramMode, (1, 2, 4, 8, 16), strict=True))
        simulated._programmer.status = codes[exchange.meaning]
    (answer,) = ModbusTcpSlave(1, simulated).receive(bytes.fromhex(exchange.sent), 0.0)

    assert answer.at(0.0).hex(" ") == exchange.answered
