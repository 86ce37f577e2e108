"""The sentences of an energy report: what it comes to, a labelled line each, and what goes with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from snnkd_deploy.published import survey
from snnkd_deploy.report.numbers import band, factor, form, number, one_energy, ranged, role, share

Row = Mapping[str, Any]


def title(report: Row) -> str:
    """What it is, and what it is not."""
    model = report["model"]
    whom = f"for {model['target']}" if model["target"] else f"as it is ({model['graph_stage']} graph, no target)"
    return f"Energy of {model['name']} {whom}: an estimate from counts and prices, nothing was measured"


def summary(report: Row) -> Iterator[tuple[str, str]]:
    """Label and text of each line of the summary, the verdict first."""
    headline = report["headline"]
    yield "Result", headline["statement"]
    against = {one: found for one, found in headline["against"].items() if found["of"]}
    if len(against) > 1:
        yield "Against", "; ".join(f"{role(one)}: ANN/SNN {ranged(found['ratio'])}" for one, found in against.items())
    if headline["all"]["of"]:
        yield "Uncertainty", moved(report["uncertainty"])
    yield from _break_even(report["break_even"])
    yield "Papers", literature(report["literature"])
    yield from _facts(report)


def moved(found: Row) -> str:
    """Samples, prices, counting and tables, never mixed."""
    sampling = found["sampling"]
    width = sampling["ratio_half_width"]
    parts = {"prices of one table": "pricing", "way of counting": "counting", "choice of table": "tables"}
    known = {name: found[key]["factor"] for name, key in parts.items()}
    factors = [f"{name} {factor(value)}" for name, value in known.items() if value is not None and value > 1.005]
    samples = [] if width is None else [f"samples ±{share(width)} (95 %, bootstrap over {sampling['samples']:,})"]
    return f"the ratio moves with: {', '.join(samples + factors) or 'nothing that was varied'}"


def _break_even(found: Row) -> Iterator[tuple[str, str]]:
    if found["spikes_per_synapse"] is None:
        return
    spikes = f"{found['spikes_per_synapse']:.3g} spikes per synapse and inference"
    if found["comparisons"]:
        least, most = found["max_timesteps"]
        yield (
            "Break-even",
            f"{spikes}; the ANN wins above {ranged(found['spikes_per_synapse_max'])}, by table and ANN. At this rate "
            f"({share(found['rate'])} fire a step) spiking pays up to T = {least} to {most}; here T = "
            f"{found['timesteps']}",
        )
    told = (
        f"{one['name']} {one['verdict']} ({one['value']:.2g} against {band(one['band'])})"
        for one in found["published"]["bands"]
    )
    yield "Published", f"that spiking pays, judged by others' break-even points: {', '.join(told)}"
    if advice := "; ".join(_advised(found["layers"])):
        yield "Layers", advice


def _advised(layers: Sequence[Row]) -> Iterator[str]:
    words = {"dense": "cheaper dense", "spiking": "cheaper spiking", "depends": "open"}
    for kind, text in words.items():
        if names := [one["layer"] for one in layers if one["advice"] == kind]:
            yield f"{text}: {', '.join(names) if len(names) <= 4 else f'{len(names)} layers'}"


def literature(found: Row) -> str:
    """The formula of the papers under its own name, with the ratio to the exact figure."""
    once, each = found["snn"]["once"], found["snn"]["per_step"]
    gains = [factor(found["ann"] / pj if pj else None) for pj in (once, each)]
    text = (
        f"the usual formula says {one_energy(once)} (ANN {gains[0]}) with the first layer charged once, "
        f"{one_energy(each)} (ANN {gains[1]}) at each step"
    )
    over = found["ratio_exact_over_literature"] or {}
    parts = [factor(value) for value in over.values() if value is not None]
    return text + (f"; exact counts at its own prices are {' and '.join(parts)} that" if parts else "")


def _facts(report: Row) -> Iterator[tuple[str, str]]:
    model, data, accuracy = report["model"], report["data"], report["accuracy"]
    zero = f", {model['zero_weight_fraction']:.1%} of the weights zero" if model["zero_weight_fraction"] else ""
    yield (
        "Network",
        f"{model['timesteps']} steps, {model['neurons']:,} neurons, {model['params']:,} parameters of "
        f"{model['weight_bits']} bits{zero}; the {model['graph_stage']} graph {model['digest'][:16]} was counted",
    )
    known = {"network": accuracy["snn_counted"], "teacher": accuracy["ann_counted"], "agreement": accuracy["agreement"]}
    spread = accuracy["snn_ci95"]
    bounds = {"network": f" ({spread[0]:.1%} to {spread[1]:.1%})"} if spread else {}
    shown = (f"{name} {value:.2%}{bounds.get(name, '')}" for name, value in known.items() if value is not None)
    yield "Data", "; ".join([f"{data['samples']:,} samples of {data['name']}, {data['encoding']} coding", *shown])


def elsewhere(report: Row, full: bool = False) -> Iterator[str]:
    """What an ANN takes at least on processors, synaptic operations at a survey's prices, and what was measured."""
    found = [(entry["table"], one) for entry in report["energy"] if entry["scope"] == "device" for one in entry["ann"]]
    if found:
        first = found[0][1]
        parts = (f"{table} {one_energy(one['total'][1])}" for table, one in found if one["role"] == first["role"])
        yield f"The ANN ({form(first)}) on a processor at full load takes at least: {', '.join(parts)}"
    means = report["totals"]["per_inference"]
    accumulates = means.get("synops", 0) - means.get("event_macs", 0)
    if accumulates and any(entry["scope"] == "chip" for entry in report["energy"]):
        yield _sensitivity(accumulates)
    for entry in report["energy"]:
        if full or report["model"]["target"] in entry["mapped"]:
            yield from (f"{entry['table']}, measured: {anchor(entry, one)}" for one in entry["anchors"])


