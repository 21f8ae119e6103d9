"""Protocols and steps: what is registered, recorded and refused."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from bluesky.utils import Msg, MsgGenerator
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from ppu.core.errors import (
    ConfigurationError,
    InstrumentError,
    InternalError,
    LimitError,
    NotFoundError,
    NothingToJoinError,
)
from ppu.core.labfile import LabFile
from ppu.core.remedies import Remedy, advise
from ppu.plans import Lab, ProtocolResult, protocol, step
from ppu.plans.protocol import find_protocol, known_protocols
from ppu.plans.steps import Begun, Evidence, digest, earlier_samples, plain


class Amount(BaseModel):
    """Parameters of a protocol."""

    model_config = ConfigDict(extra="forbid")

    mass_g: float = Field(default=1.0, gt=0)


class Weighed(ProtocolResult):
    """Result of a protocol."""

    mass_g: float


@protocol(version="3", hazards=("None.",))
def weigh_nothing(lab: Lab, parameters: Amount) -> MsgGenerator[Weighed]:
    """Weigh nothing at all.

    More words.
    """
    yield Msg("null")
    return Weighed(mass_g=parameters.mass_g)


def test_protocol_is_registered_from_its_annotations() -> None:
    """Name, types and summary come from the function itself."""
    assert weigh_nothing.name == "weigh_nothing"
    assert weigh_nothing.parameters is Amount
    assert weigh_nothing.result is Weighed
    assert weigh_nothing.summary == "Weigh nothing at all."


def test_protocol_parses_its_parameters_or_names_every_fault() -> None:
    """Wrong values and unknown names come in one message."""
    with pytest.raises(ConfigurationError) as caught:
        weigh_nothing.parse({"mass_g": -1, "mas": 2})

    assert weigh_nothing.parse({"mass_g": 2}) == Amount(mass_g=2.0)
    assert "protocol weigh_nothing: mass_g: " in str(caught.value)
    assert "mas: unknown key; did you mean 'mass_g'?" in str(caught.value)


def test_protocol_can_be_part_of_another_plan() -> None:
    """Calling it gives the plan."""
    plan = weigh_nothing(Lab(LAB, {}), Amount())
    next(plan)
    with pytest.raises(StopIteration) as stopped:
        next(plan)

    assert stopped.value.value == Weighed(mass_g=1.0)


def test_protocol_must_take_a_lab_and_parameters() -> None:
    """Anything else is a mistake of its author, told when it is imported."""

    def wrong(lab: Lab) -> MsgGenerator[Weighed]:
        yield Msg("null")
        return Weighed(mass_g=0.0)

    with pytest.raises(InternalError, match="protocol wrong takes a lab and"):
        protocol(version="1")(wrong)


def test_installed_protocols_are_found_by_name() -> None:
    """Entry points bring them; a wrong name is told with the nearest."""
    assert find_protocol("fire_sample") is known_protocols()["fire_sample"]
    with pytest.raises(NotFoundError, match="did you mean 'fire_sample'"):
        find_protocol("fire_samples")


@dataclass
class Dish:
    """A dataclass that a step is given."""

    name: str
    mass_g: float


class Named:
    """A device that a step is given."""

    name = "furnace_1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Dish("cup", 1.5), {"name": "cup", "mass_g": 1.5}),
        (Amount(), {"mass_g": 1.0}),
        ((1, "a", None, True), [1, "a", None, True]),
        ({1: (2.0,)}, {"1": [2.0]}),
        (np.array([1.0, 2.0]), [1.0, 2.0]),
        (np.float64(2.5), 2.5),
        (Named(), "furnace_1"),
    ],
)
def test_plain_is_what_json_can_keep(value: Any, expected: Any) -> None:
    """Arguments of steps are recorded as data, devices by name."""
    assert plain(value) == expected


def test_plain_refuses_what_is_no_data() -> None:
    """A thing that cannot be recorded is told."""
    with pytest.raises(TypeError, match="cannot record a object"):
        plain(object())


@given(
    arguments=st.dictionaries(
        st.text(max_size=4), st.integers() | st.floats(allow_nan=False), max_size=5
    )
)
@settings(max_examples=40)
def test_digest_is_the_same_for_the_same_arguments(arguments: dict[str, Any]) -> None:
    """The order in which things were written does not matter, their values do."""
    turned = dict(reversed(arguments.items()))

    assert digest(turned) == digest(arguments)
    assert digest([arguments]) != digest(arguments)


def test_step_yields_begin_acts_and_end() -> None:
    """The engine learns arguments before, and the result after the acts."""

    @step(kind="irreversible", expected_s=lambda lab, number: 5.0 * number)
    def act(lab: Lab, number: int) -> MsgGenerator[list[int]]:
        """Do something."""
        yield Msg("sleep", None, 1.0)
        return [number]

    plan = act(Lab(LAB, {}), 7)
    begin = next(plan)
    acting = plan.send(Begun("4"))
    end = plan.send(None)

    assert (begin.command, acting.command, end.command) == (
        "step_begin",
        "sleep",
        "step_end",
    )
    assert begin.kwargs["name"] == "act"
    assert begin.kwargs["kind"] == "irreversible"
    assert begin.kwargs["expected_s"] == 35.0
    assert begin.kwargs["arguments"] == [["lab bench", 7], {}]
    assert end.kwargs == {"key": "4", "result": [7]}


LAB = LabFile.model_validate(
    {
        "lab": "bench",
        "schema_version": 1,
        "devices": {"balance": {"driver": "a:B", "provides": ["Balance"]}},
        "locations": {
            "rack.1": {"holds": "crucible"},
            "rack.2": {"holds": "crucible"},
            "rack.3": {"holds": "crucible"},
        },
        "containers": {
            "full": {
                "kind": "crucible",
                "at": "rack.1",
                "capacity_ml": 20,
                "tare_g": 18,
                "contents": {"CaCO3": 1.0},
            },
            "empty": {
                "kind": "crucible",
                "at": "rack.2",
                "capacity_ml": 20,
                "tare_g": 18,
            },
        },
        "stock": {
            "CaCO3": {
                "at": "balance.head",
                "mass_g": 5,
                "purity": 0.9,
                "bulk_density_g_per_ml": 1,
            }
        },
    }
)


def test_lab_gives_an_empty_container_only_once() -> None:
    """Neither a full one nor one that a sample uses is free."""
    lab = Lab(LAB, {})
    found = lab.free_container("crucible")
    lab.claim_container(found)

    assert found == "empty"
    with pytest.raises(LimitError, match="no crucible is empty and at home"):
        lab.free_container("crucible")


def test_empty_container_elsewhere_is_not_free() -> None:
    """What a person must carry home first is given to no sample."""
    lab = Lab(LAB, {})
    lab.moving("empty", "rack.3")
    with pytest.raises(LimitError, match="empty is free but not at home: carry it to"):
        lab.free_container("crucible")
    lab.moved("empty", "rack.3")
    with pytest.raises(LimitError, match=r"carry it to rack\.2 and say so") as caught:
        lab.free_container("crucible")
    assert caught.value.advice == (
        advise(Remedy.RELEASE_SAMPLE),
        advise(Remedy.MOVE_CONTAINER, container="empty", location="rack.2"),
    )

    lab.moved("empty", "rack.2")

    assert lab.free_container("crucible") == "empty"


def test_lab_without_containers_of_a_kind_is_told_so() -> None:
    """What is missing for good is not waited for."""
    with pytest.raises(LimitError, match="has no empty holder; add one to its file"):
        Lab(LAB, {}).empty_container("holder")


def test_lab_follows_containers_and_stock() -> None:
    """Belief follows what plans say they did."""
    lab = Lab(LAB, {})
    lab.moved("full", "rack.3")
    lab.use_stock("CaCO3", 2.0)

    assert lab.location_of("full") == "rack.3"
    assert lab.container_at("rack.1") is None
    assert lab.home_of("full") == "rack.1"
    assert lab.stock_g("CaCO3") == 3.0


def test_lab_names_what_it_lacks() -> None:
    """Missing devices, containers and powders are told with what there is."""
    lab = Lab(LAB, {"balance": object()})
    from ppu.core.capabilities import Balance, Furnace  # noqa: PLC0415 - used here only

    with pytest.raises(ConfigurationError, match="no device that provides Furnace"):
        lab.the(Furnace)
    with pytest.raises(ConfigurationError, match="no device 'scale' provides Balance"):
        lab.the(Balance, "scale")
    with pytest.raises(NotFoundError, match="did you mean 'empty'"):
        lab.container("empti")
    with pytest.raises(LimitError, match="no BaCO3 in stock; in stock are CaCO3"):
        lab.stock_g("BaCO3")


def answer_all(plan: Any, answer: Evidence) -> tuple[list[str], Any]:
    """Play *plan*, a step that was under way; return its messages and its result."""
    said: list[str] = []
    reply: Any = None
    try:
        while True:
            message: Msg = plan.send(reply)
            said.append(message.command)
            reply = {
                "step_begin": Begun("0", was_under_way=True),
                "settle": answer,
                "earlier_samples": {"time": [1.0]},
            }.get(message.command)
    except StopIteration as stopped:
        return said, stopped.value


def join_nothing(lab: Lab) -> MsgGenerator[int]:
    """Find nothing to join, as a device does: behind an error of bluesky."""
    yield Msg("prepare", None)
    try:
        raise NothingToJoinError("the oven is idle")
    except NothingToJoinError as exc:
        raise RuntimeError("a status failed") from exc


@step(kind="resumable", rejoin=join_nothing)
def bake(lab: Lab) -> MsgGenerator[int]:
    """Bake."""
    yield Msg("kickoff", None)
    return 7


def test_step_begins_anew_when_a_person_says_that_nothing_happened() -> None:
    """There was nothing to join, and somebody has looked."""
    answer = Evidence(False, "it is cold")
    said, result = answer_all(bake(Lab(LAB, {})), answer)

    assert said == ["step_begin", "prepare", "settle", "kickoff", "step_end"]
    assert result == 7


def test_step_fails_when_a_person_says_that_it_happened_unmeasured() -> None:
    """The error names the step, what the person said and what was seen."""
    plan = bake(Lab(LAB, {}))
    with pytest.raises(
        InstrumentError,
        match=r"bake: it has happened \(seen\), but .* not known: the oven is idle",
    ):
        answer_all(plan, Evidence(True, "seen"))


def test_step_fails_when_joining_failed_otherwise() -> None:
    """Only what cannot be joined is asked about; an error is an error."""

    def break_down(lab: Lab) -> MsgGenerator[int]:
        yield Msg("prepare", None)
        raise LimitError("too hot")

    @step(kind="resumable", rejoin=break_down)
    def brew(lab: Lab) -> MsgGenerator[int]:
        """Brew."""
        yield Msg("kickoff", None)
        return 7

    with pytest.raises(LimitError, match="too hot"):
        answer_all(brew(Lab(LAB, {})), Evidence(False, "never asked"))


@pytest.mark.parametrize("told", [None, 9.0])
def test_step_is_settled_with_the_result_that_the_evidence_has(
    told: float | None,
) -> None:
    """A person says whether; what came of it is told by the evidence or the answer."""
    settled: list[Any] = []

    def look(lab: Lab, mass_g: float) -> MsgGenerator[Evidence]:
        yield Msg("null")
        return Evidence(None, "nobody knows", mass_g)

    def leave(shown: Evidence, lab: Lab, mass_g: float) -> MsgGenerator[None]:
        yield Msg("null")
        settled.append((shown.text, shown.result, mass_g))

    @step(kind="irreversible", evidence=look, settled=leave)
    def pour(lab: Lab, mass_g: float) -> MsgGenerator[float]:
        """Pour."""
        yield Msg("trigger", None)
        return mass_g

    said, result = answer_all(pour(Lab(LAB, {}), 5.0), Evidence(True, "seen", told))

    assert "trigger" not in said
    assert result == (told or 5.0)
    assert settled == [("seen", result, 5.0)]

    said, result = answer_all(pour(Lab(LAB, {}), 5.0), Evidence(False, "seen", told))

    assert "trigger" in said
    assert result == 5.0
    assert settled[1:] == [("seen", told or 5.0, 5.0)]


def test_step_of_another_kind_has_no_evidence() -> None:
    """A repeatable step is run again, whatever is seen."""

    def look(lab: Lab) -> MsgGenerator[Evidence]:
        yield Msg("null")
        return Evidence(None, "")

    with pytest.raises(InternalError, match="repeatable step is not settled"):
        step(kind="repeatable", evidence=look)


def test_earlier_samples_are_asked_by_stream() -> None:
    """The engine answers with columns."""
    plan = earlier_samples("firing")
    message = next(plan)
    with pytest.raises(StopIteration) as stopped:
        plan.send({"time": [1.0]})

    assert (message.command, message.kwargs) == (
        "earlier_samples",
        {"stream": "firing"},
    )
    assert stopped.value.value == {"time": [1.0]}
