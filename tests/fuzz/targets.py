"""
What is fuzzed: each reader of what others say, and what must hold whatever it is given.

A target is a function of some bytes that raises when something is wrong, and seeds from which bytes
are made.  `test_fuzz.py` changes seeds at random, a few in every test run; `coverage_guided.py` lets
coverage choose, for as long as it is told.
"""

import atexit
import contextlib
import functools
import itertools
import random
import ssl
import tempfile
import zlib
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import hpack
from cryptography import x509 as reference
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame

from control_plane import key_sets as published
from control_plane.authority import Authority, BadRequest
from control_plane.key_sets import UnusableError
from control_plane.resources import duration, quantity
from control_plane.resources.parse import parse
from meshproxy.codec import grpc, http1
from meshproxy.codec.chunked import encode_chunk, encode_last_chunk
from meshproxy.codec.client_hello import read_client_hello
from meshproxy.codec.http2 import ClientSession, ServerSession
from meshproxy.codec.sniff import may_become_http, sniff, sniff_greeting
from meshproxy.config import strict_yaml
from meshproxy.contract import wire
from meshproxy.contract.authorization import (
    AuthorizationRuleSpec,
    AuthorizationSpec,
    FactSpec,
    OperationSpec,
)
from meshproxy.contract.discovery import Ack, Hello, Nack, SigningAnswer, SigningRequest, Update
from meshproxy.contract.resources import Snapshot
from meshproxy.contract.spiffe import SpiffeError, SpiffeId
from meshproxy.contract.wire import ContractError
from meshproxy.identity import x509
from meshproxy.message import CHUNKED, Fields, RequestHead, field
from meshproxy.policies import propagation
from meshproxy.policies.authorization import Authorization, Source
from meshproxy.policies.jwt import InvalidToken, Jwt
from meshproxy.policies.load_balancing.cookies import cookie_of
from meshproxy.policies.load_balancing.tokens import Tokens
from meshproxy.routing.authority import normalized
from meshproxy.routing.match import compile_pattern
from meshproxy.routing.readings import readings
from meshproxy.routing.template import Paths
from tests.conformance.vectors.frames import PREFACE
from tests.control_plane.test_authority import KEY as CSR_KEY
from tests.control_plane.test_authority import request as csr_of
from tests.fuzz import mutation
from tests.helpers.certificates import TestAuthority, der, uri
from tests.helpers.http2 import Wire
from tests.meshproxy.codec.recorder import (
    Requests,
    Responses,
    Word,
    byte_by_byte,
    cut,
    read_request,
    read_response,
)
from tests.meshproxy.codec.test_http1 import h11_reads
from tests.meshproxy.codec.test_http2 import Stream
from tests.meshproxy.policies.test_jwt import GOOD, NOW, WRONG, ask, issuer


class Target(NamedTuple):
    """
    Attributes:
        check: Raises if something is wrong with how these bytes are read.
        seeds: What is nearly right.
    """

    check: Callable[[bytes], object]
    seeds: list[bytes]


TARGETS: Final[dict[str, Target]] = {}

Check = Callable[[bytes], object]


def target(seeds: Iterable[bytes]) -> Callable[[Check], Check]:
    """Make a target of a check, under its name."""
    few = [seed for seed in seeds if len(seed) < mutation.LARGEST]

    def enter(check: Check) -> Check:
        TARGETS[check.__name__] = Target(check, few)
        return check

    return enter


def cuts(data: bytes) -> Iterable[list[bytes]]:
    """Cut the bytes at a few places, which they choose themselves, and everywhere."""
    chosen = random.Random(zlib.crc32(data))
    yield cut(data, chosen.choices(range(len(data) + 1), k=3))
    yield byte_by_byte(data)


def said(words: list[Word]) -> int:
    """Return how many bytes of data stand in the words of a reader."""
    return sum(len(word[1]) for word in words if word[0] == "data")


# HTTP/1.1 -----------------------------------------------------------------------------------------


@target(mutation.requests())
def requests(data: bytes) -> None:
    """Any cut gives the same words, and they hold no more than was said."""
    words = read_request(data)
    for pieces in cuts(data):
        assert Requests().feed(pieces) == words
    assert said(words) <= len(data)


@target(mutation.responses())
def responses(data: bytes) -> None:
    """The same of answers, to the end of their connection."""
    words = read_response(data, eof=True)
    for pieces in cuts(data):
        assert Responses(b"GET").feed(pieces, eof=True) == words
    assert said(words) <= len(data)


