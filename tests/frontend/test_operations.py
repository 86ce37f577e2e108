"""Functions between modules: what they compute is what the graph computes; everything else is refused with its line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.errors import TraceError
from snnkd_deploy.frontend.network import read
from snnkd_deploy.samples import Samples
from snnkd_deploy.simulate import simulate
from tests.frontend.nets import pictures, seen

SAMPLES = pictures(0, 5, (2, 6, 6))
KERNEL = torch.linspace(-1, 1, 3 * 2 * 3 * 3).reshape(3, 2, 3, 3)
MATRIX = torch.linspace(-1, 1, 4 * 72).reshape(4, 72)
PER_CHANNEL = torch.tensor([0.5, 2.0]).reshape(1, 2, 1, 1)


class Net(nn.Module):
    """A function of one tensor."""

    def __init__(self, inner: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.fc = inner, nn.Linear(72, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def inplace(x: Tensor) -> Tensor:
    y = x * 2
    y += x
    return y.relu_().flatten(1)


SAME: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda x: x.view(x.size(0), -1),
    "reshape": lambda x: x.reshape(x.shape[0], -1),
    "flatten": lambda x: torch.flatten(x, start_dim=1),
    "relu and a negative": lambda x: functional.relu(0.5 - x).flatten(1),
    "in place": inplace,
    "a factor per channel": lambda x: (x * PER_CHANNEL - PER_CHANNEL / 3).flatten(1),
    "casts": lambda x: x.float().to(torch.float32).contiguous().detach().clone().flatten(1),
    "average pool": lambda x: functional.avg_pool2d(x, 2).flatten(1),
    "average pool with names": lambda x: functional.avg_pool2d(x, kernel_size=3, stride=1).flatten(1),
    "max pool": lambda x: functional.max_pool2d(x, 3, 2).flatten(1),
    "global pool": lambda x: functional.adaptive_avg_pool2d(x, 1).squeeze(),
    "mean over positions": lambda x: x.mean((2, 3)),
    "mean that keeps axes": lambda x: torch.mean(x, dim=[-2, -1], keepdim=True).flatten(1),
    "functional conv": lambda x: functional.conv2d(x, KERNEL.to(x.dtype), padding=1, stride=2).flatten(1),
    "functional conv, padded unevenly": lambda x: functional.conv2d(
        x, KERNEL[..., :2, :1].to(x.dtype), padding="same"
    ).flatten(1),
    "functional conv, transposed": lambda x: functional.conv_transpose2d(
        x, KERNEL[:2].to(x.dtype), torch.ones(2).to(x.dtype), 2, 1, output_padding=1
    ).flatten(1),
    "padded pools": lambda x: functional.max_pool2d(functional.avg_pool2d(x, 3, 2, padding=1), 2, padding=1).flatten(1),
    "functional dense": lambda x: functional.linear(x.flatten(1), MATRIX.to(x.dtype)),
    "a sum": lambda x: (functional.avg_pool2d(x, 2) + functional.max_pool2d(x, 2)).flatten(1),
    "torch.add": lambda x: torch.add(torch.relu(x), x).flatten(1),
    "a sum with zeros": lambda x: (x + torch.zeros_like(x)).flatten(1),
    "dropout in evaluation": lambda x: functional.dropout(x.flatten(1), 0.5, False),
    "the same of x.data": lambda x: x.data.flatten(1),
}


@pytest.mark.parametrize("name", SAME)
def test_the_graph_computes_what_the_function_computes(name: str) -> None:
    found = read(Net(SAME[name]), SAMPLES)
    met = simulate(found.graph, SAMPLES.integers(slice(None))).logits
    np.testing.assert_allclose(met, SAME[name](seen(SAMPLES)).numpy(), rtol=1e-5, atol=1e-7)


ROW = pictures(1, 5, (2, 11))
VOLUME = pictures(2, 5, (2, 4, 3, 5))
SIDES: dict[str, tuple[Samples, Callable[[Tensor], Tensor]]] = {
    "conv1d": (ROW, lambda x: functional.conv1d(x, KERNEL[..., 0].to(x.dtype), None, 2, 1).flatten(1)),
    "conv_transpose1d": (
        ROW,
        lambda x: functional.conv_transpose1d(x, KERNEL[:2, :, 0].to(x.dtype), stride=2).flatten(1),
    ),
    "pools of a row": (ROW, lambda x: functional.max_pool1d(functional.avg_pool1d(x, 2), 2).flatten(1)),
    "mean of a row": (ROW, lambda x: x.mean(2)),
    "conv3d": (VOLUME, lambda x: functional.conv3d(x, KERNEL[..., None].to(x.dtype), padding=1).flatten(1)),
    "pools of a volume": (VOLUME, lambda x: functional.avg_pool3d(functional.max_pool3d(x, 2, 1), 2, 1).flatten(1)),
    "mean of a volume": (VOLUME, lambda x: x.mean((2, 3, 4))),
}


@pytest.mark.parametrize("name", SIDES)
def test_values_may_have_any_number_of_sides(name: str) -> None:
    samples, function = SIDES[name]
    found = read(Net(function), samples)
    met = simulate(found.graph, samples.integers(slice(None))).logits
    np.testing.assert_allclose(met, function(seen(samples)).numpy(), rtol=1e-5, atol=1e-7)


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "unknown": (lambda x: torch.sigmoid(x).flatten(1), r"sigmoid \(test_operations.py:\d+\): sigmoid has no node"),
    "product": (lambda x: (x * x).flatten(1), "a product of two values has no node"),
    "difference": (lambda x: (torch.relu(x) - x).flatten(1), "a difference of two values has no node"),
    "twice": (lambda x: (x + x).flatten(1), "adds a value to itself; use a weight of 2"),
    "alpha": (lambda x: torch.add(torch.relu(x), x, alpha=2).flatten(1), "alpha is not 1"),
    "training": (lambda x: functional.dropout(x, 0.5).flatten(1), "drops values in evaluation too"),
    "shape": (lambda x: x.view(len(x), 8, 9).flatten(1), r"view makes \(8, 9\) of \(2, 6, 6\)"),
    "part": (lambda x: torch.relu(x)[:, 0].flatten(1), "picks a part of a value"),
    "step": (lambda x: x[0].flatten(1), r"one still picture of shape \(2, 6, 6\); if that is \(time, ...\), say with"),
    "axes": (lambda x: x.permute(0, 2, 3, 1).flatten(1), "moves axes; accepted is to swap time and batch"),
    "mean": (lambda x: x.mean(1).flatten(1), r"mean over \(1,\); accepted are the time axis, and \(2, 3\)"),
    "total": (lambda x: x.sum((2, 3)), "sum has a node over time alone"),
    "integers": (lambda x: x.to(torch.int64).flatten(1), "turns values into torch.int64"),
    "constant": (lambda x: (x + torch.rand(6, 6)).flatten(1), "a constant that differs within a channel"),
    "rounding": (lambda x: torch.div(x, 2, rounding_mode="floor").flatten(1), "without rounding"),
    "weights": (lambda x: functional.linear(x.flatten(1), x.flatten(1)), "weights that are computed from the input"),
    "transposed": (lambda x: x.mT.flatten(1), "x.T and the like have no node"),
    "pool": (lambda x: functional.avg_pool2d(x, 2, ceil_mode=True).flatten(1), "ceil_mode .* are not accepted"),
    "stack": (
        lambda x: torch.stack([x, torch.relu(x)]).flatten(1),
        "stacks values that are not the steps of one layer",
    ),
    "channels": (lambda x: torch.cat([x, x], 1).flatten(1), "cat has no node"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_node_is_refused_with_its_line(name: str) -> None:
    function, reason = REFUSED[name]
    with pytest.raises(TraceError, match=reason):
        read(Net(function), SAMPLES)
