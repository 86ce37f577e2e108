"""Unit and meaning of every number that an energy report shows, by its heading."""

from __future__ import annotations

MEANINGS: dict[str, tuple[str, str]] = {
    "price table": ("", "A list of prices with its source; tables of your own are TOML files."),
    "evidence": (
        "",
        "How its source came to the prices: measured on silicon, simulated, published without method, derived by "
        "arithmetic, from a datasheet, secondary (read in a later source), or an abstract.",
    ),
    "spiking network": (
        "energy per inference",
        "All operations of the spiking network that the table prices, low / nominal / high where its prices have "
        "bounds; first layer at each step, all pixels, no reuse of memory. ≥: an operation has no price here, or "
        "only a least one.",
    ),
    "95 % of samples": (
        "energy per inference",
        "Nominal energy in the middle 95 % of 1000 bootstrap resamplings of the counted samples: what other "
        "samples of the same kind would move.",
    ),
    "dense ANN": (
        "energy per inference",
        "An ANN that multiplies every input, at the same prices. Bits: activations of as few bits as tell the "
        "spike counts of T steps apart, ceil(log2(T + 1)).",
    ),
    "sparse ANN": (
        "energy per inference",
        "The same ANN on hardware that skips inputs that are zero (ReLU), counted exactly on the same data.",
    ),
    "ANN/SNN": (
        "ratio",
        "Energy of the ANN over that of the spiking network: above 1 the spiking network needs less. From the "
        "least to the largest over prices, ways of counting and ANNs to compare with.",
    ),
    "verdict": (
        "",
        "Who needs less under this table: said only if every comparison agrees at every price in its range, else open.",
    ),
    "on a chip": ("", "Prices of a neuromorphic chip. No ANN runs there, so there is no ratio."),
    "operations": (
        "energy per inference",
        "Synaptic operations, neuron updates, spikes and, where the network was mapped to this chip, messages and "
        "hops. ≥: something has no price, or only a least one.",
    ),
    "time of an inference": (
        "time",
        "T steps of the busiest core, its synaptic operations and updates one after the other, and the barrier "
        "that ends each step. Means, so bursts come on top.",
    ),
    "static power in that time": (
        "energy per inference",
        "What the chips draw whatever they compute, times that time. Not in the column of operations.",
    ),
    "layer": ("", "Name of the layer in the network."),
    "kind": ("", "What it computes."),
    "input": (
        "",
        "What arrives, by the graph: spikes (0 or 1), sums of spikes, the picture, or real values. 'once': it "
        "depends on a still picture alone, and is counted for one evaluation a sample.",
    ),
    "rate": ("spikes per neuron and step", "Mean over neurons, steps and samples."),
    "events": ("per inference", "Inputs that are not zero."),
    "synops": (
        "per inference",
        "Pairs of an event and an output that reads it, taps on padding left out: one accumulate each.",
    ),
    "MACs": (
        "per inference",
        "The same pairs where the input is a sum of spikes or a real value: one multiply-accumulate each.",
    ),
    "adds": ("per inference", "Additions of biases, pools, residual sums and products of spikes."),
    "updates": ("per inference", "Neurons times steps."),
    "active": ("per inference", "Updates of neurons that got an event or a bias, or fired, in that step."),
    "ANN": (
        "",
        "The teacher, and an ANN of the spiking network's own shape: a smaller student is no merit of spiking.",
    ),
    "parameters": ("number", "Weights and biases."),
    "MACs of an ANN": ("per inference", "Textbook: outputs times taps, taps on padding included."),
    "without padding": ("per inference", "The same without taps that fall on padding."),
    "input not zero": ("per inference", "The same where the input is not zero, counted on the data."),
    "additions": ("per inference", "Of biases, pools and residual sums."),
    "compares": ("per inference", "One for each ReLU, and of pools that take the largest."),
    "total": ("energy per inference", "Nominal, of the spiking network."),
    "energy of a layer": ("energy per inference", "Nominal, of one layer of the spiking network."),
    "energy of a class": (
        "energy per inference",
        "Nominal, of one class of operations. encoder: multiplications of pixels; synapses: accumulates; graded: "
        "multiplications of sums of spikes; neurons: leaks, sums, thresholds and resets, or whole updates on a "
        "chip; weights, states, events, addresses: memory.",
    ),
    "against": ("", "The ANN to compare with."),
    "silent": (
        "energy per inference",
        "What the spiking network costs without a single spike: encoder, neuron updates, biases, residual sums.",
    ),
    "spiking": ("energy per inference", "What its spikes add."),
    "dense cost": ("energy per inference", "What the ANN costs."),
    "margin": (
        "factor",
        "How many times its spikes the network could have and still cost no more than the ANN; none: it costs more "
        "without a spike.",
    ),
    "S*": (
        "spikes per synapse and inference",
        "Accumulates for each multiply-accumulate of an ANN of the same shape at which both cost the same.",
    ),
    "rate*": ("spikes per neuron and step", "The firing rate at which both cost the same."),
    "T*": (
        "steps",
        "The largest T at which the spiking network, at its present rate, costs no more: with the first layer "
        "charged at each step / once.",
    ),
    "S": (
        "spikes per synapse and inference",
        "Accumulates for each multiply-accumulate of an ANN of the same shape. A pool in the layer's kernel gives "
        "each spike its own fan-out and raises it.",
    ),
    "cheaper spiking": (
        "tables",
        "Price tables under which the layer with its neurons costs less than the same layer of a dense ANN.",
    ),
    "advice": (
        "",
        "dense: cheaper as a dense layer under every table; spiking: cheaper spiking under every table; depends: "
        "neither. What it takes to go from spikes to values and back is not in it.",
    ),
    "step": ("", "What the papers' formula leaves out, one after the other, at 45 nm fp32 prices."),
    "change": ("energy per inference", "What this step adds or takes."),
    "then": ("energy per inference", "The figure with all steps down to this one."),
    "reuse": (
        "",
        "without: every access goes to memory, as Lemaire et al. 2022; ideal: every weight, input and output "
        "crosses it once.",
    ),
    "weights": ("reads per inference", "Of weights and biases."),
    "states read": ("reads per inference", "Of membranes: one for each synaptic operation and one for each update."),
    "written": ("writes per inference", "Of membranes."),
    "inputs": ("reads per inference", "Of events, or of real inputs."),
    "outputs": ("writes per inference", "Of events."),
    "addresses": (
        "operations per inference",
        "Additions and multiplications that find the weights and membranes of an event.",
    ),
    "reads": (
        "",
        "The layer whose spikes arrive; 'host': what is computed outside of the chip, whose input is not counted.",
    ),
    "cores": ("number", "Cores that the layer takes, by a plain model of the chip's tables."),
    "messages": ("per inference", "Spikes times the cores that read them."),
    "hops E-W": ("per inference", "Messages times the columns of the mesh that they cross."),
    "hops N-S": ("per inference", "Messages times the rows of the mesh that they cross."),
    "busiest core": ("synops per inference", "Synaptic operations of the core of this layer that does most."),
    "its neurons": ("number", "Neurons on that core."),
    "study": ("", "A published break-even point."),
    "here": (
        "spikes per inference",
        "Of this network, in the quantity that the study uses: per synapse or per neuron.",
    ),
    "break-even": ("spikes per inference", "Below the first number a gain is plausible, above the last it is refuted."),
    "says": ("", "plausible: below the band; marginal: in it; refuted: above it."),
    "claim": ("", "What the study says, in short, and where it was read."),
    "source": ("", "Where the prices come from, and against what they were checked."),
    "covers": ("", "What the prices stand for, and what is in none of them."),
    "hash": ("", "SHA-256 of the table, its first digits: it changes with any price."),
    "run": ("", "The report."),
    "target": ("", "What the network was exported for."),
    "energy of a run": ("energy per inference", "Nominal, of the spiking network of this run."),
    "T": ("steps", "Time steps of an inference."),
    "bits": ("bits", "Of the largest weight, with its sign."),
    "method": ("", "How the student was trained, where the export lies in its run."),
    "accuracy": ("share of samples", "Of the integer network on the counted samples, with its 95 % interval (Wilson)."),
    "energy": ("energy per inference", "Nominal, of the spiking network under the table named above."),
    "front": (
        "tables",
        "Price tables under which no other run is as accurate and cheaper, or as cheap and more accurate.",
    ),
}
