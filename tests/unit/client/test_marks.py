import stat
from pathlib import Path

import pytest

from taskd.client.marks import KEEP_EVERY_S, MarkKeeper
from taskd.client.profile import Profile
from taskd_protocol.mark import Mark

PROFILE = Profile(name="shop", address="127.0.0.1:7070", token="t")


def mark(sequence: int, lineage: bytes = b"l" * 16) -> Mark:
    return Mark(lineage, sequence, b"m" * 32)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "taskd"


def test_the_next_process_is_told_the_newest_mark(config: Path) -> None:
    """In a small file of its owner's, one a profile."""
    assert MarkKeeper(PROFILE).read() is None
    MarkKeeper(PROFILE).keep_last(mark(7))
    assert MarkKeeper(PROFILE).read() == mark(7)
    [kept] = (config / "marks").iterdir()
    assert (kept.name, stat.S_IMODE(kept.stat().st_mode)) == ("shop.json", 0o600)
    assert kept.stat().st_size < 200


def test_an_older_mark_does_not_replace_what_another_process_was_told(config: Path) -> None:
    """But one of another lineage does: the server was restored."""
    del config
    slow, quick = MarkKeeper(PROFILE), MarkKeeper(PROFILE)
    quick.keep_last(mark(9))
    slow.keep_last(mark(8))
    assert slow.read() == mark(9)
    slow.keep_last(mark(1, b"n" * 16))
    assert quick.read() == mark(1, b"n" * 16)


def test_a_busy_process_writes_once_in_a_while(config: Path) -> None:
    """However many commits it is told of; the last one when it ends."""
    keeper = MarkKeeper(PROFILE)
    for n in range(100):
        keeper.keep(mark(n), now_s=100 + n * KEEP_EVERY_S / 100)
    assert MarkKeeper(PROFILE).read() == mark(0)
    keeper.keep(mark(100), now_s=100 + KEEP_EVERY_S)
    assert MarkKeeper(PROFILE).read() == mark(100)
    keeper.keep_last(mark(101))
    assert MarkKeeper(PROFILE).read() == mark(101)
    assert len(list((config / "marks").iterdir())) == 1


def test_a_server_without_a_profile_leaves_no_file(config: Path) -> None:
    keeper = MarkKeeper(Profile(address="127.0.0.1:7070", token="t"))
    keeper.keep_last(mark(1))
    assert keeper.read() is None
    assert not config.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b'["x",1,"y"]', b"\xff"])
def test_a_damaged_file_is_passed_over_and_replaced(config: Path, content: bytes) -> None:
    (config / "marks").mkdir(parents=True)
    (config / "marks" / "shop.json").write_bytes(content)
    keeper = MarkKeeper(PROFILE)
    assert keeper.read() is None
    keeper.keep_last(mark(3))
    assert keeper.read() == mark(3)


def test_a_folder_that_cannot_be_written_troubles_nobody(config: Path) -> None:
    config.write_bytes(b"")
    keeper = MarkKeeper(PROFILE)
    keeper.keep_last(mark(3))
    assert keeper.read() is None
