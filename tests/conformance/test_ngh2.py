"""Which nghttp2 we run on: ngh2 does not say, so the versions that were looked at are listed."""

from importlib.metadata import version

VENDORED = {"0.3.0": "1.70.0"}
"""ngh2 → nghttp2, as its source says in `vendor/nghttp2/configure.ac`."""

FIRST_SAFE = (1, 68, 1)
"""Below, a peer could end the process (CVE-2026-27135)."""


def test_the_bundled_nghttp2_is_a_safe_one() -> None:
    """A new ngh2 is looked at before it is used; see docs/dependencies.md."""
    assert version("ngh2") in VENDORED, "look at its source, then add it here and in the docs"
    assert tuple(map(int, VENDORED[version("ngh2")].split("."))) >= FIRST_SAFE
