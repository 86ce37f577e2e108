"""Ten networks as their authors write them, for every target: each file proven in its runtimes, each refusal in full.

python benchmarks/ten_networks.py [--data-dir FASHION-MNIST] [--networks tutorial5 relu ...] [--targets c onnx ...]
    [--samples N] [--lava-samples 20] [--out ten-networks.json]

The networks are benchmarks/networks/*.py: `network` makes one, `scores` is how its author reads classes from it, and
where it says so, `samples` is what it is fed, TIMESTEPS how often it is called, and `written` the file that it is
handed on as. Each is trained for some seconds on digits, or on Fashion-MNIST from --data-dir. Ends with 1 if a spike
differs anywhere; goes on with --out if it was stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import snnkd_deploy
from snnkd_deploy.data import load
from snnkd_deploy.errors import ProofError, RefusedError
from snnkd_deploy.export import ExportOptions
from snnkd_deploy.registry import load_exporter
from snnkd_deploy.target import load_target, target_names

FOLDER = Path(__file__).with_name("networks")
NAMES = (
    *("tutorial5", "tutorial6", "events", "learned", "integrate", "synaptic"),
    *("residual", "resnet_student", "spikingformer", "nir_file", "relu"),
)
ADVICE: dict[tuple[str, str], dict[str, str]] = {("integrate", "nir"): {"version": "1.0.5"}}
"""Where a refusal names an option, the option: a reset by subtraction is what NIR up to 1.0.5 says."""
PACKAGES = ("numpy", "torch", "snntorch", "onnx", "onnxruntime", "nir")


@dataclass(frozen=True)
class Pictures:
    """What is learned: pixels of 8 bits `(samples, channels, side, side)` and classes."""

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Channels, side, classes."""
        return self.train.shape[1], self.train.shape[2], int(self.train_labels.max()) + 1


