"""What the analysis finds in weighed mixtures that nobody here made.

Prints found, weighed and stated error of every public scan, and judges the error model
by leaving out one specimen at a time. Run by

    python tests/campaign/found_against_weighed.py --xrd FOLDER --round-robin FOLDER

with the folders of the scans; either may be missing. ``--figure FILE`` draws found
against weighed. The round robin's weights are those of Madsen et al., J. Appl. Cryst.
34 (2001) 409.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ppu_protocols.analysis._budget import SPECIMEN_SPREAD, Budget, budget
from ppu_protocols.analysis.absorption import POWDER, GrainSize
from ppu_protocols.analysis.cif import Phase, load_phase, read_cif
from ppu_protocols.analysis.files import read_scan
from ppu_protocols.analysis.quantify import Quantification, quantify

GRAPHITE = 0.80
"""Polarization of a graphite monochromator for copper radiation, cos² 26.6 deg."""

AERIS = {
    "zno_in2o3": {"zno": 0.4006, "in2o3": 0.6008},
    "v2o5_tio2": {"v2o5": 0.3015, "anatase": 0.6998},
    "in2o3_mnco3": {"in2o3": 0.5002, "mnco3": 0.5000},
    "li2co3_zro2": {"Li2CO3": 0.9001, "zro2": 0.1000},
    "li2co3_zro2_2min": {"Li2CO3": 0.9001, "zro2": 0.1000},
    "nio_laoh3_zno": {"nio": 0.7028, "laoh3": 0.1010, "zno": 0.2000},
    "in2o3_laoh3_tio2": {"in2o3": 0.3022, "laoh3": 0.5014, "anatase": 0.2004},
    "nio_laoh3_tio2": {"nio": 0.1031, "laoh3": 0.2025, "anatase": 0.7014},
}
ROUND_ROBIN = {
    "cpd-1a": {"corundum": 1.15, "fluorite": 94.81, "zincite": 4.04},
    "cpd-1b": {"corundum": 94.31, "fluorite": 4.33, "zincite": 1.36},
    "cpd-1c": {"corundum": 5.04, "fluorite": 1.36, "zincite": 93.59},
}
EQUANT = ("zno_in2o3", "in2o3_mnco3", "cpd-1a", "cpd-1b", "cpd-1c")
"""Mixtures of phases that neither lie flat nor were ill crystallised."""


@dataclass(frozen=True)
class Weighed:
    """One scan: what was weighed, and what was found."""

    name: str
    weighed: dict[str, float]
    result: Quantification

    @property
    def specimen(self) -> str:
        """What was scanned; two scans may be of one specimen."""
        return self.name.removesuffix("_2min")

    def deviations(self) -> list[float]:
        """Return found minus weighed, in stated errors, for each phase."""
        return [
            (p.weight_fraction - self.weighed[p.name]) / p.standard_error
            for p in self.result.phases
        ]


def analysed(xrd: Path | None, round_robin: Path | None) -> list[Weighed]:
    """Return all scans of the folders, analysed."""
    jobs = []
    if xrd is not None:
        jobs += [(xrd / f"{name}.xrdml", masses) for name, masses in AERIS.items()]
    if round_robin is not None:
        jobs += [
            (round_robin / f"{name}.prn", masses)
            for name, masses in ROUND_ROBIN.items()
        ]
    found = []
    for path, masses in jobs:
        scan = read_scan(path)
        if path.suffix == ".prn":
            scan = replace(scan, radius=173.0, polarization=GRAPHITE)
        total = sum(masses.values())
        weighed = {name: mass / total for name, mass in masses.items()}
        phases = [_phase(path.parent, name) for name in masses]
        found.append(Weighed(path.stem, weighed, quantify(scan, phases)))
    return found


def _phase(folder: Path, name: str) -> Phase:
    path = folder / f"{name}.cif"
    return read_cif(path) if path.exists() else load_phase(name)


DIAMETERS_UM = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
SPREADS = (0.0, 0.0125, 0.025, 0.0375, 0.05, 0.075, 0.1)


def log_ratios(each: Weighed, counted: Budget) -> tuple[np.ndarray, np.ndarray]:
    """Return found over weighed as log ratios to the first phase, and their variance.

    The variance is that of all parts but the scatter between specimens.
    """
    names = [model.phase.name for model in each.result.fitted.model.phases]
    weighed = np.array([each.weighed[name] for name in names])
    logs = np.log(counted.shares / weighed)
    to_first = np.hstack([-np.ones((len(names) - 1, 1)), np.eye(len(names) - 1)])
    rest = counted.relative - np.eye(len(names)) * SPECIMEN_SPREAD**2
    return to_first @ logs, to_first @ rest @ to_first.T


def budget_at(each: Weighed, diameter_um: float) -> Budget:
    """Return the shares and errors of a fit, grains being of *diameter_um*."""
    grains = {name: GrainSize(diameter_um, POWDER.factor) for name in each.weighed}
    return budget(each.result.fitted, grains)


def likelihoods(each: Weighed) -> np.ndarray:
    """Return the logarithm of the likelihood for every diameter and spread."""
    table = np.zeros((len(DIAMETERS_UM), len(SPREADS)))
    for row, diameter_um in enumerate(DIAMETERS_UM):
        logs, rest = log_ratios(each, budget_at(each, diameter_um))
        for column, spread in enumerate(SPREADS):
            covariance = rest + spread**2 * (np.eye(len(logs)) + 1.0)
            _, size = np.linalg.slogdet(covariance)
            weighed = logs @ np.linalg.solve(covariance, logs)
            table[row, column] = -0.5 * (size + weighed)
    return table


def best(tables: list[np.ndarray]) -> tuple[float, float]:
    """Return the likeliest grain diameter [um] and scatter between specimens."""
    total = np.sum(tables, axis=0)
    row, column = np.unravel_index(int(np.argmax(total)), total.shape)
    return DIAMETERS_UM[row], SPREADS[column]


@dataclass(frozen=True)
class LeftOut:
    """A specimen judged by an error model that the others made.

    Its grains have the diameter that suits the others best; the scatter is theirs, but
    no less than the literature's.
    """

    name: str
    diameter_um: float
    spread: float
    deviations: list[float]


def left_out(many: list[Weighed]) -> list[LeftOut]:
    """Return every specimen judged by the others."""
    tables = [likelihoods(each) for each in many]
    rows = []
    for each in many:
        others = [
            table
            for other, table in zip(many, tables, strict=True)
            if other.specimen != each.specimen
        ]
        diameter_um, spread = best(others)
        spread = max(spread, SPECIMEN_SPREAD)
        counted = budget_at(each, diameter_um)
        shares = counted.shares
        by_log = np.diag(shares) - np.outer(shares, shares)
        change = (spread**2 - SPECIMEN_SPREAD**2) * np.eye(shares.size)
        variance = counted.errors**2 + np.diag(by_log @ change @ by_log.T)
        names = [model.phase.name for model in each.result.fitted.model.phases]
        weighed = np.array([each.weighed[name] for name in names])
        deviations = (shares - weighed) / np.sqrt(variance)
        rows.append(LeftOut(each.name, diameter_um, spread, deviations.tolist()))
    return rows


def report(many: list[Weighed]) -> str:
    """Return the table and the figures below it."""
    lines = ["| scan | phase | weighed | found | stated | in errors | confidence |"]
    lines.append("|---|---|---|---|---|---|---|")
    for each in many:
        for phase in each.result.phases:
            weighed = each.weighed[phase.name]
            difference = phase.weight_fraction - weighed
            lines.append(
                f"| {each.name} | {phase.name} | {100 * weighed:.2f} | "
                f"{100 * phase.weight_fraction:.2f} | "
                f"{100 * phase.standard_error:.2f} | "
                f"{difference / phase.standard_error:+.1f} | "
                f"{each.result.confidence} |"
            )
    every = [d for each in many for d in each.deviations()]
    rows = left_out(many)
    outside = [d for row in rows for d in row.deviations]
    diameter_um, spread = best([likelihoods(each) for each in many])
    stated = [
        max(p.standard_error for p in each.result.phases)
        for each in many
        if each.name in EQUANT
    ]
    trusted = sum(each.result.confidence != "low" for each in many)
    lines += [
        "",
        f"rms (found - weighed)/stated {rms(every):.2f}, largest {worst(every):.2f}",
        f"leaving each specimen out: rms {rms(outside):.2f}, largest "
        f"{worst(outside):.2f}; grains by the others "
        f"{min(r.diameter_um for r in rows)} to {max(r.diameter_um for r in rows)} um, "
        f"by all {diameter_um} (used {POWDER.diameter_um}); scatter by all {spread} "
        f"(used {SPECIMEN_SPREAD})",
        f"high or medium {trusted} of {len(many)}",
    ]
    if stated:
        lines.append(
            "mean of the largest stated error of equant mixtures "
            f"{100 * np.mean(stated):.2f} wt%"
        )
    return "\n".join(lines)


def rms(values: list[float]) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def worst(values: list[float]) -> float:
    """Return the largest absolute value."""
    return float(np.abs(values).max())


def figure(many: list[Weighed]) -> Figure:
    """Return found against weighed, and the difference enlarged."""
    drawing = Figure(figsize=(6.4, 6.4), layout="constrained")
    above, below = drawing.subplots(2, 1, sharex=True, height_ratios=(2.0, 1.0))
    above.plot([0, 100], [0, 100], lw=0.8, color="0.6")
    below.axhline(0.0, lw=0.8, color="0.6")
    colours = {"high": "#0072B2", "medium": "#E69F00", "low": "#D55E00"}
    seen = set()
    for each in many:
        colour = colours[each.result.confidence]
        for phase in each.result.phases:
            weighed = 100.0 * each.weighed[phase.name]
            found, error = 100.0 * phase.weight_fraction, 100.0 * phase.standard_error
            label = None
            if each.result.confidence not in seen:
                label = f"confidence {each.result.confidence}"
                seen.add(each.result.confidence)
            style = {"color": colour, "ms": 4.0, "lw": 1.0, "capsize": 2.0}
            above.errorbar(weighed, found, error, fmt="o", label=label, **style)
            below.errorbar(weighed, found - weighed, error, fmt="o", **style)
    above.set_ylabel("found (wt%)")
    above.legend(loc="upper left")
    below.set_ylabel("found - weighed (wt%)")
    below.set_xlabel("weighed (wt%)")
    return drawing


def main() -> None:
    """Analyse the scans of the folders named and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--xrd", type=Path, help="folder of the eight Aeris scans")
    parser.add_argument("--round-robin", type=Path, help="folder of the round robin")
    parser.add_argument("--figure", type=Path, help="where to draw the figure")
    asked = parser.parse_args()
    many = analysed(asked.xrd, asked.round_robin)
    if not many:
        parser.error("name at least one folder")
    sys.stdout.write(report(many) + "\n")
    if asked.figure is not None:
        figure(many).savefig(asked.figure, metadata={"Date": None})


if __name__ == "__main__":
    main()
