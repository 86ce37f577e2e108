"""Networks that were not made here: code, weights and .nir files in; graphs, and what became of each part, out."""
