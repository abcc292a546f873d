"""Ports, names and addresses of a run."""

import socket
import stat

import pytest

from bench.site import ADDRESSES, Ports, Service, Site, accepts


def test_ports_are_free_and_given_once() -> None:
    """No port is given twice, and none that somebody holds, even silently."""
    ports = Ports()
    given = [ports.free(ADDRESSES) for _ in range(50)]
    assert len(set(given)) == 50
    with socket.socket() as silent:
        silent.bind(("127.0.0.2", given[0]))  # it is free, so it can be had
        assert not accepts(given[0])


def test_every_peer_has_ports_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two peers lead to the same app by different ports; a second A has entries of its own."""
    site = Site(tmp_path_factory.mktemp("site"))
    site.services = (Service("web", "http1", 18001),)
    (one,), (other,) = (site.placed(site.services, between=True) for _ in range(2))
    assert one.app == other.app == 18001
    assert len({one.entry, one.between, other.entry, other.between}) == 4
    (again,) = site.with_new_entries([one])
    assert again.between == one.between
    assert again.entry != one.entry
    assert site.placed(site.services, between=False)[0].between == 0
    assert site.direct()[0].entry == 18001


def test_keys_are_for_their_owner_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keys lie in folders that nobody else may enter."""
    site = Site(tmp_path_factory.mktemp("site"))
    for identity in (site.a, site.b):
        assert stat.S_IMODE(identity.both.parent.stat().st_mode) == 0o700
        assert "PRIVATE KEY" in identity.both.read_text()


def test_what_is_asked_for_is_in_the_middle_of_the_routes() -> None:
    """Neither the first nor the last of hosts and prefixes: a linear search pays its mean."""
    web = Service("web", "http1", 18001, entry=18011)
    assert web.host == "web-5.bench"
    assert web.url(100) == "http://127.0.0.1:18011/team-2/100"
