"""Samples of a firing: one exchange's worth, and columns of them for documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ppu.core.errors import InternalError

__all__ = ["Sample", "Samples", "samples_from_columns"]


@dataclass(frozen=True)
class Sample:
    """What one exchange says about a firing.

    Args:
        temperature: What the controller reads [degC].
        setpoint: Its working setpoint [degC].
        output: Its working output [%].
        status: State of its program, in a word.
        is_running: Whether the program runs.
        is_held: Whether it was stopped on its way.
        is_reset: Whether no program is under way.
        complaint: What the controller itself finds wrong, empty if nothing.
    """

    temperature: float
    setpoint: float
    output: float
    status: str
    is_running: bool
    is_held: bool
    is_reset: bool
    complaint: str = ""


@dataclass
class Samples:
    """Samples taken and not yet collected, as columns."""

    stamps: list[float]
    process_value: list[float]
    working_setpoint: list[float]
    working_output: list[float]
    is_program_running: list[bool]

    @classmethod
    def empty(cls) -> Samples:
        """Return no samples."""
        return cls([], [], [], [], [])

    def append(self, sample: Sample, stamp: float) -> None:
        """Append one sample, taken at the UTC stamp *stamp* [s since 1970]."""
        self.stamps.append(stamp)
        self.process_value.append(sample.temperature)
        self.working_setpoint.append(sample.setpoint)
        self.working_output.append(sample.output)
        self.is_program_running.append(sample.is_running)


def samples_from_columns(
    columns: Mapping[str, Sequence[float]], keys: Mapping[str, str]
) -> list[tuple[float, Sample]]:
    """Return samples of before with their UTC stamps, from the columns of documents.

    Args:
        columns: Columns by data key.
        keys: Data key of each column of :class:`Samples`.

    Raises:
        InternalError: If they are not the columns of this furnace.
    """
    stamps = columns.get("time", ())
    if not stamps:
        return []
    needed = {column: columns.get(key, ()) for column, key in keys.items()}
    if any(len(values) != len(stamps) for values in needed.values()):
        counts = {keys[column]: len(values) for column, values in needed.items()}
        raise InternalError(
            f"earlier samples of a firing: {len(stamps)} times, but values are {counts}"
        )
    found = []
    for index, stamp in enumerate(stamps):
        is_running = bool(needed["is_program_running"][index])
        sample = Sample(
            temperature=needed["process_value"][index],
            setpoint=needed["working_setpoint"][index],
            output=needed["working_output"][index],
            status="run" if is_running else "reset",
            is_running=is_running,
            is_held=False,
            is_reset=not is_running,
        )
        found.append((stamp, sample))
    return found
