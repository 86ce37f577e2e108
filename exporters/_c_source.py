"""The C text of a network: a header to include, the integers, and the loop over a table of layers.

Values that are spikes, or never leave 0..255, are uint8_t, all others int32_t; what is needed within one step only
shares memory. Worst cases are known here, so that nothing in the C can overflow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from snnkd_deploy.bounds import Bounds, bounds, largest
from snnkd_deploy.ir import (
    Add,
    Array,
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Output,
    Pair,
    Pool,
)

from ._names import identifiers, plain

LARGEST_INT32, LARGEST_UINT32 = 2**31 - 1, 2**32 - 1
RESETS = {"zero": "TO_ZERO", "subtract": "SUBTRACT", "subtract_late": "SUBTRACT_LATE", "none": "NEVER"}
COLUMNS = 20
"""Numbers in a row of an array."""


def refusals(graph: Graph) -> Iterator[str]:
    """What does not fit 32 bits."""
    limits = bounds(graph)
    if not graph.of(Neuron):
        yield f"{graph.name}: no neurons"
    for node in graph:
        biases = np.abs(node.bias).max() if isinstance(node, Linear | Conv2d) else 0
        met = largest(limits.values[node.name]) + 2 * int(biases)
        if isinstance(node, Neuron | Output):
            met = max(largest(limits.membranes[node.name]), largest(limits.currents[node.name]))
        if met > LARGEST_INT32:
            yield f"{node.name}: its sums can reach {met}, an int32_t ends at {LARGEST_INT32}"


@dataclass(frozen=True, eq=False)
class Source:
    """The files of one network; `stem` is the name that they share."""

    graph: Graph
    stem: str

    @property
    def header(self) -> str:
        """What an application includes."""
        source, classes = self.graph.input, self.graph.shapes[self.graph.output.name][0]
        guard = re.sub(r"[^0-9A-Z]", "_", f"{self.stem}_H".upper())
        return "\n".join(
            [
                *_comment(self._about()),
                f"#ifndef {guard}",
                f"#define {guard}",
                "#include <stdint.h>",
                "",
                f"#define NETWORK_TIMESTEPS {self.graph.timesteps}",
                f"#define NETWORK_FRAMES {1 if source.static else self.graph.timesteps} /* in a sample */",
                f"#define NETWORK_INPUT_SIZE {_size(source.shape)} /* of a frame */",
                f"#define NETWORK_CLASSES {classes}",
                f"#define NETWORK_LAYERS {len(self.graph.of(Neuron))} /* of neurons */",
                "",
                f"typedef {self.input_type} network_input_t;",
                "typedef struct {",
                "    const char *name;",
                "    const uint8_t *spikes; /* of the last step, 0 or 1; row-major */",
                "    int32_t size;",
                "} network_layer_t;",
                "",
                "extern int32_t network_logits[NETWORK_CLASSES];",
                "extern const network_layer_t network_layers[NETWORK_LAYERS]; /* to look inside */",
                "",
                "void network_reset(void);",
                "void network_step(const network_input_t *frame);",
                "int32_t network_class(void);",
                "",
                "#endif",
                "",
            ]
        )

    @property
    def weights(self) -> str:
        """The integers."""
        lines = _comment([f"Integers of {plain(self.graph.name)}: {self.flash} bytes of flash.", *self._identity()])
        lines += ["#include <stdint.h>", ""]
        for node in self._synapses():
            name = self.names[node.name]
            lines += [f"/* {plain(node.name)}: weight {_weight_axes(node)}; bias [out]{_unit(node)} */"]
            lines += _array(self.weight_type, f"{name}_weight", node.weight)
            lines += [*_array("int32_t", f"{name}_bias", node.bias), ""]
        for neuron in self.graph.of(Neuron):
            what = "per channel" if neuron.threshold.ndim else "for all"
            lines += [f"/* {plain(neuron.name)}: threshold {what}, in 1/{_fine(neuron)} of a weight unit */"]
            lines += [*_array("int32_t", f"{self.names[neuron.name]}_threshold", neuron.threshold * _fine(neuron))]
            for name, what, (numerators, bits) in _leaks(neuron):
                scope = "per channel" if numerators.ndim else "for all"
                lines += [f"/* numerator of the leak of its {what} {scope}, over {2**bits} */"]
                lines += _array("int32_t", f"{self.names[neuron.name]}_{name}", numerators)
            lines += [""]
        return "\n".join(lines)

    @property
    def code(self) -> str:
        """Buffers and table, then the loop."""
        table = [line for node in self.graph for line in self._rows(node)]
        neurons = [
            f'    {{"{plain(node.name)}", {self.names[node.name]}_value, {_size(self.graph.shapes[node.name])}}},'
            for node in self.graph.of(Neuron)
        ]
        copy = (
            "    memcpy(input_value, frame, sizeof input_value);"
            if self.input_type == "uint8_t"
            else "    for (int32_t i = 0; i < NETWORK_INPUT_SIZE; i++)\n        input_value[i] = frame[i];"
        )
        states = [state for one in self.graph.of(Neuron) for state in self._states(one)]
        clear = [f"    memset({state}, 0, sizeof {state});" for state in states]
        parts = {
            "@ABOUT@": "\n".join(_comment([f"The integer loop of {plain(self.graph.name)}.", *self._identity()])),
            "@STEM@": self.stem,
            "@BUFFERS@": "\n".join(f"static {kind} {name}[{size}];{note}" for kind, name, size, note in self.buffers),
            "@RAM@": str(self.ram),
            "@WEIGHT@": self.weight_type,
            "@PRODUCT@": self.product_type,
            "@TABLE@": "\n".join(table),
            "@NEURONS@": "\n".join(neurons),
            "@CLEAR@": "\n".join(clear),
            "@COPY@": copy,
        }
        return re.sub("|".join(parts), lambda found: parts[found[0]], CODE)

    @cached_property
    def limits(self) -> Bounds:
        """Worst cases."""
        return bounds(self.graph)

    @cached_property
    def names(self) -> dict[str, str]:
        """The identifier of each node; the Input is always `input`."""
        names = identifiers(self.graph, {"input", "shared"})
        return {**names, self.graph.input.name: "input"}

    @cached_property
    def input_type(self) -> str:
        """The smallest type that holds a sample's values."""
        source = self.graph.input
        return "uint8_t" if source.low >= 0 and source.high <= 255 else _type(np.array([source.low, source.high]))

    @cached_property
    def weight_type(self) -> str:
        """The smallest type that holds all weights."""
        return max((_type(node.weight) for node in self._synapses()), key=_bytes, default="int8_t")

    @cached_property
    def product_type(self) -> str:
        """Of |membrane| or |current| * numerator."""
        products = [
            largest(reached[neuron.name]) * int(numerators.max())
            for neuron in self.graph.of(Neuron)
            for reached, (numerators, _) in (
                (self.limits.membranes, neuron.leak),
                (self.limits.currents, neuron.current_leak),
            )
        ]
        return "uint32_t" if max(products) <= LARGEST_UINT32 else "uint64_t"

    @cached_property
    def flash(self) -> int:
        """Bytes of the constant arrays."""
        weights = sum(node.weight.size * _bytes(self.weight_type) + 4 * node.bias.size for node in self._synapses())
        neurons = self.graph.of(Neuron)
        leaks = sum(numerators.size for neuron in neurons for _, _, (numerators, _) in _leaks(neuron))
        return int(weights + 4 * (leaks + sum(neuron.threshold.size for neuron in neurons)))

    @cached_property
    def ram(self) -> int:
        """Bytes of the static arrays."""
        return sum(_bytes(kind) * size for kind, _, size, _ in self.buffers) + 4 * self._width(self.graph.output)

    @cached_property
    def buffers(self) -> list[tuple[str, str, int, str]]:
        """Type, name, elements and comment of each static array."""
        found, shared = [], dict.fromkeys(sorted(set(self.shared.values())), 0)
        for node in self.graph:
            if isinstance(node, Neuron):
                note = f" /* {4 * self._width(node)} B, in 1/{_fine(node)} of a weight unit */"
                found += [("int32_t", state, self._width(node), note) for state in self._states(node)]
            if node.name in self.shared:
                shared[self.shared[node.name]] = max(shared[self.shared[node.name]], self._width(node))
            elif not isinstance(node, Flatten | Output):
                kind = self._kind(node.name)
                note = f" /* {_bytes(kind) * self._width(node)} B */"
                found.append((kind, f"{self.names[node.name]}_value", self._width(node), note))
        return found + [
            ("int32_t", f"shared_{index}", size, f" /* {4 * size} B, used anew by each layer */")
            for index, size in shared.items()
        ]

    @cached_property
    def shared(self) -> dict[str, int]:
        """For values that live within one step: which shared array each uses, free again behind its last reader."""
        order = {node.name: place for place, node in enumerate(self.graph)}
        last = {name: place for node in self.graph for name, place in self._readings(node, order)}
        busy_until: list[int] = []
        found: dict[str, int] = {}
        for place, node in enumerate(self.graph):
            alone = isinstance(node, Input | Neuron | Flatten | Output) or node.name in self.graph.static
            if alone or self._kind(node.name) == "uint8_t":
                continue
            free = [index for index, until in enumerate(busy_until) if until < place]
            index = free[0] if free else len(busy_until)
            busy_until[index : index + 1] = [last[node.name]]
            found[node.name] = index
        return found

    def _states(self, node: Neuron) -> list[str]:
        """The arrays that outlive a step."""
        return [f"{self.names[node.name]}_{what}" for what in ("membrane", *["current"] * node.keeps_current)]

    def _readings(self, node: Node, order: dict[str, int]) -> Iterator[tuple[str, int]]:
        for name in node.inputs:
            if not isinstance(node, Flatten):
                yield self._origin(name), order[node.name]

    def _origin(self, name: str) -> str:
        """The node whose array holds the value of `name`: Flatten moves nothing."""
        node = self.graph[name]
        return self._origin(node.inputs[0]) if isinstance(node, Flatten) else name

    def _kind(self, name: str) -> str:
        low, high = self.limits.values[name]
        small = isinstance(self.graph[name], Input | Neuron | Pool) and low.min() >= 0 and high.max() <= 255
        return "uint8_t" if small else "int32_t"

    def _width(self, node: Node) -> int:
        return _size(self.graph.shapes[node.name])

    def _synapses(self) -> tuple[Linear | Conv2d, ...]:
        return tuple(node for node in self.graph if isinstance(node, Linear | Conv2d))

    def _identity(self) -> list[str]:
        return [f"Integer network {self.graph.origin or self.graph.digest} (SHA-256), written by snnkd-deploy."]

    def _about(self) -> list[str]:
        """How to call it, shapes, units, memory."""
        source, unit = self.graph.input, self.graph.output.unit / self.graph.timesteps
        axes = "[channel {}][row {}][column {}]" if len(source.shape) == 3 else "[feature {}]"
        frame = "sample" if source.static else "sample + t * NETWORK_INPUT_SIZE"
        coding = "one still picture, the same at each step" if source.static else "one frame for each step"
        return [
            f"{plain(self.graph.name)}: a spiking network in integers.",
            *self._identity(),
            "",
            "    network_reset();                                      before each sample",
            "    for (int t = 0; t < NETWORK_TIMESTEPS; t++)",
            f"        network_step({frame});",
            "    winner = network_class();                             or read network_logits",
            "",
            f"sample  {coding}: {self.input_type} {axes.format(*source.shape)}, row-major,",
            f"        values {source.low}..{source.high}; one unit is worth {source.scale:.9g} in the training",
            f"logits  int32_t, sums over the steps; times {unit:.9g} they are the training's",
            f"flash   {self.flash} bytes of integers, and the table of layers",
            f"RAM     {self.ram} bytes, all static; no heap, no recursion, no floating point",
            "State is global: one network at a time, not to be shared between threads.",
            "All sums stay within int32_t whatever the sample: worst cases were computed from the weights.",
        ]

    def _rows(self, node: Node) -> Iterator[str]:
        """The table's entries for a node: one, or one less than the inputs of an Add."""
        if isinstance(node, Input | Flatten):
            return
        once = int(node.name in self.graph.static and not isinstance(node, Output))
        kind, *details = self._operation(node)
        fields = [f"{kind}, .once = {once}, .size = {self._width(node)}", *details]
        inputs = [self._place(name) for name in node.inputs]
        out = "" if isinstance(node, Output) else f" .out = {self._place(node.name)},"
        shapes = " -> ".join("x".join(map(str, self.graph.shapes[one])) for one in (node.inputs[0], node.name))
        pairs = [inputs[:2]] + [[self._place(node.name), other] for other in inputs[2:]]
        for pair in pairs:
            yield f"    {{ /* {plain(node.name)}: {shapes} */"
            yield f"        .in = {{{', '.join(pair)}}},{out}"
            yield from (f"        {field}," for field in fields)
            yield "    },"

    def _place(self, name: str) -> str:
        origin = self._origin(name)
        buffer = f"shared_{self.shared[origin]}" if origin in self.shared else f"{self.names[origin]}_value"
        return f"{{.{'u8' if self._kind(origin) == 'uint8_t' else 'i32'} = {buffer}}}"

    def _current(self, node: Neuron, shape: tuple[int, ...]) -> list[str]:
        """Of neurons that keep their current, where and how much."""
        if not node.keeps_current:
            return []
        name, (numerators, bits) = self.names[node.name], node.current_leak
        together = _size(shape[1:] if numerators.ndim else shape)
        leak = f".current_leak = {name}_current_leak, .per_current = {together}, .current_bits = {bits}"
        return [f".current = {name}_current, {leak}"]

    def _operation(self, node: Node) -> list[str]:
        name, given = self.names[node.name], self.graph.shapes[node.inputs[0]] if node.inputs else ()
        if isinstance(node, Neuron):
            shape, (numerators, bits) = self.graph.shapes[node.name], node.leak
            shared, together = (_size(shape[1:] if one.ndim else shape) for one in (node.threshold, numerators))
            return [
                ".kind = NEURON",
                f".membrane = {name}_membrane, .threshold = {name}_threshold, .per_threshold = {shared}",
                f".leak = {name}_leak, .per_leak = {together}, .bits = {bits}",
                *self._current(node, shape),
                f".fine = {_fine(node)}, .reset = {RESETS[node.reset]}",
            ]
        if isinstance(node, Linear):
            arrays = f".weight = {name}_weight, .bias = {name}_bias"
            return [".kind = SYNAPSE", arrays, _geometry((given[0], 1, 1), (len(node.bias), 1, 1), 1), _window((1, 1))]
        shape = self.graph.shapes[node.name]
        if isinstance(node, Conv2d):
            arrays = f".weight = {name}_weight, .bias = {name}_bias"
            rows, columns = node.weight.shape[2:]
            windows = _window((rows, columns), node.stride, node.padding, node.dilation)
            return [".kind = SYNAPSE", arrays, _geometry(given, shape, node.groups), windows]
        if isinstance(node, Pool):
            kind = "MAX_POOL" if isinstance(node, MaxPool2d) else "SUM_POOL"
            return [f".kind = {kind}", _geometry(given, shape, given[0]), _window(node.kernel, node.stride)]
        return [".kind = ADD"] if isinstance(node, Add) else [".kind = READOUT"]


