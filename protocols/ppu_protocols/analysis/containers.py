"""Archives and markup from anywhere, opened so that a hostile one does no harm."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Final
from xml.etree import ElementTree

from ppu_protocols.analysis.errors import AnalysisError

LARGEST_MEMBER: Final = 64_000_000
"""Bytes of an archive's member that are read at most."""
MOST_MEMBERS: Final = 5_000
"""Members that an archive of scans has at most."""


class Archive:
    """A zip file of scans.

    Args:
        content: The file.
        source: For messages.

    Raises:
        AnalysisError: If it is no archive, is broken, or has too many members.
    """

    def __init__(self, content: bytes, source: str) -> None:
        self._source = source
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
            self.names = tuple(self._zip.namelist())
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise AnalysisError(
                f"{source}: not a zip archive, or a broken one ({error})"
            ) from error
        if len(self.names) > MOST_MEMBERS:
            raise AnalysisError(
                f"{source}: {len(self.names)} members; at most {MOST_MEMBERS} are read"
            )

    def read(self, name: str) -> bytes:
        """Return the content of member *name*.

        Raises:
            AnalysisError: If it is missing, broken, encrypted or too large.
        """
        try:
            with self._zip.open(name) as member:
                content = member.read(LARGEST_MEMBER + 1)
        except (
            KeyError,
            RuntimeError,
            NotImplementedError,
            EOFError,
            OSError,
            ValueError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise AnalysisError(
                f"{self._source}: the member {name} cannot be read ({error})"
            ) from error
        if len(content) > LARGEST_MEMBER:
            raise AnalysisError(
                f"{self._source}: the member {name} is larger than "
                f"{LARGEST_MEMBER // 1_000_000} MB"
            )
        return content


def parse_markup(content: bytes, source: str, needed: str) -> ElementTree.Element:
    """Return the root of an XML file; *needed* ends a refusal.

    Raises:
        AnalysisError: If it is no XML, or declares a document type: scans have none,
            and expanding one can exhaust memory.
    """
    plain = content.replace(b"\0", b"")  # as it reads in UTF-16 too
    if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:
        raise AnalysisError(f"{source}: declares a document type; {needed}")
    try:
        return ElementTree.fromstring(content)  # noqa: S314 # entities refused above
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise AnalysisError(f"{source}: not XML ({error}); {needed}") from error


def local_name(element: ElementTree.Element) -> str:
    """Return the name of *element* without its namespace."""
    return str(element.tag).rpartition("}")[2]


def children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """Return the children of *element* called *name* in any namespace."""
    return [child for child in element if local_name(child) == name]


def child(
    element: ElementTree.Element | None, *names: str
) -> ElementTree.Element | None:
    """Return the first child at the path *names*, None if there is none."""
    found = element
    for name in names:
        if found is None:
            return None
        found = next(iter(children(found, name)), None)
    return found


def text_of(element: ElementTree.Element | None) -> str:
    """Return the text of *element* without blanks around it; empty for None."""
    return "" if element is None or element.text is None else element.text.strip()
