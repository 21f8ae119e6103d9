"""The queue: jobs come, wait their turn, are claimed by a cell, and end.

Every function works in a transaction of the caller, ``store.write(lambda connection:
submit(connection, request, now))``, so that several changes are kept together or not
at all. Each announces what it changed. *now* is a stamp [s since 1970]; nothing here
reads a clock.
"""

from ppu.store.queue._claiming import (
    Lack,
    adopt,
    claim,
    has_set_aside,
    look_again,
    lose,
    lose_expired,
    lose_leased,
    lose_vanished,
    next_try,
    peek,
    put_back,
    renew,
    set_aside,
    time_deadlines,
)
from ppu.store.queue._finding import find, get
from ppu.store.queue._people import (
    abort,
    cancel,
    expire,
    hold,
    prioritize,
    reorder,
    resume,
)
from ppu.store.queue._states import transition
from ppu.store.queue._submitting import retry, submit, submit_many

__all__ = [
    "Lack",
    "abort",
    "adopt",
    "cancel",
    "claim",
    "expire",
    "find",
    "get",
    "has_set_aside",
    "hold",
    "look_again",
    "lose",
    "lose_expired",
    "lose_leased",
    "lose_vanished",
    "next_try",
    "peek",
    "prioritize",
    "put_back",
    "renew",
    "reorder",
    "resume",
    "retry",
    "set_aside",
    "submit",
    "submit_many",
    "time_deadlines",
    "transition",
]
