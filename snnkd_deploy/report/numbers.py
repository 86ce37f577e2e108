"""Numbers as a reader meets them: three digits, a unit that suits, bounds only where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = "-"
UNITS = ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"), (1.0, "pJ"))


def number(value: float) -> str:
    """Three significant digits, with k, M, G or T."""
    for unit in ("", "k", "M", "G"):
        if abs(value) < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}T"


def energy(three: Sequence[float] | None) -> str:
    """pJ in a unit that suits, low / nominal / high where they differ."""
    if three is None:
        return NOTHING
    scale, unit = next(((one, name) for one, name in UNITS if three[2] >= 0.9995 * one), UNITS[-1])
    shown = three if three[0] < three[2] else three[1:2]
    return f"{' / '.join(f'{value / scale:.3g}' for value in shown)} {unit}"


def between(low: float, high: float) -> str:
    """Two energies in one unit, once if three digits do not tell them apart."""
    scale, unit = next(((one, name) for one, name in UNITS if high >= 0.9995 * one), UNITS[-1])
    ends = dict.fromkeys(f"{value / scale:.3g}" for value in (low, high))
    return f"{' to '.join(ends)} {unit}"


def one_energy(pj: float | None) -> str:
    """A single value of pJ in a unit that suits."""
    return energy(None if pj is None else [pj] * 3)


def at_least(total: Sequence[float] | None, lower_bound: bool) -> str:
    """An energy, marked where something in it has no price or only a least one."""
    return ("≥ " if lower_bound and total is not None else "") + energy(total)


def ranged(found: Sequence[float] | None) -> str:
    """From the first to the last."""
    return NOTHING if found is None else f"{found[0]:.3g} to {found[-1]:.3g}"


def share(value: float | None) -> str:
    """A part of one in percent."""
    return NOTHING if value is None else f"{value:.3g}" if value == 0 else f"{100 * value:.3g} %"


def factor(value: float | None) -> str:
    """How many times."""
    return NOTHING if value is None else f"x{value:.2g}" if value < 10 else f"x{value:,.0f}"


def wins(entry: Mapping[str, Any]) -> str:
    """Of all comparisons that have a ratio."""
    return f"{entry['wins']} of {entry['of']}" if entry["of"] else NOTHING


def role(name: str) -> str:
    """`teacher` or `same shape`."""
    return name.replace("_", " ")


def form(label: Mapping[str, Any], short: bool = False) -> str:
    """An ANN to compare with: dense, or its zeros skipped; with activations of fewer bits where it is about them."""
    work = "dense" if label["work"] == "dense" else "sparse"
    bits = f", {label['bits']} bits" if label["bits"] else ""
    return f"{role(label['role'])}{' ' if short else ', '}{work}{bits}"


def band(found: Sequence[float]) -> str:
    """One number, or the two ends."""
    return f"{found[0]:.3g}" if found[0] == found[1] else f"{found[0]:.3g} to {found[1]:.3g}"
