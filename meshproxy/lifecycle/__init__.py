"""Processes that work together: hot restart (one after another) and workers (side by side)."""
