"""From a trained ANN to a proven neuromorphic deployment."""

__version__ = "0.1.0"
