"""The RunEngine of a lab: documents in lab time, no pauses, no fatal subscribers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from bluesky.run_engine import RunEngine
from bluesky.utils import Msg

from ppu.core.errors import ConfigurationError
from ppu.core.labtime import LabTimeLoop
from ppu.core.notices import Bystander, tell
from ppu.core.running_plan import RunningPlan
from ppu.engine.library_adapter import lend_lab_time, let_drawings_wait

__all__ = ["LabRunEngine"]

_NOWHERE = logging.NullHandler()
_ENDING_S: Final = 60.0
"""How long what a plan left is waited for once it was cancelled [s]."""


class LabRunEngine(RunEngine):
    """A RunEngine whose documents carry lab time, and which is never paused.

    Whoever subscribes to its documents disturbs no plan: errors are told to people.
    """

    def __init__(self, loop: LabTimeLoop) -> None:
        lend_lab_time()
        # Its account of a failure is a traceback; ours says what to do.
        logging.getLogger("bluesky").addHandler(_NOWHERE)
        self._declared: set[tuple[Any, int]] = set()
        """Flyers whose stream a plan has declared, by run."""
        self._begun: dict[asyncio.Task[Any], str] = {}
        """What the plan has begun and that may go on, and what it is."""
        self.on_use: Callable[[str, str], None] | None = None
        """Told which verb of which device a plan is about to use; may refuse."""
        self.before_command: Callable[[], Awaitable[None]] | None = None
        """Waits until a plan may begin something new on a device."""
        super().__init__(loop=loop, context_managers=[], call_returns_result=True)

    def subscribe(self, func: Any, name: Any = "all") -> Any:
        """Have *func* called with name and content of documents."""
        let_drawings_wait()
        return super().subscribe(Bystander("the documents", func), name)

    def subscribe_strictly(self, func: Callable[[str, dict[str, Any]], None]) -> None:
        """Have *func* called with documents; its errors end the plan."""
        super().subscribe(func)

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
        """Refuse: a pause replays acts. Holding waits at the begin of a step.

        Raises:
            ConfigurationError: Always.
        """
        word = "deferred_pause" if defer else "pause"
        raise ConfigurationError(
            f"a plan cannot `{word}`: what follows a pause would be done again from "
            "the last checkpoint, doses and moves, too. Make a protocol of it, which "
            "is put on hold before its next step; for a time that is known, "
            "`yield from bps.sleep(seconds)`; for a person's act, set an operator"
        )

    async def _pause(self, msg: Msg) -> None:
        self.request_pause(bool(msg.kwargs.get("defer")))

    async def _input(self, msg: Msg) -> None:
        """Refuse to read a terminal while instruments are at work.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            f"a plan cannot ask at the terminal ({msg.kwargs.get('prompt', '')!r}): "
            "set an operator of the lab, who is asked wherever people are"
        )

    async def _declare_stream(self, msg: Msg) -> Any:
        if msg.kwargs.get("collect"):
            self._declared |= {(msg.run, id(flyer)) for flyer in (msg.obj, *msg.args)}
        return await super()._declare_stream(msg)

    async def _collect(self, msg: Msg) -> Any:
        """Collect, and declare the stream before if the plan does not, as `fly`."""
        if (msg.run, id(msg.obj)) not in self._declared:
            await self._declare_stream(
                Msg(
                    "declare_stream",
                    None,
                    msg.obj,
                    name=msg.obj.name,
                    collect=True,
                    run=msg.run,
                )
            )
        return await super()._collect(msg)

    async def _close_run(self, msg: Msg) -> Any:
        self._declared = {key for key in self._declared if key[0] != msg.run}
        return await super()._close_run(msg)

    # -- what a plan begins ----------------------------------------------------------

    async def _run(self) -> Any:
        """Run the plan; what it leaves begins nothing any more when it is over."""
        plan = RunningPlan(self.on_use)
        plan.begin()
        try:
            return await super()._run()
        finally:
            plan.is_over = True

    async def _set(self, msg: Msg) -> Any:
        await self._wait_to_command()
        return await super()._set(msg)

    async def _trigger(self, msg: Msg) -> Any:
        await self._wait_to_command()
        return await super()._trigger(msg)

    async def _prepare(self, msg: Msg) -> Any:
        await self._wait_to_command()
        return await super()._prepare(msg)

    async def _kickoff(self, msg: Msg) -> Any:
        await self._wait_to_command()
        return await super()._kickoff(msg)

    async def _wait_to_command(self) -> None:
        if self.before_command is not None:
            await self.before_command()

    def _add_status_to_group(
        self, obj: Any, status_object: Any, group: str, action: str
    ) -> None:
        super()._add_status_to_group(obj, status_object, group, action)
        task = getattr(status_object, "task", None)  # classic ophyd has none
        if isinstance(task, asyncio.Task) and not task.done():
            self._begun[task] = f"{getattr(obj, 'name', obj)}: {action}"
            task.add_done_callback(lambda done: self._begun.pop(done, None))

    async def _stop_movable_objects(self, *, success: bool = True) -> None:
        """End what the plan began and did not wait for, before anything is made safe.

        It would go on past the plan, and past its devices' safe states.
        """
        left = dict(self._begun)
        for task, what in left.items():
            if self._exit_status == "success":
                tell(f"{what} was not waited for, so it ends with the plan")
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_ENDING_S)
        await super()._stop_movable_objects(success=success)

    def _stamp(self) -> float:
        loop = self.loop
        return loop.stamp() if isinstance(loop, LabTimeLoop) else 0.0
