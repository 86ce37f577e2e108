"""The fused neuron is the loop, and the loop is the neuron of snnTorch."""

from __future__ import annotations

from typing import Any

import pytest
import snntorch
import torch
from torch import Tensor

from snnkd_deploy.errors import ConfigError, UnknownNameError
from snnkd_deploy.snn import lif as module
from snnkd_deploy.snn.lif import LIF, lif, lif_loop, lif_states
from snnkd_deploy.snn.surrogate import SURROGATES

NEURONS = [
    LIF(decay, 1.0, reset, surrogate, detach)  # type: ignore[arg-type]
    for decay in (0.5, 0.9, 1.0)
    for reset in ("zero", "subtract")
    for surrogate in SURROGATES
    for detach in (True, False)
]


def currents(timesteps: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(timesteps, 6, 4, 5, 3, generator=generator, dtype=dtype)


def gradient(function: Any, current: Tensor, neuron: LIF) -> tuple[Tensor, Tensor]:
    current = current.clone().requires_grad_()
    spikes = function(current, neuron)
    weights = torch.sin(torch.arange(spikes.numel(), dtype=current.dtype)).view_as(spikes)
    return spikes.detach(), torch.autograd.grad((spikes * weights).sum(), current)[0]


@pytest.mark.parametrize("timesteps", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("neuron", NEURONS, ids=str)
def test_fused_and_loop_agree_in_every_spike_and_gradient(neuron: LIF, timesteps: int) -> None:
    spikes, slope = gradient(lif, currents(timesteps), neuron)
    expected_spikes, expected_slope = gradient(lif_loop, currents(timesteps), neuron)
    assert torch.equal(spikes, expected_spikes)
    assert 0 < spikes.mean() < 1
    torch.testing.assert_close(slope, expected_slope, rtol=1e-6, atol=1e-6)  # sums of a few terms of size 1


@pytest.mark.parametrize("cached", [1, 50, 10**9])
def test_parts_of_the_batch_do_not_show(cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gradient(lif, currents(4), LIF())
    monkeypatch.setattr(module, "CACHED", cached)
    assert all(map(torch.equal, gradient(lif, currents(4), LIF()), expected))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_memory_order_does_not_change_values_and_is_kept(layout: torch.memory_format) -> None:
    folded = currents(4).flatten(0, 1).contiguous(memory_format=layout)
    spikes = lif(folded.unflatten(0, (4, -1)), LIF()).flatten(0, 1)
    assert torch.equal(spikes, lif(currents(4), LIF()).flatten(0, 1))
    assert spikes.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("neuron", [LIF(), LIF(0.9, 1.0, "subtract", "sigmoid", False)], ids=str)
def test_the_second_derivative_is_that_of_the_loop(neuron: LIF) -> None:
    def curvature(function: Any) -> Tensor:
        current = currents(3, dtype=torch.float64).requires_grad_()
        (first,) = torch.autograd.grad((function(current, neuron) ** 2).sum(), current, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), current)
        return second

    assert curvature(lif).abs().max() > 0
    torch.testing.assert_close(curvature(lif), curvature(lif_loop))


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 1, 1)], ids=["layer", "channel"])
@pytest.mark.parametrize("cached", [50, 10**9])
@pytest.mark.parametrize("timesteps", [1, 4])
@pytest.mark.parametrize("neuron", [neuron for neuron in NEURONS if neuron.decay == 0.9], ids=str)
def test_a_learned_decay_has_the_gradient_of_the_loop(
    neuron: LIF, timesteps: int, cached: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CACHED", cached)
    decay = torch.linspace(0.3, 0.8, shape[0], dtype=torch.float64).view(shape).requires_grad_()
    current = currents(timesteps, dtype=torch.float64).requires_grad_()
    weights = torch.sin(torch.arange(current.numel(), dtype=torch.float64)).view_as(current)
    spikes, expected = lif(current, neuron, decay), lif_loop(current, neuron, decay)
    assert torch.equal(spikes, expected)
    slopes = torch.autograd.grad((spikes * weights).sum(), (current, decay))
    wanted = torch.autograd.grad((expected * weights).sum(), (current, decay), materialize_grads=True)
    assert bool(slopes[1].all()) == (timesteps > 1)
    torch.testing.assert_close(slopes, wanted)


def test_a_learned_decay_has_the_second_derivative_of_the_loop() -> None:
    def curvature(function: Any) -> Tensor:
        decay = torch.full((4, 1, 1), 0.6, dtype=torch.float64, requires_grad=True)
        current = currents(3, dtype=torch.float64).requires_grad_()
        (first,) = torch.autograd.grad((function(current, LIF(), decay) ** 2).sum(), decay, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), current)
        return second

    assert curvature(lif).abs().max() > 0
    torch.testing.assert_close(curvature(lif), curvature(lif_loop))


