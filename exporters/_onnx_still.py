"""Neurons under a current that is the same at each step: comparisons of the current take the place of a membrane.

A neuron that is reset to zero starts anew with each spike, so it fires at every k-th step, k being the first at which
it fires. And it fires within k steps if and only if its current exceeds theta(k), which falls as k grows. With steps
counted from 1, and nothing above theta(0),

    s[t] = sum over the divisors k of t of (x > theta(k)) - (x > theta(k - 1))
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from snnkd_deploy.ir import Neuron
from snnkd_deploy.simulate import membranes

from ._onnx_neuron import Membrane


def applies(held: Membrane, steps: int) -> bool:
    """Whether this neuron can be written so; its current must be a single tensor."""
    node, plain = held.node, held.plain and held.type == "float"
    return plain and steps > 1 and node.reset == "zero" and not np.ndim(node.decay) and not node.keeps_current


def spikes(held: Membrane, current: str, steps: int) -> list[str]:
    """The tensors of spikes, one per step."""
    limits = thresholds(held.node, steps)
    made: dict[float, str] = {}
    return [_spikes(held, current, terms(limits, step), step, made) for step in range(1, steps + 1)]


def thresholds(node: Neuron, steps: int) -> list[float]:
    """theta(1), theta(2), ...: of integers, the largest current that does not fire within so many steps."""
    limit = node.threshold.item()
    if not node.decay_bits:
        return [float(np.float32(limit / sum(node.decay**i for i in range(k)))) for k in range(1, steps + 1)]
    silent, found = np.ones(limit + 1, dtype=bool), list[float]()
    for _, fires in membranes(node, np.arange(limit + 1)[None, None], steps):
        silent &= ~fires[0]
        found.append(float(np.count_nonzero(silent) - 1))
    return found


def terms(limits: list[float], step: int) -> dict[float, int]:
    """1 or -1 for each threshold whose comparison counts at this step."""
    found = Counter[float]()
    for k in (k for k in range(1, step + 1) if step % k == 0):
        found[limits[k - 1]] += 1
        if k > 1:
            found[limits[k - 2]] -= 1
    return {limit: sign for limit, sign in sorted(found.items(), key=lambda one: -one[1]) if sign}


def _spikes(held: Membrane, current: str, signs: dict[float, int], step: int, made: dict[float, str]) -> str:
    """One comparison, or their sum; `made` are those that earlier steps have made."""
    nodes, name, at = held.nodes, f"spikes/{held.node.name}/{step - 1}", f"{held.node.name}/{step - 1}"
    if len(signs) == 1:
        limit = next(iter(signs))
        made.setdefault(limit, name)
        return _above(held, current, limit, name)
    total = ""
    for index, (limit, sign) in enumerate(signs.items()):
        if limit not in made:
            made[limit] = _above(held, current, limit, f"{at}/above")
        one = made[limit] if sign > 0 else held.scaled(made[limit], np.asarray(-1.0), "", f"{at}/less/{index}")
        last = index + 1 == len(signs)
        total = nodes.op("Add", [one, total], name if last else f"{at}/sum/{index}") if total else one
    return total


def _above(held: Membrane, current: str, limit: float, name: str) -> str:
    alpha, beta = held.jump(limit)
    return held.nodes.op("HardSigmoid", [current], name, alpha=alpha, beta=beta)
