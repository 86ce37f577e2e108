"""Where two networks part, node by node: what `diff` says of two exports, whatever their formats."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snnkd_deploy.ir import Array, Graph, Node, canonical_bytes, describe


def differences(one: Graph, other: Graph) -> list[str]:
    """The first differing value of each tensor and each differing setting; none means the same spikes for every input.

    Networks of another structure are compared up to the first node that is another.
    """
    if one.digest == other.digest:
        return []
    found = []
    if one.stage != other.stage:
        found.append(f"one is {one.stage.name.lower()}, the other {other.stage.name.lower()}")
    if one.timesteps != other.timesteps:
        found.append(f"timesteps: {one.timesteps} against {other.timesteps}")
    for first, second in zip(one.nodes, other.nodes, strict=False):
        if (what := _what(first)) != (met := _what(second)):
            return [*found, f"the structure from here on: {what} against {met}"]
        found.extend(_of_node(first, second))
    if len(one.nodes) != len(other.nodes):
        found.append(f"the structure: {len(one.nodes)} nodes against {len(other.nodes)}")
    return found


def _what(node: Node) -> str:
    return f"{type(node).__name__} {node.name}" + (f" of {', '.join(node.inputs)}" if node.inputs else "")


def _of_node(first: Node, second: Node) -> Iterator[str]:
    plain, arrays = describe(first)
    met_plain, met_arrays = describe(second)
    for key in sorted(plain.keys() | met_plain.keys()):
        if plain.get(key) != met_plain.get(key):
            yield f"{first.name}.{key}: {plain.get(key)} against {met_plain.get(key)}"
    for key in sorted(arrays.keys() & met_arrays.keys()):
        if canonical_bytes(arrays[key]) != canonical_bytes(met_arrays[key]):
            yield f"{first.name}.{key}{_first_value(arrays[key], met_arrays[key])}"
    yield from (f"{first.name}.{key}: only in one of them" for key in sorted(arrays.keys() ^ met_arrays.keys()))


def _first_value(expected: Array, met: Array) -> str:
    if expected.shape != met.shape:
        return f": shape {expected.shape} against {met.shape}"
    differs = np.asarray(expected != met)
    if not differs.any():
        return f": the same values as {expected.dtype} against {met.dtype}"
    place = tuple(int(axis[0]) for axis in np.nonzero(np.atleast_1d(differs)))
    index = f"[{', '.join(map(str, place))}]" if expected.ndim else ""
    values = (np.atleast_1d(side)[place] for side in (expected, met))
    return (
        f"{index}: {' against '.join(f'{value:.12g}' for value in values)} ({differs.sum()} of {differs.size} differ)"
    )
