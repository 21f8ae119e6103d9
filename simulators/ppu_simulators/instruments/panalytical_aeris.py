"""A simulated Malvern Panalytical Aeris: sample belt, goniometer, remote interface.

A scan is planned when it is asked for. What lies in the holder is looked at when the
scan begins, and its file appears in the results folder when the scan has ended,
whenever somebody looks at the world after that; nothing here needs a timer.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from ppu.core.labfile import DeviceEntry
from ppu.core.labtime import iso, running_loop
from ppu_simulators.faults import Faults
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.tcp import TcpFront
from ppu_simulators.physics.crystals import STRUCTURES
from ppu_simulators.physics.diffraction import (
    AERIS_SECONDS_PER_STEP,
    EMPTY_HOLDER,
    Diffractometer,
    Specimen,
    measure,
)
from ppu_simulators.physics.matter import Matter
from ppu_simulators.physics.specimens import imperfect_specimen
from ppu_simulators.world import AMBIENT_DEGC, Container, World, settings_of

__all__ = ["SimulatedPanalyticalAeris", "scan_angles", "xrdml"]

_TWIN_DEFAULTS: Final[Mapping[str, Any]] = {
    "zero_error_deg": 0.0,
    "severity": 1.0,
    "load_s": 15.0,
    "unload_s": 10.0,
    "is_remote": True,
    "faults": [],
}
_THINKING_S: Final = 0.02
_MISALIGNED: Final = "misaligned goniometer"
_UNSEATED: Final = "holder not seated"
_FROZEN: Final = "sensor frozen"
_LONGEST_MESSAGE: Final = 1024
_FIRST_STEP_DEG: Final = 0.00943322
_LAST_STEP_DEG: Final = 0.00557714
_N_STEPS_10_TO_100: Final = 8282
_STEP_DEG: Final = (90 - _FIRST_STEP_DEG - _LAST_STEP_DEG) / (_N_STEPS_10_TO_100 - 1)
_LOWEST_DEG: Final = 5.0
_HIGHEST_DEG: Final = 140.0
_N_LOCATIONS: Final = 6
_NUMBER: Final = r"(\d+(?:\.\d+)?)"
_PROGRAM: Final = re.compile(rf"{_NUMBER}-{_NUMBER}_{_NUMBER}-minutes")
_SAMPLE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class _Fatal(Exception):  # noqa: N818 - it becomes a reply, not a crash
    """Something the instrument refuses."""


@dataclass(frozen=True)
class _Program:
    """A scan program, as its name says."""

    start_deg: float
    stop_deg: float
    duration_s: float

    @classmethod
    def named(cls, name: str) -> _Program:
        """Return the program *name*, such as ``10-100_8-minutes``."""
        match = _PROGRAM.fullmatch(name)
        if match is None:
            raise _Fatal(f"unknown application {name}")
        start, stop, minutes = (float(text) for text in match.groups())
        if not (_LOWEST_DEG <= start < stop <= _HIGHEST_DEG and minutes > 0):
            raise _Fatal(f"application {name} is outside of the goniometer")
        return cls(start, stop, 60 * minutes)


@dataclass
class _Scan:
    """A scan in hand."""

    sample_id: str
    program: _Program
    starts_at: float
    ends_at: float
    ready_at: float
    specimen: Specimen | None = None
    is_written: bool = False


class SimulatedPanalyticalAeris:
    """The diffractometer and its remote interface.

    Args:
        name: Name of the device.
        entry: Its lab-file entry; its first slot is the belt position that the
            driver's setting ``position`` names.
        world: The world whose specimens it measures.
        serial_number: What its status and its files say.
    """

    wire = "aeris"
    chamber_degc = AMBIENT_DEGC
    known_faults: ClassVar[Mapping[str, str]] = {
        _MISALIGNED: "every angle is read by_deg (0.3 if not said) too high",
        _UNSEATED: "specimens stand by_mm (0.5 if not said) above the axis",
        _FROZEN: "the detector repeats its last counts",
    }

    def __init__(
        self, name: str, entry: DeviceEntry, world: World, serial_number: str
    ) -> None:
        self.name = name
        twin = settings_of(entry.twin, _TWIN_DEFAULTS)
        self.faults = Faults(
            name, twin["faults"], self.known_faults, world.rng(name, "faults")
        )
        self._load_s = float(twin["load_s"])
        self._unload_s = float(twin["unload_s"])
        self._severity = float(twin["severity"])
        self._is_remote = bool(twin["is_remote"])
        self._optics = Diffractometer(zero_deg=float(twin["zero_error_deg"]))
        self._slot = entry.slots[0]
        self._location = int(entry.settings.get("position", 1)) + 1
        self._world = world
        self._serial_number = serial_number
        self._buffer = b""
        self._samples: dict[str, int] = {}
        self._scan: _Scan | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._epoch = 0.0
        self.front = TcpFront(self, closes_after_answer=True, faults=self.faults)
        world.add_process(self)

    async def start(self) -> Mapping[str, Any]:
        """Listen; return the connection that leads here."""
        self._epoch = running_loop().epoch
        self._folder = tempfile.TemporaryDirectory(prefix="ppu-aeris-")
        host, port = await self.front.start()
        return {
            "transport": "tcp",
            "host": host,
            "port": port,
            "results_folder": self._folder.name,
        }

    async def stop(self) -> None:
        """Close the port and remove the results folder."""
        await self.front.stop()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    # -- what happens by itself ----------------------------------------------------

    def advance(self, time: float) -> None:
        """Begin, end and store the scan in hand as of lab time *time* [s]."""
        scan = self._scan
        if scan is None:
            return
        if scan.specimen is None and time >= scan.starts_at:
            scan.specimen = self._look_at(scan)
        if not scan.is_written and time >= scan.ends_at:
            scan.is_written = True
            self._write(scan)
        if time >= scan.ready_at:
            self._scan = None

    def put_in(self, container: Container, time: float) -> None:
        """Take note that *container* stands on the belt."""

    def take_out(self, container: Container, time: float) -> None:
        """Take note that *container* left; it must not while it is measured."""
        self.advance(time)
        if self._scan is not None and container.at == self._slot:
            self._world.record(
                time,
                "hands in machine",
                self.name,
                f"{container.name} was taken out while {self.name} was measuring it",
            )

    def _look_at(self, scan: _Scan) -> Specimen:
        container = self._world.at(self._slot)
        if container is None or container.matter.mass_g <= 0:
            return EMPTY_HOLDER
        rng = self._world.rng(self.name, "specimen", scan.sample_id)
        specimen = specimen_of(container.matter, rng, self._severity)
        if not self.faults.is_active(_UNSEATED, scan.starts_at):
            return specimen
        height_mm = specimen.displacement_mm + self.faults.option(
            _UNSEATED, "by_mm", 0.5
        )
        return replace(specimen, displacement_mm=height_mm)

    def _optics_of(self, scan: _Scan) -> Diffractometer:
        """Return the optics as they are when *scan* begins."""
        if not self.faults.is_active(_MISALIGNED, scan.starts_at):
            return self._optics
        by_deg = self.faults.option(_MISALIGNED, "by_deg", 0.3)
        return replace(self._optics, zero_deg=self._optics.zero_deg + by_deg)

    def _hold_frozen(self, counts: npt.NDArray[np.int64], scan: _Scan) -> None:
        """Repeat in *counts* what was counted last while the detector is frozen."""
        moments = np.linspace(scan.starts_at, scan.ends_at, counts.size)
        for index, moment in enumerate(moments.tolist()):
            if index and self.faults.is_active(_FROZEN, moment):
                counts[index] = counts[index - 1]

    def _write(self, scan: _Scan) -> None:
        """Measure, and store the file as a whole or not at all."""
        if self._folder is None or scan.specimen is None:
            return
        program = scan.program
        angles = scan_angles(program.start_deg, program.stop_deg)
        span = program.stop_deg - program.start_deg
        seconds_per_step = AERIS_SECONDS_PER_STEP * program.duration_s / 480 * 90 / span
        rng = self._world.rng(
            self.name, "counts", scan.sample_id, f"{scan.starts_at:.3f}"
        )
        optics = self._optics_of(scan)
        counts = measure(scan.specimen, optics, angles, seconds_per_step, rng)
        self._hold_frozen(counts, scan)
        text = xrdml(
            scan.sample_id,
            angles,
            counts,
            seconds_per_step,
            instrument_id=self._serial_number,
            started=iso(self._epoch + scan.starts_at),
            ended=iso(self._epoch + scan.ends_at),
        )
        folder = Path(self._folder.name)
        unfinished = folder / f"{scan.sample_id}.xrdml.part"
        unfinished.write_text(text, encoding="utf-8-sig")
        unfinished.replace(folder / f"{scan.sample_id}.xrdml")

    # -- the interface -------------------------------------------------------------

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return the reply to the message they complete."""
        if data.startswith((b"@STATUS_REQUEST", b"@SAMPLE")):
            self._buffer = b""  # a new connection: the last one was given up
        self._buffer += data
        if not self._buffer.endswith(b"@END"):
            if len(self._buffer) > _LONGEST_MESSAGE:
                self._buffer = b""
            return []
        message, self._buffer = self._buffer, b""
        self._world.advance(time)
        reply = self._reply(message.decode("latin-1"), time)
        return [Answer(reply.encode("latin-1"), _THINKING_S)]

    def _reply(self, message: str, time: float) -> str:
        words = message.split("@")[1:-1]
        fields = dict(word.split("=", 1) for word in words if "=" in word)
        topic = "@".join(word for word in words[:2] if "=" not in word)
        try:
            if topic.startswith("STATUS_REQUEST"):
                return f"@STATUS@{self._status(words, fields)}@END"
            if topic.startswith("SAMPLE@"):
                done = self._handle(topic.removeprefix("SAMPLE@"), fields, time)
                return f"@{topic}@RESULT=normal@{done}@END"
            raise _Fatal("unknown message")
        except _Fatal as fatal:
            return f"@{topic}@RESULT=fatal@TEXT={str(fatal).replace('@', ' ')}@END"

    def _status(self, words: list[str], fields: Mapping[str, str]) -> str:
        if "SYSTEM" in words:
            return f"SYSTEM={'remote' if self._is_remote else 'local'}"
        if fields.get("UNIT") == "xrd":
            ready = "yes" if self._scan is None else "no"
            return f"UNIT=xrd@READY={ready}@SERIAL={self._serial_number}"
        if "LOCATION" in fields:
            number = _location(fields["LOCATION"])
            state = "occupied" if self._is_occupied(number) else "free"
            return f"LOCATION=0,{number}@STATE={state}"
        raise _Fatal("unknown status request")

    def _is_occupied(self, location: int) -> bool:
        return location == self._location and self._world.at(self._slot) is not None

    def _handle(self, verb: str, fields: Mapping[str, str], time: float) -> str:
        """Do what a SAMPLE message asks; return what to repeat in the reply."""
        if not self._is_remote:
            raise _Fatal("the system is not under remote control")
        if verb == "ADD":
            return self._add(fields)
        if verb == "MEASURE":
            return self._measure(fields, time)
        if verb == "REMOVE":
            return self._remove(fields)
        raise _Fatal(f"unknown sample message {verb}")

    def _add(self, fields: Mapping[str, str]) -> str:
        sample_id = fields.get("SAMPLE_ID", "")
        if _SAMPLE_ID.fullmatch(sample_id) is None:
            raise _Fatal("the sample id cannot be a file name")
        _Program.named(fields.get("APPLICATION", ""))
        location = _location(fields.get("AT", ""))
        if sample_id in self._samples:
            raise _Fatal(f"sample {sample_id} exists")
        if location in self._samples.values():
            raise _Fatal(f"location 0,{location} has a sample")
        if not self._is_occupied(location):
            raise _Fatal(f"location 0,{location} is free")
        self._samples[sample_id] = location
        return f"SAMPLE_ID={sample_id}"

    def _measure(self, fields: Mapping[str, str], time: float) -> str:
        sample_id = fields.get("SAMPLE_ID", "")
        if sample_id not in self._samples:
            raise _Fatal(f"there is no sample {sample_id}")
        if self._scan is not None:
            raise _Fatal("the diffractometer is not ready")
        program = _Program.named(fields.get("APPLICATION", ""))
        starts_at = time + self._load_s
        ends_at = starts_at + program.duration_s
        self._scan = _Scan(
            sample_id, program, starts_at, ends_at, ends_at + self._unload_s
        )
        return f"SAMPLE_ID={sample_id}"

    def _remove(self, fields: Mapping[str, str]) -> str:
        if "AT" in fields:
            location = _location(fields["AT"])
            known = [name for name, at in self._samples.items() if at == location]
        else:
            known = [name for name in self._samples if name == fields.get("SAMPLE_ID")]
        if not known:
            raise _Fatal("there is no such sample")
        if self._scan is not None and self._scan.sample_id in known:
            raise _Fatal(f"sample {known[0]} is being measured")
        del self._samples[known[0]]
        return f"SAMPLE_ID={known[0]}"


