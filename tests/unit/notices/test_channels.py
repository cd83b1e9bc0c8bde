"""Every way out, against something real at its other end."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from nightglass.config import Notices, Smtp
from nightglass.errors import Misconfigured
from nightglass.notices import Notice, Outcome, channels, send

pytestmark = pytest.mark.filterwarnings("ignore:.imghdr. is deprecated:DeprecationWarning")  # imported by apprise 1.13

NOTICE = Notice(subject="lynx: summary for 20260821", text="40 exposures reduced\n", html="<p>40</p>")


@pytest.mark.parametrize("security", ["starttls", "tls", "none"])
def test_mail_arrives_by_every_security(security: str, serve: Callable[[str], Notices], post: Any) -> None:
    config = serve(security)
    (delivery,) = send(NOTICE, config)
    assert delivery.outcome is Outcome.SENT, delivery.error
    assert post.recipients == [["a@example.org", "b@example.org"]]
    assert post.secure == [security == "starttls"]  # with "tls" nothing but TLS is spoken there
    assert post.messages[0]["Subject"] == NOTICE.subject


def changed(config: Notices, **values: object) -> Notices:
    return config.model_copy(update={"smtp": config.smtp.model_copy(update=values)})


def test_a_certificate_that_nobody_vouches_for_is_refused(
    serve: Callable[[str], Notices], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = serve("tls")
    monkeypatch.delenv("SSL_CERT_FILE")
    (delivery,) = send(NOTICE, config)
    assert delivery.outcome is Outcome.FAILED
    assert "CERTIFICATE_VERIFY_FAILED" in delivery.error
    assert "SSL_CERT_FILE" in delivery.error


def test_a_wrong_password_and_a_missing_starttls_are_named_without_the_password(
    serve: Callable[[str], Notices],
) -> None:
    (delivery,) = send(NOTICE, changed(serve("starttls"), password=SecretStr("wrong-pass")))
    assert "535" in delivery.error
    assert "wrong-pass" not in delivery.error
    (delivery,) = send(NOTICE, changed(serve("none"), security="starttls"))
    assert delivery.outcome is Outcome.FAILED
    assert "STARTTLS" in delivery.error


def test_a_password_is_not_sent_in_the_clear() -> None:
    smtp = Smtp(host="192.0.2.1", port=25, security="none", user="observer", password=SecretStr("secret"))
    config = Notices(mail_from="n@example.org", mail_to=("a@example.org",), smtp=smtp)
    (delivery,) = send(NOTICE, config)
    assert "not sent in the clear" in delivery.error


@pytest.mark.timed
def test_a_server_that_says_nothing_is_left_after_the_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        smtp = Smtp(host="127.0.0.1", port=mute.getsockname()[1], security="none", timeout_s=0.3)
        started = time.monotonic()
        (delivery,) = send(NOTICE, Notices(mail_from="n@example.org", mail_to=("a@example.org",), smtp=smtp))
    assert delivery.outcome is Outcome.FAILED
    assert "imed out" in delivery.error
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("address", ["nobody", "a@b\nBcc: c@d", "a@b, c@d", "@"])
def test_an_address_without_meaning_is_refused_before_anything_is_sent(address: str) -> None:
    with pytest.raises(Misconfigured, match="no mail address"):
        channels(Notices(mail_from="n@example.org", mail_to=(address,)))
    with pytest.raises(Misconfigured, match=r"nosuch://"):
        channels(Notices(urls=(SecretStr("nosuch://token"),)))


def test_apprise_posts_and_a_refusal_is_a_failure() -> None:
    got: list[dict[str, str]] = []
    answers = [200, 500]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answers.pop(0))
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Stay quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        config = Notices(urls=(SecretStr(f"json://127.0.0.1:{server.server_port}/token"),))
        with contextlib.closing(contextlib.ExitStack()) as stack:
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            first, second = send(NOTICE, config)[0], send(NOTICE, config)[0]
    assert first.outcome is Outcome.SENT
    assert second.outcome is Outcome.FAILED
    assert (got[0]["title"], got[0]["message"].strip()) == (NOTICE.subject, NOTICE.text.strip())
    assert "token" not in first.channel


def test_a_file_is_appended_and_a_program_gets_the_text_without_a_shell(tmp_path: Path) -> None:
    path, seen = tmp_path / "new" / "notices.txt", tmp_path / "seen"
    script = (
        "import os, sys; stream = open(sys.argv[1], 'a');"
        "stream.write(os.environ['NIGHTGLASS_SUBJECT'] + sys.stdin.read() + sys.argv[2]); stream.close()"
    )
    config = Notices(file=path, command=(sys.executable, "-c", script, str(seen), "$(touch oops); *"))
    for _ in range(2):
        assert {delivery.outcome for delivery in send(NOTICE, config)} == {Outcome.SENT}
    assert path.read_text().count(NOTICE.subject) == 2
    assert seen.read_text() == 2 * (NOTICE.subject + NOTICE.text + "$(touch oops); *")


@pytest.mark.parametrize(
    ("command", "reason"),
    [(("/no/such/program",), "No such file"), ((sys.executable, "-c", "import sys; sys.exit('broke')"), "broke")],
)
def test_a_program_that_fails_says_why(command: tuple[str, ...], reason: str) -> None:
    (delivery,) = send(NOTICE, Notices(command=command))
    assert delivery.outcome is Outcome.FAILED
    assert reason in delivery.error
