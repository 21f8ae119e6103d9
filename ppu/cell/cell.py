"""The cell: the only owner of a lab's instruments, which runs the jobs of its queue."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, select

from ppu.cell.execution import Execution, explained
from ppu.cell.heartbeat import Heartbeat
from ppu.cell.lab import OpenLab
from ppu.cell.ownership import Ownership
from ppu.cell.predecessor import outlive
from ppu.core.capabilities import GasFlow
from ppu.core.errors import (
    AbortedError,
    ConfigurationError,
    ConflictError,
    DivergedError,
    NotFoundError,
    PPUError,
    StaleTokenError,
    StoreBusyError,
    StoreDiskError,
    StoreError,
)
from ppu.core.labtime import stopwatch
from ppu.core.notices import tell
from ppu.core.remedies import Advice, plain_advice
from ppu.core.simulation import ActRefusedError
from ppu.devices.build import driver_class
from ppu.engine.recorder import JobRecorder
from ppu.engine.reservations import PERSON, UNSAFE, Claimant
from ppu.engine.runner import Runner, cause_of
from ppu.plans.lab import Lab
from ppu.plans.protocol import RegisteredProtocol, find_protocol
from ppu.plans.seats import Seat
from ppu.plans.steps import Decision, Evidence, Failed, Needs, StepRecord, restored_as
from ppu.store import commands
from ppu.store.cells import LEASE_S, allow_heat
from ppu.store.custody import (
    check_correction,
    check_release,
    correct_location,
    release_sample,
)
from ppu.store.documents import close_open_runs
from ppu.store.events import EventKind, announce
from ppu.store.jobs import Job, JobState
from ppu.store.requests import (
    Abort,
    AllowHeat,
    Answer,
    Cancel,
    CorrectStock,
    Drain,
    MoveContainer,
    Refill,
    ReleaseSample,
    UnknownRequest,
)
from ppu.store.schema import jobs
from ppu.store.steps import (
    SETTLING_ANSWERS,
    Step,
    StepState,
    ask_step,
    questions,
    steps_of,
)
from ppu.store.stock import correct_stock, refill
from ppu.store.store import Store
from ppu.store.wake import WakeSocket

__all__ = ["Cell"]

T = TypeVar("T")

_POLL_S: Final = 1.0
"""How often the store is looked at though nobody said so (real time) [s]."""
_FOR_GOOD_S: Final = 1e9
_NOTHING: Final = ("", "")
"""What is said of a job that runs as it should."""
_MOVE: Final = "ppu samples --move"
_N_SPARE: Final = 4
"""Threads beside those of the jobs, for what is short."""
_DRAIN_S: Final = 60.0
"""How long a cell without a guard lets motion end (real time) [s]."""


@dataclass
class _Question:
    """What a job asks a person."""

    allowed: Sequence[str]
    answer: asyncio.Future[dict[str, Any]]


@dataclass
class _Running:
    """A job that runs here, and what people want of it."""

    cell: Cell
    job: Job
    who: Claimant
    runner: Runner
    state: JobState
    is_held: bool = False
    stopped_by: str = ""
    is_waiting: bool = False
    is_ending_badly: bool = False
    questions: dict[str, _Question] = field(default_factory=dict)
    claimed: set[str] = field(default_factory=set)
    heard: set[int] = field(default_factory=set)
    """Requests that it acts on and that are handled when it has."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    left_acting: dict[str, frozenset[str]] = field(default_factory=dict)
    """Devices that an earlier process may have left acting for it, by step."""

    async def be(self, state: JobState, **more: Any) -> None:
        """Note the job's state, if it is another one."""
        if state is not self.state:
            await self.cell.owner.change(self.job.id, state, **more)
            self.state = state

    async def wait(self) -> None:
        """Wait until somebody wants something else than when `changed` was cleared."""
        self.is_waiting = True
        self.cell.wake()  # it may be drained now
        try:
            await self.changed.wait()
        finally:
            self.is_waiting = False

    # -- the gate of its steps -----------------------------------------------------

    async def pass_step(self, step: StepRecord, needs: Needs, *, goes_on: bool) -> None:
        """Wait until the job may go on with its next step.

        What was under way is not begun but joined, or a person is asked; a hold comes
        after it.

        Raises:
            AbortedError: If it was cancelled.
        """
        while True:
            self.changed.clear()  # first: what is said from now on is not missed
            if self.stopped_by:
                raise AbortedError(self.stopped_by)
            if self.cell.lets_nothing_begin:
                await self.wait()
            elif self.is_held and not goes_on:
                reason = ("held", f"held before step {step.label}")
                await self.be(JobState.PAUSED, reason=reason)
                await self.cell.hold_devices(self.who)
                await self.wait()
            elif (hot := needs.names & self.cell.heaters) and not (
                self.cell.may_heat or (goes_on and step.kind != "repeatable")
            ):
                names = ", ".join(sorted(hot))
                reason = (
                    "restart",
                    f"the cell was restarted; {names} is not heated before a person "
                    "agrees: `ppu recover --may-heat`",
                )
                if self.state is not JobState.NEEDS_INPUT:
                    tell(f"job {self.job.id} waits: {reason[1]}")
                await self.be(JobState.NEEDS_INPUT, reason=reason)
                await self.wait()
            else:
                await self.be(JobState.RUNNING, reason=_NOTHING)
                return

    async def decide(self, path: str, step: StepRecord, failed: Failed) -> Decision:
        """Ask a person what becomes of a failed step."""
        answers = ["retry", "abort"]
        answers += ["skip"] if failed.can_skip else []
        answers += ["park"] if failed.can_park else []
        question = f"step {step.label} failed: {cause_of(failed.error)}"
        cell = self.cell
        await cell.owner.write(
            partial(
                ask_step,
                job_id=self.job.id,
                path=path,
                question=question,
                answers=answers,
                token=cell.owner.token,
                now=cell.lab.host.loop.stamp(),
            )
        )
        return await self.ask(path, question, answers)

    async def ask(self, path: str, question: str, answers: Sequence[str]) -> Decision:
        """Ask a person what becomes of a failed step."""
        answer = await self._ask(path, question, answers)
        if answer["answer"] == "abort":
            return "raise"
        decision: Decision = answer["answer"]
        return decision

    async def settle(self, path: str, found: Evidence) -> Evidence:
        """Ask a person whether a step has happened."""
        answer = await self._ask(path, found.text, SETTLING_ANSWERS)
        if answer["answer"] == "abort":
            raise AbortedError(f"abort: by {answer['by']}")
        text = f"{answer['by']}: {answer.get('note') or answer['answer']}"
        return Evidence(answer["answer"] == "happened", text, found.result)

    async def _ask(
        self, path: str, question: str, allowed: Sequence[str]
    ) -> dict[str, Any]:
        """Wait for one of the *allowed* answers, which may be there already.

        Raises:
            AbortedError: If the job was cancelled.
        """
        if self.stopped_by:
            raise AbortedError(self.stopped_by)
        await self.be(JobState.NEEDS_INPUT, reason=("question", question))
        tell(f"job {self.job.id} asks: {question} (see `ppu recover`)")
        loop = self.cell.lab.host.loop
        asked = self.questions[path] = _Question(allowed, loop.create_future())
        self.cell.wake()
        try:
            answer = await asked.answer
        finally:
            del self.questions[path]
        await self.be(JobState.RUNNING, reason=_NOTHING)
        return answer


