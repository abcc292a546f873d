import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.contract import wire
from meshproxy.contract.matching import MatchSpec, PathMatchSpec
from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    TrustSpec,
    VirtualHostSpec,
)
from meshproxy.contract.wire import ContractError

# Snapshots are large: fewer of them, and however long a busy machine takes for one.
thrifty = settings(max_examples=40, deadline=None)

names = st.text(min_size=1, max_size=8)
ports = st.integers(1, 65535)
paths = st.builds(PathMatchSpec, type=st.sampled_from(["exact", "prefix", "regex"]), value=names)
backends = st.builds(BackendSpec, cluster=st.none() | names, weight=st.integers(0, 1_000_000))
routes = st.builds(
    RouteSpec,
    name=names,
    match=st.builds(MatchSpec, path=st.none() | paths, method=st.none() | names),
    backends=st.lists(backends, max_size=2).map(tuple),
)
hosts = st.builds(
    VirtualHostSpec,
    name=names,
    domains=st.lists(names, max_size=2).map(tuple),
    routes=st.lists(routes, max_size=2).map(tuple),
)
clusters = st.builds(ClusterSpec, name=names, mtls=st.booleans())
endpoints = st.builds(
    EndpointsSpec,
    cluster=names,
    endpoints=st.lists(st.builds(EndpointSpec, address=names, port=ports), max_size=2).map(tuple),
)
listeners = st.builds(
    ListenerSpec,
    name=names,
    direction=st.sampled_from(["inbound", "outbound"]),
    address=names,
    port=ports,
)
trust = st.builds(TrustSpec, trust_domain=names, roots=st.lists(names, max_size=2).map(tuple))


def section(of: st.SearchStrategy[Any], key: str) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=3, unique_by=lambda r: getattr(r, key)).map(tuple)


snapshots = st.builds(
    Snapshot,
    version=st.text(max_size=3),
    listeners=section(listeners, "name"),
    virtual_hosts=section(hosts, "name"),
    clusters=section(clusters, "name"),
    endpoints=section(endpoints, "cluster"),
    trust=section(trust, "trust_domain"),
)


# There and back -----------------------------------------------------------------------------------


@thrifty
@given(snapshots)
def test_what_is_encoded_is_decoded(snapshot: Snapshot) -> None:
    """Equal in content and, encoded again, in bytes."""
    data = wire.encode(snapshot)
    decoded = wire.decode(data, Snapshot)
    assert decoded == snapshot
    assert wire.encode(decoded) == data


@thrifty
@given(snapshots)
def test_plain_data_is_converted_like_json(snapshot: Snapshot) -> None:
    """YAML and JSON go through the same checks."""
    assert wire.convert(msgspec.to_builtins(snapshot), Snapshot) == snapshot


@settings(deadline=None)
@given(st.dictionaries(names, st.integers(), min_size=2), st.integers())
def test_the_order_of_keys_does_not_matter(content: dict[str, int], seed: int) -> None:
    """Equal values give equal bytes, however they came about."""
    items = list(content.items())
    random.Random(seed).shuffle(items)
    assert wire.encode(dict(items)) == wire.encode(content)


def test_keys_may_be_numbers() -> None:
    """Ports are; in JSON they become text, and come back as numbers."""
    ports = {443: 40001, 80: 40002}
    assert wire.encode(ports) == b'{"443":40001,"80":40002}'
    assert wire.encode(dict(reversed(ports.items()))) == wire.encode(ports)
    assert wire.decode(wire.encode(ports), dict[int, int]) == ports


def test_what_json_cannot_say_is_a_mistake_of_ours() -> None:
    """Not something to be turned into text in silence."""
    with pytest.raises(TypeError):
        wire.encode(object())


