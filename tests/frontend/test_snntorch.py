"""Which of snnTorch's neurons are ours, which are not, and why: beside snnTorch's own steps on one current."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import snntorch as snn
import torch

from snnkd_deploy.frontend.snntorch import emptied, is_snntorch, mapped
from snnkd_deploy.ir import Graph, Input, Linear, Output
from snnkd_deploy.simulate import simulate
from snnkd_deploy.trace import Refusal
from tests.frontend.nets import Wide

CURRENT = np.random.default_rng(0).normal(size=(40, 1, 5)) + 0.4


def ours(module: Any) -> np.ndarray[Any, Any]:
    return ours_of(mapped(module, "s", (5,)).node)


def ours_of(neuron: Any) -> np.ndarray[Any, Any]:
    nodes = (
        Input(name="x", shape=(5,), low=-100, high=100, static=False),
        Linear(name="w", inputs=("x",), weight=np.eye(5), bias=np.zeros(5)),
        type(neuron)(**{**vars(neuron), "inputs": ("w",)}),
        Output(name="y", inputs=("s",)),
    )
    return simulate(Graph(nodes=nodes, timesteps=len(CURRENT)), CURRENT).spikes["s"]


def theirs(module: Any) -> np.ndarray[Any, Any]:
    with torch.no_grad(), Wide():
        empty = module.double().reset_mem()
        states, found = (empty if isinstance(empty, tuple) else (empty,)), []
        for current in torch.from_numpy(CURRENT):
            spikes, *states = module(current, *states)
            found.append(spikes.numpy() != 0)
    return np.stack(found)


@pytest.mark.parametrize(
    ("module", "reset"),
    [
        (snn.Leaky(beta=0.8), "subtract_late"),
        (snn.Leaky(beta=1.0), "subtract"),
        (snn.Leaky(beta=0.8, reset_mechanism="zero"), "zero"),
        (snn.Leaky(beta=0.8, reset_mechanism="zero", reset_delay=False), "zero"),
        (snn.Leaky(beta=0.8, reset_mechanism="none"), "none"),
        (snn.Leaky(beta=torch.tensor([0.8, 0.2, 1.0, 0.0, 0.5])), "subtract_late"),
        (snn.Leaky(beta=torch.tensor([0.8, 0.2, 1.0, 0.0, 0.5]), reset_mechanism="zero"), "zero"),
        (snn.Leaky(beta=0.8, threshold=torch.tensor([0.5, 1.0, 1.5, 2.0, 0.7])), "subtract_late"),
        (snn.Leaky(beta=torch.full((5,), 0.8), learn_beta=True, learn_threshold=True), "subtract_late"),
        (snn.Lapicque(R=5.0, C=2.0, time_step=1.0), "subtract_late"),
        (snn.Lapicque(beta=0.7, reset_mechanism="none"), "none"),
        (snn.Synaptic(alpha=0.7, beta=0.8, threshold=2.0), "subtract_late"),
        (snn.Synaptic(alpha=0.7, beta=1.0, threshold=2.0), "subtract"),
        (snn.Synaptic(alpha=0.7, beta=0.8, reset_mechanism="none"), "none"),
        (snn.Synaptic(alpha=0.7, beta=0.8, reset_mechanism="zero", reset_delay=False), "zero"),
        (snn.Synaptic(alpha=1.0, beta=0.3, threshold=9.0, reset_mechanism="zero", reset_delay=False), "zero"),
        (snn.Synaptic(alpha=torch.tensor([0.1, 0.2, 1.0, 0.0, 0.5]), beta=0.8, threshold=1.5), "subtract_late"),
        (snn.Synaptic(alpha=torch.full((5,), 0.7), beta=0.8, learn_alpha=True, learn_beta=True), "subtract_late"),
    ],
)
def test_the_neuron_spikes_alike(module: Any, reset: str) -> None:
    expected = theirs(module)
    assert 0 < expected.mean() < 1
    assert mapped(module, "s", (5,)).node.reset == reset
    np.testing.assert_array_equal(ours(module), expected)


def test_channels_of_a_picture_have_their_own_beta_and_threshold() -> None:
    values = torch.tensor([0.25, 0.5, 0.75]).reshape(3, 1, 1)
    node = mapped(snn.Leaky(beta=values, threshold=2 * values), "s", (3, 4, 4)).node
    assert (np.asarray(node.decay).tolist(), node.threshold.tolist()) == ([0.25, 0.5, 0.75], [0.5, 1.0, 1.5])


def test_subtracting_late_is_not_subtracting_at_once() -> None:
    """v' = beta * v + x - threshold against beta * (v - threshold) + x: they differ by (1 - beta) * threshold."""
    late = mapped(snn.Leaky(beta=0.8), "s", (5,)).node
    at_once = type(late)(**{**vars(late), "reset": "subtract"})
    assert (theirs(snn.Leaky(beta=0.8)) != ours_of(at_once)).any()


