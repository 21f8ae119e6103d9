"""Reports: one self-contained HTML page of what a run left behind.

A protocol adds its own sections; timeline and furnace curves come by themselves. The
page needs no script and no network, follows the reader's light or dark preference, and
prints.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from ppu.core.labtime import duration, iso
from ppu.core.names import shown
from ppu.plans.report import SERIES, RunRecord, Section, figure, svg_of, table

__all__ = ["build_report"]


def build_report(record: RunRecord, sections: Sequence[Section]) -> str:
    """Return the whole page."""
    result = record.result
    title = f"{result['protocol']} in {result['lab']}"
    parts = [*sections, _timeline(record)]
    parts += [part for part in (_curves(record),) if part is not None]
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
    return shown(page, keep="\n\t\N{NO-BREAK SPACE}\N{THIN SPACE}")


def _timeline(record: RunRecord) -> Section:
    steps = [step for step in record.steps if step.ended_s is not None]
    if not steps:
        return Section("Timeline", "<p>No step was completed.</p>")
    drawn, axes = figure(0.8 + 0.32 * len(steps))
    colours = {"repeatable": 0, "resumable": 1, "irreversible": 2}
    shown: set[str] = set()
    total = (max(step.ended_s or 0.0 for step in steps) - record.started_s) / 3600
    for row, step in enumerate(steps):
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
    axes.set_yticks(range(len(steps)), [step.label for step in steps])
    axes.invert_yaxis()
    axes.set_xlabel("lab time since the start [h]")
    axes.legend(loc="lower left")
    rows = [
        (
            step.label,
            step.kind,
            duration(step.begun_s - record.started_s),
            duration((step.ended_s or step.begun_s) - step.begun_s),
        )
        for step in steps
    ]
    body = svg_of(drawn, "Steps of the run over lab time") + table(
        ("step", "kind", "begun after", "took"), rows
    )
    return Section("Timeline", body)


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
    axes.legend(loc="upper right")
    return Section(
        "Temperatures", svg_of(drawn, "Sampled and simulated temperatures"), note
    )


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
    rows = [
        (name, _shown(value), _shown(actual.get(name, "")))
        for name, value in asked.items()
    ]
    return Section("Parameters", table(("parameter", "asked", "actual"), rows))


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
figure svg {{ width: 100%; min-width: 30rem; height: auto; display: block; }}
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
@media print {{ section {{ break-inside: avoid; }} .watermark {{ opacity: .08; }} }}
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
