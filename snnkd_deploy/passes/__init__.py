"""One file per pass; the order is in `compiler.PIPELINE`."""
