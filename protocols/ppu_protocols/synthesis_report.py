"""The part of a synthesis report that only this protocol can write."""

from __future__ import annotations

import html

from ppu.plans.report import SERIES, RunRecord, Section, figure, svg_of, table

__all__ = ["sections"]


def sections(record: RunRecord) -> list[Section]:
    """Return phases, pattern, doses and mass balance."""
    return [_phases(record), _pattern(record), _doses(record), _masses(record)]


def _phases(record: RunRecord) -> Section:
    result = record.result
    rows = [
        (
            phase["name"],
            phase["formula"],
            f"{100 * phase['weight_fraction']:.2f}",
            f"{100 * phase['standard_error']:.2f}",
        )
        for phase in result["phases"]
    ]
    reasons = "".join(
        f"<li>{html.escape(r)}</li>" for r in result["confidence_reasons"]
    )
    verdict = (
        f'<p class="verdict">Confidence: {html.escape(result["confidence"])}</p>'
        + (f'<ul class="reasons">{reasons}</ul>' if reasons else "")
    )
    body = verdict + table(
        ("phase", "formula", "weight fraction [wt%]", "standard error [wt%]"), rows
    )
    return Section("Phases", body, "Of the crystalline part of the sample.")


def _pattern(record: RunRecord) -> Section:
    scan, quantified = record.protocol_result.analysed
    drawn, (upper, lower) = figure(5.0, 2, height_ratios=(4, 1))
    # One point in two is enough on paper and halves the page.
    every = slice(None, None, 2)
    angles = scan.two_theta[every]
    upper.plot(
        angles, scan.counts[every], ".", ms=1.6, color=SERIES[0], label="measured"
    )
    upper.plot(
        angles, quantified.calculated[every], lw=0.9, color=SERIES[1], label="fit"
    )
    upper.plot(
        angles,
        quantified.background[every],
        lw=0.8,
        ls="--",
        color=SERIES[2],
        label="background",
    )
    bottom = float(scan.counts.min())
    step = 0.03 * float(scan.counts.max() - bottom)
    for row, (name, lines) in enumerate(quantified.line_positions.items()):
        colour = SERIES[(row + 1) % len(SERIES)]
        upper.plot(
            lines,
            [bottom - (row + 1) * step] * len(lines),
            "|",
            ms=5,
            color=colour,
            label=name,
        )
    upper.set_ylabel("counts")
    upper.legend(loc="upper right", ncols=2, fontsize="small")
    lower.plot(
        angles,
        (scan.counts - quantified.calculated)[every],
        lw=0.6,
        color=SERIES[0],
    )
    lower.set_ylabel("residual")
    lower.set_xlabel("2theta [deg]")
    fit = record.result["fit"]
    return Section(
        "Diffraction pattern",
        svg_of(drawn, "Measured pattern, fit, background, line positions, residual"),
        f"R_wp {100 * fit['r_wp']:.1f} %, goodness of fit "
        f"{fit['goodness_of_fit']:.2f}.",
    )


def _doses(record: RunRecord) -> Section:
    sample = record.result["sample"]
    weighed = sample["precursor_masses_weighed_g"]
    rows = [
        (
            powder,
            f"{asked:.4f}",
            f"{weighed[powder]:.4f}",
            f"{1000 * (weighed[powder] - asked):+.2f}",
        )
        for powder, asked in sample["precursor_masses_asked_g"].items()
    ]
    head = ("powder", "asked [g]", "weighed [g]", "difference [mg]")
    return Section("Doses", table(head, rows))


def _masses(record: RunRecord) -> Section:
    sample = record.result["sample"]
    rows = [
        ("before firing", f"{sample['mass_before_g']:.4f}", ""),
        (
            "after firing",
            f"{sample['mass_after_g']:.4f}",
            f"{sample['expected_mass_after_g']:.4f}",
        ),
        (
            "loss [%]",
            f"{sample['loss_percent']:.2f}",
            f"{sample['expected_loss_percent']:.2f}",
        ),
    ]
    return Section(
        "Mass balance",
        table(("", "weighed [g]", "theory [g]"), rows),
        "Theory: complete reaction of what was weighed in.",
    )
