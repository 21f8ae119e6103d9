"""Documents: runs that nobody ended are ended."""

import math
from functools import partial
from typing import Any

import event_model
import pytest
from sqlalchemy import Connection

from ppu.core.errors import StaleTokenError
from ppu.store import documents, queue
from ppu.store.jobs import JobRequest
from ppu.store.store import Store

PAGE: dict[str, Any] = {
    "descriptor": "d1",
    "uid": ["e1", "e2"],
    "time": [2.0, 3.0],
    "seq_num": [1, 2],
    "data": {},
    "timestamps": {},
    "filled": {},
}
WRITTEN: list[tuple[str, dict[str, Any]]] = [
    ("start", {"uid": "whole", "time": 1.0}),
    (
        "stop",
        {"uid": "end", "time": 2.0, "run_start": "whole", "exit_status": "success"},
    ),
    ("start", {"uid": "torn", "time": 3.0}),
    ("descriptor", {"uid": "d1", "run_start": "torn", "name": "primary"}),
    ("event_page", PAGE),
    ("event", {"descriptor": "d1", "uid": "e3", "seq_num": 3}),
    ("descriptor", {"uid": "d2", "run_start": "torn", "name": "baseline"}),
    ("start", {"uid": "empty", "time": 4.0}),
]


@pytest.fixture
def job_id(store: Store, token: int) -> int:
    """A job that died with two of its three runs open."""

    def fill(connection: Connection) -> int:
        job_id = queue.submit(connection, JobRequest("fire", "1"), 1.0)
        for name, document in WRITTEN:
            documents.add_document(connection, job_id, name, document, token, 2.0)
        return job_id

    return store.write(fill)


def close_runs(connection: Connection, job_id: int, token: int) -> list[str]:
    """End the open runs of a job."""
    return documents.close_open_runs(connection, job_id, token, 9.0, "the power failed")


def test_open_runs_get_valid_stop_documents(
    store: Store, token: int, job_id: int
) -> None:
    """They say how many events there are in each stream, and why the run ended."""
    closed = store.write(lambda c: close_runs(c, job_id, token))
    with store.read() as connection:
        written = list(documents.documents_of(connection, job_id))
        still_open = documents.open_runs(connection, job_id)
    stops = [document for name, document in written if name == "stop"][1:]
    validator = event_model.schema_validators[event_model.DocumentNames.stop]
    for stop in stops:
        validator.validate(stop)

    assert closed == ["torn", "empty"]
    assert still_open == []
    assert [stop["run_start"] for stop in stops] == closed
    assert stops[0]["num_events"] == {"primary": 3, "baseline": 0}
    assert stops[1]["num_events"] == {}
    assert {stop["exit_status"] for stop in stops} == {"abort"}
    assert {(stop["reason"], stop["time"]) for stop in stops} == {
        ("the power failed", 9.0)
    }
    assert len({stop["uid"] for stop in stops}) == 2


def test_runs_are_ended_once(store: Store, token: int, job_id: int) -> None:
    """Asking again changes nothing; a stale cell changes nothing at all."""
    with pytest.raises(StaleTokenError):
        store.write(lambda c: close_runs(c, job_id, token - 1))
    first = store.write(lambda c: close_runs(c, job_id, token))
    second = store.write(lambda c: close_runs(c, job_id, token))

    assert (len(first), second) == (2, [])


def test_reading_that_must_not_be_used_is_kept_as_nothing(
    store: Store, token: int, job_id: int
) -> None:
    """A broken sensor ends no job for want of a word in JSON, and plots as a gap."""
    described = {"uid": "d", "run_start": "r", "name": "firing", "data_keys": {}}
    page = {
        "descriptor": "d",
        "time": [1.0, 2.0],
        "data": {"t": [math.nan, 20.0]},
        "timestamps": {"t": [1.0, 2.0]},
    }
    for name, document in (("descriptor", described), ("event_page", page)):
        store.write(
            partial(
                documents.add_document,
                job_id=job_id,
                name=name,
                document=document,
                token=token,
                now=2.0,
            )
        )
    with store.read() as connection:
        *_, (_, kept) = documents.documents_of(connection, job_id)
        column = documents.streams_of(connection, job_id)["firing"]["t"]

    assert kept["data"]["t"] == [None, 20.0]
    assert math.isnan(column[0])
    assert column[1] == 20.0
