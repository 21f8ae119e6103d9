"""The driver of the controller: its registers, identity and own rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated as A
from typing import Any, Final, Literal

from ophyd_async.core import StandardReadableFormat, StrictEnum, TriggerableCommand
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.capabilities import Segment
from ppu.core.errors import ConnectError, InstrumentError
from ppu.core.labfile import DeviceEntry
from ppu.devices import (
    Display,
    DisplayedHolding,
    DisplayMaster,
    DriverFacts,
    Holding,
    Identity,
    SignalR,
    SignalRW,
    write,
)
from ppu.devices.firing import (
    DwellUnit,
    FiringSettings,
    FurnaceLimits,
    LoopMode,
    ProgrammedFurnace,
    ProgramRoom,
    ProgramSettings,
    ProgramStates,
    Sample,
    find_limit_contradictions,
    set_if_different,
)
from ppu.transports.modbus import Probe
from ppu.transports.serial import SerialConnection
from ppu_drivers.eurotherm_3216._codec import (
    N_SAMPLE_REGISTERS,
    N_SEGMENTS,
    PROGRAM_FROM,
    SAMPLE_FROM,
    SEGMENT_SIZE,
    STATUS_SENSOR_BREAK,
    decode_firmware,
    decode_sample,
    encode_program,
    is_status_pair,
)

__all__ = [
    "EndType",
    "Eurotherm3216",
    "Eurotherm3216Limits",
    "Eurotherm3216Settings",
    "ProgramStatus",
]


class ProgramStatus(StrictEnum):
    """State of the programmer (register 23)."""

    RESET = "reset"
    RUN = "run"
    HOLD = "hold"
    END = "end"


class EndType(StrictEnum):
    """What the programmer does at its end (register 328)."""

    DWELL = "dwell"
    SP2 = "sp2"
    RESET = "reset"
    CHANNEL = "channel"


class RampUnits(StrictEnum):
    """Time unit of ramp rates (register 531)."""

    MINUTE = "minute"
    HOUR = "hour"
    SECOND = "second"


class SensorBreak(StrictEnum):
    """What a broken sensor does (register 578)."""

    OFF = "off"
    ON = "on"
    LATCHING = "latching"


class AlarmType(StrictEnum):
    """What alarm 1 watches (register 536)."""

    OFF = "off"
    HIGH = "high"
    LOW = "low"
    DEVIATION_HIGH = "deviation high"
    DEVIATION_LOW = "deviation low"


_PROGRAM_CODES = {
    0: ProgramStatus.RESET,
    1: ProgramStatus.RUN,
    2: ProgramStatus.HOLD,
    3: ProgramStatus.END,
}
_LOOP_CODES = {0: LoopMode.AUTO, 1: LoopMode.MANUAL}
_END_CODES = {
    1: EndType.DWELL,
    2: EndType.SP2,
    3: EndType.RESET,
    4: EndType.CHANNEL,
}
_RAMP_CODES = {0: RampUnits.MINUTE, 1: RampUnits.HOUR, 2: RampUnits.SECOND}
_ALARM_CODES = dict(enumerate(AlarmType))
_BREAK_CODES = {0: SensorBreak.OFF, 1: SensorBreak.ON, 2: SensorBreak.LATCHING}


_MOST_TIME_UNITS: Final = 9999
_DISPLAY: Final = Display(
    decimals_at=525,
    units_at=516,
    degc_code=0,
    sampled=range(SAMPLE_FROM, SAMPLE_FROM + N_SAMPLE_REGISTERS),
    temperatures=(1, 2, 5, 13, 24),
    witness=range(11, 13),  # low and high end of the input's range
)
_BROKEN: Final = "the controller reports a broken thermocouple"


def _degc(register: int, manual: str, **meaning: Any) -> DisplayedHolding:
    """Return a register with a temperature, as the display shows it."""
    return DisplayedHolding(
        register, display=_DISPLAY, decimals=1, units="degC", manual=manual, **meaning
    )


class Safety(BaseModel):
    """What the controller itself must be set to before it may heat."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    setpoint_high_degc: float = Field(description="Register 111")
    setpoint_low_degc: float = Field(default=0.0, description="Register 112")
    output_high_percent: float = Field(
        default=100.0, ge=0, le=100, description="Register 30"
    )
    output_low_percent: float = Field(
        default=0.0, ge=-100, le=100, description="Register 31"
    )
    alarm_1_degc: float = Field(description="Register 13")
    alarm_1_type: Literal["high"] = Field(
        default="high",
        description="Register 536; no other type protects from a runaway",
    )
    sensor_break: Literal["off", "on", "latching"] = Field(
        default="on", description="Register 578"
    )
    idle_setpoint_degc: float = Field(
        default=0.0,
        le=60,
        description="Register 24: where the controller goes after its program",
    )


