"""``ppu fault``: let something go wrong on a bench that ``ppu sim`` serves."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from ppu.cli.options import read_port
from ppu.core.errors import ConfigurationError, ConnectError
from ppu.core.numbers import (
    NotPlainError,
    integer_option,
    number_option,
    read_number,
)
from ppu.core.yaml_document import read_json

_ANSWERS_WITHIN_WALL_S: Final = 5.0
_LONGEST_ANSWER: Final = 4_000_000


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(
        epilog="Example: ppu fault balance delay --for-s 60 --option by_s=3 "
        "--control 127.0.0.1:40123"
    )(fault)


def fault(
    device: Annotated[str, typer.Argument(help="Device of the bench.")],
    fault: Annotated[
        str | None,
        typer.Argument(help="What goes wrong; without it, what can and what did."),
    ] = None,
    control: Annotated[
        str, typer.Option(help="HOST:PORT that `ppu sim` printed.")
    ] = "",
    at_s: Annotated[
        float | None,
        typer.Option(parser=number_option(), help="Begin so much later, not now."),
    ] = None,
    every_s: Annotated[
        float | None,
        typer.Option(parser=number_option(), help="Come again so often."),
    ] = None,
    for_s: Annotated[
        float | None, typer.Option(parser=number_option(), help="Last so long.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(parser=integer_option(), help="Hit so many exchanges each time."),
    ] = None,
    with_probability: Annotated[
        float | None,
        typer.Option(
            parser=number_option(), help="0 to 1, for each exchange or each time."
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Number of the fault, as by_s=3; repeatable."),
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="End every fault of the device.")
    ] = False,
) -> None:
    """Let a fault come to a simulated instrument of a running `ppu sim`.

    All times are lab seconds. Nothing real can be reached with it.
    """
    script = {
        "fault": fault,
        "at_s": at_s,
        "every_s": every_s,
        "for_s": for_s,
        "count": count,
        "with_probability": with_probability,
        **_read_options(option or []),
    }
    given = {key: value for key, value in script.items() if value is not None}
    host, port = read_address(control)
    if clear:
        if given:
            raise ConfigurationError("--clear ends faults; give nothing else with it")
        answer = ask_bench(host, port, {"device": device, "clear": True})
        typer.echo(f"{answer['lab_time_s']:.0f} s: no faults at {device} any more")
    elif fault is not None:
        answer = ask_bench(host, port, {"device": device, **given})
        typer.echo(f"{answer['lab_time_s']:.0f} s: {fault} at {device}")
    elif given:
        raise ConfigurationError("say which fault: ppu fault DEVICE FAULT")
    else:
        _show(ask_bench(host, port, {"faults": device}))


def _show(answer: Mapping[str, Any]) -> None:
    """Print what can go wrong with a device, and what did."""
    for name, sentence in answer["known"].items():
        sys.stdout.write(f"  {name:22} {sentence}\n")
    hits = answer["hits"]
    sys.stdout.write(f"hits so far: {len(hits) or 'none'}\n")
    for hit in hits[-10:]:
        sys.stdout.write(f"  {hit['lab_time_s']:12.1f} s  {hit['fault']}\n")


def _read_options(options: list[str]) -> dict[str, float]:
    """Return the numbers of a fault.

    Raises:
        ConfigurationError: If one of them does not look like ``by_s=3``.
    """
    numbers = {}
    for option in options:
        name, _, text = option.partition("=")
        try:
            numbers[name] = read_number(text)
        except NotPlainError as exc:
            raise ConfigurationError(
                f"--option {option}: should look like by_s=3: {exc}"
            ) from None
    return numbers


def read_address(control: str) -> tuple[str, int]:
    """Return host and port.

    Raises:
        ConfigurationError: If *control* is no address.
    """
    host, _, port = control.rpartition(":")
    number = read_port(port)
    if number is None or (":" in host and not host.startswith("[")):
        raise ConfigurationError(
            f"--control {control or 'is missing'}: give the HOST:PORT that `ppu sim` "
            "printed when it started"
        )
    return host.strip("[]") or "127.0.0.1", number


def ask_bench(host: str, port: int, request: Mapping[str, Any]) -> dict[str, Any]:
    """Send *request* to the control socket and return the answer.

    Raises:
        ConnectError: If nobody answers there.
        ConfigurationError: If the bench refuses it.
    """
    where = f"{host}:{port}"
    line = b""
    try:
        with socket.create_connection((host, port), _ANSWERS_WITHIN_WALL_S) as stream:
            stream.sendall(json.dumps(request).encode() + b"\n")
            with stream.makefile("rb") as lines:
                line = lines.readline(_LONGEST_ANSWER)
        answer = read_json(line, where)
    except OSError as exc:
        raise ConnectError(
            f"{where}: {exc.strerror or exc}; does that `ppu sim` still run?"
        ) from exc
    except ConfigurationError as exc:
        raise ConnectError(f"{where} is no control socket: {line[:80]!r}") from exc
    if not isinstance(answer, dict) or not answer.get("ok"):
        error = answer.get("error") if isinstance(answer, dict) else None
        raise ConfigurationError(
            error or f"{where} is no control socket: {line[:80]!r}"
        )
    return answer