def test_spikes_are_strict_and_reset_to_zero_forgets_while_subtraction_keeps_the_rest() -> None:
    current = torch.tensor([1.0, 1.6, 0.5, 0.9, 0.75]).view(5, 1)
    # zero:     1.0 -> no; 0.5 + 1.6 = 2.1 -> yes; 0 + 0.5 -> no; 0.25 + 0.9 = 1.15 -> yes; 0.75 -> no
    assert lif(current, LIF()).flatten().tolist() == [0, 1, 0, 1, 0]
    # subtract: 1.0 -> no; 2.1 -> yes, 1.1 is left; 0.55 + 0.5 = 1.05 -> yes, 0.05; 0.925 -> no; 1.2125 -> yes
    assert lif(current, LIF(reset="subtract")).flatten().tolist() == [0, 1, 1, 0, 1]


@pytest.mark.parametrize("decay", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_spike_differs_from_snntorch(decay: float, seed: int) -> None:
    current = 2 * currents(8, seed)
    peer = snntorch.Leaky(beta=decay, threshold=1.0, reset_mechanism="zero")
    membrane, spikes = peer.init_leaky(), []
    for x in current:
        s, membrane = peer(x, membrane)
        spikes.append(s)
    assert int((torch.stack(spikes) != lif(current, LIF(decay=decay))).sum()) == 0


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"decay": 0.0}, "decay"),
        ({"decay": 1.1}, "decay"),
        ({"threshold": 0.0}, "threshold"),
        ({"reset": "no"}, "zero"),
    ],
)
def test_a_neuron_out_of_range_is_refused(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        LIF(**values)
    with pytest.raises(UnknownNameError):
        LIF(surrogate="none")


def test_states_are_the_membrane_before_its_reset() -> None:
    current = torch.tensor([1.6, 0.3, 1.2]).view(3, 1, 1)
    for reset, expected in (("zero", [1.6, 0.3, 1.35]), ("subtract", [1.6, 0.6, 1.5])):
        spikes, membranes = lif_states(current, LIF(0.5, 1.0, reset))  # type: ignore[arg-type]
        assert spikes.flatten().tolist() == [1, 0, 1]
        assert membranes.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("neuron", [LIF(), LIF(0.9, 1.0, "subtract", "sigmoid", False)], ids=str)
@pytest.mark.parametrize("function", [lif, lif_loop])
def test_a_bfloat16_current_gives_the_spikes_of_a_float32_membrane(function: Any, neuron: LIF) -> None:
    rounded = currents(8).bfloat16()
    spikes, slopes = gradient(lif_loop, rounded.float(), neuron)
    narrow = rounded.clone().requires_grad_()
    found = function(narrow, neuron)
    (found.float() * torch.sin(torch.arange(found.numel()).float()).view_as(found)).sum().backward()
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, spikes.bfloat16())
    assert narrow.grad is not None
    torch.testing.assert_close(narrow.grad.float(), slopes, rtol=2**-6, atol=0.02)  # what flows in is rounded
