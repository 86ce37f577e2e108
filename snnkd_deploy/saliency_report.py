"""What student and teacher look at, side by side: figures and a page with pictures.

Hu et al. 2025 find that distillation hands on which pixels matter. A cosine of two saliencies alone says little, since
objects stand in the middle of most pictures: so the same measure between different pictures stands beside it, and what
a network loses when the pixels that it, or the other one, holds for salient are blurred.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from snnkd_deploy import data, page
from snnkd_deploy.batches import BATCH, Images
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.files import replacing
from snnkd_deploy.run import Run
from snnkd_deploy.snn import models
from snnkd_deploy.snn.saliency import cosines, saliency, saliency_map, spearmans, without

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHARES = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Of the pixels that are blurred."""
SHOWN = 12
NAMES = ("student", "teacher")


@dataclass(frozen=True, eq=False)
class Study:
    """Saliencies of N samples of the test set, and what follows from them; the arrays keep the samples' order."""

    run: Run
    images: Tensor  # (N, C, H, W) or (N, T, C, H, W)
    labels: Tensor  # (N,)
    predictions: dict[str, Tensor]  # of each network, (N,)
    maps: dict[str, Tensor]  # of each network, (N, H, W)
    cosine: Tensor  # (N,): student and teacher on the same picture
    spearman: Tensor
    chance: dict[str, float]  # cosine and spearman, the student on a picture and the teacher on the next one
    losses: dict[str, dict[str, list[float]]]  # network -> whose order -> accuracy at each of SHARES

    @property
    def figures(self) -> dict[str, Any]:
        """Everything but the pictures, as plain JSON types."""
        return {
            "run": str(self.run.path),
            "samples": len(self.labels),
            "cosine": self.cosine.mean().item(),
            "spearman": self.spearman.mean().item(),
            "chance": self.chance,
            "shares": list(SHARES),
            "accuracy_without": self.losses,
        }


def study(run: Run, samples: int) -> Study:
    """Student and teacher of a finished run on the first `samples` of its test images."""
    config = run.config
    found = data.configured(config)
    if found.encoding:
        raise ConfigError(
            f"{run.path}: its student sees spikes ({config.encoding} coding) and its teacher the picture, so there are "
            "no pixels that both look at; a student with direct coding is needed"
        )
    test = Images.of(found.test, found.scale, torch.device("cpu"))
    networks = dict(zip(NAMES, models.load(run), strict=True))
    images, labels = test.batch(torch.arange(min(samples, len(test))))
    slopes = {name: _saliencies(network, images, labels) for name, network in networks.items()}
    maps = {name: saliency_map(slope) for name, slope in slopes.items()}
    one, other = slopes.values()
    return Study(
        run=run,
        images=images,
        labels=labels,
        predictions={name: _predictions(network, images) for name, network in networks.items()},
        maps=maps,
        cosine=cosines(one, other),
        spearman=spearmans(one, other),
        chance={
            "cosine": cosines(one, other.roll(1, 0)).mean().item(),
            "spearman": spearmans(one, other.roll(1, 0)).mean().item(),
        },
        losses={name: _losses(network, images, labels, maps) for name, network in networks.items()},
    )


def _saliencies(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    pairs = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    return torch.cat([saliency(network, some, of) for some, of in pairs])


@torch.no_grad()
def _predictions(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(some).argmax(1) for some in images.split(BATCH)])


def _losses(network: nn.Module, images: Tensor, labels: Tensor, maps: dict[str, Tensor]) -> dict[str, list[float]]:
    """Accuracy when the pixels that each network, or chance, puts first are blurred."""
    chance = torch.rand(maps["student"].shape, generator=torch.Generator().manual_seed(0))
    return {
        whose: [_share(network, without(images, order, share), labels) for share in SHARES]
        for whose, order in {**maps, "chance": chance}.items()
    }


