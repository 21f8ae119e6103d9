"""Keeps what people did to samples, containers, stock and devices.

If a cell works on the store it is asked to take note, because it has a ledger of its
own, and it may refuse; without one it is kept at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection

from ppu.core.errors import ConfigurationError, NotFoundError
from ppu.core.names import checked_name
from ppu.core.validation import UnfitError, fill
from ppu.operations.access import change
from ppu.operations.description import kept_description
from ppu.operations.views import AskedView
from ppu.store import custody, stock, tag_outs
from ppu.store.requests import (
    CorrectStock,
    MoveContainer,
    Refill,
    ReleaseSample,
    ReturnDevice,
    TagOut,
)
from ppu.store.store import Store

__all__ = [
    "Correction",
    "correct_location",
    "correct_stock",
    "refill",
    "release",
    "return_device",
    "say",
    "tag_out",
]

Correction = (
    MoveContainer | ReleaseSample | Refill | CorrectStock | TagOut | ReturnDevice
)
"""What people say that they did or found."""

T = TypeVar("T", bound=Correction)


def say(store: Store, said: Sequence[Correction], by: str) -> list[AskedView]:
    """Keep all that a person says, or ask the cell, which sees to each by itself.

    See :func:`ppu.operations.access.await_outcomes` for what the cell makes of it.

    Raises:
        NotFoundError: If something is not there; nothing is kept or asked.
        ConfigurationError: If something cannot be; nothing is kept or asked.
        ConflictError: If the present state forbids something; nothing is kept or asked.
    """
    checked_name("who says it", by)
    meant = [_meant(type(one), one.content) for one in said]
    known = _devices_of(store)

    def work(connection: Connection, now: float) -> list[AskedView]:
        return [_say(connection, one, by, now, known) for one in meant]

    return change(store, work)


def _meant(kind: type[T], content: Mapping[str, Any]) -> T:
    """Return what a person says, if that can be.

    Raises:
        ConfigurationError: If a number is none, or a text cannot be shown.
    """
    try:
        return fill(kind, content)
    except UnfitError as exc:
        raise ConfigurationError(str(exc)) from None


def _devices_of(store: Store) -> list[str]:
    """Return the devices of the lab that a store is of, as far as they are known."""
    try:
        return list(kept_description(store).devices)
    except NotFoundError:  # before its first cell
        return []


def _say(
    connection: Connection, said: Correction, by: str, now: float, known: list[str]
) -> AskedView:
    lacking: dict[int, float] = {}
    number: int | None
    match said:
        case MoveContainer():
            number = custody.ask_move(
                connection, said.container, said.location, by, now
            )
        case ReleaseSample():
            number = custody.ask_release(connection, said.sample, by, now)
        case Refill():
            number = stock.ask_refill(
                connection, said.powder, said.mass_g, by, now, said.note
            )
        case CorrectStock():
            lacking = stock.lacking(connection, said.powder, said.mass_g)
            number = stock.ask_correction(
                connection, said.powder, said.mass_g, by, now, said.note
            )
        case TagOut() | ReturnDevice():
            number = tag_outs.ask(connection, said, by, now, known)
    return AskedView(number=number, is_done=number is None, lacking_g=lacking)


def correct_location(store: Store, container: str, location: str, by: str) -> AskedView:
    """Say where a container really is; as :func:`say`."""
    said = _meant(MoveContainer, {"container": container, "location": location})
    return say(store, [said], by)[0]


def release(store: Store, sample: str, by: str) -> AskedView:
    """Say that a sample is gone and its containers are clean; as :func:`say`."""
    return say(store, [_meant(ReleaseSample, {"sample": sample})], by)[0]


def refill(
    store: Store, powder: str, mass_g: float, by: str, note: str = ""
) -> AskedView:
    """Say that powder was added [g]; as :func:`say`."""
    said = _meant(Refill, {"powder": powder, "mass_g": mass_g, "note": note})
    return say(store, [said], by)[0]


def correct_stock(
    store: Store, powder: str, mass_g: float, by: str, note: str
) -> AskedView:
    """Say how much of a powder is really there [g], and why; as :func:`say`."""
    said = _meant(CorrectStock, {"powder": powder, "mass_g": mass_g, "note": note})
    return say(store, [said], by)[0]


def tag_out(store: Store, device: str, reason: str, by: str) -> AskedView:
    """Put a device out of service: no job takes it; as :func:`say`.

    What is under way on it goes on, and nothing is switched off.
    """
    said = _meant(TagOut, {"device": device, "reason": reason})
    return say(store, [said], by)[0]


def return_device(store: Store, device: str, by: str, note: str = "") -> AskedView:
    """Let jobs take a device again that was tagged out; as :func:`say`."""
    said = _meant(ReturnDevice, {"device": device, "note": note})
    return say(store, [said], by)[0]
