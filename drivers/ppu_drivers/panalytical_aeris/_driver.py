"""The driver of the diffractometer: adds a sample, measures, fetches the file."""

from __future__ import annotations

import asyncio
import logging
from functools import cached_property
from pathlib import Path
from typing import Annotated as A
from typing import Final

import numpy as np
from bluesky.protocols import Reading
from event_model import DataKey
from ophyd_async.core import Array1D, AsyncStatus
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.capabilities import Diffractometer, ScanRequest
from ppu.core.errors import (
    ConnectError,
    InstrumentError,
    MalformedReply,
    TransportError,
)
from ppu.core.labfile import DeviceEntry, LimitPair
from ppu.core.labtime import running_loop
from ppu.core.specifications import DiffractometerSpecification
from ppu.devices import DriverFacts, Identity, Instrument, Measured, SignalR, record
from ppu.transports.tcp import TcpConnection, TcpLink
from ppu_drivers.panalytical_aeris._codec import (
    field_of,
    program_name,
    refuse_fatal,
    take_message,
)
from ppu_drivers.panalytical_aeris._xrdml import PowderScan, find_frozen, parse_scan

__all__ = [
    "AerisConnection",
    "PanalyticalAeris",
    "PanalyticalAerisLimits",
    "PanalyticalAerisSettings",
]

_BEGIN_S: Final = 10.0
"""How long READY may still say yes after a scan was asked for [s]."""
_FILE_POLL_S: Final = 1.0
_RANGE_SLACK_DEG: Final = 0.5
_log = logging.getLogger("ppu.drivers")


class AerisConnection(TcpConnection):
    """How to reach the Aeris and its files."""

    port: int = Field(default=702, gt=0, lt=65536)
    results_folder: str = Field(
        min_length=1, description="Folder where the scans appear, as seen from here"
    )


# -- the device ----------------------------------------------------------------------


class PanalyticalAerisSettings(BaseModel):
    """What the driver must know of the diffractometer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    position: int = Field(
        default=1, ge=1, le=5, description="Sample position that the slot is"
    )
    instrument_id: str | None = Field(
        default=None,
        description="What scan files say under instrumentID; by default the serial "
        "number, if the instrument tells it",
    )
    poll_period_s: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    max_silence_s: float = Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="How long it may be unreachable while it measures",
    )
    max_overhead_s: float = Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="How much longer than the scan a measurement may take",
    )
    file_wait_s: float = Field(
        default=10.0,
        ge=0,
        allow_inf_nan=False,
        description="How long after the measurement its file may appear",
    )


class PanalyticalAerisLimits(BaseModel):
    """What the lab allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    two_theta_deg: LimitPair
    duration_s: LimitPair = (60.0, 24 * 3600.0)


