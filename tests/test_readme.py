"""The README's tables are what the code does, its commands are commands, its outputs came from them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest

from snnkd_deploy import cli
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.distill import methods
from snnkd_deploy.errors import ConfigError, RefusedError
from snnkd_deploy.ir import (
    Add,
    Array,
    Attention,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
)
from snnkd_deploy.price_files import parse_table
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.snn.engines import ENGINES
from snnkd_deploy.target import Target, load_target, target_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
PICTURE = Input(name="x", shape=(2, 6, 6), scale=1 / 255)
SPIKES = Input(name="x", shape=(2, 6, 6), high=1, static=False)


def conv(name: str, source: str, channels: int = 2, **options: object) -> Conv2d:
    weight = np.random.default_rng(len(name)).normal(size=(channels, 2, 3, 3)) * 0.4
    values = {"weight": weight, "padding": (1, 1), **options}
    return Conv2d(name=name, inputs=(source,), bias=np.full(channels, 0.1), **values)  # type: ignore[arg-type]


def lif(name: str, source: str, decay: float | Array = 0.5, reset: str = "zero") -> Neuron:
    return Neuron(name=name, inputs=(source,), decay=decay, threshold=np.asarray(1.0), reset=reset)  # type: ignore[arg-type]


def chain(*between: Node, source: Input = PICTURE, first: Neuron | None = None, timesteps: int = 4) -> Graph:
    """conv, neuron, what is asked about, then a dense readout."""
    nodes = [source, conv("c1", "x"), first or lif("s1", "c1"), *between]
    nodes.append(Flatten(name="f", inputs=(nodes[-1].name,)))
    features = Graph(nodes=tuple(nodes), timesteps=timesteps).shapes["f"][0]
    weight = np.random.default_rng(0).normal(size=(3, features))
    nodes.append(Linear(name="r", inputs=("f",), weight=weight, bias=np.zeros(3)))
    return Graph(nodes=(*nodes, Output(name="y", inputs=("r",))), timesteps=timesteps)


def spiking_ends(source: str, *pixels: Neuron) -> Graph:
    """conv, neuron, dense layer, neurons whose spikes are counted; `pixels` stand between the picture and all that."""
    nodes = [PICTURE, *pixels, conv("c1", pixels[0].name if pixels else source), lif("s1", "c1")]
    weight = np.random.default_rng(0).normal(size=(3, 2 * 6 * 6))
    dense = Linear(name="r", inputs=("f",), weight=weight, bias=np.zeros(3))
    nodes += [Flatten(name="f", inputs=("s1",)), dense, lif("s2", "r", decay=1.0), Output(name="y", inputs=("s2",))]
    return Graph(nodes=tuple(nodes), timesteps=4)


def norm() -> BatchNorm:
    ones = np.ones(2)
    return BatchNorm(name="n", inputs=("c2",), mean=0 * ones, variance=ones, gamma=ones, beta=0 * ones, eps=1e-5)


window = {"kernel": (2, 2), "stride": (2, 2)}
FEATURES: dict[str, tuple[Graph, str]] = {
    "Linear, Flatten": (chain(), "layer"),
    "Conv2d: stride, padding, dilation": (
        chain(conv("c2", "s1", stride=(2, 1), dilation=(2, 1)), lif("s2", "c2")),
        "layer",
    ),
    "Conv2d: groups": (
        chain(conv("c2", "s1", weight=np.full((2, 1, 3, 3), 0.3), groups=2), lif("s2", "c2")),
        "layer",
    ),
    "Conv2d: kernel 1 x 3": (
        chain(conv("c2", "s1", weight=np.full((2, 2, 1, 3), 0.3), padding=(0, 1)), lif("s2", "c2")),
        "layer",
    ),
    "Conv2d: kernel 2 x 3": (
        chain(conv("c2", "s1", weight=np.full((2, 2, 2, 3), 0.3)), lif("s2", "c2")),
        "layer",
    ),
    "BatchNorm": (chain(conv("c2", "s1"), norm(), lif("s2", "n")), "layer"),
    "AvgPool2d on spikes": (
        chain(AvgPool2d(name="p", inputs=("s1",), **window), conv("c2", "p"), lif("s2", "c2")),  # type: ignore[arg-type]
        "layer",
    ),
    "MaxPool2d on spikes": (
        chain(MaxPool2d(name="p", inputs=("s1",), **window), conv("c2", "p"), lif("s2", "c2")),  # type: ignore[arg-type]
        "layer",
    ),
    "residual add": (
        chain(conv("c2", "s1"), lif("s2", "c2"), conv("c3", "s2"), Add(name="a", inputs=("c3", "s1")), lif("s3", "a")),
        "layer",
    ),
    "residual add of spikes (SEW)": (
        chain(conv("c2", "s1"), lif("s2", "c2"), Add(name="a", inputs=("s2", "s1")), conv("c3", "a"), lif("s3", "c3")),
        "layer",
    ),
    "spiking self-attention": (
        chain(
            *(node for name in "qkv" for node in (conv(f"c{name}", "s1"), lif(name, f"c{name}"))),
            Attention(name="a", inputs=("q", "k", "v"), heads=2, scale=1 / 8),
            lif("sa", "a"),
        ),
        "layer",
    ),
    "IF": (chain(first=lif("s1", "c1", decay=1.0)), "layer"),
    "LIF, decay 0.5, T = 4": (chain(), "layer"),
    "LIF, any decay": (chain(first=lif("s1", "c1", decay=0.9)), "layer"),
    "LIF, decay per channel": (chain(first=lif("s1", "c1", decay=np.array([0.9, 0.3]))), "layer"),
    "kept currents (snnTorch's Synaptic, NIR's CubaLIF)": (
        chain(first=replace(lif("s1", "c1"), current_decay=0.5)),
        "layer",
    ),
    "reset to zero": (chain(), "layer"),
    "reset by subtraction": (chain(first=lif("s1", "c1", reset="subtract")), "layer"),
    "reset by subtraction a step late, as snnTorch's Leaky": (
        chain(first=lif("s1", "c1", reset="subtract_late")),
        "layer",
    ),
    "no reset": (chain(first=lif("s1", "c1", reset="none")), "layer"),
    "scale per layer": (chain(), "layer"),
    "scale per channel": (chain(), "channel"),
    "pixels as input": (chain(), "layer"),
    "pixels through neurons (`--encoding neuron`)": (spiking_ends("x", lif("s0", "x", decay=1.0)), "layer"),
    "spikes as input": (chain(source=SPIKES), "layer"),
    "classes by sums": (chain(), "layer"),
    "classes by counted spikes (`--readout spikes`)": (spiking_ends("x"), "layer"),
}


def holds(graph: Graph, granularity: str, target: Target, path: Path) -> bool:
    """Whether the network can be lowered and written for the target."""
    random = np.random.default_rng(0)
    source = graph.input
    shape = (8, *source.shape) if source.static else (graph.timesteps, 8, *source.shape)
    samples = random.integers(source.low, source.high + 1, shape)
    try:
        legal = lower(graph, target, Calibration(samples, granularity=granularity)).legal  # type: ignore[arg-type]
        load_exporter(target.exporter).write(legal, target, path)
    except (RefusedError, ConfigError):
        return False
    return True


def table(heading: str, page: str = README) -> list[list[str]]:
    """The cells of the first table below a heading."""
    _, _, after = page.partition(f"## {heading}\n")
    assert after, f"no section {heading!r}"
    found = re.findall(r"^\|.+\|\n(?:\|.+\|\n)+", after.split("\n## ")[0], flags=re.MULTILINE)
    rows = [line.strip("|") for line in found[0].splitlines()]
    return [[cell.strip() for cell in row.split("|")] for row in rows if not set(row) <= set("|-: ")]


def test_the_table_of_layers_and_targets_is_what_the_compiler_does(tmp_path: Path) -> None:
    header, *rows = table("What each target can hold")
    names = header[1:]
    assert names == target_names()
    met = [
        [feature, *("yes" if holds(*spec, load_target(name), tmp_path / "file") else "no" for name in names)]
        for feature, spec in FEATURES.items()
    ]
    assert rows == met


def limits(target: Target) -> list[str]:
    weights, bias, threshold, state = target.weights, target.bias, target.threshold, target.state
    return [
        target.name,
        f"{weights.minimum}..{weights.maximum}",
        f"{bias.minimum}..{bias.maximum}",
        f"{threshold.minimum}..{threshold.maximum}",
        f"{target.decay.minimum_numerator}..{2**target.decay.bits} / {2**target.decay.bits}",
        f"{state.bits} bits, {state.fraction_bits} a fraction",
        "summed by the host" if target.entry.mode == "host" else "as numbers",
        "in a row" if target.layout.wiring == "chain" else "any graph",
        str(target.layout.maximum_side),
    ]


def test_the_table_of_limits_is_what_the_files_say() -> None:
    rows = table("What each target's numbers may be", PAGES["deployment.md"])
    assert rows[1:] == [limits(load_target(name)) for name in target_names()]


def test_the_table_of_methods_lists_every_method() -> None:
    header, *rows = table("Distillation methods and engines")
    assert header == ["method", "paper", "engines"]
    able = {
        name: ", ".join(engine for engine, found in sorted(ENGINES.items()) if method.needs <= found.gives)
        for name, method in methods().items()
    }
    assert {row[0].strip("`"): row[2] for row in rows} == able


def test_the_table_of_speeds_is_what_was_measured() -> None:
    command = [sys.executable, "benchmarks/bench.py", "--show", "benchmarks/results"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.split("\n\n")[0] in PAGES["performance.md"]


def commands() -> list[str]:
    pages = "\n".join([README, *PAGES.values()])
    blocks = re.findall(r"^    (?:\$ )?(snnkd-deploy [^\n]+)$", pages, flags=re.MULTILINE)
    return list(dict.fromkeys(block.split("  #")[0] for block in blocks))


def test_every_link_leads_to_a_page() -> None:
    for folder, text in ((ROOT, README), *((ROOT / "docs", page) for page in PAGES.values())):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (folder / link).is_file(), link
    assert all(f"(docs/{name})" in README for name in PAGES)


def test_the_price_table_of_the_energy_page_is_one() -> None:
    block = PAGES["energy.md"].split('    name = "mine"')[1].split("\n\n`scope`")[0]
    prices = parse_table('name = "mine"' + block.replace("\n    ", "\n"), "mine.toml").prices
    assert prices["synop"] == (0.02, 0.03, 0.05)


def test_the_rules_of_the_energy_page_are_held_by_files_that_are_there() -> None:
    header, *rows = table("The rules it keeps", PAGES["energy.md"])
    assert header == ["rule", "in the report", "held by"]
    files = [name for row in rows for name in re.findall(r"`(tests/[^`]+)`", row[2])]
    assert len(files) >= len(rows)
    assert all((ROOT / name).is_file() for name in files)


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_pages_is_one(command: str) -> None:
    name, *arguments = shlex.split(command)[1:]
    parser = cli.main.commands.get(name)
    assert parser is not None, command
    context = click.Context(parser)
    parser.parse_args(context, [one for one in arguments if one != "--help"])


def test_the_first_commands_are_the_three() -> None:
    assert commands()[:3] == [
        "snnkd-deploy train",
        "snnkd-deploy export --target loihi",
        "snnkd-deploy energy report.json",
    ]
