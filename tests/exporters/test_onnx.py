"""The ONNX file in onnxruntime against the simulator, integer by integer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import BundleError, LegalityError
from snnkd_deploy.ir import Attention, Conv2d, Graph, Linear
from snnkd_deploy.proof import first_difference
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import State, Target, load_target
from tests.networks import ANY, ATTENTIVE, Recipe, random_inputs, random_network, seeds

TARGET, EXPORTER = load_target("onnx"), load_exporter("onnx")


def compiled(seed: int, target: Target = TARGET, recipe: Recipe = ANY, **options: object) -> Graph:
    graph = random_network(seed, recipe)
    return lower(graph, target, Calibration(random_inputs(graph, 8, seed), **options)).legal  # type: ignore[arg-type]


def assert_equal(legal: Graph, path: Path, samples: int = 5, seed: int = 0, target: Target = TARGET) -> None:
    loader = EXPORTER.write(legal, target, path)
    inputs = random_inputs(legal, samples, seed)
    met = EXPORTER.proofs[0].run(path, inputs, loader)
    assert first_difference(legal, simulate(legal, inputs), met) is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(seed=seeds)
def test_onnxruntime_spikes_as_the_simulator(seed: int, tmp_path: Path) -> None:
    try:
        legal = compiled(seed, granularity="channel" if seed % 2 else "layer")
    except LegalityError:
        return
    assert_equal(legal, tmp_path / "network.onnx", seed=seed)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(seed=seeds)
def test_products_of_spikes_are_those_of_the_simulator(seed: int, tmp_path: Path) -> None:
    try:
        legal = compiled(seed, recipe=ATTENTIVE)
    except LegalityError:
        return
    assert_equal(legal, tmp_path / "network.onnx", seed=seed)


def test_counts_beyond_float32_are_multiplied_as_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = next(seed for seed in range(50) if random_network(seed, ATTENTIVE).of(Attention))
    legal, path = compiled(seed, recipe=ATTENTIVE), tmp_path / "network.onnx"
    assert_equal(legal, path, seed=seed)
    types = []
    for limit in (2**24, 1):
        monkeypatch.setattr(EXPORTER, "EXACT_FLOAT32", limit)
        EXPORTER.write(replace(legal, nodes=tuple(legal)), TARGET, path)
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
        found = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
        types.append({found[name] for node in model.graph.node if node.op_type == "MatMul" for name in node.output})
    assert types == [{onnx.TensorProto.FLOAT}, {onnx.TensorProto.INT32}]
    assert_equal(legal, path, seed=seed)


def test_any_batch_size_runs(tmp_path: Path) -> None:
    legal = compiled(2)
    path = tmp_path / "network.onnx"
    for samples in (1, 3, 130):
        assert_equal(legal, path, samples)


def test_weights_are_int8_and_only_standard_operators_are_used(tmp_path: Path) -> None:
    legal = compiled(2)
    path = tmp_path / "network.onnx"
    EXPORTER.write(legal, TARGET, path)
    model = onnx.load(path)
    weights = [one for one in model.graph.initializer if one.name.endswith("/weight")]
    assert weights
    assert {one.data_type for one in weights} == {onnx.TensorProto.INT8}
    assert {node.domain for node in model.graph.node} == {""}
    read = {name for node in model.graph.node for name in node.input} | {one.name for one in model.graph.output}
    assert all(name in read for node in model.graph.node for name in node.output)
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
