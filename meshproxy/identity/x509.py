"""
The few facts of a certificate that `ssl` does not tell: a small reader of DER.

`ssl` verifies chains but reports neither basic constraints nor key usage, and tells nothing of
a certificate that is not a peer's.  `cryptography` tells all, but costs a sidecar 10 MB for
the whole of its life.  Nothing here replaces verification: what is read has been verified by
OpenSSL (a peer's) or is our own.

X.690 gives the encoding, RFC 5280 section 4.1 the structure.
"""

import ssl
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

_SEQUENCE, _SET, _BOOLEAN = 0x30, 0x31, 0x01
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _EXTENSIONS, _URI, _ISSUER_KEY = 0xA0, 0xA3, 0x86, 0x80
_ATTRIBUTES = {b"\x55\x04\x03": "CN", b"\x55\x04\x0a": "O", b"\x55\x04\x0b": "OU"}
_KEY_USAGE, _ALT_NAME, _CONSTRAINTS = b"\x55\x1d\x0f", b"\x55\x1d\x11", b"\x55\x1d\x13"
_KEY_ID, _ISSUER_KEY_ID = b"\x55\x1d\x0e", b"\x55\x1d\x23"
# keyCertSign (bit 5) and cRLSign (bit 6) of KeyUsage, RFC 5280 section 4.2.1.3.
_SIGNS = 0b0000_0110


class CertificateError(ValueError):
    """Bytes are not a certificate that can be used; says why."""


class Facts(NamedTuple):
    """
    Attributes:
        uris: The URI subject alternative names, as they are.
        not_before: Seconds since the epoch.
        not_after: Seconds since the epoch.
        authority: Whether it may sign others (CA:TRUE, or a key usage that says so).
        serial: In hexadecimal.
        issuer: Whose key signed it, such as ``CN=mesh.local``.
        subject: Whose it is; of a workload's certificate empty, its name is among the URIs.
        key_id: A name for its own key; empty where it has none.
        issuer_key_id: … and for the one that signed it.
    """

    uris: tuple[str, ...]
    not_before: float
    not_after: float
    authority: bool
    serial: str
    issuer: str
    subject: str
    key_id: bytes
    issuer_key_id: bytes


class _Value(NamedTuple):
    tag: int
    content: bytes


def read(der: bytes) -> Facts:
    """
    Read one certificate.

    Raises:
        CertificateError: It is not one.
    """
    try:
        (certificate,) = _values(der)
        to_be_signed = next(_inside(certificate, _SEQUENCE))
        fields = [v for v in _inside(to_be_signed, _SEQUENCE) if v.tag != _VERSION]
        serial, _algorithm, issuer, validity, subject, *rest = fields
        not_before, not_after = (_time(value) for value in _inside(validity, _SEQUENCE))
        extensions = dict(_extensions(rest))
        return Facts(
            uris=tuple(_uris(extensions.get(_ALT_NAME))),
            not_before=not_before,
            not_after=not_after,
            authority=_may_sign(extensions),
            serial=f"{int.from_bytes(serial.content, signed=True):x}",
            issuer=_name(issuer),
            subject=_name(subject),
            key_id=_key_id(extensions.get(_KEY_ID)),
            issuer_key_id=_issuer_key_id(extensions.get(_ISSUER_KEY_ID)),
        )
    except (ValueError, IndexError, StopIteration) as error:
        raise CertificateError(f"not an X.509 certificate: {error}") from error


def leaf(pem: str) -> bytes:
    """
    Return the first certificate of a chain as DER.

    Raises:
        CertificateError: There is none.
    """
    first = next(chain(pem), None)
    if first is None:
        raise CertificateError("expected a certificate in PEM form")
    return first


def chain(pem: str) -> Iterator[bytes]:
    """
    Yield every certificate in a text as DER.

    Raises:
        CertificateError: What stands between the marks of one is not base64.
    """
    end = 0
    while (start := pem.find(ssl.PEM_HEADER, end)) >= 0:
        end = pem.find(ssl.PEM_FOOTER, start)
        if end < 0:
            return
        end += len(ssl.PEM_FOOTER)
        try:
            yield ssl.PEM_cert_to_DER_cert(pem[start:end])
        except ValueError as error:
            raise CertificateError(f"expected a certificate in PEM form: {error}") from error


