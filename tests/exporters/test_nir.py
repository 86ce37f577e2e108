"""A NIR file spikes as the simulator does, by NIR's equations and in snnTorch; what cannot be said is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import h5py
import nir  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.check import verify
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import BundleError, LegalityError, ProofError, RuntimeMissingError
from snnkd_deploy.exporters import _nir_spikingjelly
from snnkd_deploy.exporters import nir as exporter
from snnkd_deploy.exporters._nir_file import DT
from snnkd_deploy.exporters._nir_nodes import refusals, square
from snnkd_deploy.ir import (
    Add,
    Array,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
    Pair,
    Shape,
    Stage,
    SumPool2d,
)
from snnkd_deploy.numerics import conv2d
from snnkd_deploy.proof import Proof, first_difference
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.simulate import Record, simulate
from snnkd_deploy.target import load_target
from tests.networks import Recipe, random_inputs, random_network, seeds

TARGET = load_target("nir")
INTERPRETER, SNNTORCH, SPIKINGJELLY = exporter.proofs
ANY = Recipe(residual=True, decays=(1.0, 0.5), thresholds_per_channel=True)
READ_BY_SNNTORCH = replace(ANY, decays=(0.5, 0.75), timesteps=(1, 4))
LEAKS = replace(READ_BY_SNNTORCH, decays_per_channel=True)
KEEPING = replace(READ_BY_SNNTORCH, current_decays=(0.5, 0.25))


def numbers(low: int, high: int, *shape: int) -> Array:
    """Integers in `low..high`, the same for the same shape."""
    return np.random.default_rng(shape).integers(low, high + 1, size=shape)


def conv(name: str, source: str, *shape: int, **options: Any) -> Conv2d:
    """Weights in -4..5, mostly positive, so that what follows fires."""
    return Conv2d(name=name, inputs=(source,), weight=numbers(-4, 5, *shape), bias=numbers(-3, 3, shape[0]), **options)


def linear(name: str, source: str, out: int, into: int) -> Linear:
    return Linear(name=name, inputs=(source,), weight=numbers(-3, 4, out, into), bias=numbers(-9, 9, out))


def neuron(
    name: str,
    source: str,
    threshold: int | Array,
    decay: float | Array = 0.5,
    reset: Literal["zero", "subtract"] = "zero",
) -> Neuron:
    return Neuron(
        name=name,
        inputs=(source,),
        decay=decay,
        threshold=np.asarray(threshold),
        reset=reset,
        decay_bits=12,
        fraction_bits=6,
    )


def pool(name: str, source: str, kernel: Pair = (2, 2), stride: Pair = (2, 2)) -> SumPool2d:
    return SumPool2d(name=name, inputs=(source,), kernel=kernel, stride=stride)


def network(*nodes: Node, shape: Shape = (2, 8, 8), high: int = 255, timesteps: int = 4, static: bool = True) -> Graph:
    """A legal graph from the nodes after "in"; the last of them feeds the Output."""
    entry = Input(name="in", shape=shape, high=high, scale=1 / high, static=static)
    leave = Output(name="out", inputs=(nodes[-1].name,))
    graph = Graph(nodes=(entry, *nodes, leave), timesteps=timesteps, stage=Stage.LEGAL, name="small")
    verify(replace(graph, stage=Stage.INTEGER), TARGET)
    return graph


def student(decay: float = 0.5, lif1: str = "lif1", lif2: str = "lif2") -> Graph:
    """Two convolutions, each with a neuron and a pool, and a readout: what training makes by default, but small."""
    return network(
        conv("conv1", "in", 4, 2, 3, 3, padding=(1, 1)),
        neuron(lif1, "conv1", 2500, decay),
        pool("pool1", lif1),
        conv("conv2", "pool1", 5, 4, 3, 3, padding=(1, 1)),
        neuron(lif2, "conv2", 40, decay),
        pool("pool2", lif2),
        Flatten(name="flatten", inputs=("pool2",)),
        linear("readout", "flatten", 3, 20),
    )


def dense(*nodes: Node, **options: Any) -> Graph:
    """Of vectors of four features."""
    return network(*nodes, **{"shape": (4,), "high": 15, **options})


def samples(graph: Graph, count: int = 6, seed: int = 0) -> Array:
    return random_inputs(graph, count, seed)


def exported(graph: Graph, folder: Path) -> Path:
    path = folder / "network.nir"
    exporter.write(graph, TARGET, path)
    return path


def check(graph: Graph, folder: Path, *proofs: Proof, inputs: Array | None = None) -> Record:
    """Every spike and logit of the file is the simulator's."""
    given = samples(graph) if inputs is None else inputs
    expected = simulate(graph, given)
    path = folder / "network.nir"
    loader = json.loads(json.dumps(exporter.write(graph, TARGET, path)))
    for proof in proofs or (INTERPRETER,):
        difference = first_difference(graph, expected, proof.run(path, given, loader))
        assert difference is None, f"{proof.name}: {difference}"
    return expected


