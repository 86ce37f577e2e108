"""The door to the Triton kernel: closed where there is no Triton, or none that works; how it cuts up its work."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from snnkd_deploy.snn import doors, kernel, triton_kernel
from snnkd_deploy.snn.lif import LIF
from snnkd_deploy.snn.triton_kernel import BROADEST, CLOSE, KEPT, MOST_STEPS, TILE, Cut


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    triton_kernel._works.cache_clear()
    yield
    triton_kernel._works.cache_clear()


def found(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(triton_kernel, "find_spec", lambda name: object() if there else None)


def test_a_gpu_has_this_kernel() -> None:
    assert doors.DOORS["cuda"] is triton_kernel


def test_training_is_imported_without_triton() -> None:
    code = "import sys; sys.modules['triton'] = None; import snnkd_deploy.train, snnkd_deploy.snn.fused"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_triton_there_is_none_and_no_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found(monkeypatch, False)
    assert not triton_kernel.available()
    assert not caplog.records


def test_a_trial_that_fails_leaves_it_closed_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(device: str) -> float:
        raise RuntimeError("no C compiler")

    found(monkeypatch, True)
    monkeypatch.setattr(triton_kernel, "trial", fails)
    assert not triton_kernel.available()
    assert not triton_kernel.available()
    assert [(one.levelno, one.message.rsplit(": ", 1)[1]) for one in caplog.records] == [
        (logging.WARNING, "no C compiler")
    ]


@pytest.mark.parametrize(("off", "usable"), [(0.0, True), (2 * CLOSE, False), (float("nan"), False)])
def test_a_trial_with_another_result_leaves_it_closed(
    off: float, usable: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found(monkeypatch, True)
    monkeypatch.setattr(triton_kernel, "trial", lambda device: off)
    assert triton_kernel.available() == usable
    assert ("computes something else" in caplog.text) != usable


@pytest.mark.parametrize("wrong", [False, True])
def test_the_trial_sees_a_wrong_gradient(wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the C++ kernel in the place of Triton's."""

    def backward(job: object, grad: torch.Tensor, into: object) -> None:
        kernel.backward(job, 1.01 * grad if wrong else grad, into)  # type: ignore[arg-type]

    if not kernel.available():
        pytest.skip("needs a C++ compiler")
    monkeypatch.setattr(triton_kernel, "forward", kernel.forward)
    monkeypatch.setattr(triton_kernel, "backward", backward)
    assert (triton_kernel.trial("cpu") < CLOSE) != wrong


def test_the_environment_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, True)
    monkeypatch.setattr(triton_kernel, "trial", lambda device: 0.0)
    monkeypatch.setenv(kernel.SWITCH, "0")
    assert not triton_kernel.available()


def test_more_steps_than_fit_into_registers_are_left_to_plain_torch() -> None:
    assert triton_kernel.knows(LIF(), MOST_STEPS)
    assert not triton_kernel.knows(LIF(), MOST_STEPS + 1)


@pytest.mark.parametrize("channels", [1, 3, 16, 63, 64, 65, 2500])
@pytest.mark.parametrize("positions", [1, 16, 17, 5000])
@pytest.mark.parametrize("corners", [1, 4])
@pytest.mark.parametrize("kept", [1, 2, 3, 4, 5, MOST_STEPS])
def test_tiles_cover_all_values_and_are_powers_of_two(channels: int, positions: int, corners: int, kept: int) -> None:
    cut = Cut(positions, channels, corners, kept)
    assert cut.rows * cut.columns * corners == cut.tile <= TILE
    assert cut.tile * kept <= KEPT
    assert cut.columns & (cut.columns - 1) == 0
    assert cut.columns <= BROADEST
    for size, pieces, count in zip((cut.rows, cut.columns), cut.grid, (positions, channels), strict=True):
        assert size * (pieces - 1) < count <= size * pieces


def test_statistics_are_of_channels() -> None:
    x = torch.randn(6, 5, 3, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    mean, variance = triton_kernel.statistics(x)
    torch.testing.assert_close(mean, x.float().mean((0, 2, 3)))
    torch.testing.assert_close(variance, x.float().var((0, 2, 3), correction=0))
