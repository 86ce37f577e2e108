"""The tree of errors: one base, an exit code each, near misses named."""

from __future__ import annotations

import pytest

from snnkd_deploy import errors
from snnkd_deploy.errors import LegalityError, SnnkdError, UnknownNameError


def every_error(kind: type[SnnkdError] = SnnkdError) -> list[type[SnnkdError]]:
    return [kind, *(one for child in kind.__subclasses__() for one in every_error(child))]


def test_the_tree_at_the_top_of_the_module_is_the_tree() -> None:
    drawn = [line.split() for line in str(errors.__doc__).splitlines() if "Error " in line]
    names = {next(word for word in line if word.endswith("Error")): line for line in drawn}
    for kind in every_error():
        assert kind.__name__ in names
        if kind is not SnnkdError:
            assert str(kind.exit_code) in names[kind.__name__]


def test_an_unknown_name_lists_what_is_known_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no target 'loihi9'; known: loihi, nir; did you mean 'loihi'?"):
        raise UnknownNameError("target", "loihi9", ["nir", "loihi"])


def test_a_refusal_lists_every_reason() -> None:
    error = LegalityError("tiny cannot run this network:", ["lif1: threshold", "pool2: none"])
    assert str(error).splitlines() == ["tiny cannot run this network:", "  - lif1: threshold", "  - pool2: none"]
    assert error.reasons == ("lif1: threshold", "pool2: none")
