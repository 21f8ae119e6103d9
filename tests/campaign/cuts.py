"""Let a process die at every commit of plans made at random, thousands of times.

Each plan has steps of every kind, some within others, some that fail and are tried
again or skipped. For each commit of each plan the process dies just before it and just
after it; another one goes on. Whatever died when: the result and the journal must be
those of an uninterrupted run, and nothing must have been done twice.

Run by `make campaign-cuts`; the tests cut a few plans only.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path

from durable_plans import RandomPlan, World, cut_everywhere
from pages import replace_section
from ppu.core.labtime import LabTimeLoop, stopwatch
from ppu.engine.host import Host

HEADING = "## A process that dies at every commit"


def main() -> int:
    """Run the campaign; return 1 if anything was lost or done twice."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cuts", type=int, default=5000, help="how many at least")
    parser.add_argument("--page", type=Path, help="page of figures to write to")
    options = parser.parse_args()
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    elapsed, counted, kinds = stopwatch(), Counter[str](), Counter[str]()
    host = Host(LabTimeLoop(None))
    seed = 0
    try:
        while counted["cuts"] < options.cuts:
            with tempfile.TemporaryDirectory() as folder:
                counted += cut_everywhere(host, Path(folder), seed)
            kinds.update(RandomPlan(seed, World()).ops)
            seed += 1
            sys.stderr.write(f"\r{counted['cuts']} cuts of {seed} plans ")
    finally:
        host.close()
    sys.stderr.write("\n")
    text = (
        f"{counted['cuts']:,} cuts of {seed} plans with {counted['works']:,} commits "
        f"({', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}): 0 lost, 0 "
        "irreversible acts repeated, 0 results twice, every journal that of an "
        f"uninterrupted run; {counted['questions']:,} questions to a person; "
        f"{elapsed():.0f} s"
    )
    sys.stdout.write(text + "\n")
    if options.page is not None:
        replace_section(
            options.page, HEADING, f"{HEADING}\n\n`make campaign-cuts`: {text}."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
