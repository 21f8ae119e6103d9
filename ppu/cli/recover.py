"""``ppu recover``: what nobody but a person can say, and where to say it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppu.cli.job import label
from ppu.cli.options import STORE, JsonOption, StoreOption
from ppu.cli.store import change, open_store, when, who
from ppu.core.errors import ConfigurationError, ConflictError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ppu.store.jobs import Job
    from ppu.store.steps import Question

_EFFECTS = {
    "happened": "it counts as done; the job goes on with what follows",
    "not-happened": "it will be carried out now; the job goes on from here",
    "retry": "it is tried once more",
    "skip": "it is left out; the job goes on with what follows",
    "park": "its sample is carried home, then the job ends",
    "abort": "the job ends, devices go to their abort states, its sample is "
    "quarantined",
}

_EFFECTS_OF_RESUMABLE = {
    "happened": "it has ended, but nobody measured it: the step counts as failed",
    "not-happened": "it begins anew: a furnace is heated",
}


def _effect(question: Question, answer: str) -> str:
    """Return what an answer will do."""
    effect = _EFFECTS.get(answer, "")
    if question.step.kind != "resumable":
        return effect
    return _EFFECTS_OF_RESUMABLE.get(answer, effect)


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(
        epilog='Example: ppu recover 12 --happened --note "the crucible is on the pan"'
    )(recover)


def recover(
    id_: Annotated[
        int | None, typer.Argument(metavar="ID", help="Job to answer.")
    ] = None,
    happened: Annotated[
        bool, typer.Option("--happened", help="The step has happened.")
    ] = False,
    not_happened: Annotated[
        bool, typer.Option("--not-happened", help="The step has not happened.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try it again.")] = False,
    skip: Annotated[bool, typer.Option("--skip", help="Go on without it.")] = False,
    park: Annotated[
        bool, typer.Option("--park", help="Put the sample away, and give the job up.")
    ] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Give the job up.")] = False,
    step: Annotated[
        str | None, typer.Option(help="Path of the step, if the job asks several.")
    ] = None,
    may_heat: Annotated[
        bool,
        typer.Option(
            "--may-heat", help="The cell was restarted; let it heat furnaces again."
        ),
    ] = False,
    note: Annotated[str, typer.Option(help="What you saw; kept with the job.")] = "",
    store: StoreOption = STORE,
    json_: JsonOption = False,
) -> None:
    """List what jobs ask people, or answer one of them.

    Without an answer nothing is changed: look at the bench first.
    """
    given = {
        "happened": happened,
        "not-happened": not_happened,
        "retry": retry,
        "skip": skip,
        "park": park,
        "abort": abort,
    }
    answers = [name for name, is_given in given.items() if is_given]
    if may_heat:
        if answers or id_ is not None:
            raise ConfigurationError("--may-heat is said to the cell, alone")
        typer.echo(change(store, lambda c, now: _allow_heat(c, note, now)))
        return
    if not answers:
        _list(store, id_, as_json=json_)
        return
    if id_ is None or len(answers) > 1:
        raise ConfigurationError(
            "say which job, and give one answer, such as: ppu recover 12 --happened"
        )
    said = answers[0]
    text = change(store, lambda c, now: _answer(c, id_, step, said, note, now))
    typer.echo(text)


def _allow_heat(connection: Connection, note: str, now: float) -> str:
    from ppu.store.cells import is_owned
    from ppu.store.commands import request
    from ppu.store.requests import AllowHeat

    if not is_owned(connection):
        raise ConflictError(
            "no cell works on this store; look at the furnaces when one has started"
        )
    request(connection, AllowHeat(note=note), who(), now)
    return "furnaces may be heated again"


def _answer(
    connection: Connection,
    job_id: int,
    path: str | None,
    said: str,
    note: str,
    now: float,
) -> str:
    from ppu.store.cells import is_owned
    from ppu.store.jobs import JobState
    from ppu.store.queue import abort, get
    from ppu.store.steps import answer, questions

    found = get(connection, job_id)
    is_silent = not questions(connection, job_id)
    if found.state is JobState.LOST and is_silent and said == "abort":
        ended = abort(connection, job_id, who(), note, now)
        return f"job {job_id}: {ended.state}"
    question = answer(connection, job_id, path, said, who(), now, note)
    text = f"job {job_id}, step {question.step.path}: {said}: {_effect(question, said)}"
    if not is_owned(connection):
        text += "; no cell works on this store, so it is acted on when one starts"
    return text


def _list(store: str, job_id: int | None, *, as_json: bool) -> None:
    from ppu.store.jobs import JobState
    from ppu.store.queue import find, get
    from ppu.store.steps import questions

    with open_store(store) as opened, opened.read() as connection:
        asked = questions(connection, job_id)
        lost = find(connection, states=[JobState.LOST], limit=1000)
        waiting = find(connection, states=[JobState.NEEDS_INPUT], limit=1000)
        cold = [job for job in waiting if job.reason_code == "restart"]
        if job_id is not None:
            get(connection, job_id)  # say so if there is none
            lost = [job for job in lost if job.id == job_id]
    if as_json:
        content = {
            "questions": [_plain(one) for one in asked],
            "lost": [job.id for job in lost],
            "wait_to_heat": [job.id for job in cold],
        }
        typer.echo(json.dumps(content))
        return
    for one in asked:
        typer.echo(_told(one))
    for job in lost:
        typer.echo(_told_lost(job))
    for job in cold:
        typer.echo(f"job {job.id} ({job.protocol}) waits: {job.reason_text}")
    if not asked and not lost and not cold:
        typer.echo("nothing is asked")


def _plain(question: Question) -> dict[str, Any]:
    return {
        "job": question.step.job_id,
        "step": question.step.path,
        "label": label(question.step),
        "state": str(question.step.state),
        "text": question.text,
        "evidence": question.step.evidence,
        "answers": {name: _effect(question, name) for name in question.answers},
        "answered": question.answered,
    }


def _told(question: Question) -> str:
    step = question.step
    lines = [
        f"job {step.job_id}, step {step.path}: {label(step)}",
        f"  begun {when(step.begun)} UTC, attempt {step.attempt}",
        f"  {question.text}",
    ]
    if question.answered is not None:
        lines.append(f"  answered with --{question.answered}, which waits for the cell")
        return "\n".join(lines)
    lines += [f"  --{name}: {_effect(question, name)}" for name in question.answers]
    return "\n".join(lines)


def _told_lost(job: Job) -> str:
    return (
        f"job {job.id} ({job.protocol}) is lost: {job.reason_text}\n"
        "  the next cell finds out what became of it; or\n"
        f"  --abort: {_EFFECTS['abort']}"
    )
