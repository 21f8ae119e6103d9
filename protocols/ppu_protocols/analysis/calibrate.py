"""What a scan of a certified standard says of a diffractometer."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import TypeAdapter

from ppu.core.errors import ConfigurationError
from ppu.core.yaml_document import read_json
from ppu_protocols.analysis._covariance import inflation
from ppu_protocols.analysis._fit import Refinement, Target, refine, with_curvature
from ppu_protocols.analysis._model import DISPLACEMENT_SPREAD, ZERO_SPREAD, ScanModel
from ppu_protocols.analysis._phase_model import CELL_SPREAD
from ppu_protocols.analysis._search import fit
from ppu_protocols.analysis.cif import load_phase
from ppu_protocols.analysis.errors import AnalysisError

if TYPE_CHECKING:
    from pathlib import Path

    from ppu_protocols.analysis.scan import Scan

STANDARDS: Final = {
    "Si": "NIST SRM 640f, a = 5.431144 Å",
    "LaB6": "NIST SRM 660c, a = 4.156826 Å",
}
"""Standards whose cells are certified, by the name of their bundled structure."""

SCHEMA_VERSION = 1
_WAVELENGTH_TOLERANCE = 3e-4  # relative, beyond which the wavelength is questioned
_POOR = 0.35  # Rwp above which the scan is not of the standard


@dataclass(frozen=True)
class Calibration:
    """A diffractometer as its standard shows it.

    Attributes:
        standard: Which standard was scanned.
        zero_deg: How much too high all angles are read [deg].
        zero_error_deg: One standard deviation of it; zero and height are alike.
        height_mm: Of the standard's surface above the axis [mm].
        gaussian_fwhm_deg: Gaussian width at 2theta 0 and per tan(theta) [deg].
        lorentzian_fwhm_deg: Width per 1/cos(theta) and per tan(theta), the standard's
            own included [deg].
        axial_shift_deg: Mean shift of a line at 2theta 20 deg by axial divergence.
        wavelength_ratio: Wavelength that the standard's cell asks for, over the
            stated one.
        remarks: What should be looked at.
        valid_from: When the scan was judged, ISO time.
        valid_until: When it should be repeated, ISO time.
    """

    standard: str
    zero_deg: float
    zero_error_deg: float
    height_mm: float
    gaussian_fwhm_deg: tuple[float, float]
    lorentzian_fwhm_deg: tuple[float, float]
    axial_shift_deg: float
    wavelength_ratio: float
    remarks: tuple[str, ...]
    valid_from: str
    valid_until: str


def calibrate(
    scan: Scan, standard: str, now: datetime, valid_days: float = 90.0
) -> Calibration:
    """Return the calibration that *scan* of *standard* gives.

    The cell is held at its certified value; zero, height, widths and axial divergence
    are refined. A cell that would rather be another asks for another wavelength.

    Args:
        scan: Of the pure standard, over 60 deg or more.
        standard: A name in `STANDARDS`.
        now: When the calibration begins to be valid.
        valid_days: For how long.

    Raises:
        AnalysisError: If the standard is unknown, or the scan is not of it.
    """
    if standard not in STANDARDS:
        raise AnalysisError(
            f"no certified cell of {standard!r}; there are: {', '.join(STANDARDS)}"
        )
    if scan.two_theta[-1] - scan.two_theta[0] < 60.0:
        raise AnalysisError(
            f"{scan.source}: covers less than 60 deg; zero and height cannot be told "
            "apart"
        )
    fitted = fit([load_phase(standard)], scan)
    plain, target = fitted.model, fitted.target
    model = ScanModel(plain.phases, plain.grid, plain.radius, has_zero=True)
    zero_at, cell_at = model.names().index("zero"), model.own(0).start
    start = np.insert(fitted.refinement.parameters, zero_at, 0.0)
    start[cell_at] = 0.0
    free = np.array([not name.endswith(":b") for name in model.names()])
    free[cell_at] = False
    held = refine(model, target, start, free=free, max_iterations=60, tolerance=1e-7)
    p = held.parameters
    residual = (target.counts - held.linear.calculated) * target.root_weight
    total = float(target.weighted_counts @ target.weighted_counts)
    r_wp = math.sqrt(float(residual @ residual) / max(total, 1e-300))
    if held.linear.scales[0] <= 0.0 or r_wp > _POOR:
        raise AnalysisError(
            f"{scan.source}: is no scan of {standard} ({STANDARDS[standard]})"
        )
    # A free cell beside a free zero: what is left of it is the wavelength's.
    free[cell_at] = True
    loose = refine(model, target, p, free=free, max_iterations=60, tolerance=1e-7)
    ratio = 1.0 / (1.0 + CELL_SPREAD * float(loose.parameters[cell_at]))
    remarks = []
    unsure = CELL_SPREAD * _error_of(model, loose, target, cell_at)
    if abs(ratio - 1.0) > max(_WAVELENGTH_TOLERANCE, 5.0 * unsure):
        remarks.append(
            f"The standard's cell asks for {scan.k_alpha_1 * ratio:.6f} Å where "
            f"{scan.k_alpha_1:.6f} is stated; check tube, monochromator and "
            "temperature."
        )
        held, p = loose, loose.parameters
    widths = model.widths(p, 0)
    full = 2.0 * math.sqrt(2.0 * math.log(2.0))
    if abs(model.zero_deg(p)) > 0.1:
        remarks.append(
            f"The zero is off by {model.zero_deg(p):+.3f} deg; align the goniometer."
        )
    until = now + timedelta(days=valid_days)
    return Calibration(
        standard=standard,
        zero_deg=model.zero_deg(p),
        zero_error_deg=ZERO_SPREAD * _error_of(model, held, target, zero_at),
        height_mm=float(p[0]) * DISPLACEMENT_SPREAD,
        gaussian_fwhm_deg=(
            math.degrees(full * math.sqrt(widths.gauss_constant)),
            math.degrees(full * math.sqrt(widths.gauss_tangent)),
        ),
        lorentzian_fwhm_deg=(
            math.degrees(2.0 * widths.size),
            math.degrees(2.0 * widths.strain),
        ),
        axial_shift_deg=-math.degrees(widths.axial / math.tan(math.radians(20.0))),
        wavelength_ratio=ratio,
        remarks=tuple(remarks),
        valid_from=now.isoformat(),
        valid_until=until.isoformat(),
    )


def _error_of(
    model: ScanModel, refinement: Refinement, target: Target, index: int
) -> float:
    """Return one standard deviation of a parameter, zero and height free together."""
    known = with_curvature(model, target, refinement)
    size = len(known.curvature)
    information = known.curvature / inflation(target, known.linear.calculated, size)
    first = size - model.n_parameters
    names = model.names()
    kept = np.array([not name.endswith((":b", ":cell_0")) for name in names])
    kept[index] = True
    free = np.concatenate([np.ones(first, dtype=bool), kept])
    prior = np.arange(first, size)
    information[prior, prior] += 1.0
    inverse = np.linalg.inv(information[np.ix_(free, free)])
    at = first + int(kept[:index].sum())
    return math.sqrt(max(float(inverse[at, at]), 0.0))


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Keep *calibration* in a JSON file.

    Raises:
        AnalysisError: If the file cannot be written.
    """
    content = {"schema_version": SCHEMA_VERSION, **asdict(calibration)}
    try:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise AnalysisError(f"{path}: cannot be written ({reason})") from error