def _sensitivity(done: float) -> str:
    """So many accumulates alone, at every price that a survey lists."""
    found = survey()
    (cheap, least), *_, (dear, most) = sorted(found.synop_pj.items(), key=lambda one: one[1])
    return (
        f"The network's {number(done)} synaptic operations alone, at what a survey lists: {one_energy(done * least)} "
        f"({cheap}, {least:g} pJ) to {one_energy(done * most)} ({dear}, {most:g} pJ); nothing is public for "
        f"{', '.join(found.not_published)}"
    )


def anchor(entry: Row, found: Row) -> str:
    """How much of a measured network neuron updates explain at this table's prices."""
    idle, active = (entry["prices"][f"neuron_{kind}"][1] for kind in ("inactive", "active"))
    updates = [count * found["timesteps"] for count in found["neurons"]]
    low, high = updates[0] * idle, updates[1] * active
    part = [one / 1e9 / found["dynamic_mj"] for one in (low, high)]
    return (
        f"{found['network']} took {found['dynamic_mj']:.3g} mJ dynamic of {found['total_mj']:.3g} mJ an inference; its "
        f"{number(updates[0])} to {number(updates[1])} neuron updates at {idle:g} to {active:g} pJ are "
        f"{one_energy(low)} to {one_energy(high)}, {part[0]:.0%} to {part[1]:.0%} of it ({found['source']})"
    )


def notes(report: Row, full: bool = False) -> Iterator[str]:
    """Warnings, and what is in no figure."""
    for ann in report["ann"]:
        if ann["is_teacher"]:
            yield "Same shape: the teacher has the student's shape, so it is the ANN of the same shape"
        if ann["effective_reason"]:
            yield f"{role(ann['role']).capitalize()}: {ann['effective_reason']}"
    for warning in [*report["warnings"], *report["headline"]["warnings"]]:
        if full or "a floor at full load" not in warning:
            yield f"Warning: {warning}"
    yield f"In no total: {'; '.join(report['headline']['excluded'])}"


def conventions(report: Row) -> str:
    """The ways of counting that were compared."""
    found = report["headline"]["conventions"]
    varied = {key: list(dict.fromkeys(one[key] for one in found)) for key in found[0]}
    parts = [f"{key} {' or '.join(values)}" for key, values in varied.items() if len(values) > 1]
    return f"Ways of counting compared: {'; '.join(parts) or 'one'}"


def hashes(report: Row) -> str:
    """What names exactly this network, these counts and these samples."""
    model, data = report["model"], report["data"]
    return f"Graph {model['digest']}; counts {report['counts_sha256']}; samples {data['inputs_sha256']}"
