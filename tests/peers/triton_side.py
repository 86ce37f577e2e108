"""The Triton kernel in Triton's interpreter, on the CPU: `python -m tests.peers.triton_side`.

Prints by how much it differs from the modules in float64, from the C++ kernel, and from plain torch in a network.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any
from unittest.mock import patch

os.environ["TRITON_INTERPRET"] = "1"  # read where kernels are defined, so before they are

import torch
from torch import Tensor
from torch.nn import functional

from snnkd_deploy.snn import doors, kernel, models, triton_kernel
from snnkd_deploy.snn.fused import as_one
from snnkd_deploy.snn.job import Gradients, Job
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.snn.models import Plan
from snnkd_deploy.snn.rate import rate
from tests.snn.rows import EQUATIONS, differences, exact, inputs, outcome, row

Found = dict[str, dict[str, float]]
SHAPES = [(3, 5, 7, 9), (2, 1, 5, 4), (3, 70, 3, 2), (4, 32, 1, 1), (7, 12), (9, 150)]
FLAGS = list(product((False, True), repeat=3))
HARD = LIF(0.5, 1.0, "subtract", "sigmoid", False)


@contextmanager
def triton() -> Iterator[None]:
    """Tensors of the CPU go to the Triton kernel."""
    with patch.dict(doors.DOORS, {"cpu": triton_kernel}):
        yield


def neurons() -> Found:
    """Every equation, for 1 to 4 steps, and as many as there may be."""
    shape, found = (2, 3, 4, 5), Found()
    for neuron, steps in [*product(EQUATIONS, (1, 2, 3, 4)), (HARD, triton_kernel.MOST_STEPS)]:
        one, x = row(shape, neuron, steps, pool=True), inputs(shape, steps)
        found[f"{neuron} {steps}"] = against_float64(one, x)
    return found


def forms(dtype: torch.dtype) -> Found:
    """Every shape, with input that is still or not, a pool or not, a residual current or not."""
    found = Found()
    for shape, (still, pool, shortcut) in product(SHAPES, FLAGS):
        if pool and (len(shape) == 2 or min(shape[2:]) < 2):
            continue
        one, x = row(shape, HARD, 3, still=still, pool=pool), inputs(shape, 1 if still else 3, dtype)
        residual = [inputs(shape, 3, dtype).flip(0)] * shortcut
        name = " ".join(word for word, set_ in (("still", still), ("pool", pool), ("residual", shortcut)) if set_)
        against = against_float64 if dtype == torch.float32 else against_cpp
        found[f"{shape} {name}"] = against(one, x, *residual)
    return found


def against_float64(*given: Any) -> dict[str, float]:
    """A training step of a row of modules."""
    with triton():
        found = outcome(as_one, *given)
    return differences(found, exact(*given))


def against_cpp(*given: Any) -> dict[str, float]:
    """The same, against the C++ kernel, which rounds where this one does."""
    with triton():
        found = outcome(as_one, *given)
    return differences(found, outcome(as_one, *given))


def rates(dtype: torch.dtype) -> Found:
    """Mean rates and their derivative, and the way back through them, against the C++ kernel."""
    found = Found()
    for neuron, shape, pool in product(EQUATIONS, [(3, 5, 7, 9), (7, 12)], (False, True)):
        if pool and len(shape) == 2:
            continue
        results = [both_ways(door, neuron, shape, pool, dtype) for door in (triton_kernel, kernel)]
        found[f"{neuron} {shape} {pool}"] = differences(*results)
    return found


def both_ways(door: Any, neuron: LIF, shape: tuple[int, ...], pool: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    """Forward with rates, backward from a gradient of the rates."""
    x, generator = inputs(shape, 4, dtype), torch.Generator().manual_seed(0)
    mean, invstd, gain, bias = torch.rand(4, shape[1], generator=generator) + 0.5
    given: dict[str, Any] = {
        "neuron": neuron,
        "mean": mean,
        "invstd": invstd,
        "gain": gain,
        "bias": bias,
        "still": False,
    }
    spikes = functional.avg_pool2d(x, 2) if pool else torch.empty_like(x)
    means, slopes = torch.empty_like(spikes[: shape[0]]), torch.empty_like(x[: shape[0]])
    door.forward(Job(timesteps=4, x=x, pool=pool, **given), spikes, means, slopes.zero_())
    once = Job(timesteps=1, x=x[: shape[0]], pool=pool, **given)
    by = {name: torch.empty_like(slopes) for name in ("by_current", "by_x")}
    sums = {name: torch.empty(shape[1]) for name in ("by_gain", "by_bias")}
    door.backward(once, means.flip(1).contiguous(memory_format=order(means)), Gradients(**by, **sums), slopes)
    return {"spikes": spikes, "rates": means, "slopes": slopes, **by, **sums}


def order(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.ndim == 4 else torch.contiguous_format


def network(engine: Callable[[Any, Tensor], Any]) -> dict[str, float]:
    """A training step of a whole network, against plain torch: logits, and gradients by their largest difference."""
    torch.manual_seed(0)
    plan = Plan((2, 8, 8), 5, 6, 2, 3, LIF())
    student = models.channels_last(models.build("resnet", plan)).train()
    images = 3 * torch.rand(6, 2, 8, 8)
    with triton():
        found = of_a_step(engine, student, images)
    with patch.dict(os.environ, {kernel.SWITCH: "0"}):
        return differences(found, of_a_step(engine, student, images))


def of_a_step(engine: Callable[[Any, Tensor], Any], student: Any, images: Tensor) -> dict[str, Tensor]:
    """All that it computes, of a copy."""
    student = copy.deepcopy(student)
    logits = engine(student, images).logits
    torch.autograd.backward(functional.cross_entropy(logits, torch.arange(len(images)) % 5))
    slopes = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **slopes, **dict(student.named_buffers())}


def main() -> None:
    """A line of JSON."""
    torch.set_num_threads(1)
    with triton():
        assert triton_kernel.available()
    found = {
        "neurons": neurons(),
        "forms": forms(torch.float32),
        "forms, bfloat16": forms(torch.bfloat16),
        "rates": rates(torch.float32),
        "rates, bfloat16": rates(torch.bfloat16),
        "networks": {"bptt": network(lambda student, x: student.outputs(x)), "rate": network(rate)},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
