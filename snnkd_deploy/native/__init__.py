"""Integer networks run natively: `load` a graph or a file, `run` samples."""

from snnkd_deploy.native.runtime import Native, Watched, load

__all__ = ["Native", "Watched", "load"]
