"""Side-by-side measurements: trust ratios of one interleaved run, never absolute times."""