@dataclass
class Notes:
    """Footnotes; a text that is met again keeps its number."""

    texts: list[str] = field(default_factory=list)

    def number(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        return f"[{self.texts.index(text) + 1}]"


def pictures(data_dir: str | None, trained: int, tested: int) -> Pictures:
    """The first of each split."""
    data = load("fashion-mnist", data_dir) if data_dir else load("digits")

    def pixels(split: Any, count: int) -> Tensor:
        return torch.from_numpy(np.rint(split.images[:count] * (data.scale * 255)).astype(np.uint8))

    def labels(split: Any, count: int) -> Tensor:
        return torch.from_numpy(np.asarray(split.labels[:count], dtype=np.int64))

    train, test = data.train, data.test
    return Pictures(
        data.name, pixels(train, trained), labels(train, trained), pixels(test, tested), labels(test, tested)
    )


def module(name: str) -> ModuleType:
    """The file of a network."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def fed(author: ModuleType, pixels: Tensor) -> Tensor:
    """What the network is fed; bytes become x / 255."""
    real = pixels.float() / 255
    return author.samples(real) if hasattr(author, "samples") else real


def train(author: ModuleType, net: nn.Module, data: Pictures, epochs: int) -> None:
    """Adam on cross-entropy."""
    x = fed(author, data.train)
    optimiser, shuffle = torch.optim.Adam(net.parameters(), lr=3e-3), torch.Generator().manual_seed(0)
    net.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=shuffle).split(64):
            loss = nn.functional.cross_entropy(author.scores(net, x[rows]), data.train_labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    net.eval()


def accuracy(author: ModuleType, net: nn.Module, data: Pictures) -> float:
    """Of the author's own forward, in float32."""
    with torch.no_grad():
        answers = torch.cat([author.scores(net, part).argmax(1) for part in fed(author, data.test).split(100)])
    return float((answers == data.test_labels).double().mean())


def handed_on(
    author: ModuleType, net: nn.Module, name: str, folder: Path, shape: tuple[int, ...] | None
) -> tuple[Any, dict[str, Any]]:
    """What its author hands on, and what has to be said about it; of frames, the `shape` of one."""
    said = {"timesteps": author.TIMESTEPS} if hasattr(author, "TIMESTEPS") else {}
    if not hasattr(author, "written"):
        return net, said if shape is None else {**said, "input_shape": shape}
    author.written(net, folder / f"{name}.nir")
    return folder / f"{name}.nir", {**said, "dt": author.DT}


def samples(author: ModuleType, data: Pictures) -> np.ndarray[Any, Any]:
    """Pixels or spikes as bytes."""
    x = fed(author, data.test)
    whole = bool(((x == 0) | (x == 1)).all())
    return (x if whole else (x * 255).round()).byte().numpy()


def deployed(
    model: Any, target: str, x: Any, y: Any, name: str, said: dict[str, Any], options: ExportOptions, out: Path
) -> dict[str, Any]:
    """What became of a network on a target."""
    start = time.perf_counter()
    try:
        deployment = snnkd_deploy.compile(model, target, x, y, name=name, options=options, **said)
        manifest = deployment.write(out).manifest
    except RefusedError as refusal:
        result: dict[str, Any] = {"refused": str(refusal)}
    except ProofError as difference:
        result = {"differs": str(difference)}
    else:
        result = {
            "digest": manifest["digest"],
            "accuracy": manifest["ladder"]["integer"]["accuracy"],
            "proofs": manifest["proofs"],
            "warnings": manifest["warnings"],
        }
    return {**result, "options": dict(options.exporter), "seconds": round(time.perf_counter() - start, 1)}


def measured(name: str, data: Pictures, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One network: trained, then every target."""
    author = module(name)
    torch.manual_seed(0)
    net, start = author.network(*data.sizes), time.perf_counter()
    train(author, net, data, given.epochs)
    row = {"about": (author.__doc__ or "").strip(), "seconds_trained": round(time.perf_counter() - start, 1)}
    row["accuracy"] = accuracy(author, net, data)
    x, y, targets = samples(author, data), data.test_labels.numpy(), {}
    model, said = handed_on(author, net, name, folder, x.shape[2:] if x.ndim == 5 else None)
    for target in given.targets:
        print(f"{name} for {target}", file=sys.stderr, flush=True)
        count = given.lava_samples if load_target(target).exporter == "netx" else given.samples
        options = ExportOptions(samples=count, exporter=ADVICE.get((name, target), {}))
        targets[target] = deployed(model, target, x, y, name, said, options, folder / name / target)
    return {**row, "targets": targets}


def cell(found: dict[str, Any], runtimes: list[str], notes: Notes) -> str:
    """0 of N spikes differ, in each runtime in turn; or the number of the footnote that says why not."""
    if "refused" in found:
        return f"refused {notes.number(found['refused'])}"
    if "differs" in found:
        return f"DIFFERS {notes.number(found['differs'])}"
    proofs = {proof["name"]: proof for proof in found["proofs"]}
    options = " ".join(f"--option {key}={value}" for key, value in found["options"].items())
    outcomes = [
        f"{proofs[one]['differing']} of {proofs[one]['spikes']:,}"
        if proofs[one]["verified"]
        else f"not run {notes.number(proofs[one]['reason'])}"
        for one in runtimes
    ]
    return "; ".join(outcomes) + (f" {notes.number('with ' + options)}" if options else "")


def table(rows: dict[str, Any], targets: list[str]) -> str:
    """Markdown: networks by targets, the runtimes of each target, the footnotes."""
    notes = Notes()
    runtimes = {one: [proof.name for proof in load_exporter(load_target(one).exporter).proofs] for one in targets}
    lines = [_line("network", "author", "integer", *targets, "seconds"), _line(*["---"] * (len(targets) + 4))]
    for name, row in rows.items():
        found = row["targets"]
        cells = [cell(found[one], runtimes[one], notes) for one in targets]
        integer = integers([one for one in found.values() if "accuracy" in one], notes)
        seconds = sum(one["seconds"] for one in found.values())
        lines.append(_line(name, f"{row['accuracy']:.1%}", integer, *cells, f"{seconds:.0f}"))
    said = [f"{one}: {', '.join(runtimes[one])}" for one in targets]
    lines += ["", "Spikes that differ, of those that were fired, in each runtime in turn:", *said, ""]
    return "\n".join([*lines, *(f"[{number}] {text}" for number, text in enumerate(notes.texts, start=1))])


def integers(held: list[dict[str, Any]], notes: Notes) -> str:
    """The accuracy of the integer networks, least and most over the targets, and what was warned of."""
    if not held:
        return "-"
    shown = dict.fromkeys(f"{pick(one['accuracy'] for one in held):.1%}" for pick in (min, max))
    warned = dict.fromkeys(notes.number(text) for one in held for text in one["warnings"])
    return " ".join(["..".join(shown), *warned])


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def failed(rows: dict[str, Any]) -> list[str]:
    """Where a spike differs, or a proof that every machine can run did not run."""
    return [
        f"{name} for {target}"
        for name, row in rows.items()
        for target, found in row["targets"].items()
        if "differs" in found
        or any(one["differing"] if one["verified"] else one["required"] for one in found.get("proofs", ()))
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="a folder with Fashion-MNIST; without it digits, which come along")
    parser.add_argument("--networks", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--targets", nargs="+", choices=target_names(), default=target_names(), metavar="TARGET")
    parser.add_argument("--train-samples", type=int, default=4000)
    parser.add_argument("--test-samples", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, help="for each proof; default: the proof's own number")
    parser.add_argument("--lava-samples", type=int, default=20, help="for the proofs of Loihi's files")
    parser.add_argument("--out", type=Path, default=Path("ten-networks.json"))
    return parser.parse_args()


def kept(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Networks that were measured before, with the same settings."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return dict(found["networks"]) if found.get("settings") == settings else {}


def main() -> None:
    given = arguments()
    data = pictures(given.data_dir, given.train_samples, given.test_samples)
    settings = {key: value for key, value in vars(given).items() if key not in ("out", "data_dir", "networks")}
    settings |= {"data": data.name, "train_samples": len(data.train), "test_samples": len(data.test)}
    settings |= {"versions": {"python": platform.python_version(), **{one: version(one) for one in PACKAGES}}}
    done = kept(given.out, settings)
    for name in given.networks:
        if name not in done:
            with tempfile.TemporaryDirectory() as folder:
                done[name] = measured(name, data, given, Path(folder))
            report = {"settings": settings, "networks": done}
            given.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    rows = {name: done[name] for name in given.networks}
    print(table(rows, given.targets))
    if places := failed(rows):
        sys.exit(f"not proven: {', '.join(places)}")


if __name__ == "__main__":
    main()
