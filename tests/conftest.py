"""What every test gets, beside the fixtures of ``ppu.testing.plugin``."""

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.pool import NullPool

from postgres import HOW_TO_HAVE_IT, can_be_started, postgres
from ppu.store.schema import SCHEMA_VERSION, jobs, meta, metadata

# Every random draw is seeded, hypothesis's too: a red run is red for everybody.
# `HYPOTHESIS_PROFILE=explore make test` looks for new examples.
# No example has a deadline: how long one takes says how busy the machine is.
settings.register_profile("seeded", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=300, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "seeded"))

# A developer's own store is no test's.
os.environ.pop("PPU_STORE", None)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the locks and marks of tests apart from those of this computer."""
    host = tempfile.mkdtemp(prefix="ppu-tests-")
    os.environ["PPU_LOCKS"] = os.environ["PPU_STATE"] = host
    config.add_cleanup(lambda: shutil.rmtree(host))


@pytest.fixture(autouse=True)
def every_test_leaves_nothing(nothing_leaks: None) -> None:
    """Fail a test that leaves a task, a descriptor or a thread behind."""


@pytest.fixture(autouse=True)
def log_lines_go_where_they_went() -> Iterator[None]:
    """Undo what a command did to the loggers: its standard error ends with the test."""
    names = ("ppu.link", "ppu.wire", "bluesky", "pymodbus")
    loggers = [logging.getLogger(name) for name in names]
    before = [(one.handlers, one.level, one.propagate) for one in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


SMALL_LAB = """\
lab: small
schema_version: 1
seed: 3
devices:
  furnace_1:
    driver: ppu_drivers.eurotherm_3216:Eurotherm3216
    simulator: ppu_simulators.instruments.eurotherm_3216:SimulatedEurotherm3216
    hardware: {transport: serial, port: /dev/nowhere_1, baudrate: 9600}
    settings:
      dwell_unit: minute
      sample_period_s: 10
      safety: {setpoint_high_degc: 1100, alarm_1_degc: 1150}
    limits: {temperature_degc: [0, 1100], ramp_degc_per_min: [0, 10]}
    on_abort: ramp_down
    provides: [Furnace]
    slots: [furnace_1.slot_1]
  balance:
    driver: ppu_drivers.mettler_sics:MettlerSics
    simulator: ppu_simulators.instruments.mettler_sics:SimulatedMettlerSics
    hardware: {transport: serial, port: /dev/nowhere_2, baudrate: 9600}
    provides: [Balance]
    slots: [balance.pan]
  operator:
    driver: ppu_drivers.operator:PersonAtTerminal
    simulator: ppu_simulators.instruments.technician:SimulatedTechnician
    hardware: {transport: terminal}
    limits: {container_degc: [0, 250]}
    provides: [Operator]
locations:
  rack.1: {holds: crucible}
  rack.2: {holds: crucible}
  furnace_1.slot_1: {holds: crucible, inside: furnace_1}
  balance.pan: {holds: crucible, inside: balance}
containers:
  crucible_01: {kind: crucible, at: rack.1, capacity_ml: 20, tare_g: 18.2}
  crucible_04:
    {kind: crucible, at: rack.2, capacity_ml: 20, tare_g: 18.25, contents: {CaCO3: 2.0}}
"""
"""A furnace, a balance and a person: what ``fire_sample`` needs, and no more."""


@pytest.fixture(scope="session")
def small_lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab file with a furnace, a balance and a person."""
    path = tmp_path_factory.mktemp("lab") / "small.yaml"
    path.write_text(SMALL_LAB)
    return path


@pytest.fixture(scope="session")
def ppu_command() -> str:
    """The installed ``ppu`` program of the interpreter that runs the tests."""
    return str(Path(sys.executable).with_name("ppu"))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL on a Unix socket in a temporary folder, ended with the session."""
    pytest.importorskip("psycopg", reason=HOW_TO_HAVE_IT)
    if not can_be_started():
        pytest.skip(HOW_TO_HAVE_IT)
    with postgres(is_durable=False) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_schema(postgres_url: str) -> Iterator[tuple[str, Engine]]:
    """A schema with a store's tables, and an engine to look after them."""
    engine = create_engine(
        postgres_url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool
    )
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA kept"))
    yield f"{postgres_url}&options=-csearch_path%3Dkept", engine
    engine.dispose()


@pytest.fixture
def postgres_store(postgres_schema: tuple[str, Engine]) -> Iterator[str]:
    """Where an empty store in PostgreSQL is; it is emptied after the test."""
    url, engine = postgres_schema
    yield url
    with engine.begin() as connection:
        connection.execute(text("SET search_path TO kept"))
        if (
            connection.execute(select(func.count()).select_from(jobs)).scalar_one()
            > 999
        ):
            connection.execute(text("TRUNCATE jobs CASCADE"))  # slow to begin with
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
        version = {"key": "schema_version", "content": str(SCHEMA_VERSION)}
        connection.execute(meta.insert(), version)


SERVING_WALL_S = 60.0
"""How long a bench may serve one module of tests."""


@pytest.fixture(scope="module")
def serve(ppu_command: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """Starts ``ppu sim`` with some arguments; returns its devices and where they are.

    The processes end with the module, at the latest when their time is up.
    """
    with contextlib.ExitStack() as ends:

        def start(*arguments: str) -> dict[str, Any]:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [ppu_command, "sim", *arguments, "--json"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            ends.callback(process.communicate)
            ends.callback(process.terminate)
            guard = threading.Timer(SERVING_WALL_S, process.kill)
            guard.start()
            ends.callback(guard.join)
            ends.callback(guard.cancel)
            assert process.stdout is not None
            devices: dict[str, Any] = json.loads(process.stdout.readline())["devices"]
            return devices

        yield start
