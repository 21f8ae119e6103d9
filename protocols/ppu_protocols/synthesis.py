"""The main job: powders to phase fractions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from typing_extensions import override

from ppu.core.capabilities import (
    Balance,
    Diffractometer,
    Dose,
    DoseRequest,
    FiringProfile,
    GasRequest,
    Grind,
    MountPowder,
    PowderDoser,
    PowderStation,
    ScanRequest,
    Segment,
)
from ppu.core.errors import (
    ConfigurationError,
    InstrumentError,
    InterlockError,
    LimitError,
    NoResourceError,
)
from ppu.core.remedies import Remedy, advise
from ppu.plans import Lab, MsgGenerator, ProtocolResult, bps, compute, protocol, step
from ppu.plans.report import RunRecord, Section
from ppu_protocols.evidence import find_dosed, leave_dosed
from ppu_protocols.steps import (
    carry_home,
    check_handling,
    check_load,
    check_route,
    check_slot,
    check_zero,
    choose_furnaces,
    fire_container,
    grind_powder,
    mount_powder,
    move_container,
    take_container,
    tare_balance,
    weigh_container,
    weigh_sample,
)
from ppu_protocols.stoichiometry import (
    Recipe,
    balance_recipe,
    molar_mass,
    parse_formula,
)
from ppu_protocols.targets import TARGETS

__all__ = ["SolidStateRecipe", "SynthesisResult", "solid_state_synthesis"]

Number = Annotated[float, Field(allow_inf_nan=False)]
_REGRIND_S = 120.0
_LOWERED = {"high": "medium", "medium": "low", "low": "low"}
"""Confidence in what was made of a sample whose firing was not all seen."""
_EMPTY_WITHIN = 0.005
"""Part of the batch by which an empty crucible may be off its tare."""
_EMPTY_WITHIN_G = (0.002, 0.02)
"""What that is at least, for the balance, and at most [g]."""


def each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return *names*.

    Raises:
        ValueError: If one stands there twice.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"should name each phase once, not {', '.join(twice)} twice")
    return names


class SolidStateRecipe(BaseModel):
    """What to make, of what, and how.

    The defaults are the demonstration. A target that is known by name brings its own
    precursors, firing and candidate phases instead; what is asked for goes first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: str = Field(
        default="BaTiO3",
        description=f"Formula of the product; known by name are {', '.join(TARGETS)}",
    )
    precursors: tuple[str, ...] = Field(
        default=("BaCO3", "TiO2"),
        min_length=1,
        max_length=8,
        description="Names of powders in stock; masses follow from stoichiometry",
    )
    excess: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default={},
        description="Extra part of some precursors, such as {BaCO3: 0.02}",
    )
    batch_mass_g: Number = Field(
        default=4.0, gt=0, le=1000, description="All powders together"
    )
    milling_s: Number = Field(default=600.0, ge=0, le=86400)
    ramp_degc_per_min: Number = Field(default=2.0, gt=0, le=100)
    temperature_degc: Number = Field(default=800.0, gt=0, le=3000)
    hold_s: Number = Field(default=18000.0, ge=0, le=1e6)
    cool_to_degc: Number = Field(
        default=60.0, ge=30, le=1000, description="When the crucible is taken out"
    )
    furnace: str | None = Field(
        default=None, description="A certain furnace; by default the first that fits"
    )
    atmosphere: str = Field(
        default="air", description="Gas in the chamber, such as O2; air needs none"
    )
    gas_flow_ml_per_min: Number = Field(
        default=100.0, gt=0, le=1e5, description="How much of that gas flows"
    )
    scan_start_deg: Number = Field(default=10.0, ge=0, le=160)
    scan_stop_deg: Number = Field(default=100.0, gt=0, le=160)
    scan_duration_s: Number = Field(default=480.0, gt=0, le=86400)
    candidate_phases: Annotated[tuple[str, ...], AfterValidator(each_once)] = Field(
        default=("BaTiO3", "BaCO3", "TiO2-anatase", "TiO2-rutile"),
        min_length=1,
        max_length=12,
        description="Phases that the pattern is searched for",
    )

    @model_validator(mode="before")
    @classmethod
    def _bring_what_is_usual(cls, asked: Any) -> Any:
        """Add how the target is usually made where nothing else is asked.

        Raises:
            ValueError: If nothing is known of the target and too little is asked.
        """
        if not (isinstance(asked, Mapping) and isinstance(asked.get("target"), str)):
            return asked
        if asked["target"] in TARGETS:
            return TARGETS[asked["target"]].settings() | dict(asked)
        missing = {"precursors", "candidate_phases"} - set(asked)
        if missing:
            raise ValueError(
                f"target: {asked['target']} is not known by name (known are "
                f"{', '.join(TARGETS)}); say its {' and '.join(sorted(missing))}, too"
            )
        return asked

    @model_validator(mode="after")
    def _let_no_air_flow(self) -> Self:
        """Refuse a flow that nothing would come of.

        Raises:
            ValueError: If a flow is asked, but no gas.
        """
        usual = type(self).model_fields["gas_flow_ml_per_min"].default
        if self.atmosphere == "air" and self.gas_flow_ml_per_min != usual:
            raise ValueError(
                f"gas_flow_ml_per_min: {self.gas_flow_ml_per_min:g} ml/min of what? "
                "Air does not flow; name the gas with atmosphere, such as O2"
            )
        return self

    def profile(self) -> FiringProfile:
        """Return the firing this recipe describes."""
        segment = Segment(self.temperature_degc, self.ramp_degc_per_min, self.hold_s)
        return FiringProfile(
            (segment,),
            self.cool_to_degc,
            atmosphere=self.atmosphere,
            gas_flow_ml_per_min=self.gas_flow_ml_per_min,
        )

    def scan(self, sample_id: str) -> ScanRequest:
        """Return the scan this recipe describes."""
        return ScanRequest(
            sample_id, self.scan_start_deg, self.scan_stop_deg, self.scan_duration_s
        )

    def doses(self) -> tuple[Dose, ...]:
        """Return the powders this recipe needs."""
        shares = self.balanced().mass_fractions
        return tuple(
            Dose(name, self.batch_mass_g * share) for name, share in shares.items()
        )

    def balanced(self) -> Recipe:
        """Return the stoichiometric mixture."""
        return balance_recipe(self.target, self.precursors, self.excess)


