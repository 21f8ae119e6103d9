"""The generated part of docs/explanation/architecture.md: drawing and list of modules.

``make docs`` writes it; a test says when it is not what the code is any more.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
BEGIN = "<!-- made by `make docs` from the code: begin -->\n"
END = "<!-- made by `make docs` from the code: end -->\n"
PACKAGES = {
    "ppu": ROOT / "ppu",
    "ppu_drivers": ROOT / "drivers" / "ppu_drivers",
    "ppu_simulators": ROOT / "simulators" / "ppu_simulators",
    "ppu_protocols": ROOT / "protocols" / "ppu_protocols",
}
_SINGLE = {"__init__", "__main__", "_version"}


def room_of(module: str) -> str:
    """Return the room that *module* lies in: a package below ppu, or a plug-in."""
    words = module.split(".")
    if words[0] != "ppu" or len(words) == 1 or words[1] in _SINGLE:
        return words[0]
    return words[1]


def edges() -> set[tuple[str, str]]:
    """Return which room imports from which; type checking counts."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    found = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            one, other = room_of(module), room_of(imported)
            if one != other and "ppu" not in (one, other):
                found.add((one, other))
    return found


def reduced(arrows: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return *arrows* without those that longer ways imply."""

    def reaches(start: str, goal: str, without: tuple[str, str]) -> bool:
        seen, todo = set(), [start]
        while todo:
            here = todo.pop()
            for arrow in arrows:
                if arrow[0] == here and arrow != without and arrow[1] not in seen:
                    seen.add(arrow[1])
                    todo.append(arrow[1])
        return goal in seen

    return sorted(arrow for arrow in arrows if not reaches(*arrow, arrow))


def modules() -> Iterator[tuple[str, str, str]]:
    """Yield package, module and the first line of its docstring."""
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py"), key=lambda path: (path.parent, path)):
            name = ".".join(path.relative_to(folder).with_suffix("").parts)
            docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
            yield package, name, docstring.partition("\n")[0]


def generated() -> str:
    """Return the generated part."""
    lines = ["```mermaid", "flowchart TD"]
    lines += [f"    {one} --> {other}" for one, other in reduced(edges())]
    lines += ["```", ""]
    room = ""
    for package, name, said in modules():
        if name.rpartition(".")[2] in _SINGLE:
            continue
        here = f"{package}/{'/'.join(name.split('.')[:-1])}".rstrip("/")
        if here != room:
            lines += ["", f"**{here}**", "", "| module | responsibility |", "|---|---|"]
            room = here
        lines.append(f"| `{name.rpartition('.')[2]}` | {said} |")
    return "\n".join(lines) + "\n"


def with_generated(page: str) -> str:
    """Return *page* with its generated part made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + generated() + END + after


if __name__ == "__main__":
    PAGE.write_text(with_generated(PAGE.read_text("utf-8")), "utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} is written\n")
