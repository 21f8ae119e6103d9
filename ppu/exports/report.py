"""Reports: one self-contained HTML page of what a run left behind.

A protocol adds its own sections; timeline and furnace curves come by themselves. The
page needs no script and no network, follows the reader's light or dark preference, and
prints.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ppu.core.labtime import duration, iso
from ppu.core.names import shown
from ppu.plans.report import SERIES, RunRecord, Section, figure, svg_of, table
from ppu.plans.steps import StepRecord

__all__ = ["build_report"]


def build_report(record: RunRecord, sections: Sequence[Section]) -> str:
    """Return the whole page."""
    result = record.result
    title = f"{result['protocol']} in {result['lab']}"
    parts = [*(sections or [_result(record)]), _timeline(record)]
    more = (_curves(record), _energy(record))
    parts += [part for part in more if part is not None]
    parts += [_incidents(record), _parameters(record), _provenance(record)]
    body = "".join(
        f"<section><h2>{html.escape(part.title)}</h2>"
        + (f"<p class=note>{html.escape(part.note)}</p>" if part.note else "")
        + f"{part.body}</section>"
        for part in parts
    )
    is_simulated = bool(result["simulated"])
    banner = (
        "<p class=simulated>Simulated: no real sample was made or measured.</p>"
        if is_simulated
        else ""
    )
    mark = ' class="watermarked"' if is_simulated else ""
    started = iso(record.epoch + record.started_s)
    page = _PAGE.format(
        title=html.escape(title),
        mark=mark,
        banner=banner,
        subtitle=html.escape(f"started {started}, lab time"),
        body=body,
        watermark=_WATERMARK if is_simulated else "",
    )
    return shown(page, keep="\n\t\N{NO-BREAK SPACE}\N{THIN SPACE}\N{EM SPACE}")


def _result(record: RunRecord) -> Section:
    """Return what came of it, for a protocol that has no part of its own."""
    fields = record.protocol_result.own_fields()
    return Section("Result", table(("what", "value"), list(fields.items())))


def _timeline(record: RunRecord) -> Section:
    """Return the outer steps as bars, and all steps, each under the one it is in."""
    steps = [step for step in record.steps if step.ended_s is not None]
    if not steps:
        return Section("Timeline", "<p>No step was completed.</p>")
    outer = [step for step in steps if "." not in step.path]
    drawn, axes = figure(0.9 + 0.3 * len(outer))
    colours = {"repeatable": 0, "resumable": 1, "irreversible": 2}
    shown: set[str] = set()
    total = (max(step.ended_s or 0.0 for step in steps) - record.started_s) / 3600
    for row, step in enumerate(outer):
        begun = (step.begun_s - record.started_s) / 3600
        ended = ((step.ended_s or step.begun_s) - record.started_s) / 3600
        axes.barh(
            row,
            max(ended - begun, 0.004 * total),  # wide enough to be seen
            left=begun,
            height=0.6,
            color=SERIES[colours.get(step.kind, 0)],
            label=step.kind if step.kind not in shown else None,
        )
        shown.add(step.kind)
    axes.set_yticks(range(len(outer)), [_short(step) for step in outer])
    axes.invert_yaxis()
    axes.set_xlabel("lab time since the start [h]")
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=3,
        fontsize="x-small",
        columnspacing=1.0,
        handlelength=1.0,
    )
    rows = [
        (
            "\N{EM SPACE}" * step.path.count(".") + step.label,
            step.kind,
            duration(max(step.begun_s - record.started_s, 0.0)),
            duration((step.ended_s or step.begun_s) - step.begun_s),
        )
        for step in steps
    ]
    body = svg_of(drawn, "Outer steps of the run over lab time") + table(
        ("step", "kind", "begun after", "took"), rows
    )
    return Section("Timeline", body, _told_of_time(record))


def _short(step: StepRecord) -> str:
    """Return the name of a step, for an axis."""
    return step.name.replace("_", " ")


def _told_of_time(record: RunRecord) -> str:
    """Return in words how long the run was active, and what it waited for."""
    result = record.result
    told = f"Active for {duration(result['active_s'])}"
    waited = [
        f"{_WAITED_FOR[code]} {duration(seconds)}"
        for code, seconds in result["waited_s"].items()
        if seconds >= 1.0
    ]
    return f"{told}; waited {', '.join(waited)}." if waited else f"{told}."


_WAITED_FOR = {
    "queue": "in the queue",
    "resource": "for what others had",
    "person": "for a person",
    "held": "while it was held",
    "cell": "for a cell",
}


def _curves(record: RunRecord) -> Section | None:
    """Return the curves of all sampled temperatures, if there are any."""
    start = record.epoch + record.started_s
    curves = [
        ([(t - start) / 3600 for t in columns["time"]], key, columns[key])
        for columns in record.samples.values()
        for key in columns
        if record.units.get(key) == "degC"
    ]
    if not curves:
        return None
    drawn, axes = figure(3.6)
    devices = record.result["devices"]
    for index, (hours, key, values) in enumerate(curves):
        device = next((name for name in devices if key.startswith(f"{name}_")), "")
        label = key.removeprefix(f"{device}_").replace("_", " ")
        colour = SERIES[(len(curves) - 1 - index) % len(SERIES)]
        axes.plot(hours, values, color=colour, lw=1.2, label=label)
    for ended_h, label in _ends(record, start, devices):
        axes.axvline(ended_h, color=SERIES[0], lw=0.8, ls=":", label=label)
    note = ""
    curve = record.truth.get("sample_curve", {})
    if curve.get("time_s"):
        hours = [(t - record.started_s) / 3600 for t in curve["time_s"]]
        axes.plot(
            hours,
            curve["temperature_degc"],
            color=SERIES[2],
            lw=1.2,
            ls="--",
            label="sample (simulated truth)",
        )
        note = (
            "The sample's temperature is simulated truth: no instrument measured it, "
            "and a run on hardware does not have it."
        )
    axes.set_xlabel("lab time since the start [h]")
    axes.set_ylabel("temperature [degC]")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, fontsize="small")
    return Section(
        "Temperatures", svg_of(drawn, "Sampled and simulated temperatures"), note
    )


def _ends(
    record: RunRecord, start: float, devices: Iterable[str]
) -> Iterator[tuple[float, str]]:
    """Yield when what was sampled as true became false [h], and what it was."""
    for columns in record.samples.values():
        for key, values in columns.items():
            if not all(isinstance(value, bool) for value in values):
                continue
            device = next((name for name in devices if key.startswith(f"{name}_")), "")
            what = key.removeprefix(f"{device}_").removeprefix("is_").replace("_", " ")
            for n, (before, after) in enumerate(pairwise(values), 1):
                if before and not after:
                    yield (columns["time"][n] - start) / 3600, f"end of {what}"


def _energy(record: RunRecord) -> Section | None:
    """Return what firings took, if there were any."""
    firings = record.result["firings"]
    if not firings:
        return None
    rows = [
        (
            one["furnace"],
            ", ".join(map(str, one["jobs"])) if len(one["jobs"]) > 1 else "this one",
            _energy_shown(one["energy_kwh"]),
            _energy_shown(one["own_energy_kwh"]),
            one["energy_source"],
        )
        for one in firings
    ]
    head = ("furnace", "jobs", "energy [kWh]", "of this job [kWh]", "how it is known")
    return Section("Energy of firings", table(head, rows))


def _energy_shown(kwh: float | None) -> str:
    """Return an energy with the digits that a reported output lets one know."""
    return "-" if kwh is None else f"{kwh:.3g}"


def _incidents(record: RunRecord) -> Section:
    incidents = record.result["incidents"]
    if not incidents:
        return Section("Incidents", "<p>None.</p>")
    rows = [
        (
            duration(i["lab_time_s"] - record.started_s),
            i["kind"],
            i["device"],
            i["text"],
        )
        for i in incidents
    ]
    return Section("Incidents", table(("after", "kind", "device", "what"), rows))


def _parameters(record: RunRecord) -> Section:
    asked = record.result["parameters_asked"]
    actual = record.result["parameters_actual"]
    silent = record.result["parameters_not_reported"]
    commanded = record.result["parameters_commanded"]
    rows = [
        (
            name,
            _shown(asked[name]) if name in asked else "",
            "not reported" if name in silent else _shown(value),
            "as commanded, not measured" if name in commanded else "",
        )
        for name, value in (asked | actual).items()
    ]
    return Section("Parameters", table(("parameter", "asked", "actual", ""), rows))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_shown(item) for item in value)
    return "-" if value is None else str(value)


def _provenance(record: RunRecord) -> Section:
    result = record.result
    names = ("lab", "target", "seed", "protocol", "protocol_version", "ppu_version")
    rows = [(name.replace("_", " "), _shown(result[name])) for name in names]
    rows.append(("lab time", duration(result["lab_time_s"])))
    devices = [
        (
            name,
            f"{who['maker']} {who['model']}",
            who.get("serial_number"),
            who.get("firmware"),
        )
        for name, who in result.get("devices", {}).items()
    ]
    head = ("device", "instrument", "serial number", "firmware")
    return Section("Provenance", table(("what", "value"), rows) + table(head, devices))


_WATERMARK = '<div class="watermark" aria-hidden="true">simulated</div>'

_PAGE = """<!doctype html>
<html lang="en"{mark}>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{
  --ground: #fbfbf9; --ink: #1c2024; --soft: #5b6570; --faint: #c3c8ce;
  --card: #ffffff; --warn-ground: #fff1d6; --warn-ink: #6b4300;
  --series-1: #6b7785; --series-2: #b4431c; --series-3: #1f6f8b;
  --series-4: #6a8f2a; --series-5: #7b4fa3; --series-6: #a3842a;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --ground: #14171a; --ink: #e6e9ec; --soft: #a2abb5; --faint: #444c55;
    --card: #1b1f23; --warn-ground: #3a2a08; --warn-ink: #ffd990;
    --series-1: #98a4b1; --series-2: #ff8a5c; --series-3: #62c1e0;
    --series-4: #a9d15f; --series-5: #c29be6; --series-6: #e0c060;
  }}
}}
* {{ box-sizing: border-box; }}
body {{
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem;
  background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif;
}}
h1 {{ font-size: 1.6rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 0 0 .5rem; }}
.subtitle, .note, figcaption, caption {{ color: var(--soft); font-size: .9rem; }}
.note {{ margin: 0 0 .5rem; }}
section {{
  background: var(--card); border: 1px solid var(--faint); border-radius: 8px;
  padding: 1rem; margin: 1rem 0;
}}
.simulated {{
  background: var(--warn-ground); color: var(--warn-ink); padding: .5rem 1rem;
  border-radius: 8px; font-weight: 600;
}}
.watermark {{
  position: fixed; inset: 0; display: grid; place-items: center; z-index: 1;
  font-size: min(18vw, 11rem); font-weight: 700; letter-spacing: .05em;
  color: var(--ink); opacity: .05; transform: rotate(-24deg);
  pointer-events: none; overflow: hidden;
}}
figure {{ margin: 0 0 1rem; overflow-x: auto; }}
figure svg {{ width: 100%; height: auto; display: block; }}
.narrow {{ display: none; }}
figcaption {{ position: sticky; left: 0; }}
figure text {{ font-family: system-ui, sans-serif !important; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: .92rem; }}
th, td {{
  text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--faint);
}}
th {{ color: var(--soft); font-weight: 600; }}
th.number, td.number {{ text-align: right; }}
td.number {{ font-variant-numeric: tabular-nums; white-space: nowrap; }}
.verdict {{ font-size: 1.1rem; font-weight: 600; }}
ul.reasons {{ margin: .3rem 0 0; padding-left: 1.2rem; }}
@media screen and (max-width: 600px) {{
  .narrow {{ display: block; }} .wide {{ display: none; }}
  body {{ padding: .6rem; }} section {{ padding: .6rem; }}
  table {{ font-size: .74rem; }} th, td {{ padding: .25rem .2rem; }}
}}
@media print {{
  html, body {{ padding: 0; background: none; }}
  figure svg {{ max-height: 10.5cm; }} .watermark {{ font-size: 5rem; }}
  h2, .note, .verdict, caption, thead {{ break-after: avoid; }}
  figure, tr, .note, .simulated {{ break-inside: avoid; }}
  section {{ border: 0; padding: 0; }} figure, .scroll {{ overflow: visible; }}
  .watermark {{ opacity: .08; }}
}}
</style>
</head>
<body>
{watermark}
<h1>{title}</h1>
<p class="subtitle">{subtitle}</p>
{banner}
{body}
</body>
</html>
"""
