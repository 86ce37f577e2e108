"""snnTorch's neurons as ours, where an equation maps exactly; otherwise the reason and what to change.

With m the state that a Leaky keeps, R[t] = [m[t] > threshold] and x the current, snnTorch 1.0 computes

    zero                     m[t+1] = beta * (1 - R[t]) * m[t] + x           a reset seen at the next step: our "zero"
    zero, reset_delay=False  the same, the reset taken at once               our "zero"
    subtract                 m[t+1] = beta * m[t] + x - R[t] * threshold     our "subtract_late"; "subtract" at beta 1
    subtract, reset_delay=False   m is lowered at once, and a state that is still above the threshold is lowered by the
                             next R too, though no spike says so              refused
    none                     m[t+1] = beta * m[t] + x                         our "none"

Synaptic adds u[t+1] = alpha * u[t] + x in the place of x, and no reset touches u: our neuron with a current decay. Its
delayed reset to zero throws away what arrives at the next step, which no neuron here does; reset_delay=False is our
"zero". Its other resets are those above.

Lapicque keeps (1 - dt / RC) of m and adds x * dt / C: the same neuron with its threshold divided by dt / C. Its reset
to zero throws away the current of the next step too, which no neuron here does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from snnkd_deploy.frontend.values import State
from snnkd_deploy.ir import Array, Neuron, Reset, Shape
from snnkd_deploy.trace import Refusal

NAMED: dict[str, State] = {"syn": "current", "mem": "membrane"}
STATES = ("mem", "syn", "spk", "syn_exc", "syn_inh")
"""Buffers in which snnTorch's neurons keep what they remember."""
UNHELD = {
    "Alpha": "two synaptic currents beside the membrane",
    "RLeaky": "a connection from its own spikes",
    "RSynaptic": "a second state variable and a connection from its own spikes",
    "SLSTM": "an LSTM's gates",
    "SConv2dLSTM": "an LSTM's gates",
}


@dataclass(frozen=True)
class Mapped:
    """The neuron that spikes alike, and what one of its spikes is worth to the layers behind."""

    node: Neuron
    worth: float = 1.0


def is_snntorch(module: nn.Module) -> bool:
    """Whether a module is a neuron of snnTorch; snnTorch is not imported for that."""
    return any(
        kind.__name__ == "SpikingNeuron" and kind.__module__.startswith("snntorch.") for kind in type(module).mro()
    )


def emptied(model: nn.Module) -> None:
    """Empty the state of every neuron, so that a run starts at zero; what autograd still holds of it is let go."""
    for module in model.modules():
        for name in STATES if is_snntorch(module) else ():
            if isinstance(module._buffers.get(name), torch.Tensor):
                module._buffers[name] = torch.zeros(0)


def state_kinds(module: nn.Module) -> tuple[State, ...]:
    """What a neuron takes behind its input, and returns behind its spikes, in order."""
    return ("current", "membrane") if type(module).__name__ == "Synaptic" else ("membrane",)


def given_states(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[State, Any]:
    """The states that a call was given."""
    kinds = state_kinds(module)
    given = dict(zip(kinds, args[1:], strict=False))
    return given | {kind: kwargs[name] for name, kind in NAMED.items() if name in kwargs and kind in kinds}


def mapped(module: Any, path: str, shape: Shape) -> Mapped:
    """Our neuron for one of snnTorch's that is fed values of `shape`. Refusal lists every reason against it."""
    kind = type(module).__name__
    if kind not in ("Leaky", "Lapicque", "Synaptic"):
        holds = UNHELD.get(kind, "an equation of its own")
        raise Refusal(f"{kind} has {holds}, for which no target has room; use snn.Leaky or snn.Synaptic")
    reasons = _unlike(module)
    beta, gain = _lapicque(module) if kind == "Lapicque" else (_values(module.beta, "beta", shape, reasons), 1.0)
    threshold = _values(module.threshold, "threshold", shape, reasons)
    if not 0 <= np.min(beta) <= np.max(beta) <= 1 and kind == "Lapicque":
        reasons.append(
            f"it keeps {float(beta):g} of its membrane; accepted is 0..1, so a smaller time_step or a larger R * C"
        )
    if not gain > 0:
        reasons.append(f"it scales its current by {gain:g}; a positive factor is needed")
    if threshold.min() <= 0:
        reasons.append(f"threshold {threshold.min():g}: it fires at rest; a threshold above 0 is needed")
    decay = np.clip(beta, 0, 1)  # as Leaky does it
    current = np.clip(_values(module.alpha, "alpha", shape, reasons), 0, 1) if kind == "Synaptic" else np.zeros(())
    reset = _reset(module, kind, decay, reasons)
    if reasons:
        raise Refusal("; ".join(reasons))
    assert reset is not None
    node = Neuron(
        name=path,
        inputs=(),
        decay=_number_or_all(decay),
        threshold=threshold / gain,
        reset=reset,
        current_decay=_number_or_all(current),
    )
    return Mapped(node, float(module.graded_spikes_factor))


def _unlike(module: Any) -> list[str]:
    """What makes its spikes differ from any neuron here, whatever its reset."""
    reasons = []
    if module.inhibition:
        reasons.append("inhibition lets one neuron of the layer fire and silences the others; leave it out")
    if module.state_quant:
        reasons.append("state_quant rounds the membrane; leave it out, the target's own integers are used here")
    if module.graded_spikes_factor.numel() > 1:
        reasons.append("graded_spikes_factor has several values; one is accepted")
    return reasons


def _reset(module: Any, kind: str, decay: Array, reasons: list[str]) -> Reset | None:
    mechanism = module.reset_mechanism
    if mechanism == "none":
        return "none"
    if mechanism == "zero":
        if kind == "Leaky" or (kind == "Synaptic" and not module.reset_delay):
            return "zero"
        use = "reset_delay=False" if kind == "Synaptic" else "snn.Leaky(reset_mechanism='zero')"
        reasons.append(f"{kind}'s reset to zero drops what arrives at the next step too; use {use}, and train again")
        return None
    if kind != "Lapicque" and not module.reset_delay:
        reasons.append(
            "reset_mechanism 'subtract' with reset_delay=False subtracts twice where more than the threshold is left; "
            "use reset_delay=True, or reset_mechanism='zero', and train again"
        )
        return None
    return "subtract" if np.all(decay == 1) else "subtract_late"


def _values(values: torch.Tensor, name: str, shape: Shape, reasons: list[str]) -> Array:
    """A parameter of a layer: `()`, or `(channels,)` where each feature or channel has its own."""
    array = np.asarray(values.detach().double().numpy())
    if array.size == 1 or (array == array.flat[0]).all():
        return np.asarray(float(array.flat[0]))
    along = (shape[0], *[1] * (len(shape) - 1))
    if array.shape == along:
        return array.reshape(-1)
    reasons.append(
        f"{name} has shape {array.shape} on a layer of shape {shape}; accepted are one, or one per channel, {along}"
    )
    return np.asarray(1.0)


def _number_or_all(values: Array) -> float | Array:
    return values if values.ndim else float(values)


def _lapicque(module: Any) -> tuple[Array, float]:
    """What it keeps of its membrane, and by what it multiplies its current."""
    resistance, capacity, step = (
        float(one.detach().double().reshape(-1)[0]) for one in (module.R, module.C, module.time_step)
    )
    return np.asarray(1 - step / (resistance * capacity)), step / capacity
