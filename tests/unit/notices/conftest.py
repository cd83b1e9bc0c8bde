"""Real mail servers on the loopback, with and without TLS."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nightglass.config import Notices, Smtp
from tests.ports import free_port


@dataclass
class Post:
    """What a server got, and what it shall refuse: an aiosmtpd handler."""

    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)
    refuse_data: int = 0
    secure: list[bool] = field(default_factory=list)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refuse:
            return "550 no such person"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuse_data:
            self.refuse_data -= 1
            return "451 come back later"
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        self.recipients.append(list(envelope.rcpt_tos))
        self.secure.append(session.ssl is not None)
        return "250 taken"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate and its key for 127.0.0.1, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nightglass test")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def post() -> Post:
    return Post()


Serve = Callable[[str], Notices]


@pytest.fixture
def serve(post: Post, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a mail server of a security and return the configuration that fits; its password is right."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    running: list[Controller] = []

    def authenticate(server: SMTP, session: Session, envelope: Envelope, kind: str, data: LoginPassword) -> AuthResult:
        return AuthResult(success=data == LoginPassword(b"observer", b"secret"), handled=False)

    def start(security: str) -> Notices:
        context = None
        if security != "none":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        options = {"authenticator": authenticate, "auth_require_tls": security == "starttls", "ready_timeout": 60}
        port = free_port()
        if security == "tls":
            controller = Controller(post, hostname="127.0.0.1", port=port, ssl_context=context, **options)
        else:
            controller = Controller(post, hostname="127.0.0.1", port=port, tls_context=context, **options)
        controller.start()
        running.append(controller)
        smtp = Smtp(host="127.0.0.1", port=port, security=security, user="observer", password="secret", timeout_s=60)  # type: ignore[arg-type]
        return Notices(mail_from="night@example.org", mail_to=("a@example.org", "b@example.org"), smtp=smtp, retry_s=10)

    yield start
    for controller in running:
        controller.stop()
