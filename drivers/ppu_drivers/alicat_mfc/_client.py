"""The path to one unit: commands as lines, and answers as lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ppu.core.errors import ReplyTimeout
from ppu.transports.line import LineClient, LineProbe
from ppu.transports.serial import SerialConnection
from ppu_drivers.alicat_mfc._codec import (
    QUESTIONS,
    Command,
    Poll,
    UnitId,
    Word,
    encode,
    is_refusal,
    names_firmware,
)

__all__ = ["AlicatClient"]

T = TypeVar("T")


class AlicatClient:
    """Sends commands, and nothing else, to one unit.

    Every command states an end state, so each may be repeated.

    Args:
        device: Name of the device.
        connection: The serial line.
        unit: Who is meant.
    """

    def __init__(self, device: str, connection: SerialConnection, unit: UnitId) -> None:
        self.unit = unit
        probe = LineProbe(
            encode(unit, Command(Word.FIRMWARE)),
            lambda line: names_firmware(line, unit),
        )
        self._line = LineClient(
            device, connection, terminator=b"\r", deadline_s=1.0, probe=probe
        )
        self.link = self._line.link

    async def ask(self, command: Poll | Command, *, is_vital: bool = True) -> str:
        """Send *command* and return the line that answers it.

        Args:
            command: What to send.
            is_vital: Whether every instrument must answer; else it is asked once,
                since what is not known to it is ignored in silence.
        """
        lines = await self._line.ask(
            encode(self.unit, command),
            is_safe=is_vital,
            is_question=isinstance(command, Poll) or command.word in QUESTIONS,
            is_last=_is_text,
        )
        return lines[-1]

    async def ask_confirmed(
        self,
        command: Poll,
        parse: Callable[[str], T],
        agree: Callable[[T, T], bool],
    ) -> T:
        """Send *command* until three answers in a row agree.

        Args:
            command: What to send.
            parse: Makes a value of the line that answers it.
            agree: Whether two values say the same.
        """
        return await self._line.ask_confirmed(
            encode(self.unit, command),
            lambda lines: parse(lines[-1]),
            agree=agree,
            is_last=_is_text,
        )

    async def ask_table(self, word: Word, last: str | None = None) -> list[str]:
        """Ask for a table and return its rows.

        Captured tables end with an empty line, but no manual promises one: what came
        until the time was up is a table, too, if it has at least two rows.

        Args:
            word: Which table.
            last: What stands in its last row, if that is known.
        """
        rows: dict[str, None] = {}

        def ends(row: str) -> bool:
            # The answer is split anew with each piece of it: rows come repeatedly.
            if not row.strip():
                return len(rows) > 1
            rows[row] = None
            return is_refusal(row) or (last is not None and last in row)

        try:
            await self._line.ask(
                encode(self.unit, Command(word)),
                is_safe=False,
                is_question=True,
                is_last=ends,
            )
        except ReplyTimeout:
            if len(rows) < 2:
                raise
        return list(rows)


def _is_text(line: str) -> bool:
    return bool(line.strip())