def above(der: bytes, pool: Iterable[bytes]) -> list[bytes]:
    """
    Return those of `pool` that stand above a certificate, its issuer first, up to a root.

    As the certificates say it themselves, by names and, where both sides tell it, by the key (RFC
    5280 section 4.2.1.1).  No signature is verified; nothing is returned where that leaves a choice.

    Raises:
        CertificateError: One of them is not a certificate.
    """
    known = [(read(other), other) for other in pool]
    found: list[bytes] = []
    facts = read(der)
    while facts.issuer != facts.subject:
        issuers = [one for one in known if _may_have_signed(one[0], facts)]
        if len(issuers) > 1:
            return []  # only the signature would tell
        if not issuers:
            break
        [issuer] = issuers
        known.remove(issuer)  # two that name each other would be followed for ever
        facts, other = issuer
        found.append(other)
    return found


def _may_have_signed(one: Facts, facts: Facts) -> bool:
    if one.subject != facts.issuer:
        return False
    return not (one.key_id and facts.issuer_key_id) or one.key_id == facts.issuer_key_id


def _values(data: bytes) -> Iterator[_Value]:
    """Yield the values that stand one after another in `data` (X.690 section 8.1)."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            width = length & 0x7F
            length, at = int.from_bytes(data[at : at + width]), at + width
        if at + length > len(data):
            raise CertificateError("a value is longer than what holds it")
        yield _Value(tag, data[at : at + length])
        at += length


def _inside(value: _Value, tag: int) -> Iterator[_Value]:
    if value.tag != tag:
        raise CertificateError(f"expected tag {tag:#x}, found {value.tag:#x}")
    return _values(value.content)


def _time(value: _Value) -> float:
    text = value.content.decode("ascii")
    if value.tag == _UTC_TIME:
        # RFC 5280 section 4.1.2.5.1: 50 and above means 19xx.
        text = ("19" if text[:2] >= "50" else "20") + text
    elif value.tag != _GENERALIZED_TIME:
        raise CertificateError("expected a time")
    # RFC 5280 section 4.1.2.5: always in GMT and with seconds, so there is one form to read (and
    # `strptime`, which knows all, would be 5 ms of a sidecar's start).
    if len(text) != 15 or not text[:14].isdigit() or text[14] != "Z":
        raise CertificateError(f"expected a time, found {text!r}")
    return datetime.fromisoformat(f"{text[:8]}T{text[8:]}").timestamp()


def _name(value: _Value) -> str:
    """Write a distinguished name as RFC 4514 does, most specific part first, without escapes."""
    parts = []
    for relative in _inside(value, _SEQUENCE):
        for attribute in _inside(relative, _SET):
            kind, text = _inside(attribute, _SEQUENCE)
            label = _ATTRIBUTES.get(kind.content, kind.content.hex())
            parts.append(f"{label}={text.content.decode(errors='replace')}")
    return ",".join(reversed(parts))


def _extensions(fields: list[_Value]) -> Iterator[tuple[bytes, bytes]]:
    for field in fields:
        if field.tag != _EXTENSIONS:
            continue
        (sequence,) = _values(field.content)
        for extension in _inside(sequence, _SEQUENCE):
            name, *_critical, value = _inside(extension, _SEQUENCE)
            yield name.content, value.content


def _uris(names: bytes | None) -> Iterator[str]:
    if names is None:
        return
    (sequence,) = _values(names)
    for name in _inside(sequence, _SEQUENCE):
        if name.tag == _URI:
            yield name.content.decode("ascii")


def _key_id(extension: bytes | None) -> bytes:
    return next((value.content for value in _values(extension or b"")), b"")


def _issuer_key_id(extension: bytes | None) -> bytes:
    for value in _values(extension or b""):
        for part in _inside(value, _SEQUENCE):
            if part.tag == _ISSUER_KEY:
                return part.content
    return b""


def _may_sign(extensions: dict[bytes, bytes]) -> bool:
    for value in _values(extensions.get(_CONSTRAINTS, b"")):
        if any(v.tag == _BOOLEAN and v.content != b"\0" for v in _inside(value, _SEQUENCE)):
            return True
    # A BIT STRING begins with the number of unused bits in its last byte.
    return any(
        len(v.content) > 1 and bool(v.content[1] & _SIGNS)
        for v in _values(extensions.get(_KEY_USAGE, b""))
    )
