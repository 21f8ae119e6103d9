"""``ppu submit``: put jobs into the queue, one or a table of them."""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppu.cli.options import (
    STORE,
    JsonOption,
    LabOption,
    ParamsOption,
    SetOption,
    StoreOption,
)
from ppu.cli.run import read_parameters
from ppu.cli.store import open_store
from ppu.core.errors import ConfigurationError, nearest
from ppu.core.notices import tell

if TYPE_CHECKING:
    from ppu.plans.protocol import RegisteredProtocol

_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h|d)")
_OF_THE_JOB = ("key", "priority", "tags")
"""Columns of a batch that are no parameters."""


@dataclass(frozen=True)
class Row:
    """What is asked for one job.

    Attributes:
        where: Where it stands, for errors; empty for a single job.
        parameters: Values by name.
        columns: The names that come from columns of a table.
    """

    where: str
    parameters: dict[str, Any]
    columns: tuple[str, ...] = ()
    key: str | None = None
    priority: int | None = None
    tags: tuple[str, ...] = field(default=())


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(
        epilog="Example: ppu submit solid_state_synthesis --set target=LiCoO2 "
        "--deadline 6h --campaign cathodes"
    )(submit)


def submit(
    protocol: Annotated[str, typer.Argument(help="See `ppu protocols`.")],
    lab: LabOption = "a-lab",
    params: ParamsOption = None,
    set_: SetOption = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            help="CSV file, a job per row; its columns are parameters, and key, "
            "priority and tags. All rows come into the queue, or none."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="Names the request: the same key again is the same job."),
    ] = None,
    priority: Annotated[int, typer.Option(help="The higher runs first.")] = 0,
    campaign: Annotated[
        str, typer.Option(help="Jobs with one goal; campaigns share the lab fairly.")
    ] = "",
    deadline: Annotated[
        str | None,
        typer.Option(
            help="When it must have begun, such as 90min, 6h, 2d, or "
            "2030-01-31T18:00 (UTC)."
        ),
    ] = None,
    after: Annotated[
        list[int] | None,
        typer.Option(help="A job that must have succeeded before; may be repeated."),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="A word to find it by; may be repeated.")
    ] = None,
    held: Annotated[
        bool, typer.Option("--held", help="Let it wait until `ppu resume`.")
    ] = False,
    store: StoreOption = STORE,
    json_: JsonOption = False,
) -> None:
    """Put a job into the queue, or a batch of them, and print their numbers.

    Parameters are checked against the protocol, the limits of the lab's instruments
    and the stock; nothing is connected.
    """
    from ppu.operations import access, checking, description, submission
    from ppu.plans.protocol import find_protocol

    chosen = find_protocol(protocol)
    common = read_parameters(params, set_ or [])
    rows = [Row("", common)]
    if batch is not None:
        rows = read_batch(batch, chosen, common)
    with contextlib.ExitStack() as ends:
        is_new = not access.is_there(store)  # none is made for what is refused
        kept = None if is_new else ends.enter_context(open_store(store))
        described = description.describe_lab(lab, kept)
        compiled = checking.compile_all(
            described,
            chosen,
            [checking.Wish(row.parameters, row.where, row.columns) for row in rows],
        )
        opened = kept or ends.enter_context(open_store(store, may_be_new=True))
        if is_new:
            description.keep_description(opened, described)
        with opened.read() as connection:
            now = access.stamp_of(connection)
        end, end_s = (None, None) if deadline is None else read_deadline(deadline, now)
        ids = submission.submit(
            opened,
            [
                submission.Submission(
                    job=one,
                    key=_key(key, row, index, is_batch=batch is not None),
                    priority=priority if row.priority is None else row.priority,
                    campaign=campaign,
                    deadline=end,
                    deadline_s=end_s,
                    tags=(*(tag or ()), *row.tags),
                    needs=tuple(after or ()),
                    is_held=held,
                )
                for index, (row, one) in enumerate(zip(rows, compiled, strict=True), 1)
            ],
        )
    if json_:
        typer.echo(json.dumps({"jobs": ids}))
        return
    for job_id in ids:
        typer.echo(job_id)
    told = "1 job" if len(ids) == 1 else f"{len(ids)} jobs"
    tell(f"{told} of {chosen.name} in {opened.name}")


