"""A report on disk: versioned JSON, its counts under a hash, one short object or list a line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from snnkd_deploy.errors import BundleError
from snnkd_deploy.files import read_json, replacing

Report = dict[str, Any]

SCHEMA = "snnkd-deploy/energy"
SCHEMA_VERSION = 2
DERIVED = ("literature", "energy", "headline", "break_even", "uncertainty", "counts_sha256")
"""What `price` writes anew, and the hash itself; the hash covers the rest."""
LINE = 360
"""Characters; a comparison takes about as many."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a report of this version, as published with the package."""
    file = resources.files("snnkd_deploy.energy") / "report.schema.json"
    return dict(json.loads(file.read_text(encoding="utf-8")))


def digest(report: Mapping[str, Any]) -> str:
    """SHA-256 over all of a report that prices do not touch."""
    counted = {key: value for key, value in report.items() if key not in DERIVED}
    return hashlib.sha256(json.dumps(counted, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Write the report as JSON, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(as_text(report) + "\n", encoding="utf-8")


def as_text(value: Any, indent: int = 0) -> str:
    """JSON with two spaces; what fits into a line, and a list of numbers, takes one."""
    short = json.dumps(value, allow_nan=False)
    if not isinstance(value, dict | list) or not value or len(short) + indent <= LINE or _is_flat(value):
        return short
    inner, last = "\n" + " " * (indent + 2), "\n" + " " * indent
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {as_text(one, indent + 2)}" for key, one in value.items()]
        return "{" + inner + f",{inner}".join(parts) + last + "}"
    return "[" + inner + f",{inner}".join(as_text(one, indent + 2) for one in value) + last + "]"


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, int | float) for one in value)


def read(path: Path) -> Report:
    """The report in `path`. BundleError if it is another kind of file, another version, or was changed by hand."""
    report = read_json(path, "report", BundleError)
    if report.get("schema") != SCHEMA:
        raise BundleError(f"{path} is not an energy report: its schema is {report.get('schema')!r}, not {SCHEMA!r}")
    if report.get("schema_version") != SCHEMA_VERSION:
        met = report.get("schema_version")
        raise BundleError(
            f"{path}: energy report of version {met!r}; this program reads version {SCHEMA_VERSION}: count again "
            "(--refresh)"
        )
    if report.get("counts_sha256") != digest(report):
        raise BundleError(f"{path}: its counts are not those that were written (counts_sha256 differs); count again")
    return report
