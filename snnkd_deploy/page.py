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
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fff; --quiet: #5c6670; --line: #d5dae0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --paper: #14171a; --quiet: #9aa5b0; --line: #363d45; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
p.quiet, figcaption { color: var(--quiet); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; break-inside: avoid; } figure svg { max-width: 100%; height: auto; }
@media print { :root { --ink: #000; --paper: #fff; --quiet: #444; --line: #bbb; } body { margin: 0; } }
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


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is text, the others are numbers."""
    head = "".join(f"<th>{escape(one)}</th>" for one in columns)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


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
