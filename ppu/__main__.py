"""The ``ppu`` command."""

from __future__ import annotations

import os
import sys

from ppu.core.labtime import stopwatch
from ppu.core.notices import tell
from ppu.core.stopping import (
    INTERRUPTED_CODE,
    Interrupted,
    ignore_stop_signals,
    raise_on_stop_signal,
)

ELAPSED = stopwatch()
"""Wall time since the command began [s]; started before anything heavy loads."""


def main() -> None:
    """Run the command line and exit with its code."""
    # Our matrices are small: more threads only wait for each other, and on a busy
    # machine make the analysis five times slower.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        raise_on_stop_signal()
        from ppu.cli.main import run_app  # noqa: PLC0415 - the stopwatch runs first

        code = run_app(ELAPSED)
    except Interrupted:
        tell("interrupted")
        code = INTERRUPTED_CODE
    ignore_stop_signals()
    sys.exit(code)


if __name__ == "__main__":
    main()
