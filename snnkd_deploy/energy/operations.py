"""From counted rows to operations that have a price: what a spiking network does, what an ANN does, and how counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from snnkd_deploy.energy import memory
from snnkd_deploy.prices import Charge, Table

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Convention:
    """A way of counting. The defaults charge all that is done without cleverness of the hardware."""

    encoder: str = "per_step"
    """Layers that see a still picture alone: `per_step`, or `once` if their result is kept."""
    pixels: str = "all"
    """Whether layers on pixels multiply `all` of them, or only those that are `nonzero`."""
    sums: str = "graded"
    """Sums of spikes: one multiply-accumulate each, or one accumulate for each `unit`."""
    weights: str = "all"
    """Whether pairs of weight zero are done: `all`, or only `nonzero`; on both sides."""
    reuse: str = "none"
    """Of what was read from memory: by `none` of the networks, ideally by the `ann` alone, or by `both`."""


REFERENCE = Convention()


def conventions(report: Row, table: Table | None = None) -> list[Convention]:
    """The ways of counting that make a difference on this network and in this table, the reference first."""
    layers = synaptic(report)
    still = report["model"]["timesteps"] > 1 and any(row["static"] for row in layers)
    pictures = (row for row in layers if row["input_kind"] == "picture")
    black = any(row["events_in"] < row["inputs"] * row["evaluations"] for row in pictures)
    graded = any(row["input_kind"] == "sums" for row in layers)
    zeros = any(row["zero_weights"] for row in layers)
    weights = ("nonzero",) if report["model"].get("relays") else ("all", "nonzero") if zeros else ("all",)
    return [
        Convention(*one)
        for one in product(
            ("per_step", "once") if still else ("per_step",),
            ("all", "nonzero") if black else ("all",),
            ("graded", "unit") if graded else ("graded",),
            weights,
            ("none", "ann", "both") if table is None or table.memory else ("none",),
        )
    ]


def synaptic(report: Row) -> list[Row]:
    """The rows of layers with weights."""
    return [row for row in report["layers"] if "synops" in row]


def charges(report: Row, convention: Convention, table: Table) -> list[Charge]:
    """All operations of the spiking network; what runs on the host has no price on a chip."""
    timesteps, samples = report["model"]["timesteps"], report["data"]["samples"]
    found: list[Charge] = []
    for row in report["layers"]:
        repeats = timesteps if row["static"] and convention.encoder == "per_step" else 1
        away = "host " if table.scope == "chip" and row["placement"] == "host" else ""
        for group, operation, number in _operations(row, convention, table.scope):
            found.append(Charge(row["name"], group, away + operation, number * repeats))
        if table.memory:
            macs, accumulates = pairs(row, convention) if "synops" in row else (0, 0)
            ideal = convention.reuse == "both"
            accesses = memory.of_layer(row, macs + accumulates, samples, ideal)
            found += memory.charged(row, accesses, 1 if ideal else repeats, table.memory, report["model"]["state_bits"])
    return [*found, *_routed(report, table)]


def _operations(row: Row, convention: Convention, scope: str) -> Iterator[tuple[str, str, Any]]:
    """Group, operation and number of all that one layer does."""
    if "synops" in row:
        yield from _synaptic(row, convention)
    elif row["op"] == "Neuron":
        yield from _neural(row, scope)
    for group, fields in ADDITIONS.items():
        found = [row[field] for field in fields if field in row]
        if found:
            yield group, "compare" if row.get("pool_mode") == "max" else "add", sum(found)


ADDITIONS = {"residual": ("residual_adds",), "attention": ("attention_and", "attention_adds"), "pooling": ("pool_ops",)}
"""Fields that are additions (compares, in a pool that takes the largest), by what they are for."""


def pairs(row: Row, convention: Convention) -> tuple[Any, Any]:
    """Multiply-accumulates and accumulates of a layer with weights, of one evaluation where it is static."""
    suffix = "_nonzero" if convention.weights == "nonzero" else ""
    unit = row["input_kind"] == "sums" and convention.sums == "unit"
    macs = 0 if unit else row[f"event_macs{suffix}"]
    accumulates = row[f"synops_unit{suffix}"] if unit else row[f"synops{suffix}"] - macs
    if row["input_kind"] == "picture" and convention.pixels == "all":
        macs = row[f"dense_macs{suffix or '_inrange'}"] * row["evaluations"]
    return macs, accumulates


def is_encoder(row: Row) -> bool:
    """Whether it works on the picture alone."""
    return bool(row["static"] or row["input_kind"] == "picture")


def _synaptic(row: Row, convention: Convention) -> Iterator[tuple[str, str, Any]]:
    macs, accumulates = pairs(row, convention)
    yield "encoder" if is_encoder(row) else "graded", "mac", macs
    yield "encoder" if is_encoder(row) else "synapses", f"synop_{'linear' if is_dense(row) else 'conv'}", accumulates
    yield "bias", "add", row["bias_adds"]


def is_dense(row: Row) -> bool:
    """Whether each input reaches each output."""
    return "Linear" in row["op"]


def _neural(row: Row, scope: str) -> Iterator[tuple[str, str, Any]]:
    if scope == "chip":
        yield "neurons", "neuron_active", row["updates_active"]
        yield "neurons", "neuron_inactive", row["updates_inactive"]
        yield "spikes", "spike", row["spikes_out"]
    else:
        yield "neurons", "leak_multiply", row["leak_multiplies"]
        yield "neurons", "add", row["membrane_adds"] + row["reset_adds"]
        yield "neurons", "compare", row["compares"]


def _routed(report: Row, table: Table) -> list[Charge]:
    """Messages and hops, where the network is mapped to this very chip."""
    mapping = report["mapping"]
    if mapping is None or mapping["target"] not in table.mapped:
        return []
    kinds = {"message": "messages", "hop_east_west": "hops_east_west", "hop_north_south": "hops_north_south"}
    return [
        Charge(layer["source"], "routing", kind, layer[field])
        for layer in mapping["layers"]
        for kind, field in kinds.items()
        if layer["source"] is not None and layer[field] is not None
    ]


def ann_charges(
    ann: Row, work: str, convention: Convention, table: Table, samples: int, bits: int | None = None
) -> list[Charge]:
    """All operations of an ANN: `dense`, or `effective` (inputs that are zero skipped), activations of `bits` bits."""
    found: list[Charge] = []
    for layer in ann["layers"]:
        macs = ann_macs(layer, work, convention, samples)
        parts = {"mac": macs, **{key: layer[f"{key}s"] * samples for key in ("add", "compare")}}
        found += [Charge(layer["name"], "ann", operation, number) for operation, number in parts.items()]
        if table.memory and layer["params"]:
            accesses = memory.of_ann_layer(layer, macs, samples, convention.reuse != "none")
            found += memory.charged_ann(layer, accesses, table.memory, bits or ann["activation_bits"])
    return found


def ann_macs(layer: Row, work: str, convention: Convention, samples: int) -> Any:
    """Multiply-accumulates of one layer of an ANN, summed over samples."""
    suffix = "_nonzero" if convention.weights == "nonzero" else "_inrange" if work == "dense" else ""
    return layer[f"macs_{work}{suffix}"] * (samples if work == "dense" else 1)