def test_defaults_are_not_sent() -> None:
    """A new field with a default changes no version of what does not use it."""
    assert wire.encode(ClusterSpec(name="a", mtls=False)) == b'{"name":"a"}'


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "path", "reason"),
    [
        ({"clustesr": []}, "", "Object contains unknown field `clustesr`, did you mean `clusters`?"),
        ({"clusters": [{"name": "a", "wire": 1}]}, "clusters[0]", "`wire`, expected one of name, "),
        (
            {"listeners": [{"name": "a", "direction": "in", "address": "b", "port": 1}]},
            "listeners[0].direction",
            "Invalid enum value 'in', expected one of inbound, outbound",
        ),
        (
            {"virtual_hosts": [{"name": "a", "routes": [{"name": "b", "redirect": {"status": 999}}]}]},
            "virtual_hosts[0].routes[0].redirect.status",
            "Invalid enum value 999, expected one of 301, 302, 303, 307, 308",
        ),
        (
            {"virtual_hosts": [{"name": "a", "routes": [{"name": "b", "match": {"pat": 1}}]}]},
            "virtual_hosts[0].routes[0].match",
            "did you mean `path`?",
        ),
    ],
)  # fmt: skip
def test_an_unknown_name_is_told_the_known_ones(data: Any, path: str, reason: str) -> None:
    """A slip is mended with one look; the path is what it always was."""
    with pytest.raises(ContractError) as caught:
        wire.convert(data, Snapshot)
    assert caught.value.path == path
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("data", "path", "reason"),
    [
        (b"", "", "truncated"),
        (b"{", "", "truncated"),
        (b'{"name": "a"} x', "", "malformed"),
        (b"[]", "", "Expected `object`, got `array`"),
        (b"{}", "", "missing required field `name`"),
        (b'{"name": ""}', "name", "length >= 1"),
        (b'{"name": "a", "routs": []}', "", "unknown field `routs`"),
        (b'{"name": "a", "routes": [{"name": "b", "x": 1}]}', "routes[0]", "unknown field `x`"),
        (
            b'{"name": "a", "routes": [{"name": "b"}, {"name": "c", "backends": [{}]}]}',
            "routes[1].backends[0]",
            "missing required field `cluster`",
        ),
        (
            b'{"name": "a", "routes": [{"name": "b", "match": {"path": {"type": "glob"}}}]}',
            "routes[0].match.path.type",
            "Invalid enum value 'glob'",
        ),
        (
            b'{"name": "a", "routes": [{"name": "b", "backends": [{"weight": "ten"}]}]}',
            "routes[0].backends[0].weight",
            "Expected `int`, got `str`",
        ),
        (
            b'{"name": "a", "routes": [{"name": "b", "backends": [{"weight": -1}]}]}',
            "routes[0].backends[0].weight",
            ">= 0",
        ),
        (b'{"name": "\xff"}', "", "utf-8"),
        (b"[" * 100_000, "", ""),
    ],
)
def test_errors_say_where_and_what(data: bytes, path: str, reason: str) -> None:
    """Path and reason apart, so that each reader can put them where they belong."""
    with pytest.raises(ContractError) as caught:
        wire.decode(data, VirtualHostSpec)
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert str(caught.value) == (f"{path}: {caught.value.reason}" if path else caught.value.reason)


def test_an_error_in_a_key_says_where() -> None:
    """Maps have values and keys; both can be wrong."""
    with pytest.raises(ContractError) as caught:
        wire.decode(b'{"a": {"x": 1}}', dict[str, dict[int, int]])
    assert caught.value.path == "[...]"
    assert caught.value.reason == "Expected `int`, got `str`"


@settings(deadline=None)
@given(st.binary(max_size=40) | st.text(max_size=40))
def test_garbage_is_refused_and_nothing_else_happens(data: bytes | str) -> None:
    """Whatever a peer sends, the only exception is the one that readers expect."""
    with pytest.raises(ContractError):
        wire.decode(data, TrustSpec)


@thrifty
@given(snapshots, st.data())
def test_a_damaged_message_is_refused_or_still_a_snapshot(
    snapshot: Snapshot, data: st.DataObject
) -> None:
    """One byte changed in transit or on disk never raises anything but ContractError."""
    message = bytearray(wire.encode(snapshot))
    index = data.draw(st.integers(0, len(message) - 1))
    message[index] = data.draw(st.integers(0, 255))
    try:
        decoded = wire.decode(bytes(message), Snapshot)
    except ContractError:
        return
    assert isinstance(decoded, Snapshot)


@pytest.mark.parametrize("value", [None, [], 7, {"name": "a", "mtls": "yes"}, {1: 2}])
def test_conversion_is_strict(value: Any) -> None:
    """No number becomes text, no text becomes a truth value."""
    with pytest.raises(ContractError):
        wire.convert(value, ClusterSpec)


# Versions -----------------------------------------------------------------------------------------


@thrifty
@given(snapshots, st.integers())
def test_the_version_is_that_of_the_content(snapshot: Snapshot, seed: int) -> None:
    """Neither the order of the resources nor the version they came with counts."""
    shuffled = {
        name: tuple(random.Random(seed).sample(value, len(value)))
        for name in Snapshot.__struct_fields__
        if isinstance(value := getattr(snapshot, name), tuple)
    }
    other = msgspec.structs.replace(snapshot, version="other", **shuffled)
    assert wire.version_of(other) == wire.version_of(snapshot)


@thrifty
@given(snapshots, clusters)
def test_a_change_changes_the_version(snapshot: Snapshot, cluster: ClusterSpec) -> None:
    """One resource more, less or different is another version."""
    without = tuple(c for c in snapshot.clusters if c.name != cluster.name)
    changed = msgspec.structs.replace(cluster, connect_timeout=cluster.connect_timeout + 1)
    versions = {
        wire.version_of(msgspec.structs.replace(snapshot, clusters=each))
        for each in (without, (*without, cluster), (*without, changed))
    }
    assert len(versions) == 3


def test_versions_are_pinned() -> None:
    """Two builds must agree, or an upgrade of the plane would send everything to everybody."""
    assert wire.digest(b"") == "e3b0c44298fc1c14"
    assert wire.resource_version(ClusterSpec(name="a")) == wire.digest(b'{"name":"a"}')
    assert wire.version_of(Snapshot()) == wire.digest(b"")
    only = Snapshot(clusters=(ClusterSpec(name="a"),))
    expected = f"cluster/a={wire.resource_version(ClusterSpec(name='a'))}".encode()
    assert wire.version_of(only) == wire.digest(expected)