class Cell:
    """Runs the jobs of a store on an open lab, several at once.

    Args:
        lab: A lab, not connected yet.
        store: The store, which no other cell owns.
        results: Directory in which each job gets one of its own.
        lease_s: How long the cell is trusted with its jobs unless it renews (real
            time) [s].
        may_heat: Whether furnaces may be heated after a crash without a person's word.
        is_patient: Whether jobs of a jumping twin wait for ever for what only people
            can do, and time stands still; otherwise it jumps to the end of their
            patience.
        find: Returns the protocol of a name; by default one of the installed ones.
    """

    def __init__(
        self,
        lab: OpenLab,
        store: Store,
        results: Path,
        *,
        lease_s: float = LEASE_S,
        may_heat: bool = False,
        is_patient: bool = False,
        find: Callable[[str], RegisteredProtocol] = find_protocol,
    ) -> None:
        self._find = find
        self.lab = lab
        self.store = store
        self.results = results
        self.may_heat = may_heat
        if is_patient and lab.host.loop.is_jumping:
            lab.resources.be_patient()
        self.is_draining = False
        self.was_left_alone = False
        """Whether it ends because its guard is dead."""
        self.heaters = frozenset(
            name
            for name, entry in lab.file.devices.items()
            if driver_class(name, entry).heats
        )
        loop = lab.host.loop
        # A jumping twin needs no lease: it shares its instruments with nobody.
        self._lease_s = _FOR_GOOD_S if loop.is_jumping else loop.wire_seconds(lease_s)
        self._running: dict[int, _Running] = {}
        self._insisting: set[asyncio.Task[None]] = set()
        self._idle_runners: list[Runner] = [lab.host]
        self._woken = asyncio.Event()
        self._starting = asyncio.Lock()
        self._executor: ThreadPoolExecutor
        """A thread for each job, and some for what is short; made in `owning`."""
        self._owner: Ownership | None = None
        self._fault: PPUError | None = None
        self._is_leaving = False
        self._is_disk_told = False

    @property
    def owner(self) -> Ownership:
        """What makes this cell the one that may act."""
        assert self._owner is not None  # noqa: S101 - made in `owning`
        return self._owner

    def wake(self) -> None:
        """Look at the store; on the loop."""
        self._woken.set()

    @property
    def lets_nothing_begin(self) -> bool:
        """Whether no further step may begin."""
        return self.is_draining or self._is_leaving

    def _withdraw_all(self) -> None:
        """Let whoever waits for devices wait at its step instead."""
        for running in self._running.values():
            self.lab.resources.reservations.withdraw(running.who)

    def drain(self) -> None:
        """Let no further step begin, and end when what cannot wait is done."""
        self.is_draining = True
        self._withdraw_all()
        self._tell_all()
        self.wake()

    def leave(self) -> None:
        """End now, whatever is under way; on the loop."""
        self.is_draining = True
        self._is_leaving = True
        self._withdraw_all()
        self.wake()

    def allow_heat(self) -> None:
        """Let furnaces be heated again after a crash: a person agreed."""
        self.may_heat = True
        self._tell_all()

    def _tell_all(self) -> None:
        for running in self._running.values():
            running.changed.set()

    # -- owning --------------------------------------------------------------------

    @contextlib.contextmanager
    def owning(self) -> Iterator[None]:
        """Own the store and the instruments while the block runs; not on the loop.

        Raises:
            StoreBusyError: If another cell owns the store.
            StaleTokenError: If another one took it while an earlier one was outlived.
            ConnectError: If an instrument is absent or is a stranger.
        """
        with self.store.own():
            if self.lab.bench is None:  # a twin shares its instruments with nobody
                self.lab.host.call(outlive(self.store))
            self.lab.connect()
            self._owner = Ownership(
                self.store, self.lab.file, self.lab.host.loop, lease_s=self._lease_s
            )
            self._executor = self._make_executor(self._owner)
            self.may_heat = self.may_heat or self._owner.was_clean
            self.lab.books.become(self._owner.books())
            for device in self.lab.devices.values():
                device.permit_writes(self._owner.require_trust)
            self.lab.resources.on_wait = self._note_wait
            is_sound = False
            try:
                yield
                is_sound = True
            finally:
                self._executor.shutdown()
                if self._owner.is_trusted:
                    how = "its cell drained" if self.is_draining else "its cell ended"
                    # If it cannot be kept, the next cell takes it for a crash.
                    with contextlib.suppress(StaleTokenError, StoreError):
                        self._owner.end(how, is_sound=is_sound)

    def _make_executor(self, owner: Ownership) -> ThreadPoolExecutor:
        """Return one with a thread for each job, though more are adopted than begun."""
        n_jobs = max(2 * self.lab.file.scheduling.jobs_at_once, len(owner.lost()))
        return ThreadPoolExecutor(n_jobs + _N_SPARE, thread_name_prefix="job")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Be woken by whoever writes to the store while the block runs."""
        loop = self.lab.host.loop
        ears = WakeSocket(self.store.where)
        ears.start(loop, self.wake)
        try:
            yield
        finally:
            ears.close()

    @contextlib.contextmanager
    def guarded_by(self, end: socket.socket) -> Iterator[None]:
        """Exchange heartbeats with a guard while the block runs.

        A cell whose guard has died drains: nobody would see to the instruments if it
        died, too.

        Args:
            end: This process's end of a pair of sockets.
        """
        loop = self.lab.host.loop

        def mourn(what: str) -> None:
            tell(f"the guard is dead ({what}): draining")
            self.was_left_alone = True
            self.drain()
            loop.call_later(loop.wire_seconds(_DRAIN_S), self.leave)

        heartbeat = Heartbeat(loop, end, mourn)
        loop.call_soon_threadsafe(heartbeat.start)
        try:
            yield
        finally:
            self.lab.host.call(heartbeat.stop())

    def run(self, *, until_idle: bool = False) -> None:
        """Run jobs until :meth:`drain`, or until none waits; not on the loop.

        Raises:
            StaleTokenError: If another cell has taken over.
            StoreError: If the store cannot be read.
        """
        self.lab.host.call(self.arun(until_idle=until_idle))

    async def arun(self, *, until_idle: bool = False) -> None:
        """Run jobs, as :meth:`run` does; on the loop."""
        keeper = None
        if not self.lab.host.loop.is_jumping:
            keeper = asyncio.create_task(self._keep_lease())
        try:
            await self._recover()
            await self._serve(until_idle=until_idle)
        finally:
            if keeper is not None:
                keeper.cancel()
            # Whoever ends gives back what others wait for: they must not begin now.
            self._is_leaving = True
            self._withdraw_all()
            tasks = [r.task for r in self._running.values() if r.task is not None]
            tasks += self._insisting
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, *, until_idle: bool) -> None:
        while True:
            self._woken.clear()
            await self._obey()
            if not self.is_draining:
                await self._claim()
            if self._fault is not None:
                raise self._fault
            is_idle = not self._running
            if is_idle and (until_idle or self.is_draining):
                return
            if self._is_drained() or self._is_leaving:
                return
            waiting = self.lab.resources.empties.waiting
            if until_idle and waiting >= self._running.keys():
                tell(
                    "only empty containers are waited for: release samples with "
                    "'ppu samples --release SAMPLE', then start a cell again"
                )
                return
            await self._wait()

    async def _wait(self) -> None:
        """Wait until something has changed; look now and then where time flows."""
        loop = self.lab.host.loop
        if loop.is_jumping:
            await self._woken.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(loop.wire_seconds(_POLL_S)):
                await self._woken.wait()

    def _is_drained(self) -> bool:
        """Return whether every job waits at a step, or for what goes on without us."""
        if not self.is_draining:
            return False
        return all(
            running.is_waiting
            or running.questions
            or running.job.id in self.lab.resources.waits
            or running.runner.may_be_left
            for running in self._running.values()
        )

    async def _keep_lease(self) -> None:
        """Renew the lease in time, or end everything."""
        loop = self.lab.host.loop
        while True:
            await asyncio.sleep(self._lease_s / 4)
            try:
                await self.owner.renew()
            except (StaleTokenError, StoreError) as exc:
                tell(f"the lease could not be renewed: {exc}")
                if isinstance(exc, StaleTokenError) or not self.owner.is_trusted:
                    self._fault = exc
                    self.wake()
                    return
                await asyncio.sleep(loop.wire_seconds(_POLL_S))

    # -- what people want ----------------------------------------------------------

    async def _obey(self) -> None:
        """Do what people ask for in the store."""
        mine = list(self._running)

        def look(connection: Connection) -> tuple[list[commands.Command], set[int]]:
            query = select(jobs.c.id).where(jobs.c.id.in_(mine), jobs.c.is_held)
            held = set(connection.execute(query).scalars()) if mine else set()
            return commands.waiting(connection), held

        try:
            asked, held = await self.store.aread(look)
        except (StoreBusyError, StoreDiskError) as exc:
            tell(f"the store could not be read, and is tried again: {exc}")
            loop = self.lab.host.loop
            loop.call_later(loop.wire_seconds(_POLL_S), self.wake)
            return
        for running in list(self._running.values()):
            is_held = running.job.id in held
            if is_held is not running.is_held:
                running.is_held = is_held
                running.changed.set()
                if is_held:  # whoever waits for devices waits at its step instead
                    self.lab.resources.reservations.withdraw(running.who)
        for command in asked:
            try:
                outcome = await self._do(command)
                advice: tuple[Advice, ...] = ()
            except (ConfigurationError, NotFoundError, ConflictError) as exc:
                outcome, advice = f"{commands.REFUSED}{exc}", exc.advice
            if outcome is not None:
                # If its job has ended meanwhile, that was the answer.
                with contextlib.suppress(NotFoundError):
                    await self.owner.write(self._handled(command, outcome, advice))

    def _handled(
        self, command: commands.Command, outcome: str, advice: Iterable[Advice] = ()
    ) -> Callable[[Connection], None]:
        """Return what keeps that *command* is handled."""
        return partial(
            commands.settle,
            sequence=command.sequence,
            outcome=outcome,
            now=self.lab.host.loop.stamp(),
            advice=advice,
        )

    async def _do(self, command: commands.Command) -> str | None:
        """Do what is asked.

        Returns:
            What came of it; None if that is kept with its effect, now or later.

        Raises:
            ConfigurationError: If it cannot be done; nothing was.
        """
        wanted = command.request
        if isinstance(wanted, UnknownRequest):
            raise ConfigurationError(wanted.why)
        if isinstance(wanted, AllowHeat):
            return await self._let_heat(command)
        if isinstance(wanted, Drain):
            return self._drain_if_meant(command)
        if not isinstance(wanted, Answer | Cancel | Abort):
            await self._do_in_lab(command, wanted)
            return None
        running = self._running.get(command.job_id or 0)
        if running is None:
            return f"job {command.job_id} does not run here"
        if isinstance(wanted, Answer):
            return self._answer(running, command, wanted)
        await self._stop(running, command, wanted)
        return None

    def _drain_if_meant(self, command: commands.Command) -> str:
        """Drain, if that was said of this cell."""
        if command.asked < self.owner.started:
            return f"{commands.REFUSED}it was said before this cell began"
        tell(f"{command.by} asks the cell to end: draining")
        self.drain()
        return "draining"

    @staticmethod
    def _answer(
        running: _Running, command: commands.Command, wanted: Answer
    ) -> str | None:
        """Hand an answer to the job; the step that acts on it says that it is handled.

        If it asks nothing now, it may soon: one that is run again is on its way there.
        """
        question = running.questions.get(wanted.path)
        is_heard = command.sequence in running.heard
        if is_heard or question is None or question.answer.done():
            return None
        if wanted.answer not in question.allowed:
            said = wanted.answer
            return f"{commands.REFUSED}{said} is none of {', '.join(question.allowed)}"
        running.heard.add(command.sequence)
        question.answer.set_result({**command.content, "by": command.by})
        return None

    async def _stop(
        self, running: _Running, command: commands.Command, wanted: Cancel | Abort
    ) -> None:
        """Cancel or abort a job, again if it waits anew; its end says it is handled."""
        given = wanted.reason if isinstance(wanted, Abort) else ""
        why = given or f"by {command.by}"
        reason = f"{command.command}: {why}"
        running.stopped_by = running.stopped_by or reason
        running.changed.set()
        self.lab.resources.reservations.withdraw(running.who)
        self.lab.resources.empties.give_up(running.who, reason)
        for question in running.questions.values():
            if not question.answer.done():
                question.answer.set_exception(AbortedError(reason))
        if isinstance(wanted, Abort) and command.sequence not in running.heard:
            running.heard.add(command.sequence)
            loop = self.lab.host.loop
            # The engine waits for the loop to take note: not from the loop itself.
            abort = partial(running.runner.abort, reason)
            with loop.hold("a job is aborted"):
                await loop.run_in_executor(self._executor, abort)

    async def _let_heat(self, command: commands.Command) -> str | None:
        """Let furnaces be heated again, if it was said of this cell."""
        if command.asked < self.owner.started:
            return f"{commands.REFUSED}it was said before this cell began; look again"
        handle = self._handled(command, "furnaces may be heated")

        def allow(connection: Connection) -> None:
            allow_heat(connection)
            handle(connection)

        await self.owner.write(allow)
        self.allow_heat()
        return None

    async def _do_in_lab(
        self,
        command: commands.Command,
        wanted: ReleaseSample | MoveContainer | Refill | CorrectStock,
    ) -> None:
        """Do what is asked of samples, containers and stock.

        That it was done is kept with what was done: it is not done twice.
        """
        books = self.lab.books
        if isinstance(wanted, ReleaseSample):
            check = partial(check_release, sample=wanted.sample)
            for container in await self.owner.write(check):
                empty = self._hand("empty", f"{_MOVE} {container}=LOCATION")
                empty(container)
            release = partial(release_sample, sample=wanted.sample)
            for container in await self._keep(command, release):
                books.release(container)
        elif isinstance(wanted, Refill):
            add = self._hand("refill", "ppu stock")
            await self._keep(command, partial(refill, **wanted.content))
            books.refill(wanted.powder, wanted.mass_g)
            try:  # not before it is kept: it would be added again
                add(wanted.powder, wanted.mass_g)
            except ConfigurationError as exc:
                tell(str(exc))
        elif isinstance(wanted, CorrectStock):
            correct = partial(correct_stock, **wanted.content)
            more_g = await self._keep(command, correct)
            # Not what was said: a step under way may have used some of it meanwhile,
            # which the store learns at its end.
            books.refill(wanted.powder, more_g)
        else:
            await self._correct_location(command, wanted)
        self.lab.resources.changed()

    def _hand(self, act: str, remedy: str) -> Callable[..., None]:
        """Return what does an act in the cell's own twin: nobody else has hands there.

        Args:
            act: What a person says was done: ``carry``, ``empty`` or ``refill``.
            remedy: Command that helps if the twin refuses.

        Returns:
            What does it, or raises ConfigurationError if it cannot be; does nothing
            without a bench of the cell's own.

        Raises:
            ConfigurationError: If the world of the twin knows no such act.
        """
        if self.lab.bench is None:
            return lambda *_: None
        world = self.lab.bench.world
        known: Callable[..., None] | None = getattr(world, act, None)
        if known is None:
            raise ConfigurationError(
                f"the twin's world {type(world).__name__} has no {act}() for what "
                "people do, which ppu.core.simulation.SimulatedWorld describes; add it"
            )

        def lend(*arguments: Any) -> None:
            try:
                known(self.lab.host.loop.time(), *arguments)
            except ActRefusedError as exc:
                raise ConfigurationError(
                    f"this cannot be done in the cell's twin: {exc} ({remedy})"
                ) from exc

        return lend

    async def _correct_location(
        self, command: commands.Command, wanted: MoveContainer
    ) -> None:
        """Believe what a person says of a container, unless a job is at work there."""
        container, location = wanted.container, wanted.location
        books, reservations = self.lab.books, self.lab.resources.reservations
        at_work = {
            place: reservations.owners_of(place)
            for place in (location, books.places.get(container, location))
        }
        said: dict[str, Any] = {**wanted.content, "at_work": at_work}
        check = partial(check_correction, **said)
        correct = partial(correct_location, **said)
        carry = self._hand("carry", f"{_MOVE} CONTAINER=LOCATION")
        if not at_work[location]:
            reservations.share(location, {PERSON.id})  # no step gets it meanwhile
        try:
            await self.owner.write(check)
            carry(container, location)
            await self._keep(command, correct)
            books.correct(container, location)
        finally:
            reservations.give_back(PERSON, [location])

    async def _keep(self, command: commands.Command, work: Callable[..., T]) -> T:
        """Keep what a person's request changes, and that it was seen to."""
        now, handle = self.lab.host.loop.stamp(), self._handled(command, "done")

        def kept(connection: Connection) -> T:
            result = work(connection, by=command.by, now=now)
            handle(connection)
            return result

        return await self.owner.write(kept)

    async def hold_devices(self, who: Claimant) -> None:
        """Bring what a held job has for itself alone into its declared hold."""
        for name in self._sole_devices(who):
            try:
                text = await self.lab.devices[name].go_to_hold_state()
            except PPUError as exc:
                text = f"{name}: NOT in its hold state: {exc}"
            if text:
                tell(text)

    def _sole_devices(self, who: Claimant) -> list[str]:
        """Return the devices that *who* has and that nobody else goes on with.

        Of jobs that share one and end badly at the same moment, the last to do so has
        it to itself.
        """
        reservations = self.lab.resources.reservations
        ending = {n for n, other in self._running.items() if other.is_ending_badly}
        return [
            name
            for name in reservations.held_by(who)
            if name in self.lab.devices
            and reservations.owners_of(name) - ending <= {who.id}
        ]

    def _note_wait(self, job_id: int, text: str, *advice: Advice) -> None:
        """Keep what a job waits for, so that people can see it."""
        if job_id in self.lab.resources.empties.waiting:
            self.wake()  # perhaps nothing else is left to wait for
        if job_id > 0:
            now = self.lab.host.loop.stamp()
            self.store.submit(
                partial(
                    announce,
                    kind=EventKind.WAIT,
                    content={"for": text, "advice": plain_advice(advice)},
                    now=now,
                    job_id=job_id,
                )
            )

    # -- jobs ----------------------------------------------------------------------

    async def _claim(self) -> None:
        """Start what is next, as long as there is room."""
        while self._has_room():
            try:
                self.store.check_room()
            except StoreDiskError as exc:
                if not self._is_disk_told:
                    tell(f"no job is begun: {exc}")
                self._is_disk_told = True
                return
            self._is_disk_told = False
            job = await self.owner.claim()
            if job is None:
                return
            self._start(await self._new(job), is_adopted=False)

    def _has_room(self) -> bool:
        """Return whether another job may begin.

        Those that wait for an empty container keep nobody from work, up to a number.
        """
        n_most = self.lab.file.scheduling.jobs_at_once
        n_waiting = len(self.lab.resources.empties.waiting)
        return len(self._running) < n_most + min(n_waiting, n_most)

    async def _recover(self) -> None:
        """Go on with the jobs of a cell that has ended."""
        found = [self.owner.adopt(job.id) for job in self.owner.lost()]
        adopted = [await self._new(job) for job in found]
        for running in adopted:
            await self._restore(running)
        await self._obey()  # what was said of them before they go on
        for running in adopted:
            self._start(running, is_adopted=True)

    async def _new(self, job: Job) -> _Running:
        if not self._idle_runners:
            loop = self.lab.host.loop
            with loop.hold("an engine is made"):
                runner = await loop.run_in_executor(
                    self._executor, self.lab.host.runner
                )
            self._idle_runners.append(runner)
        runner = self._idle_runners.pop()
        who = Claimant.of(job.id, job.priority, job.rank)
        running = _Running(self, job, who, runner, job.state, job.is_held)
        self._running[job.id] = running
        self.lab.resources.reservations.enter(who)
        return running

    async def _restore(self, running: _Running) -> None:
        """Take note of what an adopted job has, and end what its runs left open."""
        job_id = running.job.id
        now = self.lab.host.loop.stamp()
        await self.owner.write(
            partial(
                close_open_runs,
                job_id=job_id,
                token=self.owner.token,
                now=now,
                reason="its process died; the job goes on in another run",
            )
        )
        steps = await self.store.aread(partial(steps_of, job_id=job_id))
        seat = None
        for step in steps:
            if step.name == "take_seat" and step.state is StepState.DONE:
                # One that is none, its own plan will find.
                with contextlib.suppress(DivergedError):
                    seat = restored_as(Seat, step.result)
            elif step.name == "vacate_seat" and step.state is StepState.DONE:
                seat = None
        if seat is not None:
            self.lab.resources.firings.restore(running.who, seat)
        running.left_acting = _left_acting(steps, self.lab.view())
        begun = {
            step.path
            for step in steps
            if step.state in (StepState.INTENT, StepState.UNSETTLED)
        }
        # A step that failed keeps what it has while a person is asked.
        asked = await self.store.aread(partial(questions, job_id=job_id))
        begun |= {question.step.path for question in asked}
        self.lab.resources.reservations.resume(running.who, begun)

    def _start(self, running: _Running, *, is_adopted: bool) -> None:
        work = self._live(running, is_adopted=is_adopted)
        running.task = asyncio.create_task(work, name=f"job {running.job.id}")

    async def _live(self, running: _Running, *, is_adopted: bool) -> None:
        """Run one job to its end, whatever that is."""
        error: BaseException | None = None
        resources = self.lab.resources
        resources.firings.entered()
        try:
            await self._run_job(running, is_adopted=is_adopted)
        except asyncio.CancelledError as exc:
            error = exc
            raise
        except (StaleTokenError, StoreError) as exc:
            # Nothing can be kept any more: whoever owns the store next goes on.
            error = self._fault = exc
        except Exception as exc:  # noqa: BLE001 - one job's fault must not end the others
            error = exc
            await self._end_badly(running, exc)
        finally:
            resources.reservations.leave(running.who)
            resources.firings.left(running.who, error)
            if self._fault is None and not isinstance(error, asyncio.CancelledError):
                del self._running[running.job.id]
            self._idle_runners.append(running.runner)
            self.wake()

    async def _run_job(self, running: _Running, *, is_adopted: bool) -> None:
        job = running.job
        protocol = self._find(job.protocol)
        if protocol.version != job.version:
            raise DivergedError(
                f"job {job.id} is of version {job.version} of {job.protocol}, "
                f"installed is {protocol.version}; install that, or submit it again"
            )
        execution = Execution(
            self.lab,
            protocol,
            job.parameters,
            self.results / str(job.id),
            job_id=job.id,
            runner=running.runner,
        )
        running.claimed = execution.view.claimed
        if not is_adopted:
            execution.check_parameters()
        await running.be(JobState.RUNNING, reason=_NOTHING)
        loop = self.lab.host.loop
        with loop.hold("what is known of the job is read"):
            recorder = await loop.run_in_executor(
                self._executor, self.owner.recorder, job, running.settle
            )
        try:
            typed = await running.runner.arun(
                execution.plan(),
                recorder,
                running.who,
                running,
                self._executor,
                self._starting,
            )
        except (PPUError, asyncio.CancelledError):
            raise
        except Exception as exc:
            raise explained(protocol, exc) from exc
        finally:
            with contextlib.suppress(StoreError, StaleTokenError):
                await recorder.settle_documents()
        await running.be(JobState.FINISHING)
        with loop.hold("the report is written"):
            result = await loop.run_in_executor(
                self._executor, self._finish(execution, typed, recorder)
            )
        await self.owner.succeed(job, result)

    @staticmethod
    def _finish(
        execution: Execution, typed: Any, recorder: JobRecorder
    ) -> Callable[[], dict[str, Any]]:
        """Return what writes the results, for a thread of its own."""
        elapsed = stopwatch()

        def finish() -> dict[str, Any]:
            execution.make_out()
            return execution.finish(typed, recorder, elapsed)

        return finish

    async def _take_back(self, running: _Running) -> None:
        """Give an adopted job what still acts for it and that it has not joined.

        Nobody else gets it before it is safe; what others have is theirs.
        """
        if not running.left_acting:
            return
        acting = dict(running.left_acting)
        with contextlib.suppress(StoreError):  # then all that it had
            look = partial(steps_of, job_id=running.job.id)
            found = _left_acting(await self.store.aread(look), self.lab.view())
            acting = {path: acting[path] for path in acting.keys() & found.keys()}
        reservations = self.lab.resources.reservations
        names = frozenset().union(*acting.values())
        for name in names:
            if not reservations.owners_of(name):
                reservations.share(name, [running.who.id])
        for name in names.intersection(self._sole_devices(running.who)):
            self.lab.devices[name].adopt()

    async def _end_badly(self, running: _Running, error: Exception) -> None:
        """Bring what a failed job had to itself to its abort state; note why."""
        running.is_ending_badly = True
        unsafe: dict[str, str] = {}
        try:
            await self._take_back(running)
            devices = self._sole_devices(running.who)
            told, unsafe = await self.lab.amake_safe(devices)
            for line in (*told, *unsafe.values()):
                tell(f"job {running.job.id}: {line}")
        except Exception as exc:  # noqa: BLE001 - the job must end whatever a driver does
            tell(f"job {running.job.id}: NOT everything is safe: {exc!r}")
        try:
            for container in await self.owner.fail(
                running.job, error, running.claimed, "; ".join(unsafe.values())
            ):
                self.lab.books.release(container)
            self.lab.resources.empties.changed()
        except (StaleTokenError, StoreError) as exc:
            self._fault = exc
        for name in unsafe:
            self._insist(name)

    def _insist(self, name: str) -> None:
        """Keep trying to make a device safe; nobody gets it before it is."""
        reservations = self.lab.resources.reservations
        reservations.share(name, {*reservations.owners_of(name), UNSAFE.id})

        async def insist() -> None:
            while True:
                told, unsafe = await self.lab.amake_safe([name])
                if not unsafe:
                    tell("; ".join(told) or f"{name}: it is in its abort state by now")
                    reservations.give_back(UNSAFE, [name])
                    return

        task = asyncio.create_task(insist(), name=f"{name} is made safe")
        self._insisting.add(task)
        task.add_done_callback(self._insisting.discard)


def _left_acting(steps: Sequence[Step], lab: Lab) -> dict[str, frozenset[str]]:
    """Return the devices that steps act on which began and are not done, by path.

    One that failed counts, too: the process may have died before they were safe.
    """
    done = {step.path for step in steps if step.state is StepState.DONE}
    found = {}
    for step in steps:
        words = step.path.split(".")
        above = {".".join(words[:n]) for n in range(1, len(words) + 1)}
        if above & done:
            continue
        positional, named = step.arguments or ((), {})
        names = set[str]()
        for argument in (*positional[1:], *named.values()):
            # A list of devices is a choice among them: none is taken yet.
            if not isinstance(argument, list):
                names |= _words_in(argument)
        names &= lab.devices.keys()
        # The gas of a furnace goes with it.
        names |= {gas.name for gas in lab.every(GasFlow) if gas.supplies in names}
        if names:
            found[step.path] = frozenset(names)
    return found


def _words_in(argument: Any) -> set[str]:
    """Return the strings in plain data."""
    if isinstance(argument, str):
        return {argument}
    if isinstance(argument, dict):
        argument = list(argument.values())
    if isinstance(argument, list):
        return {word for item in argument for word in _words_in(item)}
    return set()