def _key(key: str | None, row: Row, index: int, *, is_batch: bool) -> str | None:
    """Return a row's key: its own, else one that numbers the rows of the batch."""
    if row.key is not None or key is None:
        return row.key
    return f"{key}/{index}" if is_batch else key


def read_deadline(text: str, now: float) -> tuple[float | None, float | None]:
    """Return what *text* means: a moment as a stamp, or a duration [s].

    A duration counts in the lab's time, which only its cell knows.

    Example:
        >>> read_deadline("1.5h", 100.0), read_deadline("1970-01-01T00:10Z", 0.0)
        ((None, 5400.0), (600.0, None))

    Raises:
        ConfigurationError: If it is neither, or has passed.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is not None:
        return None, float(match[1]) * _UNITS_S[match[2]]
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigurationError(
            f"--deadline {text}: should be a duration such as 90min, 6h or 2d, or a "
            "moment such as 2030-01-31T18:00"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    if moment.timestamp() <= now:
        raise ConfigurationError(f"--deadline {text}: this has passed already")
    return moment.timestamp(), None


# -- a table of jobs ---------------------------------------------------------------


def read_batch(
    path: Path, protocol: RegisteredProtocol, common: Mapping[str, Any]
) -> list[Row]:
    """Return the jobs of a CSV file; an empty cell leaves a parameter as it is.

    A column that is a parameter of the protocol is that, whatever it is called.

    Args:
        path: The file, with a header.
        protocol: What to run.
        common: Parameters of all rows; those of a row win.

    Raises:
        ConfigurationError: With every fault, its row and its column; the header is
            row 1.
    """
    from ppu.operations.checking import list_faults

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = list(csv.reader(file, strict=True))
    except OSError as exc:
        raise ConfigurationError(f"--batch {path}: {exc.strerror}") from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise ConfigurationError(f"--batch {path}: this is no CSV file: {exc}") from exc
    header = [name.strip() for name in table[0]] if table else []
    parameters = protocol.parameters.model_fields
    _check_header(path, header, [*parameters, *_OF_THE_JOB])
    faults: list[str] = []
    rows = [
        _read_row(f"{path} row {number}", header, cells, parameters, common, faults)
        for number, cells in enumerate(table[1:], 2)
        if any(cell.strip() for cell in cells)
    ]
    if not rows and not faults:
        faults.append(f"{path}: there is no job in it, only a header")
    if faults:
        raise ConfigurationError(list_faults(faults))
    return rows


def _check_header(path: Path, header: list[str], known: Sequence[str]) -> None:
    faults = []
    for name in header:
        if name not in known:
            faults.append(
                f"{path} row 1, column {name or '(no name)'}: this is no parameter; "
                f"{nearest(name, known)}"
            )
        elif header.count(name) > 1:
            faults.append(f"{path} row 1, column {name}: it stands there twice")
    if not header:
        faults.append(f"{path}: it is empty; the first row names the columns")
    if faults:
        raise ConfigurationError("\n".join(dict.fromkeys(faults)))


def _read_row(
    where: str,
    header: list[str],
    cells: list[str],
    parameters: Mapping[str, Any],
    common: Mapping[str, Any],
    faults: list[str],
) -> Row:
    """Return the job of a row, after noting its faults."""
    from ppu.core.yaml_document import YamlDocument

    if len(cells) > len(header):
        faults.append(f"{where}: it has {len(cells)} cells for {len(header)} columns")
    values: dict[str, Any] = {}
    of_job: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=False):
        text = cell.strip()
        if not text:
            continue
        place = f"{where}, column {name}"
        if name in parameters:
            try:
                values[name] = YamlDocument(text, place).content
            except ConfigurationError as exc:
                faults.append(str(exc))
        elif name == "tags":
            of_job[name] = tuple(text.replace(",", " ").split())
        elif name == "key":
            of_job[name] = text
        else:
            try:
                of_job[name] = int(text)
            except ValueError:
                faults.append(f"{place}: should be a whole number; given was '{text}'")
    return Row(where, {**common, **values}, tuple(values), **of_job)
