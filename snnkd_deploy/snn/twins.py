"""Run a network with functions in the place of some of its modules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


class As(nn.Module):
    """A function in the place of a module, `original`, which is no part of it."""

    def __init__(self, function: Function, module: nn.Module) -> None:
        super().__init__()
        self.function, self._of = function, (module,)

    @property
    def original(self) -> nn.Module:
        """The module that it stands for."""
        return self._of[0]

    def forward(self, x: Tensor) -> Tensor:
        """What the function makes of x."""
        return self.function(x)


def original(module: nn.Module) -> nn.Module:
    """The module itself, or the one that it stands for."""
    return module.original if isinstance(module, As) else module


def twin(module: nn.Module, replacement: Callable[[nn.Module], Function | None]) -> Any:
    """The same network around the same parameters and buffers, with a function wherever `replacement` gives one."""
    if (function := replacement(module)) is not None:
        return As(function, module)
    if not module._modules:
        return module
    same = copy.copy(module)
    same._modules = {name: child and twin(child, replacement) for name, child in module._modules.items()}
    return same
