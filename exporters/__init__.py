"""One module per file format; found because it lies here."""
