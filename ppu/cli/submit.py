"""``ppu submit``: put jobs into the queue, one or a table of them."""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ppu.cli.options import (
    STORE,
    JsonOption,
    LabOption,
    ParamsOption,
    SetOption,
    StoreOption,
)
from ppu.cli.run import Parameters, read_parameters
from ppu.cli.store import open_store
from ppu.core.errors import ConfigurationError, nearest
from ppu.core.names import checked_name, shown
from ppu.core.notices import tell
from ppu.core.numbers import NotPlainError, integer_option, read_number

if TYPE_CHECKING:
    from ppu.plans.protocol import RegisteredProtocol

_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([^a-z]+?) ?(s|min|h|d)")
_BLANKS: Final = " \t\r\n"
"""What may stand around a cell: other blanks, such as NBSP, belong to it."""
_SEPARATOR_LINE: Final = re.compile(r"sep=([,;\t])\r?\n")
"""What some spreadsheets write first."""
MOST_PRIORITY: Final = 2**31 - 1
_OF_THE_JOB = ("key", "priority", "tags")
"""Columns of a batch that are no parameters."""


@dataclass(frozen=True)
class Row:
    """What is asked for one job.

    Attributes:
        where: Where it stands, for errors; empty for a single job.
        parameters: Values by name.
        places: Where each of them stands, for errors.
        faults: What is wrong with it.
    """

    where: str
    parameters: dict[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
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
    priority: Annotated[
        int,
        typer.Option(
            parser=integer_option(-MOST_PRIORITY, MOST_PRIORITY),
            help="The higher runs first.",
        ),
    ] = 0,
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
        typer.Option(
            parser=integer_option(1),
            help="A job that must have succeeded before; may be repeated.",
        ),
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
    common = read_parameters(chosen, params, set_ or [])
    rows = [Row("", common.values, common.places)]
    if batch is not None:
        rows = read_batch(batch, chosen, common)
    with contextlib.ExitStack() as ends:
        is_new = not access.is_there(store)  # none is made for what is refused
        kept = None if is_new else ends.enter_context(open_store(store))
        described = description.describe_lab(lab, kept)
        compiled = checking.compile_all(
            described,
            chosen,
            [
                checking.Wish(row.parameters, row.where, row.places, row.faults)
                for row in rows
            ],
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
    match = _DURATION.fullmatch(text.strip(" "))
    try:
        if match is not None:
            lasts_s = read_number(match[1]) * _UNITS_S[match[2]]
            if lasts_s <= 0:
                raise NotPlainError("this is no time at all; give more than 0")
            return None, lasts_s
        moment = datetime.datetime.fromisoformat(text.strip(" "))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        end = moment.timestamp()
    except NotPlainError as exc:
        raise ConfigurationError(f"--deadline {text}: {exc}") from None
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"--deadline {text}: should be a duration such as 90min, 6h or 2d, or a "
            "moment such as 2030-01-31T18:00"
        ) from None
    if end <= now:
        raise ConfigurationError(f"--deadline {text}: this has passed already")
    return end, None


# -- a table of jobs ---------------------------------------------------------------


def read_batch(
    path: Path, protocol: RegisteredProtocol, common: Parameters
) -> list[Row]:
    """Return the jobs of a CSV file; an empty cell leaves a parameter as it is.

    A column that is a parameter of the protocol is that, whatever it is called. Commas,
    semicolons or tabs may stand between cells, as spreadsheets of different countries
    write them; a number is written with a point everywhere.

    Args:
        path: The file, with a header.
        protocol: What to run.
        common: Parameters of all rows; those of a row win.

    Raises:
        ConfigurationError: If it is no table, or its header is wrong. What is wrong
            with a row stands there, row and column with it; the header is row 1.
    """
    n_before, table = _read_table(path)
    header = [name.strip(_BLANKS) for name in table[0]] if table else []
    parameters = protocol.parameters.model_fields
    if not header:
        raise ConfigurationError(
            f"{path}: it is empty; the first row names the columns"
        )
    _check_header(f"{path} row {n_before + 1}", header, [*parameters, *_OF_THE_JOB])
    rows = [
        _read_row(f"{path} row {number}", header, cells, parameters, common)
        for number, cells in enumerate(table[1:], n_before + 2)
        if any(cell.strip(_BLANKS) for cell in cells)
    ]
    if not rows:
        raise ConfigurationError(f"{path}: there is no job in it, only a header")
    return rows


def _read_table(path: Path) -> tuple[int, list[list[str]]]:
    """Return the cells of a CSV file, and how many lines stand before the header."""
    from ppu.core.yaml_document import read_text

    source = f"--batch {path}"
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"{source}: {exc.strerror}") from exc
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise ConfigurationError(
            f"{source}: this is no CSV file but a workbook; save the sheet as "
            "'CSV UTF-8'"
        )
    lines = list(io.StringIO(read_text(content, source), newline=""))
    n_before = 0
    if lines and (match := _SEPARATOR_LINE.fullmatch(lines[0])):
        separator, n_before = match[1], 1
    else:
        separator = _separator(lines[0] if lines else "")
    try:
        rows = csv.reader(lines[n_before:], strict=True, delimiter=separator)
        return n_before, list(rows)
    except csv.Error as exc:
        raise ConfigurationError(f"{source}: this is no CSV file: {exc}") from exc


def _separator(header: str) -> str:
    r"""Return what stands between the names of the columns.

    Example:
        >>> [_separator(header) for header in ("a,b", "a;b", "a\tb", "a")]
        [',', ';', '\t', ',']
    """
    return max(",;\t", key=header.count)


def _check_header(where: str, header: list[str], known: Sequence[str]) -> None:
    faults = []
    for name in header:
        if name not in known:
            told = shown(name) or "(no name)"
            faults.append(
                f"{where}, column {told}: this is no parameter; {nearest(name, known)}"
            )
        elif header.count(name) > 1:
            faults.append(f"{where}, column {name}: it stands there twice")
    if faults:
        raise ConfigurationError("\n".join(dict.fromkeys(faults)))


def _read_row(
    where: str,
    header: list[str],
    cells: list[str],
    parameters: Mapping[str, Any],
    common: Parameters,
) -> Row:
    """Return the job of a row, with what is wrong there."""
    faults = []
    if len(cells) > len(header):
        faults.append(f"{where}: it has {len(cells)} cells for {len(header)} columns")
    values = dict(common.values)
    places = dict(common.places)
    of_job: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=False):
        text = cell.strip(_BLANKS)
        if not text:
            continue
        place = f"{where}, column {name}"
        try:
            if name in parameters:
                places[name] = place
                values[name] = _read_cell(text, place, parameters[name].annotation)
            elif name == "tags":
                tags = text.replace(",", " ").split()
                of_job[name] = tuple(checked_name(place, tag) for tag in tags)
            elif name == "key":
                of_job[name] = checked_name(place, text)
            else:
                of_job[name] = integer_option(-MOST_PRIORITY, MOST_PRIORITY)(text)
        except NotPlainError as exc:
            faults.append(f"{place}: {exc}")
        except ConfigurationError as exc:
            faults.append(str(exc))
    return Row(where, values, places, tuple(faults), **of_job)


def _read_cell(text: str, place: str, annotation: Any) -> Any:
    """Return what a cell means; what cannot be read is text, and refused as such."""
    from ppu.core.validation import takes_only_text
    from ppu.core.yaml_document import read_value

    try:
        return read_value(text, place, is_text=takes_only_text(annotation))
    except ConfigurationError:
        return text
