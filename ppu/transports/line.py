"""Line-oriented text over any byte link."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ppu.core.errors import MalformedReply, UnencodableRequest
from ppu.transports.confirm import confirm
from ppu.transports.in_step import InStep
from ppu.transports.link import Allowance, ByteLink
from ppu.transports.serial import SerialConnection, SerialLink
from ppu.transports.tcp import TcpConnection, TcpLink
from ppu.transports.terminal import TerminalConnection, TerminalLink

__all__ = ["LineClient", "LineProbe"]

T = TypeVar("T")

_LONGEST_LINE = 65536


@dataclass(frozen=True)
class LineProbe:
    """A harmless question whose answer is no answer to anything else.

    Instruments answer in order: once it is answered, so is all that was asked before.

    Args:
        command: The question; its answer is one line.
        is_own: Whether a line is the answer to it.
    """

    command: str
    is_own: Callable[[str], bool]


class LineClient:
    """Asks in lines of text and reads lines of text.

    Args:
        device: Name of the device, for errors.
        connection: Serial line, TCP address, or the terminal.
        terminator: Ends each line that is sent, and each that is received.
        answer_end: What ends each line that is received, if that is less; what is left
            of *terminator* is dropped.
        deadline_s: Real-world time for one exchange [s].
        slowest_reply_s: Longest reply time known of this instrument [s].
        probe: What to ask after a time-out to see that answers fit again; without
            one, the first answer after a time-out is only believed if no other
            follows, which takes longer and may fail.
        silence_s: Real-world silence that ends an answer, for an instrument that ends
            no line [s]; by default *terminator* ends each.
        is_kept_open: False for a TCP server that serves one client at a time, or one
            exchange a connection.
    """

    def __init__(
        self,
        device: str,
        connection: SerialConnection | TcpConnection | TerminalConnection,
        *,
        terminator: bytes = b"\r\n",
        answer_end: bytes | None = None,
        deadline_s: float = 1.0,
        slowest_reply_s: float | None = None,
        probe: LineProbe | None = None,
        silence_s: float | None = None,
        is_kept_open: bool = True,
    ) -> None:
        self.probe = probe
        self.device = device
        self.terminator = terminator
        self._answer_end = answer_end or terminator
        self._rest = terminator.removeprefix(self._answer_end)
        self.link: ByteLink
        if isinstance(connection, SerialConnection):
            self.link = SerialLink(
                device,
                connection,
                deadline_s=deadline_s,
                slowest_reply_s=slowest_reply_s,
            )
        elif isinstance(connection, TerminalConnection):
            self.link = TerminalLink(device, connection)
        else:
            self.link = TcpLink(
                device,
                connection,
                deadline_s=deadline_s,
                slowest_reply_s=slowest_reply_s,
                is_kept_open=is_kept_open,
            )
        self.link.silence_s = silence_s
        self.link.expects_late_replies = probe is None
        self._in_step = InStep(self.link)

    async def ask(
        self,
        command: str,
        *,
        is_safe: bool = True,
        is_question: bool | None = None,
        is_last: Callable[[str], bool] | None = None,
        deadline_lab_s: float | None = None,
    ) -> list[str]:
        """Send *command* and return the lines of its answer, without terminators.

        It takes at most twice its deadline (see :class:`~ppu.transports.link.Link`).

        Args:
            command: The text to send; ASCII.
            is_safe: Whether it may be sent again after a failure.
            is_question: Whether it changes nothing; by default whether it is safe.
            is_last: Tells whether a line ends the answer; by default the first does.
            deadline_lab_s: Lab time to wait instead of the link's deadline [s].

        Raises:
            TransportError: No complete answer.
            MalformedReply: The answer is not ASCII or never ends.
        """
        if not (is_safe if is_question is None else is_question):
            self.link.check_change()
        allowance = self.link.allowance(deadline_lab_s)
        return await self._ask(command, is_safe, is_last, deadline_lab_s, allowance)

    async def tell(self, command: str) -> None:
        """Send *command*, which changes something and is not answered, once.

        Raises:
            MalformedReply: It was answered after all.
            TransportError: It could not be sent.
        """
        self.link.check_change()
        allowance = self.link.allowance()
        if self.probe is not None and self.link.was_late:
            await self._get_in_step(self.probe, allowance)
        await self.link.send(self._encode(command), allowance=allowance)

    def _encode(self, command: str) -> bytes:
        try:
            return command.encode("ascii") + self.terminator
        except UnicodeEncodeError as exc:
            raise UnencodableRequest(
                f"{self.device}: only ASCII can be sent, not {command!r}"
            ) from exc

    async def ask_confirmed(
        self,
        command: str,
        parse: Callable[[list[str]], T],
        *,
        agree: Callable[[T, T], bool] = operator.eq,
        is_last: Callable[[str], bool] | None = None,
        deadline_lab_s: float | None = None,
    ) -> T:
        """Ask until three answers in a row agree, for values that are acted upon.

        Text has no checksum: a flipped bit may make another value of it. All of it
        takes at most twice the deadline.

        Args:
            command: A harmless question.
            parse: Makes the value of an answer's lines.
            agree: Whether two values say the same; see
                :func:`~ppu.transports.confirm.confirm`.
            is_last: Tells whether a line ends the answer.
            deadline_lab_s: Lab time to wait instead of the link's deadline [s].

        Raises:
            InstrumentError: The instrument refused each time.
            TransportError: No complete answer.
            MalformedReply: The answers keep differing.
        """
        allowance = self.link.allowance(deadline_lab_s)

        return await confirm(
            self.device,
            lambda: self._ask(command, True, is_last, deadline_lab_s, allowance),
            parse,
            agree,
        )

    async def _ask(
        self,
        command: str,
        is_safe: bool,
        is_last: Callable[[str], bool] | None,
        deadline_lab_s: float | None,
        allowance: Allowance,
    ) -> list[str]:
        request = self._encode(command)
        probe = self.probe
        # More than one answer to a probe may still be under way.
        is_stray = None
        if probe is not None and command != probe.command:
            is_stray = probe.is_own

        def decode(buffer: bytearray) -> list[str] | None:
            return self._take_lines(buffer, is_last, is_stray, may_skip=not is_safe)

        if probe is not None and self.link.was_late:
            await self._get_in_step(probe, allowance)
        lines = await self.link.exchange(
            request,
            decode,
            is_safe=is_safe,
            deadline_lab_s=deadline_lab_s,
            allowance=allowance,
        )
        if is_stray is not None:
            self._in_step.note_answer()
        return lines

    async def _get_in_step(self, probe: LineProbe, allowance: Allowance) -> None:
        """Ask the probe and drop whatever comes before its answer."""

        def decode(buffer: bytearray) -> list[str] | None:
            return self._take_lines(buffer, probe.is_own)

        async def ask() -> bool:
            await self.link.exchange(
                self._encode(probe.command),
                decode,
                is_safe=True,
                allowance=allowance,
            )
            return True

        await self._in_step.regain(ask)

    def _take_lines(
        self,
        buffer: bytearray,
        is_last: Callable[[str], bool] | None,
        is_stray: Callable[[str], bool] | None = None,
        *,
        may_skip: bool = True,
    ) -> list[str] | None:
        """Take an answer from *buffer*, None while it is incomplete.

        Args:
            buffer: What came.
            is_last: Tells whether a line ends the answer.
            is_stray: Tells whether a line belongs to another request.
            may_skip: Whether such a line is harmless. Where answers change places,
                what follows it may belong to another request, too; but a command that
                must not be repeated is better served by any answer.
        """
        end = self._answer_end
        if self.link.silence_s is not None and not buffer.endswith(end):
            buffer += end  # nothing more comes
        *raw, _ = bytes(buffer).split(end)
        lines = []
        n_used = 0
        for piece in raw:
            try:
                line = piece.removeprefix(self._rest).decode("ascii")
            except UnicodeDecodeError as exc:
                raise MalformedReply(f"not text: {piece.hex(' ')}") from exc
            n_used += len(piece) + len(end)
            if is_stray is not None and is_stray(line):
                if not may_skip:
                    raise MalformedReply(f"{line!r} answers an earlier question")
                continue
            lines.append(line)
            if is_last is None or is_last(line):
                del buffer[:n_used]
                return lines
        if len(buffer) > _LONGEST_LINE:
            raise MalformedReply(f"an answer of more than {_LONGEST_LINE} bytes")
        return None
