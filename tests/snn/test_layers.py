"""Time is folded into the batch, time-major, and unfolded again."""

from __future__ import annotations

import math

import pytest
import torch

from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn.layers import InputNeuron, Neuron, Pointwise, Repeat, RowMajor, TimeMean
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


@pytest.mark.parametrize("threshold", [1.0, 0.4])
def test_an_input_neuron_integrates_pixels_and_learns_how_many_steps_they_need(threshold: float) -> None:
    """At the start what is brighter than half fires at each step, a quarter to a half at every other."""
    neuron = InputNeuron(4, threshold)
    pixels = torch.tensor([[0.0, 0.12, 0.2, 0.3, 0.51, 1.0]])
    counts = neuron(Repeat(4)(pixels)).view(4, 6).sum(0)
    assert counts.tolist() == [0, 0, 1, 2, 4, 4]
    counts.sum().backward()
    assert neuron.log_gain.grad is not None
    assert neuron.log_gain.grad > 0
    with torch.no_grad():
        neuron.log_gain.fill_(math.log(threshold / 0.62))
    assert neuron(Repeat(4)(pixels)).view(4, 6).sum(0).tolist() == [0, 0, 1, 1, 2, 4]


@pytest.mark.parametrize("count", [1, 3])
def test_a_learned_decay_starts_where_it_was_and_stays_between_0_and_1(count: int) -> None:
    neuron, x = Neuron(4, decay=0.75), torch.randn(4 * 2, 3, 5, 5)
    expected = neuron(x)
    neuron.learn_decay(count)
    assert torch.equal(neuron(x), expected)
    assert [(name, tuple(p.shape)) for name, p in neuron.named_parameters()] == [("decay_logit", (count,))]
    assert neuron.decay_logit is not None
    for step in (-50.0, 10.0):
        neuron.decay_logit.data.fill_(step)
        assert neuron.decays is not None
        assert (neuron.decays > 0).all()
        assert (neuron.decays <= 1).all()


def test_each_channel_has_its_own_decay() -> None:
    neuron = Neuron(2, decay=0.5)
    neuron.learn_decay(2)
    neuron.decay_logit = torch.nn.Parameter(torch.tensor([-2.0, 2.0]))  # decays 0.12 and 0.88
    x = torch.full((2 * 1, 2, 1, 1), 0.6)
    assert neuron(x).flatten(1).tolist() == [[0, 0], [0, 1]]


def test_the_integrator_has_no_decay_to_learn() -> None:
    with pytest.raises(ConfigError, match="decay 1: a learned decay starts above 0 and below 1"):
        Neuron(4, decay=1).learn_decay()


def test_what_decides_the_spikes_can_be_read() -> None:
    neuron = Neuron(4)
    assert repr(neuron) == "Neuron(timesteps=4, decay=0.5, threshold=1.0, reset='zero')"
    neuron.learn_decay(3)
    assert repr(neuron) == "Neuron(timesteps=4, decay=0.5, threshold=1.0, reset='zero', learned_decays=3)"
    assert repr(Repeat(4)) == "Repeat(timesteps=4)"
    assert repr(TimeMean(4)) == "TimeMean(timesteps=4)"


def test_a_membrane_is_the_mean_over_time_of_what_stands_before_each_reset() -> None:
    x = torch.tensor([[1.6], [0.3], [1.2]])
    assert Neuron(3).membrane(x).item() == pytest.approx((1.6 + 0.3 + 1.35) / 3)


def test_images_that_lie_channels_last_can_be_read_by_view_behind_row_major() -> None:
    for channels in (1, 3):
        images = torch.rand(2, channels, 4, 4)
        last = images.clone(memory_format=torch.channels_last)
        assert last.stride() != images.stride()
        ordered = RowMajor()(last)
        assert ordered.stride() == images.stride()
        assert torch.equal(ordered.view(2, -1), images.view(2, -1))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("channels", [2, 9])
def test_a_pointwise_convolution_is_torch_s_own(channels: int, stride: int) -> None:
    layer = Pointwise(channels, 5, stride)
    x, given = torch.rand(4, channels, 7, 8, requires_grad=True), torch.rand(4, 5, -(-7 // stride), -(-8 // stride))
    plain = torch.nn.functional.conv2d(x, layer.weight, stride=stride)
    wanted = torch.autograd.grad(plain, [x, layer.weight], given)
    shown = layer(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(shown, plain)
    torch.testing.assert_close(torch.autograd.grad(shown, [x, layer.weight], given), wanted)
