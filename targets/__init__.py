"""One TOML per chip or format."""
