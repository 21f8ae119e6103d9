"""YAML and JSON that people write, read so that every fault has its line and column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import yaml

from ppu.core.errors import ConfigurationError
from ppu.core.names import shown, unseen
from ppu.core.numbers import NotPlainError, read_scalar
from ppu.core.validation import MOST_DEEP

__all__ = ["YamlDocument", "read_json", "read_text", "read_value", "to_yaml"]

MOST_COPIED: Final = 100
"""Nodes that aliases may repeat: a few lines of YAML can mean terabytes."""

_TEXT: Final = "tag:yaml.org,2002:str"
_PLAIN: Final = "plain"
_COLLECTIONS: Final = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Loader(yaml.SafeLoader):
    """Composes nodes; what a plain scalar means is for :mod:`ppu.core.numbers`."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:  # noqa: ARG002 - PyYAML's signature
        """Return the tag of a node that has none."""
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _TEXT
        return _COLLECTIONS[kind is yaml.SequenceNode]


class YamlDocument:
    """A YAML document that remembers where each key stands.

    Scalars are text, except plain decimals, ``true``, ``false`` and ``null``.

    Args:
        text: The document.
        source: What errors call it: a path or an option.

    Attributes:
        content: Mappings with keys of text, lists and scalars; None if it is empty.

    Raises:
        ConfigurationError: If it is no YAML, or a key stands twice; with every fault.
    """

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.content: Any = None
        self._marks: dict[tuple[str | int, ...], yaml.Mark] = {}
        self._faults: list[str] = []
        self._around: list[yaml.Node] = []
        self._seen: set[int] = set()
        self._n_copied = 0
        try:
            root = yaml.compose(text, _Loader)
            if root is not None:
                self.content = self._convert(root, ())
        except yaml.YAMLError as exc:
            mark = getattr(exc, "problem_mark", None)
            at = "" if mark is None else f" {_told(mark)}"
            problem = getattr(exc, "problem", None) or shown(str(exc))
            raise ConfigurationError(f"{source}{at}: not YAML: {problem}") from exc
        except RecursionError:
            raise ConfigurationError(f"{source}: too deeply nested") from None
        if self._faults:
            raise ConfigurationError("\n".join(self._faults))

    def where(self, place: tuple[str | int, ...]) -> str:
        """Return source, line and column of *place*, or of the nearest key around."""
        for length in range(len(place), 0, -1):
            mark = self._marks.get(place[:length])
            if mark is not None:
                return f"{self.source} {_told(mark)}"
        return self.source

    def _fault(self, node: yaml.Node, text: str) -> None:
        self._faults.append(f"{self.source} {_told(node.start_mark)}: {text}")

    def _convert(self, node: yaml.Node, where: tuple[str | int, ...]) -> Any:
        if any(node is outer for outer in self._around):
            self._fault(node, "an alias of what it stands in")
            return None
        if self._n_copied > MOST_COPIED:
            return None
        if len(self._around) >= MOST_DEEP:
            at = _told(node.start_mark)
            raise ConfigurationError(
                f"{self.source} {at}: too deeply nested, allowed are {MOST_DEEP} levels"
            )
        self._n_copied += id(node) in self._seen
        self._seen.add(id(node))
        if self._n_copied > MOST_COPIED:
            self._fault(
                node, f"aliases repeat more than {MOST_COPIED} values; write them out"
            )
            return None
        self._around.append(node)
        try:
            if isinstance(node, yaml.ScalarNode):
                return self._convert_scalar(node)
            if node.tag not in _COLLECTIONS:
                self._fault(
                    node, f"the tag {shown(node.tag)} is not read; leave it away"
                )
            elif isinstance(node, yaml.MappingNode):
                return self._convert_mapping(node, where)
            elif isinstance(node, yaml.SequenceNode):
                return self._convert_sequence(node, where)
            return None
        finally:
            self._around.pop()

    def _convert_mapping(
        self, node: yaml.MappingNode, where: tuple[str | int, ...]
    ) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._fault(key_node, "a key should be text")
                continue
            key = _joined(key_node.value)
            place = (*where, key)
            if hidden := unseen(key):
                self._fault(key_node, f"the key '{shown(key)}' has {hidden}")
            elif key in mapping:
                first = self._marks[place].line + 1
                self._fault(
                    key_node, f"'{key}' stands here twice, first on line {first}"
                )
            else:
                self._marks[place] = key_node.start_mark
                mapping[key] = self._convert(value_node, place)
        return mapping

    def _convert_sequence(
        self, node: yaml.SequenceNode, where: tuple[str | int, ...]
    ) -> list[Any]:
        items = []
        for index, item in enumerate(node.value):
            self._marks[(*where, index)] = item.start_mark
            items.append(self._convert(item, (*where, index)))
        return items

    def _convert_scalar(self, node: yaml.ScalarNode) -> Any:
        text = _joined(node.value)
        if hidden := unseen(text):
            self._fault(node, f"'{shown(text[:60])}' has {hidden}; leave it away")
        elif node.tag == _PLAIN:
            try:
                return _plain_value(text)
            except NotPlainError as exc:
                self._fault(node, str(exc))
        elif node.tag != _TEXT:
            self._fault(
                node,
                f"'{text}': the tag {shown(node.tag)} is not read; leave it away, and "
                "write numbers as plain decimals",
            )
        return text


