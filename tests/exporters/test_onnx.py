"""The ONNX file in onnxruntime against the simulator, integer by integer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import BundleError, LegalityError
from snnkd_deploy.exporters import _onnx_neuron, _onnx_writer
from snnkd_deploy.ir import (
    Add,
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
    Stage,
    SumPool2d,
)
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.proof import agree, first_difference
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import State, Target, load_target
from tests.networks import (
    ATTENTIVE,
    EVERY_RESET,
    KEEPING,
    LEAKS,
    SPIKING_ENDS,
    Recipe,
    random_inputs,
    random_network,
    seeds,
)

FORMS = ("unrolled", "folded", "one-step")
TARGET, EXPORTER = load_target("onnx"), load_exporter("onnx")


def compiled(seed: int, target: Target = TARGET, recipe: Recipe = EVERY_RESET, **options: object) -> Graph:
    graph = random_network(seed, recipe)
    return lower(graph, target, Calibration(random_inputs(graph, 8, seed), **options)).legal  # type: ignore[arg-type]


def assert_equal(
    legal: Graph, path: Path, samples: int = 5, seed: int = 0, target: Target = TARGET, form: str = "unrolled"
) -> None:
    loader = EXPORTER.write(legal, target, path, form=form)
    well_formed(onnx.load(path))
    inputs = random_inputs(legal, samples, seed)
    met = EXPORTER.proofs[0].run(path, inputs, loader)
    assert first_difference(legal, simulate(legal, inputs), met) is None


def well_formed(model: onnx.ModelProto) -> None:
    """Every shape can be inferred, no operator is foreign, nothing is computed or stored that nobody reads."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred, full_check=True)
    typed = {value.name for value in [*inferred.graph.value_info, *inferred.graph.output]}
    assert {name for node in model.graph.node for name in node.output} <= typed
    assert {node.domain for node in model.graph.node} == {""}
    assert "Where" not in {node.op_type for node in model.graph.node}
    read = {name for node in model.graph.node for name in node.input} | {one.name for one in model.graph.output}
    assert {name for node in model.graph.node for name in node.output} <= read
    assert {one.name for one in [*model.graph.initializer, *model.graph.input]} <= read


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(seed=seeds, recipe=st.sampled_from((EVERY_RESET, LEAKS, KEEPING, SPIKING_ENDS)), block=st.sampled_from([1, 16]))
def test_onnxruntime_spikes_as_the_simulator(form: str, seed: int, recipe: Recipe, block: int, tmp_path: Path) -> None:
    """With `block` 1 these small networks too are written with factors as depthwise convolutions."""
    try:
        legal = compiled(seed, recipe=recipe, granularity="channel" if seed % 2 else "layer")
    except LegalityError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_onnx_neuron, "BLOCK", block)
        assert_equal(legal, tmp_path / "network.onnx", seed=seed, form=form)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(seed=seeds)
def test_products_of_spikes_are_those_of_the_simulator(form: str, seed: int, tmp_path: Path) -> None:
    try:
        legal = compiled(seed, recipe=ATTENTIVE)
    except LegalityError:
        return
    assert_equal(legal, tmp_path / "network.onnx", seed=seed, form=form)


def test_counts_beyond_float32_are_multiplied_as_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = next(seed for seed in range(50) if random_network(seed, ATTENTIVE).of(Attention))
    legal, path = compiled(seed, recipe=ATTENTIVE), tmp_path / "network.onnx"
    assert_equal(legal, path, seed=seed)
    types = []
    for limit in (2**24, 1):
        monkeypatch.setattr(_onnx_writer, "EXACT_FLOAT32", limit)
        EXPORTER.write(replace(legal, nodes=tuple(legal)), TARGET, path)
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
        found = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
        types.append({found[name] for node in model.graph.node if node.op_type == "MatMul" for name in node.output})
    assert types == [{onnx.TensorProto.FLOAT}, {onnx.TensorProto.INT32}]
    assert_equal(legal, path, seed=seed)


