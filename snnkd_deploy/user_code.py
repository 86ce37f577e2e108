"""Networks from the user's own code, `path.py:function` or `module:function`, and a file of weights for them."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from snnkd_deploy.errors import ConfigError, InputError, UnknownNameError

WRAPPED = ("state_dict", "model_state_dict", "model", "net")
"""Keys below which training scripts store the state dict, among other things."""
PREFIXES = ("_orig_mod.", "module.")
"""What torch.compile and DataParallel put in front of each name."""
STATES = ("mem", "syn", "spk")
"""Buffers of snnTorch's neurons: what they remember is no weight."""
SHOWN = 8
"""Keys of a file that holds no state dict that are named."""
LIBRARIES = (*(sysconfig.get_path(one) for one in ("stdlib", "purelib", "platlib")), str(Path(__file__).parent), "<")
"""Where the code of others lies; what is frozen into the interpreter has a name in angle brackets."""
ACCEPTED = "a state dict, as .safetensors or by torch.save(network.state_dict(), FILE)"


def load_network(reference: str, weights: Path | str | None = None, **offered: Any) -> nn.Module:
    """The network that `reference` names, with `weights` if given: a function or class that is called, or a module.

    It is called with those of the keywords `offered` that it names. Folder of the file, or for `module:function` the
    working directory, is there to import from. ConfigError for a reference that is not of that form or names nothing,
    InputError for a missing file, for code that raises, or that gives no torch.nn.Module.
    """
    place, name = _split(reference)
    with _beside(place):
        made = _called(_named(place, name), reference, offered)
    if not isinstance(made, nn.Module):
        raise InputError(f"{reference} gave a {type(made).__name__}; a torch.nn.Module is needed")
    return made if weights is None else load_weights(made, weights)


def opened(model: Any, weights: Path | str | None = None, **offered: Any) -> nn.Module:
    """A network that is one already, or that a reference names, as above. ConfigError if it is neither."""
    if isinstance(model, nn.Module):
        return model if weights is None else load_weights(model, weights)
    if not isinstance(model, str):
        met = type(model).__name__
        raise ConfigError(f"model: met a {met}; a torch.nn.Module, path.py:function, module:function or .nir is needed")
    return load_network(model, weights, **offered)


def source_file(reference: str) -> Path:
    """The file that the code of `reference` is in. ConfigError and InputError as above."""
    place, _ = _split(reference)
    if place.endswith(".py"):
        return Path(place)
    with _beside(place):
        return Path(inspect.getfile(_importable(place)))


def load_weights(module: nn.Module, path: Path | str) -> nn.Module:
    """`module` with the weights of a .safetensors file, or of a state dict that torch.save wrote.

    The state dict may lie where training scripts put it (`WRAPPED`), its names may begin with what wrappers add
    (`PREFIXES`). InputError lists every name that is missing, unknown or of another shape; nothing is taken over then.
    """
    file, wanted = Path(path), module.state_dict()
    given = _plain(_state(file), wanted)
    shapes = [
        f"{name} is {tuple(given[name].shape)} in the file, {tuple(value.shape)} in the network"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    missing, more = [name for name in wanted if name not in given], [name for name in given if name not in wanted]
    problems = shapes + ([f"missing in the file: {', '.join(missing)}"] if missing else [])
    problems += [f"not in the network: {', '.join(more)}"] if more else []
    if problems:
        raise InputError("\n  - ".join([f"{file} does not hold the weights of this network:", *problems]))
    module.load_state_dict(given)
    return module


def told(error: BaseException) -> str:
    """Kind, first line of the message and, where there is one, the place in the user's code, or else the innermost."""
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(LIBRARIES)]
    if isinstance(error, SyntaxError) or not frames:
        return line  # a SyntaxError says itself where
    frame = (own or frames)[-1]
    return f"{line} ({Path(frame.filename).name}, line {frame.lineno})"


def _split(reference: str) -> tuple[str, str]:
    place, _, name = reference.rpartition(":")
    importable = bool(place) and all(part.isidentifier() for part in place.split("."))
    if not name.isidentifier() or not (place.endswith(".py") or importable):
        raise ConfigError(
            f"{reference!r} names no network; accepted is path.py:function or module:function, whose function returns "
            "a torch.nn.Module"
        )
    return place, name


@contextmanager
def _beside(place: str) -> Iterator[None]:
    """Modules beside the file can be imported, as if it were started itself; a module is found from here."""
    before = list(sys.path)
    sys.path.insert(0, str(Path(place).resolve().parent if place.endswith(".py") else Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before


def _named(place: str, name: str) -> Any:
    code = _run(Path(place)) if place.endswith(".py") else _importable(place)
    if not callable(found := getattr(code, name, None)):
        known = [key for key, value in vars(code).items() if callable(value) and not key.startswith("_")]
        raise UnknownNameError(f"function in {place} called", name, known)
    return found


def _run(path: Path) -> ModuleType:
    """The module in a file, run anew each time."""
    if not path.is_file():
        raise InputError(f"no file {path}")
    spec = importlib.util.spec_from_file_location(f"_user_code_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles of the file look it up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # code of the user may raise anything
        del sys.modules[spec.name]
        raise InputError(f"{path} cannot be run: {told(error)}") from error
    return module


def _importable(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # as above
        raise InputError(f"module {name} cannot be imported: {told(error)}") from error


def _called(found: Any, reference: str, offered: Mapping[str, Any]) -> Any:
    if isinstance(found, nn.Module):
        return found
    try:
        accepted = inspect.signature(found).parameters
        return found(**{key: value for key, value in offered.items() if key in accepted})
    except (Exception, SystemExit) as error:  # as above
        given = ", ".join(offered) or "nothing"
        raise InputError(f"{reference} raised {told(error)}; of {given} it is given what it names") from error


def _state(file: Path) -> Mapping[str, Tensor]:
    """The state dict in a file; pickles are read as tensors alone, no code in them is run."""
    if not file.is_file():
        raise InputError(f"no file of weights {file}")
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise nearly anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"cannot read weights from {file}: {reason}; accepted is {ACCEPTED}") from error
    while inner := next((found[key] for key in WRAPPED if _holds(found, key)), None):
        found = inner
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        met = ", ".join([*map(str, found)][:SHOWN]) if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise InputError(f"{file} holds {met}; accepted is {ACCEPTED}")
    return {str(key): value for key, value in found.items()}


def _holds(found: Any, key: str) -> bool:
    return isinstance(found, Mapping) and isinstance(found.get(key), Mapping)


def _plain(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names as the network has them, without what wrappers put in front, and without the state of neurons."""
    named = {}
    for name, value in given.items():
        short = name
        for prefix in (*PREFIXES, *PREFIXES):
            short = short if short in wanted else short.removeprefix(prefix)
        named[name if short in given else short] = value
    return {name: value for name, value in named.items() if name in wanted or name.split(".")[-1] not in STATES}
