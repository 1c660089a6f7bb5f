"""What the tests of the command line share: the program run in this process, with folders and a server of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from taskd.cli import connection, program
from taskd.client.profile import Profile, save
from unit.cli.fake_client import TOKEN, Ended, FakeClient, Taskd


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folders of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TASKD_URL", raising=False)
    return tmp_path


@pytest.fixture
def taskd(capfd: pytest.CaptureFixture[str]) -> Iterator[Taskd]:
    """Run `taskd WORDS…` in this process; what it makes of the log is of this test alone."""

    def run(*words: str) -> Ended:
        code = program.run(words)
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    before = structlog.get_config()
    yield run
    structlog.configure(**before)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """A server that is known here, and a client that answers for it."""
    save(Profile(address="127.0.0.1:7070", token=TOKEN, data_dir="/srv/taskd"))
    fake = FakeClient()

    def make(profile: Profile) -> FakeClient:
        fake.profile = profile
        return fake

    monkeypatch.setattr(connection, "Client", make)
    return fake