def _leaks(node: Neuron) -> list[tuple[str, str, tuple[Array, int]]]:
    """Name of the array, what leaks, and its leak."""
    kept = [("current_leak", "current", node.current_leak)] if node.keeps_current else []
    return [("leak", "membrane", node.leak), *kept]


def _geometry(given: tuple[int, ...], shape: tuple[int, ...], groups: int) -> str:
    """Channels and outputs of one group, sides of the picture that is read and of the one that is written."""
    sides = f".height = {given[1]}, .width = {given[2]}, .rows = {shape[1]}, .columns = {shape[2]}"
    return f".channels = {given[0] // groups}, .outs = {shape[0] // groups}, {sides}"


def _window(kernel: Pair, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)) -> str:
    named = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return ", ".join(f".{name} = {{{high}, {wide}}}" for name, (high, wide) in named.items())


def _comment(lines: list[str]) -> list[str]:
    return ["/*", *(f" * {line}".rstrip() for line in lines), " */"]


def _array(kind: str, name: str, values: Array) -> list[str]:
    numbers = [str(int(one)) for one in values.ravel()]
    rows = [", ".join(numbers[start : start + COLUMNS]) for start in range(0, len(numbers), COLUMNS)]
    return [f"static const {kind} {name}[{len(numbers)}] = {{", *(f"    {row}," for row in rows), "};"]


