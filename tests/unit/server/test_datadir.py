"""The data directory: made once, ours alone, and nobody else's by mistake."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from taskd.server.datadir import open_data_dir, write_durably
from taskd_protocol.errors import ConfigInvalid, DataDirInUse


def test_the_first_start_makes_it(tmp_path: Path) -> None:
    """Parents too, closed to others, with a key for commit marks that later starts find again."""
    root = tmp_path / "a" / "b"
    opened = open_data_dir(root, os.urandom)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "mark.key").stat().st_mode) == 0o600
    assert len(opened.mark_key) == 32
    opened.close()
    again = open_data_dir(root, os.urandom)
    assert again.mark_key == opened.mark_key
    again.close()


def test_a_directory_open_to_others_is_closed(tmp_path: Path) -> None:
    """Secrets live in it, however it was made."""
    root = tmp_path / "open"
    root.mkdir(mode=0o755)
    open_data_dir(root, os.urandom).close()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_a_second_opener_is_refused_by_name(tmp_path: Path) -> None:
    """The refusal names the process that has it; once that is gone, the directory is free."""
    first = open_data_dir(tmp_path / "d", os.urandom)
    with pytest.raises(DataDirInUse, match=f"process {os.getpid()}; stop it"):
        open_data_dir(tmp_path / "d", os.urandom)
    first.close()
    open_data_dir(tmp_path / "d", os.urandom).close()


def test_another_process_is_refused_until_this_one_ends(tmp_path: Path) -> None:
    """The lock goes with the process that held it, however it ended."""
    code = f"""
import os, sys
from pathlib import Path
from taskd.server.datadir import open_data_dir
open_data_dir(Path({str(tmp_path / "d")!r}), os.urandom)
print("open", flush=True)
sys.stdin.read()
"""
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(DataDirInUse, match=f"process {holder.pid};"):
            open_data_dir(tmp_path / "d", os.urandom)
        holder.kill()
    open_data_dir(tmp_path / "d", os.urandom).close()


def test_other_peoples_directories_are_left_alone(tmp_path: Path) -> None:
    """A slip in --data-dir changes nothing, not even a mode."""
    root = tmp_path / "home"
    root.mkdir(mode=0o755)
    (root / "thesis.tex").touch()
    with pytest.raises(ConfigInvalid, match=r"holds 'thesis\.tex' and no taskd data; choose an empty directory"):
        open_data_dir(root, os.urandom)
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    assert [path.name for path in root.iterdir()] == ["thesis.tex"]


def test_a_file_system_of_its_own_is_taken(tmp_path: Path) -> None:
    """It is not empty when it has just been made."""
    (tmp_path / "lost+found").mkdir()
    open_data_dir(tmp_path, os.urandom).close()
    assert (tmp_path / "mark.key").exists()


def test_a_first_start_cut_short_is_taken_up(tmp_path: Path) -> None:
    """Whatever of our own files a crash left, the next start goes on."""
    root = tmp_path / "d"
    root.mkdir()
    (root / "lock").touch()
    (root / "mark.key.new").write_bytes(b"half")
    opened = open_data_dir(root, os.urandom)
    assert len(opened.mark_key) == 32
    opened.close()


@pytest.mark.parametrize("key", [None, b"", b"short"])
def test_a_store_without_its_mark_key_is_refused(tmp_path: Path, key: bytes | None) -> None:
    """A new key would hide from every peer that the store was rolled back."""
    root = tmp_path / "d"
    (root / "store").mkdir(parents=True)
    (root / "store" / "CURRENT").touch()
    if key is not None:
        (root / "mark.key").write_bytes(key)
    with pytest.raises(ConfigInvalid, match=r"mark\.key is missing or damaged beside a store; restore it"):
        open_data_dir(root, os.urandom)
    (root / "mark.key").write_bytes(bytes(32))
    open_data_dir(root, os.urandom).close()  # and the refusal left no lock behind


def test_nonsense_is_refused(tmp_path: Path) -> None:
    """A file, or a place where nothing can be made, is a bad configuration, told in one line."""
    file = tmp_path / "file"
    file.touch()
    for root in (file, file / "under", Path("/proc/taskd")):
        with pytest.raises(ConfigInvalid, match="choose another") as caught:
            open_data_dir(root, os.urandom)
        assert "\n" not in caught.value.message


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """The mode is the new one from the first byte on, and nothing is left beside it."""
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(0o644)
    (tmp_path / "secret.new").write_bytes(b"left by a crash")
    write_durably(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]
