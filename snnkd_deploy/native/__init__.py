"""Integer networks run natively: `load` a graph or a file, `run` samples."""

from snnkd_deploy.native.runtime import Native, Wanted, Watched, load

__all__ = ["Native", "Wanted", "Watched", "load"]
