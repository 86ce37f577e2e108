"""From a trained ANN to a proven neuromorphic deployment."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snnkd_deploy.deploy import compile  # noqa: A004

__version__ = "0.1.0"
__all__ = ["__version__", "compile"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """`compile` comes when it is asked for: importing the package alone stays light (PEP 562)."""
        if name == "compile":
            from snnkd_deploy import deploy

            return deploy.compile
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
