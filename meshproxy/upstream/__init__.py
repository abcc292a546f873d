"""The side that requests go to."""
