"""Configuration: nearest source first, checked whole, every mistake named where it was made."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from taskd.server.addresses import Address
from taskd.server.config import SECTION, ServerConfig
from taskd.server.settings import Milliseconds, load_settings
from taskd_protocol.errors import ConfigInvalid


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no other taskd.toml lies."""
    monkeypatch.chdir(tmp_path)


def load(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> ServerConfig:
    """Load as the command line does."""
    return load_settings(
        ServerConfig,
        SECTION,
        flags=flags or {},
        environ=environ or {},
        file=file,
        defaults={"data_dir": Path("/var/lib/taskd")},
    )


def test_defaults_are_safe() -> None:
    """Loopback, TLS, and no source needed."""
    config = load()
    assert config == ServerConfig(data_dir=Path("/var/lib/taskd"))
    assert config.listen.host == config.http.host == "127.0.0.1"
    assert config.tls
    assert config.settings().retention_age_ms == 7 * 24 * 3600 * 1000
    assert config.settings().key_retention_ms == 24 * 3600 * 1000


def test_flags_over_environment_over_file() -> None:
    """Field by field."""
    Path("taskd.toml").write_text(
        """
        [server]
        listen = "[::1]:1"
        http = "127.0.0.1:2"
        host_names = ["file.example"]
        retention_age = "36h"
        retention_size = 5000000
        key_retention = "48h"
        workflow_nodes_max = 100000
        tls = false
        [agent]
        anything = "is another's"
        """
    )
    environ = {"TASKD_HTTP": "127.0.0.1:3", "TASKD_HOST_NAMES": "a.example,b.example", "TASKD_URL": "not ours"}
    config = load({"host_names": ("flag.example",), "listen": None, "http": None}, environ)
    assert config.listen == Address("::1", 1)
    assert config.http == Address("127.0.0.1", 3)
    assert config.host_names == ("flag.example",)
    assert config.retention_age_ms == 36 * 3600 * 1000
    assert config.retention_bytes == 5_000_000
    assert config.key_retention_ms == 48 * 3600 * 1000
    assert config.settings().workflow_nodes_max == 100_000
    assert not config.tls
    assert load({"host_names": ()}, environ).host_names == ("a.example", "b.example")


def test_a_file_can_be_named() -> None:
    """By flag or environment; its relative paths are relative to it; then it must be there."""
    folder = Path("etc")
    folder.mkdir()
    (folder / "other.toml").write_text('[server]\ndata_dir = "data"\n')
    assert load(file=folder / "other.toml").data_dir == folder / "data"
    assert load(environ={"TASKD_CONFIG": "etc/other.toml"}).data_dir == folder / "data"
    assert load({"data_dir": Path("here")}, file=folder / "other.toml").data_dir == Path("here")
    with pytest.raises(ConfigInvalid, match=r"^--config etc/none\.toml: no such file$"):
        load(file=folder / "none.toml")


def test_every_mistake_is_named_with_its_source() -> None:
    """At once, in one line."""
    Path("taskd.toml").write_text(
        """
        [server]
        htpp = "127.0.0.1:2"
        retention_age = 7
        tls = "maybe"
        payload_max = "1TiB"
        host_names = "one"
        [sever]
        """
    )
    environ = {"TASKD_HEARTBEAT": "1ms", "TASKD_LOG_LEVEL": "loud", "TASKD_WORKFLOW_NODES_MAX": "many"}
    with pytest.raises(ConfigInvalid) as caught:
        load({"listen": "nowhere", "retention_size": "many"}, environ)
    message = caught.value.message
    assert "\n" not in message
    for part in (
        "taskd.toml: [sever] is no section; did you mean 'server'?",
        "taskd.toml: [server] has no 'htpp'; did you mean 'http'?",
        "taskd.toml: [server] retention_age 7 is no duration; write it as",
        "taskd.toml: [server] tls 'maybe': expected `bool`",
        "TASKD_WORKFLOW_NODES_MAX",
        "taskd.toml: [server] payload_max '1TiB' is out of range; it goes from 1KiB to 16MiB",
        "taskd.toml: [server] host_names 'one': expected `array`",
        "TASKD_HEARTBEAT '1ms' is out of range; it goes from 500ms to 1m",
        "TASKD_LOG_LEVEL 'loud' is none of debug, info, warning, error",
        "--listen 'nowhere' is no address",
        "--retention-size 'many' is no size; write it as",
    ):
        assert part in message


def test_output_is_kept_as_long_as_is_said() -> None:
    """By any source; an age and a size of its own beside the tasks'."""
    Path("taskd.toml").write_text('[server]\nlog_retention_age = "2d"\nlog_retention_size = "64MiB"\n')
    settings = load().settings()
    assert (settings.log_retention_age_ms, settings.log_retention_bytes) == (2 * 24 * 3600 * 1000, 64 << 20)
    environ = {"TASKD_LOG_RETENTION_AGE": "3h", "TASKD_LOG_RETENTION_SIZE": "3GiB"}
    settings = load({"log_retention_size": "1MiB"}, environ).settings()
    assert (settings.log_retention_age_ms, settings.log_retention_bytes) == (3 * 3600 * 1000, 1 << 20)
    assert settings.retention_age_ms == 7 * 24 * 3600 * 1000


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("log_retention_age", "0s", "is out of range; it goes from 1m up"),
        ("log_retention_age", "59s", "is out of range; it goes from 1m up"),
        ("log_retention_age", "7", "is no duration; write it as"),
        ("log_retention_age", "for ever", "is no duration; write it as"),
        ("log_retention_size", "0", "is out of range; it goes from 1MiB up"),
        ("log_retention_size", "1023KiB", "is out of range; it goes from 1MiB up"),
        ("log_retention_size", "-1GiB", "is no size; write it as"),
    ],
)
def test_output_is_not_kept_for_nothing_or_no_time(flag: str, value: str, told: str) -> None:
    """In one line that names the flag, or the variable."""
    with pytest.raises(ConfigInvalid) as caught:
        load({flag: value})
    assert caught.value.message.startswith(f"--{flag.replace('_', '-')} {value!r} {told}")
    assert "\n" not in caught.value.message
    with pytest.raises(ConfigInvalid, match=f"^TASKD_{flag.upper()} "):
        load(environ={f"TASKD_{flag.upper()}": value})


