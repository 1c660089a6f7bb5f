"""Profiles: where they lie, who may read them, which one is in use, and what is said when there is none."""

import stat
from pathlib import Path

import msgspec
import pytest

from taskd.client import profile
from taskd.client.profile import Profile
from taskd_protocol.errors import AddressInsecure, ConfigInvalid

CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def facts(tmp_path: Path, port: int = 7000, data_dir: str = "a") -> Profile:
    folder = tmp_path / data_dir
    folder.mkdir(exist_ok=True)
    return Profile(address=f"127.0.0.1:{port}", token="secret", ca_pem=CA, http="http://x", data_dir=str(folder))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_profile_is_the_one_in_use(home: Path) -> None:
    saved = profile.save(facts(home))
    assert saved.name == "default"
    assert profile.resolve() == saved
    assert (saved.host, saved.port) == ("127.0.0.1", 7000)


def test_only_its_owner_can_read_it(home: Path) -> None:
    profile.save(facts(home))
    folder = home / "config" / "taskd"
    assert mode(folder) == 0o700
    assert mode(folder / "profiles") == 0o700
    assert mode(folder / "profiles" / "default.json") == 0o600


def test_a_second_server_does_not_overwrite_the_first(home: Path) -> None:
    """It gets a name of its own, and the first stays in use."""
    first = profile.save(facts(home))
    second = profile.save(facts(home, 7001, "b"))
    assert second.name == "b"
    assert profile.resolve() == first
    assert profile.profiles() == [second, first]


def test_a_server_that_starts_again_replaces_its_own(home: Path) -> None:
    profile.save(facts(home))
    profile.save(facts(home, 7001, "b"))
    again = profile.save(facts(home, 7002, "b"))
    assert again.name == "b"
    assert [one.address for one in profile.profiles()] == ["127.0.0.1:7002", "127.0.0.1:7000"]


def test_servers_of_folders_with_one_name_get_different_profiles(home: Path) -> None:
    for folder in ("x", "y", "z"):
        (home / folder).mkdir()
    names = [profile.save(facts(home, 7000 + index, f"{folder}/data")).name for index, folder in enumerate("xyz")]
    assert names == ["default", "data", "data-2"]


def test_a_profile_whose_server_is_gone_is_not_in_use_any_more(home: Path) -> None:
    profile.save(facts(home))
    (home / "a").rmdir()
    second = profile.save(facts(home, 7001, "b"))
    assert profile.current_name() == second.name


def test_a_server_that_took_anothers_address_is_the_one_in_use(home: Path) -> None:
    """`taskd server` after `taskd dev`, and the other way round: the one that runs is meant."""
    first = profile.save(facts(home))
    second = profile.save(facts(home, data_dir="b"))
    assert profile.resolve() == second
    assert profile.save(first) == profile.resolve() == first


def test_what_says_nothing_new_is_not_written(home: Path) -> None:
    saved = profile.save(facts(home))
    path = home / "config" / "taskd" / "profiles" / "default.json"
    before = path.stat()
    assert profile.save(saved) == saved
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_another_profile_can_be_chosen(home: Path) -> None:
    profile.save(facts(home))
    second = profile.save(facts(home, 7001, "b"))
    assert profile.use("b") == second
    assert profile.resolve() == second
    assert profile.resolve(name="default").address == "127.0.0.1:7000"
    with pytest.raises(ConfigInvalid, match="known are b, default"):
        profile.use("c")


def test_a_url_stands_above_the_environment_and_that_above_the_profile(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile.save(facts(home))
    monkeypatch.setenv("TASKD_URL", "taskd+tcp://one@127.0.0.1:1")
    assert profile.resolve().token == "one"
    assert profile.resolve("taskd+tcp://two@127.0.0.1:2").token == "two"


def test_without_any_the_error_says_what_to_do() -> None:
    with pytest.raises(
        ConfigInvalid, match=r"`taskd dev` or `taskd server`.*TASKD_URL=taskd://TOKEN@HOST:PORT"
    ) as caught:
        profile.resolve()
    assert "\n" not in caught.value.message


def test_a_url_says_it_all(home: Path) -> None:
    (home / "ca.pem").write_text(CA)
    found = profile.from_url(f"taskd://taskd_client_k_s%2B_c@[::1]:7000?ca={home}/ca.pem")
    assert (found.host, found.port, found.token, found.ca_pem) == ("::1", 7000, "taskd_client_k_s+_c", CA)
    assert found.address == "[::1]:7000"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://t@h:1", "scheme"),
        ("taskd://t@h", "host and port"),
        ("taskd://t@h:99999", "no URL"),
        ("taskd://h:1", "no token"),
        ("taskd://t@h:1?ca=/nowhere.pem", "No such file"),
        ("h:1", "scheme"),
        ("taskd://t@[::1:1", "no URL"),
    ],
)
def test_a_wrong_url_is_refused_without_showing_its_token(url: str, words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words) as caught:
        profile.from_url(url.replace("t@", "geheim@"))
    assert "geheim" not in caught.value.message


def test_a_ca_file_that_holds_none_is_refused(home: Path) -> None:
    (home / "ca.pem").write_text("hello")
    with pytest.raises(ConfigInvalid, match="no certificate"):
        profile.from_url(f"taskd://t@h:1?ca={home}/ca.pem")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_plain_tcp_goes_to_loopback(host: str) -> None:
    assert not profile.from_url(f"taskd+tcp://t@{host}:1").tls


def test_plain_tcp_goes_nowhere_else(home: Path) -> None:
    with pytest.raises(AddressInsecure, match="loopback"):
        profile.from_url("taskd+tcp://t@192.0.2.1:1")
    with pytest.raises(AddressInsecure, match="loopback"):
        profile.save(msgspec.structs.replace(facts(home), address="192.0.2.1:1", tls=False))


def test_a_damaged_profile_is_named(home: Path) -> None:
    profile.save(facts(home))
    path = home / "config" / "taskd" / "profiles" / "default.json"
    path.write_text('{"address": 5}')
    with pytest.raises(ConfigInvalid, match=r"default\.json is damaged"):
        profile.resolve()
    assert profile.profiles() == []
    assert profile.save(facts(home, 7001, "b")).name != "default", "what cannot be read is not overwritten"


def test_a_profile_of_a_newer_taskd_can_be_read(home: Path) -> None:
    profile.save(facts(home))
    path = home / "config" / "taskd" / "profiles" / "default.json"
    path.write_text(path.read_text().replace("{", '{"later": [1],', 1))
    assert profile.resolve().token == "secret"


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "x" * 65])
def test_a_name_cannot_leave_the_folder(name: str) -> None:
    with pytest.raises(ConfigInvalid, match="not allowed"):
        profile.load(name)


def test_a_folder_that_cannot_be_written_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "file"))
    with pytest.raises(ConfigInvalid, match="XDG_CONFIG_HOME"):
        profile.save(facts(home))


def test_a_relative_configuration_folder_is_passed_over(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(home))
    assert profile.config_dir() == home / ".config" / "taskd"


def test_the_token_is_not_shown(home: Path) -> None:
    assert "secret" not in repr(facts(home))


def test_a_user_without_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than given a folder that is called `~`."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown_user)
    with pytest.raises(ConfigInvalid, match="set HOME, or XDG_CONFIG_HOME"):
        profile.resolve()


def unknown_user(uid: int) -> None:
    raise KeyError(uid)
