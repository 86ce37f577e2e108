"""The file of the native runtime: written, run alone, refused, and proven in a bundle."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snnkd_deploy import native
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import BundleError, LegalityError, RuntimeMissingError
from snnkd_deploy.export import ExportOptions, export, verify
from snnkd_deploy.exporters.native import BUILD
from snnkd_deploy.ir import Attention, Graph, Linear, Neuron
from snnkd_deploy.native import library
from snnkd_deploy.proof import first_difference
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.run import Run
from snnkd_deploy.simulate import simulate
from snnkd_deploy.target import load_target
from tests.networks import ATTENTIVE, EVERY_RESET, KEEPING, LEAKS, SPIKING_ENDS, Recipe, random_inputs, random_network

TARGET, EXPORTER = load_target("native"), load_exporter("native")
RUN = EXPORTER.proofs[0].run


def compiled(seed: int, recipe: Recipe = EVERY_RESET) -> Graph:
    graph = random_network(seed, recipe)
    granularity = "channel" if seed % 2 else "layer"
    return lower(graph, TARGET, Calibration(random_inputs(graph, 8, seed), granularity=granularity)).legal  # type: ignore[arg-type]


def test_the_file_alone_spikes_as_the_simulator(tmp_path: Path) -> None:
    met: set[object] = set()
    for recipe in (EVERY_RESET, LEAKS, KEEPING, SPIKING_ENDS, ATTENTIVE):
        for seed in range(20):
            try:
                legal = compiled(seed, recipe)
            except LegalityError:
                continue
            path = tmp_path / "network.snn"
            loader = EXPORTER.write(legal, TARGET, path)
            inputs = random_inputs(legal, 5, seed)
            assert first_difference(legal, simulate(legal, inputs), RUN(path, inputs, loader)) is None
            assert loader["input"]["frames"] is not legal.input.static
            met |= {type(node).__name__ for node in legal} | {neuron.reset for neuron in legal.of(Neuron)}
            met |= {"keeps" for neuron in legal.of(Neuron) if neuron.keeps_current}
            met |= {neuron.decay.ndim for neuron in legal.of(Neuron) if isinstance(neuron.decay, np.ndarray)}
    assert met == {*TARGET.nodes, *EVERY_RESET.resets, "keeps", 1}


def test_what_32_bits_cannot_hold_is_refused_with_every_reason(tmp_path: Path) -> None:
    legal = compiled(2)
    big = [replace(n, bias=n.bias + 2**31) if isinstance(n, Linear) else n for n in legal]
    with pytest.raises(LegalityError, match="native cannot hold .*\n.*its sums can reach") as refused:
        EXPORTER.write(replace(legal, nodes=tuple(big)), TARGET, tmp_path / "network.snn")
    assert len(refused.value.reasons) >= len(legal.of(Linear)) + 1
    assert not list(tmp_path.iterdir())


def test_a_bundle_is_proven_and_says_how_to_load_its_file(tiny_run: Run, tmp_path: Path) -> None:
    bundle = export(tiny_run, "native", tmp_path / "b", ExportOptions(samples=30))
    (proof,) = bundle.manifest["proofs"]
    assert (bundle.verified, proof["name"], proof["differing"], proof["samples"]) == (True, "native-runtime", 0, 30)
    assert proof["spikes"] > 0
    assert set(bundle.manifest["files"]) == {"network.snn", "graphs.safetensors"}
    assert [one["differing"] for one in verify(bundle.path, samples=7)] == [0]
    said = bundle.manifest["loader"]["python"]
    assert said == "snnkd_deploy.native.load('network.snn').run(samples)"
    assert native.load(bundle.file).digest == bundle.digest
    content = bundle.file.read_bytes()
    bundle.file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"network\.snn is not the file that was written"):
        verify(bundle.path)


def test_a_file_that_computes_something_else_fails_its_proof(tiny_run: Run, tmp_path: Path) -> None:
    bundle = export(tiny_run, "native", tmp_path / "b", ExportOptions(samples=5))
    graph, inputs = bundle.graphs["integer"], random_inputs(bundle.graphs["integer"], 20)
    first = graph.of(Neuron)[0]
    other = replace(graph, nodes=tuple(replace(n, threshold=n.threshold + 40) if n is first else n for n in graph))  # type: ignore[call-arg]
    loader = EXPORTER.write(other, TARGET, tmp_path / "network.snn")
    met = RUN(tmp_path / "network.snn", inputs, loader)
    difference = first_difference(graph, simulate(graph, inputs), met)
    assert difference is not None
    assert difference.layer == first.name


def test_without_a_compiler_the_file_is_written_and_said_to_be_unproven(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.build.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    bundle = export(tiny_run, "native", tmp_path / "b", ExportOptions(samples=5))
    assert not bundle.verified
    assert bundle.manifest["proofs"][0]["reason"].startswith("no C++ compiler (no-such-compiler)")
    with pytest.raises(RuntimeMissingError, match="native-runtime did not run: no C"):
        verify(bundle.path)


def test_the_line_that_builds_the_library_is_right(tmp_path: Path) -> None:
    """As far as the compiler's front end goes; the library itself is what every other test runs."""
    command = [*BUILD.split(" -o ")[0].split(), "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(command, cwd=library.FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_attention_is_held() -> None:
    assert any(compiled(seed, ATTENTIVE).of(Attention) for seed in range(5))
