"""The driver of Alicat mass-flow controllers: lets gas flow, watches it, closes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated as A
from typing import ClassVar, Final

from bluesky.protocols import Location
from ophyd_async.core import AsyncStatus, StandardReadableFormat
from typing_extensions import override

from ppu.core.capabilities import GasFlow, GasRequest
from ppu.core.errors import (
    ConfigurationError,
    ConnectError,
    InstrumentError,
    InterlockError,
    LimitError,
    MalformedReply,
    PPUError,
    ReplyTimeout,
    TransportError,
)
from ppu.core.insisting import insist
from ppu.core.labfile import DeviceEntry
from ppu.core.labtime import iso, running_loop
from ppu.core.specifications import GasFlowSpecification
from ppu.devices import (
    DriverFacts,
    Identity,
    Instrument,
    Measured,
    Reference,
    SignalR,
    record,
)
from ppu.transports.serial import SerialConnection
from ppu_drivers.alicat_mfc._client import AlicatClient
from ppu_drivers.alicat_mfc._codec import (
    DEFAULT_LAYOUT,
    GAS_NUMBERS,
    MASS_FLOW,
    REFUSED_STATES,
    UNTRUE_STATES,
    Command,
    Frame,
    Layout,
    Poll,
    Word,
    house_name,
    is_refusal,
    maker_entry,
    parse_firmware,
    parse_frame,
    parse_full_scale,
    parse_gas_register,
    parse_layout,
    range_in_model,
)
from ppu_drivers.alicat_mfc._settings import (
    AlicatMfcLimits,
    AlicatMfcSettings,
    find_flow_unit,
)
from ppu_drivers.alicat_mfc._watch import FlowRecord, FlowWatch, allowed_deviation

__all__ = ["AlicatMfc"]

_POLL_S: Final = 1.0
_INSISTING_S: Final = 60.0
"""How long closing is tried again before somebody must close the bottle (real time)."""
_NOISE: Final = 0.005
"""Part of full scale within which a steady flow repeats."""


class AlicatMfc(Instrument, GasFlow):
    """An Alicat mass-flow controller for one gas line.

    Flows are standard flows at the instrument's standard conditions (25 degC and
    1 atm, as delivered).

    Args:
        name: Name of the device.
        entry: Its entry in the lab file.
        connection: The serial line.
        settings: What the driver must know.
        limits: What the lab allows.
    """

    facts = DriverFacts(
        maker="Alicat Scientific",
        model="MC series",
        wire="alicat-ascii",
        sources=(
            "MC-Series operating manual, pp. 36-38 (manualshive.com 2896481): data "
            "frame, AS4.54, AG7, integer setpoint",
            "M-Series operating manual rev. 0, January 2023, p. 32 (manualshive.com "
            "3461533): quick command reference",
            "Serial Communications Primer rev. 2, February 2023, as cited by "
            "labmcp-alicat 0.1.2 and alicatlib 0.3.1, whose tables were captured on "
            "firmware 5v12 to 10v20",
            "alicat 0.9.0 driver.py (used on hardware): register 46, $$C; and its "
            "issues 13 and 14: a captured frame, decimals of the setpoint",
        ),
        verified="",
        open_questions=(
            "From which firmware on the newer commands are there is documented for "
            "some only: below 6v this driver uses register 46 and $$C, which newer "
            "instruments are said to understand, too.",
            "Whether an empty line ends every table of ??D* is not documented: "
            "without one the driver takes what came within its deadline.",
            "GP firmware, which answers no VE, is refused.",
            "Whether a setpoint wears the EEPROM is not documented: it is written "
            "only if it differs, and so is the gas, unsaved from 10v05 on.",
            "Which firmware keeps its setpoint when the power returns is not "
            "documented: the flow is never taken for closed before it was read.",
        ),
        orphan_behaviour="keeps its setpoint: the gas flows on",
    )
    connections = (SerialConnection,)
    settings_model = AlicatMfcSettings
    limits_model = AlicatMfcLimits
    rests = True
    abort_states: ClassVar[Mapping[str, str]] = {
        "close": "no gas flows: the setpoint is 0 and the flow is seen to end",
        "keep": "the gas flows on, as for a furnace that must stay under it",
    }

    flow: A[
        SignalR[float],
        Measured(units="mL/min", decimals=2),
        StandardReadableFormat.HINTED_SIGNAL,
    ]
    setpoint: A[
        SignalR[float],
        Measured(units="mL/min", decimals=2),
        StandardReadableFormat.UNCACHED_SIGNAL,
    ]
    pressure: A[
        SignalR[float],
        Measured(units="bar", decimals=3),
        StandardReadableFormat.UNCACHED_SIGNAL,
    ]
    temperature: A[
        SignalR[float],
        Measured(units="degC", decimals=2),
        StandardReadableFormat.UNCACHED_SIGNAL,
    ]

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: SerialConnection,
        settings: AlicatMfcSettings,
        limits: AlicatMfcLimits,
    ) -> None:
        self.settings = settings
        self.limits = limits
        self._client = AlicatClient(name, connection, settings.unit_id)
        self._layout = DEFAULT_LAYOUT
        self._has_layout = False
        """Whether it describes its data frame."""
        self._ml_per_min = 1.0
        self._firmware = (0, 0)
        self._decimals = 0
        """Digits after the point of what it shows."""
        self._asked: GasRequest | None = None
        """What this driver lets flow; None if nothing, or not by this driver."""
        self._is_adopted = False
        """Whether the next abort closes what flows, whoever let it."""
        self._beginning = asyncio.Lock()
        """Held while something is set up that nothing else must come between."""
        self._watch: asyncio.Task[FlowRecord] | None = None
        self._is_watch_over = asyncio.Event()
        self._last_watch: FlowRecord | None = None
        super().__init__(name, entry, self._client, self._client.link)

    @override
    @classmethod
    def inconsistencies(
        cls, settings: AlicatMfcSettings, limits: AlicatMfcLimits
    ) -> list[str]:
        high = limits.flow_ml_per_min[1]
        if high > settings.full_scale_ml_per_min:
            return [
                f"limits.flow_ml_per_min allows {high:g} mL/min, but "
                f"full_scale_ml_per_min is {settings.full_scale_ml_per_min:g}; lower "
                "the limit"
            ]
        return []

    @override
    @classmethod
    def references(cls, settings: AlicatMfcSettings) -> list[Reference]:
        return [Reference(("supplies",), "device", settings.supplies, "Furnace")]

    # -- identity ------------------------------------------------------------------

    @override
    async def read_identity(self) -> Identity:
        try:
            firmware, version = parse_firmware(
                await self._client.ask(Command(Word.FIRMWARE))
            )
            rows = await self._client.ask_table(Word.MAKER, last=" M09 ")
            model = maker_entry(rows, "Model Number")
            serial_number = maker_entry(rows, "Serial Number")
            layout = await self._read_layout()
        except (MalformedReply, InstrumentError) as exc:
            raise ConnectError(
                f"{self.name}: what answers at {self.link.endpoint} as unit "
                f"{self._client.unit} is no Alicat flow controller: {exc}"
            ) from exc
        self._firmware = version
        self._ml_per_min = find_flow_unit(self.name, layout, self.settings.flow_unit)
        self._layout = layout or DEFAULT_LAYOUT
        self._has_layout = layout is not None
        await self._compare_full_scale(self._layout, model)
        frame = self._parse(await self._client.ask(Poll()))
        self._compare_steps(frame)
        self._decimals = frame.decimals
        return Identity(model, serial_number, firmware)

    async def _read_layout(self) -> Layout | None:
        """Return what it says of its data frame, None if it says nothing."""
        try:
            rows = await self._client.ask_table(Word.LAYOUT)
        except ReplyTimeout:
            if self._has_layout:
                raise  # it said so before: this answer was lost
            return None
        if is_refusal(rows[0]):
            return None
        return parse_layout(rows)

    async def _compare_full_scale(self, layout: Layout, model: str) -> None:
        """Compare the range with the lab file, wherever the instrument states it.

        Raises:
            ConfigurationError: If they differ; nothing was changed.
        """
        in_frame = layout.full_scale
        stated = {
            "its data frame": None if in_frame is None else in_frame * self._ml_per_min,
            "FPF": await self._read_full_scale() if self._is_newer else None,
            f"the model {model}": range_in_model(model),
        }
        wanted = self.settings.full_scale_ml_per_min
        wrong = [
            f"{source} says {value:g}"
            for source, value in stated.items()
            if value is not None and abs(value - wanted) > 0.01 * wanted
        ]
        if wrong:
            raise ConfigurationError(
                f"{self.name}: the lab file says full_scale_ml_per_min {wanted:g}, but "
                f"{', '.join(wrong)} mL/min; is the unit of flow right?"
            )

    def _compare_steps(self, frame: Frame) -> None:
        """Compare the digits that it shows with the range of the lab file.

        It shows about five digits, so a unit that is wrong by 1000 shows here even on
        an instrument that says nothing of itself.

        Raises:
            ConfigurationError: If they do not go together; nothing was changed.
        """
        step = self._ml_per_min * 10**-frame.decimals
        full_scale = self.settings.full_scale_ml_per_min
        if not 1e2 <= full_scale / step < 1e5:
            raise ConfigurationError(
                f"{self.name}: a controller of {full_scale:g} mL/min would not count "
                f"in steps of {step:g} mL/min; is flow_unit right?"
            )

    async def _read_full_scale(self) -> float | None:
        """Return the highest mass flow [mL/min], None if untold."""
        command = Command(Word.FULL_SCALE, MASS_FLOW)
        try:
            return parse_full_scale(await self._client.ask(command, is_vital=False))
        except ReplyTimeout:
            return None

    @property
    def _is_newer(self) -> bool:
        """Whether it speaks the newer dialect."""
        return self._firmware >= (6, 0)

    # -- capability ----------------------------------------------------------------

    @cached_property
    def specification(self) -> GasFlowSpecification:
        """What the lab and the instrument allow."""
        low, high = self.limits.flow_ml_per_min
        return GasFlowSpecification(
            name=self.name,
            supplies=self.settings.supplies,
            gases=self.settings.gases,
            flow_ml_per_min=(low, min(high, self.settings.full_scale_ml_per_min)),
        )

    @property
    def supplies(self) -> str:
        """Name of the device that the gas flows into."""
        return self.settings.supplies

    @property
    def gases(self) -> tuple[str, ...]:
        """Gases that are connected."""
        return self.settings.gases

    @property
    def last_watch(self) -> FlowRecord | None:
        """What the last completed watch saw."""
        return self._last_watch

    def check_flow(self, request: GasRequest) -> None:
        """Refuse what the lab or the controller does not allow; sends nothing.

        Raises:
            LimitError: With every fault.
        """
        self.specification.check_flow(request)

    async def _read_frame(self) -> Frame:
        """Return the present data frame, and keep its readings.

        Nothing tells a flipped bit in it: what is acted upon, `_read_confirmed` reads.
        """
        frame = self._parse(await self._client.ask(Poll()))
        self._record_frame(frame)
        return frame

    async def _read_confirmed(self) -> Frame | None:
        """Return a frame that repeats, None while what it says changes."""
        try:
            frame = await self._client.ask_confirmed(
                Poll(), self._parse, self._frames_agree
            )
        except MalformedReply:
            return None
        self._record_frame(frame)
        return frame

    def _frames_agree(self, one: Frame, other: Frame) -> bool:
        """Return whether two frames differ by no more than noise."""
        within = _NOISE * self.settings.full_scale_ml_per_min
        return (
            one.setpoint_ml_per_min == other.setpoint_ml_per_min
            and one.gas == other.gas
            and one.status == other.status
            and abs(one.flow_ml_per_min - other.flow_ml_per_min) <= within
        )

    def _parse(self, line: str) -> Frame:
        try:
            return parse_frame(line, self._layout, self._client.unit, self._ml_per_min)
        except InstrumentError as exc:
            raise InstrumentError(f"{self.name}: {exc}", exc.code) from exc
        except MalformedReply as exc:
            raise MalformedReply(f"{self.name}: {exc}") from exc

    def _record_frame(self, frame: Frame) -> None:
        why = frame.states if frame.status & UNTRUE_STATES else ""
        record(self.flow, frame.flow_ml_per_min, why)
        record(self.setpoint, frame.setpoint_ml_per_min)
        record(self.pressure, frame.pressure_bar, why)
        record(self.temperature, frame.temperature_degc, why)

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        """Read flow, setpoint, pressure and temperature at one moment.

        Raises:
            InstrumentError: If a reading is not to be trusted.
        """
        frame = await self._read_frame()
        if frame.status & UNTRUE_STATES:
            raise InstrumentError(
                f"{self.name}: its readings are not to be trusted: {frame.states}",
                ",".join(sorted(frame.status & UNTRUE_STATES)),
            )

    @AsyncStatus.wrap
    async def set(self, value: GasRequest | float) -> None:
        """Let *value* flow, and wait until it does; a flow of 0 closes.

        It ends a watch of what flowed before. A number is a flow [mL/min] of the gas
        that flows, or of the only one that is connected.

        Raises:
            LimitError: If it is not allowed, or it is not clear which gas shall flow;
                nothing was sent.
            InstrumentError: If the controller cannot do so now, or the flow does not
                get there; the valve was closed then, or the error says so.
        """
        if not isinstance(value, GasRequest):
            value = GasRequest(self._present_gas(), float(value))
        self.check_flow(value)
        async with self._beginning:
            await self._let_flow(value)

    async def _let_flow(self, value: GasRequest) -> None:
        """Let *value*, which is allowed, flow, and wait until it does."""
        if self._watch is not None:
            self._is_watch_over.set()
            await asyncio.wait({self._watch})
        if value.flow_ml_per_min == 0:
            await self._close_valve()
            return
        self._is_adopted = False
        frame = await self._read_confirmed() or await self._read_frame()
        self._refuse_state(frame)
        number = self._round_setpoint(value, frame.decimals)
        self._asked = value  # from here on an abort must close it
        try:
            await self._select_gas(value.gas, frame)
            await self._write_setpoint(number, frame.decimals)
            await self._wait_for_flow(value)
        except InstrumentError as exc:
            raise InstrumentError(
                f"{exc}; {await self._close_after_fault()}", exc.code
            ) from exc

    def _present_gas(self) -> str:
        """Return the gas that a bare number is about.

        Raises:
            LimitError: If it is not clear.
        """
        if self._asked is not None:
            return self._asked.gas
        if len(self.gases) > 1:
            raise LimitError(
                f"{self.name}: which of {', '.join(self.gases)} shall flow? Set "
                "GasRequest(gas, flow_ml_per_min) first, then a number is enough"
            )
        return self.gases[0]

    async def locate(self) -> Location[float]:
        """Return what shall flow and what does [mL/min]."""
        frame = await self._read_frame()
        asked = 0.0 if self._asked is None else self._asked.flow_ml_per_min
        return Location(setpoint=asked, readback=frame.flow_ml_per_min)

    def _refuse_state(self, frame: Frame) -> None:
        refused = frame.status & REFUSED_STATES
        if refused:
            raise InstrumentError(
                f"{self.name}: the controller cannot be used now: {frame.states}; "
                "look at its display",
                ",".join(sorted(refused)),
            )

    def _round_setpoint(self, request: GasRequest, decimals: int) -> float:
        """Return the setpoint in the instrument's unit and steps.

        Raises:
            LimitError: If its steps are too coarse for *request*.
        """
        number = round(request.flow_ml_per_min / self._ml_per_min, decimals)
        error = abs(number * self._ml_per_min / request.flow_ml_per_min - 1)
        if error > self.settings.tolerance_percent / 100:
            raise LimitError(
                f"{self.name}: {request.flow_ml_per_min:g} mL/min, the controller "
                f"knows steps of {self._ml_per_min * 10**-decimals:g} mL/min"
            )
        return number

    async def _select_gas(self, gas: str, frame: Frame) -> None:
        """Select *gas* unless it is selected, with the valve closed."""
        if house_name(frame.gas) == gas:
            return
        if frame.setpoint_ml_per_min > 0:
            await self._write_setpoint(0.0, frame.decimals)
        number = GAS_NUMBERS[gas]
        if not self._is_newer:
            await self._client.ask(Command(Word.GAS_REGISTER, number))
            answer = await self._client.ask(Command(Word.READ_GAS_REGISTER))
            if parse_gas_register(answer) != number:
                raise InstrumentError(
                    f"{self.name}: gas {number} ({gas}) was written to register 46, "
                    f"which reads {answer!r}"
                )
        elif self._firmware >= (10, 5):
            await self._client.ask(Command(Word.GAS_UNSAVED, number))
        else:
            await self._client.ask(Command(Word.GAS, number))
        frame_after = await self._read_confirmed() or await self._read_frame()
        actual = frame_after.gas
        if house_name(actual) != gas:
            raise InstrumentError(
                f"{self.name}: {gas} was selected, but the controller is set to "
                f"{actual}; is that gas in its list?"
            )

    async def _write_setpoint(self, number: float, decimals: int) -> None:
        """Write a setpoint in the instrument's unit, and see that it was taken.

        Raises:
            InstrumentError: If it was not.
        """
        step = self._ml_per_min * 10**-decimals
        wanted = number * self._ml_per_min
        seen = await self._read_confirmed()
        if seen is not None and abs(seen.setpoint_ml_per_min - wanted) < 0.5 * step:
            return
        await self._send_setpoint(number, decimals)
        await self._wait_for_setpoint(wanted, 0.5 * step)

    async def _send_setpoint(self, number: float, decimals: int) -> None:
        word = Word.SETPOINT if self._is_newer else Word.SETPOINT_OLD
        await self._client.ask(Command(word, number, decimals))

    async def _wait_for_setpoint(self, wanted: float, allowed: float) -> None:
        """Wait until the setpoint is *wanted* but for *allowed* [mL/min].

        Raises:
            InstrumentError: If it is not so within ``settle_s``.
        """
        deadline = running_loop().time() + self.settings.settle_s
        while True:
            # A controller may be set to ramp its setpoint.
            is_late = running_loop().time() > deadline
            seen = await self._read_confirmed()
            if seen is not None and abs(seen.setpoint_ml_per_min - wanted) < allowed:
                return
            if is_late:
                frame = seen or await self._read_frame()
                raise InstrumentError(
                    f"{self.name}: the setpoint was set to {wanted:g} mL/min but "
                    f"reads {frame.setpoint_ml_per_min:g}; is its setpoint source "
                    "the serial line?"
                )
            await asyncio.sleep(_POLL_S)

    async def _wait_for_flow(self, request: GasRequest) -> None:
        """Wait until *request* flows.

        Raises:
            InstrumentError: If it does not within ``settle_s``.
        """
        asked = request.flow_ml_per_min
        allowed = allowed_deviation(
            self.settings, asked, self.settings.tolerance_percent
        )
        deadline = running_loop().time() + self.settings.settle_s
        while True:
            await asyncio.sleep(_POLL_S)
            is_late = running_loop().time() > deadline
            seen = await self._read_confirmed()
            if seen is not None:
                self._refuse_state(seen)
                is_true = not seen.status & UNTRUE_STATES
                if is_true and abs(seen.flow_ml_per_min - asked) <= allowed:
                    return
            if is_late:
                frame = seen or await self._read_frame()
                said = f" ({frame.states})" if frame.status else ""
                raise InstrumentError(
                    f"{self.name}: {frame.flow_ml_per_min:.4g} of {asked:g} mL/min of "
                    f"{request.gas} flow after {self.settings.settle_s:g} s, at "
                    f"{frame.pressure_bar:.3g} bar{said}; is the bottle open, and is "
                    "there gas in it?"
                )

    # -- closing -------------------------------------------------------------------

    async def _close_valve(self) -> str:
        """Close the valve, and see that no gas flows; insist on both.

        Raises:
            InstrumentError: If gas still flows; everything was tried.
            TransportError: If the controller stayed unreachable.
        """
        try:
            return await insist(
                self._try_to_close,
                on=(InstrumentError, TransportError, MalformedReply),
                for_s=_INSISTING_S,
                pause_s=_POLL_S,
            )
        except (TransportError, MalformedReply) as exc:
            raise TransportError(
                f"{exc}; whether {self.name} is closed is not known: close the bottle"
            ) from exc

    async def _try_to_close(self) -> str:
        """Close the valve, and see that no gas flows.

        Raises:
            InstrumentError: If gas still flows.
        """
        # Whatever the controller can be heard to say, it may hear this.
        await self._send_setpoint(0.0, self._decimals)
        try:
            step = self._ml_per_min * 10**-self._decimals
            await self._wait_for_setpoint(0.0, 0.5 * step)
        except InstrumentError:
            if not self._is_newer:
                raise
            # Somebody set it to an analog setpoint; its valve can still be held shut.
            await self._client.ask(Command(Word.HOLD_CLOSED))
            await self._wait_for_no_flow()
            self._asked = None
            return f"{self.name}: its valve is held closed, verified (it is on hold)"
        if "HLD" in (await self._read_confirmed() or await self._read_frame()).status:
            # A held valve does not follow its setpoint, which is 0 by now.
            word = Word.CANCEL_HOLD if self._is_newer else Word.CANCEL_HOLD_OLD
            await self._client.ask(Command(word))
        await self._wait_for_no_flow()
        self._asked = None
        return f"{self.name}: closed, verified (setpoint 0, no flow)"

    async def _wait_for_no_flow(self) -> None:
        allowed = allowed_deviation(self.settings, 0.0, 0.0)
        deadline = running_loop().time() + self.settings.settle_s
        while True:
            is_late = running_loop().time() > deadline
            seen = await self._read_confirmed()
            is_true = seen is not None and not seen.status & UNTRUE_STATES
            if seen is not None and is_true and abs(seen.flow_ml_per_min) <= allowed:
                return
            if is_late:
                frame = seen or await self._read_frame()
                said = f"{frame.flow_ml_per_min:.4g} mL/min still flow"
                if frame.status & UNTRUE_STATES:
                    said = "whether gas still flows is not known"
                raise InstrumentError(
                    f"{self.name}: asked to close but {said}; close the bottle. "
                    f"{frame.states}".rstrip()
                )
            await asyncio.sleep(_POLL_S)

    async def _close_after_fault(self) -> str:
        """Close; return what came of it, for the error that tells the fault."""
        try:
            await self._close_valve()
        except PPUError as exc:
            return f"the valve could NOT be closed: {exc}"
        return "the valve is closed"

    @override
    def adopt(self) -> None:
        self._is_adopted = True

    @override
    async def go_to_abort_state(self) -> str:
        self._end_watch()
        if self._asked is None and not await self._flows_adopted():
            self._is_adopted = False
            return ""  # nothing flows, or not by this driver
        said = await self._go_to(self.entry.on_abort)
        self._asked = None
        self._is_adopted = False
        return said

    async def _flows_adopted(self) -> bool:
        """Return whether something shall flow that was adopted."""
        if not self._is_adopted:
            return False
        frame = await self._read_confirmed() or await self._read_frame()
        return frame.setpoint_ml_per_min > 0

    @override
    async def go_to_orphan_state(self) -> str:
        if self.entry.on_orphan is None or self._asked is not None:
            return ""  # what flows goes on, as a program that is under way needs it
        frame = await self._read_confirmed() or await self._read_frame()
        if frame.setpoint_ml_per_min <= 0:
            return ""
        return await self._go_to(self.entry.on_orphan)

    @override
    async def go_to_hold_state(self) -> str:
        if self.entry.on_hold is None or self._asked is None:
            return ""
        return await self._go_to(self.entry.on_hold)

    async def _go_to(self, state: str | None) -> str:
        """Go to *state*: ``close``, which is the default, or ``keep``."""
        if state == "keep":
            frame = await self._read_frame()
            return (
                f"{self.name}: left alone, {frame.flow_ml_per_min:.4g} mL/min of "
                f"{frame.gas} flow"
            )
        return await self._close_valve()

    # -- watching ------------------------------------------------------------------

    @AsyncStatus.wrap
    async def kickoff(self) -> None:
        """Begin to watch the flow.

        Raises:
            InstrumentError: If this driver lets nothing flow.
            InterlockError: If it is being watched already.
        """
        if self._asked is None:
            raise InstrumentError(f"{self.name}: nothing flows that could be watched")
        if self._watch is not None:
            raise InterlockError(f"{self.name}: the flow is being watched already")
        self._is_watch_over.clear()
        self._watch = running_loop().create_task(self._watch_flow(self._asked))

    @AsyncStatus.wrap
    async def complete(self) -> None:
        """Wait until the next :meth:`set` ends the watch.

        Raises:
            InstrumentError: As soon as the gas does not flow as asked.
            TransportError: If the controller stayed unreachable for too long.
        """
        if self._watch is None:
            raise InstrumentError(f"{self.name}: nothing is being watched")
        try:
            # The watch must outlive a cancelled wait: an abort ends it by itself.
            self._last_watch = await asyncio.shield(self._watch)
        finally:
            if self._watch.done():
                self._watch = None

    def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is None:
            return
        watch.cancel()
        if watch.done() and not watch.cancelled():
            watch.exception()  # whatever it found, the plan was aborted meanwhile

    async def _watch_flow(self, request: GasRequest) -> FlowRecord:
        """Sample until the watch is over or something goes wrong."""
        loop = running_loop()
        last_heard = loop.time()
        flows: list[float] = []
        watch = FlowWatch(request, self.settings, self._ml_per_min)
        is_over = False
        while not is_over:
            is_over = await self._watch_ends_within(self.settings.sample_period_s)
            try:
                frame = await self._client.ask_confirmed(
                    Poll(), self._parse, self._frames_agree
                )
            except (TransportError, MalformedReply):
                if loop.time() - last_heard > self.settings.max_silence_s:
                    raise
                if is_over:  # the last look is worth another try
                    is_over = False
                    await asyncio.sleep(_POLL_S)
                continue
            self._record_frame(frame)
            last_heard = loop.time()
            flows.append(frame.flow_ml_per_min)
            fault = watch.fault_in(frame, iso(loop.stamp()))
            if fault is not None:
                raise InstrumentError(f"{self.name}: {fault}")
        return FlowRecord.of(request, flows)

    async def _watch_ends_within(self, wait: float) -> bool:
        """Return whether the watch is over within *wait* seconds of lab time."""
        try:
            async with asyncio.timeout(wait):
                await self._is_watch_over.wait()
        except TimeoutError:
            return False
        return True

    # -- before a job --------------------------------------------------------------

    @override
    async def check_idle(self) -> None:
        if self._asked is not None:
            return
        frame = await self._read_confirmed() or await self._read_frame()
        if frame.setpoint_ml_per_min > 0:
            raise InterlockError(
                f"{self.name}: its setpoint is {frame.setpoint_ml_per_min:g} mL/min of "
                f"{frame.gas} already, which this program did not ask for; set it to "
                "0 at the controller"
            )
