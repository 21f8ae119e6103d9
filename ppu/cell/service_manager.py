"""What a service manager such as systemd is told, if one listens."""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["notify"]

_ADDRESS = "NOTIFY_SOCKET"


def notify(text: str) -> None:
    """Send *text*, such as ``READY=1``, to the service manager, if there is one.

    It is a datagram, as sd_notify(3) describes; one that is lost does no harm.
    """
    address = os.environ.get(_ADDRESS, "")
    if not address:
        return
    if address.startswith("@"):  # a name and no path
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        with contextlib.suppress(OSError):
            sender.sendto(text.encode(), address)
