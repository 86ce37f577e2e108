"""The block of a report that goes into NeuroBench's leaderboard: names and definitions of NeuroBench 2.3.

    footprint               bytes of parameters and buffers
    connection_sparsity     zero weights among the weights of Linear and convolutions, to 4 digits
    activation_sparsity     zeros among the outputs of neurons and ReLUs, over all steps and samples
    effective_macs, _acs    products of an input and a weight that are both not zero, a sample; biases are none
    dense                   the same if no input and no weight were zero; taps on padding are none
    membrane_updates        membranes that changed, a sample; at a first step all of them do

NeuroBench runs every layer at every step, so a layer on a still picture counts once a step. It calls a product an AC
where all inputs of one call (one batch, one step) are -1, 0 or 1; here the graph decides, so the two split MACs and ACs
alike unless a batch of pictures is black and white, or a pool is silent. What it does not count, transposed
convolutions and attention, is counted here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from snnkd_deploy.counts import Activations, Counts, Layer, Neurons
from snnkd_deploy.ir import Graph, Neuron

Block = dict[str, Any]
FLOAT_BYTES = 4


def neurobench_block(counts: Counts, graph: Graph, footprint: int | None = None) -> Block:
    """The block of `graph`, of which `counts` were taken.

    `footprint`: bytes of the network that `graph` was read from, if there is one; else those of the graph's own
    numbers, float32 before INTEGER, and from then on whole bytes for the bits of each layer's weights and 4 for every
    other number. Without membranes in the counts `membrane_updates` is None.
    """
    return {
        "footprint": graph_footprint(counts, graph) if footprint is None else footprint,
        "connection_sparsity": _connection_sparsity(counts),
        "activation_sparsity": _activation_sparsity(counts),
        "synaptic_operations": _synaptic_operations(counts),
        "membrane_updates": _membrane_updates(counts),
    }


def graph_footprint(counts: Counts, graph: Graph) -> int:
    """Bytes of weights, biases that are not all zero, thresholds and decays."""
    found = 0
    for layer in counts.synapses():
        width = FLOAT_BYTES if layer.weight_bits is None else -(-layer.weight_bits // 8)
        biases = (layer.params - layer.weights) * bool(layer.bias_adds)
        found += layer.weights * width + biases * FLOAT_BYTES
    return found + FLOAT_BYTES * sum(node.threshold.size + np.size(node.decay) for node in graph.of(Neuron))


def _connection_sparsity(counts: Counts) -> float:
    layers = counts.synapses()
    weights = sum(layer.weights for layer in layers)
    return round(sum(layer.zero_weights for layer in layers) / weights, 4) if weights else 0.0


def _activation_sparsity(counts: Counts) -> float:
    """0 of a network without neurons and ReLUs, as NeuroBench says."""
    outputs, fired = 0, 0
    for layer in counts.layers:
        if isinstance(layer, Neurons | Activations):
            outputs += layer.compares * _repeats(layer, counts)
            fired += _fired(layer) * _repeats(layer, counts)
    return (outputs - fired) / outputs if outputs else 0.0


def _fired(layer: Neurons | Activations) -> int:
    return layer.spikes_out if isinstance(layer, Neurons) else layer.nonzero_out or 0


def _synaptic_operations(counts: Counts) -> dict[str, float]:
    macs = acs = dense = 0
    for layer in counts.synapses():
        repeats = _repeats(layer, counts)
        macs += layer.event_macs_nonzero * repeats
        acs += (layer.synops_nonzero - layer.event_macs_nonzero) * repeats
        dense += layer.dense_macs_inrange * layer.evaluations * repeats
    return {
        "effective_macs": macs / counts.samples,
        "effective_acs": acs / counts.samples,
        "dense": dense / counts.samples,
    }


def _membrane_updates(counts: Counts) -> float | None:
    layers = [layer for layer in counts.layers if isinstance(layer, Neurons)]
    changes = [layer.membrane_changes for layer in layers if layer.membrane_changes is not None]
    return sum(changes) / counts.samples if len(changes) == len(layers) else None


def _repeats(layer: Layer, counts: Counts) -> int:
    """How often NeuroBench runs a layer that is counted once."""
    return counts.timesteps if layer.static else 1
