"""The graph spikes as snnTorch does when it runs the network itself; what a graph cannot say is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snnkd_deploy.config import load_config
from snnkd_deploy.errors import ConfigError, InputError, TraceError
from snnkd_deploy.frontend.network import evaluating, read
from snnkd_deploy.frontend.snntorch import emptied
from snnkd_deploy.ir import Graph, Linear, Neuron
from snnkd_deploy.samples import Samples
from snnkd_deploy.simulate import simulate
from snnkd_deploy.snn.models import student
from tests.frontend.nets import (
    STEPS,
    Circuit,
    Convolutional,
    Dense,
    Plain,
    Residual,
    Synaptics,
    TimeFirst,
    Wide,
    fired,
    frames,
    pictures,
    seen,
    sequential,
    strong,
)

STYLES: dict[str, tuple[Callable[[], nn.Module], Samples, int | None]] = {
    "dense, subtract late": (Dense, pictures(), None),
    "dense, reset to zero": (lambda: Dense(reset_mechanism="zero"), pictures(1), None),
    "convolutional, a running sum": (Convolutional, pictures(2), None),
    "sequential, one step per call": (sequential, pictures(3), STEPS),
    "synaptic, subtract late": (Synaptics, pictures(6), None),
    "synaptic, reset to zero": (lambda: Synaptics(reset_mechanism="zero", reset_delay=False), pictures(7), None),
    "frames, time first": (TimeFirst, frames(), None),
    "Lapicque, a record": (Circuit, pictures(4), None),
    "residual": (Residual, pictures(5), None),
}


def calls(model: nn.Module, samples: Samples, timesteps: int | None) -> list[Any]:
    """Spikes of each neuron as snnTorch computes them."""
    values = seen(samples)
    return fired(model, *[values] * (timesteps or 1))


def assert_alike(model: nn.Module, samples: Samples, timesteps: int | None) -> Graph:
    graph = read(model, samples, timesteps).graph
    met = simulate(graph, samples.integers(slice(None))).spikes
    own = calls(model, samples, timesteps)
    assert sum(int(one.sum()) for one in own) > 0
    assert sum(len(one) for one in own) == len(met) * graph.timesteps
    if len(own) == len(met):
        for (name, spikes), expected in zip(met.items(), own, strict=True):
            np.testing.assert_array_equal(spikes, expected, err_msg=name)
    return graph


@pytest.mark.parametrize("style", STYLES)
def test_the_graph_spikes_as_snntorch_does(style: str) -> None:
    make, samples, timesteps = STYLES[style]
    torch.manual_seed(0)
    model = strong(make())
    graph = assert_alike(model, samples, timesteps)
    assert graph.timesteps == STEPS
    assert isinstance(graph[graph.output.inputs[0]], Linear)


def test_a_layer_that_is_used_twice_is_two_nodes_with_the_same_weights() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return torch.stack([net.lif(net.fc(net.fc(x))) for _ in range(3)])

    torch.manual_seed(0)
    model, samples = strong(Wrapped(forward)), pictures(shape=(9,))
    graph = read(model, samples).graph
    first, second = graph["fc"], graph["fc.2"]
    assert isinstance(first, Linear)
    assert isinstance(second, Linear)
    np.testing.assert_array_equal(first.weight, second.weight)
    emptied(model)
    np.testing.assert_array_equal(
        simulate(graph, samples.integers(slice(None))).spikes["lif"], fired(model, seen(samples))[0]
    )


def test_one_module_with_two_states_is_two_neurons() -> None:
    torch.manual_seed(0)
    graph = read(strong(Residual()), pictures()).graph
    assert [node.name for node in graph.of(Neuron)] == ["lif", "lif.2", "last"]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**20),
    beta=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0, 1.7]),
    threshold=st.sampled_from([0.2, 1.0, 1.5]),
    reset=st.sampled_from([("zero", True), ("zero", False), ("subtract", True), ("none", True), ("none", False)]),
    worth=st.sampled_from([1.0, 1.0, 0.5]),
)
def test_random_networks_spike_as_in_snntorch(
    seed: int, beta: float, threshold: float, reset: tuple[str, bool], worth: float
) -> None:
    torch.manual_seed(seed)
    options: dict[str, Any] = {
        "beta": beta,
        "threshold": threshold,
        "reset_mechanism": reset[0],
        "reset_delay": reset[1],
        "graded_spikes_factor": worth,
        "init_hidden": True,
    }
    model = nn.Sequential(nn.Linear(9, 8), snn.Leaky(**options), nn.Linear(8, 4), snn.Leaky(**options))
    assert_alike(strong(model), pictures(seed, shape=(9,)), 6)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**20),
    alpha=st.sampled_from([0.0, 0.3, 0.9, 1.0, 1.7]),
    beta=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    reset=st.sampled_from([("zero", False), ("subtract", True), ("none", True), ("none", False)]),
)
def test_random_networks_of_two_states_spike_as_in_snntorch(
    seed: int, alpha: float, beta: float, reset: tuple[str, bool]
) -> None:
    torch.manual_seed(seed)
    options: dict[str, Any] = {"reset_mechanism": reset[0], "reset_delay": reset[1], "init_hidden": True}
    kept = {"alpha": alpha, "beta": beta, "threshold": 1.5}
    model = nn.Sequential(
        nn.Linear(9, 8),
        snn.Synaptic(**kept, **options),
        nn.Linear(8, 4),
        snn.Leaky(beta=beta, **options | {"reset_delay": True}),
    )
    assert_alike(strong(model), pictures(seed, shape=(9,)), 6)


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        (lambda syn, mem: (mem, syn), "its current is computed outside of the neuron"),
        (lambda syn, mem: (syn, 0.5 * mem), "its membrane is computed outside of the neuron"),
        (lambda syn, mem: (syn, torch.zeros_like(mem)), "is given states that do not belong together"),
        (lambda syn, mem: (torch.ones_like(syn), mem), "starts from a current that is not zero"),
    ],
)
def test_both_states_of_a_synaptic_must_be_those_of_the_step_before(
    states: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], reason: str
) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        syn, mem = net.synaptic.reset_mem()
        record = []
        for _ in range(3):
            spk, syn, mem = net.synaptic(net.fc(x), syn, mem)
            syn, mem = states(syn, mem)
            record.append(spk)
        return torch.stack(record)

    with pytest.raises(TraceError, match=f"synaptic: {reason}"):
        read(Wrapped(forward), pictures(shape=(9,)))


def test_a_synaptic_current_is_no_result() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        syn, mem = net.synaptic.reset_mem()
        for _ in range(3):
            _, syn, mem = net.synaptic(net.fc(x), syn, mem)
        return syn  # type: ignore[no-any-return]

    with pytest.raises(TraceError, match="the synaptic current of synaptic; return its spikes, or read out by a dense"):
        read(Wrapped(forward), pictures(shape=(9,)))


def test_the_last_membrane_of_a_synaptic_is_no_sum_of_its_inputs() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        syn, mem = net.integrator.reset_mem()
        for _ in range(3):
            _, syn, mem = net.integrator(net.fc(x), syn, mem)
        return mem  # type: ignore[no-any-return]

    with pytest.raises(TraceError, match="the membrane of integrator, which leaks, is reset, or"):
        read(Wrapped(forward), pictures(shape=(9,)))


@pytest.mark.parametrize("kind", [snn.Alpha, snn.RLeaky])
def test_neurons_with_another_state_are_refused_by_name(kind: type[nn.Module]) -> None:
    options = {
        snn.Alpha: {"alpha": 0.9, "beta": 0.8},
        snn.RLeaky: {"beta": 0.8, "linear_features": 4},
    }
    model = nn.Sequential(nn.Linear(9, 4), kind(**options[kind], init_hidden=True))
    with pytest.raises(TraceError, match=rf"1: {kind.__name__} has .*for which no target has room; use snn.Leaky or"):
        read(model, pictures(shape=(9,)), 3)


def test_a_reset_that_has_no_counterpart_is_refused_with_advice() -> None:
    model = nn.Sequential(nn.Linear(9, 4), snn.Leaky(beta=0.9, reset_delay=False, init_hidden=True))
    with pytest.raises(TraceError, match="reset_delay=False subtracts twice .* use reset_delay=True"):
        read(model, pictures(shape=(9,)), 3)


class Wrapped(nn.Module):
    """A forward that is handed in."""

    def __init__(self, forward: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.fc, self.fc2 = nn.Linear(9, 9), nn.Linear(9, 9)
        self.lif, self.gelu = snn.Leaky(beta=0.5, init_hidden=True), nn.GELU()
        self.free = snn.Leaky(beta=1.0, reset_mechanism="none")
        self.synaptic = snn.Synaptic(alpha=0.9, beta=0.5)
        self.integrator = snn.Synaptic(alpha=0.9, beta=1.0, reset_mechanism="none")
        self.inner = forward

    def forward(self, x: Tensor) -> Any:
        return self.inner(self, x)


def delayed(net: Any, x: Tensor) -> Tensor:
    spikes, before = [], None
    for _ in range(3):
        spk = net.lif(net.fc(x) if before is None else net.fc(x) + before)
        before = net.fc2(spk)
        spikes.append(spk)
    return torch.stack(spikes)


def twice(net: Any, x: Tensor) -> Tensor:
    return torch.stack([net.lif(net.fc2(net.lif(net.fc(x)))) for _ in range(3)])


def once_less(net: Any, x: Tensor) -> Tensor:
    return torch.stack([net.lif(net.fc(x)) for _ in range(3)][1:])


def membrane(net: Any, x: Tensor) -> Any:
    for _ in range(3):
        net.lif(net.fc(x))
    return net.lif.mem


def looked(net: Any, x: Tensor) -> Tensor:
    return torch.stack([net.lif(net.fc(x) if x.sum() > 0 else x) for _ in range(3)])


def several(net: Any, x: Tensor) -> Tensor:
    y = torch.sin(net.gelu(net.fc(x)))
    return torch.stack([net.lif(y) for _ in range(3)])


@pytest.mark.parametrize(
    ("forward", "reasons"),
    [
        (delayed, ["reads add at step 1, fc before; every step must compute the same"]),
        (twice, ["reads fc2 at step 1, fc before"]),
        (once_less, [r"result 1: steps \(1, 2\) of lif; accepted are all 3 steps"]),
        (membrane, ["result 1: it does not come from the input"]),
        (looked, ["__bool__ .*the forward looks at values"]),
        (several, ["gelu: GELU has no node; known are", r"sin \(test_network.py:\d+\): sin has no node"]),
    ],
)
def test_what_a_graph_cannot_say_is_refused_with_every_reason(forward: Any, reasons: list[str]) -> None:
    with pytest.raises(TraceError) as caught:
        read(Wrapped(forward), pictures(shape=(9,)))
    for reason in reasons:
        assert any(re.search(reason, one) for one in caught.value.reasons), caught.value.reasons


def test_the_last_membrane_without_leak_and_reset_is_a_sum() -> None:
    def forward(net: Any, x: Tensor) -> Any:
        mem = net.free.reset_mem()
        for _ in range(4):
            _, mem = net.free(net.fc2(net.lif(net.fc(x))), mem)
        return mem

    torch.manual_seed(0)
    found = read(strong(Wrapped(forward)), samples := pictures(shape=(9,)))
    assert found.factor == 4
    assert [node.name for node in found.graph.of(Neuron)] == ["lif"]
    torch.manual_seed(0)
    model = strong(Wrapped(forward)).double()
    with torch.no_grad(), Wide():
        expected = model(seen(samples)).numpy()
    met = simulate(found.graph, samples.integers(slice(None))).logits * found.factor
    np.testing.assert_allclose(met, expected, rtol=1e-9)


def test_a_plain_network_keeps_its_relus_and_its_result() -> None:
    torch.manual_seed(0)
    model = Plain().train()
    model(torch.rand(8, 1, 8, 8))  # statistics of their own
    found = read(model, samples := pictures())
    with torch.no_grad():
        expected = model.double().eval()(seen(samples)).numpy()
    np.testing.assert_allclose(simulate(found.graph, samples.integers(slice(None))).logits, expected, rtol=1e-9)
    assert any("was in training mode" in note for note in found.notes)


def test_a_student_of_ours_goes_through_its_own_door() -> None:
    config = load_config(width=4)
    found = read(student(config, (1, 8, 8), 10), pictures())
    assert found.graph.timesteps == config.timesteps


def test_a_forward_of_one_step_needs_to_be_told_how_many() -> None:
    with pytest.raises(ConfigError, match="its forward is one step; say with timesteps"):
        read(sequential(), pictures())


def test_a_loop_has_its_own_number_of_steps() -> None:
    with pytest.raises(ConfigError, match="timesteps 7: the forward of network runs 5 steps itself"):
        read(Dense(), pictures(), 7)


def test_frames_are_as_many_as_there_are_steps() -> None:
    with pytest.raises(ConfigError, match="timesteps 9: the samples have 5 frames"):
        read(TimeFirst(), frames(), 9)


def test_frames_go_one_by_one_into_a_forward_of_one_step() -> None:
    torch.manual_seed(0)
    model = strong(nn.Sequential(nn.Flatten(), nn.Linear(72, 9), snn.Leaky(beta=0.5, init_hidden=True)))
    samples = frames()
    graph = read(model, samples).graph
    emptied(model)
    own = fired(model, *seen(samples))
    np.testing.assert_array_equal(simulate(graph, samples.integers(slice(None))).spikes["2"], own[0])


def test_samples_that_do_not_fit_are_an_error_with_the_forwards_own_words() -> None:
    with pytest.raises(InputError, match=r"cannot take samples of shape \(6, 1, 5, 5\): RuntimeError.*x.size\(0\)"):
        read(Dense(), pictures(shape=(1, 5, 5)))


def test_a_state_that_is_reset_in_each_call_is_noticed() -> None:
    def forward(net: Any, x: Tensor) -> Any:
        net.lif.reset_mem()
        return net.lif(net.fc(x))

    torch.manual_seed(0)
    with pytest.raises(TraceError, match="lif: .* spikes differ; does the forward reset states itself"):
        read(strong(Wrapped(forward)), pictures(shape=(9,)), 4)


def test_weights_that_are_not_finite_are_named() -> None:
    model = Dense()
    model.fc1.weight.data[0, 0] = float("nan")
    with pytest.raises(TraceError, match="fc1.weight: holds values that are not finite"):
        read(model, pictures())


def test_a_network_in_training_is_put_into_evaluation_and_says_so() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    assert evaluating(model) == ["was in training mode, is put into evaluation (Dropout)"]
    assert not model.training
    assert evaluating(model) == []
