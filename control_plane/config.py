"""
The control plane's own configuration: one file, JSON or YAML, strict.

    state: DIR              # everything it keeps: authority, tokens, what it accepted last
    files: [PATH…]          # files and folders of resources, watched
    placements: FILE        # where workloads run; none in a cluster
    discovery: {address: 127.0.0.1, port: 15012}
    api: {address: 127.0.0.1, port: 15014}
    access:                 # of the API; these are the defaults
      tls: false            # with the control plane's own certificate
      hosts: []             # names, besides addresses, under which it may be asked for
      operators: []         # SPIFFE IDs whose certificates may act…
      viewers: []           # …or look; both need tls
    log_level: info
    authority:              # your own root; without it the control plane makes one
      root: FILE            # PEM
      certificate: FILE     # PEM: the issuing certificate, what is between it and the root after it
      key: FILE             # PEM, mode 0600: the issuing certificate's
    kubernetes:             # service account tokens prove who asks; without it they do not
      api_server: URL       # what follows are the defaults
      audience: meshproxy
      token: /var/run/secrets/kubernetes.io/serviceaccount/token
      roots: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt

Paths are relative to the file.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta, Struct

from meshproxy.contract import wire
from meshproxy.contract.spiffe import SpiffeError, SpiffeId


class ConfigError(Exception):
    """The configuration cannot be used; names the file, the field and what was expected."""


class _Part(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the structures below: strict about unknown fields."""


class Listen(_Part, frozen=True, kw_only=True):
    """Where to listen; port 0 is any free one."""

    port: Annotated[int, Meta(ge=0, le=65535)]
    address: Annotated[str, Meta(min_length=1)] = "127.0.0.1"


class ApiAccess(_Part, frozen=True, kw_only=True):
    """
    Who may use the API besides the owners of its two tokens.

    Attributes:
        tls: Speak TLS, with the control plane's own certificate.
        hosts: Names under which it may be asked for; addresses and localhost always may.
        operators: SPIFFE IDs whose certificates may act.
        viewers: SPIFFE IDs whose certificates may look.
    """

    tls: bool = False
    hosts: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    operators: tuple[str, ...] = ()
    viewers: tuple[str, ...] = ()


class OwnAuthority(_Part, frozen=True, kw_only=True):
    """An operator's own root and issuing certificate; the root's key stays where it is."""

    root: Path
    certificate: Path
    key: Path


_SECRETS = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Kubernetes(_Part, frozen=True, kw_only=True):
    """
    Where service account tokens are reviewed.

    Attributes:
        audience: For which a pod's token must be meant.
        token: With which we may ask.
        roots: That vouch for the API server; None over plain HTTP.
    """

    api_server: Annotated[str, Meta(pattern="^https?://")] = "https://kubernetes.default.svc"
    audience: Annotated[str, Meta(min_length=1)] = "meshproxy"
    token: Path = _SECRETS / "token"
    roots: Path | None = _SECRETS / "ca.crt"


class Config(_Part, frozen=True, kw_only=True):
    state: Path
    files: Annotated[tuple[Path, ...], Meta(min_length=1)]
    placements: Path | None = None
    discovery: Listen = Listen(port=15012)
    api: Listen = Listen(port=15014)
    access: ApiAccess = ApiAccess()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    authority: OwnAuthority | None = None
    kubernetes: Kubernetes | None = None


def read(path: Path) -> Config:
    """
    Read a configuration.

    Raises:
        ConfigError: It cannot be read, or a field is wrong, missing or unknown.
    """
    try:
        # JSON is YAML, except for tabs between its tokens.
        text = path.read_text("utf-8")
        data = msgspec.json.decode(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(
            f"{path}: expected {'JSON' if path.suffix == '.json' else 'YAML'}: {error}"
        ) from None
    try:
        config = msgspec.convert(data, Config, dec_hook=_paths_relative_to(path.parent))
    except msgspec.ValidationError as error:
        located = wire.located(error, Config)
        raise ConfigError(f"{path}: {located.path or 'the whole file'}: {located.reason}") from None
    _check_access(path, config)
    return config


def _check_access(path: Path, config: Config) -> None:
    access = config.access
    for field, identities in (("operators", access.operators), ("viewers", access.viewers)):
        if identities and not access.tls:
            raise ConfigError(f"{path}: access.{field}: certificates need access.tls: true")
        for index, identity in enumerate(identities):
            try:
                SpiffeId.parse(identity)
            except SpiffeError as error:
                raise ConfigError(f"{path}: access.{field}[{index}]: {error}") from None
    if not access.tls and not _is_loopback(config.api.address):
        raise ConfigError(
            f"{path}: api.address: expected a loopback address, found {config.api.address!r}; with"
            " access.tls: true it may be another, for tokens do not travel in the clear"
        )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _paths_relative_to(folder: Path) -> Any:
    def hook(kind: type, value: Any) -> Any:
        if kind is Path and isinstance(value, str) and value:
            return folder / value
        raise ValueError(f"expected a path, found {value!r}")

    return hook
