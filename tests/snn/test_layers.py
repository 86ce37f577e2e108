"""Time is folded into the batch, time-major, and unfolded again."""

from __future__ import annotations

import pytest
import torch

from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn.layers import Neuron, Repeat, TimeMean
from snnkd_deploy.snn.lif import LIF, lif


def test_repeat_puts_all_samples_of_a_step_together_and_the_mean_takes_them_back() -> None:
    x = torch.arange(6.0).view(2, 3)
    folded = Repeat(4)(x)
    assert torch.equal(folded.view(4, 2, 3)[3], x)
    assert torch.equal(TimeMean(4)(folded), x)
    assert torch.equal(TimeMean(2)(torch.tensor([[1.0], [2.0], [3.0], [6.0]])), torch.tensor([[2.0], [4.0]]))


def test_one_step_changes_nothing() -> None:
    x = torch.rand(3, 2)
    assert TimeMean(1)(Repeat(1)(x)) is x


def test_repeat_keeps_the_memory_order() -> None:
    x = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert Repeat(3)(x).is_contiguous(memory_format=torch.channels_last)


def test_a_neuron_is_its_equation_over_folded_time() -> None:
    x = torch.randn(4 * 3, 5)
    neuron = Neuron(4, decay=0.75, threshold=0.5, reset="subtract")
    assert neuron.equation == LIF(0.75, 0.5, "subtract")
    assert torch.equal(neuron(x), lif(x.view(4, 3, 5), neuron.equation).flatten(0, 1))


def test_a_neuron_forgets_between_batches() -> None:
    neuron, x = Neuron(2), torch.full((2, 1), 0.8)
    assert torch.equal(neuron(x), neuron(x))


def test_a_neuron_out_of_range_is_refused_when_it_is_made() -> None:
    with pytest.raises(ConfigError, match="decay 2"):
        Neuron(4, decay=2)


def test_what_decides_the_spikes_can_be_read() -> None:
    assert repr(Neuron(4)) == "Neuron(timesteps=4, decay=0.5, threshold=1.0, reset='zero')"
    assert repr(Repeat(4)) == "Repeat(timesteps=4)"
    assert repr(TimeMean(4)) == "TimeMean(timesteps=4)"