def lowered(seed: int, recipe: Recipe, granularity: Literal["layer", "channel"]) -> tuple[Graph, Array]:
    """A random network as integers, or the next example where it cannot be."""
    graph = random_network(seed, recipe)
    inputs = samples(graph, 5, seed)
    try:
        return lower(graph, TARGET, Calibration(inputs, granularity=granularity)).legal, inputs
    except LegalityError:
        assume(False)
        raise


def written(graph: Graph, path: Path) -> None:
    """Kernels of an even and an odd side are the only ground for refusal in random networks; then the next example."""
    reasons = list(refusals(graph))
    assert all("no square kernel" in reason for reason in reasons)
    assume(not reasons)
    exporter.write(graph, TARGET, path)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=seeds, granularity=st.sampled_from(("layer", "channel")), recipe=st.sampled_from((ANY, LEAKS, KEEPING)))
def test_every_random_network_spikes_the_same_by_the_equations_of_its_file(
    tmp_path_factory: pytest.TempPathFactory, seed: int, granularity: Literal["layer", "channel"], recipe: Recipe
) -> None:
    graph, inputs = lowered(seed, recipe, granularity)
    path = tmp_path_factory.getbasetemp() / "random.nir"
    written(graph, path)
    assert first_difference(graph, simulate(graph, inputs), INTERPRETER.run(path, inputs, {})) is None


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=seeds, leaks=st.booleans(), keeps=st.booleans())
def test_every_random_network_of_leaky_neurons_spikes_the_same_in_snntorch(
    tmp_path_factory: pytest.TempPathFactory, seed: int, leaks: bool, keeps: bool
) -> None:
    recipe = KEEPING if keeps else READ_BY_SNNTORCH
    graph, inputs = lowered(seed, replace(recipe, decays_per_channel=leaks), "layer")
    path = tmp_path_factory.getbasetemp() / "random-leaky.nir"
    written(graph, path)
    assert first_difference(graph, simulate(graph, inputs), SNNTORCH.run(path, inputs, {})) is None


def test_the_default_student_spikes_the_same_in_both_readers(tmp_path: Path) -> None:
    graph = student()
    record = check(graph, tmp_path, INTERPRETER, SNNTORCH, inputs=samples(graph, 20))
    assert all(0.05 < spikes.mean() < 0.95 for spikes in record.spikes.values())
    assert len(np.unique(record.logits)) > 20


def test_more_samples_than_are_interpreted_at_a_time_keep_their_order(tmp_path: Path) -> None:
    graph = student()
    check(graph, tmp_path, inputs=samples(graph, 37))


def test_frames_are_fed_step_by_step(tmp_path: Path) -> None:
    graph = dense(linear("fc", "in", 3, 4), neuron("lif", "fc", 5), high=1, static=False)
    check(graph, tmp_path, INTERPRETER, SNNTORCH)


def test_a_membrane_at_its_threshold_stays_silent(tmp_path: Path) -> None:
    weight = np.array([[3], [4]])
    layer = Linear(name="fc", inputs=("in",), weight=weight, bias=np.zeros(2, dtype=np.int64))
    graph = network(layer, neuron("lif", "fc", 6), shape=(1,), high=2, timesteps=1)
    record = check(graph, tmp_path, INTERPRETER, SNNTORCH, inputs=np.array([[2]]))
    assert_array_equal(record.spikes["lif"].ravel(), [0, 1])


