"""Exporters by name: the modules of the folder `exporters`, and those that other packages register.

Another package adds one with the entry point group `snnkd_deploy.exporters`: its name, and the module.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, cast

import snnkd_deploy.exporters
from snnkd_deploy.errors import ConfigError, UnknownNameError
from snnkd_deploy.ir import Graph
from snnkd_deploy.proof import Proof
from snnkd_deploy.target import Target

GROUP = "snnkd_deploy.exporters"


class Exporter(Protocol):
    """What a module must have to be an exporter."""

    suffix: str
    """Of the file, with its dot."""
    proofs: tuple[Proof, ...]
    """Ways to run a written file; the first is the format's own runtime."""

    def write(self, graph: Graph, target: Target, path: Path, **options: str) -> dict[str, Any]:
        """Write a LEGAL graph; returns what a loader must be told, for the manifest.

        A module that takes options has a mapping `options`: what each may be, the default first. One that offers
        `numbers=float` is given the FOLDED graph for it, and its file is held against the float simulation.

        What it writes beside `path`, in the same folder, belongs to the bundle too.
        """


def exporter_names() -> list[str]:
    """Every exporter that can be found, in alphabetical order."""
    return sorted({*_shipped(), *_registered()})


def load_exporter(name: str) -> Exporter:
    """The exporter called `name`. ConfigError if the module lacks a part of `Exporter`."""
    if name in _shipped():
        module = import_module(f"snnkd_deploy.exporters.{name}")
    elif name in (others := _registered()):
        module = others[name].load()
    else:
        raise UnknownNameError("exporter", name, exporter_names())
    missing = [part for part in ("suffix", "proofs", "write") if not hasattr(module, part)]
    if missing:
        raise ConfigError(f"exporter {name!r} ({module.__name__}) has no {', '.join(missing)}")
    return cast(Exporter, module)


def chosen_options(name: str, exporter: Exporter, given: Mapping[str, str]) -> dict[str, str]:
    """Every option of an exporter with its value, given or default. ConfigError lists all that it does not take."""
    known: Mapping[str, tuple[str, ...]] = getattr(exporter, "options", {})
    accepted = ", ".join(f"{key}={'|'.join(values)}" for key, values in known.items()) or "none"
    problems = [f"{key}={value}" for key, value in given.items() if value not in known.get(key, ())]
    if problems:
        raise ConfigError(f"the {name} exporter takes no {', '.join(problems)}; its options: {accepted}")
    return {key: given.get(key, values[0]) for key, values in known.items()}


def _shipped() -> list[str]:
    return [one.name for one in pkgutil.iter_modules(snnkd_deploy.exporters.__path__) if not one.name.startswith("_")]


def _registered() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
