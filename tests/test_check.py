"""Every rule has a graph that breaks it, and every reason is listed at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from snnkd_deploy.bounds import Bounds, Interval
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.check import (
    first_neurons,
    graph_problems,
    leak_shift,
    range_problems,
    target_problems,
    verify,
)
from snnkd_deploy.compiler import lower
from snnkd_deploy.errors import GraphError, LegalityError
from snnkd_deploy.ir import (
    Add,
    Attention,
    AvgPool2d,
    Conv2d,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
    Relu,
    Stage,
)
from snnkd_deploy.target import load_target, target_names
from tests.networks import ANY, random_inputs, random_network
from tests.test_simulate import one_neuron

LOIHI, NIR = load_target("loihi"), load_target("nir")


def with_node(graph: Graph, changed: Node) -> Graph:
    return replace(graph, nodes=tuple(changed if node.name == changed.name else node for node in graph))


def test_a_good_network_breaks_no_rule() -> None:
    graph = one_neuron(0.5, 10, "zero", 4)
    assert graph_problems(graph) == []
    assert target_problems(graph, LOIHI) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: replace(g, nodes=g.nodes[1:]), "its input 'x' does not come before it"),
        (lambda g: replace(g, nodes=(*g.nodes[:2], g.nodes[1], *g.nodes[2:])), "two nodes have this name"),
        (lambda g: replace(g, nodes=g.nodes[:-1]), "the last node must be the only Output; met 0"),
        (lambda g: replace(g, timesteps=0), "timesteps must be at least 1, met 0"),
        (lambda g: with_node(g, replace(g["s"], inputs=("w", "w"))), "Neuron has 2 inputs"),
        (lambda g: with_node(g, replace(g["r"], inputs=("w",))), "s: nothing reads it"),
        (lambda g: with_node(g, replace(g["w"], weight=np.ones((1, 2), dtype=int))), "takes 2 features, met shape"),
        (lambda g: with_node(g, replace(g["w"], weight=np.ones((1, 1)))), "w: weight is not integer"),
        (lambda g: with_node(g, replace(g["w"], bias=np.zeros(3, dtype=int))), r"w: bias has shape \(3,\)"),
        (lambda g: with_node(g, replace(g["s"], threshold=np.asarray(0))), "threshold 0 is below 1"),
        (lambda g: with_node(g, replace(g["s"], decay=0.3)), "decay 0.3 is not a multiple"),
        (lambda g: with_node(g, replace(g["s"], decay=1.5)), r"decay 1\.5 is not in 0\.\.1"),
        (lambda g: with_node(g, replace(g["s"], decay=np.array([0.3]))), r"decay 0\.3 is not a multiple"),
        (lambda g: with_node(g, replace(g["s"], decay=np.array([-0.5]))), r"decay -0\.5 is not in 0\.\.1"),
        (
            lambda g: with_node(g, replace(g["s"], decay=np.full(2, 0.5))),
            r"decay has shape \(2,\), 1 channels need \(1,\)",
        ),
        (lambda g: with_node(g, Relu(name="s", inputs=("w",))), "s: Relu is not an integer operation"),
        (lambda g: with_node(g, Attention(name="s", inputs=("w", "w"), heads=1)), "s: Attention has 2 inputs"),
    ],
)
def test_rules_of_a_graph(change: object, message: str) -> None:
    graph = change(one_neuron(0.5, 10, "zero", 4))  # type: ignore[operator]
    with pytest.raises(GraphError, match=message):
        verify(graph, LOIHI)


def test_an_integer_attention_multiplies_spikes_and_has_no_scale() -> None:
    nodes: tuple[Node, ...] = (
        Input(name="x", shape=(2, 1, 1), high=1, static=False),
        MaxPool2d(name="p", inputs=("x",), kernel=(1, 1), stride=(1, 1)),
        Attention(name="good", inputs=("x", "p", "x"), heads=1),
        Attention(name="a", inputs=("x", "good", "p"), heads=1, scale=0.5),
        Output(name="y", inputs=("a",)),
    )
    graph = Graph(nodes=nodes, timesteps=2, stage=Stage.INTEGER)
    assert graph_problems(graph) == [
        "a: scale 0.5 is not 1",
        "a: multiplies good (Attention); only spikes are accepted; put neurons there",
    ]
    assert graph_problems(replace(graph, stage=Stage.FOLDED)) == []


def test_values_that_are_not_finite_are_named() -> None:
    graph = replace(one_neuron(0.5, 10, "zero", 4), stage=Stage.TRACED)
    wrong = with_node(graph, replace(graph["w"], weight=np.array([[np.nan]])))  # type: ignore[call-arg]
    assert graph_problems(wrong) == ["w: weight holds a value that is not finite"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: with_node(g, replace(g["w"], weight=np.array([[128]]))), r"w: weight 128\.\.128 leaves -127\.\.127"),
        (lambda g: with_node(g, replace(g["w"], bias=np.array([5000]))), r"w: bias 5000\.\.5000 leaves -4095\.\.4095"),
        (lambda g: with_node(g, replace(g["s"], threshold=np.asarray(131072))), "leaves 1..131071"),
        (lambda g: with_node(g, replace(g["s"], threshold=np.array([9]))), "one threshold per channel"),
        (
            lambda g: with_node(g, replace(g["s"], reset="subtract")),
            "reset 'subtract'; this target resets by 'zero'; train it with that .snnTorch",
        ),
        (lambda g: with_node(g, replace(g["s"], decay=0.0)), r"decay 0\.0 is below 1 / 2\*\*12"),
        (
            lambda g: with_node(g, replace(g["s"], decay=np.array([0.5]))),
            r"s: decay 0\.5\.\.0\.5, one per channel; this target has one per layer of neurons; train with",
        ),
        (lambda g: with_node(g, replace(g["x"], high=2000)), r"w: its input can reach|s: its input can reach 2\d+"),
    ],
)
def test_rules_of_a_target(change: object, message: str) -> None:
    graph = change(one_neuron(0.5, 10, "zero", 4))  # type: ignore[operator]
    big = replace(graph["w"], weight=np.array([[127]])) if "input can" in message else graph["w"]
    with pytest.raises(LegalityError, match=message):
        verify(replace(with_node(graph, big), stage=Stage.LEGAL), LOIHI)


CHIPS, FORMATS = ("loihi", "loihi2"), ("c", "native", "nir", "npz", "onnx", "snntorch")
EVERY = (*CHIPS, *FORMATS)
Limit = tuple[tuple[str, ...], str, str, Any, Any]
LIMITS: list[Limit] = [
    (EVERY, "w", "weight", [[127]], [[128]]),
    (EVERY, "w", "weight", [[-127]], [[-128]]),
    (CHIPS, "w", "bias", [4095], [4096]),
    (CHIPS, "w", "bias", [-4095], [-4096]),
    (FORMATS, "w", "bias", [131071], [131072]),
    (FORMATS, "w", "bias", [-131071], [-131072]),
    (EVERY, "s", "threshold", 131071, 131072),
    (EVERY, "s", "threshold", 1, 0),
    ((*CHIPS, "nir"), "s", "decay", 1 / 4096, 0.0),
    (("c", "native", "npz", "onnx", "snntorch"), "s", "decay", 0.0, -1 / 4096),
]


def test_limits_are_listed_for_every_target() -> None:
    assert sorted(EVERY) == target_names()


@pytest.mark.parametrize(
    ("target", "node", "field", "last", "beyond"),
    [(name, *limit) for names, *limit in LIMITS for name in names],
)
def test_each_limit_holds_at_its_value_and_not_beyond(
    target: str, node: str, field: str, last: Any, beyond: Any
) -> None:
    graph, rules = one_neuron(0.5, 10, "zero", 1), load_target(target)
    graph = with_node(graph, replace(graph["w"], weight=np.array([[0]])))  # type: ignore[call-arg]
    changes: list[dict[str, Any]] = [
        {field: value if field == "decay" else np.asarray(value)} for value in (last, beyond)
    ]
    kept, broken = (with_node(graph, replace(graph[node], **change)) for change in changes)
    assert target_problems(kept, rules) == []
    problems = target_problems(broken, rules)
    assert any(problem.startswith(f"{node}: {field}") for problem in problems)


RESETS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(CHIPS, ("zero",)),
    **dict.fromkeys(FORMATS, ("zero", "subtract")),
    **dict.fromkeys(("c", "native", "npz", "onnx", "snntorch"), ("zero", "subtract", "subtract_late", "none")),
}


@pytest.mark.parametrize("name", EVERY)
def test_resets_are_those_that_the_target_names(name: str) -> None:
    resets = ("zero", "subtract", "subtract_late", "none")
    graphs = {reset: one_neuron(0.5, 10, reset, 2) for reset in resets}
    assert tuple(one for one in resets if not target_problems(graphs[one], load_target(name))) == RESETS[name]


@pytest.mark.parametrize("name", EVERY)
def test_thresholds_per_channel_need_scales_per_channel(name: str) -> None:
    graph = one_neuron(0.5, 10, "zero", 2)
    problems = target_problems(with_node(graph, replace(graph["s"], threshold=np.array([9]))), load_target(name))  # type: ignore[call-arg]
    assert len(problems) == (name in CHIPS)


@pytest.mark.parametrize("name", EVERY)
def test_leaks_per_channel_need_a_target_that_has_them(name: str) -> None:
    graph = one_neuron(0.5, 10, "zero", 2)
    problems = target_problems(with_node(graph, replace(graph["s"], decay=np.array([0.5]))), load_target(name))  # type: ignore[call-arg]
    assert len(problems) == (name in CHIPS)


SIDES = [(name, side, 127) for name in CHIPS for side in ("stride", "padding", "dilation", "kernel", "groups")]
SIDES += [(name, "stride", 65536 if name == "native" else 2**31 - 1) for name in FORMATS]


@pytest.mark.parametrize(("name", "side", "last"), SIDES)
def test_sides_of_a_convolution_end_where_the_format_s_integers_do(name: str, side: str, last: int) -> None:
    for size, problems in ((last, 0), (last + 1, 1)):
        channels, rows = (size if side == "groups" else 1), (size if side == "kernel" else 1)
        weight = np.zeros((channels, 1, rows, 1), int)
        pair = {side: (size, 1)} if side in ("stride", "padding", "dilation") else {}
        nodes = (
            Input(name="x", shape=(channels, max(3, rows), 3), high=1),
            Conv2d(name="c", inputs=("x",), weight=weight, bias=np.zeros(channels, int), groups=channels, **pair),  # type: ignore[arg-type]
            Neuron(name="s", inputs=("c",), decay=1.0, threshold=np.asarray(3), decay_bits=12, fraction_bits=6),
            Conv2d(name="r", inputs=("s",), weight=np.ones((1, channels, 1, 1), int), bias=np.zeros(1, int)),
            Output(name="y", inputs=("r",)),
        )
        found = target_problems(Graph(nodes=nodes, timesteps=2, stage=Stage.LEGAL), load_target(name))
        assert len([text for text in found if f"is above {last}" in text]) == problems


@pytest.mark.parametrize("name", EVERY)
def test_the_state_ends_at_24_bits(name: str) -> None:
    graph, target, silent = one_neuron(1.0, 10, "zero", 1), load_target(name), (np.zeros(1, int), np.zeros(1, int))
    neuron, output = graph.of(Neuron)[0], graph.output

    def problems(node: Neuron | Output, current: Interval, membrane: Interval) -> int:
        limits = Bounds({}, membranes={node.name: membrane}, currents={node.name: current})
        return len(range_problems(node, limits, target))

    for low, high, count in ((-131071, 131071, 0), (0, 131072, 1), (-131072, 0, 1)):
        reach = np.array([low]), np.array([high])
        assert problems(output, reach, silent) == problems(output, silent, reach) == count
    for last in (131071 * 64, -131071 * 64):
        held, beyond = (np.array([one]) for one in (last, last + np.sign(last)))
        assert problems(neuron, silent, (held, held)) == problems(neuron, (held, held), silent) == 0
        assert problems(neuron, silent, (beyond, beyond)) == problems(neuron, (beyond, beyond), silent) == 1


@pytest.mark.parametrize(("high", "problems"), [(131071, 0), (131072, 1)])
def test_the_worst_case_of_a_network_is_what_is_compared(high: int, problems: int) -> None:
    graph = one_neuron(1.0, 10, "zero", 1)
    graph = with_node(graph, replace(graph["x"], high=high))  # type: ignore[call-arg]
    graph = with_node(graph, replace(graph["w"], weight=np.array([[1]]), bias=np.array([0])))  # type: ignore[call-arg]
    assert len([text for text in target_problems(graph, LOIHI) if "input can reach" in text]) == problems


def test_a_chain_is_a_chain() -> None:
    graph = next(g for g in (random_network(seed, ANY) for seed in range(60)) if g.of(Add) and not_pooled(g))
    legal = lower(graph, load_target("onnx"), Calibration(random_inputs(graph, 4))).legal
    reasons = target_problems(legal, LOIHI)
    assert any("no Add on this target" in reason for reason in reasons)  # no pass has turned it into a row


def not_pooled(graph: Graph) -> bool:
    return not graph.of(AvgPool2d)


def test_every_reason_is_listed_at_once() -> None:
    graph = one_neuron(0.5, 10, "zero", 4)
    graph = with_node(graph, replace(graph["w"], weight=np.array([[200]]), bias=np.array([9999])))  # type: ignore[call-arg]
    graph = with_node(graph, replace(graph["s"], reset="subtract"))  # type: ignore[call-arg]
    with pytest.raises(LegalityError) as caught:
        verify(replace(graph, stage=Stage.LEGAL), LOIHI)
    assert len(caught.value.reasons) >= 3


@pytest.mark.parametrize(
    ("decay", "timesteps", "legal"),
    [
        (1.0, 100, True),
        (0.5, 7, True),
        (0.5, 8, False),
        (0.75, 4, True),
        (0.75, 5, False),
        (0.9, 2, False),
        (0.9, 1, True),
    ],
)
def test_a_format_without_rounding_takes_only_leaks_that_need_none(decay: float, timesteps: int, legal: bool) -> None:
    graph = one_neuron(round(decay * 4096) / 4096, 10, "zero", timesteps)
    problems = [text for text in target_problems(graph, NIR) if "needs rounding" in text]
    assert (problems == []) is legal


@pytest.mark.parametrize(
    ("current", "timesteps", "legal"),
    [(0.5, 7, True), (0.5, 8, False), (0.75, 4, True), (0.75, 5, False), (0.25, 4, True), (0.9, 1, True)],
)
def test_a_current_that_is_kept_may_need_no_rounding_either(current: float, timesteps: int, legal: bool) -> None:
    graph = one_neuron(0.5, 10, "zero", timesteps)
    keeping = with_node(graph, replace(graph.of(Neuron)[0], current_decay=round(current * 4096) / 4096))
    problems = [text for text in target_problems(keeping, NIR) if "needs rounding" in text]
    assert (problems == []) is legal


@pytest.mark.parametrize("name", EVERY)
def test_a_current_is_kept_where_the_target_says_so(name: str) -> None:
    graph, target = one_neuron(0.5, 10, "zero", 2), load_target(name)
    node = replace(graph.of(Neuron)[0], current_decay=0.5)
    assert not target_problems(with_node(graph, node), target)
    (reason,) = target_problems(with_node(graph, node), replace(target, current=None))
    assert reason == "s: keeps a current (snnTorch's Synaptic); this target's neurons keep none, use snn.Leaky"
    several = target_problems(with_node(graph, replace(node, current_decay=np.array([0.5]))), target)
    assert [one.startswith("s: current_decay 0.5..0.5, one per channel") for one in several] == [True] * (name in CHIPS)


@pytest.mark.parametrize(
    ("weight", "bias", "legal"), [(1, 0, True), (1, 1, False), (0, 10, False), (0, 11, True), (0, -1, False)]
)
def test_a_chip_that_adds_biases_behind_the_current_takes_none_but_those_that_always_fire(
    weight: int, bias: int, legal: bool
) -> None:
    graph = one_neuron(0.5, 10, "zero", 3)
    layer = replace(graph.of(Linear)[0], weight=np.array([[weight]]), bias=np.array([bias]))
    graph = with_node(with_node(graph, layer), replace(graph.of(Neuron)[0], current_decay=0.5))
    for name in CHIPS:
        assert (target_problems(graph, load_target(name)) == []) is legal
    assert target_problems(graph, load_target("onnx")) == []
    hosted = with_node(graph, replace(layer, placement="host"))
    assert not [text for text in target_problems(hosted, LOIHI) if "behind the current" in text]


def test_decays_of_the_current_are_checked_as_those_of_the_membrane() -> None:
    graph = one_neuron(0.5, 10, "zero", 4)
    for decay, message in (
        (0.3, "s: current_decay 0.3 is not a multiple of 2**-12"),
        (1.5, "s: current_decay 1.5 is not in 0..1"),
        (np.array([0.5, 0.5]), "s: current_decay has shape (2,), 1 channels need (1,)"),
    ):
        assert graph_problems(with_node(graph, replace(graph.of(Neuron)[0], current_decay=decay))) == [message]


def test_the_channel_that_needs_most_rounding_decides() -> None:
    graph = one_neuron(0.5, 10, "zero", 5)
    several = replace(graph.of(Neuron)[0], inputs=("x",), decay=np.array([0.5, 1.0, 0.75]))
    graph = replace(graph, nodes=(replace(graph.input, shape=(3,)), several, Output(name="y", inputs=("s",))))
    assert leak_shift(several) == 2
    (problem,) = (text for text in target_problems(graph, NIR) if "needs rounding" in text)
    assert problem.startswith("s: decay 0.5..1, one per channel, over 5 steps")
    assert not [text for text in target_problems(replace(graph, timesteps=4), NIR) if "needs rounding" in text]


def test_first_neurons_are_those_that_no_neuron_precedes() -> None:
    graph = random_network(7, ANY)
    names = [node.name for node in first_neurons(graph)]
    assert names == [graph.of(Neuron)[0].name]
    assert isinstance(graph.nodes[0], Input)
    assert isinstance(graph.nodes[-1], Output)
    assert graph.of(Linear)
