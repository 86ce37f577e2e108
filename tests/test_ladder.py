"""Accuracy and activity, against counting by hand."""

from __future__ import annotations

import numpy as np

from snnkd_deploy.ladder import climb
from snnkd_deploy.simulate import simulate
from tests.networks import CHAIN, random_inputs, random_network


def test_rates_dead_and_saturated_neurons_are_those_of_the_spikes() -> None:
    for seed in range(8):
        graph = random_network(seed, CHAIN)
        inputs = random_inputs(graph, 70, seed)
        record = simulate(graph, inputs)
        labels = np.zeros(70, dtype=np.int64)
        rung = climb(graph, inputs, labels)
        assert rung.accuracy == (record.logits.argmax(axis=1) == 0).mean()
        assert list(rung.layers) == list(record.spikes)
        for name, spikes in record.spikes.items():
            activity, per_neuron = rung.layers[name], spikes.mean(axis=(0, 1))
            assert np.isclose(activity.rate, spikes.mean())
            assert activity.dead == (per_neuron == 0).sum()
            assert activity.saturated == (per_neuron == 1).sum()
            assert activity.neurons == per_neuron.size
