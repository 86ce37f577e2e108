"""Real lava-dl against the numpy replay and the simulator, and the process that it runs in."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from snnkd_deploy.errors import BundleError, ProofError, RuntimeMissingError
from snnkd_deploy.exporters import _lava, netx
from snnkd_deploy.exporters._netx_replay import Answer, replay
from snnkd_deploy.ir import Array
from snnkd_deploy.proof import first_difference
from snnkd_deploy.simulate import simulate
from tests.exporters.netx_files import FLATTEN, Layer, conv, dense, fed, frames, neuron, save
from tests.exporters.netx_graphs import CHAIN, GRAPHS, KEEPING, LOIHI, LOIHI2, compiled, samples
from tests.networks import Recipe, random_inputs


def missing() -> str:
    try:
        return str(_lava.python())[:0]
    except RuntimeMissingError as reason:
        return str(reason)


needs_lava = [pytest.mark.lava, pytest.mark.skipif(bool(missing()), reason=missing().partition("\n")[0])]


def with_lava(test: Callable[..., None]) -> Callable[..., None]:
    for mark in needs_lava:
        test = mark(test)
    return test


PICK = np.random.default_rng(11).integers
BINARY: dict[str, Any] = {"entry": "source", "message_bits": 0, "reset_offset": 1}
GRADED: dict[str, Any] = {"entry": "source", "message_bits": 8, "reset_offset": 1}
NEURONS: dict[str, Any] = {"entry": "input-neuron", "message_bits": 0, "reset_offset": 0}
KERNELS = PICK(-60, 61, (4, 3, 3, 2))
Case = tuple[list[Layer], Array, dict[str, Any]]

CASES: dict[str, Case] = {
    "dense chain with leaks and biases": (
        [
            dense(PICK(-90, 91, (9, 6)), bias=PICK(-40, 41, 9), neuron=neuron(80, leak=700, current_leak=3000)),
            dense(PICK(-90, 91, (7, 9)), bias=PICK(-40, 41, 7), neuron=neuron(60, leak=4095)),
            dense(PICK(-90, 91, (5, 7)), bias=PICK(-40, 41, 5), neuron=neuron(90, current_leak=0)),
            dense(PICK(-90, 91, (3, 5)), bias=PICK(-40, 41, 3)),
        ],
        PICK(-1, 2, (40, 5, 6)),
        BINARY,
    ),
    "convolutions of every shape": (
        [
            conv(KERNELS, (4, 4, 6), stride=(2, 1), padding=(1, 0), bias=PICK(-9, 10, 4), neuron=neuron(70, leak=300)),
            conv(PICK(-60, 61, (6, 2, 1, 2)), (6, 4, 7), groups=2, dilation=(1, 3), padding=(0, 2), neuron=neuron(40)),
            FLATTEN,
            dense(PICK(-90, 91, (4, 168))),
        ],
        PICK(0, 2, (30, 4, 3, 7, 7)),
        BINARY,
    ),
    "input neurons": (
        [
            fed((2, 4, 3), neuron=neuron(300, leak=1000, current_leak=3500)),
            conv(PICK(-60, 61, (3, 2, 2, 2)), (3, 3, 2), neuron=neuron(30, leak=100)),
            FLATTEN,
            dense(PICK(-90, 91, (4, 18))),
        ],
        PICK(-400, 600, (40, 3, 2, 4, 3)),
        NEURONS,
    ),
    "graded input": (
        [
            conv(
                PICK(-127, 128, (3, 2, 2, 3)), (3, 4, 2), bias=PICK(-99, 99, (2, 4, 3)), neuron=neuron(9000, leak=2000)
            ),
            FLATTEN,
            dense(PICK(-90, 91, (4, 24))),
        ],
        PICK(0, 256, (40, 4, 2, 5, 4)),
        GRADED,
    ),
    "graded input of one step": (
        [dense(PICK(-127, 128, (5, 8)), neuron=neuron(2000)), dense(PICK(-90, 91, (3, 5)))],
        PICK(0, 256, (60, 1, 8)),
        GRADED,
    ),
    "weights of one sign": (
        [
            dense(PICK(0, 90, (9, 6)), neuron=neuron(150)),
            dense(PICK(-90, 0, (7, 9)), bias=PICK(100, 200, 7), neuron=neuron(60)),
            dense([[-16] * 7, [-3] * 7], bias=[40, 50], neuron=neuron(10)),
            dense([[-2, 0]]),
        ],
        PICK(0, 2, (40, 4, 6)),
        BINARY,
    ),
    "limits of 24 bits": (
        [
            fed((6,), neuron=neuron(131071, leak=3, current_leak=900)),
            dense(PICK(-127, 128, (5, 6)), bias=PICK(-32767, 32768, 5), neuron=neuron(131071, current_leak=5)),
        ],
        PICK(-250000, 250000, (60, 8, 6)),
        NEURONS,
    ),
    "thresholds per channel": (
        [conv(KERNELS, (4, 5, 4), neuron=neuron(np.array([20, 50, 80, 110]))), FLATTEN, dense(PICK(-90, 91, (2, 80)))],
        PICK(0, 2, (30, 3, 3, 7, 5)),
        BINARY,
    ),
}


def assert_same(met: Answer, expected: Answer) -> None:
    for one, other in zip(met.spikes, expected.spikes, strict=True):
        assert_array_equal(one, other)
    assert_array_equal(met.potential, expected.potential)


@with_lava
@pytest.mark.parametrize("case", CASES)
def test_lava_computes_what_the_replay_does(case: str, tmp_path: Path) -> None:
    layers, inputs, options = CASES[case]
    path = save(tmp_path / "random.net", *layers)
    expected = replay(path, inputs, steps=inputs.shape[1], message_bits=options["message_bits"])
    assert 0.02 < expected.spikes[0].mean() < 0.98
    assert_same(_lava.run(path, inputs, **options), expected)


@with_lava
@pytest.mark.parametrize("case", ["convolutions of every shape", "input neurons"])
def test_a_sample_in_a_stream_equals_the_sample_alone(case: str, tmp_path: Path) -> None:
    layers, inputs, options = CASES[case]
    path = save(tmp_path / "random.net", *layers)
    stream, alone = _lava.run(path, inputs[:3], **options), _lava.run(path, inputs[2:3], **options)
    assert_same(Answer(tuple(one[2:] for one in stream.spikes), stream.potential[2:]), alone)


@with_lava
@pytest.mark.parametrize("case", ["host conv", "graded frames", "relays", "flattened picture", "a picture into zeros"])
def test_lava_computes_what_the_simulator_does(case: str, tmp_path: Path) -> None:
    target, graph = GRAPHS[case]
    inputs, path = samples(graph), tmp_path / "network.net"
    met = netx.run_lava(path, inputs, netx.write(graph, target, path))
    assert first_difference(graph, simulate(graph, inputs), met) is None


@with_lava
@pytest.mark.parametrize(("seed", "recipe"), [*product(range(8), [CHAIN]), *product(range(4), [KEEPING])])
def test_lava_keeps_every_spike_of_random_networks(seed: int, recipe: Recipe, tmp_path: Path) -> None:
    target = LOIHI2 if seed % 2 else LOIHI
    legal, path = compiled(seed, target, recipe), tmp_path / "network.net"
    inputs = random_inputs(legal, 20, seed)
    met = netx.run_lava(path, inputs, netx.write(legal, target, path))
    assert first_difference(legal, simulate(legal, inputs), met) is None


def runner(folder: Path, path: Path, **request: Any) -> subprocess.Popen[bytes]:
    defaults = {"reset_interval": 1, "reset_offset": 1, "input_message_bits": 0, "blocks": 1, "entry": "source"}
    np.savez(folder / "request.npz", **{**defaults, **request})
    files = [str(one) for one in (path, folder / "request.npz", folder / "answer.npz")]
    command = [str(_lava.python()), str(_lava.RUNNER), *files, "--watch-stdin"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


@with_lava
def test_the_runner_refuses_what_would_hang_lava(tmp_path: Path) -> None:
    path = save(
        tmp_path / "bad.net",
        conv(np.ones((200, 1, 1, 1), int), (200, 1, 1), groups=200),
        FLATTEN,
        dense([[0] * 200], neuron={**neuron(), "messageBits": 8}),
        {"type": np.bytes_("pool")},
    )
    with runner(tmp_path, path, inputs=np.ones((1, 1, 200, 1, 1), np.int32)) as process:
        assert process.wait(timeout=60) == _lava.REFUSED
        assert process.stderr is not None
        errors = process.stderr.read().decode()
    for part in ("groups", "all weights are zero", "messageBits", "type 'pool'"):
        assert part in errors


@with_lava
def test_the_runner_ends_with_its_parent(tmp_path: Path) -> None:
    path = save(tmp_path / "long.net", dense([[1, 2]]))
    process = runner(tmp_path, path, inputs=np.ones((100000, 1, 2), np.int32))
    _, errors = process.communicate(timeout=60)  # closes its input
    assert process.returncode == 70, errors
    assert not (tmp_path / "answer.npz").exists()


@with_lava
def test_words_of_lava_reach_the_user(tmp_path: Path) -> None:
    path = save(tmp_path / "small.net", dense([[1, 2]]))
    with pytest.raises(ProofError, match=r"lava-dl failed \(code 1\)(.|\n)*Shapes \(2,\) and \(1,\) are incompatible"):
        _lava.run(path, frames([1, 1]), **NEURONS)


def test_without_lava_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_lava, "RUNNER", tmp_path / "package/exporters/_lava_runner.py")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(_lava.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeMissingError, match=r"make lava(.|\n)*pip install(.|\n)*SNNKD_LAVA_PYTHON"):
        _lava.python()
    monkeypatch.setenv(_lava.VARIABLE, str(tmp_path / "python"))
    with pytest.raises(RuntimeMissingError, match=r"SNNKD_LAVA_PYTHON names .*, which is no file"):
        _lava.python()


@pytest.mark.parametrize("place", [".venv-lava", "package/.venv-lava", ".cache/snnkd-deploy/lava"])
def test_lava_is_found_where_it_is_put(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_lava, "RUNNER", tmp_path / "package/exporters/_lava_runner.py")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(_lava.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    interpreter = tmp_path / place / "bin/python"
    interpreter.parent.mkdir(parents=True)
    interpreter.touch()
    assert _lava.python() == interpreter


def test_the_pins_in_the_error_are_those_of_the_file() -> None:
    lines = Path(__file__).parents[2].joinpath("constraints-lava.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(_lava.PINS.split()) == sorted(line for line in lines if line and not line.startswith("#"))


FAMILY = """
import subprocess, sys
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", stubborn])
open(sys.argv[1], "w").write(str(child.pid))
child.wait()
"""
"""A process with a child that has to be killed."""


def ends(pid: int) -> bool:
    """Whether the process is gone, or is about to be."""
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
    return False


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lava, "GRACE", 0.2)


@pytest.mark.usefixtures("impatient")
def test_nothing_outlives_a_timeout(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissingError, match="did not answer within 1 s"):
        _lava._call([sys.executable, "-c", FAMILY, str(tmp_path / "pid")], tmp_path, 1.0)
    assert ends(int((tmp_path / "pid").read_text()))


@pytest.mark.usefixtures("impatient")
def test_nothing_outlives_an_interrupt(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        with pytest.raises(KeyboardInterrupt):
            _lava._call([sys.executable, "-c", FAMILY, str(tmp_path / "pid")], tmp_path, 60.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert ends(int((tmp_path / "pid").read_text()))


def test_a_failure_shows_the_end_of_what_was_said(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match=r"lava-dl failed \(code 3\): (line \d+\n)*line 99$"):
        _lava._call([sys.executable, "-c", says(3)], tmp_path, 60.0)
    with pytest.raises(BundleError, match=r"lava-dl cannot run this file: line 99$"):
        _lava._call([sys.executable, "-c", says(_lava.REFUSED)], tmp_path, 60.0)


def test_an_interpreter_without_lava_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissingError, match=r"lacks a part of lava-dl: ModuleNotFoundError"):
        _lava._call([sys.executable, "-c", "import no_such_module"], tmp_path, 60.0)
    with pytest.raises(RuntimeMissingError, match=r"cannot start .*: Permission denied"):
        _lava._call([str(tmp_path)], tmp_path, 60.0)


def says(code: int) -> str:
    return f"import sys; [sys.stderr.write(f'line {{n}}\\n') for n in range(100)]; sys.exit({code})"


def test_more_work_gets_more_time() -> None:
    assert _lava.patience((), 0) < _lava.patience((), 1000)
    assert _lava.RUNNER.is_file()
