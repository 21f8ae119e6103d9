"""``ppu instruments``: what the drivers are for, and how far they can be trusted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppu.cli.options import JsonOption

if TYPE_CHECKING:
    from ppu.devices.instrument import LabDevice


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(epilog="Example: ppu instruments a-lab")(instruments)


def instruments(
    lab: Annotated[
        str | None,
        typer.Argument(help="Lab name or file; by default every bundled lab."),
    ] = None,
    json_: JsonOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a page for documentation.")
    ] = False,
) -> None:
    """Show wire, capabilities, sources and open questions of drivers."""
    drivers = drivers_of(lab)
    if json_:
        typer.echo(json.dumps(drivers, indent=2))
        return
    if markdown:
        typer.echo(page(drivers), nl=False)
        return
    for reference, facts in drivers.items():
        provides = ", ".join(facts["provides"]) or "-"
        trust = "verified" if facts["verified"] else "never verified on hardware"
        typer.echo(f"{facts['maker']} {facts['model']} ({facts['wire']}): {provides}")
        typer.echo(f"  {reference}; {trust}; {_n_open(facts)}")


def drivers_of(lab: str | None) -> dict[str, dict[str, Any]]:
    """Return the facts of each driver that *lab* names, or that any bundled lab does.

    Raises:
        ConfigurationError: If a lab file or a driver is wrong.
    """
    from ppu.core.labfile import load_lab
    from ppu.core.registry import bundled_labs, find_lab
    from ppu.devices.build import driver_class

    paths = sorted(bundled_labs().values()) if lab is None else [find_lab(lab)]
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        for name, entry in load_lab(path).devices.items():
            found[entry.driver] = describe(driver_class(name, entry))
    return dict(sorted(found.items()))


def describe(driver: type[LabDevice]) -> dict[str, Any]:
    """Return the facts of one driver class as plain data."""
    from dataclasses import asdict

    from ppu.core.capabilities import CAPABILITIES

    provides = [name for name in CAPABILITIES if not driver.missing_for(name)]
    doc = (driver.__doc__ or "").strip().partition("\n")[0]
    return {
        "summary": doc,
        "provides": provides,
        "abort_states": dict(driver.abort_states),
        "heats": driver.heats,
        **asdict(driver.facts),
    }


def _n_open(facts: dict[str, Any]) -> str:
    n_open = len(facts["open_questions"])
    return f"{n_open} open question{'' if n_open == 1 else 's'}"


def page(drivers: dict[str, dict[str, Any]]) -> str:
    """Return the reference page of *drivers* as Markdown."""
    lines = [
        "# Instruments",
        "",
        "Written from the driver classes (`make docs`); a test compares them.",
        "*Verified* says what was tried on a real instrument.",
        "",
        "| instrument | wire | provides | verified | open questions |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| [{f['maker']} {f['model']}](#{_anchor(f)}) | {f['wire']} | "
        f"{', '.join(f['provides']) or '-'} | {f['verified'] or 'no'} | "
        f"{len(f['open_questions'])} |"
        for f in drivers.values()
    ]
    for reference, facts in drivers.items():
        lines += ["", f"## {facts['maker']} {facts['model']}", "", facts["summary"]]
        lines += ["", f"- driver: `{reference}`", f"- wire: {facts['wire']}"]
        lines.append(f"- provides: {', '.join(facts['provides']) or 'nothing'}")
        lines.append(f"- when nobody talks to it: {facts['orphan_behaviour']}")
        if facts["abort_states"]:
            lines.append("- `on_abort`, `on_orphan`, `on_hold`:")
            lines += [f"    - `{s}`: {m}" for s, m in facts["abort_states"].items()]
        lines.append(f"- verified: {facts['verified'] or 'never on hardware'}")
        for title in ("sources", "open_questions"):
            if facts[title]:
                lines.append(f"- {title.replace('_', ' ')}:")
                lines += [f"    - {text}" for text in facts[title]]
    return "\n".join(lines) + "\n"


def _anchor(facts: dict[str, Any]) -> str:
    title = f"{facts['maker']} {facts['model']}".lower()
    kept = "".join(c for c in title if c.isalnum() or c in " -")
    return kept.replace(" ", "-")
