"""A network small enough to price by hand, and its report."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from snnkd_deploy import energy
from snnkd_deploy.ir import (
    Array,
    Attention,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Relu,
    Stage,
    SumPool2d,
)
from snnkd_deploy.price_files import load_tables, parse_table
from snnkd_deploy.prices import Table
from snnkd_deploy.simulate import sample_axis

PIXELS = np.array([[[[3, 0], [0, 1]]], [[[0, 0], [2, 0]]]])  # two pictures of 1 x 2 x 2
CONV = np.array([[[[1]]], [[[0]]]])
READOUT = np.array([[1, 0], [-1, 2]])


def student() -> Graph:
    """1x1 convolution on a still picture, IF neurons of threshold 2, a 2x2 sum pool, a readout; three steps.

    Channel 0 sees the pixels, channel 1 its bias of 3 alone. Soft reset: pixel 3 fires at each step (potential 3, 4,
    5), pixel 1 at the third, pixel 2 at the second and third (2, 4, 4), channel 1 at each.
    """
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(1, 2, 2), high=3),
        Conv2d(name="conv", inputs=("input",), weight=CONV, bias=np.array([0, 3])),
        Neuron(name="lif", inputs=("conv",), decay=1.0, threshold=np.asarray(2), reset="subtract"),
        SumPool2d(name="pool", inputs=("lif",), kernel=(2, 2), stride=(2, 2)),
        Flatten(name="flat", inputs=("pool",)),
        Linear(name="fc", inputs=("flat",), weight=READOUT, bias=np.array([1, 0])),
        Output(name="output", inputs=("fc",)),
    )
    return Graph(nodes=nodes, timesteps=3, stage=Stage.LEGAL, name="student")


def teacher(hidden: int = 3) -> Graph:
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(1, 2, 2), high=3),
        Flatten(name="flat", inputs=("input",)),
        Linear(name="one", inputs=("flat",), weight=np.ones((hidden, 4)), bias=np.zeros(hidden)),
        Relu(name="relu", inputs=("one",)),
        Linear(name="two", inputs=("relu",), weight=np.ones((2, hidden)), bias=np.ones(2)),
        Output(name="output", inputs=("two",)),
    )
    return Graph(nodes=nodes, timesteps=1, stage=Stage.FOLDED, name="teacher")


def report(
    graph: Graph | None = None,
    taught: Graph | None = None,
    inputs: Array = PIXELS,
    unrelayed: Graph | None = None,
    **more: Any,
) -> energy.Report:
    graph = graph or student()
    return energy.build(
        graph=graph,
        inputs=inputs,
        labels=np.zeros(inputs.shape[sample_axis(graph)], dtype=np.int64),
        teacher=taught,
        data={"name": "two pictures"},
        accuracy={"snn": 0.5, "ann": None},
        name="tiny",
        target="onnx",
        unrelayed=unrelayed,
        **more,
    )


def row(found: energy.Report, name: str) -> dict[str, Any]:
    return next(one for one in found["layers"] if one["name"] == name)


def only(prices: str, scope: str = "arithmetic", included: str = "", mapped: str = "", more: str = "") -> Table:
    """A table that says nothing but these prices, and what stands in `more`."""
    head = f'name="t"\ntitle="t"\nscope="{scope}"\nnode_nm=1\nvolt=1\nevidence="derived"\nsource="s"\ncovers="c"\n'
    lists = f"excludes=[]\nincluded=[{included}]\nmapped={[mapped] if mapped else []}\n"
    return parse_table(f"{head}{lists}[prices]\n{prices}\n{more}", "t.toml")


def attentive(kind: type[Node]) -> Graph:
    """Two channels of 1 x 3 spikes, or of what a ReLU leaves of them, multiplied with themselves; two steps, or one."""
    spiking = kind is Neuron
    state = {"decay": 0.0, "threshold": np.asarray(0)} if spiking else {}
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(2, 1, 3), high=1, static=False),
        kind(name="lif", inputs=("input",), **state),  # type: ignore[arg-type]
        Attention(name="attention", inputs=("lif", "lif", "lif"), heads=1),
        Flatten(name="flat", inputs=("attention",)),
        Linear(name="fc", inputs=("flat",), weight=np.arange(12).reshape(2, 6), bias=np.zeros(2, dtype=int)),
        Output(name="output", inputs=("fc",)),
    )
    return Graph(nodes=nodes, timesteps=2, stage=Stage.LEGAL if spiking else Stage.FOLDED, name="attentive")


FLAT = """
[memory]
word_bits = 8
sizes_bytes = [0, 1000]
access_pj = [1.0, 1.0]
values = "whole"
value_bits = 8
event_bits = 8
fifo_entries = 10
scale = [0.5, 1, 2]
evidence = "derived"
source = "one pJ for every access"
"""


def priced(*tables: Table, taught: Graph | None = None) -> energy.Report:
    """The report of the small network under these tables, or all that are shipped; nobody may change it."""
    return energy.price(report(taught=taught), tables) if tables else _under_all_tables(taught is not None)


@functools.cache
def _under_all_tables(taught: bool) -> energy.Report:
    return energy.price(report(taught=teacher() if taught else None), load_tables())


def entry_of(found: energy.Report, name: str) -> dict[str, Any]:
    return next(one for one in found["energy"] if one["table"] == name)
