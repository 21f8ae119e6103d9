"""Hands in a cell's own twin: what people say they did is done in its world, too."""

from __future__ import annotations

from collections.abc import Callable

from ppu.core.errors import ConfigurationError, ConflictError
from ppu.core.labtime import LabTimeLoop
from ppu.core.remedies import Advice
from ppu.core.simulation import ActRefusedError
from ppu.twin.bench import Bench

__all__ = ["TwinHands"]


class TwinHands:
    """Does in a twin what people say was done: nobody else has hands there.

    Args:
        bench: The cell's own bench, if it has one.
        loop: The lab's loop.
    """

    def __init__(self, bench: Bench | None, loop: LabTimeLoop) -> None:
        self._bench = bench
        self._loop = loop

    def find_act(self, act: str, remedy: Advice) -> Callable[..., None]:
        """Return what does an act in the twin's world.

        Args:
            act: What a person says was done: ``carry``, ``empty`` or ``refill``.
            remedy: What helps if the twin refuses.

        Returns:
            What does it, or raises ConflictError if it cannot be; does nothing
            without a bench of the cell's own.

        Raises:
            ConfigurationError: If the world of the twin knows no such act.
        """
        if self._bench is None:
            return lambda *_: None
        world = self._bench.world
        known: Callable[..., None] | None = getattr(world, act, None)
        if known is None:
            raise ConfigurationError(
                f"the twin's world {type(world).__name__} has no {act}() for what "
                "people do, which ppu.core.simulation.SimulatedWorld describes; add it"
            )

        def do(*arguments: object) -> None:
            try:
                known(self._loop.time(), *arguments)
            except ActRefusedError as exc:
                raise ConflictError(
                    f"this cannot be done in the cell's twin: {exc}", advice=[remedy]
                ) from exc

        return do
