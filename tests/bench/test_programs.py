"""Programs are found, or it is said how to get them."""

from pathlib import Path

import pytest

from bench.programs import HOW, MissingError, find, version


def program(folder: Path, name: str, said: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{said}'\n")
    path.chmod(0o755)
    return path


def test_a_missing_program_is_named_with_how_to_get_it() -> None:
    """Nothing is skipped silently."""
    with pytest.raises(MissingError, match=r"envoy is not installed \(make bench installs it"):
        find("envoy", Path("/no/such/envoy"))


@pytest.mark.parametrize("name", HOW)
def test_every_program_has_a_way_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked for can be explained where it is missing."""
    monkeypatch.setattr("bench.programs._PLACES", "/no/such/folder")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingError) as caught:
        find(name)
    assert HOW[name] in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said", "number"),
    [
        ("envoy", "/usr/lib/python3.11/envoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL", "1.40.0"),
        ("haproxy", "HAProxy version 2.6.12-1+deb12u4 2026/10/17", "2.6.12"),
        ("nginx", "nginx version: nginx/1.22.1", "1.22.1"),
        ("nghttpx", "nghttpx nghttp2/1.52.0", "1.52.0"),
        ("wrk", "wrk debian/4.1.0-3+b2 [epoll]", "4.1.0"),
        ("h2load", "it does not say", "unknown"),
    ],
)  # fmt: skip
def test_versions(tmp_path: Path, name: str, said: str, number: str) -> None:
    """Each says it in a way of its own."""
    assert version(str(program(tmp_path, name, said)), name) == number
