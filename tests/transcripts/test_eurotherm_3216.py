"""What a Eurotherm 3216 is sent and answers, byte for byte.

Frames follow the Modbus application protocol specification V1.1b3 (sections cited
below); registers and scaling follow the 3200 series engineering handbook HA028651
issue 7. Checksums were computed with minimalmodbus, which is part of neither side.
"""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from ppu.core.errors import InstrumentError
from ppu.core.labfile import LabFile
from ppu.devices.signals import execute, write
from ppu.transports.serial import SerialConnection
from ppu_drivers.eurotherm_3216 import (
    EndType,
    Eurotherm3216,
    Eurotherm3216Limits,
    Eurotherm3216Settings,
    ProgramStatus,
)
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.serial import SerialFront, SerialLine
from ppu_simulators.instruments.eurotherm_3216 import SimulatedEurotherm3216
from ppu_simulators.world import World

Play = Callable[[Coroutine[Any, Any, Any]], Any]


@dataclass(frozen=True)
class Exchange:
    """One exchange, what it means to the driver, and where it is from."""

    name: str
    source: str
    sent: str
    answered: str
    act: Callable[[Eurotherm3216], Any]
    meaning: Any
    registers: dict[int, int] | None = None
    """What the controller must hold to give this answer."""
    pv_degc: float | None = None
    """What it must measure."""


