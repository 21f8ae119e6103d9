"""A lab as the bundled one, with as many places, crucibles and slots as wanted."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import yaml

from ppu.core.registry import find_lab

__all__ = ["large_lab", "write_large_lab"]

_ARM_S = {"balance": 40.0, "bench": 40.0, "furnace_1": 60.0, "furnace_2": 60.0}


def large_lab(n_samples: int, n_slots: int) -> dict[str, Any]:
    """Return the content of a lab file with room for *n_samples* at once.

    Args:
        n_samples: How many crucibles and specimen holders there are.
        n_slots: How many crucibles fit into each of its two furnaces.
    """
    content: dict[str, Any] = yaml.safe_load(find_lab("a-lab").read_text())
    content["lab"] = f"a-lab-{n_samples}"
    devices = content["devices"]
    racks = [f"rack_1.{n}" for n in range(1, n_samples + 1)]
    holder_racks = [f"rack_2.{n}" for n in range(1, n_samples + 1)]
    slots = []
    for furnace in ("furnace_1", "furnace_2"):
        own = [f"{furnace}.slot_{n}" for n in range(1, n_slots + 1)]
        devices[furnace]["slots"] = own
        slots += own
    stations = ["bench.crucible", "bench.holder", "dosing_robot.station"]
    stations += ["diffractometer.slot_1", "balance.pan"]
    kept = {name: content["locations"][name] for name in stations}
    content["locations"] = (
        {name: {"holds": "crucible"} for name in racks}
        | {
            name: {"holds": "crucible", "inside": name.partition(".")[0]}
            for name in slots
        }
        | {name: {"holds": "holder"} for name in holder_racks}
        | kept
    )
    content["containers"] = {
        f"crucible_{n:02}": {
            "kind": "crucible",
            "at": rack,
            "capacity_ml": 20,
            "tare_g": 18.0 + 0.01 * n,
        }
        for n, rack in enumerate(racks, 1)
    } | {
        f"holder_{n:02}": {
            "kind": "holder",
            "at": rack,
            "capacity_ml": 1.0,
            "tare_g": 25.0,
        }
        for n, rack in enumerate(holder_racks, 1)
    }
    for powder in content["stock"].values():
        powder["mass_g"] = 50.0 * n_samples
    ways = [("balance.pan", "dosing_robot.station")]
    ways += product(racks, ["balance.pan", "bench.crucible", *slots])
    ways += product(holder_racks, ["bench.holder", "diffractometer.slot_1"])
    both = [*ways, *((destination, origin) for origin, destination in ways)]
    arm = devices["robot_arm"]
    taught: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for origin, destination in both:
        seconds = max(
            _ARM_S.get(p.partition(".")[0], 50.0) for p in (origin, destination)
        )
        name = f"{origin}_to_{destination}.urp"
        is_holder = "rack_2" in name
        settings[f"{origin} -> {destination}"] = {
            "program": name,
            "duration_s": seconds,
        }
        taught[name] = {
            "origin": origin,
            "destination": destination,
            "grip_width_mm": 31 if is_holder else 39,
            "duration_s": seconds,
        }
    taught["grind.urp"] = {
        "task": "grind",
        "station": "bench.crucible",
        "duration_s": 80,
        "grinds_for_s": 60,
    }
    taught["mount_powder.urp"] = {
        "task": "mount_powder",
        "station": "bench.crucible",
        "holder_station": "bench.holder",
        "duration_s": 240,
    }
    arm["settings"]["programs"] = settings
    arm["twin"] = {"programs": taught}
    return content


def write_large_lab(path: Path, n_samples: int, n_slots: int) -> Path:
    """Write such a lab file to *path*, and return it."""
    path.write_text(yaml.safe_dump(large_lab(n_samples, n_slots), sort_keys=False))
    return path
