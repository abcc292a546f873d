from control_plane import snapshots
from control_plane.snapshots import Proxy, State
from meshproxy.contract import wire
from meshproxy.contract.discovery import Hello, Nack, Removal
from meshproxy.contract.resources import (
    ClusterSpec,
    EndpointsSpec,
    ListenerSpec,
    Snapshot,
    TrustSpec,
)

LISTENER = ListenerSpec(name="in", direction="inbound", address="::", port=1)
SNAPSHOT = Snapshot(
    listeners=(LISTENER,),
    clusters=(ClusterSpec(name="a"), ClusterSpec(name="b")),
    endpoints=(EndpointsSpec(cluster="a"),),
    trust=(TrustSpec(trust_domain="t", roots=()),),
)


def test_a_proxy_with_nothing_is_told_all_in_make_before_break_order() -> None:
    """What is referred to comes before what refers to it."""
    changed, removed = snapshots.delta({}, SNAPSHOT)
    assert [(c.kind, c.name) for c in changed] == [
        ("trust", "t"),
        ("cluster", "a"),
        ("cluster", "b"),
        ("endpoints", "a"),
        ("listener", "in"),
    ]
    assert removed == ()
    assert bytes(changed[4].spec) == wire.encode(LISTENER)
    assert changed[4].version == wire.resource_version(LISTENER)


def test_only_what_differs_is_said() -> None:
    """Equal versions are silent; what has another version is sent; what is not wanted goes."""
    held = snapshots.versions_of(SNAPSHOT)
    assert snapshots.delta(held, SNAPSHOT) == ((), ())
    held["cluster"] = {"a": "other", "b": held["cluster"]["b"], "z": "1"}
    held["listener"]["old"] = "1"
    changed, removed = snapshots.delta(held, SNAPSHOT)
    assert [(c.kind, c.name) for c in changed] == [("cluster", "a")]
    # What refers to others goes before them.
    assert removed == (Removal(kind="listener", name="old"), Removal(kind="cluster", name="z"))


def test_the_life_of_a_proxy() -> None:
    """DISCONNECTED, STALE, SYNCED, STALE, REFUSED, SYNCED, DISCONNECTED; with versions and reasons."""
    proxy = Proxy(workload="default/a")
    seen = [proxy.state]
    proxy.on_hello(
        Hello(workload="default/a", build="1", admin="h:1", version="v0"), "spiffe://t/x", 99, now=1
    )
    seen.append(proxy.state)
    assert (proxy.acked_version, proxy.admin, proxy.certificate_not_after) == ("v0", "h:1", 99)
    proxy.on_update("v1")
    proxy.on_synced("v1", now=2)
    seen.append(proxy.state)
    assert (proxy.acked_version, proxy.last_ack) == ("v1", 2)
    proxy.on_update("v2")
    seen.append(proxy.state)
    proxy.on_nack(Nack(nonce="2", version="v1", path="cluster/a", reason="no"))
    seen.append(proxy.state)
    assert (proxy.path, proxy.reason) == ("cluster/a", "no")
    assert (proxy.sent_version, proxy.acked_version) == ("v2", "v1")
    proxy.on_synced("v1", now=3)
    seen.append(proxy.state)
    assert (proxy.path, proxy.reason) == ("", "")
    proxy.on_disconnect("gone")
    seen.append(proxy.state)
    assert (proxy.connected_since, proxy.reason) == (None, "gone")
    assert seen == [
        State.DISCONNECTED,
        State.STALE,
        State.SYNCED,
        State.STALE,
        State.REFUSED,
        State.SYNCED,
        State.DISCONNECTED,
    ]
