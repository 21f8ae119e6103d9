"""Checks jobs against a lab's description, and compiles those that are in order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from ppu.core.errors import (
    ConfigurationError,
    LimitError,
    NoResourceError,
    NotFoundError,
    PPUError,
)
from ppu.operations.description import LabDescription
from ppu.operations.views import CompiledJob
from ppu.plans.protocol import RegisteredProtocol

__all__ = ["Wish", "check", "compile_all", "compile_job", "list_faults"]

_MOST_TOLD: Final = 50
"""Faults of many jobs; more are mostly the same mistake."""


@dataclass(frozen=True)
class Wish:
    """Parameters of one job among several.

    Attributes:
        parameters: Values by name.
        where: Where they stand, for errors; empty for a single job.
        places: Where single ones stand, such as a cell or a line of a file.
        faults: What was found wrong with it already.
    """

    parameters: Mapping[str, Any]
    where: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


def check(
    description: LabDescription,
    protocol: RegisteredProtocol,
    parameters: Mapping[str, Any],
) -> None:
    """Refuse parameters that the protocol or the lab does not allow.

    Raises:
        ConfigurationError: With every fault of the parameters.
        LimitError: If a limit of the lab, a capacity or its list of powders forbids it.
    """
    compile_job(description, protocol, parameters)


def compile_job(
    description: LabDescription,
    protocol: RegisteredProtocol,
    parameters: Mapping[str, Any],
) -> CompiledJob:
    """Return a job that is in order.

    Raises:
        ConfigurationError: As :func:`check`.
        LimitError: As :func:`check`.
    """
    return compile_all(description, protocol, [Wish(parameters)])[0]


def compile_all(
    description: LabDescription, protocol: RegisteredProtocol, wishes: Sequence[Wish]
) -> list[CompiledJob]:
    """Return several jobs of one protocol, if all are in order.

    Raises:
        ConfigurationError: With the faults of all.
        LimitError: If the lab allows none of what is wrong.
    """
    faults: list[PPUError] = []
    compiled: list[CompiledJob] = []
    for wish in wishes:
        faults += map(ConfigurationError, wish.faults)
        try:
            parameters = _parse(protocol, wish)
            stock = _check_in_lab(description, protocol, parameters, wish.where)
        except (ConfigurationError, NotFoundError, LimitError) as exc:
            faults.append(exc)
        else:
            compiled.append(_compiled(description, protocol, parameters, stock))
    if faults:
        is_limit = all(isinstance(fault, LimitError) for fault in faults)
        kind = LimitError if is_limit else ConfigurationError
        if all(isinstance(fault, NoResourceError) for fault in faults):
            kind = NoResourceError
        raise kind(
            list_faults([str(fault) for fault in faults]),
            advice=[one for fault in faults for one in fault.advice],
            field=faults[0].field,
        )
    return compiled


def list_faults(faults: list[str]) -> str:
    """Return faults, a line each; of very many the first ones and their number."""
    more = len(faults) - _MOST_TOLD
    if more > 0:
        faults = [*faults[:_MOST_TOLD], f"and {more} more"]
    return "\n".join(faults)


def _parse(protocol: RegisteredProtocol, wish: Wish) -> BaseModel:
    given: object = wish.parameters  # JSON from elsewhere may be anything
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"{wish.where or f'protocol {protocol.name}'}: parameters should be a "
            f"mapping of names to values; given was {given!r:.50}"
        )
    return protocol.parse(wish.parameters, wish.places, wish.where)


def _check_in_lab(
    description: LabDescription,
    protocol: RegisteredProtocol,
    parameters: BaseModel,
    where: str,
) -> dict[str, float]:
    """Refuse what the lab does not allow; return what it uses of each powder [g]."""
    try:
        powders = protocol.stock_for(parameters)
        known = description.file.stock
        if unknown := sorted(set(powders) - set(known)):
            raise LimitError(
                f"there is no {', '.join(unknown)} in stock; in stock are "
                f"{', '.join(sorted(known)) or 'none'}",
                field=unknown[0],
            )
        if protocol.check is not None and description.can_check:
            protocol.check(description.view(), parameters)
    except (ConfigurationError, NotFoundError, LimitError) as exc:
        prefix = f"{where}: " if where else ""
        raise type(exc)(f"{prefix}{exc}", advice=exc.advice, field=exc.field) from exc
    return powders


def _compiled(
    description: LabDescription,
    protocol: RegisteredProtocol,
    parameters: BaseModel,
    stock: dict[str, float],
) -> CompiledJob:
    content = parameters.model_dump(mode="json")
    told = [protocol.name, protocol.version, content, description.digest]
    text = json.dumps(told, separators=(",", ":"), sort_keys=True)
    return CompiledJob(
        protocol=protocol.name,
        version=protocol.version,
        parameters=content,
        stock=stock,
        lab=description.file.lab,
        lab_digest=description.digest,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )
