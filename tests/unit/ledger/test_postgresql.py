"""The same tests again on a real PostgreSQL server of our own, and what only a server can do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from nightglass.errors import Misconfigured, Retryable
from nightglass.ledger import Ledger
from nightglass.ledger.tables import metadata
from nightglass.model import State
from tests.ports import free_port
from tests.unit.ledger.material import arrival, reduced, see
from tests.unit.ledger.test_answers import *  # noqa: F403
from tests.unit.ledger.test_arrivals import *  # noqa: F403
from tests.unit.ledger.test_leases import *  # noqa: F403
from tests.unit.ledger.test_processes import *  # noqa: F403
from tests.unit.ledger.test_stages import *  # noqa: F403

pytestmark = pytest.mark.slow

PATIENCE_S = 120.0


def _programs() -> Path:
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "postgres").exists() and (place / "initdb").exists():
            return place
    pytest.skip("no PostgreSQL server is installed (Debian: postgresql)")


class Server:
    """A private cluster on a loopback port; as root it runs as nobody, because PostgreSQL refuses root."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self.programs = programs
        self.directory = directory
        self.port = free_port()
        self.user = "nobody" if os.getuid() == 0 else None
        if self.user:
            shutil.chown(directory, self.user)
        self._run(["initdb", "-D", "data", "-U", "night", "--auth=trust", "--no-sync", "--locale=C", "-E", "UTF8"])

    @property
    def url(self) -> str:
        return f"postgresql://night@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=50"]
        command = [str(self.programs / "postgres"), "-D", "data", "-p", str(self.port), "-k", str(self.directory)]
        log = (self.directory / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [*command, *options], cwd=self.directory, user=self.user, stdout=log, stderr=log
            )
        end = time.monotonic() + PATIENCE_S
        while not self._answers():
            if time.monotonic() > end or self.process.poll() is not None:
                pytest.fail(f"PostgreSQL did not start: {(self.directory / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # fast shutdown: clients are cut off
        self.process.wait(PATIENCE_S)

    def empty(self) -> None:
        engine = create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"))
        metadata.drop_all(engine)
        engine.dispose()

    def _answers(self) -> bool:
        import psycopg  # not at the top: without the driver these tests are skipped

        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, command: list[str]) -> None:
        program = [str(self.programs / command[0]), *command[1:]]
        subprocess.run(program, cwd=self.directory, user=self.user, check=True, capture_output=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    programs = _programs()
    # not below pytest's own directory, which only its user may enter
    with tempfile.TemporaryDirectory(prefix="night-pg-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        made = Server(programs, Path(directory))
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture
def ledger_url(server: Server) -> str:
    server.empty()
    return server.url


def test_two_hosts_share_a_ledger(ledger_url: str) -> None:
    with Ledger.open(ledger_url) as here, Ledger.open(ledger_url) as there:
        (name,) = reduced(here, 1)
        assert there.find(name).state is State.REDUCED
        assert "night@127.0.0.1" in there.name


def test_a_writer_that_holds_the_ledger_too_long_makes_others_retry(ledger_url: str) -> None:
    with Ledger.open(ledger_url, busy_timeout_s=0.2) as ledger:
        entry = see(ledger, arrival(1))
        with ledger._store.write(), pytest.raises(Retryable, match=r"was locked for longer than 0\.2 s"):
            see(ledger, arrival(2))
        assert ledger.find(entry.key) == entry


def test_another_schema_version_is_refused(ledger_url: str) -> None:
    with Ledger.open(ledger_url) as ledger, ledger._store.write() as transaction:
        transaction.connection.execute(text("UPDATE ng_meta SET value = '0'"))
    with pytest.raises(Misconfigured, match="schema version 0"):
        Ledger.open(ledger_url)


def test_a_server_that_restarts_costs_a_retry(server: Server, ledger_url: str) -> None:
    with Ledger.open(ledger_url) as ledger:
        see(ledger, arrival(1))
        server.stop()
        with pytest.raises(Retryable):
            see(ledger, arrival(2))
        with pytest.raises(Retryable):
            Ledger.open(ledger_url)
        server.start()
        assert see(ledger, arrival(2)).state is State.SEEN
