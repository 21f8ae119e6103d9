"""Labman powder robot: conversations from alab_control, and what is our assumption.

The robot's manual is not public. The examples of answers are those of the doc strings
in CederGroupHub/alab_control, ``labman/api/api.py`` (GetStatus, DosingHeads); names of
inputs are from ``labman/components.py``, validation results from ``api/enums.py``.
"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.errors import InstrumentError, MalformedReply
from ppu.core.labfile import LabFile
from ppu_drivers.labman_powder_robot import (
    DosingHead,
    parse_heads,
    parse_results,
    parse_status,
    unwrap,
)
from ppu_simulators.fronts.http import HttpRequest
from ppu_simulators.instruments.labman_powder_robot import SimulatedLabmanPowderRobot
from ppu_simulators.world import World

STATUS_EXAMPLE = {
    "ErrorMessage": None,
    "Status": "OK",
    "Data": {
        "CurrentOutwardQuadrantNumber": 1,
        "HeatedRackTemperature": 23.5,
        "InAutomatedMode": True,
        "IndexingRackStatus": "UserControl",
        "PipetteTipCount": 123,
        "ProcessErrorMessage": None,
        "QuadrantStatuses": [
            {"LoadedWorkflowName": None, "Progress": "Empty", "QuadrantNumber": 1},
            {"LoadedWorkflowName": None, "Progress": "Empty", "QuadrantNumber": 2},
            {"LoadedWorkflowName": None, "Progress": "Empty", "QuadrantNumber": 3},
            {"LoadedWorkflowName": None, "Progress": "Empty", "QuadrantNumber": 4},
        ],
        "RobotRunning": True,
    },
}
HEADS_EXAMPLE = [
    {
        "InDispenser": False,
        "Position": 12,
        "PowderName": "Lithium Carbonate",
        "Status": "Empty",
    },
    {
        "InDispenser": False,
        "Position": 1,
        "PowderName": "Titanium Oxide",
        "Status": "OK",
    },
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "Status",
                    "Data",
                    "Results",
                    "Position",
                    "PowderName",
                    "QuadrantStatuses",
                    "QuadrantNumber",
                    "Progress",
                    "PowderResults",
                    "ActualMass",
                    "ProcessErrorMessage",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def one_input(**changes: Any) -> dict[str, Any]:
    """Return an input with the names of alab_control's ``to_labman_json``."""
    return {
        "CrucibleReplicates": 1,
        "HeatingDuration": 0,
        "EthanolDispenseVolume": 0,
        "MinimumTransferMass": 0,
        "MixerDuration": 300,
        "MixerSpeed": 2000,
        "Position": 1,
        "PowderDispenses": [{"PowderName": "TiO2", "TargetMass": 0.5}],
        "TargetTransferVolume": 0,
        **changes,
    }


def workflow(name: str = "w1") -> dict[str, Any]:
    """Return a workflow with the names of alab_control's ``Workflow.to_json``."""
    return {"WorkflowName": name, "Quadrant": 1, "InputFile": [one_input()]}


@pytest.fixture
def robot() -> SimulatedLabmanPowderRobot:
    """A simulated robot with TiO2 in head 3 and a crucible at its station."""
    lab = LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {"robot": {"driver": "x:Y", "slots": ["station"]}},
            "locations": {"station": {"holds": "crucible"}},
            "containers": {
                "c": {
                    "kind": "crucible",
                    "at": "station",
                    "capacity_ml": 20,
                    "tare_g": 18,
                }
            },
            "stock": {
                "TiO2": {
                    "at": "robot.head_3",
                    "mass_g": 10,
                    "purity": 1,
                    "bulk_density_g_per_ml": 1,
                }
            },
        }
    )
    return SimulatedLabmanPowderRobot(
        "robot", lab.devices["robot"], World(lab, 0), "PR-1"
    )


def ask(
    robot: SimulatedLabmanPowderRobot,
    time: float,
    method: str,
    path: str,
    body: Any = None,
    **query: str,
) -> Any:
    """Return the body of the answer, as it would be after the wire."""
    answer = robot.answer(HttpRequest(method, path, query, body), time)
    assert answer is not None
    assert answer.status == 200
    return json.loads(json.dumps(answer.body))


def test_status_example_is_understood() -> None:
    """The example of alab_control's ``get_status`` is an idle robot."""
    status = parse_status(unwrap(STATUS_EXAMPLE))

    assert status.is_user_control
    assert status.is_automated
    assert status.error is None
    assert status.serial_number is None
    assert status.progress == dict.fromkeys(range(1, 5), "Empty")


def test_heads_example_is_understood() -> None:
    """The example of alab_control's ``get_dosingheads`` is sorted by position."""
    assert parse_heads(HEADS_EXAMPLE) == [
        DosingHead(1, "Titanium Oxide", is_empty=False),
        DosingHead(12, "Lithium Carbonate", is_empty=True),
    ]


