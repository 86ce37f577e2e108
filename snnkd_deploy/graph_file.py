"""Graphs in one safetensors file: tensors by `graph/node/field`, everything else as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from snnkd_deploy.check import graph_problems
from snnkd_deploy.errors import BundleError
from snnkd_deploy.ir import KINDS, LATER, Array, Graph, Node, Stage, describe

FORMAT = "snnkd-deploy/graphs 1"
PLAIN = ("name", "timesteps", "origin")


def save_graphs(path: Path, graphs: Mapping[str, Graph]) -> None:
    """Write graphs under their keys; numbers keep their width, and the same graphs give the same bytes."""
    tensors: dict[str, Array] = {}
    header: dict[str, Any] = {}
    for key, graph in graphs.items():
        nodes = []
        for node in graph:
            plain, arrays = describe(node)
            nodes.append(plain)
            tensors |= {f"{key}/{node.name}/{name}": np.array(array, order="C") for name, array in arrays.items()}
        header[key] = {**{name: getattr(graph, name) for name in PLAIN}, "stage": graph.stage.name, "nodes": nodes}
    path.write_bytes(_ordered(save(tensors, {"format": FORMAT, "graphs": json.dumps(header)})))


def load_graphs(path: Path) -> dict[str, Graph]:
    """The graphs of a file; BundleError if it is missing, truncated, of another format or not well formed."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BundleError(f"cannot read the graphs in {path}: {error}") from error
    if metadata.get("format") != FORMAT:
        raise BundleError(f"{path}: format {metadata.get('format')!r}, this version reads {FORMAT!r}")
    try:
        header = json.loads(metadata["graphs"])
        graphs = {key: _graph(key, entry, tensors) for key, entry in header.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    for key, graph in graphs.items():
        if problems := graph_problems(graph):
            raise BundleError(f"{path}: {key} is not a network: {problems[0]}")
    return graphs


def _ordered(data: bytes) -> bytes:
    """The same file, its header (behind 8 bytes of length) sorted: safetensors shuffles the keys of the metadata."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of 8
    return len(header).to_bytes(8, "little") + header + data[end:]


def _graph(key: str, entry: Mapping[str, Any], tensors: Mapping[str, Array]) -> Graph:
    nodes = tuple(_node(key, plain, tensors) for plain in entry["nodes"])
    name, origin = str(entry["name"]), str(entry["origin"])
    timesteps, stage = int(entry["timesteps"]), Stage[entry["stage"]]
    return Graph(nodes=nodes, timesteps=timesteps, stage=stage, name=name, origin=origin)


def _node(key: str, plain: Mapping[str, Any], tensors: Mapping[str, Array]) -> Node:
    kind = KINDS[plain["kind"]]
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in fields(kind):
        stored = tensors.get(f"{key}/{plain['name']}/{field.name}")
        if stored is not None:
            values[field.name] = stored
        elif field.name in plain:
            value = plain[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
        elif field.name in LATER:
            values[field.name] = LATER[field.name]
        else:
            raise KeyError(f"{plain['name']}: no {field.name}")
        accepted = get_args(hints[field.name]) or (hints[field.name],)
        per_channel = stored is not None and len(accepted) > 1
        if float in accepted and not per_channel and not isinstance(values[field.name], float | int):
            raise TypeError(f"{plain['name']}: {field.name} is not a number")
    return kind(**values)