def test_a_threshold_lies_between_two_values_that_a_membrane_can_have(tmp_path: Path) -> None:
    node = nir.read(exported(dense(neuron("lif", "in", 131071)), tmp_path)).nodes["lif"]
    assert np.all((node.v_threshold > 131071) & (node.v_threshold < 131071 + 2**-6))
    assert_array_equal(np.floor(node.v_threshold), 131071)


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.5, 0.75, 63 / 64])
def test_tau_and_r_give_the_decay_and_leave_the_input_as_it_is(tmp_path: Path, decay: float) -> None:
    graph = dense(linear("fc", "in", 3, 4), neuron("lif", "fc", 50, decay), timesteps=2)
    check(graph, tmp_path, INTERPRETER, SNNTORCH)
    node = nir.read(tmp_path / "network.nir").nodes["lif"]
    np.testing.assert_allclose(1 - DT / node.tau, decay, rtol=0, atol=1e-15)
    np.testing.assert_allclose(node.r * DT / node.tau, 1, rtol=1e-15)


def test_no_leak_is_an_integrate_and_fire_neuron(tmp_path: Path) -> None:
    graph = student(decay=1.0)
    check(graph, tmp_path)
    node = nir.read(tmp_path / "network.nir").nodes["lif1"]
    assert isinstance(node, nir.IF)
    np.testing.assert_allclose(node.r * DT, 1, rtol=1e-15)


def test_a_leak_that_needs_rounding_is_truncated_as_the_metadata_say(tmp_path: Path) -> None:
    """Fed with 1, the membrane of the equation v = 0.9 v + 1 passes 9 in step 22; the truncated one is behind."""
    graph = network(neuron("lif", "in", 9, 3686 / 4096), shape=(1,), high=1, timesteps=30)
    record = check(graph, tmp_path, inputs=np.array([[1]]))
    assert np.flatnonzero(record.spikes["lif"])[0] + 1 > 22


def test_decays_per_channel_have_the_full_shape(tmp_path: Path) -> None:
    decays = np.array([0.5, 0.0, 0.75])
    graph = network(conv("conv", "in", 3, 2, 3, 3), neuron("lif", "conv", 900, decays))
    check(graph, tmp_path, INTERPRETER, SNNTORCH)
    stored = nir.read(tmp_path / "network.nir").nodes["lif"]
    np.testing.assert_allclose(1 - DT / stored.tau, np.broadcast_to(decays[:, None, None], (3, 6, 6)), atol=1e-15)
    assert stored.metadata["decay_numerator"].tolist() == [2048, 0, 3072]


def test_thresholds_per_channel_have_the_full_shape(tmp_path: Path) -> None:
    graph = network(conv("conv", "in", 3, 2, 3, 3), neuron("lif", "conv", np.array([100, 900, 2000])))
    check(graph, tmp_path)
    stored = nir.read(tmp_path / "network.nir").nodes["lif"].v_threshold
    assert_array_equal(np.floor(stored), np.broadcast_to(np.array([100, 900, 2000])[:, None, None], (3, 6, 6)))


def test_the_file_holds_the_integers_the_names_and_the_digest(tmp_path: Path) -> None:
    graph = student(lif1="block.0.lif", lif2="if")
    read = nir.read(exported(graph, tmp_path))
    assert set(read.nodes) == {node.name for node in graph}
    for name in ("conv1", "conv2", "readout"):
        layer = graph[name]
        assert isinstance(layer, Conv2d | Linear)
        assert_array_equal(read.nodes[name].weight, layer.weight)
        assert_array_equal(read.nodes[name].bias, layer.bias)
    assert read.metadata["snnkd_deploy.digest"] == (graph.origin or graph.digest)
    assert read.metadata["snnkd_deploy.format"] == 1
    assert read.metadata["snnkd_deploy.timesteps"] == 4
    assert read.nodes["if"].metadata == {"decay_numerator": 2048, "decay_bits": 12, "fraction_bits": 6}


def test_every_neuron_says_what_it_is_reset_to(tmp_path: Path) -> None:
    with h5py.File(exported(student(), tmp_path)) as file:
        assert tuple(int(part) for part in file["version"][()].decode().split(".")[:3]) >= (1, 0, 6)
        for name, shape in (("lif1", (4, 8, 8)), ("lif2", (5, 4, 4))):
            group = file["node/nodes"][name]
            for parameter in ("v_reset", "v_threshold", "v_leak", "tau", "r"):
                assert group[parameter].shape == shape
            assert not group["v_reset"][()].any()


