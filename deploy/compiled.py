"""
The hot path compiled: the same Python, translated to C by mypyc when a wheel is built.

A build hook of hatchling, off unless somebody asks for it:

    HATCH_BUILD_HOOK_ENABLE_CUSTOM=true pip wheel --no-deps .     a wheel, for this Python
    make compiled                                                 the same, unpacked in build/compiled

Which modules are compiled stands in pyproject.toml.  Nothing is written beside the sources: a
compiled module there would be imported instead of the source that somebody has just changed.

With GCC it is compiled twice: first so that it counts which ways are taken, while `bench.training`
sends requests through it; then by what was counted.  That saves a tenth of the time of a request, a
fifth where requests are few, for what is hardly ever used no longer lies between what always is.
``MYPYC_OPT_LEVEL`` other than 3 is without.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FASTEST = "3"
# Nobody calls us by name, and nothing is thrown through C: both would be a megabyte of tables.
_SMALL = ("-fvisibility=hidden", "-fno-asynchronous-unwind-tables")
# The interpreter's functions, of which a request needs a thousand, are called by one jump, not two.
_DIRECT = ("-fno-plt",)
# Two passes of GCC 12 lose the counts of what they copy, so that what every request passes was taken
# for what none does, and laid out of the way with it.  What counts must be without them, too.
_FAITHFUL = ("-fno-tracer", "-fno-thread-jumps")
# Half a megabyte of addresses, which the loader writes, in a thirtieth of the room; old ones cannot.
_PACKED = ("-Wl,-z,pack-relative-relocs",)
_PACKED_SINCE = ("glibc", (2, 36))
_COUNTING = ("-fprofile-generate", *_FAITHFUL)
# Several processes are counted, each with threads; what was never reached has no counts at all.
_BY_COUNTS = ("-fprofile-use", "-fprofile-correction", "-Wno-missing-profile", *_FAITHFUL)


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
    level = os.environ.get("MYPYC_OPT_LEVEL", FASTEST)
    extensions = translate(modules, root, c, level)
    flags: Sequence[str] = ()
    if level != FASTEST:
        pass
    elif not is_gcc():
        print("Compiled without training: that takes GCC.", file=sys.stderr)
    else:
        trial = c.parent / "trial"
        build(extensions, c, trial, _COUNTING)
        train(root, trial)
        flags = _BY_COUNTS
    build(extensions, c, made, flags)


def translate(modules: list[str], root: Path, c: Path, level: str) -> list[Any]:
    """Write the C of modules; return the extension modules that setuptools makes of it."""
    import contextlib

    from mypyc.build import mypycify

    with contextlib.chdir(root):
        extensions: list[Any] = mypycify(
            [
                "--config-file",
                "pyproject.toml",
                "--follow-imports",
                "silent",
                "--cache-dir",
                os.devnull,
                *modules,
            ],
            opt_level=level,
            debug_level="0",
            multi_file=True,  # a file each: two cores compile them in half the time
            target_dir=str(c),
        )
    sources = [Path(source) for extension in extensions for source in extension.sources]
    mended = [source for source in sources if mend_weak_references(source)]
    if not mended and sys.version_info < (3, 12):
        sys.exit("mypyc writes other C than was looked at: see mend_weak_references")
    return extensions


def build(extensions: list[Any], c: Path, made: Path, flags: Sequence[str]) -> None:
    """Compile the C into `made`; its objects, and what they count, are always in the same place."""
    from pybind11.setup_helpers import ParallelCompile
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    usual = [(one.extra_compile_args, one.extra_link_args) for one in extensions]
    for one in extensions:
        one.extra_compile_args = [*one.extra_compile_args, *_SMALL, *_DIRECT, *flags]
        one.extra_link_args = [*one.extra_link_args, *(_PACKED if is_packed() else ()), *flags]
    command = build_ext(Distribution({"name": "meshproxy", "ext_modules": extensions}))
    command.build_lib = str(made)
    command.build_temp = str(c / "objects")
    command.ensure_finalized()
    with ParallelCompile(default=0):
        command.run()
    for one, (of_compiler, of_linker) in zip(extensions, usual, strict=True):
        one.extra_compile_args, one.extra_link_args = of_compiler, of_linker


def is_packed() -> bool:
    """Say whether the loader of this machine reads packed relocations."""
    library, version = platform.libc_ver()
    wanted, since = _PACKED_SINCE
    return library == wanted and tuple(map(int, version.split(".")[:2])) >= since


def is_gcc() -> bool:
    """Say whether C is compiled by GCC; others keep their counts in other files."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    said = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False)
    return "Free Software Foundation" in said.stdout


def train(root: Path, trial: Path) -> None:
    """Send requests through what counts, which lies in `trial`; what was counted goes to its objects."""
    for folder in ("meshproxy", "control_plane", "configs", "bench"):
        shutil.copytree(
            root / folder, trial / folder, dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__", "*.so"),
        )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(trial)}
    done = subprocess.run(
        [sys.executable, "-m", "bench.training"], cwd=trial, env=environment, check=False
    )
    if done.returncode:
        sys.exit("The training failed (see above). MYPYC_OPT_LEVEL=2 compiles without.")


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