class _Rewriter(Requests):
    """Writes what it reads as it goes to the next hop, until the first request has ended."""

    def __init__(self) -> None:
        super().__init__(answer=False)
        self.written = b""
        self._chunked = False

    def on_request_head(self, head: RequestHead) -> None:
        self._chunked = head.length == CHUNKED
        head.mesh_fields = None
        self.written += http1.encode_request_head(head)
        super().on_request_head(head)

    def _data(self, data: bytes, last: bool = False) -> None:
        self.written += encode_chunk(data) if self._chunked else data
        super()._data(data, last)

    def _end(self, trailers: Fields | None) -> None:
        if self._chunked:
            self.written += encode_last_chunk(trailers)
        super()._end(trailers)

    on_request_data = _data
    on_request_end = _end


@target(mutation.requests())
def relayed_requests(data: bytes) -> None:
    """What we write of a request is the same request to us, and to h11, and nothing beside it."""
    first = _Rewriter()
    first.feed([data])
    if first.names()[-1:] != ["end"]:
        return
    again = _Rewriter()
    again.feed([first.written])
    assert again.words == first.words
    assert again.written == first.written
    assert again.reader.held == b""
    method, path = first.words[0][1], first.words[0][4]
    if method != b"CONNECT":
        assert h11_reads(first.written) == [(method, path), (first.body(),)]


# HTTP/2 -------------------------------------------------------------------------------------------


def _hear(pieces: Iterable[bytes]) -> tuple[ServerSession, dict[int, Stream]]:
    streams: dict[int, Stream] = {}
    session = ServerSession(lambda number: streams.setdefault(number, Stream(number)))
    for piece in pieces:
        session.feed(piece, 0.0)
    return session, streams


@target(mutation.sessions())
def http2_sessions(data: bytes) -> None:
    """It goes on or closes; what it answers is in proportion to what was said."""
    session, streams = _hear([data])
    assert len(session.data_to_send()) <= 4096 + 4 * len(data)
    session.feed(data, 1.0)
    session.data_to_send()
    assert len(streams) <= len(data) // 9 * 2 + 1


def _heard(streams: dict[int, Stream]) -> dict[int, list[Any]]:
    return {
        number: [
            word if word[0] != "head" else (word[1].method, word[1].authority, word[1].path, tuple(word[1].fields), word[1].length)
            for word in stream.heard
        ]
        for number, stream in streams.items()
    }  # fmt: skip


@target(mutation.sessions())
def http2_cuts(data: bytes) -> None:
    """Any cut of a session gives the same words on the same streams."""
    whole = _heard(_hear([data])[1])
    for pieces in cuts(data):
        assert _heard(_hear(pieces)[1]) == whole


@target(mutation.sessions())
def http2_referees(data: bytes) -> None:
    """Heads that we take are what hyperframe and hpack read in the same frames."""
    _, streams = _hear([data])
    told = dict(_blocks(data))
    for number, stream in streams.items():
        for word in stream.heard[:1]:
            if word[0] == "head" and number in told:
                theirs = told[number]
                head: RequestHead = word[1]
                if b":protocol" in theirs:  # RFC 8441: its CONNECT is the GET of HTTP/1.1
                    continue
                assert theirs[b":method"] == [head.method]
                assert theirs.get(b":path", [head.path]) == [head.path]
                for name, value, _ in head.fields:
                    assert name == b"cookie" or value in theirs[name]


def _answer(*frames: Callable[[Wire], bytes]) -> bytes:
    wire = Wire()
    return wire.settings() + wire.settings_ack() + b"".join(frame(wire) for frame in frames)


ANSWER: Final = [(":status", "200"), ("x-a", "b")]
ANSWERS: Final = [
    _answer(lambda w: w.headers(1, [(":status", "204")])),
    _answer(lambda w: w.headers(1, ANSWER, end=False), lambda w: w.data(1, b"abc"), lambda w: w.data(1, b"", end=True)),
    _answer(lambda w: w.headers(1, [*ANSWER, ("content-length", "3")], end=False), lambda w: w.data(1, b"abc", end=True)),
    _answer(lambda w: w.headers(1, [(":status", "103"), ("link", "</a>")], end=False), lambda w: w.headers(1, ANSWER)),
    _answer(lambda w: w.headers(1, ANSWER, end=False), lambda w: w.data(1, b"x"), lambda w: w.headers(1, [("x-sum", "1")])),
    _answer(lambda w: w.headers(1, ANSWER, end=False), lambda w: w.reset(1)),
    _answer(lambda w: w.goaway(1), lambda w: w.headers(1, ANSWER)),
    _answer(lambda w: w.ping(), lambda w: w.window(0, 10), lambda w: w.window(1, 10), lambda w: w.headers(1, ANSWER)),
]  # fmt: skip


