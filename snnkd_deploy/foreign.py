"""A torch network of the user's own as teacher: `path.py:function` or `module:function`, its weights, its judgement.

The function returns an nn.Module, weights set or not; keywords `classes` and `shape` (channels, height, width) are
given to it if it has them. The network sees what our own teachers see: float32 images (B, C, H, W), each pixel times
the scale of the data set, which is 0 to 1 for pictures; of frames their mean, of encoded pictures the picture.
`teacher_normalize` "MEAN/STD" puts (x - mean) / std in front of it. It answers with logits (B, classes).

A run keeps its weights and, where the front end knows every layer, its graph: numbers, no code. Export and energy need
nothing else. Code is run from where it is, and only to train.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snnkd_deploy import checkpoint, cluster
from snnkd_deploy.batches import Images
from snnkd_deploy.calibration import Calibration
from snnkd_deploy.config import TrainConfig
from snnkd_deploy.data import DataSet
from snnkd_deploy.errors import ConfigError, RefusedError, RunError, SnnkdError
from snnkd_deploy.files import replacing, sha256
from snnkd_deploy.frontend.network import read
from snnkd_deploy.graph_file import save_graphs
from snnkd_deploy.ir import Graph, Neuron
from snnkd_deploy.passes.fold_batchnorm import fold_batchnorm
from snnkd_deploy.progress import Watch
from snnkd_deploy.run import Run
from snnkd_deploy.samples import Samples
from snnkd_deploy.simulate import simulate
from snnkd_deploy.snn.layers import MeanFrame, Picture, RowMajor
from snnkd_deploy.snn.network import Network, Shape
from snnkd_deploy.snn.taps import Foreign, ForeignNetwork, tapped
from snnkd_deploy.target import load_target
from snnkd_deploy.trace import FRAMES, teacher_source
from snnkd_deploy.user_code import load_network, source_file, told

PREFIX = "network."
_INNER = re.compile(r"\b" + re.escape(PREFIX))
PROBED = 4  # images that the graph is read from and compared on
NEAR = 1e-3  # of the largest logit: what float32 and float64 may differ by
FOR_CODE = ("teacher_weights", "teacher_taps", "teacher_normalize", "teacher_accuracy")
HARDLY = 0.1  # of the way from guessing to perfect


def teacher(config: TrainConfig, shape: Shape, classes: int, weights: Path | str | None = None) -> ForeignNetwork:
    """The network that `config.teacher` names, in eval mode on the CPU, with weights from a file if one is given.

    `shape` is that of a sample. ConfigError or InputError says what is wrong with the code, or what it returned.
    """
    with torch.device("cpu"), torch.random.fork_rng([]):
        torch.manual_seed(config.seed)
        module = load_network(str(config.teacher), weights, classes=classes, shape=shape[-3:])
        images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
        foreign = _in_front(config, module, shape)
        _check_logits(str(config.teacher), foreign.whole, images, classes)
        if _reads_memory(foreign, images):
            foreign = _in_front(config, module, shape, RowMajor())
        return tapped(foreign, images, config.teacher_taps.split(",") if config.teacher_taps else None)


def check_settings(config: TrainConfig) -> None:
    """ConfigError for settings of a teacher that contradict each other."""
    own = [key for key in ("teacher_model", "teacher_width", "teacher_depth") if getattr(config, key)]
    if config.foreign and own:
        raise ConfigError(f"{', '.join(own)}: teacher {config.teacher} is code, which says its own shape")
    given = [key for key in FOR_CODE if getattr(config, key) is not None]
    if given and not config.foreign:
        raise ConfigError(f"{', '.join(given)}: for a teacher of your own; teacher = PATH.py:FUNCTION is needed")


def absolute(config: TrainConfig) -> dict[str, Any]:
    """The settings that hold paths, as absolute ones."""
    assert config.teacher is not None
    place, _, function = config.teacher.rpartition(":")
    found = {"teacher": f"{Path(place).resolve()}:{function}"} if place.endswith(".py") else {}
    if config.teacher_weights is not None:
        found["teacher_weights"] = str(Path(config.teacher_weights).resolve())
    return found


def adopted(config: TrainConfig, other: Run) -> dict[str, Any]:
    """The settings that make the foreign teacher of another run, with its weights, that of `config`."""
    inherited = {key: getattr(config, key) or getattr(other.config, key) for key in FOR_CODE}
    return {**inherited, "teacher": other.config.teacher, "teacher_weights": str(other.teacher_file)}


def bring(current: Run, dataset: DataSet, test: Images, watch: Watch) -> Run:
    """Take the teacher into the run: weights, graph, what it reaches on the test images; warnings are noted."""
    config = current.config
    network = teacher(config, current.input_shape, len(current.classes), config.teacher_weights)
    shapes = [tuple(tap.shape[1:]) for tap in network.outputs(torch.zeros(1, *current.input_shape)).taps]
    taps = ", ".join(f"{name} {shape}" for name, shape in zip(network.names, shapes, strict=True)) or "none found"
    images = test.batch(torch.arange(min(PROBED, len(test))))[0].cpu()
    entry = cluster.first(lambda: _record(network, current, dataset, images))
    share = judged(network.to(test.device), test)
    watch.note(f"teacher {config.teacher}, test accuracy {share:.2%}, taps: {taps}")
    if network.uncut:
        watch.note(f"the teacher is not cut into blocks: {network.uncut}")
    for reason in entry["uncounted"]:
        watch.note(f"the teacher will not be counted by `energy`: {reason}")
    for doubt in doubts(share, config.teacher_accuracy, test.labels):
        watch.note(doubt)
    return cluster.first(lambda: current.complete("teacher", share, foreign=entry))


@torch.no_grad()
def judged(network: Network, test: Images) -> float:
    """Share of the test images that it gets right, 0 to 1. ConfigError if a logit is not finite."""
    right, wild = 0, 0
    for batch, labels in test.in_order():
        logits = network(batch)
        right += int((logits.argmax(1) == labels).sum())
        wild += int((~torch.isfinite(logits)).any(1).sum())
    right, wild = cluster.summed([right, wild])
    if wild:
        raise ConfigError(f"the teacher's logits are not finite on {wild:,} of {len(test):,} test images")
    return right / len(test)


def doubts(accuracy: float, stated: float | None, labels: Tensor) -> list[str]:
    """Warnings about a teacher: below what its author states (to the digits stated), or hardly better than guessing.

    Guessing is the largest class each time; hardly better is less than a tenth of the way from there to perfect.
    """
    found = []
    guess = labels.bincount().max().item() / len(labels)
    if stated is not None and accuracy < stated - 0.5 * 10.0 ** -len(repr(float(stated)).partition(".")[2]):
        found.append(
            f"WARNING: the teacher reaches {accuracy:.2%} on the test images, not the {stated:.2%} that are stated "
            "for it; are pixels scaled and normalised as it was trained (--teacher-normalize), classes in its order?"
        )
    if accuracy < guess + HARDLY * (1 - guess):
        found.append(
            f"WARNING: the teacher reaches {accuracy:.2%}, hardly better than guessing ({guess:.2%}); "
            "a student learns little from it"
        )
    return found


def _record(network: ForeignNetwork, current: Run, dataset: DataSet, images: Tensor) -> dict[str, Any]:
    """What run.json says of it; weights and graph are written into the run, or `uncounted` says why there is none."""
    config = current.config
    checkpoint.write_weights(current.teacher_file, network.foreign.module)
    entry: dict[str, Any] = {
        "code": config.teacher,
        "code_sha256": source_hash(config),
        "taps": list(network.names),
        "uncut": network.uncut,
        "stated_accuracy": config.teacher_accuracy,
        "graph_sha256": None,
        "uncounted": [],
    }
    try:
        graph = traced(network, dataset, images)
    except RefusedError as error:
        return {**entry, "uncounted": list(error.reasons)}
    with replacing(current.teacher_graph_file) as partial:
        save_graphs(partial, {"teacher": graph})
    return {**entry, "graph_sha256": sha256(current.teacher_graph_file)}


def traced(network: ForeignNetwork, dataset: DataSet, images: Tensor) -> Graph:
    """Its folded graph, for counting. RefusedError lists what cannot be in one, layer by layer.

    `images` are the first test samples as a network sees them, on which graph and forward are compared.
    """
    whole, pictures = network.foreign.whole, dataset.test.pictures(slice(len(images)))
    source = teacher_source(dataset)
    samples = Samples(pictures, None, source.scale, static=True, high=source.high)
    timeless = nn.Sequential(OrderedDict(one for one in whole.named_children() if not isinstance(one[1], FRAMES)))
    try:
        graph = read(timeless, samples, name="teacher").graph
        graph = fold_batchnorm(graph, load_target("onnx"), Calibration(np.empty(0)))
    except SnnkdError as error:
        reasons = error.reasons if isinstance(error, RefusedError) else [str(error)]
        raise RefusedError("teacher:", [_INNER.sub("", one, count=1) for one in reasons]) from error
    if spiking := [node.name.removeprefix(PREFIX) for node in graph.of(Neuron)]:
        raise RefusedError("teacher:", [f"it spikes ({', '.join(spiking)}); a teacher is counted as an ANN"])
    with torch.no_grad():
        expected = whole(images).double().numpy()
    met = simulate(graph, pictures).logits
    if abs(met - expected).max() > NEAR * max(1.0, abs(expected).max()):
        raise RefusedError("teacher:", ["its graph computes something else than its forward"])
    return graph


def source_hash(config: TrainConfig) -> str:
    """SHA-256 of the file that the teacher's code is in."""
    return sha256(source_file(str(config.teacher)))


