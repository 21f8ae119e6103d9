"""Descriptions: a lab without its instruments, which judges as its drivers do."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from exercise import LAB
from ppu.core.capabilities import FiringProfile, Furnace, Segment
from ppu.core.errors import ConfigurationError, LimitError, NotFoundError
from ppu.core.labfile import load_lab
from ppu.core.registry import bundled_labs, load_class
from ppu.devices.build import build_devices
from ppu.operations import checking, description, looking, submission
from ppu.operations.description import LabDescription
from ppu.operations.views import StateChange
from ppu.plans.protocol import find_protocol
from ppu.store.store import Store

FURNACE = LAB["devices"]["furnace_1"]
TOO_HOT = FiringProfile((Segment(2000.0, 5.0, 60.0),), cool_to_degc=60.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that no cell has."""
    with Store(tmp_path / "lab.sqlite") as opened:
        yield opened


@pytest.mark.parametrize("name", sorted(bundled_labs()))
def test_every_bundled_device_is_judged_without_its_driver(name: str) -> None:
    """What its driver asks is what the description holds, kept and read again."""
    path = bundled_labs()[name]
    file = load_lab(path)
    made = description.describe(file, path)
    again = LabDescription.model_validate_json(made.model_dump_json())

    assert again == made
    for device in build_devices(file, path).values():
        judge = again.devices[device.plan_device.name].judge
        assert judge is not None
        content = again.devices[device.plan_device.name].specification
        found = load_class(judge, "test").model_validate(content)
        assert found == device.specification


def test_description_holds_no_addresses(small_lab: Path) -> None:
    """A door needs to know what a lab allows, not how its instruments are reached."""
    text = description.describe_lab(str(small_lab)).model_dump_json()

    assert "/dev/nowhere" not in text
    assert "temperature_degc" in text


def test_kept_description_needs_no_driver(small_lab: Path, store: Store) -> None:
    """It is made once; whoever checks after that loads neither driver nor Bluesky."""
    description.describe_lab(str(small_lab), store)
    script = (
        "import sys\n"
        "from ppu.operations import access, checking, description\n"
        "from ppu.plans.protocol import find_protocol\n"
        "with access.open_store(sys.argv[1]) as store:\n"
        "    lab = description.describe_lab(sys.argv[2], store)\n"
        "checking.check(lab, find_protocol('fire_sample'), {})\n"
        "print([n for n in sys.modules if n.startswith(('ppu_drivers', 'bluesky'))])"
    )
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", script, str(store.where), str(small_lab)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "[]"


def test_description_is_made_anew_when_what_it_was_made_of_changes(
    small_lab: Path, store: Store, tmp_path: Path
) -> None:
    """The lab file by its content, and the drivers by when they were changed."""
    path = tmp_path / "mine.yaml"
    shutil.copyfile(small_lab, path)
    first = description.describe_lab(str(path), store)
    path.write_text(path.read_text().replace("[0, 1100]", "[0, 900]"))
    second = description.describe_lab(str(path), store)
    stale = second.model_copy(update={"made_of": {str(path): (0, 0)}})
    description.keep_description(store, stale)
    third = description.describe_lab(str(path), store)

    assert first.digest != second.digest
    assert second.devices["furnace_1"].specification["temperature_degc"] == [0, 900]
    assert third == second
    assert any("eurotherm_3216" in source for source in second.made_of)


def test_newest_description_is_that_of_the_store(small_lab: Path, store: Store) -> None:
    """A door without a lab file finds what the cell kept, or is told to wait for it."""
    with pytest.raises(NotFoundError, match="a cell keeps one when it opens"):
        description.kept_description(store)
    made = description.describe_lab(str(small_lab), store)

    assert description.kept_description(store) == made


OWN_DRIVER = """\
from ppu.core.errors import LimitError
from ppu_drivers.eurotherm_3216 import Eurotherm3216


class Own(Eurotherm3216):
    specification = None

    def check_profile(self, profile):
        raise LimitError(f"{self.name}: judged by its driver")
"""


def test_driver_without_specification_judges_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is slower, and as exact; without its lab file nobody can tell."""
    (tmp_path / "own_driver.py").write_text(OWN_DRIVER)
    monkeypatch.syspath_prepend(str(tmp_path))
    devices = {"furnace_1": {**FURNACE, "driver": "own_driver:Own"}}
    devices["operator"] = LAB["devices"]["operator"]
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**LAB, "devices": devices}))
    made = description.describe_lab(str(path))

    assert made.devices["furnace_1"].judge is None
    with pytest.raises(LimitError, match="judged by its driver"):
        made.view().the(Furnace).check_profile(TOO_HOT)
    path.write_text(path.read_text() + "\n")
    elsewhere = LabDescription.model_validate_json(made.model_dump_json())
    with pytest.raises(ConfigurationError, match="is not the lab file any more"):
        elsewhere.view().the(Furnace)


OWN_FURNACE = """\
from functools import cached_property

from own_lab.drivers.base import Base
from own_lab.tables import HIGH_DEGC


class Own(Base):
    @cached_property
    def specification(self):
        allowed = {"temperature_degc": (0.0, HIGH_DEGC)}
        return super().specification.model_copy(update=allowed)
"""
OWN_BASE = """\
from ppu_drivers.eurotherm_3216 import Eurotherm3216

import own_rules


class Base(Eurotherm3216, own_rules.Rules):
    pass
