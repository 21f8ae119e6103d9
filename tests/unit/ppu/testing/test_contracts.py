"""The contracts fail where a driver or a simulator breaks its promise."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from ppu.core.capabilities import GasRequest
from ppu.core.errors import LimitError, MalformedReply
from ppu.testing import DeviceContract, SimulatorContract
from ppu.testing.cancelling import cancelled_at
from ppu_drivers.alicat_mfc import AlicatMfc
from ppu_drivers.mettler_sics import MettlerSics
from ppu_simulators.instruments.mettler_sics import SimulatedMettlerSics

Play = Callable[[Coroutine[Any, Any, Any]], Any]

LAB = Path(__file__).parents[3] / "contract" / "lab.yaml"


class Balance(DeviceContract):
    """A contract that the balance keeps."""

    lab = LAB
    device = "balance"
    reading = "present_mass"
    tolerance = 0.001

    @override
    async def act(self, device: Any) -> None:
        await device.trigger()

    @override
    async def forbidden(self, device: Any) -> None:
        raise LimitError("balance: too heavy")

    @override
    async def refused(self, device: Any) -> None:
        raise LimitError("balance: too heavy")


class Gas(DeviceContract):
    """A contract that the flow controller keeps."""

    lab = LAB
    device = "gas"

    @override
    async def look(self, device: Any) -> Any:
        await device.trigger()
        return (await device.read_signal("setpoint"))["value"]

    @override
    async def begin(self, device: Any) -> None:
        await device.set(GasRequest("Ar", 100.0))

    @override
    def is_safe(self, state: str | None, world: Any, simulated: Any) -> bool:
        return state == "keep" or world.gas_into("furnace")[1] < 1.0


class Simulator(SimulatorContract):
    """A contract that the simulated balance keeps."""

    lab = LAB
    device = "balance"
    reading = "present_mass"
    is_noisy = True


def fails(reason: str) -> Any:
    """Expect a contract to fail, whichever way it does."""
    return pytest.raises((AssertionError, pytest.fail.Exception), match=reason)


def test_wrong_value_is_found_when_a_fault_hits(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that turns nonsense into a number breaks the contract."""

    class Trusting(Balance):
        @override
        async def look(self, device: Any) -> Any:
            try:
                return await super().look(device)
            except MalformedReply:
                return 99.0

    with fails("balance answered 99.0"):
        Trusting().test_reading_is_right_or_an_error_when_a_fault_lasts(
            play, tmp_path, "corrupt"
        )


def test_nameless_error_is_found(play: Play, tmp_path: Path) -> None:
    """An error that names no device breaks the contract."""

    class Nameless(Balance):
        @override
        async def look(self, device: Any) -> Any:
            try:
                return await super().look(device)
            except MalformedReply as exc:
                raise MalformedReply("nonsense") from exc

    with fails("it names no device"):
        Nameless().test_reading_is_right_or_an_error_when_a_fault_lasts(
            play, tmp_path, "corrupt"
        )


def test_endless_patience_is_found(play: Play, tmp_path: Path) -> None:
    """A driver that tries for ever breaks the contract."""

    class Patient(Balance):
        @override
        async def look(self, device: Any) -> Any:
            await asyncio.sleep(3600.0)
            return await super().look(device)

    with fails("a look took 36"):
        Patient().test_reading_recovers_when_the_line_breaks_in_mid_reply(
            play, tmp_path
        )


def test_connecting_to_anybody_is_found(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that does not ask who is there breaks the contract."""

    async def nobody_asks(self: Any) -> None:
        return

    monkeypatch.setattr(MettlerSics, "_check_identity", nobody_asks)

    with fails("DID NOT RAISE"):
        Balance().test_connect_is_refused_when_a_stranger_answers(play, tmp_path)
    with fails("DID NOT RAISE"):
        Balance().test_connect_is_refused_when_the_serial_number_is_another(
            play, tmp_path
        )


def test_bytes_before_a_refusal_are_found(play: Play, tmp_path: Path) -> None:
    """A limit that is checked too late breaks the contract."""

    class Late(Balance):
        @override
        async def forbidden(self, device: Any) -> None:
            await device.present_mass.get_value()
            raise LimitError("balance: too heavy")

    with fails("n_bytes_sent"):
        Late().test_limit_is_refused_before_a_byte_is_sent(play, tmp_path)


def test_claimed_abort_is_found(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that only says that it is safe breaks the contract."""

    async def claim(self: Any) -> str:
        return "gas: closed"

    monkeypatch.setattr(AlicatMfc, "go_to_abort_state", claim)

    with fails("is_safe"):
        Gas().test_abort_state_is_reached(play, tmp_path, "close")
    with fails("DID NOT RAISE"):
        Gas().test_abort_is_an_error_when_nobody_answers(play, tmp_path)


def test_task_that_goes_on_is_found(play: Play, tmp_path: Path) -> None:
    """A look that leaves something running when it is cancelled is found."""
    left: list[asyncio.Task[None]] = []

    class Leaking(Balance):
        @override
        async def look(self, device: Any) -> Any:
            left.append(asyncio.ensure_future(asyncio.sleep(1e6)))
            return await super().look(device)

    async def sweep() -> None:
        for task in left:
            task.cancel()
        await asyncio.wait(left)

    with fails("something goes on"):
        Leaking().test_next_reading_is_right_when_a_look_was_cancelled_anywhere(
            play, tmp_path
        )
    play(sweep())


def test_polling_that_changes_physics_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulator whose world moves with each question breaks the contract."""
    original = SimulatedMettlerSics._reading

    def wear(self: Any, time: float) -> Any:
        self._world.containers["crucible_01"].tare_g += 0.01
        return original(self, time)

    class Worn(Simulator):
        @override
        def state(self, world: Any, simulated: Any) -> Any:
            return {"tare_g": world.containers["crucible_01"].tare_g}

    monkeypatch.setattr(SimulatedMettlerSics, "_reading", wear)

    with fails(r"assert"):
        Worn().test_world_is_nearly_the_same_however_often_somebody_asks(tmp_path)


def test_unseeded_noise_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulator that draws from elsewhere breaks the contract."""
    drawn: Iterator[float] = iter(range(10_000))
    original = SimulatedMettlerSics._weight

    def blur(self: Any, command: str, reading: Any) -> str:
        return original(self, command, reading).replace("0.0", f"{next(drawn)}.0")

    monkeypatch.setattr(SimulatedMettlerSics, "_weight", blur)

    with fails(r"assert"):
        Simulator().test_run_repeats_when_the_seed_is_the_same(tmp_path)


def test_contract_leaves_out_what_is_not_defined() -> None:
    """Who defines no act has no test of it, and no skipped one either."""

    class Reading(DeviceContract):
        lab = LAB
        device = "door"
        reading = "controller_state"

    act, abort = "test_act_works", "test_abort_is_an_error_when_nobody_answers"

    assert getattr(Reading, act) is None
    assert callable(getattr(Balance, act))
    assert getattr(Balance, abort) is None
    assert callable(getattr(Gas, abort))


def test_work_is_cancelled_at_each_of_its_awaits(play: Play) -> None:
    """Every suspension point is reached once, those of inner tasks, too."""
    reached: list[str] = []

    async def inner() -> None:
        await asyncio.sleep(1.0)
        reached.append("inner")

    async def work() -> None:
        await asyncio.sleep(1.0)
        reached.append("outer")
        await asyncio.create_task(inner())
        reached.append("end")

    async def scenario() -> list[bool]:
        return [await cancelled_at(step, work) for step in range(1, 5)]

    assert play(scenario()) == [True, True, True, False]
    assert reached.count("end") == 1
