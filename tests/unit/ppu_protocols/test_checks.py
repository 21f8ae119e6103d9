"""What protocols refuse before anything moves, without any instrument."""

from typing import Any

import pytest
from pydantic import ValidationError

from ppu.core.errors import ConfigurationError, LimitError
from ppu.core.labfile import LabFile
from ppu.plans import Lab
from ppu_protocols.steps import check_handling, check_load, check_route
from ppu_protocols.stoichiometry import parse_formula
from ppu_protocols.synthesis import SolidStateRecipe


class Person:
    """What is asked of an operator here."""

    name = "person"
    max_container_degc = 80.0

    def can_carry(self, origin: str, destination: str) -> bool:
        """Return whether the way leads to the rack."""
        return destination == "rack"


class Scale:
    """What is asked of a balance here."""

    max_mass_g = 20.0


@pytest.fixture
def lab() -> Lab:
    """A lab with a person, a balance and one crucible of 18 g."""
    device: dict[str, Any] = {"driver": "nowhere:Nothing"}
    file = LabFile.model_validate(
        {
            "lab": "tiny",
            "schema_version": 1,
            "devices": {
                "person": device | {"provides": ["Operator"]},
                "scale": device | {"provides": ["Balance"]},
            },
            "locations": {"rack": {"holds": "crucible"}},
            "containers": {
                "cup": {
                    "kind": "crucible",
                    "at": "rack",
                    "capacity_ml": 20,
                    "tare_g": 18,
                }
            },
        }
    )
    return Lab(file, {"person": Person(), "scale": Scale()})


def test_container_is_not_handed_to_a_person_when_it_is_too_hot(lab: Lab) -> None:
    """Burns are a hazard that can be known."""
    check_handling(lab, "oven", "rack", 80.0)
    with pytest.raises(LimitError, match=r"at 81 degC; person allows up to 80 degC"):
        check_handling(lab, "oven", "rack", 81.0)


def test_route_is_refused_when_nobody_carries_along_it(lab: Lab) -> None:
    """Every missing part of a way is told before the first step."""
    check_route(lab, "oven", "rack", "rack")
    with pytest.raises(ConfigurationError) as raised:
        check_route(lab, "rack", "oven", "rack", "pan")

    assert "nobody carries from rack to oven (asked: person)" in str(raised.value)
    assert "from rack to pan" in str(raised.value)
    assert "from oven to rack" not in str(raised.value)


def test_container_is_not_weighed_when_it_is_too_heavy(lab: Lab) -> None:
    """What the balance cannot bear is known before the first powder is dosed."""
    check_load(lab, "cup", 2.0)
    with pytest.raises(LimitError, match=r"cup weighs 20\.1 g .* up to 20 g"):
        check_load(lab, "cup", 2.1)


def test_recipe_is_refused_when_a_phase_stands_there_twice() -> None:
    """The analysis would refuse it, but after the firing."""
    with pytest.raises(ValidationError, match="each phase once, not BaTiO3 twice"):
        SolidStateRecipe(candidate_phases=("BaTiO3", "TiO2-rutile", "BaTiO3"))


@pytest.mark.parametrize(
    "formula", ["BaTiO" + "9" * 400, "BaTiO1001", "((BaTiO3)1000)1000", "BaTiO0"]
)
def test_formula_is_refused_when_its_numbers_are_absurd(formula: str) -> None:
    """A number that no formula has is a typing error."""
    with pytest.raises(ConfigurationError, match="allowed are more than 0 and up to"):
        parse_formula(formula)
