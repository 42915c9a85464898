"""The style sheet of a report. Contrasts are 4.5 : 1 at least for text and 3 : 1 for lines, light and dark."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1b2430; --soft: #55606e; --rule: #dde1e7; --grid: #e6e9ee;
  --c1: #1f63d6; --c2: #c2530a; --c3: #0b7a63; --c4: #8a3fc0; --shade: #1f63d6; --wrong: #c2530a; --mix: .5%;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1a2028; --ink: #e7ebf0; --soft: #a3adba; --rule: #313a46; --grid: #2a323d;
    --c1: #6ea8ff; --c2: #ff9a55; --c3: #45cba9; --c4: #c894f5; --shade: #6ea8ff; --wrong: #ff9a55; --mix: .32%;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main, header, footer { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 36px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 1.2rem; margin: 0 0 4px; }
h3 { font-size: 1rem; margin: 20px 0 4px; }
p { margin: 4px 0 12px; max-width: 75ch; }
.soft, figcaption, footer { color: var(--soft); font-size: .9rem; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 20px; margin: 18px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 12px; margin: 18px 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 16px; }
.tile b { display: block; font-size: 1.55rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
figure { margin: 12px 0 0; }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 8px 24px; }
figure { overflow-x: auto; }
svg.chart { display: block; width: 100%; max-width: 540px; height: auto; }
svg.wide { min-width: 560px; max-width: 1040px; }
svg text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--grid); }
svg line.marked { stroke: var(--soft); stroke-dasharray: 2 3; }
svg path { fill: none; stroke-width: 2; stroke-linejoin: round; }
.l1 { stroke: var(--c1); } .d1, .s1 { fill: var(--c1); }
.l2 { stroke: var(--c2); stroke-dasharray: 6 3; } .d2, .s2 { fill: var(--c2); }
.l3 { stroke: var(--c3); stroke-dasharray: 2 3; } .d3, .s3 { fill: var(--c3); }
.l4 { stroke: var(--c4); stroke-dasharray: 9 3 2 3; } .d4, .s4 { fill: var(--c4); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: .88rem; color: var(--soft); }
.key { display: inline-flex; align-items: center; gap: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: .9rem; padding-bottom: 6px; }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
td.bar { min-width: 160px; text-align: left; }
td.bar i { display: block; height: 12px; border-radius: 3px; background: var(--c1); width: calc(var(--v) * 1%); }
table.confusion td { text-align: center; min-width: 44px; border: 1px solid var(--rule); }
table.confusion td { background: color-mix(in srgb, var(--shade) calc(var(--v) * var(--mix)), var(--card)); }
table.confusion td.off { background: color-mix(in srgb, var(--wrong) calc(var(--v) * var(--mix)), var(--card)); }
table.confusion tbody th { text-align: left; font-weight: 600; }
img { display: block; max-width: 100%; height: auto; border-radius: 6px; border: 1px solid var(--rule); }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--soft); }
code { font-size: .9em; overflow-wrap: anywhere; }
@media (max-width: 520px) { main, header, footer { padding: 0 10px; } section { padding: 14px 12px; } }
@media print { section, .tile { break-inside: avoid; } body { background: none; } }
"""
