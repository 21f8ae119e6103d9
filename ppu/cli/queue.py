"""``ppu jobs`` and the commands that change how jobs wait, run and end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppu.cli.options import STORE, JsonOption, StoreOption
from ppu.cli.remedies import worded
from ppu.cli.store import change, open_store, when, who
from ppu.cli.table import fitted
from ppu.core.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ppu.store.jobs import Job

Ids = Annotated[list[int], typer.Argument(metavar="ID...", help="Numbers of jobs.")]


def attach(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.command(epilog="Example: ppu jobs --state queued --campaign cathodes")(jobs)
    app.command(epilog="Example: ppu hold 12 13")(hold)
    app.command(epilog="Example: ppu resume 12 13")(resume)
    app.command(epilog="Example: ppu cancel 12")(cancel)
    app.command(epilog='Example: ppu abort 12 --reason "the crucible broke"')(abort)


def jobs(
    state: Annotated[
        list[str] | None, typer.Option(help="Only jobs in this state; repeatable.")
    ] = None,
    campaign: Annotated[str | None, typer.Option(help="Only those of one.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this word.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    gantt: Annotated[
        bool, typer.Option("--gantt", help="Draw what each job did when.")
    ] = False,
    store: StoreOption = STORE,
    json_: JsonOption = False,
) -> None:
    """List jobs, the newest first.

    A line that is too long for the terminal is cut; `ppu job ID` tells all.
    """
    from ppu.store.jobs import ACTIVE, JobState
    from ppu.store.queue import find
    from ppu.store.waiting import reasons_to_wait

    known = [str(one) for one in JobState]
    for name in state or ():
        if name not in known:
            raise ConfigurationError(f"--state {name}: {nearest(name, known)}")
    states = [JobState(name) for name in state or ()]
    with open_store(store) as opened, opened.read() as connection:
        found = find(connection, states=states, campaign=campaign, tag=tag, limit=limit)
        if gantt:
            typer.echo(_chart(connection, found))
            return
        # Those in line wait for those before them; that is no news.
        waits = {
            job.id: reasons_to_wait(connection, job)
            for job in found
            if job.state in ACTIVE and not job.reason_text
        }
    if json_:
        typer.echo(json.dumps([summary(job) for job in found]))
        return
    if not found:
        typer.echo("no jobs")
        return
    head = f"{'job':>6}  {'state':17} {'protocol':24} {'submitted (UTC)':19}  campaign"
    typer.echo(head)
    for job in found:
        state_ = f"{job.state}, held" if job.is_held else str(job.state)
        line = (
            f"{job.id:6}  {state_:17} {job.protocol:24} {when(job.submitted)}  "
            f"{job.campaign or '-'}"
        )
        why = worded(job.reason_text or "", job.advice) or "; ".join(
            worded(one.text, one.advice) for one in waits.get(job.id, ())
        )
        typer.echo(fitted(f"{line}  ({why})" if why else line))


def _chart(connection: Connection, jobs: list[Job]) -> str:
    """Return a chart of the outer steps of *jobs*, the oldest first."""
    from ppu.exports.gantt import Bar, gantt
    from ppu.store.cells import starts
    from ppu.store.events import last_stamp
    from ppu.store.steps import steps_of
    from ppu.store.waiting import waits_of

    now = last_stamp(connection) or 0.0
    rows = {}
    for one in reversed(jobs):
        bars = [
            Bar(step.name.replace("_", " "), step.begun, step.ended or now)
            for step in steps_of(connection, one.id)
            if "." not in step.path
        ]
        waits = waits_of(connection, one.id, now)
        bars += [Bar("", begun, ended, is_wait=True) for begun, ended in waits]
        rows[f"job {one.id}"] = bars
    restarts = starts(connection)[1:]
    return gantt(rows, marks=restarts, mark="another cell began")


def summary(job: Job) -> dict[str, Any]:
    """Return a job as plain data; moments are UTC."""
    from ppu.core.labtime import iso

    moments = {
        name: None if stamp is None else iso(stamp)
        for name, stamp in (
            ("submitted", job.submitted),
            ("started", job.started),
            ("ended", job.ended),
            ("deadline", job.deadline),
        )
    }
    reason = None
    if job.reason_code is not None:
        reason = {
            "code": job.reason_code,
            "text": worded(job.reason_text or "", job.advice),
        }
    return {
        "id": job.id,
        "state": str(job.state),
        "is_held": job.is_held,
        "protocol": job.protocol,
        "version": job.version,
        "parameters": job.parameters,
        "key": job.key,
        "priority": job.priority,
        "campaign": job.campaign,
        "tags": list(job.tags),
        "parent_id": job.parent_id,
        "physical_effect": str(job.physical_effect),
        "is_retryable": job.is_retryable,
        "reason": reason,
        "result": job.result,
        **moments,
    }


def hold(ids: Ids, store: StoreOption = STORE) -> None:
    """Keep jobs from beginning; one that runs waits before its next step."""
    from ppu.store.queue import hold as hold_

    _change(store, ids, hold_)


def resume(ids: Ids, store: StoreOption = STORE) -> None:
    """End the hold of jobs."""
    from ppu.store.queue import resume as resume_

    _change(store, ids, resume_)


def cancel(ids: Ids, store: StoreOption = STORE) -> None:
    """Take jobs out of the queue; one that runs stops at its next safe point."""
    from ppu.store.queue import cancel as cancel_

    _change(store, ids, lambda c, job_id, now: cancel_(c, job_id, who(), now))


def abort(
    ids: Ids,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks later.")] = "",
    store: StoreOption = STORE,
) -> None:
    """Give jobs up at once: the devices go to their abort states."""
    from ppu.store.queue import abort as abort_

    _change(store, ids, lambda c, job_id, now: abort_(c, job_id, who(), reason, now))


def _change(
    store: str, ids: list[int], act: Callable[[Connection, int, float], Job]
) -> None:
    """Do *act* to all jobs or to none, and tell what they are now."""
    from ppu.store.jobs import ENDED
    from ppu.store.waiting import reasons_to_wait

    def work(connection: Connection, now: float) -> list[str]:
        told = []
        for job_id in dict.fromkeys(ids):
            job = act(connection, job_id, now)
            line = f"job {job.id}: {job.state}" + (", held" if job.is_held else "")
            if job.state not in ENDED:
                line += "".join(
                    f"; {worded(why.text, why.advice)}"
                    for why in reasons_to_wait(connection, job)
                )
            told.append(line)
        return told

    for line in change(store, work):
        typer.echo(line)