def check_source(current: Run) -> None:
    """RunError if the code has changed since the teacher of this run was made with it."""
    entry = current.document["teacher"]["foreign"]
    if source_hash(current.config) != entry["code_sha256"]:
        raise RunError(f"{current.path} was started with other code: {entry['code']} has changed since")


def _in_front(config: TrainConfig, module: nn.Module, shape: Shape, order: nn.Module | None = None) -> Foreign:
    """The module, frozen, behind the picture or the mean of frames, normalisation and `order`, where needed."""
    front = Picture() if config.data_encoding != "direct" else MeanFrame()
    layers: dict[str, nn.Module] = {"frames": front} if len(shape) == 4 else {}
    if config.teacher_normalize is not None:
        layers["normalize"] = _normalize(config.teacher_normalize, shape[-3])
    if order is not None:
        layers["order"] = order
    whole = nn.Sequential(OrderedDict({**layers, "network": module})).eval().requires_grad_(False)
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = False  # type: ignore[assignment]  # what is tapped must not be written over
    return Foreign(whole, module, PREFIX)


@torch.no_grad()
def _reads_memory(foreign: Foreign, images: Tensor) -> bool:
    """Whether it cannot take images that lie channels last, as batches do: `x.view(len(x), -1)` is refused there."""
    for layer in list(foreign.whole.children())[:-1]:
        images = layer(images)
    try:
        foreign.module(images.clone(memory_format=torch.channels_last))
    except RuntimeError:
        return True
    return False


