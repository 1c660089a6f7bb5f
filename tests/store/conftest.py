"""Every store that the suite runs over."""

from pathlib import Path

import pytest

from store.houses import House, MemoryHouse, RocksHouse


@pytest.fixture(params=["memory", "rocksdb"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    return MemoryHouse() if request.param == "memory" else RocksHouse(tmp_path)