def _weight_axes(node: Linear | Conv2d) -> str:
    names = ["out", "in"] if isinstance(node, Linear) else ["out", "in channel of the group", "row", "column"]
    return "".join(f"[{name} {side}]" for name, side in zip(names, node.weight.shape, strict=True))


def _unit(node: Linear | Conv2d) -> str:
    if node.unit is None:
        return ""
    units = np.unique(node.unit)
    span = f"{units[0]:.9g}" if len(units) == 1 else f"{units[0]:.9g}..{units[-1]:.9g}, by channel"
    return f"; an integer 1 is worth {span} in the training"


def _fine(node: Neuron) -> int:
    """Units of the membrane in a weight unit: without leak there are no fractions."""
    whole = np.all(np.isin(node.decay, (0, 1))) and np.all(np.isin(node.current_decay, (0, 1)))
    return 1 if whole else int(2**node.fraction_bits)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _type(values: Array) -> str:
    least, most = int(values.min()), int(values.max())
    return next(f"int{bits}_t" for bits in (8, 16, 32) if -(2 ** (bits - 1)) <= least and most < 2 ** (bits - 1))


def _bytes(kind: str) -> int:
    return int(re.sub(r"\D", "", kind)) // 8


CODE = """\
@ABOUT@
#include "@STEM@.h"
#include "@STEM@_weights.h"
#include <string.h>

/* Everything that changes: @RAM@ bytes with the logits. */
@BUFFERS@
int32_t network_logits[NETWORK_CLASSES];
static int32_t step;

const network_layer_t network_layers[NETWORK_LAYERS] = {
@NEURONS@
};

enum { SYNAPSE, SUM_POOL, MAX_POOL, ADD, NEURON, READOUT };
enum { TO_ZERO, SUBTRACT, SUBTRACT_LATE, NEVER };

typedef struct {
    uint8_t *u8; /* one of the two is used */
    int32_t *i32;
} values_t;

typedef struct {
    int32_t kind, size, once; /* size: elements of out; once: a still picture decides it, so the first step is enough */
    values_t in[2], out;
    const @WEIGHT@ *weight; /* [out][in channel of the group][kernel row][kernel column] */
    const int32_t *bias, *threshold, *leak, *current_leak;
    int32_t channels, outs; /* of one group: read, written */
    int32_t height, width, rows, columns; /* of the picture that is read, and that is written */
    int32_t kernel[2], stride[2], padding[2], dilation[2]; /* vertical, horizontal */
    int32_t *membrane, *current; /* current: of neurons that keep one */
    int32_t per_threshold, per_leak, per_current; /* neurons that share one */
    int32_t bits, current_bits; /* a membrane keeps leak / 2**bits of itself */
    int32_t fine; /* steps of the membrane in a weight unit */
    int32_t reset; /* of v behind a spike: to 0, by the threshold, by the threshold behind the next leak, not at all */
} layer_t;

static const layer_t layers[] = {
@TABLE@
};

static int32_t get(const values_t *from, int32_t i)
{
    return from->u8 ? from->u8[i] : from->i32[i];
}

static void put(const values_t *to, int32_t i, int32_t value)
{
    if (to->u8)
        to->u8[i] = (uint8_t)value;
    else
        to->i32[i] = value;
}

/* What output channel `out` sees at (row, column): weighted sum, sum or maximum; outside the picture is 0. */
static int32_t window(const layer_t *l, int32_t out, int32_t row, int32_t column)
{
    const int32_t first = out / l->outs * l->channels; /* channel of the group */
    const int32_t area = l->kernel[0] * l->kernel[1];
    int32_t total = l->kind == SYNAPSE ? l->bias[out] : l->kind == MAX_POOL ? INT32_MIN : 0;
    for (int32_t c = 0; c < l->channels; c++)
        for (int32_t k = 0; k < area; k++) {
            const int32_t y = row * l->stride[0] + k / l->kernel[1] * l->dilation[0] - l->padding[0];
            const int32_t x = column * l->stride[1] + k % l->kernel[1] * l->dilation[1] - l->padding[1];
            if (y < 0 || y >= l->height || x < 0 || x >= l->width)
                continue;
            const int32_t value = get(&l->in[0], ((first + c) * l->height + y) * l->width + x);
            if (l->kind == SYNAPSE)
                total += value * l->weight[(out * l->channels + c) * area + k];
            else if (l->kind == SUM_POOL)
                total += value;
            else if (value > total)
                total = value;
        }
    return total;
}

/* value * leak / 2**bits, truncated toward zero. */
static int32_t leaked(int32_t value, int32_t leak, int32_t bits)
{
    const @PRODUCT@ magnitude = (@PRODUCT@)(value < 0 ? -value : value);
    const int32_t kept = (int32_t)((magnitude * (@PRODUCT@)leak) >> bits);
    return value < 0 ? -kept : kept;
}

/* v = leak * v + x, where a current is kept with what is left of it as x; a spike where v > threshold; the reset. */
static int32_t neuron(const layer_t *l, int32_t i)
{
    const int32_t before = l->membrane[i], threshold = l->threshold[i / l->per_threshold];
    const int32_t late = l->reset == SUBTRACT_LATE && before > threshold ? threshold : 0;
    int32_t x = get(&l->in[0], i) * l->fine;
    if (l->current)
        x = l->current[i] = leaked(l->current[i], l->current_leak[i / l->per_current], l->current_bits) + x;
    const int32_t v = leaked(before, l->leak[i / l->per_leak], l->bits) - late + x;
    const int32_t spike = v > threshold;
    l->membrane[i] = spike && l->reset == TO_ZERO ? 0 : spike && l->reset == SUBTRACT ? v - threshold : v;
    return spike;
}

void network_reset(void)
{
@CLEAR@
    memset(network_logits, 0, sizeof network_logits);
    step = 0;
}

void network_step(const network_input_t *frame)
{
@COPY@
    for (const layer_t *l = layers; l < layers + sizeof layers / sizeof *layers; l++) {
        const int32_t plane = l->rows * l->columns;
        for (int32_t i = 0; i < l->size && !(l->once && step); i++)
            if (l->kind == READOUT)
                network_logits[i] += get(&l->in[0], i);
            else if (l->kind == NEURON)
                put(&l->out, i, neuron(l, i));
            else if (l->kind == ADD)
                put(&l->out, i, get(&l->in[0], i) + get(&l->in[1], i));
            else
                put(&l->out, i, window(l, i / plane, i % plane / l->columns, i % l->columns));
    }
    step++;
}

int32_t network_class(void)
{
    int32_t winner = 0;
    for (int32_t i = 1; i < NETWORK_CLASSES; i++)
        if (network_logits[i] > network_logits[winner])
            winner = i;
    return winner;
}
"""