class PanalyticalAeris(Instrument, Diffractometer):
    """A Malvern Panalytical Aeris under remote control.

    Args:
        name: Name of the device.
        entry: Its entry in the lab file; its first slot is the sample position.
        connection: Host, port and results folder.
        settings: What the driver must know.
        limits: What the lab allows.
    """

    facts = DriverFacts(
        maker="Malvern Panalytical",
        model="Aeris",
        wire="aeris",
        sources=(
            "CederGroupHub/alab_control diffractometer_aeris/aeris.py: port 702, "
            "messages, the substrings READY=, SYSTEM=, STATE= and fatal, locations "
            "0,2 to 0,6 for positions 1 to 5, the program 10-100_8-minutes, the file",
            "Two XRDML 2.3 files of the DARA project, measured on an Aeris",
        ),
        verified="",
        open_questions=(
            "The replies are not public. A reply without 'fatal' is taken for success.",
            "No serial number is known on the wire: SERIAL in the status is our "
            "assumption. Without it, leave serial_number unset and state "
            "instrument_id: the instrumentID of every scan file is compared.",
            "How a program is named is up to the lab. The driver asks for "
            "'<start>-<stop>_<minutes>-minutes' and checks the range of the file.",
            "Whether a file of the same sample id is replaced is not known. A file "
            "that is the same as before the scan is not taken for its result.",
            "How soon READY says no after a scan was asked for is not known; "
            "alab_control waits 10 s, and so does this driver.",
            "Whether @SAMPLE@ADD may be sent for a sample that exists is not known; "
            "if it is refused, the position is cleared and it is sent once more.",
        ),
        orphan_behaviour="finishes its scan and stores it",
    )
    connections = (AerisConnection,)
    settings_model = PanalyticalAerisSettings
    limits_model = PanalyticalAerisLimits

    two_theta: A[SignalR[Array1D[np.float64]], Measured(units="deg")]
    counts: A[SignalR[Array1D[np.float64]], Measured(units="counts")]

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: AerisConnection,
        settings: PanalyticalAerisSettings,
        limits: PanalyticalAerisLimits,
    ) -> None:
        self.settings = settings
        self.limits = limits
        self._folder = Path(connection.results_folder)
        self._link = TcpLink(name, connection, deadline_s=2.0, is_kept_open=False)
        self._request: ScanRequest | None = None
        self._scan: PowderScan | None = None
        self._scan_file: str | None = None
        self._is_known = False
        super().__init__(name, entry, self._link, self._link)
        # A connection lives for one exchange: the check cannot be part of opening it.
        self._link.identify = None

    # -- identity ------------------------------------------------------------------

    @override
    async def connect_link(self) -> None:
        await self._check_identity()
        self._is_known = True
        if not self._folder.is_dir():
            raise ConnectError(
                f"{self.name}: the results folder {self._folder} cannot be read; is "
                "the share mounted?"
            )
        await self.connect()

    @override
    async def read_identity(self) -> Identity:
        try:
            message = await self._exchange("@STATUS_REQUEST@UNIT=xrd@END", is_safe=True)
            self._require_field(message, "READY", "yes", "no")
        except (MalformedReply, InstrumentError) as exc:
            raise ConnectError(
                f"{self.name}: what answers at {self.link.endpoint} is no Aeris: {exc}"
            ) from exc
        return Identity(model="Aeris", serial_number=field_of(message, "SERIAL"))

    # -- the wire ------------------------------------------------------------------

    async def _exchange(self, message: str, *, is_safe: bool) -> str:
        try:
            return await self._link.exchange(
                message.encode("ascii"), take_message, is_safe=is_safe
            )
        except TransportError:
            self._is_known = False  # who answers next may be another instrument
            raise

    async def _ask(self, message: str, *, is_safe: bool) -> str:
        """Send *message* to the instrument of the lab file; return its reply.

        Raises:
            InstrumentError: If it refused.
            TransportError: If there was no reply.
        """
        if not self._is_known:
            await self._check_identity()
            self._is_known = True
        if not is_safe:
            self.link.check_change()
        reply = await self._exchange(message, is_safe=is_safe)
        try:
            return refuse_fatal(reply)
        except InstrumentError as exc:
            raise InstrumentError(f"{self.name}: {exc}", exc.code) from exc

    def _require_field(self, message: str, key: str, *allowed: str) -> str:
        """Return the value of *key*, one of *allowed* if any are given.

        Raises:
            MalformedReply: If it is not there or not allowed.
        """
        value = field_of(message, key)
        if value is None or (allowed and value not in allowed):
            raise MalformedReply(f"{self.name}: no {key} in {message!r}")
        return value

    async def read_is_ready(self) -> bool:
        """Ask whether it could measure now."""
        reply = await self._ask("@STATUS_REQUEST@UNIT=xrd@END", is_safe=True)
        return self._require_field(reply, "READY", "yes", "no") == "yes"

    async def read_is_remote(self) -> bool:
        """Ask whether it is under remote control."""
        reply = await self._ask("@STATUS_REQUEST@SYSTEM@END", is_safe=True)
        return self._require_field(reply, "SYSTEM") == "remote"

    async def read_is_occupied(self) -> bool:
        """Ask whether something stands at the sample position."""
        reply = await self._ask(
            f"@STATUS_REQUEST@LOCATION={self._location}@END", is_safe=True
        )
        return self._require_field(reply, "STATE", "free", "occupied") == "occupied"

    @property
    def _location(self) -> str:
        """The sample position as the instrument counts."""
        return f"0,{self.settings.position + 1}"

    # -- capability ----------------------------------------------------------------

    @cached_property
    def specification(self) -> DiffractometerSpecification:
        """What the lab and the instrument allow."""
        return DiffractometerSpecification(
            name=self.name,
            slot=self.entry.slots[0],
            two_theta_deg=self.limits.two_theta_deg,
            duration_s=self.limits.duration_s,
        )

    @property
    def slot(self) -> str:
        """Location where the specimen must stand."""
        return self.entry.slots[0]

    @property
    def scan_file(self) -> str | None:
        """Path of the file that the last scan wrote."""
        return self._scan_file

    @property
    def last_scan(self) -> PowderScan | None:
        """The last scan, with its wavelengths and counting time."""
        return self._scan

    def check_scan(self, scan: ScanRequest) -> None:
        """Refuse what the lab or the wire does not allow; sends nothing.

        Raises:
            LimitError: With every fault.
        """
        self.specification.check_scan(scan)

    @AsyncStatus.wrap
    async def prepare(self, value: ScanRequest) -> None:
        """Check *value* against the limits, and that the instrument could measure it.

        Raises:
            LimitError: If the lab does not allow it; with every fault.
            InstrumentError: If the instrument is not in a state to measure.
        """
        self._request = None
        self.check_scan(value)
        faults = []
        if not await self.read_is_remote():
            faults.append("it is not under remote control")
        if not await self.read_is_ready():
            faults.append("it is not ready")
        if not await self.read_is_occupied():
            faults.append(f"nothing stands at {self.slot} (location {self._location})")
        if faults:
            raise InstrumentError(f"{self.name}: " + "; ".join(faults))
        self._request = value

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        """Measure what was prepared and keep the pattern.

        A request is executed once. If waiting is cancelled the scan goes on.

        Raises:
            InstrumentError: If nothing is prepared, it refuses, no file appears, or
                its detector was frozen.
            TransportError: If it stayed unreachable; it may be measuring.
            MalformedReply: If the file is not the scan that was asked for.
        """
        request, self._request = self._request, None
        if request is None:
            raise InstrumentError(f"{self.name}: nothing is prepared")
        program = program_name(request)
        path = self._folder / f"{request.sample_id}.xrdml"
        before = _file_mark(path)
        await self._add_sample(request.sample_id, program)
        await self._start_scan(request.sample_id, program)
        await self._wait_until_ready(request)
        scan = await self._read_file(path, before)
        self._check_file(scan, request)
        frozen = find_frozen(scan.counts)
        if frozen is not None:
            first, last = scan.two_theta[[frozen.start, frozen.stop - 1]]
            raise InstrumentError(
                f"{self.name}: {path} has {scan.counts[frozen.start]:g} counts at "
                f"every point from {first:.2f} to {last:.2f} deg; is the detector "
                "frozen?"
            )
        self._scan = scan
        self._scan_file = str(path)
        record(self.two_theta, scan.two_theta)
        record(self.counts, scan.counts)
        try:
            await self._ask(
                f"@SAMPLE@REMOVE@SAMPLE_ID={request.sample_id}@END", is_safe=False
            )
        except (TransportError, MalformedReply, InstrumentError) as exc:
            # The pattern is there; the next sample clears the position.
            _log.warning("%s: %s stays registered: %s", self.name, path.stem, exc)

    async def _add_sample(self, sample_id: str, program: str) -> None:
        """Register the sample; what was left of an earlier one is forgotten."""
        message = (
            f"@SAMPLE@ADD@APPLICATION={program}@SAMPLE_ID={sample_id}"
            f"@AT={self._location}@END"
        )
        try:
            await self._ask(message, is_safe=False)
        except InstrumentError as exc:
            try:
                await self._ask(
                    f"@SAMPLE@REMOVE@SAMPLE_ID@AT={self._location}@END", is_safe=False
                )
            except InstrumentError:
                raise exc from None  # nothing was left: the first refusal counts
            await self._ask(message, is_safe=False)

    async def _start_scan(self, sample_id: str, program: str) -> None:
        """Start the scan once; if the answer is lost, see whether it is busy."""
        message = f"@SAMPLE@MEASURE@SAMPLE_ID={sample_id}@APPLICATION={program}@END"
        try:
            await self._ask(message, is_safe=False)
        except (TransportError, MalformedReply) as exc:
            loop = running_loop()
            deadline = loop.time() + _BEGIN_S
            is_late = False
            while await self.read_is_ready():
                if is_late:
                    raise
                await asyncio.sleep(self.settings.poll_period_s)
                is_late = loop.time() >= deadline
            _log.warning("%s: the scan began although %s", self.name, exc)

    async def _wait_until_ready(self, request: ScanRequest) -> None:
        """Poll until the scan that was asked for has ended."""
        loop = running_loop()
        asked = last_heard = loop.time()
        longest = request.duration_s + self.settings.max_overhead_s
        while True:
            await asyncio.sleep(self.settings.poll_period_s)
            looked = loop.time()
            try:
                is_ready = await self.read_is_ready()
            except (TransportError, MalformedReply):
                if loop.time() - last_heard > self.settings.max_silence_s:
                    raise
                continue
            last_heard = loop.time()
            if is_ready and looked - asked >= _BEGIN_S:
                return
            if looked - asked > longest:
                raise InstrumentError(
                    f"{self.name}: a scan of {request.duration_s:g} s is not done "
                    f"after {longest:g} s"
                )

    async def _read_file(self, path: Path, before: _FileMark | None) -> PowderScan:
        """Wait for the file of the scan and read it.

        Raises:
            InstrumentError: If it does not appear in time.
            MalformedReply: If it is not a scan.
        """
        loop = running_loop()
        deadline = loop.time() + self.settings.file_wait_s
        while True:
            is_late = loop.time() >= deadline
            mark = _file_mark(path)
            if mark is not None and mark != before:
                try:
                    return _load(path)
                except MalformedReply as exc:
                    if is_late:  # else it may still be being written
                        raise MalformedReply(f"{self.name}: {path}: {exc}") from exc
            elif is_late:
                what = "is as old as before the scan" if mark else "did not appear"
                raise InstrumentError(
                    f"{self.name}: {path} {what}, {self.settings.file_wait_s:g} s "
                    "after the measurement; did the goniometer fail?"
                )
            await asyncio.sleep(_FILE_POLL_S)

    def _check_file(self, scan: PowderScan, request: ScanRequest) -> None:
        """Refuse a file that is not what was asked for.

        Raises:
            InstrumentError: With every fault.
        """
        faults = []
        if scan.sample_id != request.sample_id:
            faults.append(f"it is of sample {scan.sample_id!r}")
        first, last = float(scan.two_theta[0]), float(scan.two_theta[-1])
        if (
            abs(first - request.start_deg) > _RANGE_SLACK_DEG
            or abs(last - request.stop_deg) > _RANGE_SLACK_DEG
        ):
            faults.append(f"it goes from {first:g} to {last:g} deg")
        wanted = self.settings.instrument_id
        if wanted is None and self.identity is not None:
            wanted = self.identity.serial_number
        if wanted is not None and scan.instrument_id not in (None, wanted):
            faults.append(
                f"it is from instrument {scan.instrument_id}, not from {wanted}"
            )
        if faults:
            raise InstrumentError(
                f"{self.name}: {request.sample_id}.xrdml is not the scan that was "
                f"asked for: " + "; ".join(faults)
            )

    # -- documents -----------------------------------------------------------------

    @override
    async def read(self) -> dict[str, Reading[Array1D[np.float64]]]:
        """Return the last pattern.

        Raises:
            InvalidReading: If nothing was measured yet.
        """
        return {**await self.two_theta.read(), **await self.counts.read()}

    @override
    async def describe(self) -> dict[str, DataKey]:
        """Describe the last pattern; its number of points is known once measured."""
        n_points = None if self._scan is None else self._scan.counts.size
        return {
            signal.name: DataKey(
                source=signal.source,
                dtype="array",
                dtype_numpy="<f8",
                shape=[n_points],
                units=units,
            )
            for signal, units in ((self.two_theta, "deg"), (self.counts, "counts"))
        }


def _load(path: Path) -> PowderScan:
    """Return the scan at *path*; blocks for the moment that 50 kB take."""
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise MalformedReply(f"cannot be read: {exc.strerror}") from exc
    return parse_scan(content)


_FileMark = tuple[int, int, int]
"""What changes when a file is replaced: inode, time of change [ns], size."""


def _file_mark(path: Path) -> _FileMark | None:
    """Return the mark of the file at *path*, None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
