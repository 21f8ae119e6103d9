"""The cell: the only owner of a lab's instruments, which runs the jobs of its queue."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ppu.cell.acting import Acting
from ppu.cell.adopting import Adoption
from ppu.cell.ending import Ending
from ppu.cell.heartbeat import Heartbeat
from ppu.cell.lab import OpenLab
from ppu.cell.lab_events import LabEvents
from ppu.cell.lab_requests import LabRequests
from ppu.cell.lifecycle import Lifecycle
from ppu.cell.ownership import Ownership
from ppu.cell.predecessor import wait_out_predecessor
from ppu.cell.requests import POLL_S, Requests
from ppu.cell.roster import Roster
from ppu.cell.technician import TwinTechnician
from ppu.cell.twin_hands import TwinHands
from ppu.core.errors import StaleTokenError, StoreDiskError, StoreError
from ppu.core.notices import tell
from ppu.core.remedies import Advice, Remedy, advise, plain_advice
from ppu.devices.build import driver_class
from ppu.plans.protocol import RegisteredProtocol, find_protocol
from ppu.store import queue
from ppu.store.cells import LEASE_S
from ppu.store.events import EventKind, announce
from ppu.store.jobs import JobState
from ppu.store.mark import marks_folder
from ppu.store.store import Store
from ppu.store.wake import WakeSocket

__all__ = ["GUARDLESS_S", "Cell", "Parts"]

_FOR_GOOD_S: Final = 1e9
_N_SPARE: Final = 4
"""Threads beside those of the jobs, for what is short."""
GUARDLESS_S: Final = 60.0
"""How long a cell without a guard lets motion end (real time) [s]."""


@dataclass(frozen=True)
class Parts:
    """What an owning cell is made of."""

    owner: Ownership
    adoption: Adoption
    ending: Ending
    lifecycle: Lifecycle
    lab_requests: LabRequests
    requests: Requests
    events: LabEvents
    technician: TwinTechnician | None


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
        marks: Where to note how far the store has come; by default this computer's
            usual folder, and nowhere for a twin, whose world ends with it.
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
        marks: Path | None = None,
    ) -> None:
        self.lab = lab
        self.store = store
        self.results = results
        if is_patient and lab.host.loop.is_jumping:
            lab.resources.be_patient()
        self.was_left_alone = False
        """Whether it ends because its guard is dead."""
        heaters = frozenset(
            name
            for name, entry in lab.file.devices.items()
            if driver_class(name, entry).heats
        )
        self.roster = Roster(lab.resources, heaters, may_heat=may_heat)
        self._find = find
        self._marks = marks_folder() if marks is None and lab.bench is None else marks
        loop = lab.host.loop
        # A jumping twin needs no lease: it shares its instruments with nobody.
        self._lease_s = _FOR_GOOD_S if loop.is_jumping else loop.wire_seconds(lease_s)
        self._made: Parts | None = None
        self._is_disk_told = False

    @property
    def parts(self) -> Parts:
        """What it is made of while it owns its lab."""
        assert self._made is not None  # noqa: S101 - made in `owning`
        return self._made

    @property
    def owner(self) -> Ownership:
        """What makes this cell the one that may act."""
        return self.parts.owner

    def wake(self) -> None:
        """Look at the store; on the loop."""
        self.roster.wake()

    def drain(self) -> None:
        """Let no further step begin, and end when what cannot wait is done."""
        self.roster.drain()

    def leave(self) -> None:
        """End now, whatever is under way; on the loop."""
        self.roster.leave()

    # -- owning --------------------------------------------------------------------

    @contextlib.contextmanager
    def owning(self) -> Iterator[None]:
        """Own the store and the instruments while the block runs; not on the loop.

        Raises:
            StoreBusyError: If another cell owns the store.
            StaleTokenError: If another one took it while an earlier one was outlived.
            ConnectError: If an instrument is absent or is a stranger.
        """
        lab, roster = self.lab, self.roster
        with self.store.own():
            if lab.bench is None:  # a twin shares its instruments with nobody
                lab.host.call(wait_out_predecessor(self.store))
            if not lab.devices:
                lab.connect()
            owner = Ownership(
                self.store,
                lab.file,
                lab.host.loop,
                lease_s=self._lease_s,
                marks=self._marks,
            )
            executor = self._make_executor(owner)
            self._made = self._make_parts(owner, executor)
            roster.may_heat = roster.may_heat or owner.was_clean
            lab.ledger.replace_with(owner.read_ledger())
            for tagged in owner.read_tag_outs():
                lab.resources.reservations.tag_out(tagged.device, str(tagged))
            for device in lab.devices.values():
                device.permit_writes(owner.require_trust)
            lab.resources.on_wait = self._note_wait
            is_sound = False
            try:
                yield
                is_sound = True
            finally:
                executor.shutdown()
                for device in lab.devices.values():
                    device.permit_writes(None)
                if owner.is_trusted:
                    how = "its cell drained" if roster.is_draining else "its cell ended"
                    # If it cannot be kept, the next cell takes it for a crash.
                    with contextlib.suppress(StaleTokenError, StoreError):
                        untouched = roster.untouched
                        owner.end(how, is_sound=is_sound, untouched=untouched)
                owner.close()

    def _make_executor(self, owner: Ownership) -> ThreadPoolExecutor:
        """Return one with a thread for each job, though more are adopted than begun."""
        n_jobs = max(2 * self.lab.file.scheduling.jobs_at_once, len(owner.lost()))
        return ThreadPoolExecutor(n_jobs + _N_SPARE, thread_name_prefix="job")

    def _make_parts(self, owner: Ownership, executor: ThreadPoolExecutor) -> Parts:
        """Hand each part what it needs."""
        lab, roster, loop = self.lab, self.roster, self.lab.host.loop
        adoption = Adoption(owner, roster, lab.resources, lab.view(), lab.devices, loop)
        reservations = lab.resources.reservations
        acting = Acting(lab.devices, roster, reservations)
        events = LabEvents(owner, lab.bench, acting.jobs_of, loop)
        ending = Ending(lab, owner, roster, adoption, acting, events)
        hands = TwinHands(lab.bench, loop)
        in_lab = LabRequests(owner, lab.ledger, lab.resources, hands, loop, lab.devices)
        return Parts(
            owner,
            adoption,
            ending,
            Lifecycle(
                lab,
                owner,
                roster,
                acting,
                ending,
                events,
                self._find,
                self.results,
                executor,
            ),
            in_lab,
            Requests(owner, roster, in_lab, loop, executor),
            events,
            self._make_technician(owner),
        )

    def _make_technician(self, owner: Ownership) -> TwinTechnician | None:
        """Return the technician of the cell's own twin, if the lab file has one."""
        lab = self.lab
        entry = lab.file.simulation.technician
        if entry is None or lab.bench is None:
            return None
        return TwinTechnician(
            entry,
            lab.file,
            lab.seed,
            lab.bench.world,
            owner,
            self.roster,
            lab.resources,
            lab.devices,
            lab.host.loop,
        )

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Be woken by whoever writes to the store while the block runs."""
        wake_socket = WakeSocket(self.store.where)
        wake_socket.start(self.lab.host.loop, self.wake)
        try:
            yield
        finally:
            wake_socket.close()

    @contextlib.contextmanager
    def guarded_by(self, end: socket.socket) -> Iterator[None]:
        """Exchange heartbeats with a guard while the block runs.

        A cell whose guard has died drains: nobody would see to the instruments if it
        died, too.

        Args:
            end: This process's end of a pair of sockets.
        """
        loop = self.lab.host.loop

        def drain_without_guard(what: str) -> None:
            tell(f"the guard is dead ({what}): draining")
            self.was_left_alone = True
            self.drain()
            loop.call_later(loop.wire_seconds(GUARDLESS_S), self.leave)

        heartbeat = Heartbeat(loop, end, drain_without_guard)
        loop.call_soon_threadsafe(heartbeat.start)
        try:
            yield
        finally:
            self.lab.host.call(heartbeat.stop())

    # -- the loop of work ----------------------------------------------------------

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
            if await self._end_doubt(until_idle=until_idle):
                await self._adopt_lost()
                await self._serve(until_idle=until_idle)
        finally:
            if keeper is not None:
                keeper.cancel()
            # Whoever ends gives back what others wait for: they must not begin now.
            self.roster.close()
            if self.parts.technician is not None:
                await self.parts.technician.stop()
            jobs = self.roster.jobs.values()
            tasks = [job.task for job in jobs if job.task is not None]
            tasks += self.parts.ending.tasks
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _end_doubt(self, *, until_idle: bool) -> bool:
        """Wait for a person if the store has forgotten what was done.

        Returns:
            Whether jobs may go on; False if the cell ends first.
        """
        roster, owner = self.roster, self.owner
        if owner.doubt:
            tell(owner.doubt, advise(Remedy.ACCEPT_STORE))
        while owner.doubt:
            roster.note_looked()
            await self.parts.requests.apply_waiting()
            if roster.fault is not None:
                raise roster.fault
            if owner.doubt:
                if until_idle or roster.is_draining:
                    return False
                await self._wait(None)
        return True

    async def _adopt_lost(self) -> None:
        """Go on with the jobs of a cell that has ended."""
        parts = self.parts
        found = [await self.owner.adopt(job.id) for job in self.owner.lost()]
        adopted = [await parts.lifecycle.enter(job) for job in found]
        for running in adopted:
            await parts.adoption.restore(running)
        # What was said of them before they go on.
        await parts.requests.apply_waiting()
        for running in adopted:
            parts.lifecycle.start(running, is_adopted=True)

    async def _serve(self, *, until_idle: bool) -> None:
        """Apply requests and begin jobs, again and again."""
        roster = self.roster
        while True:
            roster.note_looked()
            technician = self.parts.technician
            if await self.parts.requests.apply_waiting():
                if not roster.jobs:  # else it is theirs, when a step ends
                    await self.parts.events.keep_incidents()
                if not roster.is_draining:
                    await self._claim()
                if technician is not None and await self._is_somebody_there():
                    await technician.look()
            if roster.fault is not None:
                raise roster.fault
            if roster.is_draining and not roster.jobs:
                return
            if roster.is_drained() or roster.is_leaving:
                return
            again_s = await self.owner.next_try_s()
            is_helped = technician is not None and technician.is_at_work
            is_stuck = roster.waiting >= roster.jobs.keys() and again_s is None
            if until_idle and is_stuck and not is_helped:
                await self._tell_what_waits()
                return
            await self._wait(again_s)

    async def _is_somebody_there(self) -> bool:
        """Return whether a job runs, or waits until the lab has changed."""
        return bool(self.roster.jobs) or await self.owner.has_set_aside()

    async def _tell_what_waits(self) -> None:
        """Tell of the jobs that cannot go on before a person has done something."""
        find = partial(queue.find, states=[JobState.QUEUED], limit=10**6)
        queued = await self.owner.read(find)
        for job in sorted(queued, key=lambda job: job.id):
            if job.is_set_aside:
                tell(f"job {job.id} waits: {job.reason_text}", *job.advice)
        if self.roster.jobs:
            tell(
                "only empty containers are waited for: release samples, then start a "
                "cell again",
                advise(Remedy.RELEASE_SAMPLE),
            )

    async def _wait(self, again_s: float | None) -> None:
        """Wait until something has changed; look now and then where time flows.

        Args:
            again_s: After how long a job is tried again [s], if one is.
        """
        loop, wait_s = self.lab.host.loop, again_s
        if not loop.is_jumping:
            wait_s = loop.wire_seconds(POLL_S)
        with contextlib.ExitStack() as ends:
            ends.enter_context(contextlib.suppress(TimeoutError))
            if again_s is not None and not self.roster.jobs:
                ends.enter_context(loop.active())  # a jumping twin goes on to then
            async with asyncio.timeout(wait_s):
                await self.roster.wait_woken()

    async def _claim(self) -> None:
        """Start what is next, as long as there is room."""
        lifecycle = self.parts.lifecycle
        while self._has_room():
            try:
                self.store.check_room()
            except StoreDiskError as exc:
                if not self._is_disk_told:
                    tell(f"no job is begun: {exc}")
                self._is_disk_told = True
                return
            self._is_disk_told = False
            roster, has_changed = self.roster, self.roster.has_changed
            roster.has_changed = False
            found = await self.owner.next_job(has_changed=has_changed)
            if found is None:
                return
            if (lack := lifecycle.find_lack(found)) is not None:
                await self.owner.set_aside(found.id, lack)
                continue
            job = await self.owner.claim(found.id)
            if job is None:  # somebody has held or cancelled it just now
                continue
            lifecycle.start(await lifecycle.enter(job), is_adopted=False)

    def _has_room(self) -> bool:
        """Return whether another job may begin.

        Those that wait for an empty container keep nobody from work, up to a number.
        """
        n_most = self.lab.file.scheduling.jobs_at_once
        n_waiting = len(self.roster.waiting)
        return len(self.roster.jobs) < n_most + min(n_waiting, n_most)

    async def _keep_lease(self) -> None:
        """Renew the lease in time, or end everything."""
        try:
            await self.owner.keep()
        except (StaleTokenError, StoreError) as exc:
            tell(f"the lease could not be renewed: {exc}")
            self.roster.fail(exc)

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
