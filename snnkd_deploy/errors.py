"""Every error that this package raises on purpose.

    SnnkdError                    exit code
    |-- ConfigError               2   an option or configuration file says something that is not accepted
    |   `-- UnknownNameError      2   no data set, model, method, engine or target has that name
    |-- InputError                3   a file that was asked for is missing, damaged or of another kind
    |   |-- DataError             3   a data set cannot be read
    |   |-- RunError              3   a run directory is missing, unfinished, damaged or in use
    |   `-- BundleError           3   an exported bundle or report is missing, damaged or of another version
    |-- RefusedError              4   this network cannot be expressed; holds every reason
    |   |-- TraceError            4   the model holds something the tracer does not know
    |   |-- GraphError            4   a graph breaks a rule of its stage
    |   `-- LegalityError         4   the target cannot hold this network
    |-- ProofError                5   a written file does not compute what the simulator computes
    |-- RuntimeMissingError       6   the program that would run a file is not installed or did not answer
    `-- StorageError              7   the disk refused: full, read-only, no permission

Code 1 is left to bugs, 130 to an interrupt from the keyboard.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SnnkdError(Exception):
    """Any refusal of this package; the command line prints it as one message."""

    exit_code = 1


class ConfigError(SnnkdError):
    """An option or a configuration file says something that is not accepted."""

    exit_code = 2


class UnknownNameError(ConfigError):
    """No data set, model, method, engine or target has that name."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        message = f"no {kind} {name!r}; known: {', '.join(names)}"
        if near:
            message += f"; did you mean {near[0]!r}?"
        super().__init__(message + (f" ({hint})" if hint else ""))


class InputError(SnnkdError):
    """A file that was asked for is missing, damaged or of another kind."""

    exit_code = 3


class DataError(InputError):
    """A data set cannot be read."""


class RunError(InputError):
    """A run directory is missing, unfinished, damaged or in use."""


class BundleError(InputError):
    """An exported bundle or a report is missing, damaged or of another version."""


class RefusedError(SnnkdError):
    """This network cannot be expressed; `reasons` lists why, all at once."""

    exit_code = 4

    def __init__(self, heading: str, reasons: Iterable[str] = ()) -> None:
        self.reasons = tuple(reasons)
        super().__init__("\n".join([heading, *(f"  - {reason}" for reason in self.reasons)]))


class TraceError(RefusedError):
    """The model holds something that the tracer does not know."""


class GraphError(RefusedError):
    """A graph breaks a rule of its stage."""


class LegalityError(RefusedError):
    """The target cannot hold this network."""


class ProofError(SnnkdError):
    """A written file does not compute what the simulator computes."""

    exit_code = 5


class RuntimeMissingError(SnnkdError):
    """The program that would run a file is not installed or did not answer."""

    exit_code = 6


class StorageError(SnnkdError):
    """The disk refused: full, read-only, no permission."""

    exit_code = 7
