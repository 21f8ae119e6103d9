"""The messages of the Aeris: framed, read and refused."""

from __future__ import annotations

import re
from typing import Final

from ppu.core.errors import InstrumentError, MalformedReply
from ppu.core.tasks import ScanRequest

__all__ = [
    "field_of",
    "program_name",
    "refuse_fatal",
    "take_message",
]

_LONGEST_REPLY: Final = 1024


def take_message(buffer: bytearray) -> str | None:
    """Return the message at the front of *buffer*, None while it is incomplete.

    Raises:
        MalformedReply: If it can never become one.

    Example:
        >>> take_message(bytearray(b"@STATUS@UNIT=xrd@READY=yes@END"))
        '@STATUS@UNIT=xrd@READY=yes@END'
    """
    if not buffer.startswith(b"@"):
        raise MalformedReply(f"no message: {bytes(buffer[:80])!r}")
    end = buffer.find(b"@END")
    if end < 0:
        if len(buffer) > _LONGEST_REPLY:
            raise MalformedReply(f"a message of more than {_LONGEST_REPLY} bytes")
        return None
    try:
        return bytes(buffer[: end + len(b"@END")]).decode("ascii")
    except UnicodeDecodeError as exc:
        raise MalformedReply(f"not text: {bytes(buffer[:80])!r}") from exc


def field_of(message: str, key: str) -> str | None:
    """Return the value of *key* in *message*, None if it is not there.

    Example:
        >>> field_of("@STATUS@LOCATION=0,2@STATE=free@END", "STATE")
        'free'
    """
    match = re.search(rf"@{re.escape(key)}=([^@]*)(?=@)", message)
    return None if match is None else match[1]


def refuse_fatal(message: str) -> str:
    """Return *message*.

    Raises:
        InstrumentError: If it contains ``fatal``, as every refusal does.
    """
    if "fatal" in message:
        raise InstrumentError(f"the Aeris refused: {message}", "fatal")
    return message


def program_name(request: ScanRequest) -> str:
    """Return the name of the scan program that measures *request*.

    Example:
        >>> program_name(ScanRequest("a", 10.0, 100.0, 480.0))
        '10-100_8-minutes'
    """
    minutes = request.duration_s / 60
    return f"{request.start_deg:g}-{request.stop_deg:g}_{minutes:g}-minutes"
