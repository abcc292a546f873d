"""
The small grammars that fields of many kinds share: names, labels, header names, regular expressions.

Each function returns what is wrong with a value and what was expected, or None.
"""

import ipaddress
import re

import re2

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_PORT_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LABEL_PART = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"[^\x00\r\n]*")
# HTTPPathMatch and HTTPPathModifier: characters of RFC 3986 §3.3, percent-encoding included.
_PATH = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*")

_options = re2.Options()
_options.log_errors = False


def dns_label(text: str) -> str | None:
    """RFC 1123: names of namespaces and workloads."""
    if len(text) <= 63 and _DNS_LABEL.fullmatch(text):
        return None
    return (
        f"{_quoted(text)} is not a DNS label (RFC 1123), expected at most 63 of a-z, 0-9 and -, "
        "with a letter or digit first and last"
    )


def service_name(text: str) -> str | None:
    """RFC 1035: a Service's name is a DNS name and begins with a letter."""
    if len(text) <= 63 and _SERVICE.fullmatch(text):
        return None
    return (
        f"{_quoted(text)} is not a DNS label (RFC 1035), expected at most 63 of a-z, 0-9 and -, "
        "with a letter first and no - last"
    )


def dns_name(text: str) -> str | None:
    """RFC 1123: names of all other resources, labels with dots between them."""
    if len(text) <= 253 and all(_DNS_LABEL.fullmatch(part) for part in text.split(".")):
        return None
    return (
        f"{_quoted(text)} is not a DNS name (RFC 1123), expected at most 253 of a-z, 0-9, - and ., "
        "with a letter or digit at both ends of each part"
    )


def hostname(text: str) -> str | None:
    """PreciseHostname: a DNS name that is no address, without wildcard or port."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return dns_name(text)
    return f"{_quoted(text)} is an address, expected a DNS name"


def port_name(text: str) -> str | None:
    """IANA_SVC_NAME, as Kubernetes asks of container ports."""
    letter = any(char.isalpha() for char in text)
    if len(text) <= 15 and letter and _PORT_NAME.fullmatch(text):
        return None
    return (
        f"{_quoted(text)} is not a port name, expected at most 15 of a-z, 0-9 and single -, "
        "with at least one letter"
    )


def label_key(text: str) -> str | None:
    prefix, slash, name = text.rpartition("/")
    if len(name) <= 63 and _LABEL_PART.fullmatch(name) and not (slash and dns_name(prefix)):
        return None
    return f"{_quoted(text)} is not a label key, expected such as app or example.com/app"


def app_protocol(text: str) -> str | None:
    """A qualified name, as the API server asks: an IANA service name, or one with a prefix."""
    if label_key(text) is None:
        return None
    return (
        f"{_quoted(text)} is not a protocol's name, expected such as http, grpc, tcp or "
        "kubernetes.io/h2c"
    )


def label_value(text: str) -> str | None:
    if not text or (len(text) <= 63 and _LABEL_PART.fullmatch(text)):
        return None
    return (
        f"{_quoted(text)} is not a label value, expected at most 63 letters, digits, -, _ and ., "
        "with a letter or digit first and last"
    )


def header_name(text: str) -> str | None:
    """RFC 9110 §5.1: a field name is a token.  Names with a colon are not for users to touch."""
    if len(text) <= 256 and _TOKEN.fullmatch(text):
        return None
    return f"{_quoted(text)} is not a header name, expected at most 256 token characters (RFC 9110)"


def header_value(text: str) -> str | None:
    """RFC 9110 §5.5: CR, LF and NUL would let a value become a header, or a request, of its own."""
    if not _FIELD_VALUE.fullmatch(text):
        return f"{_quoted(text)} contains CR, LF or NUL, expected a value on one line"
    if len(text) > 4096:
        return f"is {len(text)} characters long, expected at most 4096"
    if not text.isascii() and not _is_latin1(text):
        return f"{_quoted(text)} has characters that a header cannot carry, expected ISO 8859-1"
    return None


def _is_latin1(text: str) -> bool:
    return all(ord(char) < 256 for char in text)


def regular_expression(text: str) -> str | None:
    """RE2: the syntax without backtracking, so that no pattern can stall a proxy."""
    if len(text) > 1024:
        return f"is {len(text)} characters long, expected a regular expression of at most 1024"
    try:
        re2.compile(text, _options)
    except UnicodeEncodeError:
        return f"{_quoted(text)} is not Unicode text, expected a regular expression (RE2 syntax)"
    except re2.error as error:
        reason = error.args[0] if error.args else "cannot be compiled"
        reason = reason.decode() if isinstance(reason, bytes) else str(reason)
        return f"{_quoted(text)} is not a regular expression (RE2 syntax): {reason}"
    return None


def path(text: str) -> str | None:
    """
    A path that is compared as a whole or by segments.

    The Gateway API's rules for Exact and PathPrefix values (httproute_types.go): absolute, and
    normal, since a proxy compares after normalization and could never meet the rest.
    """
    if not text.startswith("/"):
        return f'{_quoted(text)} is not absolute, expected a path that starts with "/"'
    if len(text) > 1024:
        return f"is {len(text)} characters long, expected at most 1024"
    for part in ("//", "/./", "/../", "%2f", "%2F", "#"):
        if part in text:
            return f'{_quoted(text)} contains "{part}", expected a normalized path'
    for end in ("/..", "/."):
        if text.endswith(end):
            return f'{_quoted(text)} ends with "{end}", expected a normalized path'
    if not _PATH.fullmatch(text):
        return f"{_quoted(text)} has characters that a path cannot have (RFC 3986), percent-encode"
    return None


def query(text: str) -> str | None:
    """RFC 3986 section 3.4, without the question mark before it."""
    if all(_PATH.fullmatch(part) for part in text.split("?")):
        return None
    return f"{_quoted(text)} has characters that a query cannot have (RFC 3986), percent-encode"


def _quoted(text: str) -> str:
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return '"' + "".join(char if char.isprintable() else repr(char)[1:-1] for char in shown) + '"'
