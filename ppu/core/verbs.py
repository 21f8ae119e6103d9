"""Bluesky's verbs, as far as capabilities have them, without loading Bluesky.

They are structural: what has the members has the verb, for Bluesky as for us. Type
checkers see Bluesky's own protocols; a test compares the members with theirs.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

__all__ = [
    "EventPageCollectable",
    "Flyable",
    "HasName",
    "Movable",
    "Preparable",
    "Readable",
    "Triggerable",
]

if TYPE_CHECKING:
    from bluesky.protocols import (
        EventPageCollectable,
        Flyable,
        HasName,
        Movable,
        Preparable,
        Readable,
        Triggerable,
    )
else:
    T = TypeVar("T")

    @runtime_checkable
    class HasName(Protocol):
        """Has a name."""

        @property
        @abstractmethod
        def name(self) -> str:
            """Its name."""

    @runtime_checkable
    class Readable(HasName, Protocol[T]):
        """Can be read."""

        @abstractmethod
        def read(self) -> Any:
            """Return readings by data key."""

        @abstractmethod
        def describe(self) -> Any:
            """Return what each reading is."""

    @runtime_checkable
    class EventPageCollectable(HasName, Protocol):
        """Has pages of events to be collected."""

        @abstractmethod
        def describe_collect(self) -> Any:
            """Return what the pages hold."""

        @abstractmethod
        def collect_pages(self) -> Any:
            """Return the pages."""

    @runtime_checkable
    class Movable(Protocol[T]):
        """Can be set."""

        @abstractmethod
        def set(self, value: T) -> Any:
            """Bring it to *value*."""

    @runtime_checkable
    class Triggerable(Protocol):
        """Can be triggered."""

        @abstractmethod
        def trigger(self) -> Any:
            """Do it once."""

    @runtime_checkable
    class Preparable(Protocol):
        """Can be prepared."""

        @abstractmethod
        def prepare(self, value: Any) -> Any:
            """Prepare for *value*."""

    @runtime_checkable
    class Flyable(HasName, Protocol):
        """Can go on by itself."""

        @abstractmethod
        def kickoff(self) -> Any:
            """Begin."""

        @abstractmethod
        def complete(self) -> Any:
            """End."""
