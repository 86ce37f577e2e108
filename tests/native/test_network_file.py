"""What the file holds, what it cannot hold, and what is said of one that is damaged."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snnkd_deploy.errors import BundleError, LegalityError
from snnkd_deploy.ir import Add, Conv2d, Graph, Input, Linear, MaxPool2d, Neuron, Output, Relu, Stage
from snnkd_deploy.native import load
from snnkd_deploy.native.network_file import LARGEST_INT32, pack, refusals
from snnkd_deploy.simulate import simulate
from tests.native.integer_networks import Integers, cnn, mlp, residual
from tests.networks import ANY, random_network

SETS = ("portable", "avx2", "avx512")


def one_layer(weight: int, high: int, bias: int = 0, timesteps: int = 1) -> Graph:
    """x in 0..high, weight * x + bias, summed over steps."""
    nodes = (
        Input(name="x", shape=(1,), high=high),
        Linear(name="fc", inputs=("x",), weight=np.array([[weight]]), bias=np.array([bias])),
        Output(name="y", inputs=("fc",)),
    )
    return Graph(nodes=nodes, timesteps=timesteps, stage=Stage.INTEGER, name="one")


def changed(graph: Graph, kind: type[Neuron] | type[Conv2d] | type[Linear], **fields: object) -> Graph:
    """With other fields in the first node of a kind."""
    first = graph.of(kind)[0]
    return replace(graph, nodes=tuple(replace(n, **fields) if n is first else n for n in graph))  # type: ignore[arg-type]


def test_a_graph_in_real_numbers_is_refused() -> None:
    graph = random_network(3, ANY)
    assert list(refusals(graph)) == [f"{graph.name}: not in integers yet (it is traced)"]
    with pytest.raises(LegalityError, match=f"the native runtime cannot hold {graph.name}:\n.*not in integers yet"):
        load(graph)


def test_a_node_that_it_does_not_know_is_refused() -> None:
    graph = one_layer(1, 1)
    relu = Relu(name="relu", inputs=("fc",))
    nodes = (*graph.nodes[:2], relu, replace(graph.output, inputs=("relu",)))
    assert list(refusals(replace(graph, nodes=nodes))) == ["relu: no Relu in the native runtime"]


@pytest.mark.parametrize(("weight", "fine"), [(127, True), (-127, True), (128, False), (-128, False)])
def test_weights_are_those_of_an_int8_without_its_lowest(weight: int, fine: bool) -> None:
    met = list(refusals(one_layer(weight, 1)))
    assert met == ([] if fine else [f"fc: weights {weight}..{weight}, an int8_t holds -127..127"])


def test_sums_fill_32_bits_and_no_more() -> None:
    high = LARGEST_INT32 // 100
    graph = one_layer(100, high, bias=LARGEST_INT32 - 100 * high)
    assert not list(refusals(graph))
    samples = np.array([[high], [high - 1], [0]])
    for instructions in SETS:
        met = load(graph, instructions=instructions).run(samples)
        np.testing.assert_array_equal(met, simulate(graph, samples).logits)
    assert met[0, 0] == LARGEST_INT32
    above = one_layer(100, high, bias=LARGEST_INT32 - 100 * high + 1)
    assert [one.split(" an ")[0] for one in refusals(above)] == [
        f"{name}: its sums can reach {LARGEST_INT32 + 1}," for name in ("fc", "y")
    ]
    assert [one.split(":")[0] for one in refusals(replace(graph, timesteps=2))] == ["y"]


def test_membranes_thresholds_and_terms_beyond_32_bits_are_refused_at_once() -> None:
    graph = mlp()
    high = changed(graph, Neuron, threshold=np.array(2**26))
    assert list(refusals(high)) == [f"lif2: its sums can reach {2**32}, an int32_t ends at {LARGEST_INT32}"]
    fine = changed(graph, Neuron, fraction_bits=16)
    reach = int(np.abs(graph.of(Linear)[0].weight).sum(axis=1).max()) * 255
    assert reach << 16 > LARGEST_INT32
    assert [one.split(" can")[0] for one in refusals(fine)] == ["lif2: its sums"]
    nodes = list(one_layer(127, 16_000_000).nodes)
    total = Add(name="sum", inputs=("fc", "fc"))
    both = replace(one_layer(1, 1), nodes=(*nodes[:2], total, replace(nodes[2], inputs=("sum",))))
    assert [one.split(":")[0] for one in refusals(both)] == ["sum", "y"]


def test_leaks_and_points_that_do_not_fit_are_refused() -> None:
    graph = mlp()
    fine = changed(graph, Neuron, decay=1 / 2**15, decay_bits=15, fraction_bits=4)
    assert not list(refusals(fine))
    leak = changed(graph, Neuron, decay=1 / 2**16, decay_bits=16, fraction_bits=0)
    assert list(refusals(leak)) == ["lif2: a leak over 2**16, 0 fraction bits; 2**15 and 16 are accepted"]


@pytest.mark.parametrize(
    ("fields", "met"),
    [
        ({"threshold": np.array(0)}, "a threshold of 0, 0..0.5 kept"),
        ({"decay": -0.25}, "a threshold of [0-9]+, -0.25..0 kept"),
        ({"current_decay": 1.25}, "a threshold of [0-9]+, 0.5..1.25 kept"),
    ],
)
def test_thresholds_are_positive_and_at_most_all_is_kept(fields: dict[str, object], met: str) -> None:
    (problem, *_) = refusals(changed(mlp(), Neuron, **fields))
    assert re.fullmatch(f"lif2: {met}; 1.. and 0..1 are accepted", problem)


def test_a_current_that_is_kept_has_to_fit_as_the_membrane_does() -> None:
    graph = changed(mlp(), Neuron, current_decay=0.5, decay=0.0)
    assert not list(refusals(graph))
    leak = changed(mlp(), Neuron, current_decay=1 / 2**16, decay_bits=16, decay=0.5, fraction_bits=0)
    assert list(refusals(leak)) == ["lif2: a leak over 2**16, 0 fraction bits; 2**15 and 16 are accepted"]
    grows = replace(changed(mlp(), Neuron, current_decay=1.0, decay=0.0), timesteps=200)
    assert [one.split(" can")[0] for one in refusals(grows)] == ["lif2: its sums"]


def test_windows_that_go_too_far_are_refused() -> None:
    def far(**sides: tuple[int, int]) -> Graph:
        build = Integers(Input(name="x", shape=(1, 3, 3)))
        build.conv(1, **sides)  # type: ignore[arg-type]
        build.pool(MaxPool2d, build.shapes[build.last][1:], (1, 1))  # type: ignore[arg-type]
        return build.finish(1)

    for sides in ({"stride": (65536, 1)}, {"padding": (20_000, 1), "dilation": (16384, 1)}):
        graph = far(**sides)
        assert not list(refusals(graph))
        samples = np.ones((1, 1, 3, 3), dtype=np.uint8)
        np.testing.assert_array_equal(load(graph).run(samples), simulate(graph, samples).logits)
    assert list(refusals(far(stride=(65537, 1)))) == [
        "conv1: kernel (3, 3), stride (65537, 1), padding (1, 1), dilation (1, 1); "
        "up to 65536 are accepted, of a dilation 16384"
    ]
    assert len(list(refusals(far(padding=(20_000, 1), dilation=(16385, 1))))) == 1


def test_a_file_says_what_a_graph_says(tmp_path: Path) -> None:
    for graph in (mlp(), cnn(), residual()):
        path = tmp_path / f"{graph.name}.snn"
        path.write_bytes(pack(graph))
        met = load(path)
        assert (met.name, met.digest, met.timesteps, met.classes) == (graph.name, graph.digest, graph.timesteps, 10)
        assert (met.static, met.range) == (graph.input.static, (graph.input.low, graph.input.high))
        assert {layer.name: layer.shape for layer in met.layers} == graph.shapes
        assert {layer.name for layer in met.layers if layer.neurons} == {node.name for node in graph.of(Neuron)}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read .*none\.snn: No such file"):
        load(tmp_path / "none.snn")


BODY = 24
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda file: b"", "not a network file of snnkd-deploy"),
    "other": (lambda file: b"PK" + file[2:], "not a network file of snnkd-deploy"),
    "version": (lambda file: file[:8] + struct.pack("<I", 2) + file[12:], "version 2, this library reads 1"),
    "truncated": (lambda file: file[:-1], "truncated: [0-9]+ of [0-9]+ bytes"),
    "longer": (lambda file: file + b"x", "truncated: [0-9]+ of [0-9]+ bytes"),
    "bit": (lambda file: file[:500] + bytes([file[500] ^ 8]) + file[501:], "damaged: its checksum is another"),
    "sum": (lambda file: file[:12] + bytes([file[12] ^ 1]) + file[13:], "damaged: its checksum is another"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_file_is_one_clear_error(what: str, tmp_path: Path) -> None:
    damage, message = DAMAGES[what]
    path = tmp_path / "network.snn"
    path.write_bytes(damage(pack(mlp())))
    with pytest.raises(BundleError, match=f"network.snn: {message}$"):
        load(path)


def test_a_body_that_lies_is_an_error_and_never_a_crash(tmp_path: Path) -> None:
    """Words of the body replaced one at a time, with a checksum that is right again."""
    body, path, refused = pack(residual())[BODY:], tmp_path / "network.snn", 0
    random = np.random.default_rng(0)
    places = [*range(0, 400, 4), *random.integers(400, len(body) - 4, size=100)]
    for place in places:
        value = struct.pack("<i", int(random.choice([-1, 0, 7, 2**31 - 1, 2**20])))
        lying = body[:place] + value + body[place + 4 :]
        path.write_bytes(b"SNNKDNET" + struct.pack("<IIQ", 1, zlib.crc32(lying), len(lying)) + lying)
        try:
            load(path)
        except BundleError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
    assert refused > 40
