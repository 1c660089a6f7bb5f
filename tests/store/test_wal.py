"""The look at a log before RocksDB reads it."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.store import wal
from taskd_protocol.errors import StoreCorrupt


def record(piece: int, length: int) -> bytes:
    return struct.pack("<IHB", 7, length, piece) + b"p" * length


def log_of(lengths: list[int]) -> bytes:
    """Lay out records as RocksDB does: none spans a block, what is too short for a header stays empty."""
    log = b""
    for length in lengths:
        left = wal.BLOCK_BYTES - len(log) % wal.BLOCK_BYTES
        if left < 7:
            log += bytes(left)
            left = wal.BLOCK_BYTES
        log += record(1, min(length, left - 7))
    return log


def damage_of(folder: Path, log: bytes) -> int | None:
    file = folder / "000001.log"
    file.write_bytes(log)
    return wal.first_damage(file)


@given(lengths=st.lists(st.integers(0, 40_000), max_size=8), cut=st.integers(0, 60_000))
def test_a_torn_log_is_no_damaged_one(tmp_path_factory: pytest.TempPathFactory, lengths: list[int], cut: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    log = log_of(lengths)
    assert damage_of(folder, log) is None
    assert damage_of(folder, log[:cut]) is None
    assert damage_of(folder, log + bytes(cut)) is None


@given(lengths=st.lists(st.integers(0, 9_000), min_size=1, max_size=8), data=st.data())
def test_a_header_that_cannot_be_one_is_found(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    before, after = log_of(lengths), log_of([100, 100])
    piece = data.draw(st.integers(5, 255))
    left = wal.BLOCK_BYTES - len(before) % wal.BLOCK_BYTES
    padding = bytes(left) if left < 7 else b""
    damaged = before + padding + record(piece, 3) + after
    assert damage_of(folder, damaged) == len(before) + len(padding)


def test_a_record_beyond_its_block_is_found(tmp_path: Path) -> None:
    overlong = struct.pack("<IHB", 7, wal.BLOCK_BYTES - 7 + 1, 1)
    assert damage_of(tmp_path, record(1, 20) + overlong + bytes(2 * wal.BLOCK_BYTES)) == 27
    assert damage_of(tmp_path, record(0, 5)) == 0
    assert damage_of(tmp_path, b"") is None


def test_damage_is_named_with_its_log_and_place(tmp_path: Path) -> None:
    (tmp_path / "000001.log").write_bytes(record(1, 5))
    wal.check_logs(tmp_path, "do this")
    (tmp_path / "000002.log").write_bytes(record(1, 5) + record(99, 5))
    with pytest.raises(StoreCorrupt, match=r"000002\.log is damaged at byte 12; do this"):
        wal.check_logs(tmp_path, "do this")


@given(st.binary(max_size=3 * 1024), st.integers(0, wal.BLOCK_BYTES))
def test_blanked_damage_is_none_any_more(tmp_path_factory: pytest.TempPathFactory, garbage: bytes, length: int) -> None:
    file = tmp_path_factory.getbasetemp() / "000003.log"
    before = log_of([length])
    file.write_bytes(before + garbage + bytes(wal.BLOCK_BYTES) + garbage)
    wal.blank_damage(file)
    assert wal.first_damage(file) is None
    assert file.read_bytes().startswith(before)