def _told(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _joined(text: str) -> str:
    """Return *text* with pairs of surrogates, as JSON escapes them, made one letter."""
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _plain_value(text: str) -> Any:
    """Return what a scalar without quotes means; nothing is written as ``null``."""
    return None if text in ("", "null") else read_scalar(text)


def read_value(text: str, source: str, *, is_text: bool = False) -> Any:
    """Return what one value means that stands alone: of an option or in a cell.

    Lists, mappings and text in quotes are written as in YAML.

    Args:
        text: What was written.
        source: Where, for errors.
        is_text: Whether it can only be text, so that ``12`` is no number.

    Raises:
        ConfigurationError: If it means nothing, or a number that nobody can keep.

    Example:
        >>> [read_value(text, "--set x") for text in ("750", "[BaO, 1]", "a # b", "")]
        [750, ['BaO', 1], 'a # b', None]
    """
    if text[:1] in tuple("[{\"'"):
        return YamlDocument(text, source).content
    if hidden := unseen(text):
        raise ConfigurationError(f"{source}: has {hidden}; leave it away")
    try:
        value = _plain_value(text)
    except NotPlainError as exc:
        if is_text:
            return text
        raise ConfigurationError(f"{source}: {exc}") from None
    return text if is_text and value is not None else value


def read_text(content: bytes, source: str) -> str:
    """Return what a file of text says, in UTF-8 or as spreadsheets mark it.

    Raises:
        ConfigurationError: If it is none, saying how to save it.
    """
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigurationError(
            f"{source}: this is no text in UTF-8 (byte {exc.start + 1} does not fit); "
            "save it in UTF-8, which spreadsheets call 'CSV UTF-8'"
        ) from None


def read_json(text: str | bytes, source: str) -> Any:
    """Return what a JSON text says, numbers as everywhere.

    Raises:
        ConfigurationError: If it is no JSON, a key stands twice, a number cannot be
            kept, or it is nested too deeply.
    """

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(found)
        if len(content) < len(found):
            keys = [key for key, _ in found]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise NotPlainError(f"'{shown(twice)}' stands there twice")
        return content

    def constant(name: str) -> Any:
        raise NotPlainError(f"{name} is no number")

    try:
        content = json.loads(
            text,
            parse_int=read_scalar,
            parse_float=read_scalar,
            parse_constant=constant,
            object_pairs_hook=pairs,
        )
    except RecursionError:
        raise ConfigurationError(f"{source}: too deeply nested") from None
    except NotPlainError as exc:
        raise ConfigurationError(f"{source}: {exc}") from None
    except ValueError as exc:
        raise ConfigurationError(f"{source}: not JSON: {exc}") from None
    return content


# -- writing -----------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Writes what :class:`YamlDocument` reads again as it was."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    try:
        is_text = isinstance(_plain_value(text), str)
    except NotPlainError:
        is_text = False
    return dumper.represent_scalar(_TEXT, text, style=None if is_text else "'")


_Dumper.add_representer(str, _text_node)


def to_yaml(content: Mapping[str, Any]) -> str:
    """Return plain data as YAML that means the same when it is read again.

    Example:
        >>> print(to_yaml({"a": "1e5", "b": 0.5, "c": ["true", None]}), end="")
        a: '1e5'
        b: 0.5
        c:
        - 'true'
        - null
    """
    return yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
