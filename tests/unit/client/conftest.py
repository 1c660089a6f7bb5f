"""What the client's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskd import App
from taskd.server.certificates import Certificates, open_certificates
from taskd.server.clock import SystemClock
from unit.client.faces import FACES, Face
from unit.client.fake_server import FakeServer


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty configuration of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("TASKD_URL", raising=False)
    return tmp_path


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.stop()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA and a server certificate for 127.0.0.1."""
    return open_certificates(tmp_path_factory.mktemp("server"), ["127.0.0.1"], SystemClock().wall_ms())


@pytest.fixture
def secure(certificates: Certificates, tmp_path: Path) -> Iterator[FakeServer]:
    """A server with TLS; its URL names the CA's file."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(certificates.ca_pem)
    fake = FakeServer(certificates.context, ca_file=ca_file)
    yield fake
    fake.stop()


@pytest.fixture
def app(server: FakeServer) -> Iterator[App]:
    made = App(server.url, submit_timeout=10)
    yield made
    made.close()


@pytest.fixture(params=FACES, ids=repr)
def face(request: pytest.FixtureRequest) -> Face:
    chosen = request.param
    assert isinstance(chosen, Face)
    return chosen