"""


@pytest.mark.parametrize("changed", ["own_lab/tables.py", "own_rules/most.py"])
def test_description_is_made_anew_when_a_table_of_a_driver_or_its_base_changes(
    changed: str, small_lab: Path, store: Store, tmp_path: Path
) -> None:
    """A limit stands anywhere in the package of the class or of one it comes from."""
    files = {
        "own_lab/__init__.py": "",
        "own_lab/drivers/__init__.py": "",
        "own_lab/drivers/furnace.py": OWN_FURNACE,
        "own_lab/drivers/base.py": OWN_BASE,
        "own_lab/tables.py": "from own_rules.most import HIGH_DEGC",
        "own_rules/__init__.py": "class Rules:\n    pass",
        "own_rules/most.py": "HIGH_DEGC = 300.0",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    path = tmp_path / "own.yaml"
    driver = "ppu_drivers.eurotherm_3216:Eurotherm3216"
    path.write_text(
        small_lab.read_text().replace(driver, "own_lab.drivers.furnace:Own")
    )

    def most() -> str:
        """Ask a process of its own: what is loaded stays as it is."""
        script = (
            "import sys\n"
            "from ppu.operations import access, description\n"
            "with access.open_store(sys.argv[1]) as store:\n"
            "    lab = description.describe_lab(sys.argv[2], store)\n"
            "print(lab.devices['furnace_1'].specification['temperature_degc'][1])"
        )
        return subprocess.run(  # noqa: S603 - our own words
            [sys.executable, "-c", script, str(store.where), str(path)],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        ).stdout.strip()

    before = most()
    (tmp_path / changed).write_text("HIGH_DEGC = 1000.0")

    assert (before, most()) == ("300.0", "1000.0")


def test_check_tells_what_the_driver_tells(small_lab: Path) -> None:
    """The same sentence, with every fault, whoever asks."""
    lab = description.describe_lab(str(small_lab))
    device = build_devices(load_lab(small_lab), small_lab)["furnace_1"].plan_device
    with pytest.raises(LimitError) as by_driver:
        device.check_profile(TOO_HOT)
    with pytest.raises(LimitError) as by_description:
        lab.view().the(Furnace).check_profile(TOO_HOT)

    assert str(by_driver.value) == str(by_description.value)
    assert "2000 degC, allowed are 0 to 1100 degC" in str(by_driver.value)


def test_compiled_job_is_named_by_all_that_it_is_made_of(small_lab: Path) -> None:
    """Parameters with defaults, the protocol's version and the lab file."""
    lab, fire = description.describe_lab(str(small_lab)), find_protocol("fire_sample")
    one = checking.compile_job(lab, fire, {})
    same = checking.compile_job(lab, fire, {"temperature_degc": 900.0})
    other = checking.compile_job(lab, fire, {"temperature_degc": 850.0})
    elsewhere = checking.compile_job(
        lab.model_copy(update={"digest": "another"}), fire, {}
    )

    assert one == same
    assert one.parameters["temperature_degc"] == 900.0
    assert one.version == fire.version
    assert len({one.digest, other.digest, elsewhere.digest}) == 3


def test_submitted_job_keeps_what_it_was_checked_against(
    small_lab: Path, store: Store
) -> None:
    """Its first event names the compiled job and the lab file, by their digests."""
    lab = description.describe_lab(str(small_lab), store)
    compiled = checking.compile_job(lab, find_protocol("fire_sample"), {})
    (job_id,) = submission.submit(store, [submission.Submission(job=compiled)])
    first = looking.history(store, job_id)[0].change

    assert isinstance(first, StateChange)
    assert (first.state, first.compiled_digest) == ("queued", compiled.digest)
    assert first.lab_digest == compiled.lab_digest == lab.digest


@pytest.mark.parametrize("given", [None, "x", [("temperature_degc", 900.0)], 7])
def test_parameters_that_are_no_mapping_are_refused_in_words(
    small_lab: Path, given: Any
) -> None:
    """A door hands on what came as JSON, which may be anything."""
    lab, fire = description.describe_lab(str(small_lab)), find_protocol("fire_sample")
    with pytest.raises(ConfigurationError, match="parameters should be a mapping"):
        checking.compile_job(lab, fire, given)


def test_faults_of_many_jobs_are_told_together(small_lab: Path) -> None:
    """Each with where it stands; limits alone are a matter of the lab."""
    lab, fire = description.describe_lab(str(small_lab)), find_protocol("fire_sample")
    hot = checking.Wish({"temperature_degc": 1500.0}, "row 2")
    cell = {"temperature_degc": "row 3, column temperature_degc"}
    wrong = checking.Wish({"temperature_degc": "warm"}, "row 3", cell)
    with pytest.raises(LimitError, match=r"^row 2: furnace_1: segment 1: 1500 degC"):
        checking.compile_all(lab, fire, [hot])
    with pytest.raises(ConfigurationError) as caught:
        checking.compile_all(lab, fire, [hot, wrong])

    first, second = str(caught.value).splitlines()
    assert first.startswith("row 2: furnace_1")
    assert second.startswith("row 3, column temperature_degc: ")


def test_lab_with_classic_devices_checks_its_jobs_when_they_begin(
    small_lab: Path, tmp_path: Path
) -> None:
    """Making them would open their channels."""
    content = yaml.safe_load(small_lab.read_text())
    content["devices"]["motor"] = {
        "driver": "ophyd.sim:SynAxis",
        "hardware": {"transport": "classic", "prefix": ""},
    }
    path = tmp_path / "classic.yaml"
    path.write_text(yaml.safe_dump(content))
    lab = description.describe_lab(str(path))
    compiled = checking.compile_job(
        lab, find_protocol("fire_sample"), {"temperature_degc": 1500.0}
    )

    assert not lab.can_check
    assert compiled.parameters["temperature_degc"] == 1500.0
