from prometheus_client import generate_latest

from control_plane.metrics import Metrics


def test_the_page_shows_states_and_counts() -> None:
    """Proxies are counted when somebody looks; counters stand beside them."""
    metrics = Metrics()
    states = {"SYNCED": 2, "STALE": 0}
    metrics.watch_proxies(lambda: states)
    metrics.signings.labels("signed").inc()
    metrics.api_refused("origin")
    states["STALE"] = 1
    page = generate_latest(metrics.registry).decode()
    assert 'mesh_proxies{state="SYNCED"} 2.0' in page
    assert 'mesh_proxies{state="STALE"} 1.0' in page
    assert 'mesh_signings_total{result="signed"} 1.0' in page
    assert 'mesh_api_refusals_total{reason="origin"} 1.0' in page


def test_the_authority_is_shown() -> None:
    """Until when it can sign, how old a rotation is and how many lag, how many are denied."""
    metrics = Metrics()
    metrics.watch_authority(
        lambda: {
            "mesh_authority_root_expiry_timestamp_seconds": 1.0,
            "mesh_authority_issuer_expiry_timestamp_seconds": 2.0,
            "mesh_authority_rotation_age_seconds": 3.0,
            "mesh_authority_rotation_lagging": 4,
            "mesh_authority_revoked_identities": 5,
        }
    )
    page = generate_latest(metrics.registry).decode()
    assert "mesh_authority_issuer_expiry_timestamp_seconds 2.0\n" in page
    assert "mesh_authority_rotation_lagging 4.0\n" in page


def test_two_planes_in_one_process_do_not_share_figures() -> None:
    """Each has a registry of its own."""
    one, two = Metrics(), Metrics()
    one.updates.inc()
    assert two.registry.get_sample_value("mesh_discovery_updates_total") == 0
