"""
Does a sidecar need a join token?

A token is proof for the first certificate only: a sidecar that has one renews with it.  So a
token is asked for, and lies on disk, only where the sidecar's state holds no certificate of the
right identity with some life left.
"""

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

MARGIN = timedelta(seconds=30)
"""A certificate needs some life left: its owner must start and renew it before it ends."""


def has_certificate(state: Path, identity: str, now: datetime) -> bool:
    """Say whether one of the PEM files of a state directory certifies `identity` beyond `now`."""
    return any(_certifies(path, identity, now) for path in sorted(state.glob("*.pem")))


def _certifies(path: Path, identity: str, now: datetime) -> bool:
    try:
        leaf = x509.load_pem_x509_certificates(path.read_bytes())[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False  # a key, a root, or half a file: nothing to start with
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris == [identity] and leaf.not_valid_after_utc > now + MARGIN
