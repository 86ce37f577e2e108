"""The energy report: exact counts of one network on one data set, and what they cost under several price tables.

The counted part never mentions a price, so a report can be priced again without the model.
"""

from __future__ import annotations

from typing import Any

from snnkd_deploy.energy.anns import compared
from snnkd_deploy.energy.comparison import compare
from snnkd_deploy.energy.counted import counted
from snnkd_deploy.energy.literature import literature
from snnkd_deploy.energy.operations import Convention, ann_charges, charges, conventions
from snnkd_deploy.energy.priced import price
from snnkd_deploy.energy.stored import SCHEMA, SCHEMA_VERSION, Report, digest, json_schema, read, write

__all__ = [
    "SCHEMA", "SCHEMA_VERSION", "Convention", "Report", "ann_charges", "build", "charges", "compare", "compared",
    "conventions", "counted", "digest", "json_schema", "literature", "price", "read", "write",
]  # fmt: skip


def build(**network: Any) -> Report:
    """Count a network, see `counted`: a report without prices, its hash in place."""
    found = counted(**network)
    return price({**found, "counts_sha256": digest(found)}, ())
