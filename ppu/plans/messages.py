"""Bluesky's messages and plan stubs, loaded when a plan yields its first message.

Whoever only lists protocols or checks parameters never waits for Bluesky to load. Type
checkers see Bluesky's own names.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["Msg", "MsgGenerator", "bps", "utils"]

if TYPE_CHECKING:
    from bluesky import plan_stubs as bps
    from bluesky import utils
    from bluesky.utils import Msg, MsgGenerator
else:

    class _Later:
        """A module that is loaded when one of its names is used."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            found = getattr(importlib.import_module(self._name), name)
            setattr(self, name, found)
            return found

    bps = _Later("bluesky.plan_stubs")
    utils = _Later("bluesky.utils")

    def Msg(*arguments: Any, **options: Any) -> Any:  # noqa: N802 - it is Bluesky's Msg
        """Return a message of Bluesky."""
        return utils.Msg(*arguments, **options)

    MsgGenerator = Generator[Any, Any, TypeVar("T")]
