"""An energy report as a file; its suffix says which: a page with plots, Markdown, a row a layer, or everything."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from snnkd_deploy.energy import stored
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.files import replacing
from snnkd_deploy.report.markdown import markdown

Row = Mapping[str, Any]


def write_as(report: Row, path: Path) -> None:
    """Write to `path`. ConfigError if its suffix is none of .html, .md, .csv and .json."""
    write(path, {**WRITERS, ".html": _page}, report)


def write(path: Path, writers: Mapping[str, Callable[[Any], str]], content: Any) -> None:
    """Write what the writer for its suffix makes of `content`, whole or not at all."""
    check(path, writers)
    text = writers[path.suffix](content)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check(path: Path, known: Mapping[str, Any] | None = None) -> None:
    """ConfigError unless the suffix of `path` is known."""
    suffixes = (".html", ".md", ".csv", ".json") if known is None else tuple(known)
    if path.suffix not in suffixes:
        raise ConfigError(f"cannot write {path}: its name must end in {', '.join(suffixes)}")


def layer_csv(report: Row) -> str:
    """A row a layer: what it is, its counts per inference with their 95 % interval, and its nominal energy by table."""
    entries = [entry for entry in report["energy"] if entry["snn"]]
    counted = list(dict.fromkeys(field for row in report["layers"] for field in row["per_inference"]))
    varied = list(dict.fromkeys(field for row in report["layers"] for field in row["ci95"]))
    names = [*_WORDS, *counted, *(f"{field}_{end}" for field in varied for end in ("low95", "high95"))]
    names += [f"{entry['table']}_pj" for entry in entries]
    out = io.StringIO()
    table = csv.DictWriter(out, names, restval="", extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for row in report["layers"]:
        low = {f"{key}_low95": pair[0] for key, pair in row["ci95"].items()}
        high = {f"{key}_high95": pair[1] for key, pair in row["ci95"].items()}
        costs = {f"{one['table']}_pj": one["snn"]["by_layer"].get(row["name"], ("", ""))[1] for one in entries}
        shape = "x".join(map(str, row["shape"]))
        table.writerow({**row, "shape": shape, **row["per_inference"], **low, **high, **costs})
    return out.getvalue()


_WORDS = (
    *("name", "op", "placement", "input_kind", "shape", "static", "rate", "spikes_per_synapse", "params"),
    *("weight_bits", "zero_weights", "dense_macs", "dense_macs_inrange", "ann_macs"),
)


def _page(report: Row) -> str:
    """Drawing needs matplotlib, which takes its time to load."""
    from snnkd_deploy.report.report_page import report_page

    return report_page(report)


WRITERS: dict[str, Callable[[Any], str]] = {
    ".md": markdown,
    ".csv": layer_csv,
    ".json": lambda report: stored.as_text(report) + "\n",
}