class Eurotherm3216Settings(FiringSettings):
    """What the driver must know of the controller."""

    dwell_unit: Literal["minute", "hour"] = Field(
        description="Unit of the dwell registers; our sources contradict each other"
    )
    degc_code: int = Field(
        default=0,
        ge=0,
        description="What register 516 holds if the display is in degC; other "
        "Eurotherms have 0 degC, 1 degF, 2 K",
    )
    safety: Safety


class Eurotherm3216Limits(FurnaceLimits):
    """What the lab allows."""


class Eurotherm3216(ProgrammedFurnace):
    """Eurotherm 3216 (3200 series engineering handbook HA028651 issue 7).

    Args:
        name: Name of the device.
        entry: Its entry in the lab file.
        connection: The serial line.
        settings: What the driver must know.
        limits: What the lab allows.
    """

    facts = DriverFacts(
        maker="Eurotherm",
        model="3216",
        wire="modbus-rtu",
        sources=(
            "3200 series engineering handbook HA028651 issue 7, parameter table pp. "
            "83-84",
            "CederGroupHub/alab_control furnace_3216p: modbus_addr.csv (registers "
            "321, 536, 578, 629, 1280-1303), furnace_driver.py (9600 8N1, ramp x 10)",
            "thaeber/eurothermlib: registers are addressed as the manual prints them",
            "MathWorks file exchange 24696 and alab_control: integers are scaled as "
            "the display is (525 decimals, 516 unit): 24.2 is 242 with one decimal, "
            "980 is 980 with none",
            "thaeber/eurothermlib and KIT: the float region 0x8000 + 2 n of a 3216, "
            "which is read only where 16 bits end",
        ),
        verified="",
        open_questions=(
            "Unit of the dwell registers (321): sources contradict each other. The lab "
            "file must state dwell_unit; every dwell is timed and a wrong unit stops "
            "the firing.",
            "Whether one read may span addresses the manual leaves out: the sample "
            "reads registers 1 to 76 at once.",
            "The codes of register 516 are from memory; degc_code states the one for "
            "degC, and nothing else is believed.",
            "Rates are sent times ten whatever 525 says, as alab_control does on "
            "controllers that show whole degrees; the same is assumed of register 35.",
            "That the range (11, 12) is shown as the display is, so that it tells when "
            "525 or 516 was changed, is seen of the decimals, assumed of the unit.",
            "Codes of registers 536 and 578 are from memory; they are only compared "
            "with the lab file.",
            "No communications watchdog is documented for this model in our sources.",
            "No serial number is documented; the customer id (629) is used, which "
            "the lab must set.",
        ),
        orphan_behaviour="keeps its program without us: no watchdog is known",
    )
    connections = (SerialConnection,)
    settings_model = Eurotherm3216Settings
    limits_model = Eurotherm3216Limits
    program_states = ProgramStates(
        running=ProgramStatus.RUN,
        reset=ProgramStatus.RESET,
        ended=ProgramStatus.END,
        held=(ProgramStatus.HOLD,),
    )

    settings: Eurotherm3216Settings
    limits: Eurotherm3216Limits

    process_value: A[
        SignalR[float],
        _degc(
            1,
            "p. 83 PV.IN",
            low=-50,
            high=1372,
            invalid_if=(75, STATUS_SENSOR_BREAK, _BROKEN),
        ),
        StandardReadableFormat.HINTED_SIGNAL,
    ]
    target_setpoint: A[
        SignalR[float],
        _degc(2, "p. 83 TG.SP", wears_eeprom=True),
    ]
    manual_output: A[
        SignalRW[float],
        Holding(3, decimals=1, units="%", low=0, high=100, manual="p. 83 MAN.OP"),
    ]
    working_output: A[
        SignalR[float], Holding(4, decimals=1, units="%", manual="p. 83 WRK.OP")
    ]
    working_setpoint: A[SignalR[float], _degc(5, "p. 83 WKG.SP")]
    alarm_1_threshold: A[SignalR[float], _degc(13, "p. 83 A1")]
    program_status: A[
        SignalRW[ProgramStatus], Holding(23, codes=_PROGRAM_CODES, manual="p. 83")
    ]
    idle_setpoint: A[
        SignalRW[float],
        _degc(24, "p. 83 SP1", low=0, high=60, wears_eeprom=True),
    ]
    output_high: A[
        SignalR[float], Holding(30, decimals=1, units="%", manual="p. 83 OP.HI")
    ]
    output_low: A[
        SignalR[float], Holding(31, decimals=1, units="%", manual="p. 83 OP.LO")
    ]
    setpoint_rate: A[
        SignalRW[float],
        Holding(
            35,
            decimals=1,
            units="degC/min",
            low=0,
            high=300,
            wears_eeprom=True,
            manual="p. 83 SP.RAT; 0 = off",
        ),
    ]
    instrument_status: A[
        SignalR[int], Holding(75, units="", manual="p. 84 instrument status bitmap")
    ]
    setpoint_high: A[SignalR[float], _degc(111, "p. 84 SP.HI")]
    setpoint_low: A[SignalR[float], _degc(112, "p. 84 SP.LO")]
    loop_mode: A[
        SignalRW[LoopMode], Holding(273, codes=_LOOP_CODES, manual="p. 84 A-M")
    ]
    acknowledge_alarms: A[
        TriggerableCommand, Holding(274, write_value=1, units="", manual="p. 84")
    ]
    end_type: A[SignalRW[EndType], Holding(328, codes=_END_CODES, manual="p. 84 END.T")]
    ramp_units: A[
        SignalRW[RampUnits], Holding(531, codes=_RAMP_CODES, manual="p. 84 RAMP.U")
    ]
    alarm_1_type: A[
        SignalR[AlarmType],
        Holding(536, codes=_ALARM_CODES, manual="alab_control modbus_addr.csv"),
    ]
    sensor_break: A[
        SignalR[SensorBreak],
        Holding(578, codes=_BREAK_CODES, manual="alab_control modbus_addr.csv"),
    ]

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: SerialConnection,
        settings: Eurotherm3216Settings,
        limits: Eurotherm3216Limits,
    ) -> None:
        self._master = DisplayMaster(
            name,
            connection,
            replace(_DISPLAY, degc_code=settings.degc_code),
            deadline_s=1.0,
            probe=Probe(75, 2, is_status_pair),
        )
        super().__init__(
            name,
            entry,
            self._master,
            self._master.link,
            settings,
            limits,
            idle_degc=settings.safety.idle_setpoint_degc,
        )

    @override
    @classmethod
    def inconsistencies(
        cls, settings: Eurotherm3216Settings, limits: Eurotherm3216Limits
    ) -> list[str]:
        safety = settings.safety
        return find_limit_contradictions(
            limits,
            safety.setpoint_high_degc,
            safety.alarm_1_degc,
            alarm_key="alarm_1_degc",
        )

    # -- identity ------------------------------------------------------------------

    @override
    async def read_identity(self) -> Identity:
        stranger = (
            f"{self.name}: what answers at {self.link.endpoint} is no Eurotherm 3200: "
        )
        try:
            status = await self._master.read_holding(75, 2)
            (version,) = await self._master.read_holding(107)
            (model,) = await self._master.read_holding(122)
            (customer,) = await self._master.read_holding(629)
        except InstrumentError as exc:
            raise ConnectError(f"{stranger}{exc}") from exc
        if not is_status_pair(status):
            raise ConnectError(
                f"{stranger}its status word (75) and the inverse (76) do not match"
            )
        if self.identity is None:
            self._firing.resolution_k = await self._master.ask_resolution_k()
        return Identity(
            model=f"3200 series (type {model})",
            serial_number=str(customer),
            firmware=decode_firmware(version),
        )

    # -- the program ---------------------------------------------------------------

    @property
    @override
    def _program_state(self) -> SignalR[ProgramStatus]:
        return self.program_status

    @property
    @override
    def _dwell_unit(self) -> DwellUnit:
        name = self.settings.dwell_unit
        return DwellUnit(
            name=name,
            seconds=60.0 if name == "minute" else 3600.0,
            most=_MOST_TIME_UNITS,
        )

    @property
    @override
    def _program_room(self) -> ProgramRoom:
        return ProgramRoom(most=N_SEGMENTS)

    @override
    def _program_settings(self) -> ProgramSettings:
        return (
            (self.loop_mode, LoopMode.AUTO),
            (self.ramp_units, RampUnits.MINUTE),
            (self.end_type, EndType.RESET),
            (self.setpoint_rate, 0.0),
        )

    @override
    def _safety_settings(self) -> list[tuple[str, SignalR[Any], Any]]:
        wanted = self.settings.safety
        return [
            (
                "setpoint high limit (111)",
                self.setpoint_high,
                wanted.setpoint_high_degc,
            ),
            ("setpoint low limit (112)", self.setpoint_low, wanted.setpoint_low_degc),
            ("output high limit (30)", self.output_high, wanted.output_high_percent),
            ("output low limit (31)", self.output_low, wanted.output_low_percent),
            ("alarm 1 threshold (13)", self.alarm_1_threshold, wanted.alarm_1_degc),
            ("alarm 1 type (536)", self.alarm_1_type, wanted.alarm_1_type),
            ("idle setpoint SP1 (24)", self.idle_setpoint, wanted.idle_setpoint_degc),
            ("sensor break type (578)", self.sensor_break, wanted.sensor_break),
        ]

    @override
    async def _clear_program(self) -> None:
        await set_if_different(self.name, self.program_status, ProgramStatus.RESET)

    @override
    async def _compare_safety(self) -> None:
        self._firing.resolution_k = await self._master.ask_resolution_k()
        await super()._compare_safety()

    def _encode(self, segments: tuple[Segment, ...]) -> list[int]:
        return encode_program(segments, self._dwell_unit.seconds, self._master.to_word)

    @override
    async def _write_program(self, segments: tuple[Segment, ...]) -> None:
        # Unchanged registers are not written (EEPROM).
        self._firing.resolution_k = await self._master.ask_resolution_k()
        wanted = self._encode(segments)
        present = await self._master.read_holding(PROGRAM_FROM, len(wanted))
        for first in range(0, len(wanted), SEGMENT_SIZE):
            if (
                present[first : first + SEGMENT_SIZE]
                != wanted[first : first + SEGMENT_SIZE]
            ):
                await self._master.write_registers(
                    PROGRAM_FROM + first, wanted[first : first + SEGMENT_SIZE]
                )
        await self._compare_program(segments)

    @override
    async def _compare_program(self, segments: tuple[Segment, ...]) -> None:
        wanted = self._encode(segments)
        present = await self._master.read_holding(PROGRAM_FROM, len(wanted))
        if present != wanted:
            raise InstrumentError(
                f"{self.name}: the program reads back as {present}, sent was {wanted}"
            )

    @override
    async def _start_program(self) -> None:
        await write(self.program_status, ProgramStatus.RUN)

    @override
    async def _reset_program(self) -> None:
        await write(self.program_status, ProgramStatus.RESET)

    @override
    async def _read_sample(self) -> Sample:
        shown = await self._master.read_sample(1, 5)
        words = decode_sample(shown.words)
        return self._make_sample(
            temperature=shown.degc_or_nan(1),
            setpoint=shown.degc_or_nan(5),
            output=words.output,
            state=_PROGRAM_CODES.get(words.program),
            complaint=_BROKEN if words.is_sensor_broken else shown.complaint(1, 5),
        )
