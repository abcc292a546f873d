"""
The Python that runs us: which patch levels have known holes that concern a proxy.

Mutual TLS is the interpreter's own `ssl` module, so its holes are ours.  An old patch level still
works, and many machines have no other; so it is a warning at start-up, not a refusal.  Who starts
many processes of ours says it once, and tells them so by a variable of their environment.
"""

from typing import Final

SAID: Final = "MESHPROXY_PYTHON_IS_KNOWN"
"""Variable of the environment: whoever is responsible has been told."""

CVES: Final = "CVE-2026-19445, CVE-2026-19553"

PATCHED: Final = {(3, 11): 17, (3, 12): 15, (3, 13): 16, (3, 14): 8}
"""Minor version → the first patch level in which the `ssl` module's holes are mended."""


def advice(version: tuple[int, int, int]) -> str | None:
    """Return a sentence for the log when this version of Python should be updated."""
    major, minor, patch = version
    patched = PATCHED.get((major, minor))
    if patched is None or patch >= patched:
        return None
    return (
        f"Python {major}.{minor}.{patch} has known holes in its ssl module ({CVES}): "
        f"update to {major}.{minor}.{patched} or newer"
    )
