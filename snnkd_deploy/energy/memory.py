"""Reads and writes of on-chip memory, by the model of Lemaire et al. 2022 (arXiv 2210.13107) and with ideal reuse.

Without reuse an event fetches, for each output that it reaches, a weight and the membrane, and writes the membrane
back; a neuron reads and writes its membrane once a step; events wait in queues before and behind a layer; finding the
addresses takes an addition for each pair and, in a convolution, two multiplications for each event. A layer on real
numbers, and an ANN, fetches a weight and in a convolution an input for each multiply-accumulate, and keeps its sums in
registers. A bias is fetched each time that it is added. Where the paper takes whole kernels, pairs are exact here.

With ideal reuse each weight, input and output crosses the memory once an inference; sums and membranes stay in
registers over all steps, and addresses follow from counters. No hardware is that good: it is a bound, for both sides.
Pools, residual sums and attention are left out on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from snnkd_deploy.prices import Charge, Memory

Row = Mapping[str, Any]
Accesses = dict[str, Any]
"""How often, summed over samples; of a layer that is evaluated once a sample: in one evaluation."""

OPERATIONS = {
    "weight_reads": ("weights", "weight_read"),
    "state_reads": ("states", "state_read"),
    "state_writes": ("states", "state_write"),
    "fifo_reads": ("events", "input_read"),
    "fifo_writes": ("events", "output_write"),
    "input_reads": ("events", "input_read"),
    "output_writes": ("events", "output_write"),
    "address_adds": ("addresses", "address_add"),
    "address_multiplies": ("addresses", "address_multiply"),
}
"""Group and operation of each field of `Accesses`."""


def of_layer(row: Row, pairs: Any, samples: int, ideal: bool) -> Accesses:
    """What a layer of the spiking network accesses; `pairs` are its accumulates and multiply-accumulates."""
    if "synops" in row:
        real = row["input_kind"] in ("picture", "values")
        work = _real(row, pairs, row["evaluations"]) if real else _event_driven(row, pairs)
        return {**_once(row, samples), **_inputs(row, real)} if ideal else work
    if row["op"] == "Neuron":
        updates = row["updates_active"] + row["updates_inactive"]
        states = {} if ideal else {"state_reads": updates, "state_writes": updates}
        return {**states, "fifo_writes": row["spikes_out"]}
    return {}


def of_ann_layer(layer: Row, macs: Any, samples: int, ideal: bool) -> Accesses:
    """What a layer of an ANN accesses; each output is written once."""
    written = {"output_writes": layer["outputs"] * samples}
    if ideal:
        return {"weight_reads": layer["params"] * samples, "input_reads": layer["inputs"] * samples, **written}
    return {**_real({**layer, "bias_adds": layer["bias_adds"] * samples}, macs, samples), **written}


def _event_driven(row: Row, pairs: Any) -> Accesses:
    convolution = {} if row["op"] == "Linear" else {"address_multiplies": 2 * row["events_in"]}
    return {
        "weight_reads": pairs + row["bias_adds"],
        "state_reads": pairs,
        "state_writes": pairs,
        "fifo_reads": row["events_in"],
        "address_adds": pairs,
        **convolution,
    }


def _real(row: Row, macs: Any, evaluations: int) -> Accesses:
    """On real numbers, every one of them read; the addresses of a convolution also walk through the kernel."""
    dense, outputs = row["op"] == "Linear", row.get("outputs") or prod(row["shape"])
    walk = row["inputs"] + outputs + (0 if dense else row["kernel"])
    return {
        "weight_reads": macs + row["bias_adds"],
        "input_reads": row["inputs"] * evaluations if dense else macs,
        "address_adds": walk * evaluations,
    }


def _once(row: Row, samples: int) -> Accesses:
    return {"weight_reads": row["params"] * samples}


def _inputs(row: Row, real: bool) -> Accesses:
    return {"input_reads": row["inputs"] * row["evaluations"]} if real else {"fifo_reads": row["events_in"]}


def charged(row: Row, accesses: Accesses, repeats: int, memory: Memory, state_bits: int | None) -> list[Charge]:
    """As operations on memories of the sizes that the layer needs."""
    weight = memory.value_bits or row.get("weight_bits") or ROUNDED_BITS
    state = memory.value_bits or state_bits or STATE_BITS
    event, pixel = memory.value_bits or memory.event_bits, memory.value_bits or PIXEL_BITS
    sizes = {
        "weights": (row.get("params", 0) * weight, weight),
        "states": (prod(row["shape"]) * state, state),
        "events": (memory.fifo_entries * event, event),
        "addresses": (0, 0),
    }
    if "synops" in row and row["input_kind"] in ("picture", "values"):
        sizes["events"] = (row["inputs"] * pixel, pixel)
    return _charges(row["name"], accesses, repeats, sizes)


PIXEL_BITS = 8
ROUNDED_BITS = 8
"""Of weights in real numbers under a table of integers, as of the ANN's."""
STATE_BITS = 32
"""Of a state whose target says none."""


def charged_ann(layer: Row, accesses: Accesses, memory: Memory, activation_bits: int) -> list[Charge]:
    """The same for an ANN, which keeps its inputs and outputs in memories of their own size."""
    weight, value = memory.value_bits or layer["weight_bits"], memory.value_bits or activation_bits
    found = []
    for field, number in accesses.items():
        size = {"output_writes": layer["outputs"] * value, "input_reads": layer["inputs"] * value}.get(field, 0)
        sizes = {"weights": (layer["params"] * weight, weight), "events": (size, value), "addresses": (0, 0)}
        found += _charges(layer["name"], {field: number}, 1, sizes)
    return found


def _charges(name: str, accesses: Accesses, repeats: int, sizes: Mapping[str, tuple[float, int]]) -> list[Charge]:
    found = []
    for field, number in accesses.items():
        group, operation = OPERATIONS[field]
        found.append(Charge(name, group, operation, number * repeats, *sizes[group]))
    return found
