"""
The Python that runs us: which patch levels have known holes that concern a proxy, and what the C library
below it is to be told.

Mutual TLS is the interpreter's own `ssl` module, so its holes are ours.  An old patch level still
works, and many machines have no other; so it is a warning at start-up, not a refusal.  Who starts
many processes of ours says it once, and tells them so by a variable of their environment.

A proxy copies much, in pieces of 16 to 256 KiB.  From 2 KiB on glibc does that by `rep movsb`, which on
AMD's Zen 3 and 4 takes up to ten times as long as vector registers do, depending on where source and
target lie within their pages (glibc bug 30994, mended in 2.39).  And OpenSSL allocates some hundred small
pieces for a handshake, of which malloc keeps seven of a size at hand.  Both are decided before anything
of ours runs, so whoever starts a sidecar has to say it: `environment`.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Final

SAID: Final = "MESHPROXY_PYTHON_IS_KNOWN"
"""Variable of the environment: whoever is responsible has been told."""

CVES: Final = "CVE-2026-19445, CVE-2026-19553"

PATCHED: Final = {(3, 11): 17, (3, 12): 15, (3, 13): 16, (3, 14): 8}
"""Minor version → the first patch level in which the `ssl` module's holes are mended."""

_TUNABLES: Final = "GLIBC_TUNABLES"
_TOLD: Final = {"glibc.cpu.x86_rep_movsb_threshold": 1 << 30, "glibc.malloc.tcache_count": 64}


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """
    Return the environment for a sidecar: as `given`, and what the C library is to be told.

    What somebody has said of that already stays.  Other processors and libraries do not know the names,
    and ignore them.
    """
    said = given.get(_TUNABLES, "")
    ours = [f"{name}={value}" for name, value in _TOLD.items() if f"{name}=" not in said]
    return {**given, _TUNABLES: ":".join([said] * bool(said) + ours)}


def stand_in(name: str, **attributes: object) -> ModuleType:
    """Return a module with these in it; what somebody else wants of it is in the real one, which is then loaded."""

    def lacking(attribute: str) -> Any:
        if attribute.startswith("__"):  # the import system asks for such, of every module
            raise AttributeError(attribute)
        sys.modules.pop(name, None)
        return getattr(importlib.import_module(name), attribute)

    module = ModuleType(name)
    vars(module).update(attributes, __getattr__=lacking)  # PEP 562
    return module


@contextlib.contextmanager
def standing_in(name: str, instead: ModuleType | None) -> Iterator[None]:
    """
    Let `instead` be what is imported as `name`, for as long as this lasts; None: there is no such module.

    What our libraries load and we have no use for takes milliseconds of each start.  Where it has been
    loaded already, it stays.
    """
    modules: dict[str, Any] = sys.modules
    if name in modules:
        yield
        return
    modules[name] = instead
    try:
        yield
    finally:
        if name in modules and modules[name] is instead:
            del modules[name]


def import_argparse() -> None:
    """Load argparse without translations of its messages, for which it would load `gettext`."""
    english = stand_in(
        "gettext",
        gettext=lambda message: message,
        ngettext=lambda one, many, count: one if count == 1 else many,
    )
    with standing_in("gettext", english):
        import argparse  # noqa: F401


def import_msgspec() -> None:
    """
    Load msgspec without two modules.

    It prefers `typing_extensions` to `typing` wherever that is installed; what it wants of it, `typing` has
    had since Python 3.11.  And it loads `uuid`, which asks `platform` for the name of the system.
    """
    system = stand_in("platform", system=lambda: os.uname().sysname)
    with standing_in("typing_extensions", None), standing_in("platform", system):
        import msgspec  # noqa: F401


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