def _location(text: str) -> int:
    """Return n of a location ``0,n``.

    Raises:
        _Fatal: If it is none.
    """
    match = re.fullmatch(r"0,(\d)", text)
    number = 0 if match is None else int(match[1])
    if not 1 <= number <= _N_LOCATIONS:
        raise _Fatal(f"unknown location {text}")
    return number


def specimen_of(
    matter: Matter, rng: np.random.Generator, severity: float = 1.0
) -> Specimen:
    """Return *matter* as it lies in the holder, with all that nobody knows of it.

    Phases without a crystal structure at hand scatter as glass.
    """
    fractions = matter.weight_fractions()
    grains_um = {name: 2.0 * radius for name, radius in matter.radii_um.items()}
    crystalline = {name: x for name, x in fractions.items() if name in STRUCTURES}
    glassy = 1.0 - sum(crystalline.values())
    if not crystalline:
        return Specimen(amorphous_fraction=1.0)
    if glassy < 1e-9:
        return imperfect_specimen(
            crystalline, rng, severity=severity, grains_um=grains_um
        )
    return imperfect_specimen(
        crystalline,
        rng,
        severity=severity,
        amorphous_fraction=glassy,
        impurity_fraction=0.0,
        grains_um=grains_um,
    )


def scan_angles(start_deg: float, stop_deg: float) -> npt.NDArray[np.float64]:
    """Return the detector angles of a scan (n,) [deg].

    Step and offset are those of the real 10-100 scan, which has 8282 points.
    """
    first = start_deg + _FIRST_STEP_DEG
    span = stop_deg - _LAST_STEP_DEG - first
    n_steps = max(int(span / _STEP_DEG + 1e-6), 1)
    return first + _STEP_DEG * np.arange(n_steps + 1, dtype=np.float64)


