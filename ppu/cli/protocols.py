"""``ppu protocols``: what can be run, and with which parameters."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ppu.cli.options import JsonOption


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(epilog="Example: ppu protocols solid_state_synthesis")(protocols)


def protocols(
    name: Annotated[str | None, typer.Argument(help="Show one in full.")] = None,
    json_: JsonOption = False,
) -> None:
    """List protocols, or show the parameters of one."""
    from ppu.plans.protocol import find_protocol, known_protocols

    if name is None:
        known = known_protocols()
        if json_:
            listed = {
                n: {"version": p.version, "summary": p.summary}
                for n, p in known.items()
            }
            typer.echo(json.dumps(listed))
            return
        for protocol in known.values():
            typer.echo(f"{protocol.name:24} {protocol.version:6} {protocol.summary}")
        return
    protocol = find_protocol(name)
    schema = protocol.parameters.model_json_schema()
    if json_:
        content = {
            "name": protocol.name,
            "version": protocol.version,
            "summary": protocol.summary,
            "hazards": list(protocol.hazards),
            "parameters": schema,
            "result": protocol.result.model_json_schema(),
        }
        typer.echo(json.dumps(content))
        return
    typer.echo(f"{protocol.name}, version {protocol.version}\n{protocol.summary}\n")
    for parameter, facts in schema["properties"].items():
        default = json.dumps(facts["default"]) if "default" in facts else "required"
        typer.echo(f"  {parameter:22} {default:28} {_allowed(facts)}")
        if "description" in facts:
            typer.echo(f"  {'':22} {facts['description']}")
    if protocol.hazards:
        typer.echo("\nHazards:")
        for hazard in protocol.hazards:
            typer.echo(f"  - {hazard}")
    typer.echo(f"\nExample: ppu run {protocol.name} --seed 7")


def _allowed(facts: dict[str, Any]) -> str:
    """Return the type and the limits of a parameter in words."""
    words = [str(facts.get("type", "see --json"))]
    for key, sign in (
        ("exclusiveMinimum", ">"),
        ("minimum", ">="),
        ("exclusiveMaximum", "<"),
        ("maximum", "<="),
    ):
        if key in facts:
            words.append(f"{sign} {facts[key]:g}")
    if "enum" in facts:
        words = [" | ".join(map(str, facts["enum"]))]
    return " ".join(words)
