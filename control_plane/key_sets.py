"""
The keys of token issuers that are not written in a policy: in a file beside it, or fetched.

    RequestAuthentication ─▶ jwksFile, jwksUri ─▶ here ─▶ known: (policy, issuer) → keys ─▶ generate
                                                    ├─▶ awaited: policies without their first answer
                                                    └─▶ findings, metrics, a copy on the disk

Proxies fetch nothing: an address in a policy makes one program ask it, not each sidecar.

**What is fetched is not trusted to be good, nor to be there.**  A key set counts once it has been checked
as a whole by the proxies' own code, and then until the next good one: an issuer that is away, or
answers nonsense, takes no keys from anybody.  The copy on the disk makes that hold over a restart of
the control plane.  Keys go by the place they came from: a policy that names another place begins
with that, and a host that is no longer allowed is no longer believed.

**Whoever may write a policy must not thereby make us ask what only we can reach** (server-side request
forgery).  Only hosts that the MeshConfig lists are asked, over TLS that is checked; redirects are
not followed, an answer is read up to `LARGEST` bytes and never unpacked, and of one that is no key
set nothing is repeated in a message.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from random import random
from ssl import SSLContext
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from meshproxy import private_file
from meshproxy.backoff import Backoff
from meshproxy.private_file import PrivateFileError

from . import key_files
from .key_files import KeyFileError, OutsideError
from .resources.duration import milliseconds
from .resources.finding import Finding
from .resources.model import DEFAULT_MESH
from .resources.request_authentication import problem_of_key_set
from .resources.security import JWTRule, RequestAuthentication
from .resources.security_references import allowed
from .store import State

log = logging.getLogger(__name__)

LARGEST: Final = 1 << 20
MOST_KEYS: Final = 100
WITHIN: Final = 10.0
LOOK: Final = 0.5
"""Seconds between looks at files."""
AT_ONCE: Final = 8
SHOWN: Final = 100
"""Issuers that have metrics of their own."""

_NEEDED: Final = ("kty", "use", "alg", "kid", "crv", "x", "y", "n", "e")
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members of private and symmetric keys (RFC 7518 section 6)."""


class UnusableError(Exception):
    """There is no key set to be had; says why, in words of our own."""


class ForbiddenError(UnusableError):
    """Nothing from there may be used, nor what was had from there before."""


class Place(NamedTuple):
    """Where a key set is: an address, or a file."""

    kind: str
    name: str


class _Asked(NamedTuple):
    """An issuer whose keys are elsewhere, and where."""

    policy: RequestAuthentication
    number: int
    rule: JWTRule
    place: Place


class Figure(NamedTuple):
    """
    What is known of an issuer, for metrics.

    Attributes:
        age: Seconds since its keys were last found good; None if they never were.
        failures: How often they could not be had.
    """

    issuer: str
    age: float | None
    failures: int


class _Kept(Struct, frozen=True):
    """A key set as it is kept on the disk."""

    place: str
    keys: str
    at: float


class _Held:
    """
    What is known of one place.

    Attributes:
        keys: The last good ones; empty before.
        at: When they were found good, in seconds since the epoch.
        problem: Why there are no newer ones.
        answered: It has been tried to get them, well or in vain.
    """

    def __init__(self) -> None:
        self.keys = ""
        self.at: float | None = None
        self.problem = ""
        self.failures = 0
        self.answered = False

    @property
    def awaited(self) -> bool:
        return not self.answered and not self.keys


