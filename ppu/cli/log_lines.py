"""Which log lines a command shows on standard error."""

from __future__ import annotations

import logging
import sys

from typing_extensions import override

from ppu.core.names import shown

__all__ = ["set_up_logging"]


class _OneLine(logging.Formatter):
    """A record is one line, whatever an instrument or a person called a thing."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return shown(super().format(record))


def set_up_logging(*, verbose: bool) -> None:
    """Send PPU's log lines to standard error; --verbose shows each wire exchange."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(message)s"))
    for name, level in (
        ("ppu.link", logging.WARNING),
        ("ppu.wire", logging.DEBUG if verbose else logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    # Their own accounts of failures; ours name the device and what to do.
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
