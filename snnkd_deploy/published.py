"""Published break-even points and surveys of synaptic energies: context, in TOML, never a price."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Band:
    """Where a published study sees the break-even: below `low` a gain is plausible, above `high` it is refuted."""

    name: str
    quantity: str
    """`spikes_per_synapse` or `spikes_per_neuron`, both of one inference."""
    low: float
    high: float
    claim: str
    evidence: str
    source: str

    def verdict(self, value: float) -> str:
        """Of a network that has `value`."""
        return "plausible" if value < self.low else "marginal" if value <= self.high else "refuted"


@dataclass(frozen=True)
class Survey:
    """What others list as the energy of one synaptic operation, pJ."""

    synop_pj: Mapping[str, float]
    not_published: tuple[str, ...]
    evidence: str
    source: str
    note: str


def bands() -> tuple[Band, ...]:
    """The break-even points that come with the package."""
    return tuple(Band(**one) for one in _content("break_even.toml")["bands"])


def survey() -> Survey:
    """The synaptic energies that come with the package."""
    content = _content("synop_survey.toml")
    return Survey(**{**content, "not_published": tuple(content["not_published"])})


def _content(name: str) -> dict[str, Any]:
    file = resources.files("snnkd_deploy.targets") / "published" / name
    return tomllib.loads(file.read_text(encoding="utf-8"))