EXCHANGES = [
    Exchange(
        "process value 24.2 degC",
        "Modbus V1.1b3 §6.3; HA028651 p. 83 PV.IN; 24.2 is sent as 242: MathWorks "
        "file exchange 24696",
        "01 03 00 01 00 01 d5 ca",
        "01 03 02 00 f2 39 c1",
        lambda driver: driver._master.read_holding(1),
        [242],
        pv_degc=24.2,
    ),
    Exchange(
        "process value -5.0 degC",
        "Modbus V1.1b3 §6.3; HA028651 p. 83 PV.IN; signed: MathWorks 24696",
        "01 03 00 01 00 01 d5 ca",
        "01 03 02 ff ce 78 20",
        lambda driver: driver._master.read_holding(1),
        [0xFFCE],
        pv_degc=-5.0,
    ),
    Exchange(
        "program is running",
        "HA028651 p. 83, register 23: 1 is run",
        "01 03 00 17 00 01 34 0e",
        "01 03 02 00 01 79 84",
        lambda driver: driver.program_status.get_value(),
        ProgramStatus.RUN,
    ),
    Exchange(
        "program has ended",
        "HA028651 p. 83, register 23: 3 is end",
        "01 03 00 17 00 01 34 0e",
        "01 03 02 00 03 f8 45",
        lambda driver: driver.program_status.get_value(),
        ProgramStatus.END,
    ),
    Exchange(
        "setpoint high limit 1100.0 degC",
        "HA028651 p. 84, register 111",
        "01 03 00 6f 00 01 b4 17",
        "01 03 02 2a f8 a6 a6",
        lambda driver: driver._master.read_holding(111),
        [11000],
        {111: 11000},
    ),
    Exchange(
        "start the program",
        "from driver code: alab_control furnace_driver.py writes 1 to register 23 with "
        "function 16, also for one register; Modbus V1.1b3 §6.12",
        "01 10 00 17 00 01 02 00 01 64 b7",
        "01 10 00 17 00 01 b1 cd",
        lambda driver: write(driver.program_status, ProgramStatus.RUN),
        None,
        {1280: 1, 1281: 1000, 1282: 50},
    ),
    Exchange(
        "end type reset",
        "HA028651 p. 84, register 328: 3 is reset; alab_control writes it",
        "01 10 01 48 00 01 02 00 03 f9 19",
        "01 10 01 48 00 01 80 23",
        lambda driver: write(driver.end_type, EndType.RESET),
        None,
    ),
    Exchange(
        "acknowledge all alarms",
        "HA028651 p. 84, register 274: write 1",
        "01 10 01 12 00 01 02 00 01 74 22",
        "01 10 01 12 00 01 a0 30",
        lambda driver: execute(driver.acknowledge_alarms),
        None,
    ),
    Exchange(
        "first segment: 60 min at 900.0 degC, 5.0 degC/min",
        "from driver code: alab_control modbus_addr.csv (1280 dwell, 1281 setpoint, "
        "1282 ramp), ramp x 10",
        "01 10 05 00 00 03 06 00 3c 23 28 00 32 ad 10",
        "01 10 05 00 00 03 80 c4",
        lambda driver: driver._master.write_registers(1280, [60, 9000, 50]),
        None,
    ),
    Exchange(
        "status word and its inverse, no alarm",
        "HA028651 p. 84, registers 75 and 76",
        "01 03 00 4b 00 02 b4 1d",
        "01 03 04 00 00 ff ff fb 83",
        lambda driver: driver._master.read_holding(75, 2),
        [0, 0xFFFF],
    ),
    Exchange(
        "no such register",
        "Modbus V1.1b3 §7: exception 2, illegal data address",
        "01 03 03 e7 00 01 34 79",
        "01 83 02 c0 f1",
        lambda driver: driver._master.read_holding(999),
        InstrumentError("illegal data address", 2),
    ),
    Exchange(
        "setpoint above the limit",
        "Modbus V1.1b3 §7: exception 3, illegal data value; SP1 above HA028651 "
        "register 111",
        "01 10 00 18 00 01 02 01 f4 a5 9f",
        "01 90 03 0c 01",
        lambda driver: driver._master.write_registers(24, [500]),
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
                    "driver": "ppu_drivers.eurotherm_3216:Eurotherm3216",
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
        front = SerialFront(recording, SerialLine())
        connection = SerialConnection(
            transport="serial", port=front.start(), baudrate=9600
        )
        driver = Eurotherm3216(
            "furnace",
            lab_file().devices["furnace"],
            connection,
            Eurotherm3216Settings.model_validate(
                {
                    "dwell_unit": "minute",
                    "safety": {"setpoint_high_degc": 1100, "alarm_1_degc": 1150},
                }
            ),
            Eurotherm3216Limits(
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
            front.stop()

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
    simulated = SimulatedEurotherm3216(
        "furnace", lab.devices["furnace"], World(lab, 1), "1001"
    )
    if exchange.pv_degc is not None:
        simulated.chamber.pv_degc = exchange.pv_degc
    if isinstance(exchange.meaning, ProgramStatus):
        simulated._programmer.status = list(ProgramStatus).index(exchange.meaning)
    slave = simulated._front._conversation
    (answer,) = slave.receive(bytes.fromhex(exchange.sent), 0.0)

    assert answer.at(0.0).hex(" ") == exchange.answered


@pytest.mark.parametrize(
    "request_",
    [
        "02 03 00 01 00 01 d5 f9",
        "01 03 00 01 00 01 d5 cb",
        "01 03 00 01 00",
    ],
    ids=["another unit", "a wrong checksum", "half a frame"],
)
def test_simulator_is_silent_when_the_frame_is_not_for_it(request_: str) -> None:
    """Modbus over serial line V1.02 §2.4: such frames are never answered."""
    lab = lab_file()
    simulated = SimulatedEurotherm3216(
        "furnace", lab.devices["furnace"], World(lab, 1), "1001"
    )
    slave = simulated._front._conversation

    assert list(slave.receive(bytes.fromhex(request_), 0.0)) == []


def test_simulator_obeys_a_broadcast_silently() -> None:
    """Modbus over serial line V1.02 §2.1: unit 0 is obeyed by all, answered by none."""
    lab = lab_file()
    simulated = SimulatedEurotherm3216(
        "furnace", lab.devices["furnace"], World(lab, 1), "1001"
    )
    slave = simulated._front._conversation
    answers = list(slave.receive(bytes.fromhex("00 06 00 23 00 32 f8 04"), 0.0))

    assert answers == []
    assert simulated.read(35, 1, 0.0) == [50]
