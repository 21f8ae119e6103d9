"""``ppu run``: run a protocol on a twin or on the instruments."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppu.cli.exits import Exit, code_of
from ppu.cli.log_lines import set_up_logging
from ppu.cli.options import (
    AttendedOption,
    LabOption,
    PaceOption,
    ParamsOption,
    SeedOption,
    SetOption,
    TargetName,
    TargetOption,
    VerboseOption,
    path_option,
    read_pace,
)
from ppu.cli.remedies import worded
from ppu.core.errors import ConfigurationError, PPUError
from ppu.core.notices import NoticeStream, tell
from ppu.core.remedies import plain_advice
from ppu.core.stopping import Interrupted, on_stop_signal

if TYPE_CHECKING:
    from ppu.cell.lab import OpenLab
    from ppu.plans.protocol import RegisteredProtocol


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(
        epilog="Example: ppu run solid_state_synthesis --set temperature_degc=850 "
        "--seed 7 --out my-run"
    )(run)


def run(
    context: typer.Context,
    protocol: Annotated[str, typer.Argument(help="See `ppu protocols`.")],
    lab: LabOption = "a-lab",
    params: ParamsOption = None,
    set_: SetOption = None,
    target: TargetOption = TargetName.TWIN,
    pace: PaceOption = None,
    seed: SeedOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path_option, help="Directory for everything the run leaves."
        ),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object.")
    ] = False,
    attended: AttendedOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run a protocol and leave result.json, report.html and documents.jsonl."""
    set_up_logging(verbose=verbose)
    try:
        result, where = _run(
            protocol,
            lab,
            params=params,
            settings=set_ or [],
            target=target,
            pace=read_pace(pace),
            seed=seed,
            out=out,
            attended=attended,
            elapsed=context.obj or float,
        )
    except _RunFailed as failed:
        _tell_failure(failed.error, failed.code, as_json=json_)
        raise typer.Exit(failed.code) from None
    except PPUError as exc:
        code = code_of(exc)
        _tell_failure(exc, code, as_json=json_)
        raise typer.Exit(code) from None
    if json_:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        _tell_result(result, where)


class _RunFailed(Exception):  # noqa: N818 - carries an error, is none itself
    """A run failed; what had started was left in a safe state."""

    def __init__(self, error: PPUError, code: Exit) -> None:
        super().__init__(str(error))
        self.error = error
        self.code = code


@dataclass(frozen=True)
class Parameters:
    """What a person asks of a protocol.

    Attributes:
        values: Parameters by name.
        places: Where each of them stands, for errors.
    """

    values: dict[str, Any]
    places: dict[str, str]


def read_parameters(
    protocol: RegisteredProtocol, file: Path | None, settings: list[str]
) -> Parameters:
    """Return the parameters of a file and of ``--set``, which wins.

    Raises:
        ConfigurationError: If the file or a setting cannot be read.
    """
    from ppu.core.validation import takes_only_text
    from ppu.core.yaml_document import YamlDocument, read_text, read_value

    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    if file is not None:
        source = f"--params {file}"
        try:
            text = read_text(file.read_bytes(), source)
        except OSError as exc:
            raise ConfigurationError(f"{source}: {exc.strerror}") from exc
        document = YamlDocument(text, source)
        if not isinstance(document.content, dict):
            raise ConfigurationError(f"{source}: should be a mapping of names")
        values |= document.content
        places |= {key: document.where((key,)) for key in values}
    fields = protocol.parameters.model_fields
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"--set {setting}: should look like key=value")
        places[key] = f"--set {key}"
        is_text = key in fields and takes_only_text(fields[key].annotation)
        values[key] = read_value(text, places[key], is_text=is_text)
    return Parameters(values, places)


def _run(
    name: str,
    lab: str,
    *,
    params: Path | None,
    settings: list[str],
    target: TargetName,
    pace: float | str | None,
    seed: int | None,
    out: Path | None,
    attended: bool,
    elapsed: Callable[[], float],
) -> tuple[dict[str, Any], Path]:
    from ppu.cell.execution import Execution
    from ppu.cell.open_lab import open_lab
    from ppu.core.labtime import calendar_date
    from ppu.plans.protocol import find_protocol

    protocol = find_protocol(name)
    asked = read_parameters(protocol, params, settings)
    protocol.parse(asked.values, asked.places)
    opened = open_lab(
        lab,
        target.value,
        pace=pace,  # type: ignore[arg-type]  # read_pace returns "default" or a pace
        seed=seed,
        attended=attended,
    )
    if out is None:
        out = Path("runs") / f"{calendar_date()}-{name}-{uuid.uuid4().hex[:6]}"
    # bluesky prints; standard output belongs to the result.
    with contextlib.redirect_stdout(NoticeStream()), opened.closing():
        opened.check_attended()
        opened.connect()
        execution = Execution(opened, protocol, asked.values, out)
        execution.check()
        with _progress(opened), finishing_what_began(opened):
            try:
                result = execution.run(elapsed)
            except PPUError as exc:
                for line in execution.whereabouts():
                    tell(line)
                code = code_of(exc, has_started=execution.has_started)
                raise _RunFailed(exc, code) from exc
    return result, out


def finishing_what_began(lab: OpenLab) -> contextlib.AbstractContextManager[None]:
    """Let a stop signal end the command until a plan runs, and change nothing after.

    While a plan runs the lab itself aborts it; then results are written and people
    are told where things are.
    """

    def stop(number: signal.Signals) -> None:
        if not lab.has_run:
            raise Interrupted(number.name)

    return on_stop_signal(stop)


@contextlib.contextmanager
def _progress(lab: OpenLab) -> Iterator[None]:
    """Tell steps, lab time, temperature and expected end while a plan runs."""
    from ppu.cli.progress import Progress

    progress = Progress(lab)
    progress.start()
    try:
        yield
    finally:
        progress.stop()


def _tell_failure(exc: PPUError, code: int, *, as_json: bool) -> None:
    tell(f"error: {exc}", *exc.advice)
    if as_json:
        content = {
            "schema_version": 1,
            "error": {
                "kind": type(exc).__name__,
                "text": worded(str(exc), exc.advice),
                "failure_class": str(exc.failure_class),
                "field": exc.field,
                "advice": plain_advice(exc.advice),
            },
            "exit_code": int(code),
        }
        sys.stdout.write(json.dumps(content) + "\n")


def _tell_result(result: dict[str, Any], out: Path) -> None:
    """Print the result for people."""
    lines = list(result["summary"])
    hours = result["lab_time_s"] / 3600
    pace = result["lab_time_s"] / max(result["run_time_s"], 1e-9)
    lines.append(
        f"lab time {hours:.2f} h in {result['run_time_s']:.2f} s "
        f"({pace:,.0f} x), {result['wall_time_s']:.2f} s in all"
    )
    incidents = result["incidents"]
    lines.append(f"incidents: {len(incidents) or 'none'}")
    lines += [f"  {i['device']}: {i['kind']}: {i['text']}" for i in incidents]
    lines.append(f"report: {out / result['files']['report']}")
    if result["simulated"]:
        lines.append("simulated: no real sample was made or measured")
    sys.stdout.write("\n".join(lines) + "\n")