class KeySets:
    """
    Keeps the key sets that a state asks for.

    Attributes:
        known: As `generate` wants them.
        on_changed: Called whenever `known` or `awaited` has changed by other things than the state.
    """

    def __init__(
        self,
        folder: Path,
        paths: Sequence[Path],
        *,
        refresh: float | None = None,
        look: float = LOOK,
        retry: float = 1.0,
        tls: SSLContext | bool = True,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            folder: For what is to be remembered.
            paths: Files and folders of the configuration, which a `jwksFile` may not lead out of.
            refresh: Seconds between two fetches of what is good; as the MeshConfig says by default.
            look: Seconds between two looks at a file.
            retry: Seconds that the first repetition of a fetch waits at most.
            tls: How servers are checked; the system's roots by default.
            wall: Tells the seconds since the epoch.
        """
        self.known: Mapping[tuple[str, str], str] = {}
        self.on_changed: Callable[[], None] = lambda: None
        self._folder = folder
        self._paths = tuple(paths)
        self._folders: list[Path] = []
        self._given_refresh = refresh
        self._refresh = refresh or 0.0
        self._look = look
        self._retry = retry
        self._tls = tls
        self._wall = wall
        self._state = State()
        self._asked: tuple[_Asked, ...] = ()
        self._held: dict[Place, _Held] = {}
        self._woken = asyncio.Event()
        self._room = asyncio.Semaphore(AT_ONCE)

    def __repr__(self) -> str:
        return f"<KeySets {len(self._held)} places [{len(self.known)} key sets]>"

    def follow(self, state: State) -> None:
        """Ask for what `state` wants from now on, beginning with what is remembered of it."""
        mesh = state.mesh_config or DEFAULT_MESH
        self._state = state
        self._folders = key_files.folders(self._paths, mesh)
        self._refresh = self._given_refresh or milliseconds(mesh.spec.jwks.refresh) / 1000
        self._asked = tuple(_asks(state))
        wanted = {one.place for one in self._asked}
        for place in self._held.keys() - wanted:
            del self._held[place]
            self._forget(place)
        for place in wanted - self._held.keys():
            held = self._held[place] = self._remembered(place)
            if place.kind == "file":  # at hand: nobody need wait for it
                self._note(place, held, _judged(self._read(place)))
        self._renew()
        self._woken.set()

    async def run(self) -> None:
        """Read and fetch until cancelled."""
        running: dict[tuple[Place, _Held, float], asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._woken.clear()
                wanted = {(place, held, self._refresh) for place, held in self._held.items()}
                for one in running.keys() - wanted:
                    running.pop(one).cancel()
                for one in wanted - running.keys():
                    place, held, _ = one
                    keep = self._watch if place.kind == "file" else self._fetch_again
                    running[one] = tasks.create_task(keep(place, held))
                await self._woken.wait()

    # Telling --------------------------------------------------------------------------------------

    def awaited(self) -> list[RequestAuthentication]:
        """Return the policies of which a key set is being asked for, for the first time."""
        return [one.policy for one in self._asked if self._held[one.place].awaited]

    def findings(self) -> Iterator[Finding]:
        """Yield what could not be had."""
        for policy, index, rule, place in self._asked:
            held = self._held[place]
            problem = "is asked for the first time" if held.awaited else held.problem
            if not problem:
                continue
            effect = "no token of this issuer is right until then"
            if held.at is not None:
                effect = f"the keys of {_moment(held.at)} hold until then"
            field = f"spec.jwtRules[{index}].{'jwksUri' if rule.jwks_uri else 'jwksFile'}"
            yield self._state.finding(
                policy.kind, _name(policy), field, f"{problem}; {effect}", "unresolved"
            )

    def figures(self) -> list[Figure]:
        """Return what is known of the issuers, of a bounded number of them."""
        now = self._wall()
        found: dict[str, Figure] = {}
        for _, _, rule, place in self._asked:
            held = self._held[place]
            age = None if held.at is None else max(0.0, now - held.at)
            before = found.get(rule.issuer)
            if before is None or (age is not None and age > (before.age or 0.0)):
                found[rule.issuer] = Figure(rule.issuer, age, held.failures)
        return [found[issuer] for issuer in sorted(found)[:SHOWN]]

    # Getting --------------------------------------------------------------------------------------

    async def _watch(self, place: Place, held: _Held) -> None:
        before, found = None, None
        while True:
            await asyncio.sleep(self._look)
            # Read each time, not only when its time has changed: clocks are coarse, files small.
            data = await asyncio.to_thread(self._read, place)
            if found is None or data != before:
                before, found = data, await asyncio.to_thread(_judged, data)
            if self._note(place, held, found):
                self.on_changed()

    def _read(self, place: Place) -> bytes | UnusableError:
        """Return what is in a file, or why that cannot be told."""
        try:
            return key_files.read(Path(place.name), self._folders, LARGEST + 1)
        except OutsideError as error:
            return ForbiddenError(str(error))
        except KeyFileError as error:
            return UnusableError(str(error))

    async def _fetch_again(self, place: Place, held: _Held) -> None:
        backoff = Backoff(base=self._retry, cap=self._refresh)
        while True:
            async with self._room:
                try:
                    data = await _fetch(place.name, self._tls)
                    found = await asyncio.to_thread(_judged, data)
                except UnusableError as error:
                    found = error
            if self._note(place, held, found):
                self.on_changed()
            if isinstance(found, str):
                backoff.reset()
                # Not all at the same time, and not all control planes either.
                await asyncio.sleep(self._refresh * (0.8 + 0.2 * random()))
            else:
                await asyncio.sleep(backoff.next())

    def _note(self, place: Place, held: _Held, found: str | UnusableError) -> bool:
        """Take note of an answer; say whether anything is known or awaited now that was not before."""
        awaited, held.answered = held.awaited, True
        if isinstance(found, UnusableError):
            held.failures += 1
            if held.problem != str(found):
                log.warning("keys of %r: %s", place.name, found)
            held.problem = str(found)
            if isinstance(found, ForbiddenError) and held.keys:
                held.keys, held.at = "", None
                self._forget(place)
                self._renew()
                return True
            return awaited
        held.problem = ""
        held.at = self._wall()
        same = found == held.keys
        held.keys = found
        if not same or place.kind == "uri":  # files are looked at all the time
            self._remember(place, held)
        if same:
            return awaited
        log.info("keys of %r have changed", place.name)
        before = self.known
        self._renew()
        return awaited or self.known != before

    def _renew(self) -> None:
        self.known = {
            (_name(policy), rule.issuer): held.keys
            for policy, _, rule, place in self._asked
            if (held := self._held.get(place)) is not None and held.keys
        }

    # Remembering ----------------------------------------------------------------------------------

    def _remembered(self, place: Place) -> _Held:
        held = _Held()
        try:
            data = private_file.read(self._file(place))
            if data is not None:
                kept = msgspec.json.decode(data, type=_Kept)
                if kept.place == place.name:
                    held.keys, held.at = _checked(kept.keys.encode()), kept.at
        except (PrivateFileError, msgspec.DecodeError, UnusableError) as error:
            log.warning("keys of %r: what was kept of them is not used: %s", place.name, error)
        return held

    def _remember(self, place: Place, held: _Held) -> None:
        """A full disk costs the memory of these keys, not the keys themselves."""
        kept = _Kept(place.name, held.keys, held.at or 0.0)
        try:
            private_file.directory(self._folder)
            private_file.write(self._file(place), msgspec.json.encode(kept))
        except PrivateFileError as error:
            log.warning("keys of %r could not be kept: %s", place.name, error)

    def _forget(self, place: Place) -> None:
        try:
            self._file(place).unlink(missing_ok=True)
        except OSError as error:
            log.warning("keys of %r: what was kept of them stays: %s", place.name, error)

    def _file(self, place: Place) -> Path:
        return self._folder / f"{sha256(repr(tuple(place)).encode()).hexdigest()[:32]}.json"


def _asks(state: State) -> Iterator[_Asked]:
    """Yield each issuer whose keys are elsewhere, and where."""
    mesh = state.mesh_config or DEFAULT_MESH
    for policy in state.security.values():
        if not isinstance(policy, RequestAuthentication):
            continue
        for number, rule in enumerate(policy.spec.jwt_rules):
            if rule.jwks_file is not None:
                path = key_files.place_of(policy, rule.jwks_file, state)
                yield _Asked(policy, number, rule, Place("file", str(path)))
            elif rule.jwks_uri is not None and allowed(rule.jwks_uri, mesh):
                yield _Asked(policy, number, rule, Place("uri", rule.jwks_uri))


def _name(policy: RequestAuthentication) -> str:
    return f"{policy.metadata.namespace}/{policy.metadata.name}"


# Fetching, checking ---------------------------------------------------------------------------------


def _judged(data: bytes | UnusableError) -> str | UnusableError:
    if isinstance(data, UnusableError):
        return data
    try:
        return _checked(data)
    except UnusableError as error:
        return error


async def _fetch(address: str, tls: SSLContext | bool) -> bytes:
    """
    Return what is at an address.

    Raises:
        UnusableError: No whole answer of a reasonable size came, or another than 200.
    """
    try:
        url = URL(address)
    except ValueError:
        raise UnusableError("is no URL that can be asked") from None
    if url.host != urlsplit(address).hostname:  # two readers, two hosts: an old trick
        raise UnusableError("is no URL that can be asked")
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(WITHIN),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            ) as session,
            session.get(
                url,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                allow_redirects=False,
                ssl=tls,
            ) as answer,
        ):
            return await _body(answer)
    except TimeoutError:
        raise UnusableError(f"was not answered within {WITHIN:g} s") from None
    except aiohttp.ClientConnectorCertificateError:
        raise UnusableError("was answered by a server whose certificate is not right") from None
    except aiohttp.ClientConnectorError as error:
        reason = error.os_error.strerror or "no connection"
        raise UnusableError(f"cannot be reached: {reason}") from None
    except (OSError, ValueError, aiohttp.ClientError) as error:
        raise UnusableError(f"was not answered properly ({type(error).__name__})") from None


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    if answer.status != 200:
        more = ", and redirects are not followed" if 300 <= answer.status < 400 else ""
        raise UnusableError(f"was answered with {answer.status}{more}")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnusableError("was answered in a compressed form")
    data = bytearray()
    async for piece in answer.content.iter_any():
        data += piece
        if len(data) > LARGEST:
            break
    return bytes(data)


def _checked(data: bytes) -> str:
    """
    Return the key set that `data` is, with nothing in it but what proxies need.

    Raises:
        UnusableError: It is none, or one that nobody should have published.
    """
    if len(data) > LARGEST:
        raise UnusableError(f"is larger than {LARGEST >> 20} MiB")
    listed: Any = None
    with suppress(ValueError, RecursionError):
        listed = json.loads(data)
    keys = listed.get("keys") if isinstance(listed, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise UnusableError("is not a JSON Web Key Set, expected {'keys': [ … ]}")
    if len(keys) > MOST_KEYS:
        raise UnusableError(f"has {len(keys)} keys, expected at most {MOST_KEYS}")
    for index, key in enumerate(keys):
        if _PRIVATE & key.keys():
            raise UnusableError(
                f"keys[{index}] is a private or symmetric key, which the issuer alone may have: "
                "take it for known to others, and replace it"
            )
    public = [{name: key[name] for name in _NEEDED if name in key} for key in keys]
    text = json.dumps({"keys": public}, sort_keys=True)
    if wrong := problem_of_key_set(text):
        raise UnusableError(wrong)
    return text


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
