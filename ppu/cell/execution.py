"""One execution of a protocol, from parameters to a directory of results."""

from __future__ import annotations

import json
import shutil
import traceback
import uuid
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from bluesky.utils import MsgGenerator

from ppu._version import __version__
from ppu.cell.lab import OpenLab
from ppu.cell.lab_events import LabEvents
from ppu.cell.making_safe import MadeSafe
from ppu.cell.ownership import Ownership
from ppu.core.capabilities import ReportsPower
from ppu.core.errors import ConfigurationError, InternalError, PPUError
from ppu.core.notices import tell
from ppu.engine.recorder import JobRecorder
from ppu.engine.runner import Runner
from ppu.exports.documents import export_documents
from ppu.exports.facts import JobFacts, PowerFacts, facts_of
from ppu.exports.report import build_report
from ppu.plans.protocol import ProtocolResult, RegisteredProtocol
from ppu.plans.report import RunRecord
from ppu.plans.steps import digest
from ppu.store.custody import declare
from ppu.store.documents import streams_of, units_of
from ppu.store.jobs import JobRequest, JobState
from ppu.store.queue import submit
from ppu.store.store import Store

__all__ = ["Execution"]

RESULT_SCHEMA_VERSION = 1
_FOR_GOOD_S: Final = 1e9
"""The store of a single run has no other owner to give way to."""


