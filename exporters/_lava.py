"""Run a netx file in real lava-dl: a process of its own, in a Python environment of its own.

lava-dl wants Python 3.10, numpy 1 and torch; this package keeps it out. `make lava` builds the environment; by hand,
with `constraints-lava.txt` from the source of this package:

    python3 -m venv ~/.cache/snnkd-deploy/lava
    ~/.cache/snnkd-deploy/lava/bin/pip install --no-deps --ignore-requires-python -r constraints-lava.txt
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from snnkd_deploy.errors import BundleError, ProofError, RuntimeMissingError
from snnkd_deploy.files import storage_errors
from snnkd_deploy.ir import Array

from ._netx_replay import Answer, Block, Conv, Dense, read

RUNNER = Path(__file__).with_name("_lava_runner.py")
VARIABLE = "SNNKD_LAVA_PYTHON"
REFUSED = 64
"""The runner's exit code for a file that would hang lava."""
TAIL_LINES = 15
GRACE = 3.0
"""Seconds between asking a process to end and killing it."""
PINS = "lava-nc==0.10.0 lava-dl==0.6.0 numpy==1.26.4 scipy==1.15.3 h5py==3.14.0 networkx==2.8.7 asteval==1.0.6"
"""As in constraints-lava.txt, for those who have no source at hand."""
HOW_TO = f"""real lava-dl is not installed; `make lava` in the source of this package gets it, or:
  python3 -m venv ~/.cache/snnkd-deploy/lava
  ~/.cache/snnkd-deploy/lava/bin/pip install --no-deps --ignore-requires-python {PINS}
or let {VARIABLE} name a Python (3.10 to 3.12) that has it"""


def python() -> Path:
    """The interpreter that has lava; RuntimeMissingError says how to get one."""
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_file():
            raise RuntimeMissingError(f"{VARIABLE} names {named}, which is no file")
        return Path(named)
    places = [Path.cwd() / ".venv-lava", RUNNER.parents[1] / ".venv-lava", Path.home() / ".cache/snnkd-deploy/lava"]
    for place in places:
        if (found := place / "bin/python").is_file():
            return found
    raise RuntimeMissingError(HOW_TO)


def run(path: Path, inputs: Array, *, message_bits: int, reset_offset: int, entry: str) -> Answer:
    """Stream `inputs`, integers `(samples, steps, *shape)`, through the file, back to back.

    `entry`: "source" or "input-neuron". BundleError if the file is damaged, RuntimeMissingError without lava or when it
    does not answer in time, ProofError with lava's own words where it fails.
    """
    interpreter = python()
    blocks = read(path, inputs.shape[2:])
    with tempfile.TemporaryDirectory(prefix="snnkd-lava-") as folder:
        request, answer = Path(folder, "request.npz"), Path(folder, "answer.npz")
        with storage_errors(request):
            np.savez(
                request,
                inputs=inputs.astype(np.int32),
                reset_interval=inputs.shape[1],
                reset_offset=reset_offset,
                input_message_bits=message_bits,
                blocks=len(blocks),
                entry=entry,
            )
        command = [str(interpreter), str(RUNNER), str(path), str(request), str(answer), "--watch-stdin"]
        _call(command, Path(folder), patience(blocks, inputs.shape[0] * inputs.shape[1]))
        with np.load(answer) as found:
            spikes = tuple(found[f"spikes_{index}"] for index in range(len(blocks)))
            return Answer(spikes, found["potential"])


def patience(blocks: tuple[Block, ...], steps: int) -> float:
    """Seconds after which a run counts as hung: about thirty times what an idle machine of two cores needs."""
    products = sum(_products(block) for block in blocks)
    return 120.0 + steps * (0.1 * (len(blocks) + 1) + products * 1e-7)


def _products(block: Block) -> int:
    """Weights times positions: what one step of lava multiplies, spikes or not."""
    if isinstance(block, Conv):
        return int(block.weight.size * block.shape[1] * block.shape[2] * max(block.stride) ** 2)
    return int(block.weight.size) if isinstance(block, Dense) else 0


def _call(command: list[str], folder: Path, seconds: float) -> None:
    """Run the command in a session of its own, and leave nothing of it behind, whatever happens here."""
    errors = folder / "stderr"
    process = _start(command, errors)
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeMissingError(f"lava-dl did not answer within {seconds:.0f} s; {_tail(errors)}") from None
    finally:
        end_session(process)
    if code == REFUSED:
        raise BundleError(f"lava-dl cannot run this file: {_tail(errors, 1)}")
    if code != 0 and "ModuleNotFoundError" in (last := _tail(errors, 1)):
        raise RuntimeMissingError(f"{command[0]} lacks a part of lava-dl: {last}")
    if code != 0:
        raise ProofError(f"lava-dl failed (code {code}): {_tail(errors)}")


def _start(command: list[str], errors: Path) -> subprocess.Popen[bytes]:
    with errors.open("wb") as stderr:
        try:
            return subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
        except OSError as problem:
            raise RuntimeMissingError(f"cannot start {command[0]}: {problem.strerror}") from problem


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started: asked first, so that shared memory is given back, then killed."""
    if process.stdin is not None:
        process.stdin.close()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        limit = time.monotonic() + GRACE
        while process.poll() != 0 and time.monotonic() < limit:
            os.killpg(process.pid, 0)
            time.sleep(0.02)
        if process.poll() != 0:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(errors: Path, lines: int = TAIL_LINES) -> str:
    text = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "\n".join(text[-lines:]) or "it said nothing"
