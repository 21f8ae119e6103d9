"""A person as an instrument: carries containers, grinds, mounts powder.

The same sentences go to a person at a terminal and to the simulated technician. The
answer is ``done``, or ``refused`` and a reason.
"""

from ppu_drivers.operator._codec import parse_answer, word_task
from ppu_drivers.operator._driver import PersonAtTerminal, PersonLimits, PersonSettings

__all__ = [
    "PersonAtTerminal",
    "PersonLimits",
    "PersonSettings",
    "parse_answer",
    "word_task",
]
