"""The driver of a balance: waits for stable weights, tares, tells who it is."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import Annotated as A
from typing import Final

from ophyd_async.core import AsyncStatus, StandardReadableFormat, TriggerableCommand
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.capabilities import Balance
from ppu.core.errors import ConnectError, InstrumentError, LimitError, MalformedReply
from ppu.core.labfile import DeviceEntry, LimitPair
from ppu.core.labtime import running_loop
from ppu.core.specifications import BalanceSpecification
from ppu.devices import (
    DriverFacts,
    Identity,
    Instrument,
    Measured,
    Query,
    SignalR,
    record,
)
from ppu.transports.line import LineClient, LineProbe
from ppu.transports.serial import SerialConnection
from ppu_drivers.mettler_sics._codec import (
    Weight,
    acknowledgement_of,
    ends_answer_to,
    parse_is_stable,
    parse_mass,
    parse_stable_weight,
    parse_text,
)

__all__ = ["MettlerSics", "MettlerSicsLimits", "MettlerSicsSettings"]

_STABILITY_S: Final = 60.0
_PROBE: Final = LineProbe("I4", lambda line: line.startswith("I4 "))
_LESSER_PROBE: Final = LineProbe("I3", lambda line: line.startswith("I3 "))
"""For balances that know no serial number."""
_LOOK_S: Final = 1.0
_REPEATS_WITHIN: Final = 5
"""Steps within which stable weights of one load repeat."""


class MettlerSicsSettings(BaseModel):
    """What the driver must know of the balance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    readability_g: float = Field(default=0.0001, gt=0)


class MettlerSicsLimits(BaseModel):
    """What the lab allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mass_g: LimitPair = (0.0, 220.0)


def _command(word: str) -> Query:
    """Return a command that waits for stability."""
    return Query(
        word,
        acknowledgement_of(word),
        is_last=ends_answer_to(word),
        lasts_s=_STABILITY_S,
        plan_may_write=True,
    )


class MettlerSics(Instrument, Balance):
    """A balance with MT-SICS level 0 and 1 (reference manual 11780711).

    Args:
        name: Name of the device.
        entry: Its entry in the lab file; its first slot is the pan.
        connection: The serial line.
        settings: What the driver must know.
        limits: What the lab allows.
    """

    facts = DriverFacts(
        maker="Mettler Toledo",
        model="MT-SICS balance",
        wire="mt-sics",
        sources=(
            "MT-SICS reference manual 11780711, as cited by labmcp-mettler-toledo",
            "PyLabRobot mettler_toledo.py (used on a WXS205SDU)",
        ),
        verified="",
        open_questions=(
            "ZC and TC answered ES on a real WXS205SDU although documented; they are "
            "not used.",
            "InstrumentKit's test vectors begin replies to SI with SI; the manual "
            "says S. Both are accepted.",
        ),
        orphan_behaviour="keeps displaying the weight; nothing can happen",
    )
    connections = (SerialConnection,)
    settings_model = MettlerSicsSettings
    limits_model = MettlerSicsLimits

    mass: A[
        SignalR[float],
        Measured(units="g", decimals=4),
        StandardReadableFormat.HINTED_SIGNAL,
    ]
    present_mass: A[
        SignalR[float], Query("SI", parse_mass, units="g", decimals=4, manual="SI")
    ]
    is_stable: A[SignalR[bool], Query("SI", parse_is_stable, manual="SI")]
    firmware: A[
        SignalR[str], Query("I3", parse_text, is_last=ends_answer_to("I3"), manual="I3")
    ]
    tare_: A[TriggerableCommand, _command("T")]
    zero: A[TriggerableCommand, _command("Z")]

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: SerialConnection,
        settings: MettlerSicsSettings,
        limits: MettlerSicsLimits,
    ) -> None:
        self.settings = settings
        self.limits = limits
        # Some end their lines with CR only.
        self._client = LineClient(
            name, connection, answer_end=b"\r", deadline_s=1.0, probe=_PROBE
        )
        super().__init__(name, entry, self._client, self._client.link)

    @override
    async def read_identity(self) -> Identity:
        try:
            serial_number = await self._read_serial_number()
            firmware = parse_text(await self._ask("I3"))
            *_, model = await self._ask("I2")
        except (MalformedReply, InstrumentError) as exc:
            raise ConnectError(
                f"{self.name}: what answers at {self.link.endpoint} does not speak "
                f"MT-SICS as expected: {exc}"
            ) from exc
        return Identity(model.partition('"')[2].strip('"'), serial_number, firmware)

    async def _ask(self, command: str) -> list[str]:
        return await self._client.ask(command, is_last=ends_answer_to(command))

    async def _read_serial_number(self) -> str | None:
        """Return the serial number, None if the balance knows none."""
        try:
            serial_number = parse_text(await self._ask("I4"))
        except InstrumentError:
            self._client.probe = _LESSER_PROBE
            return None
        self._client.probe = _PROBE
        return serial_number

    @cached_property
    def specification(self) -> BalanceSpecification:
        """What the lab and the instrument allow."""
        return BalanceSpecification(
            name=self.name,
            pan=self.entry.slots[0],
            max_mass_g=self.limits.mass_g[1],
        )

    @property
    def pan(self) -> str:
        """Location that is the pan."""
        return self.entry.slots[0]

    @property
    def tare(self) -> TriggerableCommand:
        """Takes the present load as zero."""
        return self.tare_

    @property
    def mass_key(self) -> str:
        """Data key of the mass [g]."""
        return self.mass.name

    @property
    def max_mass_g(self) -> float:
        """The most that may stand on the pan [g]."""
        return self.limits.mass_g[1]

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        """Wait for a stable weight, see that it repeats, and keep it.

        The wire has no checksum, so one answer could have a wrong digit.

        Raises:
            InstrumentError: If it is over- or underloaded or does not settle.
            LimitError: If the lab does not allow this load.
        """
        weight = await self._read_stable()
        low, high = self.limits.mass_g
        if weight.mass_g > high:
            raise LimitError(
                f"{self.name}: {weight.mass_g:g} g on the pan, allowed are {low:g} to "
                f"{high:g} g"
            )
        record(self.mass, weight.mass_g)

    async def _read_stable(self) -> Weight:
        """Return a stable weight that repeats.

        Most balances wait by themselves before they answer; others say at once that
        the weight still changes.

        Raises:
            InstrumentError: If it is over- or underloaded or does not settle.
        """
        within = _REPEATS_WITHIN * self.settings.readability_g * (1 + 1e-6)
        deadline = running_loop().time() + _STABILITY_S
        while True:
            is_late = running_loop().time() >= deadline
            try:
                return await self._client.ask_confirmed(
                    "S",
                    parse_stable_weight,
                    agree=lambda one, other: abs(one.mass_g - other.mass_g) <= within,
                    deadline_lab_s=_STABILITY_S,
                )
            except InstrumentError as exc:
                if exc.code != "D" or is_late:
                    raise InstrumentError(f"{self.name}: {exc}", exc.code) from exc
            except MalformedReply as exc:
                raise MalformedReply(f"{self.name}: {exc}") from exc
            await asyncio.sleep(_LOOK_S)