MAIN = """\
/*
 * Samples from standard input, class and logits of each to standard output; the spikes of every step and layer,
 * one byte each, into a file if one is named. For a computer, not for the device:
 *
 *     cc -std=c99 -O2 @STEM@.c main.c -o network
 *     ./network [spikes.bin] < samples.bin
 */
#include "@STEM@.h"
#include <stdio.h>

int main(int argc, char **argv)
{
    static network_input_t sample[NETWORK_FRAMES][NETWORK_INPUT_SIZE];
    FILE *trace = argc > 1 ? fopen(argv[1], "wb") : NULL;
    if (argc > 1 && !trace)
        return 1;
    while (fread(sample, sizeof sample, 1, stdin) == 1) {
        network_reset();
        for (int t = 0; t < NETWORK_TIMESTEPS; t++) {
            network_step(sample[t % NETWORK_FRAMES]);
            for (int l = 0; trace && l < NETWORK_LAYERS; l++)
                fwrite(network_layers[l].spikes, 1, (size_t)network_layers[l].size, trace);
        }
        printf("%ld", (long)network_class());
        for (int i = 0; i < NETWORK_CLASSES; i++)
            printf(" %ld", (long)network_logits[i]);
        printf("\\n");
    }
    return trace && fclose(trace) ? 1 : 0;
}
"""
