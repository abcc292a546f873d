"""The house rules that a machine can check: arrows, no I/O in the inner ring, tests that mirror code."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each room may import the rooms before it (and itself).  `words` are single files.
# fmt: off
RINGS = (
    (
        "message", "refusal", "contract", "backoff", "confinement", "descriptors", "interpreter",
        "log_writer", "malloc", "native", "one_line", "private_file",
    ),
    ("codec", "routing", "policies"),
    ("local_reply",),
    ("hedge", "mirror"),
    ("exchange", "neighbours", "relay"),
    ("flow", "multiplex", "tunnel", "tcp", "lane", "identity", "timer_wheel"),
    ("telemetry",),
    ("upstream", "downstream"),
    ("config",),
    ("admin", "traffic"),
    ("lifecycle",),
    ("proxy",),
    ("interception",),
    ("__main__",),
)
# fmt: on
INNER = (
    "message",
    "refusal",
    "contract",
    "codec",
    "routing",
    "policies",
    "local_reply",
    "hedge",
    "mirror",
    "neighbours",
    "exchange",
    "relay",
)
FORBIDDEN_INSIDE = {
    "asyncio",
    "socket",
    "ssl",
    "time",
    "uvloop",
    "aiohttp",
    "selectors",
    "threading",
}
# What the control plane may import of meshproxy besides the inner ring: leaves that both need.
SHARED = ("backoff", "confinement", "interpreter", "one_line", "private_file", "__version__")
# Prose only, or a program that its integration test runs.
NEEDS_NO_TEST_FILE = {"__init__.py", "__main__.py"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """Return the absolute names of all modules that `path` imports, also inside functions."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room(module: str) -> str | None:
    """Return the room of `meshproxy` that a module lives in, or None for other packages."""
    parts = module.split(".")
    return parts[1] if parts[0] == "meshproxy" and len(parts) > 1 else None


@pytest.mark.parametrize("path", sources("meshproxy"), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_one_way(path: Path) -> None:
    """A room imports only rooms of its own ring or of rings before it; policies stay strangers."""
    rings = {name: index for index, ring in enumerate(RINGS) for name in ring}
    here = path.relative_to(ROOT / "meshproxy").parts[0].removesuffix(".py")
    if here == "__init__":
        return
    for module in imports(path):
        assert not module.startswith("control_plane"), f"{path} imports {module}"
        there = room(module)
        if there is None or there not in rings:
            continue
        assert rings[there] <= rings[here], f"{path} imports {module}: the arrow points backwards"
        if here == there == "policies":
            # A package is one policy in several files.
            own = path.relative_to(ROOT / "meshproxy" / "policies").parts[0].removesuffix(".py")
            policy = module.split(".")[2:3]
            assert policy in ([], [own]), f"{path} knows another policy: {module}"


@pytest.mark.parametrize(
    "path",
    [p for p in sources("meshproxy") if p.relative_to(ROOT / "meshproxy").parts[0].removesuffix(".py") in INNER],
    ids=lambda p: str(p.relative_to(ROOT)),
)  # fmt: skip
def test_inner_ring_does_no_io_and_reads_no_clock(path: Path) -> None:
    """Time is an argument and bytes are handed in: nothing in the inner ring needs a sleep or a mock."""
    assert not FORBIDDEN_INSIDE & {module.split(".")[0] for module in imports(path)}


@pytest.mark.parametrize("path", sources("control_plane"), ids=lambda p: str(p.relative_to(ROOT)))
def test_control_plane_sees_only_the_contract(path: Path) -> None:
    """
    Of meshproxy, the control plane knows the contract and the inner ring, nothing that does I/O;
    but both keep secrets in files and write logs, in one way.
    """
    for module in imports(path):
        there = room(module)
        assert there is None or there in (*INNER, *SHARED), f"{path} imports {module}"


@pytest.mark.parametrize(
    "path", [*sources("meshproxy"), *sources("control_plane")], ids=lambda p: str(p.relative_to(ROOT))
)  # fmt: skip
def test_every_source_file_has_its_test_file(path: Path) -> None:
    """`meshproxy/routing/table.py` is tested by `tests/meshproxy/routing/test_table.py`."""
    if path.name in NEEDS_NO_TEST_FILE or "configs" in path.parts:  # a wheel has the examples here
        return
    relative = path.relative_to(ROOT)
    mirror = ROOT / "tests" / relative.parent / f"test_{relative.name}"
    assert mirror.exists(), f"{relative} has no {mirror.relative_to(ROOT)}"


@pytest.mark.parametrize("path", sources("meshproxy"), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_possessive_quantifier_on_a_group(path: Path) -> None:
    """CPython 3.11.2 (Debian 12) takes `(?:…)*+` wrongly: it accepts an iteration that half matched."""
    assert not re.search(r"\)[*+?]\+", path.read_text()), "use a plain quantifier"
