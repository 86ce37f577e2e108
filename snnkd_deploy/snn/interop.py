"""Our neurons in snnTorch and back: a twin for each that spikes alike at every step, a refusal for the others.

A `Leaky` with reset_delay=True takes its reset after the leak of the next step, from a reset that is always detached;
with reset_delay=False it resets at once, under autograd. For a reset to zero the order does not show in the spikes. A
subtracted threshold is leaked by a Neuron and not by the delayed reset, so that only beta = 1 agrees (there the terms
of one sum come in another order; a membrane within rounding of the threshold may show it). The reset at once agrees
until more than the threshold is left behind a spike: a Leaky then subtracts again, though no spike says so.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn.layers import InputNeuron, Neuron
from snnkd_deploy.snn.lif import spike

if TYPE_CHECKING:
    import snntorch


def to_snntorch(neuron: Neuron) -> snntorch.Leaky:
    """The Leaky with the spikes of `neuron` and its gradient, surrogate included. ConfigError if there is none."""
    decays, problems = neuron.decays, []
    if isinstance(neuron, InputNeuron):
        problems.append(f"a learned gain, {float(neuron.gain.detach()):g}; multiply the pixels by it and use a Neuron")
    if decays is not None and len(decays) > 1:
        problems.append(f"{len(decays)} learned decays: beta lies along the last axis of a current, not its channels")
    if neuron.reset == "subtract":
        problems += _subtracting(float(neuron.decay), neuron.detach_reset)
    _refuse("Leaky", problems)

    import snntorch

    return snntorch.Leaky(
        _exact(neuron.decay) if decays is None else decays.detach().clone(),
        _exact(neuron.threshold),
        spike_grad=partial(spike, name=neuron.surrogate),
        learn_beta=decays is not None,
        reset_mechanism=neuron.reset,
        reset_delay=neuron.detach_reset,
    )


def from_snntorch(leaky: snntorch.Leaky, timesteps: int, surrogate: str = "atan") -> Neuron:
    """The Neuron with the spikes of `leaky` over `timesteps` steps. ConfigError if there is none.

    Its membrane is empty at the start. `surrogate` is for training only; snnTorch does not say which one a Leaky has,
    unless `to_snntorch` made it.
    """
    _refuse("Neuron", _unknown(leaky) or _reset(leaky))
    made = leaky.spike_grad
    name = made.keywords["name"] if isinstance(made, partial) and made.func is spike else surrogate
    beta, threshold = float(leaky.beta.detach().clamp(0, 1)), float(leaky.threshold)
    neuron = Neuron(timesteps, beta, threshold, leaky.reset_mechanism, name, detach_reset=leaky.reset_delay)
    if isinstance(leaky.beta, nn.Parameter):
        neuron.learn_decay()
    return neuron


def _exact(value: float) -> Tensor:
    """As a tensor without axes, which takes part in an operation like the number itself, whatever its precision."""
    return torch.tensor(value, dtype=torch.float64)


def _unknown(leaky: snntorch.Leaky) -> list[str]:
    """What a Neuron does not have."""
    problems = []
    if leaky.beta.numel() > 1:
        problems.append(f"beta has {leaky.beta.numel()} values; one is accepted")
    if leaky.threshold.numel() > 1 or isinstance(leaky.threshold, nn.Parameter):
        problems.append("threshold is learned or has several values; one that is fixed is accepted")
    if leaky.graded_spikes_factor.numel() > 1 or float(leaky.graded_spikes_factor) != 1:
        problems.append("graded_spikes_factor is not 1; spikes here are 0 or 1")
    problems += [f"{name} is set" for name in ("inhibition", "state_quant") if getattr(leaky, name)]
    return problems


def _reset(leaky: snntorch.Leaky) -> list[str]:
    """Why a reset has no counterpart."""
    if leaky.reset_mechanism == "none":
        return ["reset_mechanism 'none': a Neuron resets to zero or by subtraction"]
    beta = float(leaky.beta.detach().clamp(0, 1))
    return _subtracting(beta, leaky.reset_delay) if leaky.reset_mechanism == "subtract" else []


def _subtracting(beta: float, delayed: bool) -> list[str]:
    """Why a subtracting reset has no counterpart; a delayed reset is the detached one."""
    if not delayed:
        return [
            "reset_mechanism 'subtract' with reset_delay False (a reset that is not detached): a Leaky subtracts twice "
            "before it fires again, if more than the threshold is left"
        ]
    if beta != 1:
        return [f"reset_mechanism 'subtract' at beta {beta:g}: a Leaky subtracts behind the leak, a Neuron ahead"]
    return []


def _refuse(wanted: str, problems: list[str]) -> None:
    if problems:
        raise ConfigError("\n  - ".join([f"no {wanted} spikes alike:", *problems]))
