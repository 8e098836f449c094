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

_LINES: Final = (
    ("#2f6fb5", "#6db0f2"),
    ("#d2691e", "#f0a35e"),
    ("#2f8f5b", "#5cc58c"),
    ("#9b59b6", "#c793e0"),
    ("#c0392b", "#f0776b"),
    ("#7f7f26", "#c9c95a"),
)

_RULES: Final = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1040px; padding: 32px 24px 64px; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { margin: 0; font-size: 26px; font-weight: 650; overflow-wrap: anywhere; }
h2 { margin: 40px 0 8px; font-size: 18px; font-weight: 650; }
p { margin: 4px 0 8px; max-width: 76ch; }
.sub, .none, .note { color: var(--muted); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr));
  gap: 12px; margin: 24px 0 8px; padding: 0; }
.figures div { background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 12px 14px; }
.figures dt { color: var(--muted); font-size: 13px; overflow-wrap: anywhere; }
.figures dd { margin: 2px 0 0; font-size: 21px; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.figures small { display: block; color: var(--muted); font-size: 13px; font-weight: 400; }
svg { display: block; width: 100%; height: auto; margin: 6px 0; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--ink); }
svg text.tick { fill: var(--muted); font-size: 11.5px; font-variant-numeric: tabular-nums; }
svg text.small { font-size: 10px; }
svg text.axis-name { fill: var(--muted); font-weight: 600; }
svg text.name { font-weight: 600; }
svg text.in { font-size: 11px; fill: #14171a; }
svg text.over { fill: var(--bad); font-weight: 600; }
.axis { stroke: var(--muted); stroke-width: 1; }
.grid { stroke: var(--rule); stroke-width: 1; }
.limit { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 6 4; }
.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.line.dot { fill: var(--c); }
.series { font-weight: 600; }
svg text.series { fill: var(--c); }
.bar { fill: var(--c); }
.mark { stroke: var(--s); stroke-width: 1; stroke-dasharray: 3 3; }
.glyph { fill: var(--s); stroke: var(--s); stroke-width: 2; }
.stage { fill: var(--s); stroke: var(--paper); stroke-width: 1; }
.alpha-area { fill: var(--c0); opacity: 0.18; }
.alpha { fill: none; stroke: var(--c0); stroke-width: 1.5; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 4px 0 10px;
  padding: 0; font-size: 13px; color: var(--muted); }
.legend li { display: flex; align-items: center; gap: 6px; }
.legend svg { width: 14px; height: 14px; margin: 0; }
.swatch { width: 12px; height: 12px; border-radius: 3px; background: var(--s, var(--c)); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin: 6px 0; }
th { text-align: left; color: var(--muted); font-weight: 600; font-size: 13px; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top;
  overflow-wrap: break-word; }
table.narrow { width: auto; }
td.name { overflow-wrap: anywhere; min-width: 120px; }
.num { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tr.hold td { color: var(--muted); }
tr.chosen td { font-weight: 650; }
tr.scores > td { padding: 0 0 10px 24px; }
td.what { font-weight: 600; }
details summary { cursor: pointer; color: var(--muted); font-size: 13px; padding: 4px 0; }
.bad { color: var(--bad); font-weight: 600; }
.interval { width: 150px; height: 14px; margin: 3px 0 0; }
.interval .whisker { stroke: var(--ink); stroke-width: 1.5; }
.interval .zero { stroke: var(--muted); stroke-width: 1; }
.interval .needed { stroke: var(--bad); stroke-width: 1.5; }
.interval circle { fill: var(--ink); }
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
    light, dark = _LIGHT + _variables(0), _DARK + _variables(1)
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        + "\n".join(classes)
        + _RULES
    )


def _variables(theme: int) -> str:
    stages = [f"--s{stage}:{colours[theme]};" for stage, colours in _STAGE_COLOURS.items()]
    lines = [f"--c{number}:{colours[theme]};" for number, colours in enumerate(_LINES)]
    return "".join(stages + lines)