class Sample(BaseModel):
    """What was made, as it was weighed."""

    id: str
    container: str
    precursor_masses_asked_g: dict[str, float]
    precursor_masses_weighed_g: dict[str, float]
    mass_before_g: float
    mass_after_g: float
    expected_mass_after_g: float = Field(
        description="For complete reaction of what was weighed in"
    )
    loss_percent: float
    expected_loss_percent: float

    def summary(self) -> str:
        """Return the line that tells people of it."""
        return (
            f"sample {self.id} in {self.container}: {self.mass_before_g:.4f} g before, "
            f"{self.mass_after_g:.4f} g after: lost {self.loss_percent:z.2f} % "
            f"(complete reaction: {self.expected_loss_percent:z.2f} %)"
        )


class PhaseFraction(BaseModel):
    """How much of one phase there is."""

    name: str
    formula: str
    weight_fraction: float
    standard_error: float


class Fit(BaseModel):
    """How well the pattern is described."""

    r_wp: float
    goodness_of_fit: float


class SynthesisResult(ProtocolResult):
    """What came of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    sample: Sample
    phases: tuple[PhaseFraction, ...]
    confidence: str
    confidence_reasons: tuple[str, ...]
    fit: Fit
    analysed: Any = Field(exclude=True, description="Scan and its full analysis")

    @override
    def summary(self) -> list[str]:
        lines = ["phases:"] if self.phases else []
        lines += [
            f"  {phase.name:16} {100 * phase.weight_fraction:6.2f} wt% "
            f"+- {100 * phase.standard_error:.2f}"
            for phase in self.phases
        ]
        lines.append(f"confidence: {self.confidence}")
        lines += [f"  {reason}" for reason in self.confidence_reasons]
        return [*lines, self.sample.summary()]


def stock(recipe: SolidStateRecipe) -> Mapping[str, float]:
    """Return how much of each powder is to be dosed [g]."""
    masses_g: dict[str, float] = {}
    for dose in recipe.doses():
        masses_g[dose.powder] = masses_g.get(dose.powder, 0.0) + dose.mass_g
    return masses_g


def check(lab: Lab, recipe: SolidStateRecipe) -> None:
    """Refuse what the lab does not allow, before anything moves."""
    from ppu_protocols.analysis.cif import load_phase  # noqa: PLC0415 - heavy
    from ppu_protocols.analysis.quantify import has_lines  # noqa: PLC0415 - heavy

    candidates = [load_phase(name) for name in recipe.candidate_phases]
    formulas = {name.partition("-")[0] for name in recipe.candidate_phases}
    if recipe.target not in formulas:
        raise ConfigurationError(
            f"candidate_phases: {recipe.target} is the target but not among "
            f"{', '.join(recipe.candidate_phases)}; the pattern would be explained "
            "without it"
        )
    doses = recipe.doses()
    doser = lab.the(PowderDoser)
    container = lab.empty_container("crucible")
    capacity = lab.container(container).capacity_ml
    faults, lacking = [], []
    volume = 0.0
    for dose in doses:
        available = lab.stock_g(dose.powder)
        if dose.mass_g > available:
            lacking.append(dose.powder)
            faults.append(
                f"{dose.mass_g:.3f} g of {dose.powder} are needed, in stock are "
                f"{available:g} g"
            )
        volume += dose.mass_g / lab.file.stock[dose.powder].bulk_density_g_per_ml
    if volume > capacity:
        faults.append(
            f"the powders take {volume:.1f} mL, {container} holds {capacity:g} mL; "
            "lower batch_mass_g"
        )
        raise LimitError("; ".join(faults), field="batch_mass_g")
    if faults:
        raise NoResourceError(
            "; ".join(faults),
            advice=[advise(Remedy.REFILL, powder=powder) for powder in lacking],
            field=lacking[0],
        )
    doser.check_request(DoseRequest(container, doses, recipe.milling_s))
    furnace = choose_furnaces(lab, recipe.profile(), recipe.furnace)[0]
    gas = lab.gas_for(furnace.name, recipe.atmosphere)
    if gas is not None:
        gas.check_flow(GasRequest(recipe.atmosphere, recipe.gas_flow_ml_per_min))
    slot, home = check_slot(lab, furnace, container), lab.home_of(container)
    lab.the(Diffractometer).check_scan(recipe.scan("check"))
    start, stop = recipe.scan_start_deg, recipe.scan_stop_deg
    if not any(has_lines(phase, start, stop) for phase in candidates):
        raise ConfigurationError(
            f"candidate_phases: none of {', '.join(recipe.candidate_phases)} has a "
            f"line between {start:g} and {stop:g} deg; widen the scan"
        )
    holder = lab.empty_container("holder")
    check_load(lab, container, recipe.batch_mass_g)
    pan, station = lab.the(Balance).pan, lab.the(PowderStation)
    station.check_task(Grind(container, _REGRIND_S))
    station.check_task(MountPowder(container, holder))
    bench = station.container_station or home
    check_route(lab, home, pan, doser.station, pan, home, slot, home, bench, home)
    rack = lab.home_of(holder)
    mounting = station.holder_station or rack
    check_route(lab, rack, mounting, rack, lab.the(Diffractometer).slot, rack)
    check_handling(lab, slot, home, recipe.cool_to_degc)


@step(kind="irreversible", evidence=find_dosed, settled=leave_dosed)
def dose_powders(
    lab: Lab, doser: PowderDoser, request: DoseRequest
) -> MsgGenerator[Mapping[str, float]]:
    """Dose and mix powders; return the mass of each that was weighed in [g]."""
    yield from bps.prepare(doser, request, wait=True)
    try:
        yield from bps.trigger(doser, wait=True)
    finally:
        # A doser that gave too little has given it all the same.
        for powder, mass in doser.dosed_g.items():
            lab.use_stock(powder, mass)
    return dict(doser.dosed_g)


@dataclass(frozen=True)
class WeighedIn:
    """What came into a crucible, by the balance and by the doser [g]."""

    empty_g: float
    full_g: float
    dosed_g: Mapping[str, float]


def _needs_to_weigh_in(lab: Lab, crucible: str, request: DoseRequest) -> list[str]:
    del crucible, request
    balance, doser = lab.the(Balance), lab.the(PowderDoser)
    return [balance.name, balance.pan, doser.name, doser.station]


@step(kind="repeatable", needs=_needs_to_weigh_in, park=carry_home)
def weigh_in(lab: Lab, crucible: str, request: DoseRequest) -> MsgGenerator[WeighedIn]:
    """Weigh a crucible from home, have it filled, weigh it again, bring it home."""
    balance, doser = lab.the(Balance), lab.the(PowderDoser)
    yield from tare_balance(lab, balance)
    yield from move_container(lab, crucible, balance.pan)
    empty = yield from weigh_container(lab, crucible, balance)
    asked = sum(dose.mass_g for dose in request.doses)
    least_g, most_g = _EMPTY_WITHIN_G
    if abs(empty) > min(max(_EMPTY_WITHIN * asked, least_g), most_g):
        raise InterlockError(
            f"{crucible} should be empty but weighs {empty:+.4f} g more than its "
            "tare_g in the lab file; clean it, or correct tare_g"
        )
    yield from move_container(lab, crucible, doser.station)
    yield from check_zero(lab, balance)
    dosed = yield from dose_powders(lab, doser, request)
    yield from move_container(lab, crucible, balance.pan)
    full = yield from weigh_container(lab, crucible, balance)
    yield from move_container(lab, crucible, lab.home_of(crucible))
    yield from check_zero(lab, balance)
    return WeighedIn(empty, full, dosed)


def _needs_to_mount(lab: Lab, crucible: str, holder: str) -> set[str]:
    station = lab.the(PowderStation)
    places = {station.container_station, station.holder_station} - {None}
    homes = {lab.home_of(crucible), lab.home_of(holder)}
    return {place for place in places if place is not None} - homes


@step(kind="repeatable", needs=_needs_to_mount, park=carry_home)
def mount_sample(lab: Lab, crucible: str, holder: str) -> MsgGenerator[None]:
    """Grind what is in a crucible and mount it; both come from home and go there."""
    station = lab.the(PowderStation)
    bench = station.container_station or lab.home_of(crucible)
    mounting = station.holder_station or lab.home_of(holder)
    yield from move_container(lab, crucible, bench)
    yield from grind_powder(lab, station, crucible, _REGRIND_S)
    yield from move_container(lab, holder, mounting)
    yield from mount_powder(lab, station, crucible, holder)
    yield from move_container(lab, crucible, lab.home_of(crucible))
    yield from move_container(lab, holder, lab.home_of(holder))


def _needs_to_measure(lab: Lab, holder: str, scan: ScanRequest) -> list[str]:
    del holder, scan
    diffractometer = lab.the(Diffractometer)
    return [diffractometer.name, diffractometer.slot]


class Pattern(BaseModel):
    """A powder pattern as it was measured."""

    two_theta: list[float]
    counts: list[float]
    file: str | None


@step(kind="repeatable", needs=_needs_to_measure, park=carry_home)
def measure_pattern(lab: Lab, holder: str, scan: ScanRequest) -> MsgGenerator[Pattern]:
    """Carry a specimen from home to the diffractometer and back; return its pattern."""
    diffractometer = lab.the(Diffractometer)
    yield from move_container(lab, holder, diffractometer.slot)
    pattern = yield from diffract(lab, diffractometer, scan)
    yield from move_container(lab, holder, lab.home_of(holder))
    return pattern


def _expected_scan_s(
    lab: Lab, diffractometer: Diffractometer, scan: ScanRequest
) -> float:
    """Return how long a scan takes [s]."""
    del lab, diffractometer
    return scan.duration_s


@step(kind="repeatable", expected_s=_expected_scan_s)
def diffract(
    lab: Lab, diffractometer: Diffractometer, scan: ScanRequest
) -> MsgGenerator[Pattern]:
    """Measure a pattern; return its angles [deg] and counts."""
    del lab  # every step says in which lab it acts
    yield from bps.prepare(diffractometer, scan, wait=True)
    yield from bps.create(name="pattern")
    yield from bps.trigger(diffractometer, wait=True)
    reading = yield from bps.read(diffractometer)
    yield from bps.save()
    name = diffractometer.name
    return Pattern(
        two_theta=reading[f"{name}_two_theta"]["value"].tolist(),
        counts=reading[f"{name}_counts"]["value"].tolist(),
        file=diffractometer.scan_file,
    )


def analyse(
    pattern: Pattern,
    candidates: tuple[str, ...],
    sample_id: str,
    dosed_g: Mapping[str, float],
    mass_before_g: float,
    mass_after_g: float,
) -> tuple[Any, Any]:
    """Return the scan and its quantification; runs in a worker thread.

    What was dosed and what was left are the pattern's second witness.
    """
    from ppu_protocols.analysis.balance import Dosed  # noqa: PLC0415 - heavy
    from ppu_protocols.analysis.cif import load_phase  # noqa: PLC0415 - heavy
    from ppu_protocols.analysis.quantify import quantify  # noqa: PLC0415 - heavy
    from ppu_protocols.analysis.scan import Scan  # noqa: PLC0415 - heavy

    scan = Scan.from_counts(pattern.two_theta, pattern.counts, sample_id=sample_id)
    # Some powder stays on the walls of the mill; what was fired counts.
    kept = mass_before_g / sum(dosed_g.values())
    amounts: dict[str, float] = {}
    for powder, mass_g in dosed_g.items():
        for element, count in parse_formula(powder).items():
            amount = count * mass_g * kept / molar_mass(powder)
            amounts[element] = amounts.get(element, 0.0) + amount
    return scan, quantify(
        scan,
        [load_phase(name) for name in candidates],
        dosed=Dosed(amounts, mass_after_g),
    )


def report(record: RunRecord) -> list[Section]:
    """Return what this protocol adds to a report."""
    from ppu_protocols.synthesis_report import sections  # noqa: PLC0415 - heavy

    return sections(record)


@protocol(
    version="1",
    hazards=(
        "The furnace and the crucible get hot; the chamber is opened below "
        "cool_to_degc only.",
        "Barium compounds are toxic: gloves and a dust mask for the powders.",
        "Carbonates give off carbon dioxide.",
    ),
    check=check,
    report=report,
    stock=stock,
)
def solid_state_synthesis(
    lab: Lab, recipe: SolidStateRecipe
) -> MsgGenerator[SynthesisResult]:
    """Weigh powders, mix, fire, weigh, diffract, and quantify the phases."""
    furnaces = choose_furnaces(lab, recipe.profile(), recipe.furnace)
    crucible = yield from take_container(lab, "crucible")
    holder = yield from take_container(lab, "holder")
    request = DoseRequest(crucible, recipe.doses(), recipe.milling_s)

    weighed = yield from weigh_in(lab, crucible, request)
    fired = yield from fire_container(lab, crucible, recipe.profile(), furnaces)
    after = yield from weigh_sample(lab, crucible)
    yield from mount_sample(lab, crucible, holder)
    pattern = yield from measure_pattern(lab, holder, recipe.scan(lab.sample_id))
    analysed = yield from compute(
        analyse,
        pattern,
        recipe.candidate_phases,
        lab.sample_id,
        weighed.dosed_g,
        weighed.full_g - weighed.empty_g,
        after - weighed.empty_g,
    )

    diffractometer, dosed = lab.the(Diffractometer), weighed.dosed_g
    mass_before, mass_after = weighed.full_g - weighed.empty_g, after - weighed.empty_g
    quantified = analysed[1]
    if quantified.misalignment_deg is not None:
        raise InstrumentError(
            f"{diffractometer.name}: the goniometer looks misaligned by "
            f"{quantified.misalignment_deg:+.2f} deg, or the specimen stands off its "
            "axis; check both, and measure the specimen again"
        )
    if quantified.is_blank:
        raise InstrumentError(
            f"{diffractometer.name}: no peak stands above the background: {holder} may "
            "be empty, or the sample is amorphous; look at it"
        )
    expected = mass_before * recipe.balanced().expected_yield
    unseen = fired.not_measured()
    return SynthesisResult(
        sample=Sample(
            id=lab.sample_id,
            container=crucible,
            precursor_masses_asked_g={d.powder: d.mass_g for d in request.doses},
            precursor_masses_weighed_g=dict(dosed),
            mass_before_g=mass_before,
            mass_after_g=mass_after,
            expected_mass_after_g=expected,
            loss_percent=100.0 * (mass_before - mass_after) / mass_before,
            expected_loss_percent=100.0 * (mass_before - expected) / mass_before,
        ),
        phases=tuple(
            PhaseFraction(
                name=phase.name,
                formula=phase.formula,
                weight_fraction=phase.weight_fraction,
                standard_error=phase.standard_error,
            )
            for phase in quantified.phases
        ),
        confidence=_LOWERED[quantified.confidence] if unseen else quantified.confidence,
        confidence_reasons=quantified.confidence_reasons + quantified.remarks + unseen,
        fit=Fit(
            r_wp=quantified.fit.r_wp, goodness_of_fit=quantified.fit.goodness_of_fit
        ),
        parameters_actual={
            "target": recipe.target,
            "precursors": list(recipe.precursors),
            "excess": dict(recipe.excess),
            "batch_mass_g": sum(dosed.values()),
            "milling_s": recipe.milling_s,
            "atmosphere": recipe.atmosphere,
            # Air does not flow.
            "gas_flow_ml_per_min": None
            if recipe.atmosphere == "air"
            else recipe.gas_flow_ml_per_min,
            "ramp_degc_per_min": recipe.ramp_degc_per_min,
            # That of a shared firing suits all who share it.
            "cool_to_degc": fired.cooled_to_degc,
            **fired.measured(),
            "scan_start_deg": pattern.two_theta[0],
            "scan_stop_deg": pattern.two_theta[-1],
            "scan_duration_s": recipe.scan_duration_s,
            "candidate_phases": list(recipe.candidate_phases),
        },
        parameters_commanded=(
            *("milling_s", "atmosphere", "gas_flow_ml_per_min", "ramp_degc_per_min"),
            *("cool_to_degc", "scan_duration_s"),
        ),
        not_measured=unseen,
        attachments={} if pattern.file is None else {"pattern": Path(pattern.file)},
        analysed=analysed,
    )
