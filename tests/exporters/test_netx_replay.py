"""Each rule of lava's fixed-point step, on numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from snnkd_deploy.errors import BundleError, ProofError
from snnkd_deploy.exporters._netx_replay import lava_weights, read, replay
from snnkd_deploy.ir import Array
from tests.exporters.netx_files import FLATTEN, Layer, conv, dense, fed, frames, neuron, save

HALF = 2**23


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return tmp_path / "small.net"


def potentials(net: Path, current: list[int], **options: Any) -> list[int]:
    """The membrane of one neuron after each step, fed with these currents."""
    save(net, fed((1,), neuron=neuron(**options)))
    steps = range(1, len(current) + 1)
    fill = [frames(*([value] for value in current[:step])) for step in steps]
    return [int(replay(net, x, steps=x.shape[1], message_bits=0).potential[0, 0]) for x in fill]


def spikes(net: Path, current: list[int], **options: Any) -> list[int]:
    save(net, fed((1,), neuron=neuron(**options)))
    answer = replay(net, frames(*([value] for value in current)), steps=len(current), message_bits=0)
    found: list[int] = answer.spikes[0].ravel().tolist()
    return found


def test_a_membrane_at_the_threshold_stays_silent(net: Path) -> None:
    assert spikes(net, [5, 1, 5, 6], threshold=5) == [0, 1, 0, 1]


def test_a_spike_resets_the_membrane_to_zero(net: Path) -> None:
    assert potentials(net, [9, 3, 2, 1], threshold=5) == [0, 192, 320, 0]


def test_the_leak_is_cut_toward_zero_from_above(net: Path) -> None:
    # 64 * 2731 / 4096 = 42.67; (42 + 64) * 2731 / 4096 = 70.67
    assert potentials(net, [1, 1, 1], leak=4096 - 2731) == [64, 106, 134]


def test_the_leak_is_cut_toward_zero_from_below(net: Path) -> None:
    assert potentials(net, [-1, -1, -1], leak=4096 - 2731) == [-64, -106, -134]


def test_a_full_leak_forgets_everything(net: Path) -> None:
    assert potentials(net, [7, 1], leak=4096) == [448, 64]


def test_the_current_decays_on_its_own(net: Path) -> None:
    # u: 64, 42, 28, 18; v adds them up
    assert potentials(net, [1, 0, 0, 0], current_leak=4096 - 2731) == [64, 106, 134, 152]


def test_a_spike_does_not_reset_the_current(net: Path) -> None:
    assert spikes(net, [3, 0, 0], threshold=2, current_leak=0) == [1, 1, 1]


@pytest.mark.parametrize(
    ("current", "held"),
    [
        (131071, HALF - 64),
        (131072, HALF - 1),  # 2**23 itself stays, the membrane saturates
        (131073, 131073 * 64 - 2**24),
        (-131071, 64 - HALF),
        (-131072, HALF - 1),  # -2**23 turns into 2**23
    ],
)
def test_the_current_wraps_into_24_bits(net: Path, current: int, held: int) -> None:
    assert potentials(net, [current], threshold=2**18) == [held]


def test_the_membrane_saturates(net: Path) -> None:
    assert potentials(net, [131071, 5], threshold=2**18) == [HALF - 64, HALF - 1]
    assert potentials(net, [-131071, -5], threshold=2**18) == [64 - HALF, 1 - HALF]


def test_the_bias_is_added_at_each_step(net: Path) -> None:
    save(net, dense([[2]], bias=np.array([3])))
    assert replay(net, frames([1], [0], [1]), steps=3, message_bits=0).potential == 64 * (2 + 0 + 2 + 3 * 3)


def test_binary_input_counts_anything_but_zero_as_one(net: Path) -> None:
    save(net, dense([[2, 3, 5]]))
    assert replay(net, frames([-4, 7, 0]), steps=1, message_bits=0).potential == 64 * 5
    assert replay(net, frames([-4, 7, 0]), steps=1, message_bits=8).potential == 64 * (-8 + 21)


def test_blocks_answer_in_the_same_step(net: Path) -> None:
    save(net, fed((1,), neuron=neuron(0)), dense([[3]], neuron=neuron(2)), dense([[1]]))
    answer = replay(net, frames([1], [0], [1]), steps=3, message_bits=0)
    assert [fired.ravel().tolist() for fired in answer.spikes[:2]] == [[1, 0, 1], [1, 0, 1]]
    assert answer.potential == 128


def test_samples_do_not_touch(net: Path) -> None:
    save(net, fed((2,), neuron=neuron(5, leak=1000)))
    x = np.random.default_rng(0).integers(-4, 9, (6, 5, 2))
    together = replay(net, x, steps=5, message_bits=0)
    for index in range(len(x)):
        alone = replay(net, x[index : index + 1], steps=5, message_bits=0)
        assert_array_equal(alone.spikes[0][0], together.spikes[0][index])


def test_a_still_picture_equals_its_repetition(net: Path) -> None:
    save(net, conv(np.arange(4).reshape(1, 1, 2, 2), (1, 2, 2), neuron=neuron(9, leak=500)))
    x = np.arange(18).reshape(2, 1, 1, 3, 3)
    still = replay(net, x, steps=4, message_bits=8)
    repeated = replay(net, x.repeat(4, axis=1), steps=4, message_bits=8)
    assert_array_equal(still.spikes[0], repeated.spikes[0])
    assert_array_equal(still.potential, repeated.potential)


def test_a_kernel_lies_as_torch_has_it(net: Path) -> None:
    # correlation: the kernel is not turned, rows are height
    save(net, conv([[[[1, 10, 100], [0, 1000, 10000]]]], (1, 1, 1)))
    x = np.arange(1, 7).reshape(1, 1, 1, 2, 3)
    assert replay(net, x, steps=1, message_bits=8).potential == 64 * (1 + 20 + 300 + 5000 + 60000)


def test_stride_and_padding_are_height_then_width(net: Path) -> None:
    # rows 0 and 2, columns -1 .. 2 of [1 2; 3 4; 5 6]
    save(net, conv([[[[1]]]], (1, 2, 4), stride=(2, 1), padding=(0, 1)))
    x = np.arange(1, 7).reshape(1, 1, 1, 3, 2)
    assert_array_equal(replay(net, x, steps=1, message_bits=8).potential[0] // 64, [0, 1, 2, 0, 0, 5, 6, 0])


def test_dilation_is_height_then_width(net: Path) -> None:
    save(net, conv([[[[1, 10], [100, 1000]]]], (1, 1, 1), dilation=(1, 2)))
    x = np.arange(1, 7).reshape(1, 1, 1, 2, 3)
    assert replay(net, x, steps=1, message_bits=8).potential == 64 * (1 + 30 + 400 + 6000)


def test_groups_see_their_own_channels(net: Path) -> None:
    save(net, conv([[[[1]]], [[[10]]]], (2, 1, 1), groups=2))
    assert_array_equal(replay(net, frames([[[3]], [[4]]]), steps=1, message_bits=8).potential, [[192, 2560]])


def test_a_convolution_wraps_its_sums(net: Path) -> None:
    # 9e6 - 2**24 is negative, and so is the membrane, at its limit
    save(net, conv([[[[9000]]]], (1, 1, 1)))
    assert replay(net, frames([[[1000]]]), steps=1, message_bits=16).potential == 1 - HALF


def test_a_dense_layer_sees_channel_height_width(net: Path) -> None:
    weight = np.zeros((3, 12), int)
    weight[0, 0] = weight[1, 5] = weight[2, 6] = 1  # (0, 0, 0), (0, 1, 2), (1, 0, 0) of (2, 2, 3)
    save(net, fed((2, 2, 3), neuron=neuron(0)), FLATTEN, dense(weight, neuron=neuron(0)))
    x = np.zeros((1, 3, 2, 2, 3), int)
    x[0, 0, 0, 0, 0] = x[0, 1, 0, 1, 2] = x[0, 2, 1, 0, 0] = 1
    assert_array_equal(replay(net, x, steps=3, message_bits=0).spikes[1][0], np.eye(3))


def test_a_bias_is_per_channel_or_per_neuron_in_width_height_channel_order(net: Path) -> None:
    x = np.zeros((1, 1, 1, 2, 3), int)
    save(net, conv([[[[1]]], [[[1]]]], (2, 2, 3), bias=np.array([4, 5])))
    assert_array_equal(replay(net, x, steps=1, message_bits=0).potential[0] // 64, [4] * 6 + [5] * 6)
    each = np.arange(12).reshape(3, 2, 2)
    save(net.with_name("each.net"), conv([[[[1]]], [[[1]]]], (2, 2, 3), bias=each))
    answer = replay(net.with_name("each.net"), x, steps=1, message_bits=0)
    assert_array_equal(answer.potential.reshape(2, 2, 3) // 64, each.transpose(2, 1, 0))


def test_thresholds_may_be_per_channel(net: Path) -> None:
    save(net, fed((2, 1, 1), neuron=neuron(np.array([3, 5]))))
    assert_array_equal(replay(net, frames([[[4]], [[4]]]), steps=1, message_bits=0).spikes[0].ravel(), [1, 0])


@pytest.mark.parametrize(
    ("weight", "computed"),
    [([-1, -1], [0, 0]), ([-2, 0], [-1, 0]), ([-128, 0], [-64, 0]), ([-16, -3], [-15, -3]), ([-200, 0, -3], [0, 0, 0])],
)
def test_dense_weights_that_netx_spoils(weight: list[int], computed: list[int]) -> None:
    held, shift = lava_weights(np.array([weight]))
    assert_array_equal(held[0] >> shift, computed)


@pytest.mark.parametrize(("low", "high"), [(-128, 127), (0, 255), (-255, -200), (-3, 1), (1, 7)])
def test_dense_weights_that_netx_keeps(low: int, high: int) -> None:
    weight = np.random.default_rng(0).integers(low, high + 1, (5, 40))
    weight[0, :2] = low, high
    held, shift = lava_weights(weight)
    assert_array_equal(held, weight << shift)


def test_a_sum_beyond_32_bits_is_an_error_not_a_guess(net: Path) -> None:
    save(net, fed((1,)))
    with pytest.raises(ProofError, match=r"layer/0: a weighted sum of magnitude 33554432"):
        replay(net, frames([2**25]), steps=1, message_bits=0)


ONE = np.ones((1, 1, 1, 1), int)
DAMAGED: dict[str, tuple[list[Layer], str]] = {
    "unknown type": ([{"type": np.bytes_("pool")}], "layer/0: type 'pool'; lava-dl runs input, conv, dense"),
    "no layers": ([], "no layers"),
    "no block": ([{"type": np.bytes_("input"), "shape": (1, 2, 2)}], "no layer with neurons"),
    "no weight": ([{"type": np.bytes_("dense"), "shape": [1], "neuron": neuron()}], "layer/0: no weight; it holds"),
    "no neuron": ([{"type": np.bytes_("dense"), "shape": [1], "weight": [[1] * 4]}], "no neuron"),
    "type is a number": ([{"type": 3}], "one ASCII string is needed"),
    "weight is a text": ([{**dense([[1] * 4]), "weight": np.bytes_("x")}], "finite numbers are needed"),
    "weight is a group": ([{**dense([[1] * 4]), "weight": {"real": 1}}], "a Group, a Dataset is needed"),
    "dense shape": ([dense([[1] * 5])], r"weight: shape \(1, 5\), \(1, 4\) is needed"),
    "dense range": ([dense([[300] * 4])], "300..300; -256..255 is accepted"),
    "dense zeros": ([dense([[0] * 4])], "every weight is zero"),
    "delay": ([dense([[1] * 4], delay=1)], "a synaptic delay"),
    "no flatten": ([conv(ONE, (1, 2, 2)), dense([[1] * 4])], "a flatten layer is needed"),
    "conv on features": ([dense([[1] * 4]), conv(ONE, (1, 1, 1))], "layer/1: conv on"),
    "conv shape": ([conv(ONE, (1, 3, 2))], r"shape: shape \(1, 3, 2\), \(1, 2, 2\) is needed"),
    "conv channels": ([conv(np.ones((1, 2, 1, 1)), (1, 2, 2))], "1 channels need"),
    "groups": ([conv(ONE, (1, 2, 2), groups=128)], "groups: 128..128; 1..127 is accepted"),
    "padding": ([conv(ONE, (1, 2, 2), padding=(1, 2, 3))], "3 values; one, or height and width"),
    "input shape": ([{"type": np.bytes_("input"), "shape": (2, 2, 1)}, dense([[1] * 4])], r"\(1, 2, 2\) is needed"),
    "neuron type": ([dense([[1] * 4], neuron={"type": np.bytes_("SDNN")})], "'SDNN'; CUBA and LOIHI are accepted"),
    "message bits": ([dense([[1] * 4], neuron={**neuron(), "messageBits": 8})], "at which lava hangs"),
    "leak": ([dense([[1] * 4], neuron=neuron(leak=4097))], "vDecay: 4097..4097; 0..4096 is accepted"),
    "not finite": ([dense([[1] * 4], bias=[np.nan])], "finite numbers are needed"),
    "one bias": ([conv(np.ones((2, 1, 1, 1)), (2, 2, 2), bias=[1])], r"bias: shape \(1,\), \(2,\) is needed"),
    "bias range": ([dense([[1] * 4], bias=[2**15])], "32768..32768; -32767..32767 is accepted"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_with_its_place(net: Path, case: str) -> None:
    layers, message = DAMAGED[case]
    save(net, *layers)
    with pytest.raises(BundleError, match=message):
        read(net, (1, 2, 2))


def test_what_is_not_hdf5_is_refused(net: Path) -> None:
    save(net, dense([[1] * 4]))
    whole = net.read_bytes()
    for content in (b"", b"nothing of the kind", whole[: len(whole) // 2]):
        net.write_bytes(content)
        with pytest.raises(BundleError, match=r"small.net is not a netx file"):
            read(net, (4,))
    with pytest.raises(BundleError, match="no netx file at"):
        read(net.with_name("absent.net"), (4,))


def test_a_file_of_slayer_is_read(net: Path) -> None:
    """Types in arrays of one, float weights with a trailing axis, scalars in arrays."""
    layer = conv(np.full((1, 1, 1, 1, 1), 3.9), (1, 2, 2), type=np.array([b"conv"], "S10"), stride=np.array([1, 1]))
    save(net, layer)
    x: Array = np.ones((1, 1, 1, 2, 2), int)
    assert_array_equal(replay(net, x, steps=1, message_bits=0).potential[0], [192] * 4)
