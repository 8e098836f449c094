"""The report's style sheet, light and dark; the stages' colours are stated once, here."""

from __future__ import annotations

from typing import Final

_STAGE_COLOURS: Final = {
    1: ("#c9c5b1", "#8d8a78"),
    2: ("#e3b341", "#c4962a"),
    3: ("#ef8a47", "#d9742f"),
    4: ("#b08bd8", "#9a73c6"),
    5: ("#6aa3e0", "#4f8bcd"),
    6: ("#45b5aa", "#33998f"),
    7: ("#4d9f62", "#3f8f56"),
    8: ("#d6453d", "#e5645c"),
    9: ("#9a9a9a", "#7d7d7d"),
    10: ("#93407a", "#c06aa6"),
}
"""Colour of each stage by its number: on light, on dark."""

_RISK_COLOURS: Final = (
    ("#7fb98d", "#4c8a5c"),
    ("#e8c95a", "#b3942f"),
    ("#ef8a47", "#d9742f"),
    ("#d6453d", "#e5645c"),
    ("#7a1f4b", "#b0447c"),
)
"""Colour of each level of risk by its number: on light, on dark."""

_LINES: Final = (
    ("#2f6fb5", "#6db0f2"),
    ("#d2691e", "#f0a35e"),
    ("#2f8f5b", "#5cc58c"),
    ("#9b59b6", "#c793e0"),
    ("#c0392b", "#f0776b"),
    ("#7f7f26", "#c9c95a"),
)

_PAGE: Final = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1040px; padding: 32px 24px 64px; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { margin: 0; font-size: 26px; font-weight: 650; overflow-wrap: anywhere; }
h2 { margin: 44px 0 10px; font-size: 18px; font-weight: 650; }
p { margin: 4px 0 8px; max-width: 76ch; overflow-wrap: anywhere; }
.sub, .none, .note { color: var(--muted); }
.note { font-size: 13.5px; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(172px, 1fr));
  gap: 12px; margin: 24px 0 8px; padding: 0; }
.figures div { background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 12px 14px; }
.figures dt { color: var(--muted); font-size: 13px; overflow-wrap: anywhere; }
.figures dd { margin: 2px 0 0; font-size: 21px; font-weight: 600;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.figures small { display: block; color: var(--muted); font-size: 13px; font-weight: 400;
  line-height: 1.4; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 4px 0 10px;
  padding: 0; font-size: 13px; color: var(--muted); }
.legend li { display: flex; align-items: center; gap: 6px; }
.legend svg { width: 14px; height: 14px; }
.legend.keys { display: none; }
.swatch { width: 12px; height: 12px; border-radius: 3px; background: var(--s, var(--c)); }
.swatch.blend { background: none; border-top: 2px solid var(--c0); border-radius: 0; height: 0; }
"""

_DRAWINGS: Final = """
.chart { margin: 10px 0 18px; padding: 0 168px 0 56px; }
.chart figcaption { color: var(--muted); font-size: 13px; font-weight: 600; }
.plot { display: block; width: 100%; overflow: visible; }
.plot .at { overflow: visible; }
.plot text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--ink); }
.plot .tick { fill: var(--muted); font-size: 11.5px; font-variant-numeric: tabular-nums; }
.plot .axis-name { fill: var(--muted); font-weight: 600; }
.plot .over { fill: var(--bad); font-weight: 600; }
.plot .series { fill: var(--c); font-weight: 600; }
.axis { stroke: var(--muted); stroke-width: 1; }
.grid { stroke: var(--rule); stroke-width: 1; }
.limit { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 6 4; }
polyline { fill: none; vector-effect: non-scaling-stroke; }
.line { stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.line.dot { fill: var(--c); }
.bar { fill: var(--c); }
.mark { stroke: var(--s); stroke-width: 1; stroke-dasharray: 3 3; }
.glyph { fill: var(--s); stroke: var(--s); stroke-width: 2; }
.alpha-area { fill: var(--c0); opacity: 0.18; }
.alpha { stroke: var(--c0); stroke-width: 1.5; }
.lives { margin: 10px 0 18px; padding-right: 12px; }
.life { display: grid; grid-template-columns: 220px minmax(0, 1fr); column-gap: 24px; }
.who { margin: 0; text-align: right; font-size: 13px; line-height: 1.35; color: var(--muted); }
.who b { display: block; color: var(--ink); font-weight: 600; }
.who span { display: block; }
.track { position: relative; }
/* A word that does not fit into its stage wraps to a second line, which is out of sight. */
.stage { position: absolute; top: 0; height: 18px; overflow: hidden; background: var(--s);
  border-right: 1px solid var(--paper); display: flex; flex-wrap: wrap; justify-content: center;
  align-content: flex-start; }
.stage::before { content: ""; width: 1px; height: 18px; }
.stage b { padding: 0 4px; font-size: 11px; font-weight: 400; line-height: 18px; color: #14171a;
  white-space: nowrap; }
.stage.end { width: 6px; }
.track.risk { height: 24px; }
.interval { display: block; width: 150px; height: 14px; margin: 3px 0 0; overflow: visible; }
.interval .whisker { stroke: var(--ink); stroke-width: 1.5; }
.interval .zero { stroke: var(--muted); stroke-width: 1; }
.interval .needed { stroke: var(--bad); stroke-width: 1.5; }
.interval circle { fill: var(--ink); }
"""

_TABLES: Final = """
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin: 6px 0; }
th { text-align: left; color: var(--muted); font-weight: 600; font-size: 13px; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top;
  overflow-wrap: break-word; }
