"""YAML (and so JSON) that people write, read so that every fault has its line."""

from __future__ import annotations

from typing import Any

import yaml

from ppu.core.errors import ConfigurationError

__all__ = ["YamlDocument"]

_WRONG_VALUES = (yaml.YAMLError, ValueError, LookupError, AttributeError)
"""What PyYAML raises for ``!!int x``, ``!!bool x``, ``!!timestamp x`` and the like."""


class YamlDocument:
    """A YAML document that remembers on which line each key stands.

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
        self._lines: dict[tuple[str | int, ...], int] = {}
        self._faults: list[str] = []
        self._around: list[yaml.Node] = []
        try:
            root = yaml.compose(text, yaml.SafeLoader)
            if root is not None:
                self.content = self._convert(root, ())
        except yaml.YAMLError as exc:
            mark = getattr(exc, "problem_mark", None)
            line = f" line {mark.line + 1}" if mark is not None else ""
            problem = getattr(exc, "problem", None) or str(exc)
            raise ConfigurationError(f"{source}{line}: not YAML: {problem}") from exc
        except RecursionError:
            raise ConfigurationError(f"{source}: too deeply nested") from None
        if self._faults:
            raise ConfigurationError("\n".join(self._faults))

    def where(self, place: tuple[str | int, ...]) -> str:
        """Return source and line of *place*, or of the nearest key around it."""
        for length in range(len(place), 0, -1):
            line = self._lines.get(place[:length])
            if line is not None:
                return f"{self.source} line {line}"
        return self.source

    def _fault(self, node: yaml.Node, text: str) -> None:
        line = node.start_mark.line + 1
        self._faults.append(f"{self.source} line {line}: {text}")

    def _convert(self, node: yaml.Node, where: tuple[str | int, ...]) -> Any:
        if any(node is outer for outer in self._around):
            self._fault(node, "an alias of what it stands in")
            return None
        self._around.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._convert_mapping(node, where)
            if isinstance(node, yaml.SequenceNode):
                return self._convert_sequence(node, where)
            return self._convert_scalar(node)
        finally:
            self._around.pop()

    def _convert_mapping(
        self, node: yaml.MappingNode, where: tuple[str | int, ...]
    ) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            place = (*where, key)
            if key in mapping:
                first = self._lines[place]
                self._fault(
                    key_node, f"'{key}' stands here twice, first on line {first}"
                )
                continue
            self._lines[place] = key_node.start_mark.line + 1
            mapping[key] = self._convert(value_node, place)
        return mapping

    def _convert_sequence(
        self, node: yaml.SequenceNode, where: tuple[str | int, ...]
    ) -> list[Any]:
        items = []
        for index, item in enumerate(node.value):
            self._lines[(*where, index)] = item.start_mark.line + 1
            items.append(self._convert(item, (*where, index)))
        return items

    def _convert_scalar(self, node: yaml.Node) -> Any:
        constructor = yaml.SafeLoader("")
        try:
            return constructor.construct_object(node)
        except _WRONG_VALUES as exc:
            self._fault(node, f"'{node.value}': {getattr(exc, 'problem', None) or exc}")
            return None
        finally:
            constructor.dispose()
