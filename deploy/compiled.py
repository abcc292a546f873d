"""
The hot path compiled: the same Python, translated to C by mypyc when a wheel is built.

A build hook of hatchling, off unless somebody asks for it:

    HATCH_BUILD_HOOK_ENABLE_CUSTOM=true pip wheel --no-deps .     a wheel, for this Python
    make compiled                                                 the same, unpacked in build/compiled

Which modules are compiled stands in pyproject.toml.  Nothing is written beside the sources: a
compiled module there would be imported instead of the source that somebody has just changed.
"""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Compile(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled modules to a wheel, beside their sources."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        self._folder = Path(tempfile.mkdtemp(prefix="meshproxy-compiled-"))
        made = self._folder / "made"
        try:
            compile_all(self._modules(), Path(self.root), self._folder / "c", made)
        except BaseException:  # mypyc ends by SystemExit, people by Ctrl-C
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for path in sorted(made.rglob("*.so")):
            build_data["force_include"][str(path)] = str(path.relative_to(made))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - the hook's shape
        if version != "editable":
            shutil.rmtree(self._folder, ignore_errors=True)

    def _modules(self) -> list[str]:
        """Return the sources that the configuration names, in order."""
        root = Path(self.root)
        found = {path for pattern in self.config["include"] for path in root.glob(pattern)}
        found -= {path for pattern in self.config["exclude"] for path in root.glob(pattern)}
        return sorted(str(path.relative_to(root)) for path in found)


def compile_all(modules: list[str], root: Path, c: Path, made: Path) -> None:
    """
    Compile modules together, so that they call one another without the interpreter.

    Args:
        modules: Sources, relative to `root`.
        root: The checkout; it is only read.
        c: Where the C goes.
        made: Where the extension modules go, as they are imported.
    """
    import contextlib

    from mypyc.build import mypycify
    from pybind11.setup_helpers import ParallelCompile
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    with contextlib.chdir(root):
        extensions = mypycify(
            [
                "--config-file",
                "pyproject.toml",
                "--follow-imports",
                "silent",
                "--cache-dir",
                os.devnull,
                *modules,
            ],
            opt_level=os.environ.get("MYPYC_OPT_LEVEL", "3"),
            debug_level="0",
            multi_file=True,  # a file each: two cores compile them in half the time
            target_dir=str(c),
        )
        sources = [Path(source) for extension in extensions for source in extension.sources]
        mended = [source for source in sources if mend_weak_references(source)]
        if not mended and sys.version_info < (3, 12):
            sys.exit("mypyc writes other C than was looked at: see mend_weak_references")
        distribution = Distribution({"name": "meshproxy", "ext_modules": extensions})
        command = build_ext(distribution)
        command.build_lib = str(made)
        command.build_temp = str(c / "objects")
        command.ensure_finalized()
        with ParallelCompile(default=0):
            command.run()


def mend_weak_references(source: Path) -> bool:
    """
    Let objects tell those who refer to them weakly that they are gone; say whether that was to be done.

    On Python 3.11, classes that descend from one that is not compiled (`Generic` is one), and
    functions within functions, can be referred to weakly.  But the C that mypyc writes takes the
    head of the list of these references for one that is the object's own: it shows it to the
    collector, and drops it in the end, so that the interpreter crashes, then or some time later.
    In truth nobody owns them, and who dies has to tell them; the collector does so by itself.
    """
    of_list = (
        r"\(\*\(\(PyObject \*\*\)\(\(char \*\)self \+ sizeof\(PyObject \*\) \+ sizeof\(\w+\)\)\)\);"
    )
    text = source.read_text()
    mended = re.sub(rf"Py_VISIT{of_list}", "", text)
    told = "if (Py_REFCNT(self) == 0) PyObject_ClearWeakRefs((PyObject *)self);"
    mended = re.sub(rf"Py_CLEAR{of_list}", told, mended)
    if mended == text:
        return False
    source.write_text(mended)
    return True
