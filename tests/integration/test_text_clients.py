"""The simulated powder robot and diffractometer, talked to by curl and netcat.

``ppu sim`` serves the bundled lab; the programs know nothing of PPU.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DEADLINE_WALL_S = 600.0

pytestmark = pytest.mark.skipif(
    not (Path("/usr/bin/nc").exists() and Path("/usr/bin/curl").exists()),
    reason="needs netcat and curl (Debian: apt-get install netcat-openbsd curl)",
)


@pytest.fixture(scope="module")
def endpoints(serve: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Where robot and diffractometer listen."""
    return serve("a-lab", "--only", "dosing_robot", "--only", "diffractometer")


def run(*command: str, told: str = "") -> str:
    """Return what a program prints when it is fed *told*."""
    done = subprocess.run(  # noqa: S603 - our own arguments
        command,
        input=told,
        capture_output=True,
        text=True,
        timeout=DEADLINE_WALL_S,
        check=True,
    )
    return done.stdout


def test_curl_reads_status_and_dosing_heads(endpoints: dict[str, Any]) -> None:
    """The robot's envelope is what its API documents, and its heads are the stock."""
    url = endpoints["dosing_robot"]["endpoint"]
    status = json.loads(run("/usr/bin/curl", "-sS", f"{url}/GetStatus"))
    heads = json.loads(run("/usr/bin/curl", "-sS", f"{url}/DosingHeads"))

    assert status["Status"] == heads["Status"] == "OK"
    assert status["Data"]["InAutomatedMode"] is True
    assert "BaCO3" in json.dumps(heads["Data"])


def test_curl_is_refused_as_the_robot_refuses(endpoints: dict[str, Any]) -> None:
    """A workflow for a quadrant that does not exist is an error in the envelope."""
    url = endpoints["dosing_robot"]["endpoint"]
    asked = f"{url}/RequestIndexingRackControl?outwardFacingQuadrant=7"
    answer = json.loads(run("/usr/bin/curl", "-sS", "-X", "POST", asked))

    assert answer["Status"] != "OK"
    assert answer["ErrorMessage"]


def test_netcat_asks_the_diffractometer(endpoints: dict[str, Any]) -> None:
    """One message a connection, with no line ends, and what is known of the answers."""
    host, _, port = endpoints["diffractometer"]["endpoint"].rpartition(":")
    unit = run("/usr/bin/nc", "-N", host, port, told="@STATUS_REQUEST@UNIT=xrd@END")
    place = run(
        "/usr/bin/nc", "-N", host, port, told="@STATUS_REQUEST@LOCATION=0,2@END"
    )

    assert "READY=yes" in unit
    assert "STATE=free" in place
