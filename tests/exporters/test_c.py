"""The C files, compiled by the system's compiler, against the simulator."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snnkd_deploy.calibration import Calibration
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import BundleError, LegalityError, RuntimeMissingError
from snnkd_deploy.export import ExportOptions, export, verify
from snnkd_deploy.exporters._names import identifiers, plain
from snnkd_deploy.ir import Graph, Linear, Neuron, Output
from snnkd_deploy.proof import first_difference
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.run import Run
from snnkd_deploy.simulate import predictions, simulate
from snnkd_deploy.target import load_target
from snnkd_deploy.toolchain import compiler
from tests.networks import EVERY_RESET, KEEPING, LEAKS, Recipe, random_inputs, random_network

TARGET, EXPORTER = load_target("c"), load_exporter("c")
RUN = EXPORTER.proofs[0].run
SEEDS = (2, 6, 21, 25, 27, 29, 31)
SANITIZERS = ("-std=c99", "-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")


def compiled(seed: int, recipe: Recipe = EVERY_RESET) -> Graph:
    graph = random_network(seed, recipe)
    granularity = "channel" if seed % 2 else "layer"
    return lower(graph, TARGET, Calibration(random_inputs(graph, 8, seed), granularity=granularity)).legal  # type: ignore[arg-type]


def assert_equal(legal: Graph, path: Path, **options: object) -> None:
    loader = EXPORTER.write(legal, TARGET, path)
    inputs = random_inputs(legal, 5)
    assert first_difference(legal, simulate(legal, inputs), RUN(path, inputs, loader, **options)) is None


def features(legal: Graph, text: str) -> set[object]:
    neurons = legal.of(Neuron)
    found: set[object] = {type(node).__name__ for node in legal} | {("still", legal.input.static)}
    found |= {("reset", node.reset) for node in neurons} | {("per channel", node.threshold.ndim) for node in neurons}
    return (
        found
        | {("leak", "none" if n.decay == 1 else "some") for n in neurons}
        | set(re.findall(r"uint(?:32|64)_t", text))
    )


def test_the_compiled_files_spike_as_the_simulator(tmp_path: Path) -> None:
    met: set[object] = set()
    for seed in SEEDS:
        legal = compiled(seed)
        assert_equal(legal, tmp_path / "network.c")
        met |= features(legal, (tmp_path / "network.c").read_text())
    wanted: set[object] = {("still", True), ("still", False), *(("reset", reset) for reset in EVERY_RESET.resets)}
    wanted |= {("per channel", 0), ("per channel", 1), ("leak", "none"), ("leak", "some")}
    assert met >= {*TARGET.nodes, *wanted, "uint32_t", "uint64_t"}


@pytest.mark.parametrize("seed", [2, 3, 6, 21])
def test_channels_leak_by_a_table(seed: int, tmp_path: Path) -> None:
    legal = compiled(seed, LEAKS)
    assert_equal(legal, tmp_path / "network.c")
    weights = (tmp_path / "network_weights.h").read_text()
    several = [node for node in legal.of(Neuron) if np.ndim(node.decay)]
    assert several
    for node in several:
        assert f"_leak[{np.size(node.decay)}] = {{\n    {', '.join(map(str, node.leak[0]))},\n" in weights


@pytest.mark.parametrize("seed", [2, 9, 6, 27])
def test_neurons_keep_their_current_in_an_array_of_their_own(seed: int, tmp_path: Path) -> None:
    legal = compiled(seed, KEEPING)
    assert_equal(legal, tmp_path / "network.c", flags=SANITIZERS)
    keeping = [node for node in legal.of(Neuron) if node.keeps_current]
    assert keeping
    code = (tmp_path / "network.c").read_text()
    assert code.count("_current, 0, sizeof") == len(keeping)


@pytest.mark.parametrize("seed", [6, 3])
def test_the_sanitizers_find_nothing(seed: int, tmp_path: Path) -> None:
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }\n")
    command = [compiler(), *SANITIZERS, str(tmp_path / "empty.c"), "-o", str(tmp_path / "empty")]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this compiler has no sanitizers")
    assert_equal(compiled(seed), tmp_path / "network.c", flags=SANITIZERS)


def test_the_device_needs_stdint_and_string_alone(tmp_path: Path) -> None:
    EXPORTER.write(compiled(2), TARGET, tmp_path / "network.c")
    text = "".join((tmp_path / name).read_text() for name in ("network.c", "network.h", "network_weights.h"))
    assert set(re.findall(r"#include <(.+)>", text)) == {"stdint.h", "string.h"}
    assert not re.findall(r"\b(?:malloc|float|double|long|printf)\b", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL))
    assert set(re.findall(r"\b(\w+)\(", text[text.index("static int32_t get") :])) >= {"memset", "memcpy"}


@pytest.mark.skipif(not shutil.which("size"), reason="binutils are not here")
def test_the_header_states_the_memory_that_the_compiler_takes(tmp_path: Path) -> None:
    loader = EXPORTER.write(compiled(6), TARGET, tmp_path / "network.c")
    command = [compiler(), "-std=c99", "-c", "network.c", "-o", "network.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    shown = subprocess.run(["size", "network.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    bss = int(shown.splitlines()[1].split()[2])
    arrays = (tmp_path / "network.c").read_text().count("];")
    assert loader["ram_bytes"] <= bss <= loader["ram_bytes"] + 32 * arrays  # compilers align arrays
    assert f"RAM     {loader['ram_bytes']} bytes" in (tmp_path / "network.h").read_text()


def test_main_runs_as_its_comment_says(tmp_path: Path) -> None:
    legal = compiled(27)
    loader = EXPORTER.write(legal, TARGET, tmp_path / "network.c")
    assert not loader["input"]["frames"]
    images = random_inputs(legal, 7)
    (said,) = re.findall(r"cc (-std.+)$", (tmp_path / "main.c").read_text(), flags=re.MULTILINE)
    subprocess.run([compiler(), *said.split()], cwd=tmp_path, check=True)
    content = images.astype(loader["input"]["type"]).tobytes()
    shown = subprocess.run(["./network"], cwd=tmp_path, input=content, capture_output=True, check=True).stdout
    assert [int(line.split()[0]) for line in shown.splitlines()] == predictions(legal, images).tolist()


def test_a_bundle_holds_all_files_and_notices_an_edit_in_each(tiny_run: Run, tmp_path: Path) -> None:
    bundle = export(tiny_run, "c", tmp_path / "b", ExportOptions(samples=9))
    names = {"network.c", "network.h", "network_weights.h", "main.c"}
    assert set(bundle.manifest["files"]) == {*names, "graphs.safetensors"}
    assert [proof["differing"] for proof in verify(bundle.path, samples=3)] == [0]
    for name in sorted(names):
        before = (bundle.path / name).read_text()
        (bundle.path / name).write_text(before + "\n")
        with pytest.raises(BundleError, match=f"{name} is not the file that was written"):
            verify(bundle.path)
        (bundle.path / name).write_text(before)


def test_a_missing_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    legal = compiled(2)
    loader = EXPORTER.write(legal, TARGET, tmp_path / "network.c")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(RuntimeMissingError, match="no C compiler .no-such-compiler."):
        RUN(tmp_path / "network.c", random_inputs(legal, 1), loader)


def test_files_that_do_not_compile_or_run_are_told(tmp_path: Path) -> None:
    legal, path = compiled(2), tmp_path / "network.c"
    loader = EXPORTER.write(legal, TARGET, path)
    path.write_text(path.read_text() + "int unused(void) { return 0 }\n")
    with pytest.raises(BundleError, match=r"network\.c does not compile:[\s\S]*error"):
        RUN(path, random_inputs(legal, 1), loader)
    EXPORTER.write(legal, TARGET, path)
    (tmp_path / "main.c").write_text("int main(void) { return 3; }\n")
    with pytest.raises(BundleError, match=r"network\.c failed \(code 3\)"):
        RUN(path, random_inputs(legal, 1), loader)


def test_what_32_bits_cannot_hold_is_refused_with_every_reason(tmp_path: Path) -> None:
    legal = compiled(2)
    big = [replace(n, bias=n.bias + 2**31) if isinstance(n, Linear) else n for n in legal]
    with pytest.raises(LegalityError, match="its sums can reach") as refused:
        EXPORTER.write(replace(legal, nodes=tuple(big)), TARGET, tmp_path / "network.c")
    assert len(refused.value.reasons) >= len(legal.of(Linear)) + len(legal.of(Output))
    without = (
        legal.input,
        Linear(name="l", inputs=(legal.input.name,), weight=np.ones((2, 7), int), bias=np.ones(2, int)),
    )
    silent = Graph(nodes=(*without, Output(name="y", inputs=("l",))), timesteps=1, stage=legal.stage)
    flat = replace(silent, nodes=(replace(silent.input, shape=(7,)), *silent.nodes[1:]))
    with pytest.raises(LegalityError, match="no neurons"):
        EXPORTER.write(flat, TARGET, tmp_path / "network.c")
    assert not list(tmp_path.iterdir())


def test_names_become_identifiers_of_their_own() -> None:
    legal = compiled(2)
    names = ["a.b", "a_b", "0", "für", "int", "*/"]
    nodes = [replace(legal.nodes[0], name=name) for name in names]
    found = identifiers(replace(legal, nodes=tuple(nodes)), {"int"})
    assert list(found.values()) == ["a_b", "a_b_2", "n0", "f_r", "int_2", "n__"]
    assert plain('end */ """ \\ \n') == "end __ ___ _ _"