def _asked(pieces: Iterable[bytes]) -> list[Any]:
    session, stream = ClientSession(lambda: None), Stream(method=b"GET")
    stream.id = session.send_head(stream, RequestHead(b"GET", b"catalog", b"/", []), ended=True)
    sent = session.data_to_send()
    for piece in pieces:
        session.feed(piece, 0.0)
        sent += session.data_to_send()
    assert len(sent) <= 4096 + 4 * sum(map(len, pieces))
    # Whether a stream that went wrong ends alone or with its connection, and who has reset it first,
    # depends on what of ours had left by then.
    return [
        word if word[0] != "head" else (word[1].status, tuple(word[1].fields), word[1].length)
        for word in stream.heard
        if word[0] != "closed"
    ]


@target(ANSWERS)
def http2_answers(data: bytes) -> None:
    """Any cut of what a server says gives the same answer; it begins once, and ends once at most."""
    whole = _asked([data])
    for pieces in cuts(data):
        assert _asked(pieces) == whole
    kinds = [word[0] for word in whole]
    assert kinds.count("end") <= 1
    assert sum(isinstance(kind, int) for kind in kinds) <= 1
    assert "end" not in kinds or not {"malformed", "lost"} & set(kinds)


def _blocks(data: bytes) -> Iterable[tuple[int, dict[bytes, list[bytes]]]]:
    """Read the first header block of each stream, as far as hyperframe and hpack agree to read."""
    if not data.startswith(PREFACE):
        return
    at = len(PREFACE)
    decoder = hpack.Decoder(max_header_list_size=1 << 20)
    block = b""
    seen = set()
    with contextlib.suppress(HyperframeError, hpack.HPACKError, ValueError, IndexError):
        while at + 9 <= len(data):
            frame, length = Frame.parse_frame_header(memoryview(data[at : at + 9]))
            at += 9
            if at + length > len(data):
                return
            frame.parse_body(memoryview(data[at : at + length]))
            at += length
            if isinstance(frame, HeadersFrame | ContinuationFrame):
                block = frame.data if isinstance(frame, HeadersFrame) else block + frame.data
                if "END_HEADERS" not in frame.flags:
                    continue
                found: dict[bytes, list[bytes]] = {}
                for name, value in decoder.decode(block, raw=True):
                    found.setdefault(bytes(name), []).append(bytes(value).strip(b" \t"))
                if frame.stream_id not in seen:
                    yield frame.stream_id, found
                seen.add(frame.stream_id)


# First bytes --------------------------------------------------------------------------------------

HELLO: Final = bytes.fromhex(
    "16030100550100005103030000000000000000000000000000000000000000000000000000000000000000"
    "000002130101000026" "0000000e000c0000096c6f63616c686f7374" "00100010000e096d6573682f747275" "6e6b0268320000"
)  # fmt: skip


@target([*mutation.requests(), *mutation.sessions(), b"\x16\x03\x01\x00\x05hello", HELLO])
def first_bytes(data: bytes) -> None:
    """What was clear of a beginning stays so, however much follows."""
    verdicts = [sniff(data[:end]) for end in range(1, min(len(data), 64) + 1)]
    known = [verdict for verdict in verdicts if verdict is not None]
    assert len(set(known)) <= 1
    whole = sniff(data)
    assert not known or whole is known[0]
    if data:
        greetings = {sniff_greeting(data[:end]) for end in range(1, min(len(data), 64) + 1)}
        assert len(greetings - {None}) <= 1
    may_become_http(data)


@target([HELLO, bytes.fromhex("1603010035010000310303") + bytes(32) + bytes.fromhex("00000213010100000600170000ff01")])  # fmt: skip
def client_hellos(data: bytes) -> None:
    """A hello, nothing yet, or none: never taken back, and never a name that cannot be one."""
    last = None
    for end in range(len(data) + 1):
        found = read_client_hello(data[:end])
        assert last is None or found == last
        last = found
    if last is not None and last.server_name is not None:
        assert last.server_name == last.server_name.lower()
        assert last.server_name.isascii()
        assert last.server_name.isprintable()


