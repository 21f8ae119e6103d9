"""Line-oriented text over any byte link."""

from __future__ import annotations

from collections.abc import Callable

from ppu.core.errors import MalformedReply, UnencodableRequest
from ppu.transports.link import ByteLink
from ppu.transports.serial import SerialConnection, SerialLink
from ppu.transports.tcp import TcpConnection, TcpLink
from ppu.transports.terminal import TerminalConnection, TerminalLink

__all__ = ["LineClient"]

_LONGEST_LINE = 65536


class LineClient:
    """Asks in lines of text and reads lines of text.

    Args:
        device: Name of the device, for errors.
        connection: Serial line, TCP address, or the terminal.
        terminator: Ends each line, both ways.
        deadline_s: Real-world time for one exchange [s].
        slowest_reply_s: Longest reply time known of this instrument [s].
    """

    def __init__(
        self,
        device: str,
        connection: SerialConnection | TcpConnection | TerminalConnection,
        *,
        terminator: bytes = b"\r\n",
        deadline_s: float = 1.0,
        slowest_reply_s: float | None = None,
    ) -> None:
        self.device = device
        self.terminator = terminator
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
            )
        self.link.expects_late_replies = True

    async def ask(
        self,
        command: str,
        *,
        is_safe: bool = True,
        is_last: Callable[[str], bool] | None = None,
        deadline_lab_s: float | None = None,
    ) -> list[str]:
        """Send *command* and return the lines of its answer, without terminators.

        Args:
            command: The text to send; ASCII.
            is_safe: Whether it may be sent again after a failure.
            is_last: Tells whether a line ends the answer; by default the first does.
            deadline_lab_s: Lab time to wait instead of the link's deadline [s].

        Raises:
            TransportError: No complete answer.
            MalformedReply: The answer is not ASCII or never ends.
        """
        try:
            request = command.encode("ascii") + self.terminator
        except UnicodeEncodeError as exc:
            raise UnencodableRequest(
                f"{self.device}: only ASCII can be sent, not {command!r}"
            ) from exc

        def decode(buffer: bytearray) -> list[str] | None:
            return self._take_lines(buffer, is_last)

        return await self.link.exchange(
            request, decode, is_safe=is_safe, deadline_lab_s=deadline_lab_s
        )

    def _take_lines(
        self, buffer: bytearray, is_last: Callable[[str], bool] | None
    ) -> list[str] | None:
        *raw, _ = bytes(buffer).split(self.terminator)
        lines = []
        n_used = 0
        for piece in raw:
            try:
                line = piece.decode("ascii")
            except UnicodeDecodeError as exc:
                raise MalformedReply(f"not text: {piece.hex(' ')}") from exc
            lines.append(line)
            n_used += len(piece) + len(self.terminator)
            if is_last is None or is_last(line):
                del buffer[:n_used]
                return lines
        if len(buffer) > _LONGEST_LINE:
            raise MalformedReply(f"an answer of more than {_LONGEST_LINE} bytes")
        return None
