"""Names of workloads as people type them: in full, without the namespace, or nearly right."""

import difflib
from collections.abc import Collection

from control_plane.cli.errors import CommandError


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
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        raise CommandError(f"no proxy {typed!r}; did you mean {near[0]}?")
    raise CommandError(f"no proxy {typed!r}; there are {', '.join(sorted(known))}")