@pytest.mark.parametrize("form", FORMS)
def test_any_batch_size_runs(form: str, tmp_path: Path) -> None:
    legal = compiled(2)
    path = tmp_path / "network.onnx"
    for samples in (1, 3, 130):
        assert_equal(legal, path, samples, form=form)


def test_weights_are_int8_and_the_network_is_named(tmp_path: Path) -> None:
    legal = compiled(2)
    path = tmp_path / "network.onnx"
    EXPORTER.write(legal, TARGET, path)
    model = onnx.load(path)
    weights = [one for one in model.graph.initializer if one.name.endswith("/weight")]
    assert weights
    assert {one.data_type for one in weights} == {onnx.TensorProto.INT8}
    assert model.opset_import[0].version == 10
    assert {entry.key: entry.value for entry in model.metadata_props}["snnkd_deploy.digest"] == legal.origin


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    legal = compiled(2)
    for name in ("a", "b"):
        EXPORTER.write(legal, TARGET, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_sums_beyond_float32_use_integer_operators(tmp_path: Path) -> None:
    wide = replace(TARGET, state=State(bits=31, fraction_bits=0, source="a state of 31 bits for this test"))
    wide = replace(wide, threshold=replace(wide.threshold, maximum=2**28), bias=replace(wide.bias, maximum=2**28))
    used: set[str] = set()
    for seed in range(25):
        try:
            legal = compiled(seed, wide)
        except LegalityError:
            continue
        # weights at their limit and a bias near 2**24 push the worst case of each layer past float32
        nodes = [replace(n, bias=n.bias + 2**24) if isinstance(n, Linear | Conv2d) else n for n in legal]
        legal = replace(legal, nodes=tuple(nodes))
        path = tmp_path / "network.onnx"
        try:
            assert_equal(legal, path, target=wide)
        except LegalityError as refusal:
            assert "beyond" in str(refusal)  # noqa: PT017
            continue
        used |= {node.op_type for node in onnx.load(path).graph.node}
    assert {"ConvInteger", "MatMulInteger"} <= used


def leaky(decay: float, timesteps: int, threshold: int | Array = 300, reset: str = "zero") -> Graph:
    """A dense layer, a neuron, a readout; one input channel, so that membranes go far."""
    random = np.random.default_rng(3)
    nodes: list[Node] = [
        Input(name="in", shape=(6,)),
        Linear(name="fc", inputs=("in",), weight=random.integers(-90, 127, (5, 6)), bias=random.integers(-99, 99, 5)),
        Neuron(name="lif", inputs=("fc",), decay=decay, threshold=np.asarray(threshold) * 100, decay_bits=12,
               fraction_bits=6, reset=reset),  # type: ignore[arg-type]
        Linear(name="read", inputs=("lif",), weight=random.integers(-127, 128, (3, 5)), bias=np.zeros(3, dtype=int)),
        Output(name="out", inputs=("read",)),
    ]  # fmt: skip
    return Graph(nodes=tuple(nodes), timesteps=timesteps, stage=Stage.LEGAL)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("threshold", [300, np.array([100, 200, 300, 400, 500])])
@pytest.mark.parametrize(
    ("decay", "timesteps"), [(1.0, 9), (0.5, 7), (0.5, 12), (0.75, 4), (0.75, 9), (3686 / 4096, 9), (0.0, 3), (0.5, 1)]
)
def test_every_way_to_hold_a_membrane_is_exact(
    decay: float, timesteps: int, threshold: int | Array, reset: str, form: str, tmp_path: Path
) -> None:
    """float32 without and with truncation, int32; one threshold or one per channel."""
    assert_equal(leaky(decay, timesteps, threshold, reset), tmp_path / "network.onnx", samples=40, form=form)


def residual(decay: float | Array, timesteps: int, threshold: int | Array, reset: str) -> Graph:
    """Pictures in 16 channels, which onnxruntime computes in blocks: three layers, one behind a sum with the first."""
    random = np.random.default_rng(7)

    def conv(name: str, source: str, into: int) -> Conv2d:
        weight, bias = random.integers(-30, 31, (16, into, 3, 3)), random.integers(-40, 41, 16)
        return Conv2d(name=name, inputs=(source,), weight=weight, bias=bias, padding=(1, 1))

    def neuron(name: str, source: str, times: int) -> Neuron:
        limit = np.asarray(threshold) * times
        leak = {"decay": decay, "decay_bits": 12, "fraction_bits": 6}
        return Neuron(name=name, inputs=(source,), threshold=limit, reset=reset, **leak)  # type: ignore[arg-type]

    weight, bias = random.integers(-127, 128, (3, 16 * 9)), random.integers(-9, 9, 3)
    return Graph(
        nodes=(
            Input(name="in", shape=(2, 6, 6)),
            conv("conv1", "in", 2),
            neuron("lif1", "conv1", 60),
            conv("conv2", "lif1", 16),
            Add(name="add", inputs=("conv2", "lif1")),
            neuron("lif2", "add", 1),
            SumPool2d(name="pool", inputs=("lif2",), kernel=(2, 2), stride=(2, 2)),
            conv("conv3", "pool", 16),
            neuron("lif3", "conv3", 2),
            Flatten(name="flatten", inputs=("lif3",)),
            Linear(name="read", inputs=("flatten",), weight=weight, bias=bias),
            Output(name="out", inputs=("read",)),
        ),
        timesteps=timesteps,
        stage=Stage.LEGAL,
    )


@pytest.mark.parametrize("reset", ["zero", "subtract", "subtract_late", "none"])
@pytest.mark.parametrize("threshold", [90, np.arange(60, 76)])
@pytest.mark.parametrize(
    ("decay", "timesteps", "form"),
    [
        (1.0, 9, "unrolled"),
        (0.5, 4, "unrolled"),
        (0.5, 4, "folded"),
        (0.5, 4, "one-step"),
        (0.5, 12, "unrolled"),
        (0.75, 4, "unrolled"),
        (3686 / 4096, 6, "unrolled"),
        (np.arange(16) / 64, 4, "unrolled"),
        (np.arange(16) / 64, 4, "one-step"),
    ],
)
def test_pictures_in_blocks_of_channels_are_exact(
    decay: float | Array, timesteps: int, form: str, threshold: int | Array, reset: str, tmp_path: Path
) -> None:
    graph = residual(decay, timesteps, threshold, reset)
    fired = simulate(graph, random_inputs(graph, 6, 0)).spikes
    assert all(0.02 < layer.mean() < 0.98 for layer in fired.values())
    assert_equal(graph, tmp_path / "network.onnx", samples=6, form=form)


def operators(graph: Graph, path: Path) -> list[str]:
    """What is computed for each batch; onnxruntime computes what depends on constants alone once, as it loads."""
    EXPORTER.write(graph, TARGET, path)
    reached, found = {"input"}, []
    for node in onnx.load(path).graph.node:
        if reached & {*node.input}:
            reached |= {*node.output}
            found.append(node.op_type)
    return found


@pytest.mark.parametrize(("timesteps", "membranes"), [(1, 0), (4, 2 * 3)])
def test_no_copy_between_layouts_and_no_membrane_where_comparisons_will_do(
    timesteps: int, membranes: int, tmp_path: Path
) -> None:
    """The layer on the still picture has none, nor has any layer in its last step."""
    found = operators(residual(0.5, timesteps, 90, "zero"), tmp_path / "network.onnx")
    kinds = {"Cast", "Conv", "Add", "HardSigmoid", "AveragePool", "Flatten", "Gemm"}
    assert set(found) == kinds | ({"Mul"} if membranes else set())
    assert found.count("Mul") == membranes
    assert found.count("Cast") == 2, "the picture and the logits"
    assert found.count("Gemm") == found.count("Flatten") == 1, "spikes are counted ahead of the readout"
    if timesteps == 1:
        assert found.count("HardSigmoid") == 3


def at_the_bound(bias: int) -> Graph:
    """A layer of one spike and one bias whose partial sums reach up to 3 * bias + 1; the spike decides."""
    graph = leaky(1.0, 1)
    weights = {"fc": np.eye(5, 6, dtype=int), "read": np.ones((3, 5), dtype=int)}
    nodes = [
        replace(
            node, weight=weights[node.name], bias=np.full(len(weights[node.name]), bias if node.name == "fc" else 1)
        )
        if isinstance(node, Linear)
        else replace(node, threshold=np.asarray(bias))
        if isinstance(node, Neuron)
        else node
        for node in graph
    ]
    nodes[0] = Input(name="in", shape=(6,), high=1)
    return replace(graph, nodes=tuple(nodes))


LAST = (2**24 - 2) // 3
"""The largest bias of such a layer for float32."""


def test_the_bound_is_kept_at_its_value_and_integers_take_over_one_beyond(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    for bias, kinds in ((LAST, {"Gemm"}), (LAST + 1, {"Gemm", "MatMulInteger"})):
        graph = at_the_bound(bias)
        assert_equal(graph, path, samples=40)
        assert {node.op_type for node in onnx.load(path).graph.node} & {"Gemm", "MatMulInteger"} == kinds


def test_a_bound_that_is_too_generous_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, path = at_the_bound(2**24), tmp_path / "network.onnx"
    assert_equal(graph, path, samples=40)
    monkeypatch.setattr(_onnx_writer, "EXACT_FLOAT32", 2**40)
    monkeypatch.setattr(_onnx_neuron, "EXACT_FLOAT32", 2**40)
    with pytest.raises(AssertionError):
        assert_equal(replace(graph, nodes=tuple(graph)), path, samples=40)


def test_a_membrane_of_any_step_past_its_last_is_what_the_integers_say(tmp_path: Path) -> None:
    """One step at a time, five times as long as the network's own T."""
    path = tmp_path / "network.onnx"
    short, long = leaky(0.5, 4), leaky(0.5, 20)
    loader = EXPORTER.write(short, TARGET, path, form="one-step")
    inputs = random_inputs(short, 20)
    met = EXPORTER.proofs[0].run(path, inputs, {**loader, "timesteps": 20})
    assert first_difference(long, simulate(long, inputs), met) is None


def test_a_constant_first_layer_is_computed_once(tmp_path: Path) -> None:
    for form in ("unrolled", "folded"):
        EXPORTER.write(leaky(0.5, 4), TARGET, tmp_path / "network.onnx", form=form)
        dense = [node.input[0] for node in onnx.load(tmp_path / "network.onnx").graph.node if node.op_type == "Gemm"]
        assert dense[0] == "in/value"
        assert len(dense) == 1 + 1


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(seed=seeds)
def test_real_numbers_agree_with_the_float_simulation(seed: int, tmp_path: Path) -> None:
    """float32 against float64: a spike may fall the other way only where a membrane is at its threshold."""
    folded = fold_batchnorm(random_network(seed, EVERY_RESET), TARGET, Calibration(np.empty(0)))
    inputs = random_inputs(folded, 20, seed)
    for form in FORMS:
        loader = EXPORTER.write(folded, TARGET, tmp_path / "network.onnx", form=form, numbers="float")
        well_formed(onnx.load(tmp_path / "network.onnx"))
        met = EXPORTER.proofs[0].run(tmp_path / "network.onnx", inputs, loader)
        agreement = agree(folded, simulate(folded, inputs), met)
        assert agreement.spikes_differing <= 0.001 * agreement.places
        assert agreement.logit_error < 1e-4


@pytest.mark.parametrize("content", [b"", b"not onnx at all", None])
def test_a_damaged_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    loader = EXPORTER.write(compiled(2), TARGET, path)
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with pytest.raises(BundleError, match="is not an ONNX file"):
        EXPORTER.proofs[0].run(path, np.zeros((1, 1)), loader)


def test_it_runs_with_onnxruntime_and_numpy_alone(tmp_path: Path) -> None:
    legal = compiled(2)
    path = tmp_path / "network.onnx"
    loader = EXPORTER.write(legal, TARGET, path)
    inputs = random_inputs(legal, 3)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {loader["input"]["name"]: inputs.astype(loader["input"]["type"])})
    np.testing.assert_array_equal(logits, simulate(legal, inputs).logits)
