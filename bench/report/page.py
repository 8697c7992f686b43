"""The page that a report is on: one file, no scripts, nothing from elsewhere; light or dark as the reader's system is."""

from __future__ import annotations

from html import escape

LIGHT = ("#1f5fa8", "#b4520a", "#1d7a4f", "#8a3a8f", "#8f6a00", "#0b7285", "#a61e4d", "#495057")
DARK = ("#7db3f0", "#f2a55f", "#6fd0a2", "#d79be0", "#e2c04f", "#66d0e2", "#f58fb0", "#c0c6cc")
PATTERNS = (
    "",
    "repeating-linear-gradient(45deg,var(--paper) 0 2px,transparent 2px 7px)",
    "repeating-linear-gradient(90deg,var(--paper) 0 2px,transparent 2px 7px)",
    "repeating-linear-gradient(-45deg,var(--paper) 0 2px,transparent 2px 7px)",
    "repeating-linear-gradient(0deg,var(--paper) 0 2px,transparent 2px 5px)",
    "repeating-linear-gradient(45deg,var(--paper) 0 4px,transparent 4px 8px)",
    "repeating-linear-gradient(90deg,var(--paper) 0 4px,transparent 4px 8px)",
    "repeating-linear-gradient(-45deg,var(--paper) 0 4px,transparent 4px 8px)",
)
"""Laid over the colour of a bar, so that bars differ in print and for eyes that see no colours."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#57606a;--rule:#d6dbe1;--card:#f6f8fa;__LIGHT__}
@media(prefers-color-scheme:dark){:root{--paper:#0f1318;--ink:#e4e8ed;--soft:#9aa5b1;--rule:#2d353f;--card:#171c23;__DARK__}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1.5rem 1rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:.2em 0}
h2{font-size:1.25rem;margin:2.4em 0 .3em;border-top:1px solid var(--rule);padding-top:1em}
h3{font-size:1rem;margin:1.4em 0 .4em;overflow-wrap:anywhere}
p{max-width:65ch;margin:.4em 0}.soft,figcaption,.value small{color:var(--soft)}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,26rem),1fr));gap:0 2.5rem;align-items:start}
.panels>*{min-width:0}
.bar{display:grid;grid-template-columns:minmax(0,1fr) auto;gap:0 .75rem;margin:.5rem 0;align-items:center}
.bar .name{grid-column:1/-1;font-size:.9rem;overflow-wrap:anywhere}
.bar .track{position:relative;height:1.1rem;background:var(--card);border-left:1px solid var(--soft)}
.bar b{display:block;height:100%;min-width:1px}
.bar i{position:absolute;top:50%;height:0;border-top:2px solid var(--ink);box-shadow:0 0 0 1px var(--paper)}
.bar .value{font-variant-numeric:tabular-nums;font-size:.9rem;min-width:5.5rem;text-align:right}
figure{margin:1rem 0;max-width:36rem}svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:13px}.grid{stroke:var(--rule);stroke-width:1}
.line{fill:none;stroke-width:2}.mark .open{fill:none;stroke-width:2}
.legend{list-style:none;padding:0;margin:.4rem 0;font-size:.9rem}.legend li{display:flex;gap:.6rem;align-items:center}
.legend li{overflow-wrap:anywhere}.key{width:38px;flex:none}
.table{overflow-x:auto;margin:.8rem 0}table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{vertical-align:top;padding:.3rem .7rem;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}th{color:var(--soft);font-weight:600}
.long{white-space:normal;min-width:16rem;text-align:left}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--soft)}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.15rem 1rem;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
@media print{details>*{display:block}}
"""


def page(title: str, body: str) -> str:
    """A whole document."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_style()}</style>\n</head>\n<body>\n{body}\n</body>\n</html>"
    )


def _style() -> str:
    colours = [
        ";".join(f"--c{number}:{value}" for number, value in enumerate(theme))
        for theme in (LIGHT, DARK)
    ]
    series = "".join(
        f".s{number}{{background:{pattern}{',' if pattern else ''}var(--c{number})}}"
        f".c{number}{{stroke:var(--c{number});fill:var(--c{number})}}.line.c{number}{{fill:none}}"
        for number, pattern in enumerate(PATTERNS)
    )
    return STYLE.replace("__LIGHT__", colours[0]).replace("__DARK__", colours[1]) + series
