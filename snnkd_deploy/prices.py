"""What operations cost: price tables, one TOML file each. What nobody has published is absent, never zero."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

from snnkd_deploy.errors import ConfigError, UnknownNameError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Price = tuple[float, float, float]
"""Low, nominal, high, in pJ."""

OPERATIONS: dict[str, tuple[str, ...]] = {
    "arithmetic": ("mac", "synop", "add", "leak_multiply", "compare"),
    "chip": (
        *("synop", "synop_conv", "synop_linear", "neuron_active", "neuron_inactive", "spike"),
        *("mac", "add", "compare"),
    ),
}
"""What a table may price. `arithmetic`: a neuron is its multiplications, additions and compares, and nothing is charged
for the way of a spike. `chip`: a neuron update and a spike have prices of their own."""

GROUPS = ("bias", "pooling", "residual", "spikes")
"""Groups of operations that the price of another operation may include."""

EVIDENCE = ("measured", "simulated", "published", "derived", "datasheet", "secondary")
NOT_STATED = "not stated"
TEXTS = ("name", "title", "scope", "evidence", "source", "covers")
LISTS = ("excludes", "included")
NUMBERS = ("node_nm", "volt")


@dataclass(frozen=True)
class Table:
    """One price list. `prices[operation]` as in OPERATIONS; `synop` stands in for `synop_conv` and `synop_linear`."""

    name: str
    title: str
    scope: str
    node_nm: float | str
    volt: float | str
    evidence: str
    source: str
    covers: str
    excludes: tuple[str, ...]
    included: tuple[str, ...]
    prices: Mapping[str, Price]

    def key(self, operation: str) -> str | None:
        """The entry that prices `operation`; None if it is unpriced."""
        general = "synop" if operation.startswith("synop") else operation
        return next((one for one in (operation, general) if one in self.prices), None)

    @property
    def digest(self) -> str:
        """SHA-256 over everything the table says; comments and layout of its file do not matter."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Charge:
    """`number` operations of one kind that a layer does, summed over samples; `group` names what they are for."""

    layer: str
    group: str
    operation: str
    number: int


Bill = Mapping[str | None, int]
"""How many operations fall to each entry of a table; None collects those without a price."""


def bill(charges: Iterable[Charge], table: Table) -> Bill:
    """Put operations on the entries of a table; groups that another price includes cost nothing more."""
    due: Counter[str | None] = Counter()
    for charge in charges:
        if charge.group not in table.included:
            due[table.key(charge.operation)] += charge.number
    return due


def total(due: Bill, table: Table, samples: int) -> list[float]:
    """Low, nominal and high pJ per sample of what has a price."""
    priced = [(table.prices[key], number) for key, number in due.items() if key is not None]
    return [sum(three[at] * number for three, number in priced) / samples for at in range(3)]


def split(charges: Iterable[Charge], table: Table, samples: int, what: str) -> dict[str, list[float]]:
    """`total` by "group" or "layer"; where nothing has a price there is no entry."""
    parts: dict[str, list[Charge]] = {}
    for charge in charges:
        if charge.group not in table.included and table.key(charge.operation):
            parts.setdefault(getattr(charge, what), []).append(charge)
    return {name: total(bill(part, table), table, samples) for name, part in parts.items()}


def ratio(over: Bill, under: Bill, table: Table) -> list[float] | None:
    """Least, nominal and largest over / under; None if an operation has no price or `under` may cost nothing.

    Both sides pay the same price out of its range, so the least and the largest lie at corners of the ranges.
    """
    if None in over or None in under:
        return None
    keys = [key for key in {**over, **under} if key is not None]
    corners = product(*(sorted({table.prices[key][0], table.prices[key][2]}) for key in keys))
    nominal = tuple(table.prices[key][1] for key in keys)
    pairs = [_both(over, under, dict(zip(keys, prices, strict=True))) for prices in (nominal, *corners)]
    if any(below == 0 for _, below in pairs):
        return None
    ratios = [above / below for above, below in pairs]
    return [min(ratios), ratios[0], max(ratios)]


def _both(over: Bill, under: Bill, prices: Mapping[str, float]) -> tuple[float, float]:
    above, below = (sum(due.get(key, 0) * price for key, price in prices.items()) for due in (over, under))
    return above, below