def xrdml(
    sample_id: str,
    two_theta: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    seconds_per_step: float,
    *,
    instrument_id: str,
    started: str,
    ended: str,
) -> str:
    """Return a scan as the text of an XRDML 2.3 file, as the Aeris writes it."""
    first, last = float(two_theta[0]), float(two_theta[-1])
    namespace = "http://www.xrdml.com/XRDMeasurement/2.3"
    return f"""<?xml version="1.0"?>
<xrdMeasurements xmlns="{namespace}" \
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:schemaLocation="{namespace} {namespace}/XRDMeasurement.xsd" status="Completed">
	<comment>
		<entry/>
	</comment>
	<sample type="To be analyzed">
		<id>{escape(sample_id)}</id>
		<name></name>
		<preparedBy></preparedBy>
	</sample>
	<xrdMeasurement measurementType="Scan" status="Completed" sampleMode="Reflection">
		<usedWavelength intended="K-Alpha 1">
			<kAlpha1 unit="Angstrom">1.5405980</kAlpha1>
			<kAlpha2 unit="Angstrom">1.5444260</kAlpha2>
			<kBeta unit="Angstrom">1.3922500</kBeta>
			<ratioKAlpha2KAlpha1>0.5000</ratioKAlpha2KAlpha1>
		</usedWavelength>
		<incidentBeamPath>
			<radius unit="mm">145.00</radius>
			<xRayTube name="Empyrean Cu LFF HR (9430 033 7310x)">
				<tension unit="kV">40.0</tension>
				<current unit="mA">15.0</current>
				<anodeMaterial>Cu</anodeMaterial>
			</xRayTube>
			<sollerSlit name="Soller slits 0.04 rad.">
				<opening unit="rad">0.0400</opening>
			</sollerSlit>
		</incidentBeamPath>
		<sampleMovement xsi:type="spinningSampleMovementType">
			<spinnerRevolutionTime unit="seconds">1.0</spinnerRevolutionTime>
		</sampleMovement>
		<diffractedBeamPath>
			<radius unit="mm">145.00</radius>
			<filter name="Large beta-filter Nickel">
				<material>Ni</material>
				<thickness unit="mm">0.020</thickness>
			</filter>
			<detector name="PIXcel1D-Medipix3 detector" xsi:type="rtmsDetectorType">
				<mode>Scanning</mode>
				<activeLength unit="deg">5.542</activeLength>
			</detector>
		</diffractedBeamPath>
		<scan appendNumber="0" mode="Continuous" scanAxis="Gonio" status="Completed">
			<header>
				<startTimeStamp>{started}</startTimeStamp>
				<endTimeStamp>{ended}</endTimeStamp>
				<author>
					<name>AutomatedUser</name>
				</author>
				<source>
					<instrumentControlSoftware version="simulated">AERIS\
</instrumentControlSoftware>
					<instrumentID>{escape(instrument_id)}</instrumentID>
				</source>
			</header>
			<dataPoints>
				<positions axis="2Theta" unit="deg">
					<startPosition>{first:.8f}</startPosition>
					<endPosition>{last:.8f}</endPosition>
				</positions>
				<positions axis="Omega" unit="deg">
					<startPosition>{first / 2:.8f}</startPosition>
					<endPosition>{last / 2:.8f}</endPosition>
				</positions>
				<commonCountingTime unit="seconds">{seconds_per_step:.3f}\
</commonCountingTime>
				<counts unit="counts">{" ".join(map(str, counts.tolist()))}</counts>
			</dataPoints>
		</scan>
	</xrdMeasurement>
</xrdMeasurements>
"""
