"""The driver of the controller: its identity, its own rules, its watchdog."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from typing_extensions import override

from ppu.core.capabilities import FiringUnderWay, Segment
from ppu.core.errors import ConnectError, InstrumentError
from ppu.core.labfile import DeviceEntry
from ppu.core.labtime import running_loop
from ppu.devices import (
    DisplayMaster,
    DriverFacts,
    Identity,
    SignalR,
    execute,
)
from ppu.devices.display import Shown
from ppu.devices.firing import (
    DwellUnit,
    LoopMode,
    ProgramRoom,
    ProgramSettings,
    Sample,
    find_limit_contradictions,
    set_if_different,
)
from ppu.transports.modbus import Probe
from ppu.transports.tcp import TcpConnection
from ppu_drivers.eurotherm_epc3016._codec import (
    N_PROGRAM_REGISTERS,
    N_SEGMENTS,
    PROGRAM_FROM,
    decode_firmware,
    decode_sample,
    encode_program,
    samples_agree,
)
from ppu_drivers.eurotherm_epc3016._registers import (
    BROKEN,
    DISPLAY,
    PROGRAM_CODES,
    EndType,
    EpcRegisters,
    HoldbackType,
    ProgramMode,
    ServoTo,
    Switch,
    TimeUnit,
)
from ppu_drivers.eurotherm_epc3016._settings import (
    UNIT_S,
    EurothermEpc3016Limits,
    EurothermEpc3016Settings,
)
from ppu_drivers.eurotherm_epc3016._watchdog import WatchdogFeeder

__all__ = ["EurothermEpc3016"]

_SURPRISE_DEGC: Final = 2.0
_SURPRISE_DEGC_PER_S: Final = 0.3
"""How far, and how fast, temperature and setpoint go without being a surprise."""
_FIRMWARE: Final = 18432
_N_FIRMWARE: Final = 3
_MODE: Final = 23
_TO_COMPANY: Final = 121 - _MODE + 1
_NUMBER: Final = 1026
_NATIVE_NUMBER: Final = 0x8000 + 2 * _NUMBER
_MOST_TIME_UNITS: Final = 32767
_N_FEEDINGS: Final = 3  # samples within one timeout of the watchdog, at least


class EurothermEpc3016(EpcRegisters):
    """Eurotherm EPC3016, input 1 in degC, program 1.

    Args:
        name: Name of the device.
        entry: Its entry in the lab file.
        connection: Where it listens.
        settings: What the driver must know.
        limits: What the lab allows.
    """

    facts = DriverFacts(
        maker="Eurotherm",
        model="EPC3016",
        wire="modbus-tcp",
        sources=(
            "CederGroupHub/alab_control furnace_epc_3016/modbus_addr.csv: names, "
            "addresses, types, resolutions and access of all parameters",
            "CederGroupHub/alab_control furnace_epc_3016/furnace_driver.py: functions "
            "3 and 6, program modes 1, 2, 4, 8, 16, segment types, end types, time "
            "units, ramp rates x 10",
            "Modbus messaging on TCP/IP implementation guide V1.0b",
        ),
        verified="",
        open_questions=(
            "What the flag of the communications watchdog is wired to cannot be read "
            "back. Try it on each furnace: warm it, end PPU, see the power go off.",
            "Codes of registers 75, 518, 520, 536, 553, 1170, 1173, 1930 and 1932 are "
            "from memory; they are only compared with the lab file, except 520, which "
            "is written and shows at once in the working setpoint, and bit 5 of 75.",
            "Unit of dwells: the table says that the comms time format (1173) sets it, "
            "driver code counts seconds. Dwell units (8331) are set to the same, and "
            "every dwell is timed.",
            "Whether the loop takes its setpoint from the programmer (1664 or a wire) "
            "is not looked at; a loop that does not would not follow and be stopped.",
            "Whether one read may span addresses the table leaves out: the sample "
            "reads registers 1 to 75 at once.",
            "The instrument number has 32 bits; it is read at 0x8000 + 2 x 1026 as "
            "other Eurotherms have it, and its low 16 bits at 1026 if that is refused.",
            "Which of the two communication ports (1169 or 1233) the Ethernet port "
            "is; the fixed one is assumed.",
        ),
        orphan_behaviour="its communications watchdog takes the power off after the "
        "timeout in the lab file, if its flag is wired so; without it, keeps its "
        "program",
    )
    connections = (TcpConnection,)
    settings_model = EurothermEpc3016Settings
    limits_model = EurothermEpc3016Limits
    abort_states: ClassVar[Mapping[str, str]] = {
        "ramp_down": "reset the program and ramp to the idle setpoint, as long as "
        "PPU feeds the watchdog; then the heater is off",
        "heater_off": "reset the program and set the output to 0 % by hand",
        "continue": "leave the program running, as long as PPU feeds the watchdog",
    }
    settings: EurothermEpc3016Settings
    limits: EurothermEpc3016Limits

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: TcpConnection,
        settings: EurothermEpc3016Settings,
        limits: EurothermEpc3016Limits,
    ) -> None:
        self._firmware: list[int] = []
        self._last_sample: tuple[Shown, float] | None = None
        self._master = DisplayMaster(
            name,
            connection,
            DISPLAY,
            deadline_s=1.0,
            # Nothing else reads like its firmware's name.
            probe=Probe(_FIRMWARE, _N_FIRMWARE, self._is_firmware),
        )
        self._heard_at = -float("inf")
        self._was_running = False
        super().__init__(
            name,
            entry,
            self._master,
            self._master.link,
            settings,
            limits,
            idle_degc=settings.safety.idle_setpoint_degc,
        )
        self._feeder = WatchdogFeeder(
            settings.sample_period_s, self.program_mode, self.process_value
        )

    @override
    @classmethod
    def inconsistencies(
        cls, settings: EurothermEpc3016Settings, limits: EurothermEpc3016Limits
    ) -> list[str]:
        safety = settings.safety
        found = find_limit_contradictions(
            limits,
            safety.setpoint_high_degc,
            safety.alarm_1_degc,
            alarm_key="alarm_1_degc",
        )
        timeout_s = safety.watchdog_timeout_s
        if timeout_s is None:
            return found
        if settings.sample_period_s * _N_FEEDINGS > timeout_s:
            found.append(
                f"watchdog_timeout_s is {timeout_s:g}, but sampling every "
                f"{settings.sample_period_s:g} s feeds it too seldom; it must be at "
                f"least {_N_FEEDINGS} sample periods"
            )
        unit_s = UNIT_S[settings.time_format]
        found.extend(
            f"{key} is {value:g} s, but the controller counts in whole "
            f"{settings.time_format}s"
            for key, value in (
                ("watchdog_timeout_s", timeout_s),
                ("watchdog_recovery_s", safety.watchdog_recovery_s),
            )
            if value % unit_s != 0
        )
        return found

    # -- identity ------------------------------------------------------------------

    def _is_firmware(self, words: list[int]) -> bool:
        return not self._firmware or words == self._firmware

    @override
    async def read_identity(self) -> Identity:
        stranger = (
            f"{self.name}: what answers at {self.link.endpoint} is no Eurotherm EPC: "
        )
        try:
            firmware = await self._master.read_holding(_FIRMWARE, _N_FIRMWARE)
            mode, *_, company = await self._master.read_holding(_MODE, _TO_COMPANY)
            (model,) = await self._master.read_holding(1027)
            number = await self._read_number()
        except InstrumentError as exc:
            raise ConnectError(f"{stranger}{exc}") from exc
        text = decode_firmware(firmware)
        if text is None:
            raise ConnectError(f"{stranger}its firmware version is {firmware}")
        if company == 0 or mode not in PROGRAM_CODES:
            raise ConnectError(
                f"{stranger}its company id is {company}, its program mode {mode}"
            )
        self._firmware = firmware
        if self.identity is None:
            self._firing.resolution_k = await self._master.ask_resolution_k()
        return Identity(
            model=f"EPC3000 series (company {company}, type {model})",
            serial_number=str(number),
            firmware=text,
        )

    async def _read_number(self) -> int:
        try:
            high, low = await self._master.read_holding(_NATIVE_NUMBER, 2)
        except InstrumentError:
            (low,) = await self._master.read_holding(_NUMBER)
            return low
        return high << 16 | low

    # -- joining -------------------------------------------------------------------

    @override
    async def _find_under_way(self, under_way: FiringUnderWay) -> Sample:
        sample = await super()._find_under_way(under_way)
        if sample.is_running:
            self._feeder.start()
        return sample

    @override
    async def _find_changed(self, under_way: FiringUnderWay) -> list[str]:
        changed = await super()._find_changed(under_way)
        running = under_way.samples.get(f"{self.name}_is_program_running", ())
        was_seen_to_end = bool(running) and not running[-1]
        # The power is off then, and there is nothing to join.
        if not was_seen_to_end and await self._is_watchdog_flag_up():
            changed.append(
                "its communications watchdog has taken the power off; nobody asked it "
                "anything for too long"
            )
        return changed

    async def _is_watchdog_flag_up(self) -> bool:
        """Return whether the watchdog has taken the power off."""
        if self.settings.safety.watchdog_timeout_s is None:
            return False
        return await self.watchdog_flag.get_value() is Switch.ON

    # -- settings ------------------------------------------------------------------

    @override
    def _program_settings(self) -> ProgramSettings:
        return (
            (self.loop_mode, LoopMode.AUTO),
            (self.rate_units, TimeUnit.MINUTE),
            (self.setpoint_rate_up, 0.0),
            (self.setpoint_rate, 0.0),
            (self.program_number, 1),
            (self.servo_to, ServoTo.PV),
            (self.holdback_type, HoldbackType.OFF),
            (self.ramp_units, TimeUnit.MINUTE),
            (self.dwell_units, TimeUnit(self.settings.time_format)),
            (self.cycles, 1),
            (self.end_type, EndType.RESET),
        )

    @override
    def _safety_settings(self) -> list[tuple[str, SignalR[Any], Any]]:
        wanted = self.settings.safety
        pairs: list[tuple[str, SignalR[Any], Any]] = [
            ("ramp rate decimals (10580)", self.rate_decimals, 1),
            ("comms time format (1173)", self.time_format, self.settings.time_format),
            (
                "setpoint high limit (111)",
                self.setpoint_high,
                wanted.setpoint_high_degc,
            ),
            ("setpoint low limit (112)", self.setpoint_low, wanted.setpoint_low_degc),
            ("output high limit (1857)", self.output_high, wanted.output_high_percent),
            ("output low limit (1856)", self.output_low, wanted.output_low_percent),
            ("alarm 1 threshold (13)", self.alarm_1_threshold, wanted.alarm_1_degc),
            ("alarm 1 type (536)", self.alarm_1_type, wanted.alarm_1_type),
            ("alarm 1 inhibit (2127)", self.alarm_1_inhibited, "off"),
            ("idle setpoint SP1 (24)", self.idle_setpoint, wanted.idle_setpoint_degc),
            ("setpoint rate disable (1668)", self.rate_disabled, "off"),
            ("sensor break type (1930)", self.sensor_break, wanted.sensor_break),
            ("sensor is broken (1931)", self.sensor_is_broken, "off"),
            ("output for a bad PV (553)", self.bad_transfer, "fallback"),
            ("fallback output (34)", self.fallback_output, 0.0),
            ("power return (518)", self.power_return, wanted.power_return),
        ]
        if wanted.watchdog_timeout_s is not None:
            in_units = f"in {self.settings.time_format}s"
            pairs += [
                (
                    f"watchdog timeout (1169, {in_units})",
                    self.watchdog_timeout,
                    wanted.watchdog_timeout_s / self._unit_s,
                ),
                ("watchdog action (1170)", self.watchdog_action, "manual"),
                (
                    f"watchdog recovery (1171, {in_units})",
                    self.watchdog_recovery,
                    wanted.watchdog_recovery_s / self._unit_s,
                ),
            ]
        return pairs

    # -- the program ---------------------------------------------------------------

    @property
    @override
    def _program_state(self) -> SignalR[ProgramMode]:
        return self.program_mode

    @property
    @override
    def _dwell_unit(self) -> DwellUnit:
        return DwellUnit(
            name=self.settings.time_format,
            seconds=self._unit_s,
            most=_MOST_TIME_UNITS,
        )

    @property
    def _unit_s(self) -> float:
        return UNIT_S[self.settings.time_format]

    @property
    @override
    def _program_room(self) -> ProgramRoom:
        return ProgramRoom(most=N_SEGMENTS, is_for_parts=True)

    @override
    async def _clear_program(self) -> None:
        if await self.program_mode.get_value() is not ProgramMode.RESET:
            await execute(self.reset_program)

    @override
    async def _compare_safety(self) -> None:
        self._firing.resolution_k = await self._master.ask_resolution_k()
        await super()._compare_safety()

    def _encode(self, segments: tuple[Segment, ...]) -> dict[int, int]:
        return encode_program(segments, self._unit_s, self._master.to_word)

    async def _read_program(self) -> list[int]:
        return await self._master.read_confirmed(PROGRAM_FROM, N_PROGRAM_REGISTERS)

    @override
    async def _write_program(self, segments: tuple[Segment, ...]) -> None:
        self._firing.resolution_k = await self._master.ask_resolution_k()
        wanted = self._encode(segments)
        present = await self._read_program()
        for register, value in wanted.items():
            if present[register - PROGRAM_FROM] != value:
                await self._master.write_register(register, value)
        await self._compare_program(segments)

    @override
    async def _compare_program(self, segments: tuple[Segment, ...]) -> None:
        wanted = self._encode(segments)
        words = await self._read_program()
        present = {register: words[register - PROGRAM_FROM] for register in wanted}
        if present != wanted:
            raise InstrumentError(
                f"{self.name}: the program reads back as {present}, sent was {wanted}"
            )

    # -- firing --------------------------------------------------------------------

    @override
    async def _take_over_controller(self) -> None:
        self._feeder.stop()

    @override
    async def _prepare_start(self) -> None:
        await self._lower_watchdog_flag()
        self._heard_at = running_loop().time()
        self._was_running = True

    @override
    async def _start_program(self) -> None:
        await execute(self.run_program)

    @override
    async def _reset_program(self) -> None:
        await execute(self.reset_program)

    async def _lower_watchdog_flag(self) -> None:
        """Let an idle controller, which nobody talked to, heat again."""
        if self.settings.safety.watchdog_timeout_s is not None:
            await set_if_different(self.name, self.watchdog_flag, Switch.OFF)

    @override
    async def _read_sample(self) -> Sample:
        # One exchange, or more if it is not as expected.
        shown = await self._read_plausible()
        words = decode_sample(shown.words)
        mode = PROGRAM_CODES.get(words.mode)
        was_running, self._was_running = self._was_running, mode is ProgramMode.RUN
        has_acted = await self._has_watchdog_acted()
        complaint = BROKEN if words.is_sensor_broken else shown.complaint(1, 5)
        if not complaint and has_acted and was_running:
            complaint = (
                "the controller's communications watchdog has taken the power off; "
                "nobody asked it anything for too long"
            )
        return self._make_sample(
            temperature=shown.degc_or_nan(1),
            setpoint=shown.degc_or_nan(5),
            output=words.output,
            state=mode,
            complaint=complaint,
        )

    async def _read_plausible(self) -> Shown:
        """Return the registers of a sample, confirmed if they are a surprise.

        Modbus TCP has no checksum of its own; asking each time thrice would cost more
        than a firing's pace allows.
        """
        shown = await self._master.read_sample(1, 5)
        now = running_loop().time()
        last, last_s = self._last_sample or (shown, -math.inf)
        step = 10.0**shown.decimals
        within = (_SURPRISE_DEGC + _SURPRISE_DEGC_PER_S * (now - last_s)) * step
        if self._last_sample is None or not samples_agree(
            last.words, shown.words, within
        ):
            shown = await self._master.read_sample(
                1,
                5,
                agree=lambda one, other: samples_agree(
                    one, other, _SURPRISE_DEGC * step
                ),
            )
        self._last_sample = shown, running_loop().time()
        return shown

    async def _has_watchdog_acted(self) -> bool:
        """Look at the watchdog's flag if it may be up: after half its timeout."""
        now = running_loop().time()
        silent_s = now - self._heard_at
        timeout_s = self.settings.safety.watchdog_timeout_s
        may_be_up = timeout_s is not None and silent_s >= timeout_s / 2
        has_acted = may_be_up and await self.watchdog_flag.get_value() is Switch.ON
        self._heard_at = now  # only now: a flag that could not be read is read again
        return has_acted

    # -- stopping ------------------------------------------------------------------

    @override
    async def go_to_abort_state(self) -> str:
        state = self.entry.on_abort or "ramp_down"
        return self._feed_unless_off(state, await super().go_to_abort_state())

    @override
    async def go_to_orphan_state(self) -> str:
        """Make safe what it does whose process has died.

        With ``continue`` its watchdog takes the power off as soon as nobody calls this
        any more, or joins the firing, for its timeout: it only feeds the watchdog.
        """
        said = await super().go_to_orphan_state()
        if said and await self._is_watchdog_flag_up():
            said += "; its watchdog has taken the power off"
        return said

    @override
    async def go_to_hold_state(self) -> str:
        state = self.entry.on_hold
        said = await super().go_to_hold_state()
        if state is None or state == "continue":
            return said  # the sampling feeds the watchdog
        return self._feed_unless_off(state, said)

    def _feed_unless_off(self, state: str, said: str) -> str:
        """Feed the watchdog from now on if heat is still wanted; add that to *said*."""
        timeout_s = self.settings.safety.watchdog_timeout_s
        is_off = state == "heater_off" or self._firing.must_be_off
        if not said or is_off or timeout_s is None:
            return said
        self._feeder.start()
        return (
            f"{said}; when PPU ends, its watchdog takes the power off within "
            f"{timeout_s:g} s"
        )

    @override
    async def disconnect(self) -> None:
        await self._feeder.close()
        await super().disconnect()
