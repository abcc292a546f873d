"""Which Pythons deserve a warning."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from meshproxy.interpreter import CVES, PATCHED, advice, environment, stand_in, standing_in

COPIES = f"glibc.cpu.x86_rep_movsb_threshold={1 << 30}"
CACHE = "glibc.malloc.tcache_count=64"

README = Path(__file__).parent.parent.parent / "README.md"


@pytest.mark.parametrize(
    ("version", "update_to"),
    [((3, 11, 16), "3.11.17"), ((3, 12, 0), "3.12.15"), ((3, 13, 15), "3.13.16"), ((3, 14, 7), "3.14.8")],
)  # fmt: skip
def test_an_old_patch_level_is_told_what_to_do(
    version: tuple[int, int, int], update_to: str
) -> None:
    """One sentence: what runs, what is wrong with it, what to update to."""
    said = advice(version)
    assert said is not None
    assert ".".join(map(str, version)) in said
    assert CVES in said
    assert said.endswith(f"update to {update_to} or newer")


@pytest.mark.parametrize("version", [(3, 11, 17), (3, 12, 20), (3, 13, 16), (3, 14, 8), (3, 15, 0)])
def test_a_mended_one_is_told_nothing(version: tuple[int, int, int]) -> None:
    """Nor is one that is newer than what we know."""
    assert advice(version) is None


def test_the_readme_names_the_same_levels() -> None:
    """Whoever installs Python reads there which."""
    text = README.read_text()
    for (major, minor), patch in PATCHED.items():
        assert f"{major}.{minor}.{patch}" in text
    assert all(cve in text for cve in CVES.split(", "))


@pytest.mark.parametrize(
    ("said", "then"),
    [
        (None, f"{COPIES}:{CACHE}"),
        ("glibc.malloc.arena_max=1", f"glibc.malloc.arena_max=1:{COPIES}:{CACHE}"),
        (
            "glibc.cpu.x86_rep_movsb_threshold=4096",
            f"glibc.cpu.x86_rep_movsb_threshold=4096:{CACHE}",
        ),
        (f"{CACHE}:{COPIES}", f"{CACHE}:{COPIES}"),
    ],
)
def test_what_a_sidecar_is_started_with(said: str | None, then: str) -> None:
    """Large copies by vector registers, more small pieces at hand; what an operator has said stays."""
    given = {"PATH": "/bin"} | ({} if said is None else {"GLIBC_TUNABLES": said})
    before = dict(given)
    assert environment(given) == {"PATH": "/bin", "GLIBC_TUNABLES": then}
    assert given == before


def test_the_c_library_takes_it() -> None:
    """A program starts with it as without; no complaint about a name or a value."""
    said = subprocess.run(
        [sys.executable, "-c", "print(len(bytes(1 << 20)[1:]))"],
        env=environment({}),
        capture_output=True,
        check=True,
        text=True,
    )
    assert (said.stdout, said.stderr) == ("1048575\n", "")


def test_who_stands_in_does_so_for_a_while() -> None:
    """What is loaded already stays; what was not is as it was, whatever has happened in between."""
    little = stand_in("meshproxy_there_is_none", answer=42)
    with standing_in("meshproxy_there_is_none", little):
        import meshproxy_there_is_none  # type: ignore[import-not-found]

        assert meshproxy_there_is_none is little
    assert "meshproxy_there_is_none" not in sys.modules
    assert "this" not in sys.modules
    with pytest.raises(ImportError), standing_in("this", None):
        importlib.import_module("this")  # there is such a module, otherwise
    assert "this" not in sys.modules
    with standing_in("sys", None):
        assert sys.modules["sys"] is sys


def test_what_a_stand_in_lacks_is_found_where_it_always_was() -> None:
    """A library may want more, one day."""
    program = (
        "import sys; from meshproxy.interpreter import stand_in, standing_in\n"
        "with standing_in('colorsys', stand_in('colorsys', ONE_THIRD='ours')):\n"
        "    from colorsys import ONE_THIRD, ONE_SIXTH\n"
        "import colorsys\n"
        "print(ONE_THIRD, ONE_SIXTH == colorsys.ONE_SIXTH, colorsys.ONE_THIRD == 1 / 3)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
    assert done.stdout.split() == ["ours", "True", "True"]


@pytest.mark.parametrize("loading", ["import_argparse", "import_msgspec"])
def test_what_is_loaded_without_some_modules_works_without_them(loading: str) -> None:
    """In a process of its own: here, all of them have been loaded."""
    program = (
        f"from meshproxy import interpreter; interpreter.{loading}()\n"
        "import sys; before = set(sys.modules)\n"
        "import argparse, msgspec, uuid\n"
        "parser = argparse.ArgumentParser(prog='it')\n"
        "parser.add_argument('--there', nargs=2)\n"
        "class One(msgspec.Struct): id: uuid.UUID\n"
        "one = One(uuid.UUID(int=7))\n"
        "assert msgspec.json.decode(msgspec.json.encode(one), type=One) == one\n"
        "assert {'gettext', 'platform', 'typing_extensions'}.isdisjoint(before)\n"
        "import gettext, platform\n"
        "assert platform.python_version() and gettext.gettext('x') == 'x'\n"
        "parser.parse_args(['--there', 'it is'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert done.stderr.splitlines()[-1] == "it: error: argument --there: expected 2 arguments"  # fmt: skip
    assert done.returncode == 2
