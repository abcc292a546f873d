"""The machine and the interpreter: what decides over more of the figures than one might think."""

import os
import platform
import ssl
import sys
import sysconfig

from . import tree


def pgo() -> bool | None:
    """Say whether the interpreter is a profile-guided build; None where it does not say."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS"))
    if "--enable-optimizations" in arguments or "-fprofile-use" in arguments:
        return True
    # Debian's and Ubuntu's packages are, by rules of their own, and do not say so here.
    return None if sys.base_prefix == "/usr" else False


def facts() -> dict[str, str]:
    built = {True: "yes", False: "no", None: "not stated (the system's package: yes)"}[pgo()]
    return {
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "pgo": built,
        "openssl": ssl.OPENSSL_VERSION,
        "meshproxy": "compiled" if tree.state() == "compiled" else "interpreted",
    }


def warnings() -> list[str]:
    """What whoever reads the figures should know before."""
    found = []
    if pgo() is False:
        better = (
            "with one (Debian's, the official images') meshproxy takes a quarter less CPU or so"
        )
        found.append(f"{sys.executable} is no PGO build: {better}.")
    if tree.state() == "stale":
        found.append(
            "What is compiled is older than the sources, which are measured instead: make compiled."
        )
    return found