@pytest.mark.parametrize("text", ["[server", "server = 1", "[server]\ntls = true\ntls = false", "\0"])
def test_a_file_that_is_none_is_refused(text: str) -> None:
    """With its name."""
    Path("taskd.toml").write_text(text)
    with pytest.raises(ConfigInvalid, match=r"taskd\.toml: "):
        load()


def test_a_folder_is_no_file() -> None:
    """Told as what it is."""
    Path("taskd.toml").mkdir()
    with pytest.raises(ConfigInvalid, match=r"taskd\.toml: Is a directory"):
        load()


def test_a_home_that_nobody_knows_is_refused() -> None:
    """Rather than made, as a folder that is called so."""
    with pytest.raises(ConfigInvalid, match=r"^--data-dir '~nobody-at-all/data': nobody knows that home"):
        load({"data_dir": "~nobody-at-all/data"})


def test_what_must_be_given_is_asked_for() -> None:
    """A field that nothing can stand in for is named by its flag."""

    class Needs(msgspec.Struct):
        names: tuple[str, ...]
        wait: Milliseconds = Milliseconds(1)

    with pytest.raises(ConfigInvalid, match=r"^--name is missing$"):
        load_settings(Needs, "agent", flags={}, environ={})


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("500ms", 500), ("1.5h", 5_400_000), ("2W", 1_209_600_000), (" 90 s ", 90_000)]
)
def test_durations_have_units(text: str, milliseconds: int) -> None:
    """Nobody has to know which unit a number is in."""

    class Waits(msgspec.Struct):
        wait: Milliseconds

    assert load_settings(Waits, "agent", flags={"wait": text}, environ={}).wait == milliseconds
