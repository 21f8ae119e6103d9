"""Runs one plan at a time: a RunEngine on the shared lab-time loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import io
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import bluesky.run_engine
from bluesky.utils import (
    FailedStatus,
    Msg,
    MsgGenerator,
    RequestAbort,
    RunEngineInterrupted,
)

from ppu.core.capabilities import FiringRecord
from ppu.core.custody import Change
from ppu.core.errors import (
    AbortedError,
    InternalError,
    PPUError,
    StaleTokenError,
    StoreError,
    causes,
)
from ppu.core.failure import FailurePolicy
from ppu.core.labtime import LabTimeLoop
from ppu.core.notices import tell
from ppu.engine.recorder import JobRecorder
from ppu.engine.reservations import Claimant
from ppu.engine.resources import Resources
from ppu.engine.run_engine import LabRunEngine
from ppu.plans.lab import Lab
from ppu.plans.seats import Role, Seat, Turn
from ppu.plans.steps import Begun, Decision, Evidence, Failed, Needs, StepRecord

__all__ = ["Gate", "Runner", "Timing"]

T = TypeVar("T")

_ENDED: type[Exception] = bluesky.run_engine.TransitionError  # type: ignore[attr-defined]  # imported there, not listed
"""What bluesky raises when a plan that has ended is aborted."""

_NOT_ITS_FAULT = (AbortedError, StaleTokenError, StoreError)
"""Errors for which a step's own failure policy does not hold."""

_PRINTING = threading.Lock()
"""Standard output is one for all threads: they redirect it one after the other."""


@dataclass
class Timing:
    """When a plan ran, in lab time and in wall time [s]."""

    first_lab_s: float = 0.0
    last_lab_s: float = 0.0
    first_wall_s: float = 0.0
    last_wall_s: float = 0.0

    @property
    def lab_time_s(self) -> float:
        """Lab time from the first to the last message."""
        return self.last_lab_s - self.first_lab_s

    @property
    def run_time_s(self) -> float:
        """Wall time from the first to the last message."""
        return self.last_wall_s - self.first_wall_s


@dataclass(frozen=True)
class _OpenStep:
    """A step that has begun and not ended."""

    path: str
    step: StepRecord
    lab: Any
    taken: frozenset[str]
    digest: str


class Gate(Protocol):
    """What may keep a step from beginning, and decides what becomes of a failed one.

    A cell has one for each job; a plan that is no job has none.
    """

    async def pass_step(self, step: StepRecord, needs: Needs, *, goes_on: bool) -> None:
        """Wait until a step may begin, or go on if it was under way.

        Raises:
            AbortedError: If it never may.
        """

    async def decide(self, path: str, step: StepRecord, failed: Failed) -> Decision:
        """Ask a person what becomes of a failed step."""

    async def ask(self, path: str, question: str, answers: Sequence[str]) -> Decision:
        """Ask again what was asked when the process died."""

    def note_done(self, needs: Callable[[], Needs]) -> None:
        """Take note of what a step needed that was done in an earlier process."""


