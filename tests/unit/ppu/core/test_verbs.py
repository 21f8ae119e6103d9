"""Bluesky's verbs, which capabilities use without loading Bluesky."""

import subprocess
import sys

import bluesky.protocols
import pytest

from ppu.core import verbs


def members(protocol: type) -> set[str]:
    """Return what a protocol asks for."""
    return {
        name
        for base in protocol.__mro__
        for name, item in vars(base).items()
        if getattr(item, "__isabstractmethod__", False)
    }


@pytest.mark.parametrize("name", verbs.__all__)
def test_verb_has_the_members_of_blueskys(name: str) -> None:
    """What has the one has the other."""
    assert members(getattr(verbs, name)) == members(getattr(bluesky.protocols, name))


def test_capabilities_and_protocols_load_without_bluesky() -> None:
    """Whoever only checks parameters does not wait for it."""
    script = (
        "import sys, ppu.core.capabilities, ppu_protocols.synthesis, "
        "ppu_protocols.firing, ppu.store.store\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'bluesky', 'ophyd', 'ophyd_async', 'event_model', 'scipy', 'matplotlib'}))"
    )

    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
