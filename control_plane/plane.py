"""
The composition root: which parts the control plane has, and how they hang together.

    files ─▶ store ─▶ changed ─▶ discovery ─▶ snapshot_for(workload) = generate(state, …) ─▶ proxies
                                 enrolment ─▶ attestation, authority ─▶ certificates
                                 api       ─▶ reads from all of them
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

import msgspec
from aiohttp import web

from meshproxy import __version__, private_file
from meshproxy.contract import wire
from meshproxy.contract.resources import Snapshot, TrustSpec
from meshproxy.contract.spiffe import SpiffeError, SpiffeId
from meshproxy.contract.wire import ContractError

from .access import OPERATE_TOKEN, VIEW_TOKEN, Access, token
from .admission import Admission
from .api import Api
from .attestation import Attestation, RateLimit, Renewal
from .authority import Authority, AuthorityError
from .certificates_api import CertificatesApi
from .config import Config
from .discovery import Discovery
from .enrolment import Enrolment
from .gate import Gate
from .generate.endpoints import identity as identity_in
from .generate.snapshot import generate
from .join_tokens import JoinTokens
from .key_sets import KeySets
from .metrics import Metrics
from .new_issuers import NewIssuers
from .outline_api import OutlineApi
from .resources.duration import milliseconds
from .resources.model import DEFAULT_MESH, MeshConfig
from .revocation import Revocations
from .rotation import Guide, Holder, holders
from .server_certificate import ServerCertificate
from .service_account_tokens import ApiServer, ServiceAccountTokens
from .session_secret import session_secret
from .signer import Given
from .sources.files import FilesSource
from .store import State, Store

log = logging.getLogger(__name__)


class StartError(Exception):
    """The control plane cannot start; says why."""


class Plane:
    """
    Attributes:
        ports: Of discovery and API, once they listen (a configured 0 means any free port).
    """

    def __init__(self, config: Config) -> None:
        """
        Open what an earlier run has left, and read the resources.

        Raises:
            StartError: Something that it cannot do without is damaged or not accessible.
        """
        self.ports: tuple[int, int] | None = None
        self._config = config
        self._store = Store()
        with _start_errors():
            state = private_file.directory(config.state)
            self._source = FilesSource(
                list(config.files), self._store, state / "accepted", config.placements
            )
            self._source.load()
            trust_domain = self._mesh.spec.trust_domain
            self._authority = Authority(state / "authority", trust_domain, given=_given(config))
            self._revocations = Revocations(state / "authority" / "revoked.json")
            self._session_secret = session_secret(state / "authority" / "session-secret")
            self._tokens = JoinTokens(state / "tokens.json")
            self._identity = SpiffeId.of(trust_domain, "mesh-system", "control-plane")
            self._certificate = ServerCertificate(
                self._authority,
                self._identity,
                state / "control-plane.pem",
            )
            access = Access(
                operate=token(state / OPERATE_TOKEN),
                view=token(state / VIEW_TOKEN),
                operators=config.access.operators,
                viewers=config.access.viewers,
                revoked=self._revocations,
            )
        self._metrics = Metrics()
        self._key_sets = KeySets(state / "key-sets", config.files)
        self._new_issuers = NewIssuers(self._key_sets)
        self._follow_keys(self._store.state)
        self._metrics.watch_key_sets(self._key_sets.figures)
        self._enrolment = Enrolment(
            authority=self._authority,
            attestation=Attestation(
                self._tokens,
                Renewal(),
                RateLimit(),
                service_accounts=_service_accounts(config),
                revoked=self._revocations,
            ),
            identity_of=self._identity_of,
            lifetime=self._lifetime,
            metrics=self._metrics,
        )
        self._discovery = Discovery(
            trust_domain=trust_domain,
            identity_of=self._identity_of,
            snapshot_for=self._snapshot_for,
            metrics=self._metrics,
            revoked=self._revocations,
        )
        self._guide = Guide(self._authority, self._waited_for, self._lifetime)
        self._api = Api(
            gate=Gate(access, trust_domain, self._metrics.api_refused, config.access.hosts),
            state=self._state,
            proxies=self._discovery.proxies,
            identity_of=self._identity_of,
            snapshot_for=self._snapshot_for,
            authority=self._authority,
            tokens=self._tokens,
            metrics=self._metrics,
            revoked=self._revocations,
            revocations=lambda: self._revocations.entries,
            parts=[
                CertificatesApi(
                    authority=self._authority,
                    guide=self._guide,
                    holders=self._holders,
                    identity_of=self._identity_of,
                    revocations=self._revocations,
                    own=self._identity,
                ),
                OutlineApi(lambda: self._store.state),
            ],
        )
        self._metrics.watch_authority(self._figures)

    async def run(self, stop: asyncio.Event) -> None:
        """
        Serve until `stop` is set.

        Raises:
            StartError: A port is taken.
        """
        self._store.subscribe(self._follow_keys)  # before the proxies are told
        self._store.subscribe(lambda _state: self._discovery.changed())
        self._key_sets.on_changed = self._on_keys_changed
        self._new_issuers.on_over = self._discovery.changed
        self._authority.on_changed = self._on_trust_changed
        self._revocations.on_changed = self._on_revocations_changed
        async with self._serving(), asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._source.run()),
                tasks.create_task(self._key_sets.run()),
                tasks.create_task(self._new_issuers.run()),
                tasks.create_task(self._discovery.run()),
                tasks.create_task(self._certificate.keep()),
                tasks.create_task(self._guide.run()),
            ]
            log.info(
                "ready: version %s, trust domain %s", __version__, self._authority.trust_domain
            )
            await stop.wait()
            for task in running:
                task.cancel()
        log.info("stopped")

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        conversations = web.Application()
        conversations.router.add_get("/v1/identity", self._enrolment.handle)
        conversations.router.add_get("/v1/discovery", self._discovery.handle)
        for_api = self._certificate.context if self._config.access.tls else None
        # The API comes last: who finds it ready finds the rest ready too.
        runners: list[web.AppRunner] = []
        servers: list[asyncio.Server] = []
        try:
            for app, place, context in (
                (conversations, self._config.discovery, self._certificate.context),
                (self._api.application(), self._config.api, for_api),
            ):
                admission = Admission()
                app.middlewares.insert(0, admission.heard)
                runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
                await runner.setup()
                runners.append(runner)
                assert runner.server is not None
                try:
                    servers.append(await admission.listen(runner.server, place, context))
                except OSError as error:
                    raise StartError(
                        f"cannot listen on {place.address}:{place.port}: {error.strerror}"
                    ) from error
            discovery, api = (server.sockets[0].getsockname()[1] for server in servers)
            self.ports = (discovery, api)
            yield
        finally:
            for server in servers:
                server.close()
            self._discovery.close()
            for runner in runners:
                await runner.cleanup()

    # What the parts ask one another -----------------------------------------------------------

    @property
    def _mesh(self) -> MeshConfig:
        return self._store.state.mesh_config or DEFAULT_MESH

    def _state(self) -> State:
        """Return the state in force, with the findings that do not come from the files alone."""
        state = self._store.state
        state = msgspec.structs.replace(
            state,
            findings=(
                *state.findings,
                *self._key_sets.findings(),
                *self._new_issuers.findings(),
            ),
        )
        wanted = self._mesh.spec.trust_domain
        if wanted == self._authority.trust_domain:
            return state
        finding = state.finding(
            "MeshConfig",
            f"{self._mesh.metadata.namespace}/{self._mesh.metadata.name}",
            "spec.trustDomain",
            "the trust domain is fixed once the authority exists,"
            f" expected {self._authority.trust_domain!r}, found {wanted!r}",
        )
        return msgspec.structs.replace(state, findings=(*state.findings, finding))

    def _identity_of(self, workload: str) -> SpiffeId | None:
        found = self._store.state.workloads.get(workload)
        if found is None:
            return None
        try:
            identity = SpiffeId.parse_service_account(identity_in(found, self._mesh))
        except SpiffeError:
            return None
        # Who may write a Workload could else have a sidecar that passes for the control plane.
        return None if identity == self._identity else identity

    def _snapshot_for(self, workload: str) -> Snapshot | None:
        state = self._store.state
        # In a trust domain that is not the authority's nobody could prove who he is.
        if (
            workload not in state.workloads
            or self._mesh.spec.trust_domain != self._authority.trust_domain
        ):
            return None
        view = self._new_issuers.view(workload)
        if view is None:
            return None
        return generate(view.state, workload, self._trust(), view.key_sets)

    def _trust(self) -> TrustSpec:
        return TrustSpec(
            trust_domain=self._authority.trust_domain,
            roots=self._authority.roots(),
            session_secret=self._session_secret,
            revoked=self._revocations.identities(),
        )

    def _follow_keys(self, state: State) -> None:
        self._key_sets.follow(state)
        self._new_issuers.follow(state)

    def _on_keys_changed(self) -> None:
        self._new_issuers.follow(self._store.state)
        self._discovery.changed()

    def _on_trust_changed(self) -> None:
        self._certificate.follow()
        self._discovery.changed()

    def _on_revocations_changed(self) -> None:
        self._discovery.cut()
        self._discovery.changed()

    def _holders(self) -> list[Holder]:
        return holders(
            self._authority.ledger.last,
            self._discovery.proxies,
            lambda workload: self._identity_of(workload) is not None,
            wire.resource_version(self._trust()),
        )

    def _waited_for(self) -> list[Holder]:
        # Who is revoked cannot acknowledge anything, and nobody speaks with it.
        return [
            holder
            for holder in self._holders()
            if self._identity_of(holder.workload) not in self._revocations
        ]

    def _figures(self) -> dict[str, float]:
        signer, rotation = self._authority.signer, self._authority.rotation
        return {
            "mesh_authority_root_expiry_timestamp_seconds":
                signer.root.not_valid_after_utc.timestamp(),
            "mesh_authority_issuer_expiry_timestamp_seconds":
                signer.chain[0].not_valid_after_utc.timestamp(),
            "mesh_authority_rotation_age_seconds":
                0.0 if rotation is None else time.time() - rotation.started,
            "mesh_authority_rotation_lagging": len(self._guide.lagging()),
            "mesh_authority_revoked_identities": len(self._revocations),
        }  # fmt: skip

    def _lifetime(self) -> timedelta:
        return timedelta(milliseconds=milliseconds(self._mesh.spec.certificates.lifetime))


def _given(config: Config) -> Given | None:
    own = config.authority
    return None if own is None else Given(own.root, own.certificate, own.key)


def _service_accounts(config: Config) -> ServiceAccountTokens | None:
    asked = config.kubernetes
    if asked is None:
        return None
    reviewer = ApiServer(asked.api_server, asked.token, asked.roots)
    return ServiceAccountTokens(reviewer, asked.audience)


@contextmanager
def _start_errors() -> Iterator[None]:
    try:
        yield
    except (private_file.PrivateFileError, AuthorityError, ContractError, SpiffeError) as error:
        raise StartError(str(error)) from error
