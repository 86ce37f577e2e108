"""One self-contained HTML page: headings, texts, tables and figures as inline SVG, legible on paper and in the dark."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fff; --quiet: #5c6670; --line: #d5dae0; --tint: #f3f5f7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --paper: #14171a; --quiet: #9aa5b0; --line: #363d45;
       --tint: #1e2328; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 66rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.2rem; break-after: avoid; }
p.quiet, figcaption { color: var(--quiet); }
p.lead { font-size: 1.15rem; padding: .8rem 1rem; background: var(--tint); border-left: 4px solid #2a7fb8; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } .wide table { font-size: .84rem; }
th, td { padding: .25rem .7rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
td { white-space: nowrap; } td.word { white-space: normal; overflow-wrap: break-word; } th { vertical-align: bottom; }
th:last-child, td:last-child { padding-right: 0; }
th.word, td.word { text-align: left; } tr.total td { font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0; }
dt { font-weight: 600; } dd { margin: 0; }
details { margin: .4rem 0 0; } summary { color: var(--quiet); cursor: pointer; }
figure { margin: 1rem 0; break-inside: avoid; } figure svg { max-width: 100%; height: auto; fill: currentColor; }
@media print { :root { --ink: #000; --paper: #fff; --quiet: #444; --line: #bbb; --tint: #f3f3f3; }
       body { margin: 0; max-width: none; font-size: 11pt; }
       .wide { overflow: visible; } .wide table { font-size: 7.5pt; } figure svg { max-height: 8cm; }
       tr { break-inside: avoid; } details { display: none; } }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin: 0 0 .4rem 1rem; } }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """The document; `parts` are what the functions below give."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    return (
        f'<!doctype html>\n<html lang="en">\n<head>{head}<style>{STYLE}</style></head>\n<body>{body}</body>\n</html>\n'
    )


def heading(text: str) -> str:
    """Of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, *, quiet: bool = False) -> str:
    """Plain text."""
    return f'<p class="quiet">{escape(text)}</p>' if quiet else f"<p>{escape(text)}</p>"


def lead(text: str) -> str:
    """The one sentence that a reader should take away."""
    return f'<p class="lead">{escape(text)}</p>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Terms with what there is to say of them."""
    return f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd>{escape(text)}</dd>' for term, text in pairs)}</dl>"


def definitions(title: str, pairs: Iterable[tuple[str, str]]) -> str:
    """The same, one click away."""
    return f"<details><summary>{escape(title)}</summary>{facts(pairs)}</details>"


def bullets(texts: Iterable[str]) -> str:
    """A list."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, totals: int = 0) -> str:
    """The first `left` columns are words, the others numbers; the last `totals` rows are sums."""
    sides = [' class="word"' if at < left else "" for at in range(len(columns))]
    head = "".join(f"<th{side}>{escape(one)}</th>" for side, one in zip(sides, columns, strict=True))
    body = []
    for index, row in enumerate(rows):
        cells = "".join(f"<td{side}>{escape(cell)}</td>" for side, cell in zip(sides, row, strict=True))
        body.append(f'<tr class="total">{cells}</tr>' if index >= len(rows) - totals else f"<tr>{cells}</tr>")
    lines = "\n".join(body)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody></table></div>'


def figure(drawn: Figure, caption: str) -> str:
    """A matplotlib figure as inline SVG; its black lines and letters take the colour of the page's."""
    return f"<figure>{_svg(drawn)}<figcaption>{escape(caption)}</figcaption></figure>"


def _svg(drawn: Figure) -> str:
    """The same bytes for the same figure: no date, and names inside that do not depend on chance."""
    import matplotlib as mpl

    out = StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "snnkd-deploy"}):
        drawn.savefig(out, format="svg", metadata={"Date": None}, transparent=True, bbox_inches="tight")
    text = out.getvalue()
    return re.sub(r"#000000\b", "currentColor", text[text.index("<svg") :])
