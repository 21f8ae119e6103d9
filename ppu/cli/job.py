"""``ppu job``: one job in full, or as it goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppu.cli.exits import Exit
from ppu.cli.options import STORE, StoreOption
from ppu.cli.queue import summary
from ppu.cli.remedies import worded
from ppu.cli.store import open_store, when

if TYPE_CHECKING:
    from ppu.store.events import Event
    from ppu.store.jobs import Job
    from ppu.store.steps import Step
    from ppu.store.store import Store

_LOOK_EVERY_WALL_S = 0.2
_MOST_SHOWN = 60
"""Characters of a result that are shown."""


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(epilog="Example: ppu job 12 --follow")(job)


def job(
    id_: Annotated[int, typer.Argument(metavar="ID", help="Number of the job.")],
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
    from ppu.store.jobs import JobState

    with open_store(store) as opened:
        if not follow:
            content, lines = _describe(opened, id_)
            typer.echo(json.dumps(content) if json_ else "\n".join(lines))
            return
        state = asyncio.run(_follow(opened, id_, as_json=json_))
    if state is not JobState.SUCCEEDED:
        raise typer.Exit(Exit.FAILED)


def _describe(store: Store, job_id: int) -> tuple[dict[str, Any], list[str]]:
    """Return a job as plain data, and as lines for people."""
    from ppu.store.queue import get
    from ppu.store.steps import questions, steps_of
    from ppu.store.waiting import reasons_to_wait

    with store.read() as connection:
        found = get(connection, job_id)
        steps = steps_of(connection, job_id)
        waits = [
            worded(why.text, why.advice) for why in reasons_to_wait(connection, found)
        ]
        asked = questions(connection, job_id)
    content = summary(found)
    content["waits_for"] = waits
    content["steps"] = [_plain(step) for step in steps]
    content["questions"] = [
        {
            "step": one.step.path,
            "text": one.text,
            "answers": list(one.answers),
            "answered": one.answered,
        }
        for one in asked
    ]
    lines = _head(found)
    lines += [f"waits: {why}" for why in waits]
    if steps:
        lines.append("steps (UTC):")
        lines += [_line(step) for step in steps]
    if found.result is not None:
        lines.append(f"result: {_short(found.result)}")
    return content, lines


def _head(found: Job) -> list[str]:
    held = ", held" if found.is_held else ""
    lines = [f"job {found.id}: {found.protocol} {found.version}: {found.state}{held}"]
    if found.reason_text:
        lines.append(f"because: {worded(found.reason_text, found.advice)}")
    moments = [("submitted", found.submitted), ("started", found.started)]
    moments += [("ended", found.ended), ("must begin by", found.deadline)]
    told = [f"{name} {when(stamp)}" for name, stamp in moments if stamp is not None]
    lines.append(", ".join(told) + " UTC")
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


def label(step: Step) -> str:
    """Return a step in words: its name and what it acts on."""
    from ppu.plans.steps import StepRecord

    record = StepRecord(step.name, step.kind, step.begun, arguments=step.arguments)
    return record.label


def _plain(step: Step) -> dict[str, Any]:
    from ppu.core.labtime import iso

    return {
        "path": step.path,
        "name": step.name,
        "kind": step.kind,
        "label": label(step),
        "state": str(step.state),
        "attempt": step.attempt,
        "begun": iso(step.begun),
        "ended": None if step.ended is None else iso(step.ended),
        "result": step.result,
        "evidence": step.evidence,
    }


def _line(step: Step) -> str:
    from ppu.core.labtime import duration

    depth = 2 * step.path.count(".")
    took = "" if step.ended is None else f" {duration(step.ended - step.begun)}"
    more = f" -> {_short(step.result)}" if step.result is not None else ""
    again = f" (attempt {step.attempt})" if step.attempt > 1 else ""
    return (
        f"  {when(step.begun)}  {'':{depth}}{step.path:5} {label(step)}: "
        f"{step.state}{took}{again}{more}"
    )


def _short(content: Any) -> str:
    text = json.dumps(content)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


# -- following ---------------------------------------------------------------------


async def _follow(store: Store, job_id: int, *, as_json: bool) -> Any:
    """Print the job's events as they come; return the state in which it ended."""
    labels: dict[str, str] = {}
    state = None
    async for found, events in _changes(store, job_id):
        state = found.state
        for event in events:
            _tell(store, event, labels, as_json=as_json)
    return state


async def _changes(store: Store, job_id: int) -> AsyncIterator[tuple[Job, list[Event]]]:
    """Yield the job and its new events, from its first to its last."""
    from ppu.store.events import events_after
    from ppu.store.jobs import ENDED
    from ppu.store.queue import get

    seen = 0
    while True:
        with store.read() as connection:  # both of one moment
            events = events_after(connection, seen, job_id=job_id)
            found = get(connection, job_id)
        if events:
            seen = events[-1].sequence
            yield found, events
        elif found.state in ENDED:
            return
        else:
            await asyncio.sleep(_LOOK_EVERY_WALL_S)


def _tell(store: Store, event: Event, labels: dict[str, str], *, as_json: bool) -> None:
    from ppu.core.labtime import iso

    if as_json:
        said = {
            "sequence": event.sequence,
            "time": iso(event.stamp),
            "kind": event.kind,
            **event.content,
        }
        typer.echo(json.dumps(said))
        return
    text = _words(store, event, labels)
    if text:
        typer.echo(f"{when(event.stamp)}  {text}")


def _words(store: Store, event: Event, labels: dict[str, str]) -> str:
    """Return an event for people, nothing if it says nothing to them."""
    from ppu.core.remedies import read_advice

    said = event.content
    if event.kind == "step":
        path = said["path"]
        if path not in labels:
            labels.update(_labels(store, event.job_id))
        text = f"step {path}, {labels.get(path, '')}: {said['state']}"
        if "question" in said:
            return f"{text}: {said['question']} ({', '.join(said['answers'])})"
        evidence = said.get("evidence") or {}
        more = said.get("error") or evidence.get("text")
        return f"{text}: {more}" if more else text
    if event.kind == "custody":
        return f"{said['container']} {said['kind']}: {said['destination'] or 'nowhere'}"
    if event.kind == "sample":
        why = f": {said['reason']}" if said["reason"] else ""
        return f"sample {said['sample']} is {said['state']}{why}"
    if event.kind == "document":
        return ""
    if event.kind == "wait":
        waits = worded(said["for"], read_advice(said.get("advice", ())))
        return f"waits: {waits}" if waits else "goes on"
    words = ", ".join(f"{name} {value}" for name, value in said.items() if value)
    return f"{event.kind}: {words}"


def _labels(store: Store, job_id: int | None) -> dict[str, str]:
    from ppu.store.steps import steps_of

    if job_id is None:
        return {}
    with store.read() as connection:
        return {step.path: label(step) for step in steps_of(connection, job_id)}
