"""Price tables as TOML files, one each: those that come with the package, and those of users."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from snnkd_deploy.errors import ConfigError, UnknownNameError
from snnkd_deploy.prices import (
    COVERED,
    EVIDENCE,
    GROUPS,
    OPERATIONS,
    TIMES,
    Anchor,
    Capacity,
    Memory,
    Price,
    Static,
    Table,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NOT_STATED = "not stated"
Accept = tuple[Callable[[Any], bool], str]
Rules = Mapping[str, Accept]


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
    if problems := _problems(content):
        heading = f"{origin} is not a price table:"
        raise ConfigError("\n".join([heading, *(f"  - {problem}" for problem in problems)]))
    return _table(content)


def _table(content: Mapping[str, Any]) -> Table:
    prices = {key.removesuffix("_pj"): value for key, value in content["prices"].items()}
    own = {key: value for key, value in prices.items() if isinstance(value, Mapping)}
    words: dict[str, Any] = {key: content[key] for key in (*TEXTS, *NUMBERS)}
    words |= {key: tuple(content.get(key, ())) for key in LISTS}
    return Table(
        **words,
        checked=content.get("checked", ""),
        prices={key: as_price(value) for key, value in prices.items()},
        origins={key: (str(one["evidence"]), str(one["source"])) for key, one in own.items()},
        memory=_memory(content["memory"]) if "memory" in content else None,
        static=_static(content["static"]) if "static" in content else None,
        times={key.removesuffix("_ns"): as_price(value) for key, value in content.get("times", {}).items()},
        capacity=Capacity(**content["capacity"]) if "capacity" in content else None,
        anchors=tuple(Anchor(**{**one, "neurons": tuple(one["neurons"])}) for one in content.get("anchor", ())),
    )


def _memory(part: Mapping[str, Any]) -> Memory:
    lists = {key: tuple(part[key]) for key in ("sizes_bytes", "access_pj")}
    bits = None if part["value_bits"] == "model" else part["value_bits"]
    return Memory(**{**part, **lists, "value_bits": bits, "scale": as_price(part["scale"])})


def _static(part: Mapping[str, Any]) -> Static:
    return Static(**{**part, "mw_per_chip": as_price(part["mw_per_chip"])})


def as_price(value: Any) -> Price:
    """A number or [low, nominal, high], alone or with a source of its own."""
    value = value["pj"] if isinstance(value, Mapping) else value
    low, nominal, high = value if isinstance(value, list) else (value,) * 3
    return float(low), float(nominal), float(high)


def _problems(content: Mapping[str, Any]) -> list[str]:
    parts = ("prices", "memory", "static", "times", "capacity", "anchor")
    known = (*TEXTS, *NUMBERS, *LISTS, "checked", *parts)
    optional = ("checked", "included", "lower_bounds", "mapped", *parts[1:])
    problems = _key_problems(content, known, "", optional) + _value_problems(content, _RULES, "")
    problems += _list_problems(content) + _price_problems(content) + _charged_twice(content)
    for name, rules in (("memory", _MEMORY), ("static", _STATIC), ("capacity", _CAPACITY)):
        if name in content:
            problems += _part_problems(content[name], rules, f"{name}.")
    problems += _size_problems(content.get("memory"))
    anchors = content.get("anchor", [])
    for index, anchor in enumerate(anchors if isinstance(anchors, list) else [anchors]):
        problems += _part_problems(anchor, _ANCHOR, f"anchor[{index}].")
    return problems + _time_problems(content.get("times", {}))


def _key_problems(found: Mapping[str, Any], known: Iterable[str], where: str, optional: Iterable[str]) -> list[str]:
    names = list(known)
    problems = []
    for key in found:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            problems.append(f"unknown key {where + key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return problems + [f"missing key {where + key!r}" for key in names if key not in found and key not in optional]


def _value_problems(content: Mapping[str, Any], rules: Rules, where: str) -> list[str]:
    """Wrong values; missing keys are not repeated."""
    return [
        f"{where}{key} = {content[key]!r}: accepted is {what}"
        for key, (fits, what) in rules.items()
        if key in content and not fits(content[key])
    ]


def _part_problems(part: Any, rules: Rules, where: str) -> list[str]:
    if not isinstance(part, Mapping):
        return [f"{where.rstrip('.')} = {part!r}: accepted is a table"]
    return _key_problems(part, rules, where, ()) + _value_problems(part, rules, where)


def _list_problems(content: Mapping[str, Any]) -> list[str]:
    """Names in lists that are not known."""
    known = {"included": GROUPS, "lower_bounds": sorted({one for some in OPERATIONS.values() for one in some})}
    return [
        f"{key}: no {'group' if key == 'included' else 'operation'} {one!r}; known: {', '.join(names)}"
        for key, names in known.items()
        if _is_text_list(content.get(key, []))
        for one in content.get(key, [])
        if one not in names
    ]


def _price_problems(content: Mapping[str, Any]) -> list[str]:
    prices, scope = content.get("prices", {}), content.get("scope")
    if not isinstance(prices, Mapping):
        return [f"prices = {prices!r}: accepted is a table"]
    operations = OPERATIONS.get(scope, ()) if isinstance(scope, str) else ()
    bare = [key for key in prices if key in operations]
    problems = [f"prices.{key} has no unit: write {key}_pj" for key in bare]
    keys, named = [f"{one}_pj" for one in operations], {key: one for key, one in prices.items() if key not in bare}
    problems += _key_problems(named, keys, "prices.", optional=keys) if keys else []
    for key, value in named.items():
        if isinstance(value, Mapping):
            problems += _part_problems(value, _CONSTANT, f"prices.{key}.")
        elif not is_price(value):
            problems.append(f"prices.{key} = {value!r}: accepted is {A_PRICE}, in pJ, or a table with pj and a source")
    return problems or ([] if prices else ["prices: at least one operation must have a price"])


def _charged_twice(content: Mapping[str, Any]) -> list[str]:
    """What one price includes cannot have a price of its own."""
    included, prices = content.get("included", []), content.get("prices", {})
    if not _is_text_list(included) or not isinstance(prices, Mapping):
        return []
    twice = [
        f"prices.{operation}_pj would be charged twice: included says that another price covers {group}"
        for group in included
        for operation in COVERED.get(group, ())
        if f"{operation}_pj" in prices
    ]
    if "static" in included and "static" in content:
        twice.append("static would be charged twice: included says that another price covers it")
    return twice


def _size_problems(memory: Any) -> list[str]:
    if not isinstance(memory, Mapping):
        return []
    sizes, costs = memory.get("sizes_bytes"), memory.get("access_pj")
    if not _is_growing(sizes) or not isinstance(costs, list) or len(sizes) == len(costs):  # type: ignore[arg-type]
        return []
    return [f"memory.access_pj has {len(costs)} values for {len(sizes)} sizes_bytes"]  # type: ignore[arg-type]


def _time_problems(times: Any) -> list[str]:
    if not isinstance(times, Mapping):
        return [f"times = {times!r}: accepted is a table"]
    keys = [f"{one}_ns" for one in TIMES]
    problems = [f"times.{key} has no unit: write {key}_ns" for key in times if key in TIMES]
    named = {key: one for key, one in times.items() if key not in TIMES}
    problems += _key_problems(named, keys, "times.", optional=keys)
    wrong = [key for key, value in named.items() if not is_price(value)]
    return problems + [f"times.{key} = {times[key]!r}: accepted is {A_PRICE}, in ns" for key in wrong]


def is_price(value: Any) -> bool:
    """A number, or three that do not fall; none of them negative."""
    numbers = value if isinstance(value, list) else [value] * 3
    if len(numbers) != 3 or not all(_is_number(one) for one in numbers):
        return False
    return bool(0 <= numbers[0] <= numbers[1] <= numbers[2])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return bool(_is_number(value) and value > 0)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number_or_not_stated(value: Any) -> bool:
    return bool(value == NOT_STATED or _is_positive(value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(_is_text(one) for one in value)


def _is_growing(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(_is_number(one) and one >= 0 for one in value)
        and value == sorted(set(value))
    )


def _one_of(names: Iterable[str]) -> Accept:
    known = tuple(names)
    return known.__contains__, " or ".join(map(repr, known))


A_PRICE = "a number or [low, nominal, high], not negative"
TEXTS = ("name", "title", "scope", "evidence", "source", "covers")
LISTS = ("excludes", "included", "lower_bounds", "mapped")
NUMBERS = ("node_nm", "volt")
_TEXT: Accept = (_is_text, "a text")
_NUMBER: Accept = (_is_positive, "a number above 0")
_COUNT: Accept = (_is_count, "an integer above 0")
_STATED: Accept = (_is_number_or_not_stated, f"a number above 0 or {NOT_STATED!r}")
_RULES: Rules = {
    **dict.fromkeys((*TEXTS, "checked"), _TEXT),
    **dict.fromkeys(LISTS, (_is_text_list, "a list of texts")),
    **dict.fromkeys(NUMBERS, _STATED),
    "evidence": _one_of(EVIDENCE),
    "scope": _one_of(OPERATIONS),
}
_CONSTANT: Rules = {"pj": (is_price, A_PRICE), "evidence": _one_of(EVIDENCE), "source": _TEXT}
_MEMORY: Rules = {
    "word_bits": _COUNT,
    "sizes_bytes": (_is_growing, "a growing list of numbers"),
    "access_pj": (lambda value: isinstance(value, list) and all(map(_is_number, value)), "a list of numbers, in pJ"),
    "values": _one_of(("packed", "whole")),
    "value_bits": (lambda value: value == "model" or _is_count(value), "an integer above 0 or 'model'"),
    "event_bits": _COUNT,
    "fifo_entries": _COUNT,
    "scale": (is_price, A_PRICE),
    "evidence": _one_of(EVIDENCE),
    "source": _TEXT,
}
_STATIC: Rules = {"mw_per_chip": (is_price, A_PRICE), "volt": _STATED, "evidence": _one_of(EVIDENCE), "source": _TEXT}
_CAPACITY: Rules = {"activation_bits": _COUNT, "multiply_pj": _NUMBER}
_ANCHOR: Rules = {
    "network": _TEXT,
    "neurons": (lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_count, value)), "two counts"),
    "timesteps": _COUNT,
    "dynamic_mj": _NUMBER,
    "total_mj": _NUMBER,
    "source": _TEXT,
}