def test_the_same_network_is_the_same_file(tmp_path: Path) -> None:
    graph = student()
    first, second = tmp_path / "first.nir", tmp_path / "second.nir"
    assert exporter.write(graph, TARGET, first) == exporter.write(graph, TARGET, second)
    assert first.read_bytes() == second.read_bytes()


def test_the_loader_arguments_say_how_to_feed_and_to_read(tmp_path: Path) -> None:
    loader = exporter.write(student(), TARGET, tmp_path / "network.nir")
    assert loader["timesteps"] == 4
    assert loader["input"]["axes"] == ["channel", "height", "width"]
    assert loader["input"]["coding"] == "the same picture at each step"
    assert loader["output"]["logits"] == "sum over timesteps of the output of readout"
    assert loader["spikes"] == ["lif1", "lif2"]


def test_the_exporter_is_found_by_its_name() -> None:
    assert load_exporter("nir").suffix == ".nir"
    assert [(proof.name, proof.samples, proof.required) for proof in exporter.proofs] == [
        ("nir-interpreter", 1000, True),
        ("snntorch", 200, False),
        ("spikingjelly", 200, False),
    ]


def residual(*tail: Node, high: int = 255) -> Graph:
    """Two branches from one neuron, their sum, and the sum of that with a third."""
    return network(
        conv("conv1", "in", 3, 2, 3, 3),
        neuron("lif1", "conv1", 100),
        conv("conv2", "lif1", 3, 3, 3, 3, padding=(1, 1)),
        conv("conv3", "lif1", 3, 3, 1, 1),
        Add(name="inner", inputs=("conv2", "lif1")),
        Add(name="outer", inputs=("inner", "conv3")),
        *tail,
        high=high,
    )


def test_nested_sums_reach_every_kind_of_reader(tmp_path: Path) -> None:
    graph = residual(
        neuron("lif2", "outer", 9),
        pool("pool", "outer"),
        conv("conv4", "outer", 3, 3, 2, 2, stride=(2, 2)),
        Add(name="sum", inputs=("pool", "conv4")),
        Flatten(name="flatten", inputs=("sum",)),
        linear("read1", "flatten", 4, 27),
        Flatten(name="flat", inputs=("lif2",)),
        linear("read2", "flat", 4, 108),
        Add(name="both", inputs=("read1", "read2")),
        neuron("lif3", "both", 30),
        high=15,
    )
    record = check(graph, tmp_path, INTERPRETER, SNNTORCH)
    assert all(0.05 < spikes.mean() < 0.95 for spikes in record.spikes.values())
    edges = nir.read(tmp_path / "network.nir").edges
    assert {source for source, reader in edges if reader == "lif2"} == {"conv2", "conv3", "lif1"}