def _normalize(text: str, channels: int) -> nn.Conv2d:
    """(x - mean) / std of each channel: a convolution of one weight per channel, so that it can be traced."""
    try:
        mean, std = ([float(number) for number in part.split(",")] for part in text.split("/"))
        fits = all(len(part) in (1, channels) for part in (mean, std)) and min(std) > 0
        fits = fits and all(map(math.isfinite, mean + std))
    except ValueError:
        fits = False
    if not fits:
        each = f"each one number or {channels} joined by commas" if channels > 1 else "each one number"
        raise ConfigError(f"teacher_normalize = {text!r}: MEAN/STD is needed, {each}, STD above 0")
    layer = nn.Conv2d(channels, channels, 1, groups=channels)
    scale = 1 / torch.tensor(std).expand(channels)
    layer.load_state_dict({"weight": scale.view(-1, 1, 1, 1), "bias": -torch.tensor(mean).expand(channels) * scale})
    return layer


@torch.no_grad()
def _check_logits(reference: str, whole: nn.Module, images: Tensor, classes: int) -> None:
    """Refuse a network that cannot take the images, or does not answer with finite logits (B, classes)."""
    met = "x".join(map(str, images.shape[-3:]))
    try:
        logits = whole(images)
    except Exception as error:  # code of the user may raise anything
        raise ConfigError(f"teacher {reference} cannot take images of {met}: {told(error)}") from error
    if not isinstance(logits, Tensor) or logits.shape != (len(images), classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ConfigError(
            f"teacher {reference}: {len(images)} images of {met} give {got}; "
            f"logits ({len(images)}, {classes}) are needed, one for each class of the data"
        )
    if not torch.isfinite(logits).all():
        raise ConfigError(f"teacher {reference}: its logits are not finite on images of values from 0 to 1")