def _share(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (_predictions(network, images) == labels).double().mean().item()


def write(found: Study, path: Path) -> None:
    """The page, with the pictures of the first samples of different classes."""
    text = page.page(f"What {found.run.path.name} looks at", _parts(found))
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _parts(found: Study) -> list[str]:
    accuracies, config = found.run.accuracies, found.run.config
    spread = [f"{values.mean():.3f} ± {values.std():.3f}" for values in (found.cosine, found.spearman)]
    chance = [f"{found.chance[key]:.3f}" for key in ("cosine", "spearman")]
    told = (
        f"{config.dataset}, {len(found.labels)} test images; student {config.model}, T = {config.timesteps}, method "
        f"{config.method}, {accuracies['student']:.2%} on the whole test set; teacher {accuracies['teacher']:.2%}."
    )
    return [
        page.paragraph(told, quiet=True),
        page.heading("How far the saliencies agree"),
        page.paragraph(
            "Saliency is the absolute derivative of the label's logit by each input value. 1: the same up to a factor "
            "(cosine), or the same order of pixels (Spearman)."
        ),
        page.table(
            ("", "cosine", "Spearman"),
            [("student and teacher, same picture", *spread), ("student and teacher, different pictures", *chance)],
        ),
        page.heading("What is lost when the salient pixels are blurred"),
        page.figure(
            _curves(found),
            "The most salient pixels first, by whose order. Below the random order: they matter.",
        ),
        page.heading("Pictures"),
        page.figure(_gallery(found), "Each picture, what student and teacher look at, and what they take it for."),
    ]


def _curves(found: Study) -> Figure:
    drawn = _figure(9, 3)
    for place, name in enumerate(NAMES):
        axes = drawn.add_subplot(1, 2, place + 1)
        for whose, accuracies in found.losses[name].items():
            label = "its own order" if whose == name else f"the {whose}'s order" if whose in NAMES else "random order"
            axes.plot([100 * share for share in SHARES], [100 * one for one in accuracies], marker="o", label=label)
        axes.set_title(name)
        axes.set_xlabel("pixels blurred, %")
        axes.set_ylabel("accuracy, %")
        axes.legend(frameon=False)
    return drawn


def _gallery(found: Study) -> Figure:
    rows = chosen(found.labels.tolist(), SHOWN)
    drawn = _figure(9, 1.7 * -(-len(rows) // 2))
    for place, row in enumerate(rows):
        cells = [drawn.add_subplot(-(-len(rows) // 2), 6, 3 * place + column + 1) for column in range(3)]
        _picture(cells[0], found, row)
        for axes, name in zip(cells[1:], NAMES, strict=True):
            axes.imshow(found.maps[name][row].numpy(), cmap="magma")
            axes.set_title(f"{name}: {_class(found, found.predictions[name][row])}", fontsize=7)
            axes.axis("off")
        cells[2].text(0, -0.04, f"cosine {found.cosine[row]:.2f}", fontsize=7, va="top", transform=cells[2].transAxes)
    return drawn


def chosen(labels: list[int], count: int) -> list[int]:
    """Rows of the first samples, one of each class, then a second of each, up to `count`."""
    seen: dict[int, int] = {}
    turns = []
    for row, label in enumerate(labels):
        turns.append((seen.get(label, 0), row))
        seen[label] = seen.get(label, 0) + 1
    return [row for _, row in sorted(turns)[:count]]


def _picture(axes: Axes, found: Study, row: int) -> None:
    image = found.images[row]
    still = (image.mean(0) if image.ndim == 4 else image).clamp(0, 1)
    colours = still.permute(1, 2, 0) if len(still) == 3 else still.mean(0)
    axes.imshow(colours.numpy(), cmap="gray")
    axes.set_title(_class(found, found.labels[row]), fontsize=7)
    axes.axis("off")


def _class(found: Study, label: Tensor) -> str:
    return str(found.run.classes[int(label)])


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # without pyplot: no window system is asked for

    return Figure(figsize=(width, height), layout="constrained")
