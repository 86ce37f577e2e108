"""The plots of an energy report, each a matplotlib figure: black lines take the colour of the page they lie on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from snnkd_deploy.report.numbers import UNITS, form, one_energy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

COLOURS = ("#2a7fb8", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b8a400", "#8a8f96", "#7a5195", "#ef5675")
"""Told apart on paper and in the dark, and by most who see no red or no green."""
QUIET = "#8a8f96"
WIDTH = 9.0
"""Inches, of a whole line of text."""


def figure(width: float, height: float) -> Figure:
    """Without pyplot: no window system is asked for."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def plain_axes(drawn: Figure, place: Any = 111) -> Axes:
    """Axes without a frame above and to the right."""
    axes = drawn.add_subplot(place)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def logarithmic(axes: Axes) -> None:
    """A logarithmic x axis whose numbers are written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def unit_of(pj: float) -> tuple[float, str]:
    """A unit that suits, and how many pJ it has."""
    return next(((scale, name) for scale, name in UNITS if pj >= scale), UNITS[-1])


def layers(entry: Row) -> Figure:
    """Energy of each layer, by class of operation, stacked."""
    parts = entry["snn"]["by_layer_and_class"]
    names = list(parts)[::-1]
    groups = list(dict.fromkeys(group for some in parts.values() for group in some))
    scale, unit = unit_of(max(sum(some.values()) for some in parts.values()))
    drawn = figure(WIDTH, 1.4 + 0.34 * len(names))
    axes = plain_axes(drawn)
    left = np.zeros(len(names))
    for group, colour in zip(groups, COLOURS, strict=False):
        widths = np.array([parts[name].get(group, 0.0) for name in names]) / scale
        axes.barh(names, widths, left=left, color=colour, label=group, height=0.7)
        left += widths
    axes.set_xlabel(f"energy per inference, {unit}")
    drawn.legend(loc="outside upper center", ncols=5, frameon=False, fontsize=9)
    return drawn


def forest(report: Row) -> Figure:
    """ANN/SNN under each table: the reference way of counting with price bounds, and the range over all ways."""
    entries = [entry for entry in report["energy"] if entry["of"]][::-1]
    drawn = figure(WIDTH, 1.4 + 0.42 * len(entries))
    axes = plain_axes(drawn)
    labels = list(dict.fromkeys(form(one["against"]) for entry in entries for one in _references(entry)))
    colours = dict(zip(labels, COLOURS, strict=False))
    for row, entry in enumerate(entries):
        axes.plot(entry["ratio"], [row, row], color=QUIET, linewidth=1.2, zorder=1)
        found = [one for one in _references(entry) if one["ratio"]]
        for index, one in enumerate(found):
            low, nominal, high = one["ratio"]
            at = row + 0.16 * (index - (len(found) - 1) / 2)
            colour = colours[form(one["against"])]
            axes.plot([low, high], [at, at], color=colour, linewidth=3, solid_capstyle="butt", zorder=2)
            axes.plot(nominal, at, "o", color=colour, markersize=5, zorder=3)
    axes.axvline(1, color="black", linewidth=1)
    logarithmic(axes)
    axes.set_yticks(range(len(entries)), [entry["table"] for entry in entries])
    axes.set_xlabel("ANN/SNN energy (right of 1: the spiking network needs less)")
    handles = [axes.plot([], [], "o", color=colours[label], label=label)[0] for label in labels]
    handles.append(axes.plot([], [], color=QUIET, linewidth=1.2, label="all ways of counting and prices")[0])
    drawn.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return drawn


def _references(entry: Row) -> list[Row]:
    """The comparisons in the reference way of counting."""
    first = entry["cases"][0]["convention"] if entry["cases"] else None
    return [case for case in entry["cases"] if case["convention"] == first]


def spikes(report: Row, entry: Row) -> Figure:
    """Energy against spikes per synapse under one table: where this network lies, and where it would break even."""
    here = report["break_even"]["spikes_per_synapse"]
    some = entry["break_even"][0]
    tops = [one["spikes_per_synapse_max"] or 0 for one in entry["break_even"]]
    bands = [one for one in report["break_even"]["published"]["bands"] if one["quantity"] == "spikes_per_synapse"]
    right = 1.15 * max(here, *tops, *(one["band"][1] for one in bands))
    scale, unit = unit_of(some["fixed_pj"] + some["spiking_pj"])
    drawn = figure(WIDTH, 4)
    axes = plain_axes(drawn)
    for band, shade in zip(bands, (0.25, 0.5), strict=False):
        low, high = band["band"]
        axes.axvspan(low, max(high, low + right / 300), color=QUIET, alpha=shade, linewidth=0, label=band["name"])
    x = np.array([0, right])
    axes.plot(x, (some["fixed_pj"] + some["spiking_pj"] * x / here) / scale, color=COLOURS[0], label="spiking network")
    axes.plot(here, (some["fixed_pj"] + some["spiking_pj"]) / scale, "o", color=COLOURS[0], label="this network")
    for one, colour, style in zip(entry["break_even"], COLOURS[1:], ("-", "--", "-.", ":") * 2, strict=False):
        axes.axhline(one["ann_pj"] / scale, color=colour, linestyle=style, label=form(one))
        if one["spikes_per_synapse_max"]:
            axes.plot(one["spikes_per_synapse_max"], one["ann_pj"] / scale, "D", color=colour, markersize=6)
    axes.set(xlim=(0, right), xlabel="spikes per synapse and inference", ylabel=f"energy per inference, {unit}")
    axes.set_ylim(bottom=0)
    drawn.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return drawn


def waterfall(steps: Sequence[Row]) -> Figure:
    """From the formula of the papers to the exact figure, on a logarithmic axis."""
    totals = [one["total_pj"] for one in steps]
    scale, unit = unit_of(totals[0])
    drawn = figure(WIDTH, 1.0 + 0.42 * len(steps))
    axes = plain_axes(drawn)
    floor = 0.6 * min(totals) / scale
    for row, (one, before) in enumerate(zip(steps, [None, *totals], strict=False)):
        low, high = sorted((before or 0, one["total_pj"]))
        start = floor if before is None else low / scale
        colour = QUIET if before is None else COLOURS[3] if one["change_pj"] >= 0 else COLOURS[2]
        axes.barh(row, high / scale - start, left=start, color=colour, height=0.62)
        axes.text(high / scale * 1.04, row, one_energy(one["total_pj"]), va="center", fontsize=9)
    logarithmic(axes)
    axes.set_xlim(floor, 2 * max(totals) / scale)
    axes.set_yticks(range(len(steps)), [one["step"] for one in steps])
    axes.invert_yaxis()
    axes.set_xlabel(f"energy per inference, {unit} with this step and all above it (logarithmic)")
    return drawn


def rates(report: Row) -> Figure | None:
    """Firing rate of each layer at each step; None without neurons."""
    rows = [row for row in report["layers"] if "rate_per_step" in row]
    if not rows:
        return None
    from matplotlib.ticker import PercentFormatter

    values = np.array([row["rate_per_step"] for row in rows])
    drawn = figure(max(4.5, 2.2 + 0.62 * values.shape[1]), 1.3 + 0.34 * len(rows))
    axes = drawn.add_subplot()
    shown = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0, vmax=max(float(values.max()), 1e-9))
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_xticks(range(values.shape[1]), [str(step + 1) for step in range(values.shape[1])])
    axes.set_xlabel("step")
    if values.size <= 400:
        limit = 0.6 * values.max()
        for (row, step), value in np.ndenumerate(values):
            axes.text(step, row, percent(value), ha="center", va="center", fontsize=8,
                      color="#101010" if value > limit else "#f4f4f4")  # fmt: skip
    drawn.colorbar(shown, ax=axes, label="spikes per neuron", fraction=0.08, format=PercentFormatter(1.0))
    return drawn


def percent(rate: float) -> str:
    """In percent, with as many digits as tell it from none."""
    return f"{100 * rate:.0f}" if rate >= 0.01 or not rate else f"{100 * rate:.1g}"


def accuracies(points: Sequence[Row], table: str) -> Figure:
    """Accuracy against energy of runs and ANNs; the line joins those on the front.

    A point: `name`, `pj` [low, nominal, high], `accuracy`, `ci95` or None, `kind` spiking or ann, `front`.
    """
    scale, unit = unit_of(max(one["pj"][1] for one in points))
    drawn = figure(WIDTH, 4.2)
    axes = plain_axes(drawn)
    front = sorted((one for one in points if one["front"]), key=lambda one: float(one["pj"][1]))
    axes.plot([one["pj"][1] / scale for one in front], [100 * one["accuracy"] for one in front], color=QUIET, zorder=1)
    for index, one in enumerate(points):
        low, nominal, high = (value / scale for value in one["pj"])
        y, spread = 100 * one["accuracy"], one["ci95"]
        colour, marker = (COLOURS[0], "o") if one["kind"] == "spiking" else (COLOURS[1], "s")
        across = [[nominal - low], [high - nominal]]
        up = [[y - 100 * spread[0]], [100 * spread[1] - y]] if spread else None
        axes.errorbar(nominal, y, xerr=across, yerr=up, fmt=marker, color=colour, elinewidth=1, capsize=2, zorder=2)
        axes.annotate(one["name"], (nominal, y), (6, (5, -13)[index % 2]), textcoords="offset points", fontsize=9)
    logarithmic(axes)
    axes.set_xlabel(f"energy per inference under {table}, {unit}")
    axes.set_ylabel("accuracy, %")
    axes.margins(x=0.15, y=0.2)
    return drawn
