"""Names of workloads as people type them: in full, without the namespace, or nearly right."""

import difflib
from collections.abc import Collection

from control_plane.cli.errors import CommandError

NEAR = 0.7
"""Likeness, 0 to 1, from which on a name is taken to be a slip of the other."""


def qualified(name: str) -> str:
    """Return ``namespace/name``; the namespace `default` need not be typed."""
    return name if "/" in name else f"default/{name}"


def resolved(typed: str, known: Collection[str]) -> str:
    """
    Return the one of `known` that was meant.

    Raises:
        CommandError: None was; names the nearest.
    """
    name = qualified(typed)
    if name in known:
        return name
    if not known:
        raise CommandError(f"no proxy {typed!r}: the control plane knows no proxies yet")
    # Without what they share: `default/` alone makes any two names look alike.
    same = [one for one in known if qualified(one).partition("/")[0] == name.partition("/")[0]]
    short = {one.partition("/")[2]: one for one in same}
    near = [
        short[one]
        for one in difflib.get_close_matches(name.partition("/")[2], short, n=1, cutoff=NEAR)
    ]
    if near:
        raise CommandError(f"no proxy {typed!r}; did you mean {near[0]}?")
    raise CommandError(f"no proxy {typed!r}; there are {', '.join(sorted(known))}")
