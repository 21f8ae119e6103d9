"""Classic ophyd devices in a lab file: a lab keeps what it owns."""

from pathlib import Path

import bluesky.plan_stubs as bps
import pytest
from bluesky.utils import MsgGenerator

from ppu.cell.lab import OpenLab
from ppu.cell.open_lab import open_lab
from ppu.core.capabilities import Balance
from ppu.core.errors import ConfigurationError, ConnectError, InstrumentError

_MODULE = '''
from ophyd.sim import SynSignal

class Scale(SynSignal):
    """A balance as an ophyd signal."""

    def __init__(self, prefix="", *, name, pan, load_g=12.5):
        super().__init__(lambda: load_g, name=name)
        self.pan = pan
        self.tare = SynSignal(name=f"{name}_tare")
        self.mass_key = name

    pan = mass_key = tare = None
    max_mass_g = 200.0

class Lamp(SynSignal):
    """Nothing that weighs."""

class Turntable(Scale):
    """One with something in motion."""

    def __init__(self, *args, jams=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.stops, self.jams = [], jams

    def stop(self, *, success=False):
        if self.jams:
            raise RuntimeError("the brake is worn")
        self.stops.append(success)

class Absent(Scale):
    """One that never connects."""

    def wait_for_connection(self, timeout=0.0):
        raise TimeoutError("Failed to connect to XF:scale")
'''

_LAB = """\
lab: classic
schema_version: 1
devices:
  balance:
    driver: classic_devices:Scale
    hardware: {transport: ophyd, prefix: "XF:31"}
    settings: {pan: pan, load_g: 12.5}
    provides: [Balance]
    slots: [pan]
locations: {pan: {holds: crucible, inside: balance}}
"""


@pytest.fixture
def lab_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab whose balance is a classic ophyd device."""
    (tmp_path / "classic_devices.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "classic.yaml"
    path.write_text(_LAB)
    return path


def weigh(lab: OpenLab) -> MsgGenerator[float]:
    """Weigh once, as any protocol does."""
    balance = lab.view().the(Balance)
    yield from bps.open_run()
    yield from bps.trigger(balance.tare, wait=True)
    yield from bps.create(name="weighing")
    yield from bps.trigger(balance, wait=True)
    reading = yield from bps.read(balance)
    yield from bps.save()
    yield from bps.close_run()
    return float(reading[balance.mass_key]["value"])


def test_classic_device_fills_a_capability_when_a_plan_asks_for_it(
    lab_file: Path,
) -> None:
    """A plan cannot tell a classic ophyd balance from any other."""
    with open_lab(str(lab_file), target="hardware") as lab:
        assert isinstance(lab["balance"], Balance)
        assert lab.run(weigh(lab)) == 12.5
        assert lab.read("balance", "balance")["value"] == 12.5


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("Scale", "Lamp", r"Lamp does not provide Balance \(no .*max_mass_g.*pan"),
        ("load_g: 12.5", "load: 12.5", "unexpected keyword argument 'load'"),
        ("pan: pan, ", "", "missing a required argument: 'pan'"),
        ('prefix: "XF:31"', "prefx: x", "prefx: unknown key; .*prefix"),
    ],
)
def test_classic_device_is_refused_when_the_lab_file_does_not_fit_it(
    lab_file: Path, old: str, new: str, told: str
) -> None:
    """Whoever wrote the lab file is told what the class lacks or takes."""
    lab_file.write_text(_LAB.replace(old, new))
    with pytest.raises(ConfigurationError, match=told):
        open_lab(str(lab_file), target="hardware").__enter__()


@pytest.mark.parametrize("which", ["abort", "orphan", "hold"])
def test_classic_device_is_halted_when_the_lab_file_says_so(
    lab_file: Path, which: str
) -> None:
    """What is in motion halts, and people learn that nobody verified it."""
    text = _LAB.replace(":Scale", ":Turntable")
    lab_file.write_text(text.replace("slots:", f"on_{which}: stop\n    slots:"))
    with open_lab(str(lab_file), target="hardware") as lab:
        device = lab.devices["balance"]
        told = lab.host.call(getattr(device, f"go_to_{which}_state")())

        assert told == "balance: stopped (not verified: ophyd cannot say)"
        assert lab["balance"].stops == [False]


def test_classic_device_keeps_moving_when_the_lab_file_says_nothing(
    lab_file: Path,
) -> None:
    """Who loses its cell, or is held, is left alone by default."""
    lab_file.write_text(_LAB.replace(":Scale", ":Turntable"))
    with open_lab(str(lab_file), target="hardware") as lab:
        device = lab.devices["balance"]
        told = lab.host.call(device.go_to_orphan_state())
        told += lab.host.call(device.go_to_hold_state())

        assert told == ""
        assert lab["balance"].stops == []


def test_classic_device_that_does_not_halt_is_named(lab_file: Path) -> None:
    """Whatever a foreign class raises, people learn that it is not safe."""
    text = _LAB.replace(":Scale", ":Turntable")
    text = text.replace("slots:", "on_orphan: stop\n    slots:")
    lab_file.write_text(text.replace("pan: pan,", "pan: pan, jams: true,"))
    with (
        open_lab(str(lab_file), target="hardware") as lab,
        pytest.raises(InstrumentError, match="did not stop: the brake is worn"),
    ):
        lab.host.call(lab.devices["balance"].go_to_orphan_state())


def test_classic_device_is_named_when_it_does_not_connect(lab_file: Path) -> None:
    """An absent control system is a connection error of that device."""
    lab_file.write_text(_LAB.replace(":Scale", ":Absent"))
    with pytest.raises(ConnectError, match=r"balance: Failed to connect to XF:scale"):
        open_lab(str(lab_file), target="hardware").__enter__()


def test_classic_device_is_refused_when_the_target_is_a_twin(lab_file: Path) -> None:
    """There is no simulated instrument behind a classic device."""
    with pytest.raises(ConfigurationError, match="no twin of it"):
        open_lab(str(lab_file))
