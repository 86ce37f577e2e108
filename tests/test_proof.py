"""The comparison names the first place that differs."""

from __future__ import annotations

import numpy as np
import pytest

from snnkd_deploy.errors import ProofError
from snnkd_deploy.proof import agree, first_difference
from snnkd_deploy.simulate import Record, simulate
from tests.networks import random_inputs, random_network


def changed(record: Record, layer: str, place: tuple[int, ...]) -> Record:
    spikes = {name: values.copy() for name, values in record.spikes.items()}
    spikes[layer][place] ^= 1
    return Record(spikes, record.logits)


def test_equal_records_have_no_difference() -> None:
    graph = random_network(1)
    inputs = random_inputs(graph, 3)
    assert first_difference(graph, simulate(graph, inputs), simulate(graph, inputs)) is None


def test_one_spike_is_found_with_layer_step_sample_and_neuron() -> None:
    graph = random_network(1)
    record = simulate(graph, random_inputs(graph, 3))
    layer = list(record.spikes)[-1]
    place = (record.spikes[layer].shape[0] - 1, 2, *(0 for _ in record.spikes[layer].shape[2:]))
    difference = first_difference(graph, record, changed(record, layer, place))
    assert difference is not None
    assert (difference.layer, difference.step, difference.sample) == (layer, place[0], 2)
    assert difference.spikes_differing == 1
    assert f"layer {layer}, step {place[0]}, sample 2" in str(difference)


def test_the_earliest_layer_is_named_first() -> None:
    graph = next(g for g in map(random_network, range(50)) if len(simulate(g, random_inputs(g, 1)).spikes) > 1)
    record = simulate(graph, random_inputs(graph, 2))
    first, *_, last = record.spikes
    both = record
    for layer in (last, first):
        both = changed(both, layer, (0, 1, *(0 for _ in record.spikes[layer].shape[2:])))
    difference = first_difference(graph, record, both)
    assert difference is not None
    assert difference.layer == first


def test_missing_layers_wrong_shapes_and_logits_are_differences() -> None:
    graph = random_network(1)
    record = simulate(graph, random_inputs(graph, 3))
    layer = next(iter(record.spikes))
    assert first_difference(graph, record, Record({}, record.logits)) is not None
    short = Record({name: values[:, :1] for name, values in record.spikes.items()}, record.logits)
    assert first_difference(graph, record, short) is not None
    difference = first_difference(graph, record, Record(record.spikes, record.logits + 1))
    assert difference is not None
    assert difference.layer == graph.output.name
    assert difference.step is None
    assert layer != graph.output.name
    assert np.asarray(record.logits).size == difference.spikes_differing


def test_agreement_counts_spikes_and_looks_at_logits_only_where_none_differs() -> None:
    graph = random_network(1)
    record = simulate(graph, random_inputs(graph, 3))
    layer = next(iter(record.spikes))
    exact = agree(graph, record, record)
    assert exact.close
    assert (exact.spikes_differing, exact.logit_error) == (0, 0)
    assert exact.places == sum(spikes.size for spikes in record.spikes.values())
    off = changed(record, layer, (0, 1, *(0 for _ in record.spikes[layer].shape[2:])))
    wild = np.where(np.arange(3)[:, None] == 1, 99.0, 1e-6)
    met = agree(graph, record, Record(off.spikes, record.logits + wild))
    assert met.spikes_differing == 1
    assert met.logit_error == pytest.approx(1e-6 / np.abs(record.logits).max())
    assert not agree(graph, record, Record(record.spikes, record.logits * 1.01)).close
    assert "1 of" in str(met)


def test_records_of_other_shapes_do_not_agree() -> None:
    graph = random_network(1)
    record = simulate(graph, random_inputs(graph, 3))
    with pytest.raises(ProofError, match="the simulator has .* spikes, the file"):
        agree(graph, record, Record({}, record.logits))
    with pytest.raises(ProofError, match="the simulator has .* logits, the file"):
        agree(graph, record, Record(record.spikes, record.logits[:1]))
