"""Weights and optimizer state of a stage after an epoch: one safetensors file, replaced atomically, never a pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from snnkd_deploy.errors import RunError
from snnkd_deploy.files import replacing

Rows = list[dict[str, Any]]  # lines of history.csv


def write_weights(path: Path, network: nn.Module) -> None:
    """Parameters and buffers by name."""
    with replacing(path) as partial:
        partial.write_bytes(safetensors.torch.save(_plain(network.state_dict())))


def save(path: Path, trained: nn.Module, optimizer: torch.optim.Optimizer, rows: Rows) -> None:
    """Keep everything that the next epoch depends on; `rows` has one entry for each epoch done."""
    tensors = {f"weights.{name}": tensor for name, tensor in trained.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    with replacing(path) as partial:
        partial.write_bytes(safetensors.torch.save(_plain(tensors), metadata={"rows": json.dumps(rows)}))


def restore(path: Path, trained: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint back, in the memory order of the parameters: the same bits come out of the next step."""
    try:
        tensors = safetensors.torch.load_file(path)
        weights = {name.removeprefix("weights."): t for name, t in tensors.items() if name.startswith("weights.")}
        trained.load_state_dict(weights)
        _restore_optimizer(tensors, optimizer)
    except (OSError, safetensors.SafetensorError, RuntimeError, ValueError, LookupError) as error:
        raise RunError(f"cannot resume from {path}: {error}") from error


def rows(path: Path) -> Rows:
    """The history that a checkpoint holds; empty if there is no checkpoint yet."""
    if not path.exists():
        return []
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            found: Rows = json.loads((file.metadata() or {})["rows"])
    except (OSError, safetensors.SafetensorError, ValueError, LookupError) as error:
        raise RunError(f"cannot resume from {path}: {error}") from error
    return found


def _restore_optimizer(tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {number: {} for number in range(len(parameters))}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            state[int(number)][key] = _ordered_like(tensor, parameters[int(number)])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _ordered_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    return torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
