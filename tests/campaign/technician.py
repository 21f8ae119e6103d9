"""Run hundreds of jobs on the bundled lab, in random order, with a seeded technician.

What must be so is said in `many_jobs`. Run by `make campaign-technician`; the tests run
eight gentler ones.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path

from many_jobs import WITHIN_G, run_many
from pages import replace_section
from ppu.core.labtime import stopwatch
from ppu.store.jobs import JobState

HEADING = "## A technician and three hundred jobs"


def main() -> int:
    """Run the campaign; return 1 if anything is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=1e6, help="submit nothing after so long"
    )
    parser.add_argument("--page", type=Path, help="page of figures to write to")
    options = parser.parse_args()
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    elapsed = stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        ran = run_many(
            Path(folder),
            options.jobs,
            options.seed,
            is_over=lambda: elapsed() > 60.0 * options.minutes,
        )
    jobs, found, lab_s, incidents = ran
    states = Counter(str(job.state) for job in jobs)
    why = Counter(job.reason_code for job in jobs if job.state is JobState.FAILED)
    text = (
        f"{len(jobs)} jobs in random order with seed {options.seed} ("
        + ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
        + f"; failed for {dict(sorted(why.items()))}): {found.n_losses} losses as the "
        f"carbonate in the crucible demands within {1000 * WITHIN_G:g} mg, "
        f"{found.n_firings} programs of furnaces with a crucible inside from begin to "
        f"end, belief equal to truth {found.n_compared} times; {len(found.wrong)} "
        f"exceptions; {sum(incidents.values())} incidents; {lab_s / 86400:.0f} days of "
        f"lab time in {elapsed():.0f} s"
    )
    sys.stdout.write(text + "\n")
    for line in [*found.wrong, *map(str, incidents.items())]:
        sys.stdout.write(f"{line}\n")
    for reason, n in Counter(job.reason_text for job in jobs).most_common(12):
        sys.stdout.write(f"{n}: {reason}\n")
    if options.page is not None:
        body = f"{HEADING}\n\n`make campaign-technician`: {text}."
        replace_section(options.page, HEADING, body)
    return int(bool(found.wrong) or states["succeeded"] < len(jobs) // 4)


if __name__ == "__main__":
    sys.exit(main())