# Configuration ------------------------------------------------------------------------------------


@target(mutation.documents(
    {"clusters": [{"name": "a", "protocol": "http1"}], "listeners": [{"name": "a", "direction": "inbound", "address": "::", "port": 1}]},
    {"virtual_hosts": [{"name": "a", "domains": ["a"], "routes": [{"name": "r", "backends": [{"cluster": "a", "weight": 1}]}]}]},
    {"type": "update", "nonce": "1", "changed": [{"kind": "cluster", "version": "1", "resource": {"name": "a"}}], "removed": []},
    {"type": "hello", "workload": "a", "protocol": 1}, {"type": "ack", "nonce": "1"}, {"type": "nack", "nonce": "1", "error": "x"},
    {"type": "sign", "csr": "-----BEGIN", "token": "t"}, {"type": "signed", "certificate": "a", "roots": ["b"]},
))  # fmt: skip
def contract(data: bytes) -> None:
    """Refused by name, or read; and what was read says the same when it is written."""
    for kind in (Snapshot, Update, Hello, Ack, Nack, SigningRequest, SigningAnswer):
        with contextlib.suppress(ContractError):
            value: Any = wire.decode(data, kind)
            assert wire.decode(wire.encode(value), kind) == value


@target(mutation.resources())
def resources(data: bytes) -> None:
    """Each finding has a line and a message; none is an exception."""
    _, findings = parse(data.decode("utf-8", "replace"), "fuzz.yaml")
    assert all(finding.line >= 0 and finding.message for finding in findings)


@target(mutation.resources())
def yaml(data: bytes) -> None:
    """Loaded, or refused with its own error."""
    with contextlib.suppress(strict_yaml.YamlError):
        strict_yaml.load(data)


