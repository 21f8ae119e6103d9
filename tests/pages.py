"""Pages of figures, of which each campaign writes a section of its own."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["replace_section"]


def replace_section(page: Path, heading: str, text: str) -> None:
    """Put *text* in place of the section of the same heading, or at the end.

    Args:
        page: A page of Markdown.
        heading: The section's first line, such as ``## Wires under faults``.
        text: The section, its heading included.
    """
    content = page.read_text(encoding="utf-8")
    body = text.strip() + "\n"
    found = re.search(rf"^{re.escape(heading)}$.*?(?=^## |\Z)", content, re.M | re.S)
    if found is None:
        content = f"{content.rstrip()}\n\n{body}"
    else:
        after = content[found.end() :]
        content = content[: found.start()] + body + (f"\n{after}" if after else "")
    page.write_text(content, encoding="utf-8")
