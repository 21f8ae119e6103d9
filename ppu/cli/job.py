"""``ppu job``: one job in full, or as it goes on."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppu.cli.exits import Exit
from ppu.cli.options import STORE, StoreOption
from ppu.cli.remedies import worded
from ppu.cli.store import open_store, when
from ppu.core.numbers import integer_option

if TYPE_CHECKING:
    from ppu.operations.views import EventView, JobDetailView, JobView, StepView
    from ppu.store.store import Store

_LOOK_EVERY_WALL_S = 0.2
_MOST_SHOWN = 60
"""Characters of a result that are shown."""


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(epilog="Example: ppu job 12 --follow")(job)


def job(
    id_: Annotated[
        int,
        typer.Argument(
            metavar="ID", parser=integer_option(), help="Number of the job."
        ),
    ],
    follow: Annotated[
        bool, typer.Option("--follow", help="Print what happens until it ends.")
    ] = False,
    store: StoreOption = STORE,
    json_: Annotated[
        bool, typer.Option("--json", help="Print JSON; an object a line with --follow.")
    ] = False,
) -> None:
    """Show a job: its state, why it waits, its steps, and what it asks.

    With --follow the command ends with the job, with code 0 if it succeeded, else 4.
    """
    from ppu.operations import looking

    with open_store(store) as opened:
        if not follow:
            found = looking.job(opened, id_)
            typer.echo(json.dumps(_plain(found)) if json_ else "\n".join(_lines(found)))
            return
        state = asyncio.run(_follow(opened, id_, as_json=json_))
    if state != "succeeded":
        raise typer.Exit(Exit.FAILED)


def _plain(found: JobDetailView) -> dict[str, Any]:
    """Return a job as plain data."""
    content = found.model_dump(mode="json")
    content["waits_for"] = [worded(why.text, why.advice) for why in found.waits]
    content["questions"] = [
        {
            "step": one.step.path,
            "text": one.text,
            "answers": list(one.answers),
            "answered": one.answered,
        }
        for one in found.questions
    ]
    return content


def _lines(found: JobDetailView) -> list[str]:
    """Return a job for people."""
    lines = _head(found)
    lines += [f"waits: {worded(why.text, why.advice)}" for why in found.waits]
    if found.steps:
        lines.append("steps (UTC):")
        lines += [_line(step) for step in found.steps]
    if found.result is not None:
        lines += _result_lines(found.result)
    return lines


def _result_lines(result: Any) -> list[str]:
    """Return what came of a job, as its protocol says it, and what it took."""
    from ppu.core.labtime import duration

    if not isinstance(result, dict) or "summary" not in result:
        return [f"result: {_short(result)}"]  # of an older PPU
    lines = ["result:", *(f"  {line}" for line in result["summary"])]
    if "active_s" in result:
        waited_s = sum(result["waited_s"].values())
        lines.append(
            f"active {duration(result['active_s'])}, waited {duration(waited_s)}"
        )
        lines += [
            f"{one['furnace']}: "
            + (
                "energy "
                if one["own_energy_kwh"] is None
                else f"{one['own_energy_kwh']:.3g} kWh, "
            )
            + one["energy_source"]
            for one in result["firings"]
        ]
    return lines


def _head(found: JobView) -> list[str]:
    from ppu.core.labtime import duration

    held = ", held" if found.is_held else ""
    lines = [f"job {found.id}: {found.protocol} {found.version}: {found.state}{held}"]
    if found.reason is not None and found.reason.text:
        lines.append(f"because: {worded(found.reason.text, found.reason.advice)}")
    moments = [("submitted", found.submitted), ("started", found.started)]
    moments += [("ended", found.ended), ("must begin by", found.deadline)]
    told = [f"{name} {when(stamp)}" for name, stamp in moments if stamp is not None]
    lines.append(", ".join(told) + " UTC")
    if found.deadline is None and found.deadline_s is not None:
        within = duration(found.deadline_s)
        lines.append(f"must begin within {within} of lab time, once a cell sees it")
    if found.reason is not None and found.reason.failure_class is not None:
        about = f", about {found.reason.field}" if found.reason.field else ""
        lines.append(f"class: {found.reason.failure_class}{about}")
    facts = {
        "campaign": found.campaign,
        "key": found.key,
        "priority": found.priority,
        "tags": " ".join(found.tags),
        "retries job": found.parent_id,
    }
    told = [f"{name} {fact}" for name, fact in facts.items() if fact]
    if told:
        lines.append(", ".join(told))
    return lines


def _line(step: StepView) -> str:
    from ppu.core.labtime import duration

    depth = 2 * step.path.count(".")
    took = "" if step.ended is None else f" {duration(step.ended - step.begun)}"
    more = f" -> {_short(step.result)}" if step.result is not None else ""
    again = f" (attempt {step.attempt})" if step.attempt > 1 else ""
    return (
        f"  {when(step.begun)}  {'':{depth}}{step.path:5} {step.label}: "
        f"{step.state}{took}{again}{more}"
    )


def _short(content: Any) -> str:
    text = json.dumps(content)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


# -- following ---------------------------------------------------------------------


async def _follow(store: Store, job_id: int, *, as_json: bool) -> str:
    """Print the job's events as they come; return the state in which it ended."""
    from ppu.operations import looking

    labels: dict[str, str] = {}
    seen = 0
    while True:
        # The job first: what it had announced when it had ended is all there is.
        found = looking.job(store, job_id)
        events = looking.history(store, job_id, seen)
        labels |= {step.path: step.label for step in found.steps}
        for event in events:
            _tell(event, labels, as_json=as_json)
            seen = event.sequence
        if looking.has_ended(found):
            return found.state
        if not events:
            await asyncio.sleep(_LOOK_EVERY_WALL_S)


def _tell(event: EventView, labels: dict[str, str], *, as_json: bool) -> None:
    from ppu.core.labtime import iso

    if as_json:
        said = {
            "sequence": event.sequence,
            "time": iso(event.time),
            "kind": event.kind,
            **event.content,
        }
        typer.echo(json.dumps(said))
        return
    text = in_words(event, labels)
    if text:
        typer.echo(f"{when(event.time)}  {text}")


def in_words(event: EventView, labels: dict[str, str]) -> str:
    """Return an event for people, nothing if it says nothing to them."""
    from ppu.operations import views

    match event.change:
        case views.StepChange() as said:
            text = f"step {said.path}, {labels.get(said.path, '')}: {said.state}"
            if said.question is not None:
                return f"{text}: {said.question} ({', '.join(said.answers)})"
            more = said.error or (said.evidence or {}).get("text")
            return f"{text}: {more}" if more else text
        case views.CustodyChange() as moved:
            return f"{moved.container} {moved.kind}: {moved.destination or 'nowhere'}"
        case views.SampleChange() as sample:
            why = f": {sample.reason}" if sample.reason else ""
            return f"sample {sample.sample} is {sample.state}{why}"
        case views.WaitChange() as wait:
            waits = worded(wait.waits_for, wait.advice)
            return f"waits: {waits}" if waits else "goes on"
        case views.IncidentChange() as wrong:
            return f"incident: {wrong.device}: {wrong.incident}: {wrong.text}"
        case views.SafetyChange() as safety:
            state = "in" if safety.is_reached else "NOT in"
            return f"{safety.device} is {state} its safe state: {safety.text}"
    if event.kind == "document":
        return ""
    words = ", ".join(
        f"{name} {value}"
        for name, value in event.content.items()
        if value and not name.endswith("_digest")  # for programs
    )
    return f"{event.kind}: {words}"
