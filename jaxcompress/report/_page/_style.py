# SPDX-License-Identifier: Apache-2.0
"""The style of the page and of its pictures, in light and dark."""

PICTURES = """
:root {
  color-scheme: light dark;
  --paper: #faf9f7; --card: #ffffff; --ink: #1c2127; --soft: #5d6670;
  --line: #e3e0da; --faint: #f1efeb;
  --accent: #17629c; --accent-soft: #a9c9e2; --warm: #b4541a; --warm-soft: #ecc9b0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --card: #1b1f24; --ink: #e7e9ec; --soft: #9aa4ae;
    --line: #30363d; --faint: #22272d;
    --accent: #6db3e8; --accent-soft: #2c506c; --warm: #e79a63; --warm-soft: #6b4326;
  }
}
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .tick { fill: var(--soft); font-size: 11px; }
svg .title { fill: var(--soft); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .front { stroke: var(--accent); stroke-width: 1.5; fill: none; opacity: .55; }
svg .spread { stroke: var(--soft); stroke-width: 1; }
svg .dot { fill: var(--card); stroke: var(--soft); stroke-width: 1.5; }
svg .best .dot { fill: var(--accent); stroke: var(--accent); }
svg .best .spread { stroke: var(--accent); }
svg .label {
  font-weight: 500; paint-order: stroke; stroke: var(--card); stroke-width: 4px;
  stroke-linejoin: round;
}
svg .other .label { fill: var(--soft); font-weight: 400; }
svg .track { fill: var(--faint); }
svg .bytes { fill: var(--accent); }
svg .bound { stroke: var(--ink); stroke-width: 2; }
svg .macs { fill: var(--warm-soft); }
svg .effective { fill: var(--warm); }
""".strip()

PAGE = (
    PICTURES
    + """
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
}
main { max-width: 1240px; margin: 0 auto; padding: 40px 24px 72px; }
h1 { font-size: 28px; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 6px; }
h2 { font-size: 19px; margin: 44px 0 4px; }
h3 { font-size: 14px; margin: 0 0 8px; font-weight: 600; }
p { margin: 0 0 12px; max-width: 78ch; }
.soft, figcaption { color: var(--soft); }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
}
.scroll { overflow-x: auto; margin-top: 14px; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums;
}
caption { text-align: left; color: var(--soft); padding: 10px 12px 0; font-size: 13px; }
th, td { padding: 8px 12px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
thead th { vertical-align: bottom; font-weight: 600; font-size: 13px; }
thead tr:last-child th { border-bottom: 1px solid var(--line); }
thead .group {
  color: var(--soft); font-weight: 400; text-align: left; padding-bottom: 0;
  border-left: 1px solid var(--line);
}
thead .group:first-child { border-left: 0; }
tbody tr + tr > * { border-top: 1px solid var(--faint); }
tbody tr:hover > * { background: var(--faint); }
tbody th { font-weight: 600; }
th:first-child { position: sticky; left: 0; background: var(--card); }
th button {
  all: unset; cursor: pointer; border-radius: 4px; display: inline-block;
}
th button:hover { color: var(--accent); }
th button:focus-visible, summary:focus-visible, .scroll:focus-visible {
  outline: 2px solid var(--accent); outline-offset: 3px;
}
th button::after { content: "\\2195"; color: var(--soft); opacity: .45; padding-left: 5px; }
th[aria-sort] button::after { color: var(--accent); opacity: 1; }
th[aria-sort="ascending"] button::after { content: "\\2191"; }
th[aria-sort="descending"] button::after { content: "\\2193"; }
th .detail { display: block; font-weight: 400; color: var(--soft); font-size: 12px; }
.missing { color: var(--soft); }
td.verdict { white-space: normal; min-width: 22ch; }
.prose { white-space: normal; min-width: 12ch; vertical-align: top; }
.remark {
  margin-left: 8px; padding: 1px 6px; border-radius: 4px; background: var(--faint);
  color: var(--soft); font-size: 11px; font-weight: 400;
}
.pictures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr));
  gap: 16px; margin-top: 14px;
}
figure { margin: 0; padding: 16px 18px 12px; }
figcaption { font-size: 13px; padding-top: 6px; }
details { margin-top: 12px; padding: 0 18px; }
summary { cursor: pointer; padding: 12px 0; font-weight: 600; }
summary .soft { font-weight: 400; padding-left: 8px; }
details .pictures { margin: 0; gap: 28px; }
details figure { padding: 4px 0 12px; }
dl {
  display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px;
  margin: 0 0 16px; font-size: 14px;
}
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
code { font: 13px ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
ul { margin: 8px 0 0; padding-left: 20px; max-width: 78ch; }
li + li { margin-top: 4px; }
@media (max-width: 640px) {
  main { padding: 24px 14px 48px; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 6px; }
  th:first-child { white-space: normal; }
}
@media print { details > * { display: block; } }
"""
)
