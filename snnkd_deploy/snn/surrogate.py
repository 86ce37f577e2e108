"""Surrogate gradients: what stands for the derivative of a spike by the membrane, by name.

Each is a plain function of x = v - threshold and is at its largest at x = 0. Only training uses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from snnkd_deploy.errors import UnknownNameError

Surrogate = Callable[[Tensor], Tensor]


def atan(x: Tensor) -> Tensor:
    """1 / (1 + (pi x)^2): Fang et al., ICCV 2021, with alpha = 2."""
    return torch.addcmul(x.new_ones(()), x, x, value=math.pi**2).reciprocal()  # two passes over memory instead of four


def sigmoid(x: Tensor) -> Tensor:
    """4 p (1 - p) with p = sigmoid(4 x): the choice of rate-based backpropagation, Yu et al., NeurIPS 2024."""
    p = torch.sigmoid(4 * x)
    return 4 * p * (1 - p)


def triangle(x: Tensor) -> Tensor:
    """max(0, 1 - |x|): Deng et al., ICLR 2022, with width 1."""
    return (1 - x.abs()).clamp(min=0)


def rectangle(x: Tensor) -> Tensor:
    """1 where |x| < 0.5, else 0: Wu et al., Frontiers in Neuroscience 2018, with width 1."""
    return (x.abs() < 0.5).to(x.dtype)


SURROGATES: dict[str, Surrogate] = {f.__name__: f for f in (atan, sigmoid, triangle, rectangle)}


def surrogate(name: str) -> Surrogate:
    """The surrogate of that name."""
    if name not in SURROGATES:
        raise UnknownNameError("surrogate", name, SURROGATES)
    return SURROGATES[name]
