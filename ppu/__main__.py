"""The ``ppu`` command."""

from __future__ import annotations

from ppu.core.labtime import stopwatch

ELAPSED = stopwatch()
"""Wall time since the command began [s]; started before anything heavy loads."""


def main() -> None:
    """Run the command line."""
    from ppu.cli.main import run_app  # noqa: PLC0415 - the stopwatch runs first

    run_app(ELAPSED)


if __name__ == "__main__":
    main()
