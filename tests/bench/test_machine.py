"""What is said of machine and interpreter."""

from bench.machine import facts, pgo, warnings


def test_facts_name_what_decides() -> None:
    """Cores, kernel, Python and how it was built, OpenSSL."""
    found = facts()
    assert set(found) == {"cores", "kernel", "python", "pgo", "openssl", "meshproxy"}
    assert found["openssl"].startswith("OpenSSL")


def test_a_slow_interpreter_is_warned_of() -> None:
    """Exactly where the build is known not to be profile-guided."""
    assert any("no PGO build" in one for one in warnings()) == (pgo() is False)