@target([b"1h30m", b"10s", b"250ms", b"0s", b"65536", b"64Ki", b"1Mi", b"100k", "٣s".encode()])
def durations_and_quantities(data: bytes) -> None:
    """Read, or refused with a sentence; a duration that is written anew is the same one."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        found = duration.milliseconds(text)
        assert duration.milliseconds(duration.text_of(found)) == found or found > 99_999 * 3_600_000
        assert text.isascii()
    with contextlib.suppress(ValueError):
        assert 0 <= quantity.bytes_of(text) <= 10**15 << 20
        assert text.isascii()


@target(
    [b"/admin", b"/admin/*", b"*.html", b"/users/{*}/orders", b"/a/{**}", b"*", b"/a/{id}", b"/x{y"]
)
def templates(data: bytes) -> None:
    """Compiled or refused; a pattern never raises whatever path it is asked about."""
    pattern, _, path = data.partition(b"\n")
    with contextlib.suppress(ContractError, UnicodeDecodeError):
        text = pattern.decode()
        paths = Paths([text])
        paths.match(path)
        if not set(text) & set("*{}"):
            assert paths.match(pattern)
            assert paths.match(path) == (path == pattern)


@target([rb"v[0-9]+", rb"(a+)+$", rb"a{1000}{1000}", rb"\pN(?i)x", rb"(?P<a>x)|y", rb"[[:alpha:]]"])
def expressions(data: bytes) -> None:
    """Expressions of users are compiled or refused, and always come to an end."""
    pattern, _, subject = data.partition(b"\n")
    with contextlib.suppress(ContractError, UnicodeDecodeError):
        compile_pattern(pattern.decode(), "fuzz").fullmatch(subject * 16)


# Authorization ------------------------------------------------------------------------------------


@target(
    [
        b"/x/../admin;v=1?q",
        b"/x%2f..%2f%61dmin;z",
        b"/x\\..\\%2561dmin",
        b"/admin//..;/%3b%5c%252e",
        b"/a%00/%c0%ae/",
    ]
)
def paths(data: bytes) -> None:
    """There are readings of any path, as sent first, each once, and not too many."""
    found = readings(data)
    if found is not None:
        assert found[0] == data.partition(b"?")[0]
        assert len(found) == len(set(found))


POLICIES: Final = [
    AuthorizationSpec(name="shop/deny", action="deny", rules=(AuthorizationRuleSpec(
        operations=(OperationSpec(paths=("/admin*", "/users/{*}/keys"), hosts=("*.shop", "10.0.0.1:*")),)),)),
    AuthorizationSpec(name="shop/allow", action="allow", rules=(AuthorizationRuleSpec(
        operations=(OperationSpec(not_methods=("DELETE",), not_paths=("/private/{**}",)),),
        facts=(FactSpec(kind="header", name="X-Role", not_values=("root", "*admin")), FactSpec(kind="header", name="host", values=("*",)))),)),
]  # fmt: skip
STANDING: Final = Authorization(POLICIES).standing(Source.of("spiffe://a/ns/b/sa/c", "10.0.0.7"))


@target(
    [
        b"GET|catalog.shop|/admin/../x|user",
        b"delete|10.0.0.1:80|/users/a%2fb/keys|root",
        b"GET|[::1|/private/a|\xff, admin",
    ]
)
def judgements(data: bytes) -> None:
    """Whatever is asked is judged, and plainly denied things are denied."""
    method, authority, path, role = (*data.split(b"|", 3), b"", b"", b"", b"")[:4]
    fields = [field(name, value) for name in (b"X-Role", b"x_role") for value in role.split(b"|")]
    verdict = STANDING.judge(RequestHead(method, authority, path, fields))
    if verdict.allowed:
        assert method.upper() != b"DELETE"
        assert not path.startswith(b"/private/")
        assert b"root" not in role.split(b"|")
        assert not (path.startswith(b"/admin") and authority.lower().endswith(b".shop"))


@target([b"A.example.", b"a.example:80", b"[::1]:80", b"[::ffff:1.2.3.4]", b"a:065", b"[", b":80"])
def authorities(data: bytes) -> None:
    """One spelling: that of a spelling is itself."""
    found = normalized(data)
    assert found is None or normalized(found) == found


def raw(token: str | bytes) -> bytes:
    return token if isinstance(token, bytes) else token.encode()


GOOD_BYTES: Final = {raw(token) for token in GOOD.values()}
JWT: Final = Jwt((issuer(),))


@target([raw(token) for token in (*GOOD.values(), *WRONG.values())])
def tokens(data: bytes) -> None:
    """Nothing proves anything but what the issuer has signed."""
    with contextlib.suppress(InvalidToken):
        claims = JWT.check(ask(data), NOW)
        assert claims is None or data.strip() in GOOD_BYTES


@target([issuer().keys.encode(), b'{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}'])
def key_sets(data: bytes) -> None:
    """Fit for proxies or refused; what the control plane takes, a proxy takes."""
    with contextlib.suppress(ContractError, UnicodeDecodeError):
        Jwt((issuer(keys=data.decode()),))
    with contextlib.suppress(UnusableError):
        Jwt((issuer(keys=published._checked(data)),))


# Identity -----------------------------------------------------------------------------------------


@target(
    [
        b"spiffe://test.mesh/ns/default/sa/a",
        b"spiffe://a/b",
        b"spiffe://a.b-c_d/%41/..",
        b"SPIFFE://a",
    ]
)
def identities(data: bytes) -> None:
    """What is one is written as it was read: there is one spelling."""
    text = data.decode("latin-1")
    with contextlib.suppress(SpiffeError):
        identity = SpiffeId.parse(text)
        assert str(identity) == text


ROOT: Final = TestAuthority()
CATALOG: Final = "spiffe://mesh.local/ns/default/sa/catalog"


@target([
    der(ROOT.certificate), der(ROOT.leaf(uri(CATALOG))[0]), der(ROOT.leaf(uri(CATALOG), reference.DNSName("a"))[0]),
    der(ROOT.leaf(uri(CATALOG), ca=True, signs=True)[0]),
])  # fmt: skip
def certificates(data: bytes) -> None:
    """Facts or an error; where `cryptography` reads it too, the facts are the same."""
    try:
        facts = x509.read(data)
    except x509.CertificateError:
        return
    try:
        certificate = reference.load_der_x509_certificate(data)
        theirs = (
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
        )
        extensions = certificate.extensions
        serial = f"{certificate.serial_number:x}"
    except Exception:  # noqa: BLE001  # whatever it thinks of it: OpenSSL refuses such a peer
        return
    assert (facts.not_before, facts.not_after, facts.serial) == (*theirs, serial)
    named: tuple[str, ...] = ()
    with contextlib.suppress(reference.ExtensionNotFound, ValueError):
        names = extensions.get_extension_for_class(reference.SubjectAlternativeName).value
        named = tuple(names.get_values_for_type(reference.UniformResourceIdentifier))
        assert facts.uris == named
    signs = False
    with contextlib.suppress(reference.ExtensionNotFound, ValueError):
        signs |= extensions.get_extension_for_class(reference.BasicConstraints).value.ca
    with contextlib.suppress(reference.ExtensionNotFound, ValueError):
        usage = extensions.get_extension_for_class(reference.KeyUsage).value
        signs |= usage.key_cert_sign or usage.crl_sign
    assert facts.authority or not signs


@functools.cache
def authority() -> Authority:
    folder = tempfile.TemporaryDirectory()  # for as long as this process lives
    atexit.register(folder.cleanup)
    return Authority(Path(folder.name) / "authority", "mesh.local")


OWN: Final = SpiffeId.of("mesh.local", "default", "catalog")


REQUESTS: Final = [
    csr_of(CSR_KEY),
    csr_of(CSR_KEY, reference.SubjectAlternativeName([uri(CATALOG)])),
    csr_of(CSR_KEY, reference.BasicConstraints(ca=True, path_length=None)),
    csr_of(CSR_KEY, subject="admin"),
]


@target([text.encode() for text in REQUESTS] + [ssl.PEM_cert_to_DER_cert(text.replace(" REQUEST", "")) for text in REQUESTS])  # fmt: skip
def signing_requests(data: bytes) -> None:
    """A key that is proved and of the right kind, or a refusal; whoever may only be itself is no more."""
    for csr in (data.decode("latin-1"), ssl.DER_cert_to_PEM_cert(data).replace("CERTIFICATE", "CERTIFICATE REQUEST")):  # fmt: skip
        with contextlib.suppress(BadRequest):
            key = authority().check(csr, OWN)
            read = reference.load_pem_x509_csr(csr.encode())
            assert read.is_signature_valid
            assert read.public_key() == key
            assert not list(read.subject)


# Fields -------------------------------------------------------------------------------------------

SESSIONS: Final = Tokens(b"0123456789abcdef", lambda: 1_800_000_000.0)
SEALED: Final = SESSIONS.make(SESSIONS.id_of("10.0.0.1:80"), "route")


@target([b"session=" + SEALED, b"a=b; session=" + SEALED + b"; c", b"session=;session=" + SEALED])
def cookies(data: bytes) -> None:
    """A token counts only as it was sealed, and where it was."""
    value = cookie_of([field(b"Cookie", data)], b"session")
    if value is not None:
        assert value in data
        found = SESSIONS.read(value, "route", 60.0)
        # Base64 has several spellings of some bytes; it is the bytes that are sealed.
        same = found is None or urlsafe_b64decode(value + b"=") == urlsafe_b64decode(SEALED + b"=")
        assert same
        assert SESSIONS.read(value, "another", 60.0) is None


_NAMES: Final = (b"traceparent", b"b3", b"x-b3-traceid", b"x-request-id")


@target([
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1",
    b"463ac35c9f6413ad", b"00-00000000000000000000000000000000-00f067aa0ba902b7-01", b"d", b"0",
])  # fmt: skip
def traces(data: bytes) -> None:
    """Ids of one form, whatever was sent."""
    for names in itertools.chain(((name,) for name in _NAMES), (_NAMES,)):
        ids, line = propagation.trace_of([field(name, data) for name in names])
        assert len(ids) == len(set(ids)) <= len(names)
        assert all(one.startswith(b"request ") or len(one) == 32 for one in ids)
        assert line in (b"", data)


@target([b"1500", b"0", b"-1", b"high", b"sheddable", b"catalog=1500", b"7"])
def mesh_fields(data: bytes) -> None:
    """What is not valid is as if it had not been said; a deadline never becomes later."""
    names = (propagation.DEADLINE, propagation.ATTEMPT, propagation.CRITICALITY, propagation.SPENT)
    context = propagation.read([(name, data, b"") for name in names], 100.0)
    assert context.deadline >= 100.0
    assert context.attempt >= 0
    assert context.criticality in (None, *propagation.CRITICALITIES.values())
    propagation.spent_field(context.spender, context.spent)


@target([b"1S", b"99999999H", b"100m", b"0n", b"123456789S", b"+1S", b"1", "٣S".encode()])
def grpc_timeouts(data: bytes) -> None:
    """A time or nothing; written anew, it never allows more, and nearly as much."""
    found = grpc.timeout_of([field(b"grpc-timeout", data)])
    if found is not None:
        assert 0 <= found < 10**8 * 3600
        again = grpc.timeout_of([grpc.timeout_field(found)])
        assert again is not None
        assert again <= max(found, 1e-6) * (1 + 1e-9)
        assert again >= found * (1 - 1e-4) - 1e-6