@pytest.mark.parametrize("key", ["ErrorMessage", "Message"])
def test_refusal_is_told_whatever_its_text_is_called(key: str) -> None:
    """The examples say ErrorMessage, the code that reads them Message."""
    with pytest.raises(InstrumentError, match="the robot refused: no rack"):
        unwrap({"Status": "Error", key: "no rack"})


def test_simulated_status_has_every_field_of_the_example(
    robot: SimulatedLabmanPowderRobot,
) -> None:
    """It has the fields of the example, and SerialNumber, which is our assumption."""
    data = unwrap(ask(robot, 0.0, "GET", "/GetStatus"))

    assert set(data) == set(STATUS_EXAMPLE["Data"]) | {"SerialNumber"}  # type: ignore[arg-type]  # a mapping of mixed values
    assert parse_status(data).serial_number == "PR-1"


def test_simulated_heads_have_the_fields_of_the_example(
    robot: SimulatedLabmanPowderRobot,
) -> None:
    """A powder in stock at head 3 is in head 3."""
    data = unwrap(ask(robot, 0.0, "GET", "/DosingHeads"))

    assert set(data[0]) == set(HEADS_EXAMPLE[0])
    assert parse_heads(data) == [DosingHead(3, "TiO2", is_empty=False)]


@pytest.mark.parametrize(
    ("inputs", "verdict"),
    [
        ([one_input()], "NoError"),
        ([], "NoMixingPots"),
        ([one_input(), one_input()], "RepeatedPosition"),
        ([one_input(PowderDispenses=[])], "PotWithNoWork"),
        ([one_input(CrucibleReplicates=5)], "InvalidCrucibleReplicates"),
        ([one_input(HeatingDuration=7201)], "InvalidHeatingDuration"),
        ([one_input(EthanolDispenseVolume=-1)], "InvalidEthanolVolume"),
        ([one_input(MixerDuration=601)], "InvalidMixerDuration"),
        ([one_input(MixerSpeed=2001)], "InvalidMixerSpeed"),
        ([one_input(Position=17)], "InvalidPosition"),
        ([one_input(TargetTransferVolume=-1)], "InvalidTransferVolume"),
        (
            [one_input(PowderDispenses=[{"PowderName": "", "TargetMass": 1}])],
            "BlankPowderName",
        ),
        (
            [one_input(PowderDispenses=[{"PowderName": "TiO2", "TargetMass": 0}])],
            "InvalidPowderMass",
        ),
        ([one_input(Position=n) for n in range(1, 18)], "TooManyCrucibles"),
        ([one_input(EthanolDispenseVolume=10000)], "InsufficientPipetteTips"),
        (
            [one_input(PowderDispenses=[{"PowderName": "CuO", "TargetMass": 1}])],
            "PowderNotLoaded",
        ),
    ],
)
def test_simulated_verdict_is_one_of_the_sixteen(
    robot: SimulatedLabmanPowderRobot, inputs: list[Any], verdict: str
) -> None:
    """Each of the validation results of ``api/enums.py`` has its cause."""
    answer = ask(robot, 0.0, "POST", "/ValidateWorkflow", inputs)

    assert answer == {
        "Status": "OK",
        "ErrorMessage": None,
        "Data": {"Result": verdict},
    }


def test_simulated_robot_works_through_the_conversation_of_alab_control(
    robot: SimulatedLabmanPowderRobot,
) -> None:
    """Request the rack, declare pots, release, poll, read results, unload."""
    quadrant = {"outwardFacingQuadrant": "1"}
    ok: dict[str, Any] = {"Status": "OK", "ErrorMessage": None, "Data": {}}
    assert ask(robot, 0.0, "POST", "/RequestIndexingRackControl", **quadrant) == ok
    assert ask(robot, 1.0, "POST", "/PotsLoaded", workflow()) == ok
    assert ask(robot, 2.0, "POST", "/ReleaseIndexingRackControl") == ok
    busy = parse_status(unwrap(ask(robot, 60.0, "GET", "/GetStatus")))
    assert busy.progress[1] == "Processing"
    assert busy.workflows[1] == "w1"
    assert not busy.is_user_control
    done = parse_status(unwrap(ask(robot, 2000.0, "GET", "/GetStatus")))
    assert done.progress[1] == "Complete"
    results = unwrap(ask(robot, 2000.0, "GET", "/GetResults", workflowName="w1"))
    assert parse_results(results, 1)["TiO2"] == pytest.approx(0.5, abs=0.01)
    assert ask(robot, 2001.0, "POST", "/RequestIndexingRackControl", **quadrant) == ok
    assert ask(robot, 2020.0, "POST", "/PotsUnloaded", quadrant="1") == ok
    empty = parse_status(unwrap(ask(robot, 2021.0, "GET", "/GetStatus")))
    assert empty.progress[1] == "Empty"


