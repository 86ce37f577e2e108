"""A target's rules: one TOML file, read into frozen dataclasses; no default is hidden in Python."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from snnkd_deploy.errors import ConfigError, UnknownNameError
from snnkd_deploy.ir import KINDS, Reset

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Weights:
    """Stored weights are integers in `minimum..maximum`; `granularity` lists what may share a scale."""

    minimum: int
    maximum: int
    granularity: tuple[Literal["layer", "channel"], ...]
    source: str


@dataclass(frozen=True)
class Range:
    """An integer in `minimum..maximum`, in weight units."""

    minimum: int
    maximum: int
    source: str


@dataclass(frozen=True)
class Decay:
    """The factor that is kept each step is `numerator / 2**bits`, the product truncated toward zero."""

    bits: int
    minimum_numerator: int
    granularity: tuple[Literal["layer", "channel"], ...]
    """What may have a decay of its own: the neurons of a `layer`, those of a `channel`."""
    exact_in_float32: bool
    """The format's readers hold the membrane in float32: only leaks that float32 computes exactly are accepted."""
    source: str


@dataclass(frozen=True)
class Current:
    """Neurons that keep a current (Neuron.current_decay), by fractions and in a state as those of the membrane."""

    granularity: tuple[Literal["layer", "channel"], ...]
    """What may have a decay of its own."""
    bias: Literal["current", "membrane"]
    """What the bias register of a layer is added to: the current that is kept, or the membrane behind it."""
    source: str


@dataclass(frozen=True)
class State:
    """Current and membrane: signed, `bits` wide, in units of `2**-fraction_bits` weight units."""

    bits: int
    fraction_bits: int
    source: str

    @property
    def maximum(self) -> int:
        """The largest magnitude, in units of `2**-fraction_bits` weight units."""
        return (1 << (self.bits - 1)) - 1


@dataclass(frozen=True)
class Entry:
    """How a picture that is not spikes gets in: as `graded` integers, or summed by the `host` for the first layer."""

    mode: Literal["graded", "host"]
    message_bits: int
    source: str


@dataclass(frozen=True)
class Layout:
    """`any`: a graph with residual adds; `chain`: one layer after the other. Kernel sides, strides, groups: a limit."""

    wiring: Literal["any", "chain"]
    maximum_side: int
    source: str


@dataclass(frozen=True)
class Resources:
    """The tables of a chip's cores, for an estimate of how many a network takes; a limit left out is not published."""

    cores_per_chip: int
    neurons_per_core: int
    synapse_bits_per_core: int
    input_axons_per_core: int | None
    output_axons_per_core: int | None
    weight_bits: tuple[int, ...]
    """Widths that a stored weight can have, sign included."""
    convolutions: Literal["expanded", "shared"]
    """Whether each connection of a convolution is stored, or each weight once a core."""
    block_synapses: int
    """An axon's synapses are listed in blocks of so many at most,"""
    block_header_bits: int
    """each behind a header of so many bits,"""
    word_bits: int
    """each rounded up to words of so many bits."""
    source: str


@dataclass(frozen=True)
class Target:
    """What a chip or format can hold."""

    name: str
    title: str
    exporter: str
    nodes: tuple[str, ...]
    resets: tuple[Reset, ...]
    weights: Weights
    bias: Range
    threshold: Range
    decay: Decay
    state: State
    entry: Entry
    layout: Layout
    current: Current | None
    """None if neurons keep none: what arrives is added to the membrane, and gone."""
    resources: Resources | None
    """None for a format, which has no cores."""


def limits(target: Target) -> list[tuple[str, str, str]]:
    """Every rule of a target as text: its table in the file, what it holds, and where that comes from."""
    found = []
    for part in fields(Target):
        table = getattr(target, part.name)
        if is_dataclass(table) and not isinstance(table, type):
            values = {field.name: getattr(table, field.name) for field in fields(table)}
            source = str(values.pop("source"))
            given = (f"{key} {_plain(value)}" for key, value in values.items() if value is not None)
            found.append((part.name, ", ".join(given).replace("_", " "), source))
        elif isinstance(table, tuple):
            found.append((part.name, ", ".join(table), ""))
    return found


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)


def target_names() -> list[str]:
    """The targets that come with the package, in alphabetical order."""
    folder = resources.files("snnkd_deploy.targets")
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def load_target(name: str) -> Target:
    """The target called `name`, or the one that the `.toml` file of that path describes."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"no target file {name}")
        return parse_target(path.read_text(encoding="utf-8"), name)
    if name not in target_names():
        raise UnknownNameError("target", name, target_names(), "or give the path of a .toml file")
    file = resources.files("snnkd_deploy.targets") / f"{name}.toml"
    return parse_target(file.read_text(encoding="utf-8"), f"{name}.toml")


def parse_target(text: str, origin: str) -> Target:
    """A target from TOML text; `origin` names the file in errors, which list everything that is wrong with it."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin} is not valid TOML: {error}") from error
    problems: list[str] = []
    values = _fill(Target, table, "", problems)
    unknown = [node for node in values.get("nodes", ()) if node not in KINDS]
    problems += [f"nodes: no node {node!r}; known: {', '.join(KINDS)}" for node in unknown]
    if problems:
        raise ConfigError("\n".join([f"{origin} does not describe a target:", *(f"  - {text}" for text in problems)]))
    return Target(**values)


def _fill(kind: type, table: Mapping[str, Any], where: str, problems: list[str]) -> dict[str, Any]:
    """The constructor arguments of a dataclass from a TOML table; what is wrong is added to `problems`."""
    hints = get_type_hints(kind)
    types = {name: get_args(hint)[0] if _optional(hint) else hint for name, hint in hints.items()}
    names = [field.name for field in fields(kind)]
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            problems.append(f"unknown key {where + key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    values: dict[str, Any] = {}
    for name in names:
        if name not in table and _optional(hints[name]):
            values[name] = None
        elif name not in table:
            problems.append(f"missing key {where + name!r}")
        elif is_dataclass(types[name]):
            part = table[name] if isinstance(table[name], Mapping) else {}
            before = len(problems)
            inner = _fill(types[name], part, f"{where}{name}.", problems)
            values[name] = types[name](**inner) if len(problems) == before else None
        elif _accepts(types[name], table[name]):
            values[name] = tuple(table[name]) if isinstance(table[name], list) else table[name]
        else:
            problems.append(f"{where}{name} = {table[name]!r}: accepted is {_spell(types[name])}")
    return values


def _optional(kind: Any) -> bool:
    """Whether the key may be left out: `... | None`."""
    return type(None) in get_args(kind)


def _accepts(kind: Any, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list) and bool(value) and all(_accepts(get_args(kind)[0], one) for one in value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is not str or bool(value.strip()))


def _spell(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(repr(one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return f"a list of {_spell(get_args(kind)[0])}"
    assert not isinstance(kind, UnionType)
    return {int: "an integer", str: "a text", bool: "true or false"}[kind]
