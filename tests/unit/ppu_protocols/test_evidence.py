"""What all that is seen of a carry says together."""

import pytest

from ppu.core.capabilities import GripRecord, Recollection
from ppu_protocols.evidence import judge_carry

PLAYED = Recollection(True, True, "it played to its end")
NEVER = Recollection(False, True, "it never began")
UNKNOWN = Recollection(None, True, "it stands still")
PAUSED = Recollection(None, False, "it is paused")
OPEN = GripRecord(False, False, False, 50.0)
HOLDS = GripRecord(True, False, True, 40.0)
DROPPED = GripRecord(False, True, False, 12.0)
CARRIED = [HOLDS, OPEN]


@pytest.mark.parametrize(
    ("said", "grips", "at_origin", "at_destination", "verdict"),
    [
        (PLAYED, CARRIED, None, None, True),
        (PLAYED, None, None, None, True),
        (PLAYED, CARRIED, False, None, True),
        (PLAYED, CARRIED, None, True, True),
        (UNKNOWN, [OPEN], None, True, True),
        (PLAYED, [OPEN], None, True, True),
        (NEVER, [OPEN], None, None, False),
        (NEVER, [OPEN], True, None, False),
        (NEVER, [OPEN], None, False, False),
        (UNKNOWN, [OPEN], True, None, False),
        # Nobody saw the hand hold anything, or it let go too soon.
        (PLAYED, [OPEN], None, None, None),
        (PLAYED, [HOLDS, DROPPED], None, None, None),
        (PLAYED, [DROPPED, OPEN], None, True, None),
        (UNKNOWN, [HOLDS], None, None, None),
        (NEVER, [HOLDS], None, None, None),
        # What is seen contradicts itself.
        (PLAYED, CARRIED, True, None, None),
        (PLAYED, CARRIED, None, False, None),
        (NEVER, [OPEN], False, None, None),
        (NEVER, [OPEN], None, True, None),
        (UNKNOWN, [OPEN], None, False, None),
        (UNKNOWN, [OPEN], False, None, None),
        (UNKNOWN, [OPEN], None, None, None),
        (PAUSED, [OPEN], None, True, None),
        (PAUSED, [], True, None, None),
    ],
)
def test_carry_is_judged_by_all_that_was_seen(
    said: Recollection,
    grips: list[GripRecord] | None,
    at_origin: bool | None,
    at_destination: bool | None,
    verdict: bool | None,
) -> None:
    """Only what nothing speaks against is sure."""
    found = judge_carry(said, grips, at_origin, at_destination)

    assert found.has_happened is verdict
    assert found.text.startswith(said.text)
