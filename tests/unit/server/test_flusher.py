"""The flusher: a quick disk is waited for on the spot, a slow one is come back to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest

from taskd.server.flusher import QUICK_NS, Flusher

T = TypeVar("T")


@dataclass
class Disk:
    """A clock that rises by what each call takes, and a thread that counts the calls not thought to be quick."""

    now_ns: int = 0
    takes_ns: int = 0
    come_back_to: int = 0

    def mono_ns(self) -> int:
        return self.now_ns

    def wall_ms(self) -> int:
        return 0

    def cpu_ns(self) -> int:
        return 0

    def thread_cpu_ns(self) -> int:
        return 0

    def work(self) -> str:
        self.now_ns += self.takes_ns
        return "done"

    async def run(self, work: Callable[[], T], *, is_quick: bool, waits: Callable[[], None]) -> T:
        if not is_quick:
            waits()
            self.come_back_to += 1
        return work()

    async def calls(self, flusher: Flusher, count: int) -> int:
        """Make so many calls; return how many of them were come back to."""
        before = self.come_back_to
        for _ in range(count):
            assert await flusher(self.work) == "done"
        return self.come_back_to - before


async def test_a_quick_disk_is_found_out() -> None:
    """The first calls are come back to, until they have shown to be quick."""
    disk = Disk(takes_ns=QUICK_NS // 3)
    flusher = Flusher(disk, disk)
    assert 10 < await disk.calls(flusher, 50) < 40
    assert await disk.calls(flusher, 50) == 0


async def test_a_disk_that_becomes_slow_is_come_back_to() -> None:
    """One slow call is enough; it is trusted again when it has been quick for some time."""
    disk = Disk(takes_ns=QUICK_NS // 3)
    flusher = Flusher(disk, disk)
    await disk.calls(flusher, 50)
    disk.takes_ns = QUICK_NS * 100
    assert await disk.calls(flusher, 20) == 19
    disk.takes_ns = QUICK_NS // 3
    assert await disk.calls(flusher, 40) == 40
    await disk.calls(flusher, 40)
    assert await disk.calls(flusher, 10) == 0


async def test_what_fails_is_measured_and_raised() -> None:
    """A call that fails fails for its caller; how long that took counts like any other."""
    disk = Disk(takes_ns=QUICK_NS * 2)
    flusher = Flusher(disk, disk)

    def refuse() -> None:
        disk.work()
        raise OSError("IO error")

    for _ in range(50):
        with pytest.raises(OSError, match="IO error"):
            await flusher(refuse)
    assert disk.come_back_to == 50