class Execution:
    """One execution of a protocol on an open lab.

    Args:
        lab: An open lab.
        protocol: What to run.
        asked: The parameters as the user gave them.
        out: Directory of its own for everything it leaves behind.
        job_id: Its number in the store of a cell that runs several; None if it is
            the only one of its lab, in a store of its own.
        runner: What runs its plan; by default the lab's first one.

    Raises:
        ConfigurationError: If a parameter is wrong; nothing moved.
    """

    def __init__(
        self,
        lab: OpenLab,
        protocol: RegisteredProtocol,
        asked: Mapping[str, Any],
        out: Path,
        *,
        job_id: int | None = None,
        runner: Runner | None = None,
    ) -> None:
        self.lab = lab
        self.runner: Runner = lab.host if runner is None else runner
        self.protocol = protocol
        self.parameters = protocol.parse(asked)
        self.out = out
        self.view = lab.view() if job_id is None else lab.new_view()
        self.has_started = False
        asked_fully = self.parameters.model_dump(mode="json")
        self.sample_id = (
            f"{protocol.name}-{digest([lab.file.lab, lab.seed, asked_fully])[:8]}"
        )
        if job_id is not None:
            self.sample_id = sample_of(protocol.name, job_id)
        elif lab.target == "hardware":
            # Two real samples are never the same; two runs of a twin are.
            self.sample_id += f"-{uuid.uuid4().hex[:6]}"

    def check(self) -> None:
        """Refuse what the lab does not allow; nothing moves.

        Raises:
            LimitError: If a limit, a capacity or the stock forbids it.
            InterlockError: If an instrument is busy with something else.
            ConfigurationError: If the lab lacks something.
        """
        self.check_parameters()
        self.lab.host.call(self._check_idle())

    def check_parameters(self) -> None:
        """Refuse what the lab does not allow; sends nothing.

        Raises:
            LimitError: If a limit, a capacity or the stock forbids it.
            ConfigurationError: If the lab lacks something.
        """
        if self.protocol.check is not None:
            self.protocol.check(self.view, self.parameters)

    async def _check_idle(self) -> None:
        for device in self.lab.devices.values():
            await device.check_idle()

    def run(self, elapsed: Callable[[], float]) -> dict[str, Any]:
        """Run the protocol; return and write its result.

        Args:
            elapsed: Wall time since the command began [s].

        Raises:
            ConfigurationError: If the results cannot be kept; nothing moved.
            PPUError: What went wrong; the devices are in their abort states.
        """
        path = self.out / "store.sqlite"
        if path.exists():
            raise ConfigurationError(
                f"{self.out} holds a run already; name another directory"
            )
        self.make_out()
        with Store(path) as store:
            return self._run_kept(store, elapsed)

    def _run_kept(self, store: Store, elapsed: Callable[[], float]) -> dict[str, Any]:
        """Run the protocol, with everything kept in *store*."""
        host = self.lab.host
        request = JobRequest(
            self.protocol.name,
            self.protocol.version,
            self.parameters.model_dump(mode="json"),
        )
        now = host.loop.stamp()
        # The lab may have been used before: it is not as its file says any more.
        believed = self.lab.ledger
        store.write(partial(declare, file=self.lab.file, now=now, believed=believed))
        store.write(partial(submit, wanted=request, now=now))
        owner = Ownership(store, self.lab.file, host.loop, lease_s=_FOR_GOOD_S)
        job = host.call(owner.claim())
        assert job is not None  # noqa: S101 - it is the only one
        host.call(owner.change(job.id, JobState.RUNNING))
        events = LabEvents(owner, self.lab.bench, lambda _: (job.id,), host.loop)
        keep_incidents = events.keep_incidents
        recorder = owner.recorder(job, before_end=keep_incidents)
        made: list[MadeSafe] = []

        def keep_made_safe() -> None:
            while made:
                host.call(events.keep_made_safe(made.pop(0), job.id))

        try:
            typed = self.lab.run(self.plan(), recorder, on_made_safe=made.append)
            keep_made_safe()
            host.call(recorder.flush_documents())
            host.call(owner.change(job.id, JobState.FINISHING))
            host.call(keep_incidents())
            result = self.finish(typed, recorder, elapsed)
            host.call(owner.succeed(job, result))
        except Exception as exc:
            self._keep_documents(recorder)
            host.call(keep_incidents())
            keep_made_safe()
            host.call(owner.fail(job, exc))
            if isinstance(exc, PPUError):
                raise
            raise explained(self.protocol, exc) from exc
        finally:
            self.lab.ledger.let_go(self.sample_id)
            owner.end("the run has ended")
        return result

    def _keep_documents(self, recorder: JobRecorder) -> None:
        """Write what there is of a failed run, if it can be written.

        The error that ended the run matters more than a full disk.
        """
        try:
            self.lab.host.call(recorder.flush_documents())
            export_documents(
                recorder.store, recorder.job_id, self.out / "documents.jsonl"
            )
        except PPUError as exc:
            tell(f"the documents of this run could not be written: {exc}")

    def plan(self) -> MsgGenerator[ProtocolResult]:
        """Return the protocol's plan inside a run, which returns its typed result."""
        metadata = {
            "plan_name": self.protocol.name,
            "protocol": self.protocol.name,
            "protocol_version": self.protocol.version,
            "ppu_version": __version__,
            "lab": self.lab.file.lab,
            "target": self.lab.target,
            "simulated": self.lab.is_simulated,
            "sample_id": self.sample_id,
            "lab_devices": self._devices(self.lab.devices),
            "parameters": self.parameters.model_dump(mode="json"),
        }
        self.view.sample_id = self.sample_id
        self.has_started = True
        return self.runner.in_run(self.protocol(self.view, self.parameters), metadata)

    def make_out(self) -> None:
        """Make the directory for what the run leaves behind.

        Raises:
            ConfigurationError: If that is not possible.
        """
        make_directory(self.out)

    def finish(
        self, typed: Any, recorder: JobRecorder, elapsed: Callable[[], float]
    ) -> dict[str, Any]:
        """Write the result, the report and all else; return the result.

        Raises:
            ConfigurationError: If it is not what the protocol declares, or cannot be
                written.
        """
        if not isinstance(typed, self.protocol.result):
            raise ConfigurationError(
                f"protocol {self.protocol.name} returned a {type(typed).__name__}, "
                f"not the {self.protocol.result.__name__} it declares"
            )
        facts = self._facts(recorder)
        result = self._assemble(typed, facts)
        self._write(result, typed, recorder, elapsed, facts)
        return result

    def _devices(self, names: Collection[str]) -> dict[str, dict[str, str | None]]:
        """Return who devices are: driver, maker, model, serial number and firmware."""
        return {
            name: {
                "driver": self.lab.file.devices[name].driver,
                "maker": device.facts.maker,
                "model": device.facts.model,
                **device.who(),
            }
            for name, device in self.lab.devices.items()
            if name in names
        }

    def _facts(self, recorder: JobRecorder) -> JobFacts:
        """Return what was this job's own in the lab."""
        heating = {
            name: device.plan_device
            for name, device in self.lab.devices.items()
            if isinstance(device.plan_device, ReportsPower)
        }
        powers = {
            name: PowerFacts(device.output_key, device.rated_power_w)
            for name, device in heating.items()
        }
        now = self.lab.host.loop.stamp()
        with recorder.store.read() as connection:
            return facts_of(connection, recorder.job_id, now, powers)

    def _assemble(self, typed: ProtocolResult, facts: JobFacts) -> dict[str, Any]:
        content = typed.model_dump(mode="json")
        asked = self.parameters.model_dump(mode="json")
        actual = content.pop("parameters_actual")
        silent = [name for name in asked if name not in actual]
        files = {"documents": "documents.jsonl", "report": "report.html"}
        for what, path in typed.attachments.items():
            files[what] = path.name
        return {
            "schema_version": RESULT_SCHEMA_VERSION,
            "protocol": self.protocol.name,
            "protocol_version": self.protocol.version,
            "ppu_version": __version__,
            "lab": self.lab.file.lab,
            "devices": self._devices({*facts.devices, *self.runner.used}),
            "target": self.lab.target,
            "simulated": self.lab.is_simulated,
            "seed": self.lab.seed if self.lab.target == "twin" else None,
            "parameters_asked": asked,
            "parameters_actual": actual | dict.fromkeys(silent),
            "parameters_not_reported": silent,
            **content,
            "summary": typed.summary(),
            **facts.plain(self.lab.host.loop.epoch),
            "wall_time_s": 0.0,
            "run_time_s": self.runner.timing.run_time_s,
            "files": files,
        }

    def _write(
        self,
        result: dict[str, Any],
        typed: ProtocolResult,
        recorder: JobRecorder,
        elapsed: Callable[[], float],
        facts: JobFacts,
    ) -> None:
        export_documents(recorder.store, recorder.job_id, self.out / "documents.jsonl")
        for path in typed.attachments.values():
            shutil.copyfile(path, self.out / path.name)
        record = self._record(result, typed, recorder, facts)
        sections = [] if self.protocol.report is None else self.protocol.report(record)
        write_whole(self.out / "report.html", build_report(record, sections))
        result["wall_time_s"] = elapsed()
        write_whole(self.out / "result.json", json.dumps(result, indent=2) + "\n")

    def _record(
        self,
        result: dict[str, Any],
        typed: ProtocolResult,
        recorder: JobRecorder,
        facts: JobFacts,
    ) -> RunRecord:
        """Return all that the run left behind."""
        loop = self.lab.host.loop
        with recorder.store.read() as connection:
            samples = streams_of(connection, recorder.job_id)
            units = units_of(connection, recorder.job_id)
            for job_id in {job for firing in facts.firings for job in firing.jobs}:
                units = units_of(connection, job_id) | units
        for number, firing in enumerate(facts.firings, 1):
            # Whoever only shares a firing has sampled nothing of it.
            if not any(firing.samples.keys() <= one.keys() for one in samples.values()):
                samples[f"firing {number}"] = {
                    key: list(values) for key, values in firing.samples.items()
                }
        return RunRecord(
            result=result,
            steps=list(self.runner.steps),
            samples=samples,
            units=units,
            truth=self._truth(facts),
            protocol_result=typed,
            started_s=facts.began - loop.epoch,
            epoch=loop.epoch,
        )

    def _truth(self, facts: JobFacts) -> dict[str, Any]:
        """Return what a twin knows of this job's sample and no instrument can."""
        loop, bench = self.lab.host.loop, self.lab.bench
        if bench is None:
            return {}
        curves = bench.world.truth(loop.time()).get("sample_curves", {})
        rows = []
        for firing in facts.firings:
            began, *_, ended = [time - loop.epoch for time in firing.samples["time"]]
            curve = curves.get(firing.furnace, {"time_s": [], "temperature_degc": []})
            whole = zip(curve["time_s"], curve["temperature_degc"], strict=True)
            rows += [(time, degc) for time, degc in whole if began <= time <= ended]
        own = {
            "time_s": [time for time, _ in rows],
            "temperature_degc": [degc for _, degc in rows],
        }
        return {"sample_curve": own}

    def whereabouts(self) -> list[str]:
        """Return where the containers are that were used, for people to find them."""
        beliefs = self.view.beliefs()
        told = []
        for container in filter(self.view.is_used, self.lab.file.containers):
            place, home = beliefs[container], self.view.home_of(container)
            if place is None:
                told.append(
                    f"nobody knows where {container} is: look for it and carry it to "
                    f"{home} before the next run"
                )
                continue
            hint = f"; carry it to {home} before the next run" if place != home else ""
            told.append(f"{container} is at {place}{hint}")
        return [*told, f"what there is of this run: {self.out}"]


def sample_of(protocol: str, job_id: int) -> str:
    """Return the identity of the sample that a job of a cell makes."""
    return f"{protocol}-{job_id}"


def make_directory(path: Path) -> None:
    """Make *path* and what is above it.

    Raises:
        ConfigurationError: If that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigurationError(f"cannot write to {path}: {exc.strerror}") from exc


def write_whole(path: Path, text: str) -> None:
    """Write *text* to *path* completely or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def explained(protocol: RegisteredProtocol, exc: BaseException) -> InternalError:
    """Return what to tell of an error that a protocol's author did not foresee."""
    # Whatever went wrong, the furnace must not stay on.
    place = traceback.extract_tb(exc.__traceback__)[-1]
    return InternalError(
        f"protocol {protocol.name} failed in {place.name} ({place.filename} line "
        f"{place.lineno}): {type(exc).__name__}: {exc}"
    )
