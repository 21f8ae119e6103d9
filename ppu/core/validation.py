"""Fills models with what people wrote; every fault is told at once, in words.

Pydantic alone takes ``"0750"`` for 750, ``true`` for 1 and ``on`` for true. Here a
number is a number and a boolean a boolean, whatever model an author wrote.
"""

from __future__ import annotations

import math
import numbers
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from ppu.core.errors import nearest
from ppu.core.names import shown, unseen
from ppu.core.numbers import MOST_INTEGER, not_a_number, not_a_whole_number

__all__ = ["Fault", "UnfitError", "fill", "takes_only_text", "unfit"]

M = TypeVar("M", bound=BaseModel)

Place = tuple[str | int, ...]
Fault = tuple[Place, str]
"""Where in the document, and what is wrong there."""

MOST_DEEP: Final = 50
"""How deeply what people write may be nested."""

_NUMBERS: Final = ("float_type", "float_parsing", "decimal_type", "decimal_parsing")
_INTEGERS: Final = ("int_type", "int_parsing", "int_from_float")
_BOOLEANS: Final = ("bool_type", "bool_parsing")


class UnfitError(ValueError):
    """What was given does not fit.

    Args:
        faults: Each with its place; the sentence begins with the same in words.
    """

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(text for _, text in faults))
        self.faults = faults


def fill(model: type[M], values: Mapping[str, Any], prefix: Place = ()) -> M:
    """Return *model*, filled with *values*.

    Args:
        model: What is to be filled.
        values: Plain data by name.
        prefix: Where in a document they stand.

    Raises:
        UnfitError: With every fault.
    """
    faults = unfit(values, prefix)
    found: dict[Place, str] = {}
    filled: M | None = None
    try:
        filled = model.model_validate(dict(values))
    except ValidationError as exc:
        found |= _described(exc, model, prefix)
    unfit_names = {
        place[len(prefix)] for place, _ in faults if len(place) > len(prefix)
    }
    sound = {name: item for name, item in values.items() if name not in unfit_names}
    found |= _number_faults(model, sound, prefix)
    told = {place for place, _ in faults}
    faults += [one for one in found.items() if one[0] not in told]
    if filled is None or faults:
        raise UnfitError(faults)
    return filled


def takes_only_text(annotation: Any) -> bool:
    """Return whether a field of this type is text, so that ``12`` is no number there.

    Example:
        >>> takes_only_text(str | None), takes_only_text(float | str)
        (True, False)
    """
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return takes_only_text(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        inner = [one for one in typing.get_args(annotation) if one is not type(None)]
        return all(takes_only_text(one) for one in inner)
    if origin is Literal:
        return all(isinstance(one, str) for one in typing.get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return all(isinstance(one.value, str) for one in annotation)
    return annotation is str


def unfit(values: Any, prefix: Place = ()) -> list[Fault]:
    """Return where no field takes what is there: no text can be shown, for instance."""
    return list(_unfit(values, prefix))


def _unfit(value: Any, place: Place) -> Iterator[Fault]:
    """Yield what no field takes: what cannot be seen, kept, or read to its end."""
    wrong = ""
    if len(place) > MOST_DEEP:
        wrong = f"is nested more than {MOST_DEEP} deep"
    elif isinstance(value, str):
        hidden = unseen(value)
        if hidden:
            wrong = f"has {hidden}, which cannot be seen; leave it away"
    elif isinstance(value, float) and not math.isfinite(value):
        wrong = f"should be a finite number; given was {value}"
    elif isinstance(value, int) and abs(value) > MOST_INTEGER:
        wrong = f"should be a whole number of at most 64 bits, {MOST_INTEGER}"
    if wrong:
        yield place, f"{_named(place)}: {wrong}" if place else wrong
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str) and (hidden := unseen(key)):
                yield place, f"the key '{shown(key)}' has {hidden}; leave it away"
            else:
                yield from _unfit(item, (*place, key))
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield from _unfit(item, (*place, index))


def _number_faults(
    model: type[BaseModel], values: Mapping[str, Any], prefix: Place
) -> dict[Place, str]:
    """Return where text or booleans would pass for numbers, or others for booleans."""
    # JSON has no tuples, sets, enumerations and paths, so strictness is about these.
    text = to_json(dict(values), inf_nan_mode="constants", fallback=_number_or_text)
    try:
        model.model_validate_json(text, strict=True)
    except ValidationError as exc:
        return {
            place: sentence
            for place, sentence, error in _errors(exc, model, prefix)
            if (
                error["type"] in (*_NUMBERS, *_INTEGERS)
                and isinstance(error["input"], str | bool)
            )
            or error["type"] in _BOOLEANS
        }
    return {}


def _number_or_text(value: Any) -> float | str:
    """Return what JSON has for something like a numpy number."""
    return float(value) if isinstance(value, numbers.Real) else str(value)


def _described(
    exc: ValidationError, model: type[BaseModel], prefix: Place
) -> dict[Place, str]:
    found: dict[Place, str] = {}
    for place, sentence, _ in _errors(exc, model, prefix):
        # A rule between several values has no place of its own; there may be many.
        found[place] = f"{found[place]}; {sentence}" if place in found else sentence
    return found


def _errors(
    exc: ValidationError, model: type[BaseModel], prefix: Place
) -> Iterator[tuple[Place, str, Any]]:
    """Yield place and sentence for each fault of *exc*, and the fault itself."""
    for error in exc.errors(include_url=False):
        place = (*prefix, *error["loc"])
        name = _named(place)
        if error["type"] == "extra_forbidden":
            known = _known_keys(model, tuple(error["loc"][:-1]))
            hint = nearest(str(error["loc"][-1]), known)
            sentence = f"{name}: unknown key; {hint}"
        elif error["type"] == "missing":
            sentence = f"{name}: is missing and has no default"
        elif place:
            sentence = f"{name}: {_wrong(error)}"
        else:  # a rule between several values names them itself
            sentence = _sentence(error["msg"])
        yield place, sentence, error


def _wrong(error: Any) -> str:
    """Return in words what is wrong with one value."""
    kind, given = error["type"], error["input"]
    if kind in _NUMBERS:
        return not_a_number(given)
    if kind in _INTEGERS:
        return not_a_whole_number(given)
    wrong = _sentence(error["msg"])
    if kind in _BOOLEANS:
        wrong = "should be true or false"
    if kind == "tuple_type":
        wrong = "should be a list, such as [A, B]"
    told = "nothing" if given is None else repr(given)
    return f"{wrong}; given was {told if len(told) <= 60 else told[:57] + '...'}"


def _named(place: Place) -> str:
    return ".".join(str(part) for part in place)


def _sentence(message: str) -> str:
    """Return pydantic's message, without the prefix of our own validators."""
    return message.removeprefix("Value error, ")


def _known_keys(model: Any, place: Place) -> list[str]:
    """Return the keys allowed at *place* inside *model*."""
    for part in place:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            inner = [arg for arg in getattr(model, "__args__", ()) if _is_model(arg)]
            model = inner[0] if inner else None
            if model is None:
                return []
            continue
        field = model.model_fields.get(str(part))
        model = None if field is None else field.annotation
    while model is not None and not _is_model(model):
        inner = [arg for arg in getattr(model, "__args__", ()) if arg is not type(None)]
        model = next((arg for arg in inner if _is_model(arg)), None)
    return [] if model is None else list(model.model_fields)


def _is_model(item: Any) -> bool:
    return isinstance(item, type) and issubclass(item, BaseModel)