@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: snn.Leaky(beta=0.5, inhibition=True), "inhibition lets one neuron of the layer fire"),
        (lambda: snn.Leaky(beta=0.5, state_quant=torch.round), "state_quant rounds the membrane"),
        (lambda: snn.Leaky(beta=0.5, graded_spikes_factor=torch.ones(5)), "graded_spikes_factor has several values"),
        (
            lambda: snn.Leaky(beta=torch.tensor([0.1, 0.2])),
            r"beta has shape \(2,\) on a layer of shape \(5,\); accepted are one, or one per channel, \(5,\)",
        ),
        (lambda: snn.Leaky(beta=0.5, threshold=0.0), "it fires at rest"),
        (lambda: snn.Leaky(beta=0.5, threshold=torch.tensor([1.0, 2.0])), "accepted are one, or one per channel"),
        (lambda: snn.Leaky(beta=0.5, reset_delay=False), "use reset_delay=True, or reset_mechanism='zero'"),
        (
            lambda: snn.Lapicque(R=5.0, C=2.0, reset_mechanism="zero"),
            r"to zero drops what arrives at the next step too; use snn.Leaky\(reset_mechanism='zero'\), and train",
        ),
        (lambda: snn.Lapicque(R=0.5, C=0.5), "it keeps -3 of its membrane"),
        (
            lambda: snn.Synaptic(alpha=0.5, beta=0.5, reset_mechanism="zero"),
            "Synaptic's reset to zero drops what arrives at the next step too; use reset_delay=False",
        ),
        (lambda: snn.Synaptic(alpha=0.5, beta=0.5, reset_delay=False), "use reset_delay=True, or reset_mechanism"),
        (lambda: snn.Synaptic(alpha=torch.tensor([0.1, 0.2]), beta=0.5), r"alpha has shape \(2,\) on a layer of shape"),
        (lambda: snn.Alpha(alpha=0.5, beta=0.4), "two synaptic currents beside the membrane"),
    ],
)
def test_what_has_no_counterpart_is_refused_with_advice(make: Any, reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        mapped(make(), "s", (5,))


def test_a_delayed_reset_to_zero_of_a_synaptic_is_another_neuron() -> None:
    """What arrives at the step behind a spike is lost, but for what the current keeps: that is why it is refused."""
    late = snn.Synaptic(alpha=0.7, beta=0.8, reset_mechanism="zero")
    at_once = snn.Synaptic(alpha=0.7, beta=0.8, reset_mechanism="zero", reset_delay=False)
    assert (theirs(late) != ours(at_once)).any()


def test_reasons_are_listed_together() -> None:
    module = snn.Leaky(beta=0.5, threshold=0.0, reset_delay=False, state_quant=torch.round)
    with pytest.raises(Refusal) as caught:
        mapped(module, "s", (5,))
    assert str(caught.value).count("; ") >= 2


def test_a_state_that_is_left_over_is_let_go() -> None:
    module = snn.Leaky(beta=0.5, init_hidden=True)
    module(torch.ones(2, 3, requires_grad=True))
    assert is_snntorch(module)
    assert not is_snntorch(torch.nn.ReLU())
    emptied(module)
    assert module.mem.numel() == 0
