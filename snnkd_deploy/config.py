"""What to train and how: one frozen description, from a TOML file, options and defaults per data set."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from snnkd_deploy.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _number(default: Any, low: float, high: float, *, above: bool = False) -> Any:
    """A field with a range: from `low` (or, with `above`, more than `low`) to `high`."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


_CODE = re.compile(r".+\.py:.+|[A-Za-z_][\w.]*:[A-Za-z_]\w*")
AUGMENTS = ("none", "flip", "shift", "shift-flip", "crop", "cutout", "autoaugment", "resized-crop", "mixup")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a training run computes, and where."""

    dataset: str = "digits"
    data_dir: str | None = None  # folder that holds the data set, for those that come with no package
    image_size: int | None = _number(None, 8, 1024)  # height and width; None: those of the data set

    model: str = "cnn"  # the student; width and depth are explained at each model
    width: int = _number(16, 1, 4096)
    depth: int = _number(2, 1, 64)
    teacher_model: str | None = None  # None, here and below: as the student
    teacher_width: int | None = _number(None, 1, 4096)
    teacher_depth: int | None = _number(None, 1, 64)
    teacher: str | None = None  # instead of training one: a finished run, or code: path.py:function, module:function
    teacher_weights: str | None = None  # here and below for code alone: file with its state_dict
    teacher_taps: str | None = None  # modules whose outputs are its features, joined by commas; None: found by itself
    teacher_normalize: str | None = None  # "MEAN/STD" of what it was trained on, one number or one per channel each
    teacher_accuracy: float | None = _number(None, 0, 1, above=True)  # that its author states
    cache_teacher: bool = False  # keep what the teacher says of each training image

    timesteps: int = _number(4, 1, 64)
    encoding: Literal["direct", "rate", "latency", "neuron"] = "direct"  # of still pictures
    readout: Literal["sum", "spikes"] = "sum"  # logits: sums of the last layer, or counts of spikes that it causes
    decay: float = _number(0.5, 0, 1, above=True)
    learn_decay: Literal["fixed", "layer", "channel"] = "fixed"  # learned ones start from decay, which is below 1
    threshold: float = _number(1.0, 0, 1e6, above=True)
    reset: Literal["zero", "subtract"] = "zero"
    surrogate: str = "atan"
    detach_reset: bool = True

    engine: str = "bptt"
    method: str = "logits"
    method_options: Mapping[str, Any] = field(default_factory=dict)

    epochs: int = _number(10, 1, 100_000)
    teacher_epochs: int = _number(8, 1, 100_000)
    batch_size: int = _number(64, 2, 65_536)  # of all processes and micro-batches together
    accumulate: int = _number(1, 1, 65_536)  # micro-batches of a batch, one after the other; BatchNorm sees one of them
    precision: Literal["fp32", "bf16"] = "fp32"  # of products and activations in training; all else is fp32
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = _number(5e-3, 0, 100, above=True)
    teacher_learning_rate: float = _number(2e-3, 0, 100, above=True)
    weight_decay: float = _number(5e-4, 0, 100)
    augment: str = field(default="none", metadata={"parts": AUGMENTS})  # joined by "+", or a list; in that order

    seed: int = _number(0, 0, 2**31 - 1)
    threads: int | None = _number(None, 1, 4096)  # None: as torch decides
    device: str = "cpu"  # cpu, cuda, cuda:0, ...
    devices: int = _number(1, 1, 4096)  # of that kind on each node, one process for each
    nodes: int = _number(1, 1, 65_536)

    def __post_init__(self) -> None:
        if problems := [*_problems(asdict(self)), *_contradictions(self)]:
            raise ConfigError("\n".join(problems))

    @property
    def foreign(self) -> bool:
        """Whether the teacher is code of the user's own."""
        return self.teacher is not None and bool(_CODE.fullmatch(self.teacher)) and not Path(self.teacher).exists()

    @property
    def data_encoding(self) -> Literal["direct", "rate", "latency"]:
        """What is done to pictures ahead of the student; input neurons are a part of it."""
        return "direct" if self.encoding == "neuron" else self.encoding

    def as_dict(self) -> dict[str, Any]:
        """All keys and values, as plain JSON types."""
        return asdict(self)


PLACE = ("threads", "device", "devices", "nodes")  # what may change while a run goes on

_LITERATURE: dict[str, Any] = {  # Rate-based backpropagation, Yu et al., NeurIPS 2024, and the works before it
    "model": "resnet",
    "width": 64,
    "augment": "crop+flip+autoaugment+cutout",
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "teacher_learning_rate": 0.1,
    "batch_size": 128,
    "epochs": 300,
    "teacher_epochs": 300,
}

DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 60, "teacher_epochs": 30, "threads": 1},  # 8x8 pixels do not keep a second core busy
    "cifar10": _LITERATURE,
    "cifar100": _LITERATURE,
}


def load_config(path: Path | str | None = None, /, **options: Any) -> TrainConfig:
    """Each setting from the options (None: not given), else the file, else the data set's default, else the default."""
    given = _joined({key: _plain(value) for key, value in options.items() if value is not None})
    problems = _unknown(given) + _problems(given)
    written = _joined(_read(Path(path))) if path is not None else {}
    problems += [f"{path}: {problem}" for problem in _unknown(written) + _problems(written)]
    if problems:
        raise ConfigError("\n".join(problems))
    chosen = {**written, **given}
    return TrainConfig(**{**DATASET_DEFAULTS.get(chosen.get("dataset", TrainConfig.dataset), {}), **chosen})


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _joined(values: dict[str, Any]) -> dict[str, Any]:
    """With `augment` as one text, if it is a list of texts."""
    parts = values.get("augment")
    if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
        return {**values, "augment": "+".join(parts) or "none"}
    return values


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _unknown(values: Mapping[str, Any]) -> list[str]:
    known = [f.name for f in fields(TrainConfig)]
    problems = []
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            problems.append(f"no setting {key!r}; {hint}")
    return problems


def _problems(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each known key whose value has the wrong type or lies out of range."""
    types = get_type_hints(TrainConfig)
    checks = {f.name: (types[f.name], f.metadata) for f in fields(TrainConfig)}
    needs = {key: _needed(value, *checks[key]) for key, value in values.items() if key in checks}
    return [f"{key} = {values[key]!r}: {need} is needed" for key, need in needs.items() if need]


def _contradictions(config: TrainConfig) -> list[str]:
    """Settings that make no sense together."""
    if config.readout == "spikes" and config.timesteps == 1:
        return ["readout 'spikes': over one step each count is 0 or 1, so classes tie; use more timesteps, or sum"]
    return []


def _needed(value: Any, kind: Any, limits: Mapping[str, Any]) -> str | None:
    """What the value should have been, or None if it is fine."""
    if type(None) in get_args(kind):
        if value is None:
            return None
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return None if value in get_args(kind) else f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is Mapping:
        return None if isinstance(value, Mapping) else "a table"
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        return _WORDS[kind]
    if parts := limits.get("parts"):
        known = all(part in parts for part in value.split("+"))
        return None if known else f"one of {', '.join(parts)}, or several joined by +,"
    return f"{_WORDS[kind]} {_range(limits)}" if limits and not _inside(value, **limits) else None


_WORDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


def _inside(value: float, low: float, high: float, above: bool) -> bool:
    return (low < value if above else low <= value) and value <= high


def _range(limits: Mapping[str, Any]) -> str:
    return f"{'above' if limits['above'] else 'from'} {limits['low']} to {limits['high']}"
