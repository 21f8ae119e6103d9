"""``ppu jobs`` and the commands that change how jobs wait, run and end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppu.cli.options import STORE, JsonOption, StoreOption
from ppu.cli.remedies import worded
from ppu.cli.store import ask_cell, open_store, when, who
from ppu.cli.table import fitted, with_reason
from ppu.core.numbers import integer_option

if TYPE_CHECKING:
    from ppu.operations.views import ActivityView, JobView
    from ppu.store.store import Store

Ids = Annotated[
    list[int],
    typer.Argument(metavar="ID...", parser=integer_option(), help="Numbers of jobs."),
]


def attach(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.command(epilog="Example: ppu jobs --state queued --campaign cathodes")(jobs)
    app.command(epilog="Example: ppu hold 12 13")(hold)
    app.command(epilog="Example: ppu resume 12 13")(resume)
    app.command(epilog="Example: ppu cancel 12")(cancel)
    app.command(epilog="Example: ppu drain --store /data/lab.sqlite")(drain)
    app.command(epilog='Example: ppu abort 12 --reason "the crucible broke"')(abort)
    app.command(epilog="Example: ppu retry 12")(retry)


def jobs(
    state: Annotated[
        list[str] | None, typer.Option(help="Only jobs in this state; repeatable.")
    ] = None,
    campaign: Annotated[str | None, typer.Option(help="Only those of one.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this word.")] = None,
    limit: Annotated[
        int, typer.Option(parser=integer_option(1), help="How many at most.")
    ] = 50,
    gantt: Annotated[
        bool, typer.Option("--gantt", help="Draw what each job did when.")
    ] = False,
    store: StoreOption = STORE,
    json_: JsonOption = False,
) -> None:
    """List jobs, the newest first.

    Why a job waits stands below it where the terminal is narrow; `ppu job ID` tells
    all.
    """
    from ppu.operations import looking

    with open_store(store) as opened:
        found = looking.jobs(
            opened, states=state or (), campaign=campaign, tag=tag, limit=limit
        )
        if gantt:
            typer.echo(_chart(looking.activity(opened, [job.id for job in found])))
            return
    if json_:
        typer.echo(json.dumps([plain(job) for job in found]))
        return
    if not found:
        typer.echo("no jobs")
        return
    head = f"{'job':>6}  {'state':17} {'protocol':24} {'submitted (UTC)':19}  campaign"
    typer.echo(fitted(head))
    for job in found:
        state_ = f"{job.state}, held" if job.is_held else job.state
        line = (
            f"{job.id:6}  {state_:17} {job.protocol:24} {when(job.submitted)}  "
            f"{job.campaign or '-'}"
        )
        typer.echo(with_reason(line, _why(job)))


def _why(job: JobView) -> str:
    """Return why a job is in its state, or else what it waits for."""
    if job.reason is not None and job.reason.text:
        return worded(job.reason.text, job.reason.advice)
    return "; ".join(worded(one.text, one.advice) for one in job.waits)


def _chart(seen: ActivityView) -> str:
    """Return a chart of the outer steps of jobs."""
    from ppu.exports.gantt import Bar, gantt

    rows = {
        f"job {job_id}": [
            Bar(one.name, one.begun, one.ended, is_wait=one.is_wait) for one in bars
        ]
        for job_id, bars in seen.jobs.items()
    }
    return gantt(rows, marks=seen.restarts, mark="another cell began")


def plain(job: JobView) -> dict[str, Any]:
    """Return a job as plain data; moments are UTC."""
    return job.model_dump(mode="json", exclude={"waits"})


def hold(ids: Ids, store: StoreOption = STORE) -> None:
    """Keep jobs from beginning; one that runs waits before its next step."""
    from ppu.operations import control

    _change(store, lambda opened: control.hold(opened, ids))


def resume(ids: Ids, store: StoreOption = STORE) -> None:
    """End the hold of jobs."""
    from ppu.operations import control

    _change(store, lambda opened: control.resume(opened, ids))


def cancel(ids: Ids, store: StoreOption = STORE) -> None:
    """Take jobs out of the queue; one that runs stops at its next safe point."""
    from ppu.operations import control

    _change(store, lambda opened: control.cancel(opened, ids, who()))


def abort(
    ids: Ids,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks later.")] = "",
    store: StoreOption = STORE,
) -> None:
    """Give jobs up at once: the devices go to their abort states."""
    from ppu.operations import control

    _change(store, lambda opened: control.abort(opened, ids, who(), reason))


def drain(
    now: Annotated[
        bool,
        typer.Option(
            "--now",
            help="Leave firings under way to their controllers; the next cell joins "
            "them. SIGTERM does the same.",
        ),
    ] = False,
    store: StoreOption = STORE,
) -> None:
    """Let the cell begin no job and no further step, and end when firings have ended.

    What is under way ends and is kept, what waits goes on with the next cell. A guard
    ends with its cell.
    """
    from ppu.operations import control

    ends = "what moves has ended" if now else "firings have ended"
    ask_cell(
        store,
        lambda opened: [control.drain(opened, who(), awaits_firings=not now)],
        [f"no job and no further step begins, the cell ends when {ends}"],
    )


def retry(ids: Ids, store: StoreOption = STORE) -> None:
    """Ask once more for what jobs were asked that did not succeed, as new jobs."""
    from ppu.operations import control

    _change(store, lambda opened: control.retry(opened, ids))


def _change(store: str, act: Callable[[Store], list[JobView]]) -> None:
    """Do *act* to all jobs or to none, and tell what they are now."""
    with open_store(store) as opened:
        changed = act(opened)
    for job in changed:
        line = f"job {job.id}: {job.state}" + (", held" if job.is_held else "")
        line += "".join(f"; {worded(why.text, why.advice)}" for why in job.waits)
        typer.echo(line)
