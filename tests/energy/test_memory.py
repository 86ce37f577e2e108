"""Reads and writes of memory, layer by layer, by hand. Networks: `test_priced.py`; SpikingJelly: `test_peers.py`."""

from __future__ import annotations

from typing import Any

from snnkd_deploy.energy.memory import charged, charged_ann, of_ann_layer, of_layer
from snnkd_deploy.price_files import load_table
from tests.energy.reports import report, row


def test_events_fetch_weights_and_membranes_and_find_their_addresses() -> None:
    conv = {"op": "Conv2d", "synops": 0, "input_kind": "spikes", "events_in": 5, "bias_adds": 3, "params": 9}
    assert of_layer(conv, 40, 2, ideal=False) == {
        "weight_reads": 43,
        "state_reads": 40,
        "state_writes": 40,
        "fifo_reads": 5,
        "address_adds": 40,
        "address_multiplies": 10,
    }
    assert of_layer(conv, 40, 2, ideal=True) == {"weight_reads": 18, "fifo_reads": 5}
    assert "address_multiplies" not in of_layer({**conv, "op": "Linear"}, 40, 2, ideal=False)


def test_pixels_are_fetched_for_each_multiplication_of_a_convolution_and_once_for_a_matrix() -> None:
    picture: dict[str, Any] = {
        **{"op": "Conv2d", "synops": 0, "input_kind": "picture", "bias_adds": 4, "params": 9, "inputs": 16},
        **{"evaluations": 2, "shape": (2, 3, 3), "kernel": 8},
    }
    assert of_layer(picture, 100, 2, ideal=False) == {
        "weight_reads": 104,
        "input_reads": 100,
        "address_adds": 2 * (16 + 18 + 8),
    }
    dense = of_layer({**picture, "op": "Linear", "shape": (18,)}, 100, 2, ideal=False)
    assert (dense["input_reads"], dense["address_adds"]) == (32, 2 * (16 + 18))
    assert of_layer(picture, 100, 2, ideal=True) == {"weight_reads": 18, "input_reads": 32}


def test_neurons_keep_their_membrane_in_memory_or_in_a_register() -> None:
    neurons = {"op": "Neuron", "updates_active": 3, "updates_inactive": 7, "spikes_out": 2}
    assert of_layer(neurons, 0, 1, ideal=False) == {"state_reads": 10, "state_writes": 10, "fifo_writes": 2}
    assert of_layer(neurons, 0, 1, ideal=True) == {"fifo_writes": 2}
    assert of_layer({"op": "Add"}, 0, 1, ideal=False) == {}


def test_an_ann_writes_each_output_once() -> None:
    layer = {"op": "Conv2d", "inputs": 16, "outputs": 18, "params": 9, "kernel": 8, "bias_adds": 2}
    without = of_ann_layer(layer, 200, 2, ideal=False)
    assert (without["weight_reads"], without["input_reads"], without["output_writes"]) == (204, 200, 36)
    assert of_ann_layer(layer, 200, 2, ideal=True) == {"weight_reads": 18, "input_reads": 32, "output_writes": 36}


def test_each_memory_is_as_large_as_the_layer_needs() -> None:
    """Weights of 8 bits, membranes of 24, queues of 1000 events of 16 bits; in Lemaire's, 32 bits for everything."""
    own, paper = (load_table(name).memory for name in ("cmos45_int8_sram", "lemaire2022"))
    assert own is not None
    assert paper is not None
    layer = {"name": "a", "op": "Linear", "shape": (10,), "params": 110, "weight_bits": 8, "input_kind": "spikes"}
    accesses = {"weight_reads": 1, "state_reads": 1, "fifo_reads": 1}
    sizes = {one.operation: (one.size_bits, one.bits) for one in charged(layer, accesses, 1, own, 24)}
    assert sizes == {"weight_read": (880, 8), "state_read": (240, 24), "input_read": (16000, 16)}
    sizes = {one.operation: (one.size_bits, one.bits) for one in charged(layer, accesses, 1, paper, 24)}
    assert sizes == {"weight_read": (3520, 32), "state_read": (320, 32), "input_read": (32000, 32)}


def test_an_ann_of_fewer_bits_has_smaller_memories() -> None:
    own = load_table("cmos45_int8_sram").memory
    assert own is not None
    layer = {"name": "a", "params": 100, "weight_bits": 8, "inputs": 20, "outputs": 10}
    accesses = {"weight_reads": 1, "input_reads": 1, "output_writes": 1}
    found = [(one.operation, one.size_bits, one.bits) for one in charged_ann(layer, accesses, own, 3)]
    assert found == [("weight_read", 800, 8), ("input_read", 60, 3), ("output_write", 30, 3)]


def test_the_report_keeps_both_kinds_of_every_layer() -> None:
    found = report()
    assert row(found, "fc")["memory"]["without_reuse"]["weight_reads"] == 22 + 6
    assert row(found, "fc")["memory"]["ideal_reuse"] == {"weight_reads": 12, "fifo_reads": 11}
    assert row(found, "pool")["memory"] == {"without_reuse": {}, "ideal_reuse": {}}
