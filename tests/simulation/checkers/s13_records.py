"""S13, S14: whenever a server starts, indexes and counters agree with the tasks."""

from typing import TYPE_CHECKING

from harness.core import Disk, Value
from harness.fsck import check_disk
from simulation.checkers.checker import Checker
from taskd.core.records import META, READERS
from taskd.store import codec
from taskd.store.keys import split_key

if TYPE_CHECKING:
    from simulation.world import World


class Records(Checker):
    """Derives every index again from what is on the disk."""

    promise = "S13/S14"

    def recovered(self) -> None:
        self._check()

    def finished(self) -> None:
        self._check()

    def _check(self) -> None:
        try:
            check_disk(read_disk(self.world))
        except AssertionError as error:
            self.broken(f"the disk contradicts itself: {error}")


def read_disk(world: "World") -> Disk:
    """Return what is on the server's disk, as records."""
    disk = Disk()
    for key, value in world.server.disk._values.items():
        kind, record_id = split_key(key)
        record: Value = codec.decode(kind, record_id, value) if kind == META or kind in READERS else value
        disk.values[kind, record_id] = record
    return disk
