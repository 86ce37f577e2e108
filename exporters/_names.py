"""Names of nodes inside generated source files."""

from __future__ import annotations

import re
from collections.abc import Collection

from snnkd_deploy.ir import Graph


def identifiers(graph: Graph, reserved: Collection[str] = ()) -> dict[str, str]:
    """For each node an identifier of C and Python of its own: dots become underscores, a clash gets a number."""
    found: dict[str, str] = {}
    taken = set(reserved)
    for node in graph:
        plain = re.sub(r"[^0-9A-Za-z_]", "_", node.name)
        plain = plain if re.match(r"[A-Za-z]", plain) else f"n{plain}"
        name, number = plain, 2
        while name in taken:
            name, number = f"{plain}_{number}", number + 1
        taken.add(name)
        found[node.name] = name
    return found


def plain(text: str) -> str:
    """Safe inside a comment, a docstring or a string of any language."""
    return re.sub(r"[^0-9A-Za-z ._+-]", "_", text)
