"""
SPIFFE IDs: how a workload is called, on certificates and in configuration.

    spiffe://mesh.local/ns/default/sa/catalog
             trust domain  path

The rules are those of the SPIFFE-ID standard, taken strictly: an ID that could be spelled in two
ways is refused, so that comparing strings is comparing identities.  Pure; time and network free.
"""

import re
from typing import NamedTuple

# SPIFFE-ID section 2: "a SPIFFE ID ... MUST NOT exceed 2048 bytes"; 2.1: trust domain, 255 bytes.
_LONGEST = 2048
_LONGEST_TRUST_DOMAIN = 255
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_SCHEME = "spiffe://"


class SpiffeError(ValueError):
    """A text is not a SPIFFE ID, or not one of the shape that is needed; says why."""


class SpiffeId(NamedTuple):
    """
    One identity.

    Attributes:
        trust_domain: Whose authority vouches for it, such as ``mesh.local``.
        path: Empty (the trust domain itself), or with a leading slash.
    """

    trust_domain: str
    path: str = ""

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}{self.path}"

    @classmethod
    def parse(cls, text: str) -> "SpiffeId":
        """
        Read any SPIFFE ID.

        Raises:
            SpiffeError: It breaks a rule of the standard.
        """
        if not text.startswith(_SCHEME):
            raise SpiffeError(f"{text!r}: expected spiffe://<trust domain>/<path>")
        if len(text.encode(errors="replace")) > _LONGEST:
            raise SpiffeError(f"a SPIFFE ID has at most {_LONGEST} bytes")
        trust_domain, slash, path = text[len(_SCHEME) :].partition("/")
        check_trust_domain(trust_domain)
        if slash:
            for segment in path.split("/"):
                _check_segment(segment, text)
        return cls(trust_domain, slash + path)

    @classmethod
    def of(cls, trust_domain: str, namespace: str, service_account: str) -> "SpiffeId":
        """
        Return the identity of a service account.

        Raises:
            SpiffeError: One of the parts cannot stand in a SPIFFE ID.
        """
        check_trust_domain(trust_domain)
        for part in (namespace, service_account):
            _check_segment(part, part)
        return cls(trust_domain, f"/ns/{namespace}/sa/{service_account}")

    @classmethod
    def parse_service_account(cls, text: str) -> "SpiffeId":
        """
        Read an ID of the shape ``spiffe://<trust domain>/ns/<namespace>/sa/<service account>``.

        Raises:
            SpiffeError: It is another kind of ID, or none.
        """
        parsed = cls.parse(text)
        if parsed.service_account is None:
            raise SpiffeError(f"{text!r}: expected the path /ns/<namespace>/sa/<service account>")
        return parsed

    @property
    def service_account(self) -> tuple[str, str] | None:
        """Namespace and service account, or None when the path has another shape."""
        match self.path.split("/"):
            case ["", "ns", namespace, "sa", account]:
                return namespace, account
        return None


def check_trust_domain(name: str) -> None:
    """
    Check the name of a trust domain.

    Raises:
        SpiffeError: Upper case, a port, a user, an empty or too long name…
    """
    if not _TRUST_DOMAIN.fullmatch(name) or len(name) > _LONGEST_TRUST_DOMAIN:
        raise SpiffeError(
            f"{name!r}: a trust domain consists of lower-case letters, digits, dots, dashes and"
            f" underscores, at most {_LONGEST_TRUST_DOMAIN}"
        )


def _check_segment(segment: str, text: str) -> None:
    # SPIFFE-ID section 2.2: no empty segment, no relative one, nothing percent-encoded.
    if segment in ("", ".", "..") or not _SEGMENT.fullmatch(segment):
        raise SpiffeError(
            f"{text!r}: expected path segments of letters, digits, dots, dashes and underscores"
        )