@pytest.mark.parametrize(
    ("method", "path", "body", "query", "reason"),
    [
        ("POST", "/RequestIndexingRackControl", None, {}, "None is not within 1 to 4"),
        ("POST", "/PotsLoaded", None, {}, "WorkflowName must be given"),
        ("POST", "/PotsLoaded", {**workflow(), "InputFile": []}, {}, "NoMixingPots"),
        (
            "POST",
            "/PotsLoaded",
            {**workflow(), "InputFile": [one_input(Position=2)]},
            {},
            "there is no pot at position 2",
        ),
        ("POST", "/PotsUnloaded", None, {"quadrant": "5"}, "'5' is not within 1 to 4"),
        ("GET", "/GetResults", None, {"workflowName": "w9"}, "no workflow 'w9'"),
        (
            "POST",
            "/DosingHeadLoaded",
            {"Position": 25, "PowderName": "TiO2"},
            {},
            "25 is not within 1 to 24",
        ),
    ],
)
def test_simulated_robot_refuses_in_the_envelope(
    robot: SimulatedLabmanPowderRobot,
    method: str,
    path: str,
    body: Any,
    query: dict[str, str],
    reason: str,
) -> None:
    """A refusal has status Error, a reason, and no data."""
    answer = ask(robot, 0.0, method, path, body, **query)

    assert answer["Status"] == "Error"
    assert reason in answer["ErrorMessage"]
    assert answer["Data"] is None


def test_simulated_robot_refuses_pots_while_it_has_the_rack(
    robot: SimulatedLabmanPowderRobot,
) -> None:
    """Nobody can load a rack that faces the other way."""
    ask(robot, 0.0, "POST", "/ReleaseIndexingRackControl")

    answer = ask(robot, 1.0, "POST", "/PotsLoaded", workflow())

    assert answer["ErrorMessage"] == "the indexing rack is under robot control"


def test_simulated_head_holds_what_was_declared(
    robot: SimulatedLabmanPowderRobot,
) -> None:
    """Heads are unloaded and loaded as ``DosingHead...`` requests say."""
    ask(robot, 0.0, "POST", "/DosingHeadUnloaded", position="3")
    assert unwrap(ask(robot, 0.0, "GET", "/DosingHeads")) == []
    body = {"Position": 24, "PowderName": "TiO2"}
    ask(robot, 0.0, "POST", "/DosingHeadLoaded", body)

    heads = parse_heads(unwrap(ask(robot, 0.0, "GET", "/DosingHeads")))

    assert heads == [DosingHead(24, "TiO2", is_empty=False)]


@pytest.mark.parametrize("number", [float("inf"), float("nan"), [], "x", None])
def test_results_are_malformed_when_a_number_is_none(number: Any) -> None:
    """A position or mass that is no number is never guessed."""
    result = {"PowderName": "TiO2", "TargetMass": 1, "ActualMass": number}
    for pot in (
        {"Position": number, "PowderResults": []},
        {"Position": 1, "PowderResults": [result]},
    ):
        with pytest.raises(MalformedReply):
            parse_results({"Results": [pot]}, 1)


def test_results_are_summed_when_a_powder_was_dosed_twice() -> None:
    """Two doses of one powder are one mass."""
    twice = [{"PowderName": "TiO2", "ActualMass": mass} for mass in (0.5, 0.25)]
    data = {"Results": [{"Position": 1, "PowderResults": twice}]}

    assert parse_results(data, 1) == {"TiO2": 0.75}


@settings(max_examples=200)
@given(JSON)
def test_any_json_is_understood_or_malformed(data: Any) -> None:
    """Whatever the robot answers, no other error than the stated ones comes out."""
    parsers: tuple[Any, ...] = (
        parse_status,
        parse_heads,
        lambda value: parse_results(value, 1),
    )
    n_refused = 0
    for parse in parsers:
        try:
            parse(data)
        except MalformedReply:
            n_refused += 1
    if isinstance(data, dict):
        try:
            unwrap(data)
        except (MalformedReply, InstrumentError):
            n_refused += 1

    # No random value is a status, so at least that parser must have refused.
    assert n_refused >= 1


@settings(max_examples=100)
@given(
    st.sampled_from(
        ["/ValidateWorkflow", "/PotsLoaded", "/DosingHeadLoaded", "/PotsUnloaded"]
    ),
    JSON,
)
def test_simulated_robot_answers_any_json_in_the_envelope(path: str, body: Any) -> None:
    """No request crashes the simulator."""
    lab = LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {"robot": {"driver": "x:Y", "slots": ["station"]}},
            "locations": {"station": {"holds": "crucible"}},
        }
    )
    robot = SimulatedLabmanPowderRobot(
        "robot", lab.devices["robot"], World(lab, 0), "PR-1"
    )

    answer = ask(robot, 0.0, "POST", path, body)

    assert answer["Status"] in ("OK", "Error")
