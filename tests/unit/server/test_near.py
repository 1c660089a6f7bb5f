"""Near: what is quick is done on the loop, what is slow beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest

from taskd.server.near import NEAR_NS, Near

T = TypeVar("T")


@dataclass
class Disk:
    """A clock that rises by what each call takes, and a far place that counts what comes there."""

    now_ns: int = 0
    takes_ns: int = 0
    sent_away: int = 0

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

    async def far(self, work: Callable[[], T], /) -> T:
        self.sent_away += 1
        return work()

    async def calls(self, near: Near, count: int) -> int:
        """Make so many calls; return how many of them went away."""
        before = self.sent_away
        for _ in range(count):
            assert await near(self.work) == "done"
        return self.sent_away - before


async def test_a_quick_disk_is_found_out() -> None:
    """The first calls go to a thread, until it has shown that they need none."""
    disk = Disk(takes_ns=NEAR_NS // 3)
    near = Near(disk.far, disk)
    assert 10 < await disk.calls(near, 50) < 40
    assert await disk.calls(near, 50) == 0


async def test_a_disk_that_becomes_slow_is_left_to_a_thread() -> None:
    """One slow call is enough; it is trusted again when it has been quick for some time."""
    disk = Disk(takes_ns=NEAR_NS // 3)
    near = Near(disk.far, disk)
    await disk.calls(near, 50)
    disk.takes_ns = NEAR_NS * 100
    assert await disk.calls(near, 20) == 19
    disk.takes_ns = NEAR_NS // 3
    assert await disk.calls(near, 40) == 40
    await disk.calls(near, 40)
    assert await disk.calls(near, 10) == 0


async def test_what_fails_is_measured_and_raised() -> None:
    """A call that fails fails for its caller; how long that took counts like any other."""
    disk = Disk(takes_ns=NEAR_NS * 2)
    near = Near(disk.far, disk)

    def refuse() -> None:
        disk.work()
        raise OSError("IO error")

    for _ in range(50):
        with pytest.raises(OSError, match="IO error"):
            await near(refuse)
    assert disk.sent_away == 50
