"""Run a network with functions in the place of some of its modules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


class _As(nn.Module):
    """A function in the place of a module."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def twin(module: nn.Module, replacement: Callable[[nn.Module], Function | None]) -> Any:
    """The same network around the same parameters and buffers, with a function wherever `replacement` gives one."""
    if (function := replacement(module)) is not None:
        return _As(function)
    if not module._modules:
        return module
    same = copy.copy(module)
    same._modules = {name: child and twin(child, replacement) for name, child in module._modules.items()}
    return same
