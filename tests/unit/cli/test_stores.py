import json
import secrets
from pathlib import Path

import pytest
import trio

from taskd.server.datadir import open_data_dir
from taskd.server.platform import system_platform
from taskd.store.rocksdb import open_store
from unit.cli.fake_client import Taskd


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory with an empty store, closed."""
    opened = open_data_dir(tmp_path / "data", secrets.token_bytes)

    async def make() -> None:
        store = open_store(opened.store, offload=system_platform().offload, new_lineage=bytes(16))
        await store.close()

    trio.run(make)
    opened.close()
    return opened.root


@pytest.mark.parametrize("word", ["fsck", "recover"])
def test_a_folder_that_is_no_data_directory(word: str, taskd: Taskd, tmp_path: Path) -> None:
    """It is left as it was."""
    ended = taskd(word, "--data-dir", str(tmp_path / "nothing"))
    assert ended.code == 2
    assert "--data-dir" in ended.complaint
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("word", ["fsck", "recover"])
def test_a_data_directory_in_use_is_73(word: str, taskd: Taskd, data_dir: Path) -> None:
    opened = open_data_dir(data_dir, secrets.token_bytes)
    try:
        ended = taskd(word, "--data-dir", str(data_dir))
    finally:
        opened.close()
    assert (ended.code, ended.out) == (73, "")


def test_a_whole_store(taskd: Taskd, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = taskd("fsck", "--data-dir", str(data_dir), "--json")
    report = json.loads(ended.out)
    assert (ended.code, report["clean"], report["findings"], report["tasks"]) == (0, True, [], {})
    monkeypatch.setenv("TASKD_DATA_DIR", str(data_dir))
    assert taskd("fsck").out.startswith("no tasks, as of commit ")


def test_a_store_that_opens_needs_no_recovery(taskd: Taskd, data_dir: Path) -> None:
    ended = taskd("recover", "--data-dir", str(data_dir), "--accept-loss", "--json")
    report = json.loads(ended.out)
    assert (ended.code, report["needed"], report["recovered"], report["lost"]) == (0, False, False, [])


def test_a_damaged_store_is_65(taskd: Taskd, data_dir: Path) -> None:
    """Which file is hit does not matter: it is refused, and not served shorter."""
    (data_dir / "store" / "CURRENT").write_text("MANIFEST-999999\n")
    assert taskd("fsck", "--data-dir", str(data_dir)).code == 65
