"""The page's style sheet and its few lines of script. No fonts, images or code from elsewhere."""

from __future__ import annotations

from refeed.report import theme

LIGHT = f"""
  --paper: #fbfbfa; --card: #ffffff; --ink: {theme.INK}; --muted: {theme.MUTED}; --rule: {theme.RULE};
  --soft: #f3f4f6; --accent: #0072b2;
  --bad: #b3261e; --bad-soft: #fdeceb; --good: #1b6b4c; --good-soft: #e6f4ee; --open: #6b5a1e; --open-soft: #fbf4dd;
"""
DARK = """
  --paper: #12151a; --card: #191d24; --ink: #e8eaee; --muted: #9aa4b2; --rule: #2d333d;
  --soft: #21262f; --accent: #6bb7ea;
  --bad: #ff9d94; --bad-soft: #3d2120; --good: #84d6b2; --good-soft: #17342a; --open: #e2cb83; --open-soft: #342e18;
"""

CSS = (
    f"""
:root {{ color-scheme: light dark; {LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {DARK} }}
  svg [fill="#0072b2"] {{ fill: #3d9fe0; }} svg [stroke="#0072b2"] {{ stroke: #3d9fe0; }}
  svg [fill="#d55e00"] {{ fill: #f07a2a; }} svg [stroke="#d55e00"] {{ stroke: #f07a2a; }} }}
"""
    + """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 0 20px 64px; }
header { padding: 44px 0 20px; }
.mark { font-weight: 700; letter-spacing: .02em; color: var(--accent); }
.kicker { color: var(--muted); font-size: .9rem; margin: 0 0 10px; }
h1 { font-size: clamp(1.5rem, 1.1rem + 2vw, 2.3rem); line-height: 1.18; letter-spacing: -.015em; margin: 0 0 16px;
  max-width: 30em; text-wrap: balance; }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 48px 0 4px; }
h3 { font-size: 1.08rem; margin: 0; } h4 { font-size: .98rem; margin: 0; }
p { margin: 6px 0; } .lead { color: var(--muted); max-width: 62em; margin: 0 0 16px; }
.small { font-size: .84rem; color: var(--muted); }
.clamp { display: -webkit-box; -webkit-line-clamp: 2; -webkit-box-orient: vertical; overflow: hidden; }
.num { font-variant-numeric: tabular-nums; white-space: nowrap; }
a { color: var(--accent); }
.facts { display: flex; flex-wrap: wrap; gap: 6px 22px; padding: 0; margin: 0; list-style: none; font-size: .92rem;
  color: var(--muted); }
.facts b { color: var(--ink); font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); gap: 20px; }
.cards.small-multiples { grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); gap: 14px; }
.small-multiples .card { padding: 16px; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 20px; min-width: 0; }
.card.wide { grid-column: 1 / -1; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 10px 0 4px; font-size: .88rem; }
.legend span, .policy { display: inline-flex; align-items: center; gap: 7px; white-space: nowrap; }
.legend svg, .policy svg { width: 13px; height: 13px; flex: none; }
figure { margin: 12px 0 0; } figcaption { font-size: .8rem; color: var(--muted); margin-top: 6px; line-height: 1.4; }
.plot { overflow-x: auto; } .plot svg { display: block; width: 100%; height: auto; margin: 0 auto; }
.files a { color: inherit; margin-left: .5em; }
svg [fill="#1e2530"] { fill: var(--ink); } svg [stroke="#1e2530"] { stroke: var(--ink); }
svg [fill="#667080"] { fill: var(--muted); } svg [stroke="#667080"] { stroke: var(--muted); }
svg [fill="#e3e6eb"] { fill: var(--rule); } svg [stroke="#e3e6eb"] { stroke: var(--rule); }
.scroll { overflow-x: auto; margin: 14px 0 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: 8px 10px 8px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
tr:last-child > * { border-bottom: 0; }
thead th { color: var(--muted); font-weight: 500; font-size: .82rem; }
tbody th { font-weight: 500; } td.num, th.num { text-align: right; } td.num:last-child, th.num:last-child {
  padding-right: 0; }
td .small, tbody th .small { display: block; font-weight: 400; } h3 .small, h4 .small { font-weight: 400; } h4 .small {
  white-space: nowrap; }
.big { font-size: 1.08rem; font-weight: 650; }
.verdicts td { min-width: 120px; } .verdicts tbody th { min-width: 150px; padding-right: 16px; }
.chip { display: inline-block; padding: 1px 9px; border-radius: 99px; font-size: .82rem; font-weight: 600;
  white-space: nowrap; }
.chip.alarm { background: var(--bad-soft); color: var(--bad); } .chip.calm { background: var(--good-soft);
  color: var(--good); }
.chip.open { background: var(--open-soft); color: var(--open); } .chip.none { background: var(--soft); color: var(--muted);
  font-weight: 500; }
.chips .chip { margin: 0 6px 4px 0; }
.noticed { margin: 0 0 14px; padding: 8px 12px 8px 2em; border-left: 3px solid var(--bad); background: var(--bad-soft);
  border-radius: 0 8px 8px 0; font-size: .9rem; }
.alert { border: 1px solid var(--bad); background: var(--bad-soft); border-radius: 12px; padding: 14px 20px;
  margin: 18px 0 0; }
.alert h2 { margin: 0; font-size: 1.05rem; color: var(--bad); } .alert ul { margin: 6px 0 0; padding-left: 1.2em; }
details { margin-top: 14px; } summary { cursor: pointer; color: var(--accent); font-size: .9rem; }
.lines { padding-left: 1.2em; margin: 8px 0; font-size: .88rem; } .lines li { margin: 4px 0; }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 250px), 1fr)); gap: 12px;
  margin: 8px 0 22px; }
.sample { background: var(--card); border: 1px solid var(--rule); border-top: 3px solid var(--c, var(--rule));
  border-radius: 8px; padding: 12px 14px; min-width: 0; }
.sample blockquote { margin: 8px 0 0; padding: 8px 0 0; border-top: 1px solid var(--rule);
  font: .92rem/1.5 Georgia, "Iowan Old Style", serif;
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 13.5em; overflow-y: auto; }
.sample blockquote:first-of-type { border-top: 0; margin-top: 2px; }
.images { display: flex; flex-wrap: wrap; gap: 4px; margin-top: 8px; } .images img { width: 64px; height: 64px;
  object-fit: contain; image-rendering: pixelated; border-radius: 4px; }
.strip { display: grid; gap: 3px; align-items: center; margin-top: 5px; }
.samples + h3, details + h3 { margin-top: 22px; }
.strip img { width: 100%; image-rendering: pixelated; border-radius: 3px; }
.images img[src^="data:image/svg"] { width: 118px; height: 118px; } img[src^="data:image/svg"] { image-rendering: auto; }
pre { background: var(--soft); border-radius: 8px; padding: 12px 14px; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .82rem; margin: 8px 0;
  user-select: all; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
footer { color: var(--muted); font-size: .84rem; margin-top: 48px; border-top: 1px solid var(--rule); padding-top: 16px; }
#vg-tooltip-element { font: 13px system-ui, sans-serif; }
@media (max-width: 560px) { main { padding: 0 14px 48px; } header { padding-top: 26px; } .card { padding: 16px 14px; }
  .verdicts tr { display: grid; grid-template-columns: repeat(var(--n), minmax(92px, 1fr));
    border-bottom: 1px solid var(--rule); }
  .verdicts th, .verdicts td { border: 0; min-width: 0; padding: 2px 6px 6px 0; }
  .verdicts tbody th, .verdicts thead th:first-child, .verdicts .chips { grid-column: 1 / -1; padding-top: 8px; }
  .verdicts thead th:first-child { display: none; } .verdicts td .num { white-space: normal; }
  .verdicts tbody th .small { display: inline; margin-left: 6px; }
  td .small { font-size: .76rem; } .big { font-size: 1rem; } td.num { padding-right: 8px; }
  .plot.grid svg { width: auto; min-width: 640px; } table { font-size: .84rem; } th, td { padding-right: 6px; } .policy {
    white-space: normal; } }
@media print { body { background: #fff; font-size: 11pt; } main { max-width: none; padding: 0; } header { padding-top: 0; }
  .card, .sample, figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } .sample blockquote { max-height: none; }
  .cards { grid-template-columns: 1fr 1fr; } .plot { overflow: visible; } .files, details:not([open]) { display: none; } }
"""
)

SCRIPT = """
document.querySelectorAll('figure[data-spec]').forEach(function (figure) {
  function wake() {
    figure.removeEventListener('pointerenter', wake);
    var plot = figure.querySelector('.plot'), still = plot.querySelector('svg');
    var spec = JSON.parse(document.getElementById(figure.dataset.spec).textContent);
    var live = document.createElement('div');
    live.style.display = 'none';
    plot.appendChild(live);
    vegaEmbed(live, spec, {renderer: 'svg', actions: false}).then(function () {
      var svg = live.querySelector('svg');
      svg.style.maxWidth = still.style.maxWidth;
      still.remove();
      live.style.display = 'block';
    }).catch(function () { live.remove(); });
  }
  figure.addEventListener('pointerenter', wake);
});
"""