def table_names() -> list[str]:
    """The tables that come with the package, in alphabetical order."""
    folder = resources.files("snnkd_deploy.targets") / "prices"
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def load_tables(names: Iterable[str] = ()) -> tuple[Table, ...]:
    """The tables of these names or paths; all that come with the package if none is given."""
    wanted = list(names) or table_names()
    tables = tuple(load_table(name) for name in wanted)
    for table in tables:
        if [one.name for one in tables].count(table.name) > 1:
            raise ConfigError(f"two price tables are called {table.name!r}: {', '.join(wanted)}")
    return tables


def load_table(name: str) -> Table:
    """The table called `name`, or the one in the `.toml` file of that path."""
    if name.endswith(".toml"):
        try:
            return parse_table(Path(name).read_text(encoding="utf-8"), name)
        except FileNotFoundError:
            raise ConfigError(f"no price table {name}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the price table {name}: {error}") from error
    if name not in table_names():
        raise UnknownNameError("price table", name, table_names(), "or give the path of a .toml file")
    file = resources.files("snnkd_deploy.targets") / "prices" / f"{name}.toml"
    return parse_table(file.read_text(encoding="utf-8"), f"{name}.toml")


def parse_table(text: str, origin: str) -> Table:
    """A table from TOML text; `origin` names the file in errors, which list everything that is wrong with it."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin} is not valid TOML: {error}") from error
    problems = _key_problems(content, (*TEXTS, *NUMBERS, *LISTS, "prices"), "", optional=("included",))
    problems += _value_problems(content)
    problems += _price_problems(content)
    if problems:
        heading = f"{origin} is not a price table:"
        raise ConfigError("\n".join([heading, *(f"  - {problem}" for problem in problems)]))
    prices = {key.removesuffix("_pj"): _price(value) for key, value in content["prices"].items()}
    lists = {key: tuple(content.get(key, ())) for key in LISTS}
    return Table(**{**content, **lists, "prices": prices})


def _key_problems(found: Mapping[str, Any], known: Iterable[str], where: str, optional: Iterable[str]) -> list[str]:
    names = list(known)
    problems = []
    for key in found:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            problems.append(f"unknown key {where + key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return problems + [f"missing key {where + key!r}" for key in names if key not in found and key not in optional]


def _value_problems(content: Mapping[str, Any]) -> list[str]:
    """Wrong values of the keys outside [prices]; missing keys are not repeated."""
    accepted = {
        **dict.fromkeys(TEXTS, (_is_text, "a text")),
        **dict.fromkeys(LISTS, (_is_text_list, "a list of texts")),
        **dict.fromkeys(NUMBERS, (_is_number_or_not_stated, f"a number above 0 or {NOT_STATED!r}")),
        "evidence": (EVIDENCE.__contains__, " or ".join(map(repr, EVIDENCE))),
        "scope": (tuple(OPERATIONS).__contains__, " or ".join(map(repr, OPERATIONS))),
    }
    problems = [
        f"{key} = {content[key]!r}: accepted is {what}"
        for key, (fits, what) in accepted.items()
        if key in content and not fits(content[key])
    ]
    included = content.get("included", [])
    if _is_text_list(included):
        problems += [f"included: no group {one!r}; known: {', '.join(GROUPS)}" for one in included if one not in GROUPS]
    return problems


def _price_problems(content: Mapping[str, Any]) -> list[str]:
    prices, scope = content.get("prices", {}), content.get("scope")
    if not isinstance(prices, Mapping):
        return [f"prices = {prices!r}: accepted is a table"]
    operations = OPERATIONS.get(scope, ()) if isinstance(scope, str) else ()
    keys = [f"{operation}_pj" for operation in operations]
    problems = _key_problems(prices, keys, "prices.", optional=keys) if keys else []
    problems += [
        f"prices.{key} = {value!r}: accepted is a number or [low, nominal, high], not negative, in pJ"
        for key, value in prices.items()
        if not _is_price(value)
    ]
    return problems or ([] if prices else ["prices: at least one operation must have a price"])


def _price(value: Any) -> Price:
    low, nominal, high = value if isinstance(value, list) else (value,) * 3
    return float(low), float(nominal), float(high)


def _is_price(value: Any) -> bool:
    numbers = value if isinstance(value, list) else [value] * 3
    if len(numbers) != 3 or not all(_is_number(one) for one in numbers):
        return False
    return bool(0 <= numbers[0] <= numbers[1] <= numbers[2])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_number_or_not_stated(value: Any) -> bool:
    return bool(value == NOT_STATED or (_is_number(value) and value > 0))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(_is_text(one) for one in value)
