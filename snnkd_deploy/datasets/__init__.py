"""Data sets, one module per family of files: from a folder to plain arrays."""