def read_calibration(path: Path) -> Calibration:
    """Return the calibration kept in *path*.

    Raises:
        AnalysisError: If it is missing or no calibration.
    """
    try:
        content = read_json(path.read_text(encoding="utf-8"), str(path))
        version = content.pop("schema_version")
        for name in ("gaussian_fwhm_deg", "lorentzian_fwhm_deg", "remarks"):
            content[name] = tuple(content[name])
        found = Calibration(**content)
        # No text and no boolean for a number.
        TypeAdapter(Calibration).validate_json(json.dumps(content), strict=True)
        datetime.fromisoformat(found.valid_until)
    except (
        ConfigurationError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise AnalysisError(
            f"{path}: no calibration of a diffractometer ({error}); "
            "`ppu calibrate diffractometer` writes one"
        ) from error
    if version != SCHEMA_VERSION:
        raise AnalysisError(f"{path}: a calibration of version {version}")
    return found


def with_calibration(
    scan: Scan, calibration: Calibration, now: datetime | None = None
) -> Scan:
    """Return *scan* with its angles corrected for the zero error.

    Args:
        scan: As it was read.
        calibration: Of the same diffractometer.
        now: When the scan was made, to name a calibration that has run out.
    """
    notes = [
        f"zero of {calibration.zero_deg:+.4f} deg taken off ({calibration.standard})"
    ]
    if now is None:
        notes.append(f"the calibration is valid until {calibration.valid_until}")
    elif now > datetime.fromisoformat(calibration.valid_until):
        notes.append(f"the calibration ran out on {calibration.valid_until}")
    return replace(
        scan,
        two_theta=scan.two_theta - calibration.zero_deg,
        notes=(*scan.notes, *notes),
    )
