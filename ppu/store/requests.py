"""The requests that a cell obeys: what each says, as typed data.

They are kept in the rows of a store, so a field that was ever written keeps its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

__all__ = [
    "Abort",
    "AcceptStore",
    "AllowHeat",
    "Answer",
    "Cancel",
    "CorrectStock",
    "Drain",
    "MoveContainer",
    "Refill",
    "ReleaseSample",
    "Request",
    "ReturnDevice",
    "TagOut",
    "UnknownRequest",
    "read_request",
]


class _Request(BaseModel):
    """A request; what it says beside its name is kept as its content."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    command: str

    @property
    def content(self) -> dict[str, Any]:
        """What it says, as plain data."""
        return self.model_dump(exclude={"command"})


class Cancel(_Request):
    """Stop the job at its next safe point."""

    command: Literal["cancel"] = "cancel"


class Abort(_Request):
    """Give the job up at once; its devices go to their abort states."""

    command: Literal["abort"] = "abort"
    reason: str = ""


class Answer(_Request):
    """Take this for the answer to what the job asks about a step."""

    command: Literal["answer"] = "answer"
    path: str
    answer: str
    note: str = ""


class AllowHeat(_Request):
    """Heat furnaces again after a crash: a person has looked at them."""

    command: Literal["may heat"] = "may heat"
    note: str = ""


class AcceptStore(_Request):
    """Let jobs go on after the store had forgotten something: a person has looked."""

    command: Literal["accept store"] = "accept store"
    note: str = ""


class Drain(_Request):
    """Let no further step begin, and end when what cannot wait is done.

    Attributes:
        awaits_firings: Whether firings under way cannot wait, either.
    """

    command: Literal["drain"] = "drain"
    awaits_firings: bool = False


class ReleaseSample(_Request):
    """Take note that a sample is gone and its containers are empty and clean."""

    command: Literal["release sample"] = "release sample"
    sample: str


class MoveContainer(_Request):
    """Take note of where a container really is."""

    command: Literal["move"] = "move"
    container: str
    location: str


class Refill(_Request):
    """Take note that powder was added."""

    command: Literal["refill"] = "refill"
    powder: str
    mass_g: float
    note: str = ""


class CorrectStock(_Request):
    """Take note of how much powder is really there."""

    command: Literal["correct stock"] = "correct stock"
    powder: str
    mass_g: float
    note: str


class TagOut(_Request):
    """Let no job take a device: a person has put it out of service."""

    command: Literal["tag out"] = "tag out"
    device: str
    reason: str


class ReturnDevice(_Request):
    """Let jobs take a device again that was tagged out."""

    command: Literal["return device"] = "return device"
    device: str
    note: str = ""


class UnknownRequest(_Request):
    """A request that a newer PPU may know; nobody here can obey it."""

    said: dict[str, Any]
    why: str

    @property
    def content(self) -> dict[str, Any]:
        """What it says, as plain data."""
        return self.said


Request = (
    Cancel
    | Abort
    | Answer
    | AcceptStore
    | AllowHeat
    | Drain
    | ReleaseSample
    | MoveContainer
    | Refill
    | CorrectStock
    | TagOut
    | ReturnDevice
)
"""Any request that a cell of this PPU obeys."""


@cache
def _adapter() -> TypeAdapter[Request]:
    return TypeAdapter(Annotated[Request, Field(discriminator="command")])


def read_request(command: str, content: Mapping[str, Any]) -> Request | UnknownRequest:
    """Return the request that a row says.

    Example:
        >>> read_request("abort", {"reason": "it smokes"})
        Abort(command='abort', reason='it smokes')
        >>> read_request("sing", {}).why
        "nobody here knows the request 'sing'; a newer PPU may have made it"
    """
    try:
        return _adapter().validate_python({**content, "command": command})
    except ValidationError as exc:
        (first, *_) = exc.errors(include_url=False, include_input=False)
        why = f"nobody here knows the request '{command}'"
        if first["type"] != "union_tag_invalid":
            field = ".".join(map(str, first["loc"][1:]))
            why = f"the request '{command}' is not understood: {field}: {first['msg']}"
        return UnknownRequest(
            command=command,
            said=dict(content),
            why=f"{why}; a newer PPU may have made it",
        )
