"""Networks from the user's own files: `path.py:function` and a file of weights."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnkd_deploy.errors import ConfigError, InputError, TraceError

WRAPPED = ("state_dict", "model_state_dict", "model", "net")
"""Keys below which training scripts store the state dict, among other things."""


def load_module(spec: str, weights: Path | str | None = None) -> nn.Module:
    """The network of `path.py:name`, a function or class without arguments or a module, with `weights` if given.

    ConfigError if `spec` is not of that form, InputError if the file or the name is missing or its code raises.
    """
    path, colon, name = spec.rpartition(":")
    if not colon or not path.endswith(".py") or not name.isidentifier():
        raise ConfigError(f"model {spec!r}: accepted is path.py:function, whose function returns a torch.nn.Module")
    made = _called(attribute(Path(path), name), spec)
    if not isinstance(made, nn.Module):
        raise InputError(f"{spec} gave a {type(made).__name__}; a torch.nn.Module is needed")
    return made if weights is None else load_weights(made, weights)


def opened(model: Any, weights: Path | str | None = None) -> nn.Module:
    """A network that is one already, or that `path.py:function` gives. ConfigError if it is neither."""
    if isinstance(model, nn.Module):
        return model if weights is None else load_weights(model, weights)
    if not isinstance(model, str):
        met = type(model).__name__
        raise ConfigError(f"model: met a {met}; a torch.nn.Module, path.py:function or a .nir file is needed")
    return load_module(model, weights)


def attribute(path: Path, name: str) -> Any:
    """What the Python file `path` calls `name`; the file is run, with its own folder to import from."""
    if not path.is_file():
        raise InputError(f"no file {path}")
    folder, before = str(path.resolve().parent), list(sys.path)
    specification = importlib.util.spec_from_file_location(f"_snnkd_user_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, folder)
    sys.modules[specification.name] = module  # dataclasses and pickles of the file look it up
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path} cannot be run: {told(error)}") from error
    finally:
        sys.path[:] = before
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"{path} has no {name!r}; it has {', '.join(sorted(known)) or 'nothing to call'}")
    return getattr(module, name)


def load_weights(module: nn.Module, path: Path | str) -> nn.Module:
    """`module` with the weights of a .safetensors file, or of a state dict that torch.save wrote.

    InputError lists every name that is missing, unknown or of another shape; nothing is taken over then.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no file of weights {file}")
    given, wanted = _state(file), module.state_dict()
    hidden = {key for key in {*given} - {*wanted} if key.rsplit(".", 1)[-1] in ("mem", "syn", "spk")}
    given = {key: value for key, value in given.items() if key not in hidden}  # a neuron's state is not a weight
    problems = [f"{key}: not in the file" for key in wanted if key not in given]
    problems += [f"{key}: not in the network" for key in given if key not in wanted]
    problems += [
        f"{key}: {tuple(given[key].shape)} in the file, {tuple(value.shape)} in the network"
        for key, value in wanted.items()
        if key in given and given[key].shape != value.shape
    ]
    if problems:
        lines = "\n".join(f"  - {one}" for one in problems)
        raise InputError(f"{file} does not fit the network (is it of the same code?):\n{lines}")
    module.load_state_dict(given)
    return module


def evaluating(module: nn.Module) -> list[str]:
    """Put a network into evaluation; what there is to say about that. TraceError lists weights that are not finite."""
    values = [*module.named_parameters(), *module.named_buffers()]
    wrong = [key for key, value in values if value.is_floating_point() and not torch.isfinite(value).all()]
    if wrong:
        raise TraceError(
            "the network cannot be deployed:", [f"{key}: holds values that are not finite" for key in wrong]
        )
    kinds = {type(one).__name__ for one in module.modules() if one.training and _acts_in_training(one)}
    module.eval()
    return [f"was in training mode, is put into evaluation ({', '.join(sorted(kinds))})"] if kinds else []


def _acts_in_training(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd)


def _called(found: Any, spec: str) -> Any:
    if isinstance(found, nn.Module) or not callable(found):
        return found
    try:
        return found()
    except Exception as error:
        raise InputError(f"{spec} raised {told(error)}; it is called without arguments") from error


def _state(file: Path) -> dict[str, Tensor]:
    """The state dict in a file; pickles are read as tensors alone, no code in them is run."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{file} is not a file of weights: {told(error)}; accepted are .safetensors and "
            "torch.save(model.state_dict(), ...)"
        ) from error
    for key in WRAPPED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{file} holds no state dict; write one with torch.save(model.state_dict(), ...)")
    return {str(key).removeprefix("module."): value for key, value in found.items()}


def told(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
