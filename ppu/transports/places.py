"""Where instruments are, in words that do not depend on how somebody calls the place.

Two lab files may name one serial port by two paths, and one host by two names. What is
the same place has the same words here, so that one process can have it for itself.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat

__all__ = ["host_places", "port_places"]


def port_places(path: str) -> frozenset[str]:
    """Return the place of a serial port, the same for every path that leads to it.

    Example:
        >>> port_places("/dev/../dev/null") == port_places("/dev/null")
        True
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - follows links, and names the device itself
    except OSError:  # unplugged: its name is all there is
        return frozenset({f"serial {os.path.realpath(path)}"})
    if stat.S_ISCHR(found.st_mode):
        number = found.st_rdev
        return frozenset({f"serial device {os.major(number)}:{os.minor(number)}"})
    return frozenset({f"serial {os.path.realpath(path)}"})


def host_places(host: str, port: int) -> frozenset[str]:
    """Return the places of a TCP port: each address that its host's name leads to.

    Every address of this computer is the same place. A name that leads nowhere now is
    a place of its own.

    Example:
        >>> host_places("localhost", 502) == host_places("127.0.0.1", 502)
        True
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return frozenset({f"tcp {host.lower().rstrip('.')}:{port}"})
    return frozenset(f"tcp {_host_of(str(one[4][0]))}:{port}" for one in found)


def _host_of(address: str) -> str:
    """Return what to call an address: all of this computer's alike."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    known = parsed if mapped is None else mapped
    if known.is_loopback or known.is_unspecified or _is_own(str(known)):
        return "this computer"
    return str(known)


def _is_own(address: str) -> bool:
    """Whether *address* is one of this computer's: only these can be listened at."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
