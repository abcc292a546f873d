"""An SMTP server, which speaks first, and the standard library's client, through two sidecars."""

import asyncio
import smtplib
import ssl
from collections.abc import AsyncIterator
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiosmtpd.smtp import SMTP

from tests.helpers.certificates import tls_server
from tests.helpers.services import Service, Services
from tests.interop.witness import BODY, sha

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

DOORS = ["tcp", "detect"]


class Mailbox:
    """
    Attributes:
        port: Of its server.
        letters: What was delivered: from, to, the hash of the content, and whether it came in TLS.
    """

    def __init__(self) -> None:
        self.port = 0
        self.letters: list[tuple[str, list[str], str, bool]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        secret = session.ssl is not None
        self.letters.append((envelope.mail_from, envelope.rcpt_tos, sha(envelope.content), secret))
        return "250 OK"


Mesh = tuple[Services, Mailbox, Path]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    directory = tmp_path_factory.mktemp("smtp")
    certificate, key = tls_server(directory, "mail.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    mailbox = Mailbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(mailbox, hostname="mail.example", tls_context=context, loop=loop),
        "127.0.0.1",
    )
    port = mailbox.port = server.sockets[0].getsockname()[1]
    services = Services(directory, [Service(door, port, door) for door in DOORS])  # type: ignore[arg-type]
    await asyncio.to_thread(services.__enter__)
    yield services, mailbox, certificate
    await asyncio.to_thread(services.__exit__)
    server.close()


@pytest.mark.parametrize("secret", [False, True], ids=["plain", "STARTTLS"])
@pytest.mark.parametrize("door", DOORS)
async def test_letters(mesh: Mesh, door: str, secret: bool) -> None:
    """
    The banner comes at once, and letters arrive as they do without a mesh; also in TLS that is
    begun on the way.
    """
    services, mailbox, certificate = mesh
    mailbox.letters.clear()
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = "a@example", "b@example", "a picture"
    letter.add_attachment(BODY, maintype="image", subtype="png")

    content = letter.as_bytes(policy=SMTP_POLICY)

    def send(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=20) as it:
            if secret:
                context = ssl.create_default_context(cafile=str(certificate))
                context.check_hostname = False
                assert it.starttls(context=context)[0] == 220
            for _ in range(3):
                it.sendmail("a@example", ["b@example"], content)

    await asyncio.to_thread(send, mailbox.port)
    straight = mailbox.letters.copy()
    assert [secret for *_, secret in straight] == [secret] * 3
    mailbox.letters.clear()
    await asyncio.to_thread(send, services.doors[door])
    assert mailbox.letters == straight
