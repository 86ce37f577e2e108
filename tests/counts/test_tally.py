"""What runners hand over adds up, in parts of any size, and whoever they are."""

from __future__ import annotations

import pytest
from numpy.testing import assert_array_equal

from snnkd_deploy.counts import Synapses, Tally, count, counted
from snnkd_deploy.errors import GraphError, InputError
from snnkd_deploy.ir import Array, Conv2d, Neuron
from snnkd_deploy.simulate import simulate
from tests.networks import random_inputs, random_network
from tests.test_counts import pooled_network


def test_another_runner_that_hands_over_event_maps_gives_the_same_counts() -> None:
    graph = pooled_network("conv")
    inputs = random_inputs(graph, 5)
    expected = count(graph, inputs)
    tally = Tally(graph, "by hand")
    for part in (slice(0, 2), slice(2, 5)):
        _hand_over(tally, inputs[:, part])
    found = counted(tally)
    assert (found.simulator, found.samples) == ("by hand", 5)
    for before, after in zip(expected.synapses(), found.synapses(), strict=True):
        assert before.synops_nonzero == after.synops_nonzero > 0
        assert before.synops_unit == after.synops_unit
        assert_array_equal(expected.events[before.name], found.events[before.name])


def _hand_over(tally: Tally, inputs: Array) -> None:
    """As a runtime does that keeps no membranes: maps and spikes alone."""
    record = simulate(tally.graph, inputs)
    for name in ("lif", "lif2"):
        spikes = record.spikes[name]
        tally.fired(name, spikes.reshape(*spikes.shape[:2], -1).sum(axis=2))
    lif = record.spikes["lif"].astype(int)
    pooled = lif.reshape(*lif.shape[:3], 4, 2, 3, 2).sum(axis=(4, 6))
    tally.arrived("pool", lif.sum(axis=0))
    tally.arrived("layer", (pooled > 0).sum(axis=0))
    tally.arrived_as("layer", pooled.sum(axis=0))
    tally.arrived("readout", record.spikes["lif2"].astype(int).sum(axis=0).reshape(inputs.shape[1], -1))
    tally.predictions.append(record.logits.argmax(axis=1))
    tally.samples += inputs.shape[1]


def test_what_nobody_counted_is_none_and_not_zero() -> None:
    graph = pooled_network("conv")
    tally = Tally(graph, "by hand")
    _hand_over(tally, random_inputs(graph, 2))
    lif, layer = (counted(tally)[name] for name in ("lif", "layer"))
    assert (lif.updates_active, lif.membrane_changes) == (None, None)  # type: ignore[attr-defined]
    assert isinstance(layer, Synapses)
    assert layer.values_seen is None


def test_nothing_grows_with_the_data_but_numbers_by_sample() -> None:
    graph = pooled_network("conv")
    few, many = (count(graph, random_inputs(graph, samples)) for samples in (3, 300))
    assert {name: one.nbytes for name, one in few.events.items()} == {n: one.nbytes for n, one in many.events.items()}
    sizes = {one.size for layer in many.per_sample.values() for one in layer.values()}
    assert sizes == {300}


@pytest.mark.parametrize("kind", [Conv2d, Neuron])
def test_counts_of_samples_add_up_to_those_of_the_layer(kind: type[Conv2d | Neuron]) -> None:
    graph = pooled_network("conv")
    counts = count(graph, random_inputs(graph, 7), batch=3)
    for node in (one for one in graph if isinstance(one, kind)):
        layer = counts[node.name]
        told = {what: getattr(layer, what) for what in layer.counted if getattr(layer, what) is not None}
        assert told == {what: one.sum() for what, one in counts.per_sample[node.name].items()}


def test_a_tally_without_samples_is_refused() -> None:
    with pytest.raises(InputError, match="without samples"):
        counted(Tally(pooled_network("conv"), "nobody"))


def test_a_tally_of_a_network_with_batchnorm_is_refused() -> None:
    with pytest.raises(GraphError, match="fold its BatchNorm first"):
        Tally(random_network(1), "nobody")