def test_a_sum_of_two_readouts_is_summed_at_the_output(tmp_path: Path) -> None:
    lif = neuron("lif", "in", 3)
    graph = dense(lif, linear("a", "lif", 2, 4), linear("b", "lif", 2, 4), Add(name="both", inputs=("a", "b")))
    check(graph, tmp_path)
    with pytest.raises(RuntimeMissingError, match="out: 2 edges lead here; they are not summed at an Output"):
        SNNTORCH.run(tmp_path / "network.nir", samples(graph), {})


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 2},
        {"groups": 4, "stride": (2, 1), "padding": (1, 0)},
        {"dilation": (2, 1), "padding": (2, 1)},
        {"stride": (3, 2), "dilation": (1, 2), "groups": 2},
    ],
)
@pytest.mark.parametrize("kernel", [(3, 3), (1, 3), (3, 1)])
def test_convolutions_of_every_geometry_spike_the_same_in_both_readers(
    tmp_path: Path, kernel: Pair, options: dict[str, Any]
) -> None:
    layer = conv("conv", "in", 8, 4 // options.get("groups", 1), *kernel, **options)
    graph = network(layer, neuron("lif", "conv", 300), shape=(4, 9, 8))
    assert 0.05 < check(graph, tmp_path, INTERPRETER, SNNTORCH).spikes["lif"].mean() < 0.95


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    size=st.tuples(st.integers(7, 9), st.integers(7, 9)),
    groups=st.sampled_from((1, 2)),
)
def test_a_square_kernel_computes_the_same(
    kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, size: Pair, groups: int
) -> None:
    node = conv("c", "in", 4, 2 // groups, *kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)
    found = square(node, (2, *size))
    if found is None:
        assert (kernel[0] - kernel[1]) % 2
        return
    assert found.weight.shape[2] == found.weight.shape[3]
    x = numbers(0, 255, 2, 2, *size)
    assert_array_equal(conv2d(x, replace(node, weight=found.weight, padding=found.padding, groups=1)), conv2d(x, node))


def test_a_refusal_lists_every_reason(tmp_path: Path) -> None:
    graph = network(
        conv("conv", "in", 3, 2, 3, 2),
        neuron("a/b", "conv", 5, reset="subtract"),
        Add(name="twice", inputs=("a/b", "conv")),
        Add(name="thrice", inputs=("twice", "a/b")),
        neuron("lif", "thrice", 5),
    )
    with pytest.raises(LegalityError) as refused:
        exporter.write(graph, TARGET, tmp_path / "network.nir")
    assert refused.value.reasons == (
        "conv: kernel (3, 2); nir takes its height for its width, and no square kernel computes the same here; "
        "use sides that are both odd or both even",
        "'a/b': not a name in HDF5; accepted is any other without '/'",
        "a/b: reset 'subtract'; a NIR neuron of 1.0.6 has reset 'zero' (this network has both, no version does: use "
        "'zero' throughout)",
        "lif: a/b is added 2 times; NIR has one edge between two nodes, put a layer into the other path",
    )
    assert not list(tmp_path.iterdir())


def test_a_node_that_nir_lacks_is_refused(tmp_path: Path) -> None:
    biggest = MaxPool2d(name="pool", inputs=("in",), kernel=(2, 2), stride=(2, 2))
    with pytest.raises(LegalityError, match="pool: NIR has no MaxPool2d"):
        exporter.write(network(biggest), TARGET, tmp_path / "network.nir")


def test_sums_beyond_float32_are_refused(tmp_path: Path) -> None:
    weight = np.array([[127, -127] * 300])
    layer = Linear(name="fc", inputs=("in",), weight=weight, bias=np.zeros(1, dtype=np.int64))
    with pytest.raises(
        LegalityError, match="fc: its sums can reach 19431000; readers' float32 is exact below 16777216"
    ):
        exporter.write(network(layer, shape=(600,)), TARGET, tmp_path / "network.nir")


def test_channels_without_leak_beside_others_are_refused(tmp_path: Path) -> None:
    graph = dense(linear("fc", "in", 3, 4), neuron("lif", "fc", 5, np.array([1.0, 0.5, 1.0])))
    with pytest.raises(
        LegalityError, match=r"lif: decay 1 beside others; a NIR layer leaks \(LIF\) or does not \(IF\)"
    ):
        exporter.write(graph, TARGET, tmp_path / "network.nir")


def test_a_graph_that_is_not_legal_yet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LegalityError, match="small: a integer network; a legal one is needed"):
        exporter.write(replace(student(), stage=Stage.INTEGER), TARGET, tmp_path / "network.nir")


def test_a_file_that_does_not_hold_what_was_written_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = nir.write

    def write_another(path: Path, graph: Any) -> None:
        changed = nir.Affine(weight=graph.nodes["readout"].weight + 1, bias=graph.nodes["readout"].bias)
        write(path, nir.NIRGraph({**graph.nodes, "readout": changed}, graph.edges, graph.metadata))

    monkeypatch.setattr(nir, "write", write_another)
    with pytest.raises(ProofError, match="file/nodes/readout/weight differs"):
        exporter.write(student(), TARGET, tmp_path / "network.nir")


Damage = Callable[[h5py.File], None]


