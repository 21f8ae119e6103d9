"""Protocols: registered Bluesky plans with typed parameters and a typed result."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ppu.core.errors import ConfigurationError, InternalError, NotFoundError, nearest
from ppu.core.registry import plug_ins
from ppu.core.validation import UnfitError, fill
from ppu.plans.lab import Lab
from ppu.plans.messages import MsgGenerator
from ppu.plans.report import RunRecord, Section

__all__ = ["ProtocolResult", "RegisteredProtocol", "find_protocol", "protocol"]


class ProtocolResult(BaseModel):
    """Base of typed results: what a protocol returns and ``result.json`` keeps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters_actual: dict[str, Any] = Field(
        default_factory=dict, description="What was realised of the parameters"
    )
    parameters_commanded: tuple[str, ...] = Field(
        default=(),
        description="Those of parameters_actual that instruments were told and nobody "
        "measured",
    )
    not_measured: tuple[str, ...] = Field(
        default=(),
        description="What belongs to the result and nobody measured, in sentences",
    )
    attachments: dict[str, Path] = Field(
        default_factory=dict,
        exclude=True,
        description="Files to keep beside the result, by what they are",
    )

    def summary(self) -> list[str]:
        """Return the lines that tell people what came of it.

        By default one for each field of its own; override it to say it better.
        """
        return [f"{name}: {value}" for name, value in self.own_fields().items()]

    def own_fields(self) -> dict[str, str]:
        """Return the fields that the protocol has added, by name and as people read.

        A report shows them if the protocol has no part of its own in it.
        """
        own = type(self).model_fields.keys() - ProtocolResult.model_fields.keys()
        content = self.model_dump(mode="json")
        return {
            name: _worded(content[name])
            for name in type(self).model_fields
            if name in own and name in content
        }


def _worded(value: Any) -> str:
    """Return plain data as people read it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_worded(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(_worded, value)) or "none"
    return str(value)


Check = Callable[[Lab, Any], None]
Report = Callable[[RunRecord], list[Section]]
Stock = Callable[[Any], Mapping[str, float]]
"""Returns how much of each powder parameters ask for [g]."""


@dataclass(frozen=True)
class RegisteredProtocol:
    """A plan that people can run by name.

    Args:
        name: Its name.
        version: Changes whenever its results may differ.
        plan: The plan itself, called with a lab and its parameters.
        parameters: Model of its parameters.
        result: Model of its result.
        hazards: What can hurt people or things.
        check: Refuses what the lab does not allow, before anything moves.
        report: Makes the protocol's own part of a report of what a run left behind.
        stock: Says what it will use, so that it can be allocated.
    """

    name: str
    version: str
    plan: Callable[[Lab, Any], MsgGenerator[Any]]
    parameters: type[BaseModel]
    result: type[ProtocolResult]
    hazards: tuple[str, ...] = ()
    check: Check | None = None
    report: Report | None = None
    stock: Stock | None = None
    summary: str = field(default="")

    def __call__(self, lab: Lab, parameters: Any) -> MsgGenerator[Any]:
        """Return the plan, so that protocols can be parts of other plans."""
        return self.plan(lab, parameters)

    def stock_for(self, parameters: Any) -> dict[str, float]:
        """Return how much of each powder *parameters* ask for [g], none if unknown."""
        return {} if self.stock is None else dict(self.stock(parameters))

    def parse(
        self,
        values: Mapping[str, Any],
        where: Mapping[str, str] | None = None,
        otherwise: str = "",
    ) -> BaseModel:
        """Return *values* as this protocol's parameters.

        Args:
            values: The parameters by name.
            where: Where those stand that came from a file or an option.
            otherwise: Where the others stand, for errors; else the protocol is named.

        Raises:
            ConfigurationError: With every fault: where, which parameter, what was
                given, what is allowed.
        """
        try:
            return fill(self.parameters, values)
        except UnfitError as exc:
            around = otherwise or f"protocol {self.name}"
            told = []
            for place, text in exc.faults:
                name = str(place[0]) if place else ""
                at = (where or {}).get(name, around)
                # Nobody needs to read its name twice.
                named = f"{name}: " if at.endswith(f" {name}") else ""
                told.append(f"{at}: {text.removeprefix(named)}")
            place = exc.faults[0][0]
            raise ConfigurationError(
                "\n".join(told), field=str(place[0]) if place else None
            ) from None


def protocol(
    *,
    version: str,
    hazards: tuple[str, ...] = (),
    check: Check | None = None,
    report: Report | None = None,
    stock: Stock | None = None,
) -> Callable[[Callable[..., MsgGenerator[Any]]], RegisteredProtocol]:
    """Register a plan as a protocol.

    The plan takes a :class:`Lab` and one pydantic model of parameters, and returns a
    :class:`ProtocolResult`; both types are read from its annotations.

    Args:
        version: Changes whenever results may differ.
        hazards: What can hurt people or things, as sentences.
        check: Raises LimitError or ConfigurationError for parameters that the lab
            does not allow; runs before anything moves.
        report: Makes the protocol's own part of the report.
        stock: Returns how much of each powder parameters ask for [g]; that much is
            allocated for a job when it is submitted.
    """

    def register(plan: Callable[..., MsgGenerator[Any]]) -> RegisteredProtocol:
        hints = typing.get_type_hints(plan)
        names = list(inspect.signature(plan).parameters)
        if len(names) != 2:
            raise InternalError(f"protocol {plan.__name__} takes a lab and parameters")
        result = typing.get_args(hints["return"])[-1]
        return RegisteredProtocol(
            name=plan.__name__,
            version=version,
            plan=plan,
            parameters=hints[names[1]],
            result=result,
            hazards=hazards,
            check=check,
            report=report,
            stock=stock,
            summary=(inspect.getdoc(plan) or "").partition("\n")[0],
        )

    return register


@cache
def known_protocols() -> dict[str, RegisteredProtocol]:
    """Return every protocol of the installed packages, by name."""
    found: dict[str, RegisteredProtocol] = {}
    for point in plug_ins("ppu.protocols"):
        module: types.ModuleType = importlib.import_module(point.value)
        for item in vars(module).values():
            if not isinstance(item, RegisteredProtocol):
                continue
            if found.get(item.name, item) is not item:
                raise ConfigurationError(
                    f"two packages bring a protocol called '{item.name}'"
                )
            found[item.name] = item
    return dict(sorted(found.items()))


def find_protocol(name: str) -> RegisteredProtocol:
    """Return the protocol called *name*.

    Raises:
        ConfigurationError: If there is none, naming the nearest.
    """
    protocols = known_protocols()
    if name not in protocols:
        raise NotFoundError(
            f"there is no protocol '{name}'; {nearest(name, protocols)}",
            field="protocol",
        )
    return protocols[name]
