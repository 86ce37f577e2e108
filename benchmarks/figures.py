"""What a benchmark measured, beside what must be reached (goals.toml): one shape for all scripts, printed and as JSON.

    {"script": ..., "machine": {...}, "settings": {...}, "rows": [row, ...], "details": {...}}
    row = {"what", "case", "must", "attained", "measured", "unit", "better": "higher" | "lower", "met"}

`must`, `attained` (by the reference prototype) and `met` are null where there is no goal.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from paired import machine

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GOALS = Path(__file__).with_name("goals.toml")
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Figure:
    """A measured number. `what` names a goal, which then decides `unit` and `better`, or is a figure of its own."""

    what: str
    case: str
    measured: float
    unit: str = "x"
    better: Better = "higher"

    def row(self) -> dict[str, Any]:
        """The figure beside its goal."""
        goal = goals().get(self.what, {})
        better, must = goal.get("better", self.better), goal.get("must", {}).get(self.case)
        reached = self.measured >= (must or 0) if better == "higher" else self.measured <= (must or 0)
        return {
            "what": self.what,
            "case": self.case,
            "must": must,
            "attained": goal.get("attained", {}).get(self.case),
            "measured": self.measured,
            "unit": goal.get("unit", self.unit),
            "better": better,
            "met": None if must is None else reached,
        }


@cache
def goals() -> dict[str, dict[str, Any]]:
    """The goals by what they are about."""
    with open(GOALS, "rb") as file:
        return {one["what"]: one for one in tomllib.load(file)["goal"]}


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What every script takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one round: only to see that it runs")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    return parser


def conclude(
    script: str, figures: Iterable[Figure], settings: Mapping[str, Any], out: Path | None, **details: Any
) -> None:
    """Print the table; write it where asked to, with the machine and whatever else was measured (`details`)."""
    rows = [figure.row() for figure in figures]
    print(table(rows))
    if out is not None:
        document = {"script": Path(script).name, "machine": machine(), "settings": dict(settings), "rows": rows}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({**document, "details": details}, indent=1) + "\n")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; a must that was missed is said to be."""
    lines = ["| what | case | must | measured | | prototype |", "|---|---|---|---|---|---|"]
    verdicts = {None: "", True: "met", False: "MISSED"}
    for row in rows:
        bound = "at least" if row["better"] == "higher" else "at most"
        must = "" if row["must"] is None else f"{bound} {_spelt(row['must'], row['unit'])}"
        measured, attained = (_spelt(row[key], row["unit"]) for key in ("measured", "attained"))
        verdict = verdicts[row["met"]]
        lines.append(f"| {row['what']} | {row['case']} | {must} | {measured} | {verdict} | {attained} |")
    return "\n".join(lines)


def _spelt(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.3g}{'' if unit in 'x' else ' '}{unit}"
