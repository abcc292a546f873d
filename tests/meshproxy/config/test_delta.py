import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from control_plane import snapshots
from meshproxy.config import delta
from meshproxy.contract import wire
from meshproxy.contract.discovery import Change, Removal, Update
from meshproxy.contract.resources import (
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    Resource,
    Snapshot,
    TrustSpec,
    VirtualHostSpec,
)
from meshproxy.contract.wire import ContractError

NAMES = st.sampled_from("abcd")
PORTS = st.integers(1, 3)


def versioned(snapshot: Snapshot) -> Snapshot:
    return msgspec.structs.replace(snapshot, version=wire.version_of(snapshot))


@st.composite
def any_snapshot(draw: st.DrawFn) -> Snapshot:
    """A few resources of each kind, with few names, so that two snapshots overlap."""

    def some(kind: type[Resource]) -> tuple[Resource, ...]:
        return tuple(make(kind, name, draw(PORTS)) for name in sorted(draw(st.sets(NAMES))))

    return versioned(
        Snapshot(
            listeners=some(ListenerSpec),  # type: ignore[arg-type]
            virtual_hosts=some(VirtualHostSpec),  # type: ignore[arg-type]
            clusters=some(ClusterSpec),  # type: ignore[arg-type]
            endpoints=some(EndpointsSpec),  # type: ignore[arg-type]
            trust=some(TrustSpec),  # type: ignore[arg-type]
        )
    )


def make(kind: type[Resource], name: str, port: int) -> Resource:
    if kind is ListenerSpec:
        return ListenerSpec(name=name, direction="inbound", address="::", port=port)
    if kind is VirtualHostSpec:
        return VirtualHostSpec(name=name, domains=(f"{name}:{port}",))
    if kind is ClusterSpec:
        return ClusterSpec(name=name, idle_timeout=port)
    if kind is EndpointsSpec:
        return EndpointsSpec(cluster=name, endpoints=(EndpointSpec(address="a", port=port),))
    return TrustSpec(trust_domain=name, roots=(str(port),))


@given(any_snapshot(), any_snapshot())
def test_both_ends_of_a_delta_agree(old: Snapshot, new: Snapshot) -> None:
    """What the control plane says to one who holds `old` gives `new`; and nothing when equal."""
    changed, removed = snapshots.delta(delta.versions_of(old), new)
    update = Update(nonce="1", version=new.version, changed=changed, removed=removed)
    again = wire.decode(wire.encode(update), Update)
    assert delta.apply(old, again) == new
    assert snapshots.delta(delta.versions_of(new), new) == ((), ())
    assert snapshots.versions_of(new) == delta.versions_of(new)


HELD = versioned(Snapshot(clusters=(ClusterSpec(name="a"),)))


def change(resource: Resource, **but: str) -> Change:
    fields = {"kind": "cluster", "name": "b", "version": wire.resource_version(resource), **but}
    return msgspec.convert({**fields, "spec": Raw(wire.encode(resource))}, Change)


NEW = ClusterSpec(name="b")


@pytest.mark.parametrize(
    ("update", "path", "reason"),
    [
        (Update(nonce="1", version="x", removed=(Removal(kind="cluster", name="z"),)), "cluster/z", "not held"),
        (Update(nonce="1", version="x", changed=(change(NEW), change(NEW))), "cluster/b", "twice"),
        (Update(nonce="1", version="x", changed=(change(NEW, name="c"),)), "cluster/c", "is called 'b'"),
        (Update(nonce="1", version="x", changed=(change(NEW, version="0"),)), "cluster/b", "expected 0"),
        (Update(nonce="1", version="x", changed=(change(NEW),)), "version", "expected x"),
        (
            Update(nonce="1", version="x", changed=(change(NEW, kind="endpoints"),)),
            "endpoints/b", "unknown field `name`",
        ),
        (
            Update(nonce="1", version="x", changed=(Change(
                kind="cluster", name="b", version="0", spec=Raw(b'{"name": "b", "idle_timeout": "many"}')),)),
            "cluster/b idle_timeout", "Expected `int`",
        ),
        (
            Update(nonce="1", version="x", changed=(Change(
                kind="cluster", name="b", version="0", spec=Raw(b'{"name": "b", "retries_v9": 1}')),)),
            "cluster/b", "unknown field `retries_v9`",
        ),
    ],
)  # fmt: skip
def test_an_update_that_does_not_fit_says_where_and_why(
    update: Update, path: str, reason: str
) -> None:
    """Also a field that only a newer control plane knows: refused, never ignored."""
    with pytest.raises(ContractError, match=reason) as caught:
        delta.apply(HELD, update)
    assert caught.value.path == path
