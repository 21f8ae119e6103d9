"""``ppu recover``: what nobody but a person can say, and where to say it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppu.cli.options import STORE, JsonOption, StoreOption
from ppu.cli.remedies import worded
from ppu.cli.store import ask_cell, open_store, when, who
from ppu.core.errors import ConfigurationError
from ppu.core.numbers import integer_option

if TYPE_CHECKING:
    from ppu.operations.views import JobView, QuestionView


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(
        epilog='Example: ppu recover 12 --happened --note "the crucible is on the pan"'
    )(recover)


def recover(
    id_: Annotated[
        int | None,
        typer.Argument(metavar="ID", parser=integer_option(), help="Job to answer."),
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
    accept_store: Annotated[
        bool,
        typer.Option(
            "--accept-store",
            help="The store was restored or rolled back; what it believes of the bench "
            "is put right, let jobs go on.",
        ),
    ] = False,
    note: Annotated[str, typer.Option(help="What you saw; kept with the job.")] = "",
    store: StoreOption = STORE,
    json_: JsonOption = False,
) -> None:
    """List what jobs ask people, or answer one of them.

    Without an answer nothing is changed: look at the bench first.
    """
    from ppu.operations import control

    given = {
        "happened": happened,
        "not-happened": not_happened,
        "retry": retry,
        "skip": skip,
        "park": park,
        "abort": abort,
    }
    answers = [name for name, is_given in given.items() if is_given]
    if may_heat or accept_store:
        if answers or id_ is not None or (may_heat and accept_store):
            option = "--may-heat" if may_heat else "--accept-store"
            raise ConfigurationError(f"{option} is said to the cell, alone")
        act = control.allow_heat if may_heat else control.accept_store
        words = "furnaces may be heated again" if may_heat else "jobs go on"
        ask_cell(store, lambda opened: [act(opened, who(), note)], [words])
        return
    if not answers:
        _list(store, id_, as_json=json_)
        return
    if id_ is None or len(answers) > 1:
        raise ConfigurationError(
            "say which job, and give one answer, such as: ppu recover 12 --happened"
        )
    with open_store(store) as opened:
        came = control.answer(opened, id_, answers[0], who(), step, note)
    if came.step is None:
        typer.echo(f"job {id_}: {came.state}")
        return
    text = f"job {id_}, step {came.step}: {came.said}: {came.effect}"
    if not came.is_heard:
        text += "; no cell works on this store, so it is acted on when one starts"
    typer.echo(text)


def _list(store: str, job_id: int | None, *, as_json: bool) -> None:
    from ppu.operations import looking

    with open_store(store) as opened:
        found = looking.recovery(opened, job_id)
    if as_json:
        content = {
            "questions": [_plain(one) for one in found.questions],
            "lost": [job.id for job in found.lost],
            "wait_to_heat": [job.id for job in found.wait_to_heat],
        }
        typer.echo(json.dumps(content))
        return
    for one in found.questions:
        typer.echo(_told(one))
    for job in found.lost:
        typer.echo(_told_lost(job))
    for job in found.wait_to_heat:
        typer.echo(f"job {job.id} ({job.protocol}) waits: {_reason(job)}")
    if not (found.questions or found.lost or found.wait_to_heat):
        typer.echo("nothing is asked")


def _reason(job: JobView) -> str:
    return "" if job.reason is None else worded(job.reason.text, job.reason.advice)


def _plain(question: QuestionView) -> dict[str, Any]:
    return {
        "job": question.job,
        "step": question.step.path,
        "label": question.step.label,
        "state": question.step.state,
        "text": question.text,
        "evidence": question.step.evidence,
        "answers": question.answers,
        "answered": question.answered,
    }


def _told(question: QuestionView) -> str:
    step = question.step
    lines = [
        f"job {question.job}, step {step.path}: {step.label}",
        f"  begun {when(step.begun)} UTC, attempt {step.attempt}",
        f"  {question.text}",
    ]
    if question.answered is not None:
        lines.append(f"  answered with --{question.answered}, which waits for the cell")
        return "\n".join(lines)
    lines += [f"  --{name}: {effect}" for name, effect in question.answers.items()]
    return "\n".join(lines)


def _told_lost(job: JobView) -> str:
    from ppu.operations.looking import effect_of

    return (
        f"job {job.id} ({job.protocol}) is lost: {_reason(job)}\n"
        "  the next cell finds out what became of it; or\n"
        f"  --abort: {effect_of('', 'abort')}"
    )
