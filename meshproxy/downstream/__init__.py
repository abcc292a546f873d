"""The side that requests come from."""
