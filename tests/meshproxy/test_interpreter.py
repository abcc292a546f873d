"""Which Pythons deserve a warning."""

from pathlib import Path

import pytest

from meshproxy.interpreter import CVES, PATCHED, advice

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