def set_value(name: str, value: Any) -> Damage:
    def damage(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return damage


def delete(*names: str) -> Damage:
    def damage(file: h5py.File) -> None:
        for name in names:
            del file[name]

    return damage


def set_edges(keep: Callable[[str, str], bool], *more: tuple[str, str]) -> Damage:
    def damage(file: h5py.File) -> None:
        edges = [(a.decode(), b.decode()) for a, b in file["node/edges"][()]]
        del file["node/edges"]
        file["node/edges"] = [edge for edge in edges if keep(*edge)] + list(more)

    return damage


LIF, META = "node/nodes/lif1", "node/metadata/snnkd_deploy."
DAMAGES: list[tuple[str, Damage]] = [
    ("is not a NIR file that nir .* can read", delete("node")),
    ("lif1 without v_reset, as up to NIR 1.0.5", delete(f"{LIF}/v_reset")),
    ("is not a NIR file .*lif1", delete(LIF)),
    ("is not a NIR file", delete("node/nodes/conv1/weight")),
    ("is not a NIR file .*type mismatch", set_value("node/nodes/readout/weight", np.zeros((3, 7), np.float32))),
    ("an edge is missing; met 2 Input nodes", set_edges(lambda _, reader: reader != "conv2")),
    ("a loop through lif2", set_edges(lambda *_: True, ("lif2", "lif2"))),
    ("written in format 2; this version reads 1", set_value(f"{META}format", 2)),
    ("was not written by this package: its metadata lack 'snnkd_deploy.timesteps'", delete(f"{META}timesteps")),
    ("0 timesteps", set_value(f"{META}timesteps", 0)),
    ("input coding 'rate'", set_value(f"{META}input_coding", "rate")),
    ("lif1: its metadata lack decay_bits", delete(f"{LIF}/metadata/decay_bits")),
    (
        "lif1: its equation keeps 0.5 of the membrane, its metadata say 0.25",
        set_value(f"{LIF}/metadata/decay_numerator", 1024),
    ),
    ("lif1: its equation scales the input by 0.5", set_value(f"{LIF}/r", np.ones((4, 8, 8)))),
    ("lif1: its equation .* has a resting potential", set_value(f"{LIF}/v_leak", np.ones((4, 8, 8)))),
    ("conv1: 2 groups; this package writes one", set_value("node/nodes/conv1/groups", 2)),
]


@pytest.mark.parametrize(("message", "damage"), DAMAGES, ids=[message for message, _ in DAMAGES])
def test_a_damaged_file_is_refused(tmp_path: Path, message: str, damage: Damage) -> None:
    path = exported(student(), tmp_path)
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(BundleError, match=message):
        INTERPRETER.run(path, samples(student()), {})


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.nir"
    with pytest.raises(BundleError, match="no NIR file at"):
        INTERPRETER.run(path, samples(student()), {})
    path.write_text("not HDF5")
    with pytest.raises(BundleError, match="is not a NIR file"):
        SNNTORCH.run(path, samples(student()), {})


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = exported(student(), tmp_path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(BundleError, match="is not a NIR file"):
        INTERPRETER.run(path, samples(student()), {})


def test_a_node_of_another_program_is_refused(tmp_path: Path) -> None:
    path = exported(dense(neuron("lif", "in", 3)), tmp_path)
    graph = nir.read(path)
    nir.write(path, nir.NIRGraph({**graph.nodes, "lif": nir.Scale(np.ones(4))}, graph.edges, graph.metadata))
    with pytest.raises(BundleError, match="lif: this package writes no Scale"):
        INTERPRETER.run(path, np.zeros((1, 4), dtype=np.int64), {})


def test_samples_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = exported(student(), tmp_path)
    for proof in (INTERPRETER, SNNTORCH):
        with pytest.raises(BundleError, match=r"takes in \('samples', 2, 8, 8\), the samples have shape \(3, 4\)"):
            proof.run(path, np.zeros((3, 4), dtype=np.int64), {})


@pytest.mark.parametrize("proof", [INTERPRETER, SNNTORCH], ids=lambda proof: proof.name)
def test_logits_with_fractions_are_no_proof(tmp_path: Path, proof: Proof) -> None:
    path = exported(student(), tmp_path)
    with h5py.File(path, "r+") as file:
        file["node/nodes/readout/bias"][0] = 0.1
    with pytest.raises(ProofError, match="the logits are not whole numbers"):
        proof.run(path, samples(student()), {})


def test_both_readers_notice_a_changed_weight(tmp_path: Path) -> None:
    graph = student()
    path = exported(graph, tmp_path)
    with h5py.File(path, "r+") as file:
        file["node/nodes/conv2/weight"][0, 0, 0, 0] += 40
    inputs = samples(graph)
    for proof in (INTERPRETER, SNNTORCH):
        difference = first_difference(graph, simulate(graph, inputs), proof.run(path, inputs, {}))
        assert difference is not None
        assert difference.layer == "lif2"


def without_reader() -> str:
    try:
        return str(_nir_spikingjelly.python())[:0]
    except RuntimeMissingError as reason:
        return str(reason)


needs_spikingjelly = pytest.mark.skipif(bool(without_reader()), reason=without_reader().partition("\n")[0])


@pytest.mark.readers
@needs_spikingjelly
@pytest.mark.parametrize("graph", [student(), student(decay=1.0), student(lif1="block.0.lif", lif2="if")])
def test_spikingjelly_spikes_as_the_simulator(tmp_path: Path, graph: Graph) -> None:
    record = check(graph, tmp_path, SPIKINGJELLY, inputs=samples(graph, 20))
    assert all(0.05 < spikes.mean() < 0.95 for spikes in record.spikes.values())


@pytest.mark.readers
@needs_spikingjelly
def test_spikingjelly_is_given_frames_step_by_step_and_sums_what_is_added(tmp_path: Path) -> None:
    graph = dense(linear("fc", "in", 3, 4), neuron("lif", "fc", 5), high=1, static=False)
    check(graph, tmp_path, SPIKINGJELLY)
    tail = [neuron("lif2", "outer", 9), Flatten(name="flat", inputs=("lif2",)), linear("read", "flat", 4, 108)]
    check(residual(*tail), tmp_path, SPIKINGJELLY)


@pytest.mark.readers
@needs_spikingjelly
def test_spikingjelly_notices_a_changed_weight(tmp_path: Path) -> None:
    graph = student()
    path = exported(graph, tmp_path)
    with h5py.File(path, "r+") as file:
        file["node/nodes/conv2/weight"][0, 0, 0, 0] += 40
    difference = first_difference(graph, simulate(graph, samples(graph)), SPIKINGJELLY.run(path, samples(graph), {}))
    assert difference is not None
    assert difference.layer == "lif2"


def test_what_spikingjelly_would_misread_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_nir_spikingjelly.VARIABLE, sys.executable)
    graph = network(conv("conv", "in", 2, 2, 3, 3), neuron("lif", "conv", np.array([3, 4]), np.array([0.0, 0.5])))
    with pytest.raises(RuntimeMissingError) as refused:
        SPIKINGJELLY.run(exported(graph, tmp_path), samples(graph), {})
    assert str(refused.value).splitlines()[1:] == [
        "  - lif: thresholds differ between its neurons; it takes one per layer",
        "  - lif: decays differ between its neurons; it takes one per layer",
        "  - lif: decay 0; it takes a tau of more than one step",
    ]


def test_a_reader_that_is_missing_or_fails_is_told_with_the_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, inputs = exported(student(), tmp_path), samples(student())
    monkeypatch.setenv(_nir_spikingjelly.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(RuntimeMissingError, match="names .*nowhere, which is no file"):
        SPIKINGJELLY.run(path, inputs, {})
    monkeypatch.setenv(_nir_spikingjelly.VARIABLE, str(path))
    with pytest.raises(RuntimeMissingError, match="did not run SpikingJelly"):
        SPIKINGJELLY.run(path, inputs, {})
    monkeypatch.setenv(_nir_spikingjelly.VARIABLE, sys.executable)
    with pytest.raises(RuntimeMissingError, match="could not run the file: (.|\n)*No module named 'spikingjelly'"):
        SPIKINGJELLY.run(path, inputs, {})
    monkeypatch.delenv(_nir_spikingjelly.VARIABLE)
    monkeypatch.setattr(_nir_spikingjelly, "FOLDER", "nowhere")
    with pytest.raises(RuntimeMissingError, match="make readers"):
        SPIKINGJELLY.run(path, inputs, {})


def older(graph: Graph) -> Graph:
    """The same with neurons that subtract."""
    nodes = [replace(node, reset="subtract") if isinstance(node, Neuron) else node for node in graph]
    return replace(graph, nodes=tuple(nodes))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=seeds)
def test_the_older_dialect_says_reset_by_subtraction(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    graph, inputs = lowered(seed, replace(ANY, resets=("subtract",)), "channel")
    assume(not list(refusals(graph, "1.0.5")))
    path = tmp_path_factory.getbasetemp() / "older.nir"
    exporter.write(graph, TARGET, path, version="1.0.5")
    assert first_difference(graph, simulate(graph, inputs), INTERPRETER.run(path, inputs, {})) is None


def test_a_file_of_the_older_dialect_holds_what_nir_1_0_5_writes(tmp_path: Path) -> None:
    loader = exporter.write(older(student()), TARGET, tmp_path / "network.nir", version="1.0.5")
    assert "nir <= 1.0.5" in loader["dialect"]
    with h5py.File(tmp_path / "network.nir") as file:
        assert file["version"][()] == b"1.0.5"
        assert set(file[LIF]) == {"metadata", "r", "tau", "type", "v_leak", "v_threshold"}
        assert_array_equal(file[f"{LIF}/v_threshold"], np.full((4, 8, 8), 2500))


def test_each_dialect_refuses_the_other_reset(tmp_path: Path) -> None:
    with pytest.raises(LegalityError) as refused:
        exporter.write(older(student()), TARGET, tmp_path / "network.nir")
    assert refused.value.reasons == tuple(
        f"{name}: reset 'subtract'; a NIR neuron of 1.0.6 has reset 'zero' (--nir-version 1.0.5 has the other)"
        for name in ("lif1", "lif2")
    )
    with pytest.raises(LegalityError, match="lif1: reset 'zero'; a NIR neuron of 1.0.5 has reset 'subtract'"):
        exporter.write(student(), TARGET, tmp_path / "network.nir", version="1.0.5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", exporter.options["version"])
@pytest.mark.parametrize("graph", [replace(student(), timesteps=1), student(decay=0.0)])
def test_where_the_reset_cannot_matter_both_dialects_say_the_network(
    tmp_path: Path, graph: Graph, version: str
) -> None:
    inputs = samples(graph)
    for one in (graph, older(graph)):
        exporter.write(one, TARGET, tmp_path / "network.nir", version=version)
        for proof in (INTERPRETER, SNNTORCH):
            met = proof.run(tmp_path / "network.nir", inputs, {})
            assert first_difference(one, simulate(one, inputs), met) is None


def test_readers_that_would_reset_to_zero_are_not_given_the_older_dialect(tmp_path: Path) -> None:
    exporter.write(older(student()), TARGET, tmp_path / "network.nir", version="1.0.5")
    with pytest.raises(RuntimeMissingError, match="nir 1.0.8 takes a missing v_reset for 0"):
        SNNTORCH.run(tmp_path / "network.nir", samples(student()), {})


def test_names_that_torch_cannot_have_are_found_again_in_snntorch(tmp_path: Path) -> None:
    check(student(lif1="block.0.lif", lif2="if"), tmp_path, SNNTORCH)


def test_what_snntorch_would_misread_is_not_run(tmp_path: Path) -> None:
    graph = network(
        pool("pool", "in", (7, 7), (1, 1)),
        conv("a.b", "pool", 3, 2, 1, 1),
        neuron("a_b", "a.b", 5000, decay=1.0),
        conv("conv", "a_b", 2, 3, 1, 1),
        neuron("lif", "conv", np.array([3, 4])),
        high=15,
    )
    check(graph, tmp_path)
    with pytest.raises(RuntimeMissingError) as refused:
        SNNTORCH.run(tmp_path / "network.nir", samples(graph), {})
    assert str(refused.value).splitlines()[1:] == [
        "  - pool: a sum over 49 values is computed as their rounded mean",
        "  - a_b: becomes one module with a.b",
        "  - a_b: an IF (decay 1) becomes a leaky neuron of decay 0.9 with reset by subtraction",
        "  - lif: thresholds differ between its neurons; it takes one per layer",
    ]


@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (1, 5), (3, 4)])
def test_sums_over_windows_are_exact_in_snntorch(tmp_path: Path, kernel: Pair) -> None:
    graph = network(pool("pool", "in", kernel, (1, 2)), neuron("lif", "pool", 700), shape=(3, 8, 9))
    check(graph, tmp_path, INTERPRETER, SNNTORCH, inputs=samples(graph, 20))


def test_an_importer_that_fails_is_not_run(tmp_path: Path) -> None:
    path = exported(student(lif1="pop"), tmp_path)
    with pytest.raises(RuntimeMissingError, match=r"snnTorch .* could not run .*pop"):
        SNNTORCH.run(path, samples(student()), {})


def test_snntorch_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported(student(), tmp_path)
    monkeypatch.setitem(sys.modules, "snntorch", None)
    with pytest.raises(RuntimeMissingError, match=r"snnTorch is not installed .*; pip install snntorch"):
        SNNTORCH.run(path, samples(student()), {})


def test_snntorch_says_nothing_on_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(student(), tmp_path, SNNTORCH)
    assert capsys.readouterr() == ("", "")
