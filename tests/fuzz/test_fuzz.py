"""
Fuzzing: whatever arrives is understood or refused, never a crash, and never more than it was.

A bounded run is part of all tests; `make fuzz` runs for as long as it is told.  What it finds becomes
a vector, or a test of the part that it was found in.
"""

import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.resources.parse import parse
from meshproxy.codec.client_hello import read_client_hello
from meshproxy.codec.http2 import ServerSession
from meshproxy.codec.sniff import may_become_http, sniff, sniff_greeting
from meshproxy.contract import wire
from meshproxy.contract.discovery import Update
from meshproxy.contract.resources import Snapshot
from meshproxy.contract.spiffe import SpiffeError, SpiffeId
from meshproxy.contract.wire import ContractError
from meshproxy.policies.jwt import InvalidToken, Jwt
from tests.fuzz import mutation
from tests.meshproxy.codec.recorder import Requests, Responses, cut, read_request, read_response
from tests.meshproxy.codec.test_http2 import Stream
from tests.meshproxy.policies.test_jwt import GOOD, NOW, WRONG, ask, issuer

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
CUTS = st.lists(st.integers(0, mutation.LARGEST), max_size=4)


def said(words: list[Any]) -> int:
    """Return how many bytes of data stand in the words of a reader."""
    return sum(len(w[1]) for w in words if w[0] == "data")


@fuzz
@given(mutation.mutated(mutation.requests()), CUTS)
def test_requests(data: bytes, places: list[int]) -> None:
    """Any cut gives the same words, and they hold no more than was said."""
    words = read_request(data)
    assert Requests().feed(cut(data, places)) == words
    assert said(words) <= len(data)


@fuzz
@given(mutation.mutated(mutation.responses()), CUTS)
def test_responses(data: bytes, places: list[int]) -> None:
    """The same of answers, to the end of their connection."""
    words = read_response(data, eof=True)
    assert Responses(b"GET").feed(cut(data, places), eof=True) == words
    assert said(words) <= len(data)


@fuzz
@given(mutation.mutated(mutation.sessions()))
def test_http2_sessions(data: bytes) -> None:
    """It goes on or closes; what it answers is in proportion to what was said."""
    streams: dict[int, Stream] = {}
    session = ServerSession(lambda number: streams.setdefault(number, Stream(number)))
    session.feed(data, 0.0)
    assert len(session.data_to_send()) <= 4096 + 4 * len(data)
    session.feed(data, 1.0)
    session.data_to_send()
    assert len(streams) <= len(data) // 9 * 2 + 1


@fuzz
@given(mutation.mutated([*mutation.requests(), *mutation.sessions(), b"\x16\x03\x01\x00\x05hello"]))
def test_first_bytes(data: bytes) -> None:
    """What was clear of a beginning stays so, however much follows."""
    verdicts = [sniff(data[:end]) for end in range(1, min(len(data), 64) + 1)]
    known = [verdict for verdict in verdicts if verdict is not None]
    assert len(set(known)) <= 1
    sniff_greeting(data)
    may_become_http(data)


@fuzz
@given(mutation.mutated([bytes.fromhex("1603010035010000310303") + bytes(32) + bytes.fromhex("00000213010100000600170000ff01")]))  # fmt: skip
def test_client_hellos(data: bytes) -> None:
    """A hello, nothing yet, or none: never an exception."""
    read_client_hello(data)


@fuzz
@given(mutation.mutated(mutation.documents(
    {"clusters": [{"name": "a", "protocol": "http1"}], "listeners": [{"name": "a", "direction": "inbound", "address": "::", "port": 1}]},
    {"virtual_hosts": [{"name": "a", "domains": ["a"], "routes": [{"name": "r", "backends": [{"cluster": "a", "weight": 1}]}]}]},
)))  # fmt: skip
def test_contract(data: bytes) -> None:
    """Refused by name, or read; and what was read says the same when it is written."""
    for kind in (Snapshot, Update):
        try:
            value: Any = wire.decode(data, kind)
        except ContractError:
            continue
        assert wire.decode(wire.encode(value), kind) == value


@fuzz
@given(mutation.mutated(mutation.resources()))
def test_resources(data: bytes) -> None:
    """Each finding has a line and a message; none is an exception."""
    _, findings = parse(data.decode("utf-8", "replace"), "fuzz.yaml")
    assert all(finding.line >= 0 and finding.message for finding in findings)


def raw(token: str | bytes) -> bytes:
    return token if isinstance(token, bytes) else token.encode()


TOKENS = [raw(token) for token in (*GOOD.values(), *WRONG.values())]
GOOD_BYTES = {raw(token) for token in GOOD.values()}
JWT = Jwt((issuer(),))


@fuzz
@given(mutation.mutated([token for token in TOKENS if len(token) < mutation.LARGEST]))
def test_tokens(data: bytes) -> None:
    """Nothing proves anything but what the issuer has signed."""
    try:
        claims = JWT.check(ask(data), NOW)
    except InvalidToken:
        return
    assert claims is None or data.strip() in GOOD_BYTES


@fuzz
@given(mutation.mutated([b"spiffe://test.mesh/ns/default/sa/a", b"spiffe://a/b"]))
def test_identities(data: bytes) -> None:
    """What is one is written as it was read: there is one spelling."""
    text = data.decode("latin-1")
    try:
        identity = SpiffeId.parse(text)
    except SpiffeError:
        return
    assert str(identity) == text
