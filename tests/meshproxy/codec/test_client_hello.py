"""What a TLS client says first, as real libraries say it, and as nobody should."""

import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.codec.client_hello import LIMIT, NOTHING, RECORDS, ClientHello, read_client_hello


def real(name: str | None, protocols: list[str] | None = None, *, tls12: bool = False) -> bytes:
    """Return what OpenSSL says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if protocols:
        context.set_alpn_protocols(protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size) + data


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack("!H", kind) + vector(2, content)


def sni(*names: bytes) -> bytes:
    return extension(0, vector(2, b"".join(b"\0" + vector(2, name) for name in names)))


def alpn(*protocols: bytes) -> bytes:
    return extension(16, vector(2, b"".join(vector(1, protocol) for protocol in protocols)))


def hello(*extensions: bytes, rest: bytes = b"", record: int = 1 << 14) -> bytes:
    """Return a ClientHello in records of at most `record` bytes."""
    body = b"\3\3" + b"r" * 32 + vector(1, b"s" * 32) + vector(2, b"\x13\1") + vector(1, b"\0")
    body += vector(2, b"".join(extensions)) + rest
    message = b"\1" + vector(3, body)
    parts = [message[at : at + record] for at in range(0, len(message), record)]
    return b"".join(b"\x16\3\1" + vector(2, part) for part in parts)


@pytest.mark.parametrize("tls12", [False, True])
def test_a_real_one(tls12: bool) -> None:
    """Name and protocols, in TLS 1.3 and 1.2; without them, none."""
    assert read_client_hello(real("Db.Example.com", ["h2", "http/1.1"], tls12=tls12)) == (
        "db.example.com",
        (b"h2", b"http/1.1"),
    )
    assert read_client_hello(real(None, tls12=tls12)) == ClientHello()


@given(st.lists(st.integers(0, 600), max_size=5), st.integers(4, 400))
def test_however_it_is_cut(cuts: list[int], record: int) -> None:
    """Into reads and into records: nothing is known before the end, and then all of it."""
    whole = hello(sni(b"a.example"), alpn(b"mesh-tcp"), record=record)
    for cut in cuts:
        if cut < len(whole):
            assert read_client_hello(whole[:cut]) is None
    assert read_client_hello(whole) == ("a.example", (b"mesh-tcp",))
    assert read_client_hello(whole + b"what follows") == ("a.example", (b"mesh-tcp",))


@given(st.binary(max_size=300))
def test_nothing_breaks_it(data: bytes) -> None:
    """Whatever comes, it is an answer or a wish for more."""
    for said in (data, b"\x16\3\1" + data, hello(extension(0, data)), hello(rest=data)):
        read_client_hello(said)


@given(st.data())
def test_nor_does_a_real_one_with_a_wrong_byte(data: st.DataObject) -> None:
    """One byte changed anywhere: no exception, and no name that could not stand in a certificate."""
    said = bytearray(hello(sni(b"a.example"), alpn(b"h2")))
    said[data.draw(st.integers(0, len(said) - 1))] = data.draw(st.integers(0, 255))
    found = read_client_hello(bytes(said))
    if found is not None and found.server_name is not None:
        assert found.server_name.isascii()
        assert found.server_name == found.server_name.lower()


def test_what_is_unknown_is_stepped_over() -> None:
    """GREASE extensions, an encrypted hello, and names of an unknown type."""
    grease, ech = extension(0x2A2A, b""), extension(0xFE0D, b"x" * 200)
    strange = extension(0, vector(2, b"\7" + vector(2, b"??") + b"\0" + vector(2, b"a.b")))
    assert read_client_hello(hello(grease, ech, strange, grease[:1] + b"\x3a" + b"\0\0")) == (
        "a.b",
        (),
    )


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (hello(sni(b"A.B.")), "a.b"),
        (hello(sni(b"")), None),
        (hello(sni(b"a b")), None),
        (hello(sni(b"a\0.b")), None),
        (hello(sni("ü.b".encode())), None),
        (hello(sni(b"a" * 254)), None),
        (hello(extension(0, vector(2, b"\7" + vector(2, b"x")))), None),
    ],
)
def test_names_are_names(said: bytes, name: str | None) -> None:
    """In one spelling; what could not be one in a certificate is none."""
    assert read_client_hello(said) == ClientHello(name)


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\3\1\0\5\2\0\0\1\0",
        b"\x17\3\1\0\5\1\0\0\1\0",
        b"\x16\2\1\0\5\1\0\0\1\0",
        b"\x16\3\1\0\0",
        b"\x16\3\1\xff\xff",
        b"\x16\3\1\0\4\1\0\0\0",
        hello(sni(b"a.b"), sni(b"c.d")),
        hello(sni(b"a.b", b"c.d")),
        hello(extension(0, vector(2, b"") + b"x")),
        hello(extension(0, b"")),
        hello(extension(16, vector(2, b"\5h2"))),
        hello(extension(16, vector(2, b"\2h2") + b"x")),
        hello(sni(b"a.b"), rest=b"x"),
        hello(sni(b"a.b"))[:-1] + b"",
    ],
    ids=[
        "another message", "another record", "another version", "an empty record",
        "a record too large", "an empty message", "two extensions", "two names", "bytes behind",
        "no list", "a protocol cut off", "bytes behind protocols", "bytes behind extensions", "cut",
    ],
)  # fmt: skip
def test_what_does_not_add_up_names_nobody(said: bytes) -> None:
    """Another parser might read it differently."""
    assert read_client_hello(said) in (NOTHING, None)


def test_an_old_one_without_extensions() -> None:
    """As before TLS 1.2."""
    body = b"\3\1" + b"r" * 32 + b"\0" + vector(2, b"\0\x2f") + vector(1, b"\0")
    assert read_client_hello(b"\x16\3\1" + vector(2, b"\1" + vector(3, body))) == NOTHING


def test_its_size_is_bounded() -> None:
    """By what it announces, and by what has come: then nobody waits for the rest."""
    big = hello(extension(0xAAAA, b"x" * LIMIT))
    assert read_client_hello(big[:200]) == NOTHING
    records = [b"\x16\3\1\0\1%c" % byte for byte in b"\1\0\x20" + bytes(RECORDS)]
    assert read_client_hello(b"".join(records[: RECORDS - 1])) is None
    assert read_client_hello(b"".join(records[:RECORDS])) == NOTHING
