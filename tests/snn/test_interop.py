"""A twin spikes alike at every step; what would not is refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import snntorch
import torch
from snntorch import surrogate as peers
from torch import Tensor

from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn.interop import from_snntorch, to_snntorch
from snnkd_deploy.snn.layers import Neuron
from snnkd_deploy.snn.surrogate import SURROGATES

STEPS = 12
TWINS = [
    *(
        Neuron(STEPS, decay, 0.7, "zero", *rest)
        for decay in (0.3, 0.9, 1.0)
        for rest in product(SURROGATES, (True, False))
    ),
    *(Neuron(STEPS, 1.0, 0.7, "subtract", name) for name in SURROGATES),
]


def current(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(STEPS, 5, 3, 4, 4, generator=generator)


def run(leaky: snntorch.Leaky, x: Tensor) -> Tensor:
    membrane, spikes = torch.zeros_like(x[0]), []
    for one in x:
        s, membrane = leaky(one, membrane)
        spikes.append(s)
    return torch.stack(spikes)


@pytest.mark.parametrize("neuron", TWINS, ids=lambda neuron: str(neuron.equation))
def test_no_spike_and_no_gradient_differs_there_and_back(neuron: Neuron) -> None:
    back = from_snntorch(to_snntorch(neuron), STEPS)
    assert back.equation == neuron.equation
    x = current().requires_grad_()
    weights = torch.sin(torch.arange(x.numel(), dtype=torch.float32)).view_as(x)
    expected = neuron(x.flatten(0, 1)).view_as(x)
    found = run(to_snntorch(neuron), x)
    assert int((found != expected).sum()) == 0
    assert 0 < found.mean() < 1
    slopes = [torch.autograd.grad((spikes * weights).sum(), x)[0] for spikes in (found, expected)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("delay", [True, False])
def test_no_spike_of_a_leaky_made_elsewhere_differs(seed: int, delay: bool) -> None:
    leaky = snntorch.Leaky(0.8, 0.9, reset_mechanism="zero", reset_delay=delay, spike_grad=peers.fast_sigmoid())
    neuron = from_snntorch(leaky, STEPS, surrogate="triangle")
    assert (neuron.surrogate, neuron.detach_reset) == ("triangle", delay)
    x = current(seed)
    assert int((neuron(x.flatten(0, 1)).view_as(x) != run(leaky, x)).sum()) == 0


def test_a_learned_decay_stays_learned() -> None:
    neuron = Neuron(STEPS, decay=0.7)
    neuron.learn_decay()
    leaky = to_snntorch(neuron)
    assert isinstance(leaky.beta, torch.nn.Parameter)
    back = from_snntorch(leaky, STEPS).decays
    assert back is not None
    assert back.item() == pytest.approx(0.7)
    x = current()
    assert int((neuron(x.flatten(0, 1)).view_as(x) != run(leaky, x)).sum()) == 0


def per_channel() -> Neuron:
    neuron = Neuron(STEPS)
    neuron.learn_decay(3)
    return neuron


@pytest.mark.parametrize(
    ("neuron", "reason"),
    [
        (Neuron(STEPS, 0.5, reset="subtract"), "reset_mechanism 'subtract' at beta 0.5"),
        (Neuron(STEPS, 1.0, reset="subtract", detach_reset=False), "'subtract' with reset_delay False"),
        (Neuron(STEPS, 0.5, reset="subtract", detach_reset=False), "'subtract' with reset_delay False"),
        (per_channel(), "3 learned decays"),
    ],
)
def test_a_neuron_without_a_twin_is_refused(neuron: Neuron, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"no Leaky spikes alike:\n  - .*{reason}.*$"):
        to_snntorch(neuron)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"reset_mechanism": "subtract"}, "reset_mechanism 'subtract' at beta 0.5"),
        ({"beta": 1.0, "reset_mechanism": "subtract", "reset_delay": False}, "'subtract' with reset_delay False"),
        ({"reset_mechanism": "subtract", "reset_delay": False}, "'subtract' with reset_delay False"),
        ({"reset_mechanism": "none"}, "reset_mechanism 'none'"),
        ({"beta": torch.rand(4)}, "beta has 4 values"),
        ({"learn_threshold": True}, "threshold is learned"),
        ({"graded_spikes_factor": 2.0}, "graded_spikes_factor is not 1"),
        ({"state_quant": torch.round}, "state_quant is set"),
    ],
)
def test_a_leaky_without_a_twin_is_refused(options: dict[str, Any], reason: str) -> None:
    leaky = snntorch.Leaky(**{"beta": 0.5, "reset_mechanism": "zero", **options})
    with pytest.raises(ConfigError, match=f"no Neuron spikes alike:\n  - .*{reason}.*$"):
        from_snntorch(leaky, STEPS)


@pytest.mark.parametrize("beta", [0.5, 0.9, 1.0])
def test_a_reset_at_once_agrees_while_no_more_than_the_threshold_is_left(beta: float) -> None:
    x = 0.65 * torch.rand(STEPS, 40, generator=torch.Generator().manual_seed(0))
    leaky = snntorch.Leaky(beta, 0.7, reset_mechanism="subtract", reset_delay=False)
    spikes = Neuron(STEPS, beta, 0.7, "subtract")(x.flatten(0, 1)).view_as(x)
    assert spikes.sum() > 40
    assert torch.equal(spikes, run(leaky, x))


@pytest.mark.parametrize(("beta", "delay"), [(0.5, True), (0.5, False), (1.0, False)])
def test_what_is_refused_does_differ(beta: float, delay: bool) -> None:
    x = current()
    leaky = snntorch.Leaky(beta, 0.7, reset_mechanism="subtract", reset_delay=delay)
    neuron = Neuron(STEPS, beta, 0.7, "subtract")
    assert not torch.equal(neuron(x.flatten(0, 1)).view_as(x), run(leaky, x))
