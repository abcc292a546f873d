"""
The hot path compiled: the same Python, translated to C by mypyc when a wheel is built.

A build hook of hatchling, off unless somebody asks for it:

    HATCH_BUILD_HOOK_ENABLE_CUSTOM=true pip wheel --no-deps .     a wheel, for this Python
    make compiled                                                 the same, unpacked in build/compiled

Which modules are compiled stands in pyproject.toml.  Nothing is written beside the sources: a
compiled module there would be imported instead of the source that somebody has just changed.
"""

import shutil
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
        compile_all(self._modules(), Path(self.root), self._folder / "c", made)
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
            ["--config-file", "pyproject.toml", "--follow-imports", "silent", *modules],
            opt_level="3",
            debug_level="0",
            multi_file=True,  # a file each: two cores compile them in half the time
            target_dir=str(c),
        )
        distribution = Distribution({"name": "meshproxy", "ext_modules": extensions})
        command = build_ext(distribution)
        command.build_lib = str(made)
        command.build_temp = str(c / "objects")
        command.ensure_finalized()
        with ParallelCompile(default=0):
            command.run()