class Runner:
    """One RunEngine on a lab's loop, which runs one plan at a time.

    Args:
        loop: The lab's loop.
        resources: What its plans share with those of other runners.
    """

    def __init__(self, loop: LabTimeLoop, resources: Resources | None = None) -> None:
        self.loop = loop
        self.resources = resources
        self.timing = Timing()
        self.steps: list[StepRecord] = []
        self.on_step: Callable[[StepRecord], None] | None = None
        self.is_left: Callable[[str], bool] | None = None
        """Told by a cell: whether a device goes on with what this plan began."""
        self._recorder: JobRecorder | None = None
        self._gate: Gate | None = None
        self._who = Claimant.of(0)
        self._open: list[_OpenStep] = []
        self._n_steps: dict[str, int] = {}
        self._unsafe: dict[str, frozenset[str]] = {}
        """What failed steps had, until it is made safe or the plan goes on."""
        self._abort_reason: str | None = None
        self._is_left = False
        self._is_running = False
        self._is_called = False
        self._thaws: list[Callable[[], None]] = []
        self._on_first_message: Callable[[], None] | None = None
        self.on_use: Callable[[str, str], None] | None = None
        """Told which verb of which device the plan is about to use; may refuse."""
        self.used: set[str] = set()
        """Devices that the plan used in this process."""
        self.engine = LabRunEngine(loop)
        self.engine.on_use = self._use
        commands: dict[str, Callable[[Msg], Awaitable[Any]]] = {
            "step_begin": self._begin_step,
            "step_end": self._end_step,
            "step_failed": self._fail_step,
            "settle": self._settle_step,
            "compute": self._compute,
            "earlier_samples": self._earlier_samples,
            "keep_changes": self._keep_changes,
            "wait_noted": self._note_wait,
            "take_container": self._take_container,
            "seat_request": self._request_seat,
            "seat_loaded": self._load_seat,
            "seat_firing": self._begin_firing,
            "seat_follow": self._follow_firing,
            "seat_fired": self._end_firing,
            "seat_left": self._leave_seat,
        }
        for name, command in commands.items():
            self.engine.register_command(name, command)
        self.engine.subscribe_strictly(self._record_document)

    # -- running ---------------------------------------------------------------------

    def run(
        self,
        plan: Iterable[Msg],
        recorder: JobRecorder | None = None,
        *,
        who: Claimant | None = None,
        gate: Gate | None = None,
    ) -> Any:
        """Run *plan* and return what it returns; not on the loop.

        Args:
            plan: Any Bluesky plan.
            recorder: Keeps documents and steps, and knows them from before.
            who: Whose plan it is, among others that run.
            gate: What may keep its steps from beginning.

        Raises:
            AbortedError: If :meth:`abort` was called.
            PPUError: What made the plan fail, if it was an error of PPU's tree.
        """
        self._set_up(recorder, who, gate)
        # Thread start and thread end would race with the jump: time is frozen until
        # the first message, and again from idle until the call is back.
        self._thaws.append(self.loop.freeze("the engine is starting"))
        try:
            return self._call(plan)
        finally:
            self._let_go()

    async def arun(
        self,
        plan: Iterable[Msg],
        recorder: JobRecorder | None,
        who: Claimant,
        gate: Gate,
        executor: concurrent.futures.Executor,
        starting: asyncio.Lock,
    ) -> Any:
        """Run *plan* and return what it returns; on the loop.

        Args:
            plan: Any Bluesky plan.
            recorder: Keeps documents and steps, and knows them from before.
            who: Whose plan it is.
            gate: What may keep its steps from beginning.
            executor: Where the engine's caller waits.
            starting: Engines start one after the other, so that no race between
                threads decides who is first.

        Raises:
            AbortedError: If :meth:`abort` was called.
            PPUError: What made the plan fail, if it was an error of PPU's tree.
        """
        self._set_up(recorder, who, gate)
        begun = asyncio.Event()
        self._on_first_message = begun.set
        self._thaws.append(self.loop.freeze("the engine is starting"))
        try:
            async with starting:
                future = self.loop.run_in_executor(executor, self._call, plan)
                # If it ends without a message, that is the first thing heard of it.
                future.add_done_callback(lambda _: begun.set())
                try:
                    await begun.wait()
                except asyncio.CancelledError:
                    await self._leave(future, executor)
                    raise
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                await self._leave(future, executor)
                raise
        finally:
            self._let_go()

    async def _leave(
        self, future: asyncio.Future[Any], executor: concurrent.futures.Executor
    ) -> None:
        """End the plan without a word in its journal: another cell goes on with it."""
        self._is_left = True
        why = "its cell ends; the job goes on in the next one"
        # The engine waits for the loop to take note: not on the loop itself.
        with self.loop.freezing("a plan is left"):
            await self.loop.run_in_executor(executor, self.abort, why)
        await asyncio.gather(future, return_exceptions=True)

    def _set_up(
        self, recorder: JobRecorder | None, who: Claimant | None, gate: Gate | None
    ) -> None:
        self._recorder = recorder
        self._gate = gate
        self._who = Claimant.of(0) if who is None else who
        self._abort_reason = None
        self._is_left = False
        self._is_running = True
        self._is_called = True
        self.steps = []
        self._open = []
        self._n_steps = {}
        self._unsafe = {}
        self.used = set()
        self.timing = Timing()
        self._thaws = []

    def _let_go(self) -> None:
        self._is_running = False
        self._is_called = False
        for thaw in self._thaws:
            thaw()
        if self.resources is not None:
            self.resources.waits.pop(self._who.id, None)
        self._recorder = None
        self._gate = None
        self._on_first_message = None

    def _call(self, plan: Iterable[Msg]) -> Any:
        """Call the engine, in a thread of its caller."""
        loop = self.loop
        n_faults = len(loop.faults)  # earlier ones are of plans that ran then

        def on_message(_: Msg) -> None:
            timing = self.timing
            timing.last_lab_s, timing.last_wall_s = loop.time(), loop.wall_time()
            if self._thaws and not timing.first_wall_s:
                timing.first_lab_s = timing.last_lab_s
                timing.first_wall_s = timing.last_wall_s
                self._thaws.pop()()
                if self._on_first_message is not None:
                    self._on_first_message()

        def on_state(new: str, _: str) -> None:
            if new == "idle" and self._is_called:
                self._thaws.append(loop.freeze("the engine has ended"))

        # bluesky's annotations say None only.
        vars(self.engine).update(msg_hook=on_message, state_hook=on_state)
        try:
            with loop.active():
                guarded: Any = self._unless_aborted(plan)
                # Documents name the plan, not what it is wrapped in.
                guarded.__name__ = getattr(plan, "__name__", guarded.__name__)
                result: Any = self.engine(guarded)
        except RunEngineInterrupted:
            raise AbortedError(self._reason or "the plan was aborted") from None
        except RequestAbort as exc:
            raise AbortedError(self._reason or str(exc)) from None
        except FailedStatus as exc:
            cause = cause_of(exc)
            if isinstance(cause, asyncio.CancelledError):
                raise AbortedError(
                    "what the plan waited for was ended from outside, as by whoever "
                    f"made the device safe: {exc.args[0] if exc.args else exc}"
                ) from exc
            raise cause from exc
        finally:
            self._is_running = False
        if len(loop.faults) > n_faults:
            raise loop.faults[n_faults]
        return result.plan_result

    def in_run(
        self, plan: MsgGenerator[T], metadata: dict[str, Any]
    ) -> MsgGenerator[T]:
        """Return *plan* inside a run; its result is kept, unlike bluesky's wrapper."""

        def close_failed(exc: Exception) -> MsgGenerator[None]:
            if isinstance(exc, RequestAbort):
                yield from bps.close_run(exit_status="abort", reason=self._reason or "")
            else:
                cause = str(cause_of(exc))
                yield from bps.close_run(exit_status="fail", reason=cause)

        yield from bps.open_run(md=metadata)
        result: T = yield from bpp.contingency_wrapper(
            plan, except_plan=close_failed, else_plan=bps.close_run
        )
        return result

    def _unless_aborted(self, plan: Iterable[Msg]) -> MsgGenerator[Any]:
        """Return *plan*, or end before its first message if it was aborted by then."""
        if self._abort_reason is not None:
            raise AbortedError(self._abort_reason)
        return (yield from plan)

    @property
    def _reason(self) -> str | None:
        """Why the plan was aborted; another thread sets it while the plan runs."""
        return self._abort_reason

    def abort(self, reason: str) -> None:
        """Abort the running plan; harmless if it has ended or is ending."""
        if self._abort_reason is None and self._is_running:
            self._abort_reason = reason
            # bluesky prints, and a print that fails would fail the abort.
            with (
                _PRINTING,
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.suppress(_ENDED),  # in this moment, by itself
            ):
                if not self.engine.state.is_idle:
                    self.engine.abort(reason)

    @property
    def may_be_left(self) -> bool:
        """Whether what is under way goes on by itself, and is joined later."""
        return bool(self._open) and self._open[-1].step.kind == "resumable"

    def subscribe(self, function: Callable[[str, dict[str, Any]], None]) -> int:
        """Have *function* called with each document; return a token."""
        return int(self.engine.subscribe(function))

    def unsubscribe(self, token: int) -> None:
        """End the subscription of *token*."""
        self.engine.unsubscribe(token)

    def _use(self, name: str, verb: str) -> None:
        """Take note that the plan is about to use a device.

        Raises:
            InterlockError: If it may not.
        """
        if self.on_use is not None:
            self.on_use(name, verb)
        self._note_used([name])

    def _note_used(self, names: Iterable[str]) -> None:
        """Take note of devices for every step that is open."""
        self.used.update(names)
        for opened in self._open:
            opened.step.devices.update(names)

    # -- messages of PPU's own -------------------------------------------------------

    async def _begin_step(self, msg: Msg) -> Begun:
        """Keep that a step begins; answer what is known of it from before.

        Raises:
            InternalError: If the plan changed the lab outside of a step: when it is
                run again, that would be done again.
        """
        step = StepRecord(
            msg.kwargs["name"],
            msg.kwargs["kind"],
            self.loop.time(),
            msg.kwargs["expected_s"],
            msg.kwargs["arguments"],
            seat=msg.kwargs["seat"],
        )
        lab = msg.kwargs["lab"]
        self._give_back_unsafe("")  # the plan goes on after what failed in it
        is_kept = self._recorder is not None and not self._open
        if is_kept and isinstance(lab, Lab) and lab.changes:
            raise InternalError(
                f"before step {step.label}: the plan changed the lab outside of a step "
                f"({lab.changes[0]}); make it a step"
            )
        above = self._open[-1].path + "." if self._open else ""
        number = self._n_steps.get(above, 0)
        self._n_steps[above] = number + 1
        begun = Begun(f"{above}{number}")
        taken: frozenset[str] = frozenset()
        needs = Needs()
        if self._recorder is None or not self._recorder.is_done(begun.key):
            goes_on = self._recorder is not None and self._recorder.is_under_way(
                begun.key
            )
            taken = await self._pass(
                begun.key, step, msg.kwargs["needs"], goes_on=goes_on
            )
        elif self._gate is not None:
            self._gate.note_done(msg.kwargs["needs"])
        step.begun_s, step.path = self.loop.time(), begun.key
        try:
            if self._recorder is not None:
                begun = await self._begin_kept(
                    begun.key, step, msg.kwargs["digest"], self._recorder
                )
        except BaseException:
            self._give_back(taken)
            raise
        self.steps.append(step)
        if not begun.is_done:
            opened = _OpenStep(begun.key, step, lab, taken, msg.kwargs["digest"])
            self._open.append(opened)
            if isinstance(lab, Lab):
                self._note_used(needs.names & lab.devices.keys())
        self._tell_step(step)
        return begun

    async def _begin_kept(
        self, path: str, step: StepRecord, digest: str, recorder: JobRecorder
    ) -> Begun:
        """Keep that a step begins; if it asked a person before, ask that again."""
        asked = recorder.question(path)
        if asked is not None and self._gate is not None:
            decision = await self._gate.ask(path, asked.text, asked.answers)
            if decision != "retry":
                return Begun(path, decision=decision, question=asked.text)
        return await recorder.begin(path, step, digest)

    async def _pass(
        self,
        path: str,
        step: StepRecord,
        find_needs: Callable[[], Needs],
        *,
        goes_on: bool,
    ) -> frozenset[str]:
        """Wait until a step may begin and has what it needs; return what it took."""
        what = f"step {step.label}"
        while True:
            needs = find_needs()
            if self._gate is not None:
                await self._gate.pass_step(step, needs, goes_on=goes_on)
            if self.resources is None:
                return frozenset()
            taken = await self.resources.reservations.take(
                self._who, needs.names, needs.containers, what, path
            )
            if taken is None:
                continue
            if find_needs() == needs:
                return taken
            self._give_back(taken)  # a container was moved while it waited

    def _give_back(self, names: frozenset[str]) -> None:
        if self.resources is not None and names:
            self.resources.reservations.give_back(self._who, names)

    def _keep_acting(self, taken: frozenset[str]) -> frozenset[str]:
        """Keep of what a step had what acts on; return what to give back.

        That is the rest, and what was kept of earlier steps and acts no more.
        """
        if self.is_left is None or self.resources is None or self._open:
            return taken
        reservations = self.resources.reservations
        had = taken | reservations.kept_by(self._who)
        acting = frozenset(filter(self.is_left, had))
        reservations.keep(self._who, acting)
        return had - acting

    async def _end_step(self, msg: Msg) -> None:
        """Keep a step's result before the plan goes on."""
        ended = self._close_step(msg.kwargs["key"])
        changes, time = _changes_of(ended.lab), self.loop.time()
        if self._recorder is not None:
            await self._recorder.end(
                ended.path, ended.step, msg.kwargs["result"], changes, time
            )
        self._give_back(self._keep_acting(ended.taken))
        self._tell_step(ended.step)

    async def _fail_step(self, msg: Msg) -> Decision:
        """Keep why a step failed; answer what becomes of it."""
        if self._is_left:
            return "raise"  # it goes on by itself, or is settled by whoever is next
        failed = self._close_step(msg.kwargs["key"])
        changes, time = _changes_of(failed.lab), self.loop.time()
        reason = str(cause_of(msg.kwargs["error"]))
        if self._recorder is not None:
            await self._recorder.fail(failed.path, failed.step, reason, changes, time)
        decision: Decision = "raise"
        if "failed" in msg.kwargs:
            decision = await self._decide(failed, msg.kwargs["failed"])
        if decision == "raise":
            # Nobody else gets what it had before it was made safe, if the plan ends.
            self._unsafe[failed.path] = failed.taken
            return decision
        self._give_back_unsafe(failed.path + ".")
        if decision == "retry":
            await self._begin_again(failed)
        self._open.append(failed)  # it goes on
        return decision

    async def _begin_again(self, failed: _OpenStep) -> None:
        """Let a failed step begin once more; what was done within it stays done."""
        if self._gate is not None:
            needs = Needs(failed.taken)
            await self._gate.pass_step(failed.step, needs, goes_on=False)
        failed.step.ended_s = None
        for above in [
            key for key in self._n_steps if key.startswith(failed.path + ".")
        ]:
            del self._n_steps[above]
        if self._recorder is not None:
            await self._recorder.begin(failed.path, failed.step, failed.digest)

    def _give_back_unsafe(self, prefix: str) -> None:
        """Give back what failed steps had: the plan goes on in spite of them."""
        for path in [path for path in self._unsafe if path.startswith(prefix)]:
            self._give_back(self._unsafe.pop(path))

    async def _decide(self, opened: _OpenStep, failed: Failed) -> Decision:
        if isinstance(cause_of(failed.error), _NOT_ITS_FAULT):
            return "raise"
        has_inner = bool(self._n_steps.get(opened.path + "."))
        policy = failed.policy
        if self.resources is not None:
            policies: dict[str, FailurePolicy] = self.resources.failure_policies
            policy = policies.get(opened.step.name, policy)
        if failed.n_failures <= policy.retries and (self._recorder or not has_inner):
            return "retry"  # without a journal what is within would be done again
        if policy.then == "park" and failed.can_park:
            return "park"
        if policy.then == "skip" and failed.can_skip:
            return "skip"
        if policy.then == "ask" and self._gate is not None:
            return await self._gate.decide(opened.path, opened.step, failed)
        return "raise"

    async def _settle_step(self, msg: Msg) -> Evidence:
        """Keep what shows whether a step happened, or find out."""
        found: Evidence = msg.kwargs["found"]
        if self._recorder is None:
            raise InternalError("only what is recorded can have been under way")
        return await self._recorder.settle(msg.kwargs["key"], found, self.loop.time())

    async def _earlier_samples(self, msg: Msg) -> dict[str, list[float]]:
        """Answer what the present step sampled before, in a stream, by column."""
        if self._recorder is None:
            return {}
        since_s = self._open[-1].step.begun_s if self._open else 0.0
        return await self._recorder.samples(msg.kwargs["stream"], since_s)

    async def _keep_changes(self, msg: Msg) -> None:
        """Keep what the present step has changed by now."""
        if self._recorder is not None:
            changes = _changes_of(msg.kwargs["lab"])
            await self._recorder.keep(changes, self.loop.time())

    async def _note_wait(self, msg: Msg) -> None:
        """Let people see what the plan waits for."""
        text = msg.kwargs["text"]
        self._shared.note_wait(self._who, text)
        if text and self._shared.on_wait is None:
            tell(text)  # no cell keeps it for those who look

    async def _take_container(self, msg: Msg) -> str:
        """Claim a container as soon as it is to be had; answer its name."""
        lab, kind = msg.kwargs["lab"], msg.kwargs["kind"]
        named: str | None = msg.kwargs.get("container")
        if self._gate is None:
            container: str = named or lab.free_container(kind)
            lab.location_of(container)
            lab.claim_container(container)
            return container
        what = f"step {self._open[-1].step.label}" if self._open else "the plan"
        return await self._shared.empties.take(self._who, lab, kind, what, named)

    # -- seats -----------------------------------------------------------------------

    @property
    def _shared(self) -> Resources:
        if self.resources is None:
            raise InternalError("seats need a lab with resources")
        return self.resources

    async def _request_seat(self, msg: Msg) -> Seat:
        return await self._shared.firings.request(self._who, **msg.kwargs)

    async def _load_seat(self, msg: Msg) -> Role:
        return await self._shared.firings.load(self._who, msg.kwargs["seat"])

    async def _begin_firing(self, msg: Msg) -> None:
        self._shared.firings.note_begun(self._who, msg.kwargs["seat"])

    async def _follow_firing(self, msg: Msg) -> FiringRecord | Turn:
        return await self._shared.firings.follow(self._who, msg.kwargs["seat"])

    async def _end_firing(self, msg: Msg) -> None:
        self._shared.firings.note_fired(
            self._who, msg.kwargs["seat"], msg.kwargs["record"]
        )

    async def _leave_seat(self, msg: Msg) -> None:
        self._shared.firings.vacate(self._who, msg.kwargs["seat"])

    def _close_step(self, path: str) -> _OpenStep:
        """Return the step at *path*, which ends; what failed within it has ended."""
        while self._open[-1].path != path:
            self._open.pop()
        step = self._open.pop()
        step.step.ended_s = self.loop.time()
        return step

    def _tell_step(self, step: StepRecord) -> None:
        if self.on_step is not None:
            self.on_step(step)

    async def _compute(self, msg: Msg) -> Any:
        """Run a function in a worker thread; time does not jump meanwhile."""
        (function,) = msg.args
        with self.loop.freezing(f"computing {function}"):
            return await self.loop.run_in_executor(None, function)

    def _record_document(self, name: str, document: dict[str, Any]) -> None:
        if self._recorder is not None:
            self._recorder.document(name, document, self.loop.time())


def _changes_of(lab: Any) -> list[Change]:
    """Return what a step changed in *lab*, once."""
    if not isinstance(lab, Lab):
        return []
    changes, lab.changes = lab.changes, []
    return changes


def cause_of(exc: BaseException) -> BaseException:
    """Return the error of PPU's tree behind *exc*, or what caused it."""
    *_, deepest = found = list(causes(exc))
    return next((one for one in found if isinstance(one, PPUError)), deepest)
