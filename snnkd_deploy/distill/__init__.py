"""Distillation methods, one file per paper. A file that defines a `Method` with a name is found by lying here."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from snnkd_deploy.distill.method import Method, Setup
from snnkd_deploy.errors import ConfigError, UnknownNameError

__all__ = ["Method", "Setup", "create", "methods"]


def methods() -> Mapping[str, type[Method]]:
    """Every method in this folder by its name."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    classes = [value for module in modules for value in vars(module).values() if inspect.isclass(value)]
    return MappingProxyType({c.name: c for c in classes if issubclass(c, Method) and "name" in vars(c)})


def create(name: str, setup: Setup, **options: Any) -> Method:
    """The method of that name; its options are the keyword arguments of its class."""
    check(name, options)
    return methods()[name](setup, **options)


def check(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a method or an option that does not exist, or an option of the wrong type."""
    if name not in methods():
        raise UnknownNameError("method", name, methods())
    accepted = accepted_options(methods()[name])
    problems = [problem for key, value in options.items() if (problem := _problem(key, value, accepted))]
    if problems:
        raise ConfigError("\n".join(f"method {name!r}: {problem}" for problem in problems))


def accepted_options(method: type[Method]) -> dict[str, Any]:
    """The options of a method and their defaults."""
    parameters = inspect.signature(method).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _problem(key: str, value: Any, accepted: Mapping[str, Any]) -> str | None:
    if key not in accepted:
        near = difflib.get_close_matches(key, accepted, n=1)
        known = ", ".join(accepted) or "none"
        return f"no option {key!r}; accepted: {known}" + (f"; did you mean {near[0]!r}?" if near else "")
    default = accepted[key]
    kinds = (int, float) if type(default) is float else (type(default),)
    if default is not None and type(value) not in kinds:
        return f"{key} = {value!r}; {type(default).__name__} is needed (default {default!r})"
    return None
