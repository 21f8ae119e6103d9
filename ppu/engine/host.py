"""Runs plans: a RunEngine on the shared lab-time loop, in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import bluesky.run_engine
from bluesky.run_engine import RunEngine
from bluesky.utils import (
    FailedStatus,
    Msg,
    MsgGenerator,
    RequestAbort,
    RunEngineInterrupted,
)

from ppu.core.custody import Change
from ppu.core.errors import AbortedError, InternalError, PPUError
from ppu.core.labtime import LabTimeLoop
from ppu.core.notices import NoticeStream
from ppu.engine.recorder import JobRecorder
from ppu.plans.lab import Lab
from ppu.plans.steps import Begun, Evidence, StepRecord

__all__ = ["Host", "Timing"]

T = TypeVar("T")

_ENDED: type[Exception] = bluesky.run_engine.TransitionError  # type: ignore[attr-defined]  # imported there, not listed
"""What bluesky raises when a plan that has ended is aborted."""

_LOOK_WALL_S = 1.0
"""How often a waiting caller looks whether the loop still runs."""


class LabRunEngine(RunEngine):
    """A RunEngine whose documents carry lab time, and which is never paused."""

    def emit_sync(self, name: Any, doc: dict[str, Any]) -> None:
        """Stamp *doc* in lab time before anybody sees it."""
        kind = str(getattr(name, "name", name))
        if kind == "event":
            doc["time"] = max(doc["timestamps"].values(), default=self._stamp())
        elif kind == "event_page":
            columns = list(doc["timestamps"].values())
            if columns:
                doc["time"] = [max(row) for row in zip(*columns, strict=True)]
        elif "time" in doc:
            doc["time"] = self._stamp()
        super().emit_sync(name, doc)

    def request_pause(self, defer: bool = False) -> None:
        """Refuse: a pause replays acts. Holding waits at the begin of a step."""
        raise InternalError(
            f"the engine is never paused (defer={defer}); hold at a step instead"
        )

    def _stamp(self) -> float:
        loop = self.loop
        return loop.stamp() if isinstance(loop, LabTimeLoop) else 0.0


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


class Host:
    """Owns a lab-time loop, its thread, and the RunEngine that runs on it.

    Args:
        loop: A loop that does not run yet.
    """

    def __init__(self, loop: LabTimeLoop) -> None:
        self.loop = loop
        self.timing = Timing()
        self.steps: list[StepRecord] = []
        self.on_step: Callable[[StepRecord], None] | None = None
        self._recorder: JobRecorder | None = None
        self._open: list[_OpenStep] = []
        self._n_steps: dict[str, int] = {}
        self._abort_reason: str | None = None
        self._is_running = False
        # The first RunEngine starts the loop's thread: it looks the thread up in a
        # table that only it fills.
        self.engine = LabRunEngine(
            loop=loop, context_managers=[], call_returns_result=True
        )
        self._thread = self.engine._th
        self.engine.register_command("step_begin", self._begin_step)
        self.engine.register_command("step_end", self._end_step)
        self.engine.register_command("step_failed", self._fail_step)
        self.engine.register_command("settle", self._settle_step)
        self.engine.register_command("compute", self._compute)
        self.engine.subscribe(self._record_document)

    # -- the loop --------------------------------------------------------------------

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, from another thread, and return its result.

        Raises:
            InternalError: If the loop has ended, so that nothing can be done.
        """
        self._check_alive(work)

        async def run_actively() -> T:
            with self.loop.active():
                return await work

        future = asyncio.run_coroutine_threadsafe(run_actively(), self.loop)
        try:
            while not concurrent.futures.wait([future], _LOOK_WALL_S).done:
                self._check_alive(work)
            return future.result()
        except BaseException:
            future.cancel()  # interrupted: what comes next must find the loop free
            raise

    def _check_alive(self, work: Coroutine[Any, Any, Any]) -> None:
        if not self._thread.is_alive():
            work.close()
            raise InternalError(
                "the loop of this lab has ended, so its devices cannot be reached; "
                "see to what is hot by hand"
            )

    def end_tasks(self) -> None:
        """Cancel every task on the loop, and wait until all have ended."""

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.call(end())

    def close(self) -> None:
        """End what runs on the loop, the loop, and its thread."""
        if self._thread.is_alive():
            self.end_tasks()
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
        self.loop.close()

    # -- running ---------------------------------------------------------------------

    def run(self, plan: Iterable[Msg], recorder: JobRecorder | None = None) -> Any:
        """Run *plan* and return what it returns.

        Args:
            plan: Any Bluesky plan.
            recorder: Keeps documents and steps, and knows them from before.

        Raises:
            AbortedError: If :meth:`abort` was called.
            PPUError: What made the plan fail, if it was an error of PPU's tree.
        """
        loop = self.loop
        self._recorder = recorder
        self._abort_reason = None
        self._is_running = True
        self.steps = []
        self._open = []
        self._n_steps = {}
        self.timing = Timing()
        # Thread start and thread end would race with the jump: time is held until
        # the first message, and again from idle until the call is back.
        releases = [loop.take_hold("the engine is starting")]

        def on_message(_: Msg) -> None:
            timing = self.timing
            timing.last_lab_s, timing.last_wall_s = loop.time(), loop.wall_time()
            if releases and not timing.first_wall_s:
                timing.first_lab_s = timing.last_lab_s
                timing.first_wall_s = timing.last_wall_s
                releases.pop()()

        def on_state(new: str, _: str) -> None:
            if new == "idle":
                releases.append(loop.take_hold("the engine has ended"))

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
            raise _cause_of(exc) from exc
        finally:
            self._is_running = False
            for release in releases:
                release()
            self._recorder = None
        if loop.faults:
            raise loop.faults[0]
        return result.plan_result

    def in_run(
        self, plan: MsgGenerator[T], metadata: dict[str, Any]
    ) -> MsgGenerator[T]:
        """Return *plan* inside a run; its result is kept, unlike bluesky's wrapper."""

        def close_failed(exc: Exception) -> MsgGenerator[None]:
            if isinstance(exc, RequestAbort):
                yield from bps.close_run(exit_status="abort", reason=self._reason or "")
            else:
                cause = str(_cause_of(exc))
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
                contextlib.redirect_stdout(NoticeStream()),
                contextlib.suppress(_ENDED),  # in this moment, by itself
            ):
                if not self.engine._state.is_idle:
                    self.engine.abort(reason)

    def subscribe(self, function: Callable[[str, dict[str, Any]], None]) -> int:
        """Have *function* called with each document; return a token."""
        return int(self.engine.subscribe(function))

    def unsubscribe(self, token: int) -> None:
        """End the subscription of *token*."""
        self.engine.unsubscribe(token)

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
        )
        lab = msg.kwargs["lab"]
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
        if self._recorder is not None:
            begun = await self._recorder.begin(begun.key, step, msg.kwargs["digest"])
        self.steps.append(step)
        if not begun.is_done:
            self._open.append(_OpenStep(begun.key, step, lab))
        self._tell_step(step)
        return begun

    async def _end_step(self, msg: Msg) -> None:
        """Keep a step's result before the plan goes on."""
        ended = self._close_step(msg.kwargs["key"])
        changes, time = _changes_of(ended.lab), self.loop.time()
        if self._recorder is not None:
            await self._recorder.end(ended.path, msg.kwargs["result"], changes, time)
        self._tell_step(ended.step)

    async def _fail_step(self, msg: Msg) -> None:
        """Keep why a step failed."""
        failed = self._close_step(msg.kwargs["key"])
        changes, time = _changes_of(failed.lab), self.loop.time()
        if self._recorder is not None:
            reason = str(_cause_of(msg.kwargs["error"]))
            await self._recorder.fail(failed.path, reason, changes, time)

    async def _settle_step(self, msg: Msg) -> Evidence:
        """Keep what shows whether a step happened, or find out."""
        found: Evidence = msg.kwargs["found"]
        if self._recorder is None:
            raise InternalError("only what is recorded can have been under way")
        return await self._recorder.settle(msg.kwargs["key"], found, self.loop.time())

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
        with self.loop.hold(f"computing {function}"):
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


def _cause_of(exc: BaseException) -> BaseException:
    """Return the error of PPU's tree behind *exc*, or what caused it."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, PPUError):
            return cause
        deeper = cause.__cause__ or cause.__context__
        if deeper is None:
            return cause
        cause = deeper
    return exc