table.narrow, table.tight { width: auto; }
.name { overflow-wrap: anywhere; min-width: 9em; }
.tight .name { min-width: 4em; }
.num { text-align: right; }
.num, .word { white-space: nowrap; font-variant-numeric: tabular-nums; }
td.what { font-weight: 600; }
.log { table-layout: fixed; }
.log td { overflow-wrap: anywhere; }
.log > thead th:nth-child(1) { width: 84px; }
.log > thead th:nth-child(2) { width: 32%; }
tr.hold td { color: var(--muted); font-weight: 400; }
tr.chosen td { font-weight: 650; }
tr.raced td { border-bottom: 0; }
tr.scores > td { padding-top: 0; }
summary { cursor: pointer; color: var(--muted); font-size: 13px; }
.then { display: block; color: var(--muted); font-size: 13px; }
tr.told td { background: var(--card); }
.story { border-bottom: 1px solid var(--rule); }
.story > summary { padding: 8px 0; color: var(--ink); font-size: 14px; overflow-wrap: anywhere; }
.story > summary .swatch { display: inline-block; margin: 0 8px 0 4px; }
.story dl { display: grid; grid-template-columns: 68px minmax(0, 1fr); margin: 0 0 14px; }
.story .interval { width: 110px; }
.story dt { color: var(--muted); font-size: 13px; padding-top: 1px; }
.story dd { margin: 0 0 6px; }
.story dd p { display: inline; }
.story dd p::after { content: " "; }
.bad { color: var(--bad); font-weight: 600; }
"""

_NARROW: Final = """
@media (max-width: 720px) {
  body { padding: 20px 16px 48px; }
  .figures { gap: 8px; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); }
  .chart { padding: 0 6px 0 40px; }
  .chart figcaption, .chart .legend { margin-left: -40px; }
  .plot .end { display: none; }
  .legend.keys { display: flex; }
  .lives { padding: 0 6px; }
  .life { display: block; margin-top: 10px; }
  .who { margin: 0 -6px 3px; text-align: left; }
  .who b, .who span { display: inline; }
  .who span + span::before { content: "\\00b7\\00a0"; }
  .cards > thead, .log > thead { display: none; }
  .cards tr, .cards td { display: block; }
  .cards tr { padding: 8px 0; border-bottom: 1px solid var(--rule); }
  .cards td { display: grid; grid-template-columns: 116px minmax(0, 1fr); text-align: left;
    padding: 1px 0; border: 0; white-space: normal; overflow-wrap: anywhere; }
  .cards td::before { content: attr(data-of); color: var(--muted); font-size: 13px; }
  .log, .log > tbody { display: block; }
  .log > tbody > tr { display: grid; grid-template-columns: 44px minmax(0, 1fr);
    column-gap: 12px; padding: 7px 0; border-bottom: 1px solid var(--rule); }
  .log > tbody > tr > td { grid-column: 2; width: auto; min-width: 0; padding: 0; border: 0; }
  .log > tbody > tr > td.num { grid-column: 1; }
  .log > tbody > tr.raced { border-bottom: 0; }
  .log > tbody > tr.scores { display: block; padding: 0 0 7px; }
  .log > tbody > tr.scores > td:empty { display: none; }
  .scores > td { display: block; }
  .tight { font-size: 13px; }
  .tight th, .tight td { padding-right: 10px; }
  details > summary { padding-left: 56px; }
}
@media print { body { max-width: none; } }
"""

_LIGHT: Final = (
    "--ink:#1b1f24;--muted:#626a73;--paper:#ffffff;--card:#f6f7f9;--rule:#e1e4e8;--bad:#c62f28;"
)
_DARK: Final = (
    "--ink:#e6e8eb;--muted:#9aa3ad;--paper:#14171b;--card:#1c2026;--rule:#2e343c;--bad:#ff7b72;"
)


def style_sheet() -> str:
    """The whole style sheet; it loads nothing."""
    classes = [f".s{stage} {{ --s: var(--s{stage}); }}" for stage in _STAGE_COLOURS]
    classes += [f".c{number} {{ --c: var(--c{number}); }}" for number in range(len(_LINES))]
    classes += [f".r{level} {{ --s: var(--r{level}); }}" for level in range(len(_RISK_COLOURS))]
    light, dark = _LIGHT + _variables(0), _DARK + _variables(1)
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        + "\n".join(classes)
        + _PAGE
        + _DRAWINGS
        + _TABLES
        + _NARROW
    )


def _variables(theme: int) -> str:
    stages = [f"--s{stage}:{colours[theme]};" for stage, colours in _STAGE_COLOURS.items()]
    stages += [f"--r{level}:{colours[theme]};" for level, colours in enumerate(_RISK_COLOURS)]
    lines = [f"--c{number}:{colours[theme]};" for number, colours in enumerate(_LINES)]
    return "".join(stages + lines)
