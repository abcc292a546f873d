"""
The secret that all proxies of the mesh share: tokens of persistent sessions are made with it.

It is made at first start and kept beside the authority's keys, 0600.  Not derived from them: roots
rotate, and sessions shall not end for that.  Control planes that serve the same mesh need the same
file, as they need the same authority.
"""

import secrets
from pathlib import Path

from meshproxy import private_file
from meshproxy.contract.wire import ContractError
from meshproxy.policies.load_balancing.tokens import secret_of

_SIZE = 32


def session_secret(path: Path) -> str:
    """
    Return the secret in `path`, in hexadecimal; make one at first start.

    Raises:
        PrivateFileError: The file cannot be used, or holds something else.
    """
    data = private_file.read(path)
    if data is None:
        secret = secrets.token_hex(_SIZE)
        private_file.write(path, secret.encode() + b"\n")
        return secret
    secret = data.decode("ascii", "replace").strip()
    try:
        secret_of(secret, str(path))
    except ContractError as error:
        raise private_file.PrivateFileError(str(error)) from error
    return secret
